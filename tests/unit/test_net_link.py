"""A secure link: what a peer may leave unsaid, what it may say below our frames, and how little the kernel holds."""

import secrets
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from socket import IPPROTO_TCP
from typing import cast

import pytest
import trio
import trio.testing
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.protocol_muxer.multiselect_client import MultiselectClient
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from libp2p.stream_muxer.yamux.yamux import (
    FLAG_ACK,
    FLAG_FIN,
    FLAG_RST,
    FLAG_SYN,
    HEADER_SIZE,
    TYPE_DATA,
    TYPE_PING,
    TYPE_WINDOW_UPDATE,
    YAMUX_HEADER_FORMAT,
)

from pegnode.net.address import peer_id_from_secret
from pegnode.net.allowance import Allowance
from pegnode.net.libp2p_host import (
    GUEST_READS_BURST,
    GUEST_READS_PER_S,
    GUEST_WINDOW_BYTES,
    MEMBER_READS_BURST,
    MEMBER_READS_PER_S,
    MEMBER_WINDOW_BYTES,
)
from pegnode.net.libp2p_link import (
    READS_AT_ONCE,
    TCP_NOTSENT_LOWAT,
    UNSENT_BYTES,
    LinkUpgrader,
    MuxedStream,
    SecureLink,
    SocketConnection,
    bound_unsent,
)

SILENCE_S = 3.0
PER_S, BURST = 100.0, 100.0
FRAMES = 600


def connected() -> tuple[trio.abc.Stream, SocketConnection]:
    """A peer, and its connection here."""
    peer, ours = trio.testing.memory_stream_pair()
    return peer, SocketConnection(cast(trio.SocketStream, ours), SILENCE_S)


async def test_peer_that_says_nothing_before_its_hello_is_given_up(autojump_clock: trio.abc.Clock) -> None:
    peer, wire = connected()
    await trio.sleep(10)
    await peer.send_all(b"something")
    assert await wire.read(9) == b"something"
    began_s = trio.current_time()
    with pytest.raises(ConnectionClosedError, match="silent before its Hello"):
        await wire.read()
    assert trio.current_time() - began_s == pytest.approx(SILENCE_S)


async def test_silence_is_another_matter_after_the_hello(autojump_clock: trio.abc.Clock) -> None:
    peer, wire = connected()
    async with trio.open_nursery() as nursery:

        async def say_something_late() -> None:
            await trio.sleep(SILENCE_S / 2)
            wire.lift_budget()  # while the connection is being read
            await trio.sleep(3 * SILENCE_S)
            await peer.send_all(b"late")
            await trio.sleep(3 * SILENCE_S)
            await peer.send_all(b"later")

        nursery.start_soon(say_something_late)
        assert await wire.read() == b"late"
        assert await wire.read() == b"later"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such option")
async def test_kernel_holds_little_that_is_not_under_way() -> None:
    with trio.socket.socket() as tcp, trio.socket.socket(trio.socket.AF_UNIX) as other:
        bound_unsent(trio.SocketStream(tcp))
        assert tcp.getsockopt(IPPROTO_TCP, TCP_NOTSENT_LOWAT) == UNSENT_BYTES
        bound_unsent(trio.SocketStream(other))  # which has no such option: nothing happens


# What a peer makes us read


async def test_reads_beyond_the_allowance_wait(autojump_clock: trio.abc.Clock) -> None:
    peer, wire = connected()
    wire.reads = Allowance(PER_S, BURST, trio.current_time)
    await peer.send_all(bytes(400))
    began_s = trio.current_time()
    for _ in range(int(BURST)):
        await wire.read(1)
    assert trio.current_time() == began_s
    for _ in range(300):
        await wire.read(1)
    assert trio.current_time() - began_s == pytest.approx(300 / PER_S)


async def test_others_have_a_turn_while_what_is_buffered_is_read() -> None:
    peer, wire = connected()
    await peer.send_all(bytes(20 * READS_AT_ONCE))
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take_turns)
        for _ in range(20 * READS_AT_ONCE):
            await wire.read(1)
        nursery.cancel_scope.cancel()
    assert turns >= 19


