"""Many small rows by key, in little memory: what a block of L1 told, until it leaves the window.

A row is a key of 32 bytes, the height of its block and some further values, packed. Rows lie in buckets of consecutive
bytes, so that a row costs its own bytes and an eighth more, and finding a key is a search of one bucket. In a bucket
they are in the order of their heights, since rows are only added at the greatest height. Those that are too old count
no more at once, and make room when something is added to their bucket: looking through all buckets would take long.
Which bucket a key is in differs from process to process: nobody can fill one on purpose.
"""

import struct
from collections.abc import Iterator
from typing import Any, Final

KEY_SIZE: Final = 32
BUCKETS: Final = 1 << 14


class PackedRows:
    """Rows of a key, a height (u32), and what `layout` says: codes of `struct` without byte order."""

    def __init__(self, layout: str = "") -> None:
        self._row = struct.Struct(f"<{KEY_SIZE}sI{layout}")
        self._buckets: dict[int, bytearray] = {}
        self._least_height = 0

    def add(self, key: bytes, height: int, *values: object) -> None:
        """Add a row. height: not below that of any row."""
        bucket = self._buckets.setdefault(hash(key) % BUCKETS, bytearray())
        bucket.extend(self._row.pack(key, height, *values))
        old = 0
        while self._height(bucket, old) < self._least_height:
            old += self._row.size
        if old:
            del bucket[:old]

    def find(self, key: bytes) -> Iterator[tuple[Any, ...]]:
        """The height and the values of each row with this key, in the order in which they were added."""
        bucket = self._buckets.get(hash(key) % BUCKETS, b"")
        at = bucket.find(key)
        while at >= 0:
            if at % self._row.size == 0 and self._height(bucket, at) >= self._least_height:
                yield self._row.unpack_from(bucket, at)[1:]
            at = bucket.find(key, at + 1)

    def forget_below(self, height: int) -> None:
        """Forget the rows of all heights below this one, for good."""
        self._least_height = height

    def pop_top(self, height: int) -> list[tuple[bytes, tuple[Any, ...]]]:
        """Remove the rows of the greatest height: keys with values, those of one key in the order they were added."""
        removed: list[tuple[bytes, tuple[Any, ...]]] = []
        for bucket in self._buckets.values():
            start = len(bucket)
            while start and self._height(bucket, start - self._row.size) == height:
                start -= self._row.size
            removed += ((key, tuple(values)) for key, _, *values in self._row.iter_unpack(bucket[start:]))
            del bucket[start:]
        return removed

    def clear(self) -> None:
        """Remove all rows, as at first."""
        self._buckets.clear()
        self._least_height = 0

    def _height(self, bucket: bytes | bytearray, at: int) -> int:
        return int.from_bytes(bucket[at + KEY_SIZE : at + KEY_SIZE + 4], "little")
