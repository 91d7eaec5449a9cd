"""The canonical byte encoding of everything that is hashed, signed or stored.

Integers are unsigned, little-endian and of fixed width. A variable-length field is its length as u32, then its bytes.
A list is its count as u32, then its items. An encoding has exactly one decoding and no trailing bytes, so
`encode(decode(b)) == b` for every `b` that decodes.
"""

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Self, TypeVar

from bridge.errors import MalformedError

T = TypeVar("T")
E = TypeVar("E", bound=enum.IntEnum)


class Writer:
    """Appends fields; `finish` gives the bytes. A value that does not fit its field raises MalformedError."""

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def unsigned(self, value: int, width: int) -> "Writer":
        """Append `value` as `width` bytes."""
        try:
            self._parts.append(value.to_bytes(width, "little"))
        except OverflowError as error:
            raise MalformedError(f"{value} does not fit {width} unsigned bytes") from error
        return self

    def u8(self, value: int) -> "Writer":
        """Append 1 byte."""
        return self.unsigned(value, 1)

    def u16(self, value: int) -> "Writer":
        """Append 2 bytes."""
        return self.unsigned(value, 2)

    def u32(self, value: int) -> "Writer":
        """Append 4 bytes."""
        return self.unsigned(value, 4)

    def u64(self, value: int) -> "Writer":
        """Append 8 bytes."""
        return self.unsigned(value, 8)

    def fixed(self, value: bytes, size: int) -> "Writer":
        """Append exactly `size` bytes."""
        if len(value) != size:
            raise MalformedError(f"{len(value)} bytes where {size} belong")
        self._parts.append(value)
        return self

    def variable(self, value: bytes) -> "Writer":
        """Append a u32 length, then the bytes."""
        self.u32(len(value))
        self._parts.append(value)
        return self

    def sequence(self, items: Sequence[T], write: Callable[["Writer", T], object]) -> "Writer":
        """Append a u32 count, then each item by `write(writer, item)`."""
        self.u32(len(items))
        for item in items:
            write(self, item)
        return self

    def finish(self) -> bytes:
        """All bytes appended so far."""
        return b"".join(self._parts)


class Reader:
    """Takes fields off the front of `data`; anything short, long or over a limit raises MalformedError."""

    __slots__ = ("_data", "_position")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        end = self._position + size
        if end > len(self._data):
            raise MalformedError(f"{size} bytes wanted, {len(self._data) - self._position} left")
        value = self._data[self._position : end]
        self._position = end
        return value

    def u8(self) -> int:
        """Take 1 byte."""
        return self.take(1)[0]

    def u16(self) -> int:
        """Take 2 bytes."""
        return int.from_bytes(self.take(2), "little")

    def u32(self) -> int:
        """Take 4 bytes."""
        return int.from_bytes(self.take(4), "little")

    def u64(self) -> int:
        """Take 8 bytes."""
        return int.from_bytes(self.take(8), "little")

    def enumeration(self, kind: type[E]) -> E:
        """Take 1 byte that names a member of `kind`."""
        value = self.u8()
        try:
            return kind(value)
        except ValueError as error:
            raise MalformedError(f"{value} is no {kind.__name__}") from error

    def variable(self, limit: int) -> bytes:
        """Take a u32 length of at most `limit`, then that many bytes."""
        size = self.u32()
        if size > limit:
            raise MalformedError(f"a field of {size} bytes, over its limit of {limit}")
        return self.take(size)

    def sequence(self, limit: int, read: Callable[["Reader"], T]) -> tuple[T, ...]:
        """Take a u32 count of at most `limit`, then that many items by `read(reader)`."""
        count = self.u32()
        if count > limit:
            raise MalformedError(f"a list of {count} items, over its limit of {limit}")
        return tuple(read(self) for _ in range(count))

    def finish(self) -> None:
        """Raise MalformedError unless every byte was taken."""
        left = len(self._data) - self._position
        if left:
            raise MalformedError(f"{left} trailing bytes")


def decode_whole(data: bytes, read: Callable[[Reader], T]) -> T:
    """What `read` makes of all of `data`; raises MalformedError when bytes are missing or left over."""
    reader = Reader(data)
    value = read(reader)
    reader.finish()
    return value


class Encoded(ABC):
    """A value with one canonical encoding: a subclass says how it is written and read."""

    __slots__ = ()

    @abstractmethod
    def write(self, writer: Writer) -> None:
        """Append the encoding; raises MalformedError when a field is out of range."""

    @classmethod
    @abstractmethod
    def read(cls, reader: Reader) -> Self:
        """Take one value off the front; raises MalformedError."""

    def encode(self) -> bytes:
        """The encoding; raises MalformedError when a field is out of range."""
        writer = Writer()
        self.write(writer)
        return writer.finish()

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """The value of exactly these bytes; raises MalformedError."""
        return decode_whole(data, cls.read)