@dataclass(frozen=True, slots=True)
class Ends:
    """Both ends of a link. peer, ours: the streams.  link: the peer's."""

    peer: MuxedStream
    ours: MuxedStream
    link: SecureLink
    wire: SocketConnection

    async def say_below(self, data: bytes) -> None:
        """As the peer, write below the stream."""
        await self.peer.muxer.secured_conn.write(data)


@asynccontextmanager
async def linked(reads: Allowance | None = None, window_bytes: int = MEMBER_WINDOW_BYTES) -> AsyncIterator[Ends]:
    """A link in memory. reads: what the peer may cost us from then on."""
    secret, theirs = secrets.token_bytes(32), secrets.token_bytes(32)
    wires = [SocketConnection(cast(trio.SocketStream, end)) for end in trio.testing.memory_stream_pair()]
    links: dict[bool, SecureLink] = {}
    streams: dict[bool, MuxedStream] = {}

    async def connect(*, is_dialler: bool) -> None:
        dialled = peer_id_from_secret(secret) if is_dialler else None
        links[is_dialler] = await LinkUpgrader(theirs if is_dialler else secret).secure(wires[is_dialler], dialled)
        nursery.start_soon(links[is_dialler].run)
        streams[is_dialler] = await links[is_dialler].open_stream(window_bytes)

    async with trio.open_nursery() as nursery:
        async with trio.open_nursery() as connecting:
            for is_dialler in (True, False):
                connecting.start_soon(lambda is_dialler=is_dialler: connect(is_dialler=is_dialler))
        wires[False].reads = reads
        wires[False].lift_budget()
        yield Ends(streams[True], streams[False], links[True], wires[False])
        nursery.cancel_scope.cancel()


def header(kind: int, flags: int, stream: int, length: int) -> bytes:
    """A frame of Yamux, or its beginning."""
    return struct.pack(YAMUX_HEADER_FORMAT, 0, kind, flags, stream, length)


