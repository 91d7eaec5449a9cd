"""A connection's tasks against a scripted peer, in virtual time."""

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from pegnode.net.connection import Connection, Departure
from pegnode.net.framing import FrameDecoder, FrameKind, encode_frame
from pegnode.net.handshake import Hello, encode_goodbye, encode_hello
from pegnode.net.session import LinkLimits, Session
from pegnode.net.transport import DropReason, PeerRole, RemoteFault, TransportError

HELLO = Hello(bytes(32), PeerRole.MEMBER, "test")
HELLO_FRAME = encode_frame(FrameKind.HELLO, encode_hello(HELLO))
OUR_HELLO = (FrameKind.HELLO, encode_hello(HELLO))
WELCOME = (FrameKind.PAYLOAD, b"welcome")
LIMITS = LinkLimits(max_payload_bytes=1000, max_queued_bytes=10_000)


class Wire:
    """The connection's stream, whose other end is the test."""

    def __init__(self) -> None:
        self.to_us, self._reads = trio.open_memory_channel[bytes](math.inf)
        self.written = bytearray()
        self.writable = trio.Event()
        self.writable.set()
        self.fault: RemoteFault | None = None

    async def read(self, limit_bytes: int) -> bytes:
        """What the test sent; empty once it closed."""
        if self.fault is not None:
            raise self.fault
        try:
            return await self._reads.receive()
        except trio.EndOfChannel:
            return b""

    async def write(self, data: bytes) -> None:
        """Takes data unless the test made it unwritable."""
        await self.writable.wait()
        if self.fault is not None:
            raise self.fault
        self.written += data

    def frames(self) -> list[tuple[FrameKind, bytes]]:
        """Everything written so far, pings aside."""
        frames = FrameDecoder(10_000).feed(bytes(self.written))
        return [frame for frame in frames if frame[0] is not FrameKind.PING]


class Stage:
    """A running connection, what it handed up to us as its owner, and how it ended."""

    def __init__(self, *, is_dialler: bool, refusal: DropReason | None = None) -> None:
        self.wire = Wire()
        self.refusal = refusal
        self.announced: list[Hello] = []
        self.payloads: list[bytes] = []
        self.node_is_ready = trio.Event()
        self.node_is_ready.set()
        self.departures: list[Departure] = []
        self.written_before_hello: list[tuple[FrameKind, bytes]] = []
        session = Session(HELLO, PeerRole.MEMBER, LIMITS, trio.current_time())
        self.connection = Connection(self.wire, session, self, LIMITS, is_dialler=is_dialler)

    async def run(self) -> None:
        """Run the connection to its end."""
        self.departures.append(await self.connection.run())

    def say(self, *frames: bytes) -> None:
        """Send to the connection."""
        self.wire.to_us.send_nowait(b"".join(frames))

    async def keep_talking(self) -> None:
        """Send something every second, as a live peer does."""
        while True:
            self.say(encode_frame(FrameKind.PING, bytes(8)))
            await trio.sleep(1)

    async def admit(self, hello: Hello) -> None:
        """Refuse the peer if the test wants that."""
        await trio.sleep(0.05)
        assert not self.connection.send(b"too early")
        if self.refusal is not None:
            raise RemoteFault(self.refusal)

    async def announce(self, hello: Hello) -> None:
        """Note the peer, and write to it at once."""
        self.announced.append(hello)
        assert self.connection.send(b"welcome")

    async def deliver(self, payload: bytes) -> None:
        """Note a message, when the node is ready for it."""
        await self.node_is_ready.wait()
        self.payloads.append(payload)


@asynccontextmanager
async def stage(
    *, is_dialler: bool = False, refusal: DropReason | None = None, talking: bool = False
) -> AsyncIterator[Stage]:
    """A connection whose peer has greeted; with `talking`, it stays alive."""
    the_stage = Stage(is_dialler=is_dialler, refusal=refusal)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(the_stage.run)
        await trio.sleep(0.1)
        the_stage.written_before_hello = the_stage.wire.frames()
        the_stage.say(HELLO_FRAME)
        await trio.sleep(0.1)
        if talking:
            nursery.start_soon(the_stage.keep_talking)
        yield the_stage
        nursery.cancel_scope.cancel()


async def test_dialler_greets_first(autojump_clock: MockClock) -> None:
    async with stage(is_dialler=True) as at:
        assert at.written_before_hello == [OUR_HELLO]
        assert at.announced == [HELLO]
        assert at.wire.frames() == [OUR_HELLO, WELCOME]


async def test_accepting_side_greets_once_it_has_admitted_the_peer(autojump_clock: MockClock) -> None:
    async with stage(is_dialler=False) as at:
        assert at.written_before_hello == []
        assert at.announced == [HELLO]
        assert at.wire.frames() == [OUR_HELLO, WELCOME]


async def test_refused_peer_gets_a_goodbye_for_an_answer(autojump_clock: MockClock) -> None:
    async with stage(refusal=DropReason.TOO_MANY_GUESTS) as at:
        await trio.sleep(1)
        assert at.departures == [Departure(DropReason.TOO_MANY_GUESTS)]
        assert at.announced == []
        assert at.wire.frames() == [(FrameKind.GOODBYE, b"too-many-guests")]


async def test_nothing_is_sent_while_the_peers_hello_is_missing(autojump_clock: MockClock) -> None:
    at = Stage(is_dialler=False)
    with trio.move_on_after(60):
        await at.run()
    assert at.wire.written == b""
    assert at.departures == []


