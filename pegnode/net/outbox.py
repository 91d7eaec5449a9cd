"""The bounded queue of frames that wait for one peer's stream."""

from collections import deque

import trio

COALESCE_BYTES = 60_000
"""Small frames are written together up to this size: each write costs a Noise message and a system call."""
LARGE_BYTES = 4_096
"""Of such a frame one copy waits: over a narrow link, what is said again each second would otherwise pile up."""
FRAME_OVERHEAD_BYTES = 128
"""What a queued frame costs beside its bytes; without it, a peer that reads nothing could make us hold millions."""


class Outbox:
    """Frames in, chunks for the stream out. `put` never waits; one task at a time may `take`."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._queued_bytes = 0
        self._frames: deque[bytes] = deque()
        self._closed = False
        self._changed = trio.Event()

    def put(self, frame: bytes) -> bool:
        """Queue a frame, unless it is large and its like waits already.

        False: it doesn't fit, or the outbox is closed; nothing is queued then.
        """
        if len(frame) >= LARGE_BYTES and frame in self._frames and not self._closed:
            return True
        cost = len(frame) + FRAME_OVERHEAD_BYTES
        if self._closed or self._queued_bytes + cost > self._max_bytes:
            return False
        self._queued_bytes += cost
        self._frames.append(frame)
        self._changed.set()
        return True

    def close(self, last_frame: bytes) -> None:
        """Discard what is queued, and end with `last_frame`, which may be empty."""
        self._closed = True
        self._frames.clear()
        if last_frame:
            self._frames.append(last_frame)
        self._changed.set()

    async def take(self) -> bytes:
        """The next frames in order, as one chunk: waits for the first. Empty: closed, and nothing will follow."""
        while not self._frames:
            if self._closed:
                return b""
            self._changed = trio.Event()
            await self._changed.wait()
        chunk = [self._frames.popleft()]
        chunk_bytes = len(chunk[0])
        while self._frames and chunk_bytes + len(self._frames[0]) <= COALESCE_BYTES:
            chunk.append(self._frames.popleft())
            chunk_bytes += len(chunk[-1])
        self._queued_bytes -= chunk_bytes + len(chunk) * FRAME_OVERHEAD_BYTES
        return b"".join(chunk)
