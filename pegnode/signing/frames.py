"""Frames on a socket between a functionary and its signer: none too large, and none that takes for ever."""

from typing import Final

import trio

from pegnode.signing.messages import MAX_FRAME_BYTES
from pegnode.signing.refusals import LinkReason, LinkRefused

LENGTH_BYTES: Final = 4
FRAME_S: Final = 10.0
"""For how long one frame may be under way, in either direction: both ends are on one machine."""
_RECEIVE_BYTES: Final = 65_536


class FrameStream:
    """Sends and receives frames over a stream. Several tasks may send, one receives."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._buffer = bytearray()
        self._sending = trio.Lock()

    async def receive(self) -> bytes | None:
        """The next frame, whenever it begins; None when the other side has gone.

        Raises LinkRefused: TOO_LARGE on the length alone, SLOW, GARBLED for an empty one or one that ends early.
        """
        if not self._buffer and not await self._more():
            return None
        with trio.move_on_after(FRAME_S) as limit:
            size = await self._size()
            while len(self._buffer) < LENGTH_BYTES + size:
                await self._more_of_frame()
            payload = bytes(self._buffer[LENGTH_BYTES : LENGTH_BYTES + size])
            del self._buffer[: LENGTH_BYTES + size]
        if limit.cancelled_caught:
            raise LinkRefused(LinkReason.SLOW, f"a frame took longer than {FRAME_S:.0f} s")
        return payload

    async def _size(self) -> int:
        while len(self._buffer) < LENGTH_BYTES:
            await self._more_of_frame()
        size = int.from_bytes(self._buffer[:LENGTH_BYTES], "little")
        if size > MAX_FRAME_BYTES:
            raise LinkRefused(LinkReason.TOO_LARGE, f"{size} bytes, limit {MAX_FRAME_BYTES}")
        if size == 0:
            raise LinkRefused(LinkReason.GARBLED, "an empty frame")
        return size

    async def _more_of_frame(self) -> None:
        if not await self._more():
            raise LinkRefused(LinkReason.GARBLED, "the stream ends within a frame")

    async def _more(self) -> bool:
        try:
            data = await self._stream.receive_some(_RECEIVE_BYTES)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return False
        self._buffer += data
        return bool(data)

    async def send(self, payload: bytes) -> None:
        """Send a frame. Raises LinkRefused (SLOW) when the other side does not take it, or has gone."""
        with trio.move_on_after(FRAME_S) as limit:
            async with self._sending:
                try:
                    await self._stream.send_all(len(payload).to_bytes(LENGTH_BYTES, "little") + payload)
                except (trio.BrokenResourceError, trio.ClosedResourceError) as gone:
                    raise LinkRefused(LinkReason.SLOW, "the other side has gone") from gone
        if limit.cancelled_caught:
            await self.aclose()  # half of a frame may be out
            raise LinkRefused(LinkReason.SLOW, f"an answer was not taken within {FRAME_S:.0f} s")

    async def aclose(self) -> None:
        """End the connection at once."""
        await trio.aclose_forcefully(self._stream)
