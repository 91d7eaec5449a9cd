"""One direction between two hosts, as bad as a test wants it: delay, bandwidth, stalls, and bytes that never arrive.

Theory of operation. Bytes are read in small pieces, wait until the link's bandwidth has let them leave, travel for the
delay, and are handed over in the order in which they were sent. A stalled link hands over nothing until it is mended,
and then everything. A link that loses packets holds up the stream of each until it was sent again, which is all that
TCP shows of it. A lossy link swallows what is about to arrive. A stream that lost bytes is worth nothing any more, so
the rest of it is lost too, its end included; only a new connection can use the mended link. Nobody is told of any of
this: what the two ends notice, they notice themselves.
"""

import math
import random
from dataclasses import dataclass, field

import msgspec
import trio

CHUNK_BYTES = 4096
"""Read at once: at 1 Mbit/s, 33 ms of it."""
PACKET_BYTES = 1448
"""What one packet takes of a stream: 1,500 bytes on Ethernet less the headers of IP and TCP, with time stamps."""
CHUNKS_UNDER_WAY = 4096
"""On one stream. More wait with their sender, as they do in a full window."""


class Quality(msgspec.Struct, frozen=True):
    """What a direction is like.

    delay_ms, jitter_ms: bytes arrive `delay_ms` after they left, give or take up to `jitter_ms`.
    kbit_per_s: how much leaves in a second, over all streams of the direction; 0 is without limit.
    stall_chance, stall_ms: of each packet, the chance, below 1, that it is lost, and after how long it is sent again,
    which may be lost again, and is then sent after twice as long, and so on. What follows on its stream waits for it.
    stalled: bytes wait.  lossy: bytes vanish.
    """

    delay_ms: int = 0
    jitter_ms: int = 0
    kbit_per_s: int = 0
    stall_chance: float = 0.0
    stall_ms: int = 0
    stalled: bool = False
    lossy: bool = False


PERFECT = Quality()


@dataclass(eq=False)
class Link:
    """A direction. rng: that of the jitter and of lost packets."""

    rng: random.Random
    quality: Quality = PERFECT
    _free_s: float = -math.inf
    """When what was given to the link has left."""
    _changed: trio.Event = field(default_factory=trio.Event)

    def become(self, quality: Quality) -> None:
        """Change, for what is under way too, except for its delay."""
        self.quality = quality
        self._changed.set()
        self._changed = trio.Event()

    async def carry(self, source: trio.abc.ReceiveStream, sink: trio.abc.HalfCloseableStream) -> None:
        """Bring a stream over, to its end. A sink that breaks is not told to the source: its own end will say so."""
        under_way, arriving = trio.open_memory_channel[tuple[float, bytes]](CHUNKS_UNDER_WAY)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._hand_over, arriving, sink)
            due_s = -math.inf
            async with under_way:
                while data := await _read(source):
                    await self._leave(len(data))
                    due_s = max(due_s, self._arrival_s(len(data)))
                    await under_way.send((due_s, data))
                await under_way.send((max(due_s, self._arrival_s(0)), b""))

    async def pass_once(self) -> None:
        """What one packet that opens a connection takes. A lossy link lets it pass: the stream is lost instead."""
        await trio.sleep_until(self._arrival_s(0))
        await self._wait_while_stalled()

    def _arrival_s(self, size: int) -> float:
        quality = self.quality
        delay_ms = quality.delay_ms + self.rng.uniform(-quality.jitter_ms, quality.jitter_ms)
        packets = max(1, math.ceil(size / PACKET_BYTES))
        held_up_ms = max(self._held_up_ms() for _ in range(packets))  # they are sent again side by side
        return trio.current_time() + (max(0.0, delay_ms) + held_up_ms) / 1000

    def _held_up_ms(self) -> int:
        """By how much one packet comes later than the delay: the sum of its times of retransmission."""
        held_up_ms, wait_ms = 0, self.quality.stall_ms
        while self.rng.random() < self.quality.stall_chance:
            held_up_ms, wait_ms = held_up_ms + wait_ms, 2 * wait_ms
        return held_up_ms

    async def _leave(self, size: int) -> None:
        if not self.quality.kbit_per_s:
            return
        now_s = trio.current_time()
        self._free_s = max(self._free_s, now_s) + size * 8 / (self.quality.kbit_per_s * 1000)
        await trio.sleep_until(self._free_s)

    async def _hand_over(
        self, arriving: trio.MemoryReceiveChannel[tuple[float, bytes]], sink: trio.abc.HalfCloseableStream
    ) -> None:
        is_lost = False
        async for due_s, data in arriving:
            await trio.sleep_until(due_s)
            await self._wait_while_stalled()
            is_lost = is_lost or self.quality.lossy
            if is_lost:
                continue
            try:
                await (sink.send_all(data) if data else sink.send_eof())
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                is_lost = True

    async def _wait_while_stalled(self) -> None:
        while self.quality.stalled:
            await self._changed.wait()


async def _read(source: trio.abc.ReceiveStream) -> bytes:
    """Some bytes; none when the stream has ended, in whatever way."""
    try:
        return bytes(await source.receive_some(CHUNK_BYTES))
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return b""
