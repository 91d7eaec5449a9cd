"""Frames: how messages are delimited on a stream. (pure)

frame  = length  kind  payload
length = u32, little-endian: the size of kind and payload together, 1 to 1 + max_payload_bytes
kind   = u8
"""

import enum
from collections.abc import Iterator

from pegnode.net.transport import DropReason, RemoteFault

LENGTH_BYTES = 4


class FrameKind(enum.IntEnum):
    """What a frame's payload is."""

    HELLO = 1
    """First in each direction, and only there."""
    PING = 2
    """A u64 that the receiver returns in a PONG."""
    PONG = 3
    GOODBYE = 4
    """Last in a direction: why the sender ends the connection."""
    PAYLOAD = 5
    """A message of the layer above."""


def encode_frame(kind: FrameKind, payload: bytes) -> bytes:
    """One frame. The caller sees to the limit on its size."""
    return (1 + len(payload)).to_bytes(LENGTH_BYTES, "little") + bytes((kind,)) + payload


class FrameDecoder:
    """Cuts a byte stream, arriving in pieces of any size, into frames.

    It holds at most one unfinished frame beyond what it was last fed. After it raised, it is not to be fed again.
    max_payload_bytes may be changed between frames.
    """

    __slots__ = ("_buffer", "max_payload_bytes")

    def __init__(self, max_payload_bytes: int) -> None:
        self.max_payload_bytes = max_payload_bytes
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[FrameKind, bytes]]:
        """The frames that `data` completes. Raises RemoteFault: FRAME_TOO_LARGE on the length alone; GARBLED_FRAME."""
        self._buffer += data
        while len(self._buffer) >= LENGTH_BYTES:
            body_bytes = int.from_bytes(self._buffer[:LENGTH_BYTES], "little")
            if body_bytes > 1 + self.max_payload_bytes:
                raise RemoteFault(DropReason.FRAME_TOO_LARGE, f"{body_bytes} bytes, limit {self.max_payload_bytes}")
            if body_bytes == 0:
                raise RemoteFault(DropReason.GARBLED_FRAME, "a frame without a kind")
            end = LENGTH_BYTES + body_bytes
            if len(self._buffer) < end:
                return
            yield self._take(end)

    def _take(self, end: int) -> tuple[FrameKind, bytes]:
        kind_byte = self._buffer[LENGTH_BYTES]
        with memoryview(self._buffer) as view:
            payload = bytes(view[LENGTH_BYTES + 1 : end])
        del self._buffer[:end]
        try:
            return FrameKind(kind_byte), payload
        except ValueError as error:
            raise RemoteFault(DropReason.GARBLED_FRAME, f"unknown kind {kind_byte}") from error
