"""Choices made by a fuzzer's bytes: the same bytes make the same choices, with any engine and with none."""

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

_EDGES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF, 2**63 - 1, 2**63, 2**64 - 1)


class Chooser:
    """Takes bytes off the front of `data`. When they run out every choice is the first one, so that input ends."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def __bool__(self) -> bool:
        """Whether bytes are left."""
        return self._position < len(self._data)

    def take(self, size: int) -> bytes:
        """The next `size` bytes, padded with zeros."""
        chunk = self._data[self._position : self._position + size]
        self._position += size
        return chunk.ljust(size, b"\x00")

    def rest(self) -> bytes:
        """All that is left."""
        chunk = self._data[self._position :]
        self._position = len(self._data)
        return chunk

    def below(self, bound: int) -> int:
        """A number from 0 to `bound` - 1; bound: up to 65,536."""
        return int.from_bytes(self.take(1 if bound <= 256 else 2), "little") % bound

    def pick(self, options: Sequence[T]) -> T:
        """One of `options`."""
        return options[self.below(len(options))]

    def number(self, near: int, width: int) -> int:
        """An unsigned number of `width` bytes: one beside `near`, one at an edge, or any."""
        limit = 1 << 8 * width
        match self.below(4):
            case 0:
                return int(near + self.below(5) - 2) % limit
            case 1:
                return self.pick(_EDGES) % limit
            case 2:
                return near ^ 1 << self.below(8 * width)
            case _:
                return int.from_bytes(self.take(width), "little")

    def edited(self, data: bytes) -> bytes:
        """`data` with one place changed, cut out, repeated or filled."""
        if not data:
            return self.take(self.below(8))
        place = self.below(len(data)) if len(data) <= 65_536 else 0
        match self.below(6):
            case 0:
                return data[:place] + bytes([data[place] ^ 1 << self.below(8)]) + data[place + 1 :]
            case 1:
                return data[:place] + self.take(1) + data[place + 1 :]
            case 2:
                return data[:place] + data[place + self.below(40) + 1 :]
            case 3:
                return data[:place] + data[place : place + self.below(40) + 1] + data[place:]
            case 4:
                return data[:place] + self.take(self.below(36) + 1) + data[place:]
            case _:
                return data[:place]
