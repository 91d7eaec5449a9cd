"""Tables: the port through which rules read the ledger, and the overlays in which a block is tried.

A rule reads a `Table`. Storage implements it over final blocks; an `OverlayTable` holds what an unfinal block wrote
above any other table, so that trying a block costs what it writes, and dropping it costs nothing.

Keys are ordered by `key_bytes`, the same in every implementation: that order reaches the ledger root.
"""

from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

from bridge.bitcoin.identifiers import OutPoint

K = TypeVar("K", bound=OutPoint | int | bytes)
V = TypeVar("V")
V_co = TypeVar("V_co", covariant=True)


def key_bytes(key: OutPoint | int | bytes) -> bytes:
    """What a key is ordered and stored by: an outpoint's 36 bytes, a number as 8 bytes big-endian, a hash as it is."""
    if isinstance(key, OutPoint):
        return key.encode()
    if isinstance(key, int):
        return key.to_bytes(8, "big")
    return key


class Table(Protocol[K, V_co]):
    """A map that rules may read. While `items` is being read, nothing may be written below it."""

    def get(self, key: K, /) -> V_co | None:
        """The value under `key`, or None."""

    def items(self) -> Iterator[tuple[K, V_co]]:
        """Every key with its value, in the order of `key_bytes`."""

    def __contains__(self, key: K, /) -> bool: ...


class MemoryTable(Generic[K, V]):
    """A table in memory: the root below a genesis or a test."""

    __slots__ = ("_values",)

    def __init__(self) -> None:
        self._values: dict[K, V] = {}

    def put(self, key: K, value: V) -> None:
        """Set the value under `key`."""
        self._values[key] = value

    def delete(self, key: K) -> None:
        """Remove `key`, which may be absent."""
        self._values.pop(key, None)

    def get(self, key: K, /) -> V | None:
        """The value under `key`, or None."""
        return self._values.get(key)

    def items(self) -> Iterator[tuple[K, V]]:
        """Every key with its value, in the order of `key_bytes`."""
        return iter(sorted(self._values.items(), key=_order))

    def __contains__(self, key: K, /) -> bool:
        return key in self._values


class OverlayTable(Generic[K, V]):
    """Writes above a base table, which stays as it is.

    writes: what was put here, and None for what was deleted; the order of its keys means nothing.
    """

    __slots__ = ("_base", "writes")

    def __init__(self, base: Table[K, V]) -> None:
        self._base = base
        self.writes: dict[K, V | None] = {}

    def put(self, key: K, value: V) -> None:
        """Set the value under `key`."""
        self.writes[key] = value

    def delete(self, key: K) -> None:
        """Remove `key`, which may be absent."""
        self.writes[key] = None

    def get(self, key: K, /) -> V | None:
        """The value under `key`, or None."""
        if key in self.writes:
            return self.writes[key]
        return self._base.get(key)

    def items(self) -> Iterator[tuple[K, V]]:
        """Every key with its value, in the order of `key_bytes`: the base's and the overlay's, merged."""
        base = self._base.items()
        if not self.writes:
            return base
        return self._merged(base)

    def _merged(self, base: Iterator[tuple[K, V]]) -> Iterator[tuple[K, V]]:
        written = sorted((key_bytes(key), key, value) for key, value in self.writes.items() if value is not None)
        position = 0
        for key, value in base:
            if key in self.writes:
                continue
            here = key_bytes(key)
            while position < len(written) and written[position][0] < here:
                yield written[position][1:]
                position += 1
            yield key, value
        for _, key, value in written[position:]:
            yield key, value

    def __contains__(self, key: K, /) -> bool:
        return self.get(key) is not None

    def absorb(self, above: "OverlayTable[K, V]") -> None:
        """Take over the writes of an overlay whose base is this one."""
        self.writes.update(above.writes)


def _order(item: tuple[K, V]) -> bytes:
    return key_bytes(item[0])