async def test_payloads_pass_both_ways(autojump_clock: MockClock) -> None:
    async with stage() as at:
        at.say(encode_frame(FrameKind.PAYLOAD, b"to us"))
        assert at.connection.send(b"to them")
        await trio.sleep(0.1)
        assert at.payloads == [b"to us"]
        assert at.wire.frames() == [OUR_HELLO, WELCOME, (FrameKind.PAYLOAD, b"to them")]


async def test_payload_over_the_limit_is_our_error(autojump_clock: MockClock) -> None:
    async with stage() as at:
        with pytest.raises(TransportError):
            at.connection.send(bytes(LIMITS.max_payload_bytes + 1))


async def test_silent_peer_is_dropped_when_the_limit_is_up(autojump_clock: MockClock) -> None:
    async with stage() as at:
        await trio.sleep(2.8)
        assert at.departures == []
        await trio.sleep(0.8)
        assert at.departures == [Departure(DropReason.SILENT)]
        assert at.wire.frames()[-1] == (FrameKind.GOODBYE, b"silent")


async def test_talking_peer_stays_until_it_leaves_pings_unanswered(autojump_clock: MockClock) -> None:
    async with stage(talking=True) as at:
        await trio.sleep(30)
        assert at.departures == []
        await trio.sleep(2)
        assert [departure.reason for departure in at.departures] == [DropReason.SILENT]


async def test_peer_is_not_called_silent_while_the_node_is_busy(autojump_clock: MockClock) -> None:
    async with stage() as at:
        at.node_is_ready = trio.Event()
        at.say(encode_frame(FrameKind.PAYLOAD, b"slow to digest"))
        await trio.sleep(20)
        assert at.departures == []
        at.node_is_ready.set()
        await trio.sleep(2.8)
        assert at.departures == []
        await trio.sleep(0.8)
        assert at.departures == [Departure(DropReason.SILENT)]


async def test_peer_is_not_called_silent_after_our_own_stall(mock_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        at = Stage(is_dialler=True)
        nursery.start_soon(at.run)
        at.say(HELLO_FRAME)
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(0.1)
        await trio.testing.wait_all_tasks_blocked()
        assert at.announced == [HELLO]
        mock_clock.jump(60)  # as if the process had been stopped
        await trio.testing.wait_all_tasks_blocked()
        assert at.connection.send(b"still connected")
        mock_clock.jump(LIMITS.silence_limit_s)
        await trio.testing.wait_all_tasks_blocked()
        assert not at.connection.send(b"too late")
        nursery.cancel_scope.cancel()


async def test_peer_that_reads_too_slowly_is_dropped(autojump_clock: MockClock) -> None:
    async with stage(talking=True) as at:
        at.wire.writable = trio.Event()
        sent = [at.connection.send(bytes(1000)) for _ in range(20)]
        assert sent.index(False) in (8, 9)
        assert not any(sent[9:])
        await trio.sleep(1)
        assert at.departures == [Departure(DropReason.SLOW_CONSUMER)]


@pytest.mark.parametrize("is_reading", [True, False], ids=["while we read", "while the node is busy"])
async def test_peer_that_overruns_the_window_is_dropped_for_flooding(
    is_reading: bool, autojump_clock: MockClock
) -> None:
    async with stage() as at:
        if not is_reading:
            at.node_is_ready = trio.Event()
            at.say(encode_frame(FrameKind.PAYLOAD, b"x"))
            await trio.sleep(0.1)
        at.wire.fault = RemoteFault(DropReason.FLOOD, "the test says so")
        at.say(encode_frame(FrameKind.PING, bytes(8)))
        await trio.sleep(2)
        assert at.departures == [Departure(DropReason.FLOOD, detail="the test says so")]


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (bytes(4), DropReason.GARBLED_FRAME),
        (encode_frame(FrameKind.PAYLOAD, bytes(1001)), DropReason.FRAME_TOO_LARGE),
        (HELLO_FRAME, DropReason.PROTOCOL_VIOLATION),
    ],
)
async def test_faulty_peer_is_told_why_it_is_dropped(
    frame: bytes, reason: DropReason, autojump_clock: MockClock
) -> None:
    async with stage() as at:
        at.say(encode_frame(FrameKind.PAYLOAD, b"still good"), frame, encode_frame(FrameKind.PAYLOAD, b"unheard"))
        await trio.sleep(1)
        assert [(departure.reason, departure.by_peer) for departure in at.departures] == [(reason, False)]
        assert at.wire.frames()[-1] == (FrameKind.GOODBYE, encode_goodbye(reason))
        assert at.payloads == [b"still good"]


async def test_goodbye_of_the_peer_ends_it_without_an_answer(autojump_clock: MockClock) -> None:
    async with stage() as at:
        at.say(encode_frame(FrameKind.GOODBYE, b"flood"), encode_frame(FrameKind.PAYLOAD, b"unheard"))
        await trio.sleep(0.1)
        assert at.departures == [Departure(DropReason.FLOOD, by_peer=True)]
        assert at.wire.frames() == [OUR_HELLO, WELCOME]
        assert at.payloads == []


async def test_broken_stream_is_a_closed_connection(autojump_clock: MockClock) -> None:
    async with stage() as at:
        at.wire.to_us.close()
        await trio.sleep(0.1)
        assert at.departures == [Departure(DropReason.CLOSED)]
        assert not at.connection.send(b"x")


async def test_first_reason_to_end_stands(autojump_clock: MockClock) -> None:
    async with stage() as at:
        at.connection.end(Departure(DropReason.FLOOD))
        at.connection.end(Departure(DropReason.CLOSED))
        assert not at.connection.send(b"x")
        at.wire.to_us.close()
        await trio.sleep(0.1)
        assert at.departures == [Departure(DropReason.FLOOD)]
