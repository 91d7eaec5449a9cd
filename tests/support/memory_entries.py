"""A journal's entries in memory, with what a failure of power would leave of them."""

from collections.abc import Mapping


class MemoryEntries:
    """Entries in memory: `lose_unsynced` is a power failure, after which they may be opened again."""

    def __init__(self) -> None:
        self._values: dict[bytes, bytes] = {}
        self._synced: dict[bytes, bytes] = {}

    def get(self, key: bytes) -> bytes | None:
        """The value of `key`."""
        return self._values.get(key)

    def scan(self, first: bytes, last: bytes) -> list[tuple[bytes, bytes]]:
        """The entries with first <= key <= last, in order of keys."""
        return sorted((key, value) for key, value in self._values.items() if first <= key <= last)

    def write(self, changes: Mapping[bytes, bytes | None], *, sync: bool) -> None:
        """Put and delete."""
        for key, value in changes.items():
            if value is None:
                self._values.pop(key, None)
            else:
                self._values[key] = value
        if sync:
            self._synced = dict(self._values)

    def close(self) -> None:
        """Nothing to let go of."""

    def lose_unsynced(self) -> None:
        """Go back to what the last synced write left."""
        self._values = dict(self._synced)