async def noise_messages_of_a_byte(ends: Ends) -> None:
    for byte in header(TYPE_WINDOW_UPDATE, 0, 99, 1) * (FRAMES // HEADER_SIZE):
        await ends.say_below(bytes((byte,)))


def all_at_once(frame: bytes) -> Callable[[Ends], Awaitable[None]]:
    return lambda ends: ends.say_below(frame * FRAMES)


BELOW: dict[str, Callable[[Ends], Awaitable[None]]] = {
    "pings": all_at_once(header(TYPE_PING, FLAG_SYN, 0, 7)),
    "pongs": all_at_once(header(TYPE_PING, FLAG_ACK, 0, 7)),
    "window updates": all_at_once(header(TYPE_WINDOW_UPDATE, 0, 1, 1)),
    "window updates of no stream": all_at_once(header(TYPE_WINDOW_UPDATE, 0, 99, 1)),
    "data of no stream": all_at_once(header(TYPE_DATA, 0, 99, 1) + b"x"),
    "data of nothing": all_at_once(header(TYPE_DATA, 0, 1, 0)),
    "Noise messages of a byte": noise_messages_of_a_byte,
}


@pytest.mark.parametrize("say", BELOW.values(), ids=BELOW)
async def test_what_no_message_pays_for_is_read_at_the_pace_that_is_due(
    say: Callable[[Ends], Awaitable[None]], autojump_clock: trio.abc.Clock
) -> None:
    async with linked(Allowance(PER_S, BURST, trio.current_time)) as ends:
        began_s = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(say, ends)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(ends.peer.write, b"at last")
            assert await ends.ours.read(100) == b"at last"
        assert trio.current_time() - began_s >= (FRAMES - BURST) / PER_S


@pytest.mark.parametrize("flags", [(FLAG_SYN,), (FLAG_SYN, FLAG_RST), (FLAG_SYN | FLAG_RST,), (FLAG_SYN | FLAG_FIN,)])
async def test_streams_that_are_opened_in_vain_are_few(flags: tuple[int, ...], autojump_clock: trio.abc.Clock) -> None:
    """Whether they are reset at once or not: of a stream that nobody takes the muxer waits, and reads nothing more."""
    async with linked(Allowance(1_000_000, 1_000_000, trio.current_time)) as ends:
        for number in range(3, 2 * FRAMES, 2):
            await ends.say_below(b"".join(header(TYPE_WINDOW_UPDATE, flag, number, 0) for flag in flags))
        await trio.sleep(1)
        assert len(ends.ours.muxer.streams) < 15
        assert ends.wire.reads is not None
        assert ends.wire.reads.owe(1_000_000 - 200) == 0, "few reads"


async def test_protocols_proposed_without_end_are_answered_at_the_pace_that_is_due(
    autojump_clock: trio.abc.Clock,
) -> None:
    peer, wire = connected()
    wire.reads = Allowance(PER_S, BURST, trio.current_time)
    theirs = SocketConnection(cast(trio.SocketStream, peer))
    communicator = MultiselectCommunicator(theirs)
    began_s = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(LinkUpgrader(secrets.token_bytes(32)).secure, wire, None)
        await MultiselectClient().handshake(communicator)
        for _ in range(FRAMES // 2):
            await communicator.write("/nonsense")
        for _ in range(FRAMES // 2):
            assert await communicator.read() == "na"
        nursery.cancel_scope.cancel()
    assert trio.current_time() - began_s >= (FRAMES - BURST) / PER_S


@pytest.mark.parametrize(
    ("per_s", "burst", "window_bytes"),
    [
        (GUEST_READS_PER_S, GUEST_READS_BURST, GUEST_WINDOW_BYTES),
        (MEMBER_READS_PER_S, MEMBER_READS_BURST, MEMBER_WINDOW_BYTES),
    ],
    ids=["guest", "member"],
)
async def test_honest_peer_is_held_up_neither_by_much_nor_by_many_nor_by_what_comes_late(
    per_s: float, burst: float, window_bytes: int, autojump_clock: trio.abc.Clock
) -> None:
    """Many megabytes at once; then 100 small frames a second, for half of which the reader stood still."""
    async with linked(Allowance(per_s, burst, trio.current_time), window_bytes) as ends:
        received = bytearray()

        async def receive(size_bytes: int) -> None:
            while len(received) < size_bytes:
                received.extend(await ends.ours.read(65_536))

        began_s = trio.current_time()
        large, small = bytes(24 * 1024 * 1024), bytes(40)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive, len(large))
            await ends.peer.write(large)
        assert trio.current_time() == began_s
        received.clear()
        async with trio.open_nursery() as nursery:
            for number in range(600):
                await ends.peer.write(small)
                await trio.sleep(0.01)
                if number == 300:
                    nursery.start_soon(receive, 600 * len(small))
        assert trio.current_time() - began_s == pytest.approx(6.0)


async def test_window_is_given_back_in_few_frames_and_whole(autojump_clock: trio.abc.Clock) -> None:
    async with linked(window_bytes=GUEST_WINDOW_BYTES) as ends:
        given_back: list[int] = []
        give_back = ends.ours._give_back

        async def count(size_bytes: int) -> None:
            given_back.append(size_bytes)
            await give_back(size_bytes)

        ends.ours._give_back = count  # type: ignore[method-assign]
        for number in range(1_000):
            await ends.peer.write(b"%04d" % number)
            assert await ends.ours.read(65_536) == b"%04d" % number
        assert given_back == []
        data = secrets.token_bytes(16 * GUEST_WINDOW_BYTES)
        received = bytearray()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ends.peer.write, data)
            while len(received) < len(data):
                received += await ends.ours.read(65_536)
        assert received == data
        assert min(given_back) >= 64 * 1024
        assert sum(given_back) > len(data) - 64 * 1024
