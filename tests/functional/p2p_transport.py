"""libp2p hosts in processes of their own: mesh, restarts, stalls, guests, and connected peers that mean harm."""

import random
import secrets
import signal
from contextlib import suppress

import pytest
import trio
from libp2p.exceptions import BaseLibp2pError

from pegnode.net.address import parse_peer_address
from pegnode.net.framing import FrameKind, encode_frame
from pegnode.net.libp2p_host import GUEST_WINDOW_BYTES, MEMBER_WINDOW_BYTES, HostSettings, Libp2pHost
from pegnode.net.libp2p_link import BACKLOG_SLACK_BYTES
from pegnode.net.transport import PeerConnected, PeerRole, Transport, TransportError
from tests.functional.transport_fleet import CHAIN_ID, HEARD, PATIENCE_S, Client, Node, client, fleet
from tests.functional.transport_process import ANSWER, ECHO

pytestmark = pytest.mark.functional

MIB = 1024 * 1024
MAX_PAYLOAD_BYTES = 4 * MIB


async def test_mesh_of_four_exchanges_small_and_large_messages() -> None:
    async with fleet() as ships:
        nodes = await ships.mesh(4)
        for node in nodes:
            others = [other for other in nodes if other is not node]
            assert await node.send(*others, text=f"from {node.peer}") == [True] * 3
        for node in nodes:
            for other in nodes:
                if other is not node:
                    await node.expect("frame", peer=other.peer, head=f"from {other.peer}")
        assert await nodes[0].send(*nodes[1:], text="one MiB", size=MIB) == [True] * 3
        assert await nodes[3].send(nodes[0], text="the largest", size=MAX_PAYLOAD_BYTES) == [True]
        for node in nodes[1:]:
            await node.expect("frame", peer=nodes[0].peer, size=MIB)
        await nodes[0].expect("frame", peer=nodes[3].peer, size=MAX_PAYLOAD_BYTES)


async def test_round_trips_are_measured() -> None:
    async with fleet() as ships:
        began_s = trio.current_time()
        low, high = await ships.mesh(2, ping_interval_s=0.05)
        with trio.fail_after(PATIENCE_S):
            while None in (trips := await low.round_trips_ms()).values():
                await trio.sleep(0.05)
        assert 0 < (trips[high.peer] or 0) < 1000 * (trio.current_time() - began_s)


@pytest.mark.parametrize("victim", [0, 3], ids=["which dials the others", "whom the others dial"])
async def test_killed_member_returns_with_its_key_and_port(victim: int) -> None:
    async with fleet() as ships:
        nodes = await ships.mesh(4)
        killed = nodes[victim]
        others = [node for node in nodes if node is not killed]
        killed.signal(signal.SIGKILL)
        for node in others:
            await node.expect("disconnected", peer=killed.peer, reason="closed")
            assert await node.send(killed, text="to nobody") == [False]
        await ships.start(killed, nodes, dial=nodes)
        for node in others:
            await node.expect("connected", peer=killed.peer)
            await killed.expect("connected", peer=node.peer)
            assert await node.send(killed, text=ECHO.decode() + "welcome back") == [True]
            await node.expect("frame", peer=killed.peer, head=ANSWER.decode() + "welcome back")


async def test_stopped_member_is_noticed_and_rejoins() -> None:
    async with fleet() as ships:
        low, high = await ships.mesh(2, silence_limit_s=3.0, ping_interval_s=0.2)
        high.signal(signal.SIGSTOP)
        stopped_s = trio.current_time()
        await low.expect("disconnected", peer=high.peer, reason="silent")
        assert trio.current_time() - stopped_s > 1, "a pause is forgiven"
        high.signal(signal.SIGCONT)
        await low.expect("connected", peer=high.peer)
        await high.expect("connected", peer=low.peer)


async def test_member_that_stops_reading_is_dropped_before_messages_get_lost() -> None:
    async with fleet() as ships:
        low, high = await ships.mesh(2, silence_limit_s=60.0)
        high.signal(signal.SIGSTOP)
        with trio.fail_after(PATIENCE_S):
            number = 0
            while (await low.send(high, text=f"unread {number}", size=MAX_PAYLOAD_BYTES))[0]:
                number += 1  # of equal messages one waits
        await low.expect("disconnected", peer=high.peer, reason="slow-consumer")
        high.signal(signal.SIGCONT)
        await low.expect("connected", peer=high.peer)


async def test_dropped_member_is_told_why_and_reconnects() -> None:
    async with fleet() as ships:
        low, high = await ships.mesh(2, silence_limit_s=60.0, **HEARD)
        await low.drop(high, "protocol-violation")
        await low.expect("disconnected", peer=high.peer, reason="protocol-violation", by_peer=False)
        await high.expect("disconnected", peer=low.peer, reason="protocol-violation", by_peer=True)
        await low.expect("connected", peer=high.peer)


async def test_guest_is_admitted_until_the_places_are_taken() -> None:
    async with fleet() as ships:
        member, guest, late = Node(), Node(), Node()
        await ships.start(member, [member], max_guests=1)
        await ships.start(guest, [member], dial=[member])
        await member.expect("connected", peer=guest.peer, role="GUEST")
        await guest.expect("connected", peer=member.peer, role="MEMBER")
        assert await guest.send(member, text=ECHO.decode() + "hello") == [True]
        await guest.expect("frame", peer=member.peer, head=ANSWER.decode() + "hello")
        await ships.start(late, [member], dial=[member])
        await member.expect("refused", peer=late.peer, reason="too-many-guests", by_peer=False)
        await late.expect("refused", peer=member.peer, reason="too-many-guests", by_peer=True)
        guest.signal(signal.SIGKILL)
        await late.expect("connected", peer=member.peer)


async def test_guest_need_not_listen() -> None:
    async with fleet() as ships:
        member = Node()
        await ships.start(member, [member], max_guests=1)
        settings = HostSettings(CHAIN_ID, "guest", frozenset({member.peer}), (parse_peer_address(member.address),))
        guest: Transport = Libp2pHost(secrets.token_bytes(32), settings, random.Random())
        await ships.nursery.start(guest.run)
        assert guest.listen_addresses == ()
        with trio.fail_after(PATIENCE_S):
            first = await guest.events.receive()
        assert first == PeerConnected(member.peer, PeerRole.MEMBER, "test/1", "127.0.0.1")


FAULTY_FRAMES = {
    "no kind": (bytes(4), "garbled-frame"),
    "garbage": (b"\xff" * 5000, "frame-too-large"),
    "oversized": (encode_frame(FrameKind.PAYLOAD, bytes(MAX_PAYLOAD_BYTES + 1)), "frame-too-large"),
    "unasked pong": (encode_frame(FrameKind.PONG, bytes(8)), "protocol-violation"),
}


async def test_faulty_frame_drops_the_peer_by_reason() -> None:
    async with fleet() as ships:
        node, members = Node(), {name: Node() for name in FAULTY_FRAMES}
        await ships.start(node, [node, *members.values()], **HEARD)
        for name, (bytes_sent, reason) in FAULTY_FRAMES.items():
            await provoke(node, members[name], bytes_sent, reason)
        assert await node.is_well()


async def provoke(node: Node, member: Node, bytes_sent: bytes, reason: str) -> None:
    """Have a member say something, for which it has to be dropped."""

    async def write(peer: Client) -> None:
        with suppress(trio.BrokenResourceError):  # the host may hang up before it has all
            await peer.stream.write(bytes_sent)

    async with client(node, member.secret) as peer, trio.open_nursery() as nursery:
        await peer.greet(PeerRole.MEMBER)
        await node.expect("connected", peer=member.peer, role="MEMBER", software="client")
        nursery.start_soon(write, peer)
        assert await peer.goodbye() == reason
        nursery.cancel_scope.cancel()
    await node.expect("disconnected", peer=member.peer, reason=reason, by_peer=False)


@pytest.mark.parametrize(
    ("role", "window_bytes"), [(PeerRole.MEMBER, MEMBER_WINDOW_BYTES), (PeerRole.GUEST, GUEST_WINDOW_BYTES)]
)
async def test_peer_that_fills_a_stream_of_its_own_is_dropped_for_flooding(role: PeerRole, window_bytes: int) -> None:
    async with fleet() as ships:
        node, member = Node(), Node()
        await ships.start(node, [node, member] if role is PeerRole.MEMBER else [node], max_guests=1)
        async with client(node, member.secret) as peer:
            await peer.greet(role)
            await node.expect("connected", peer=member.peer)
            extra = await peer.stream.muxer.open_stream()
            extra.send_window = 2**40  # whatever the host's window is
            with suppress(BaseLibp2pError):  # whichever layer notices first that the host hung up
                await extra.write(bytes(window_bytes + 2 * BACKLOG_SLACK_BYTES))
            await node.expect("disconnected", peer=member.peer, reason="flood")


async def test_newer_connection_of_a_member_replaces_its_older_one() -> None:
    async with fleet() as ships:
        node, member = Node(), Node()
        await ships.start(node, [node, member])
        async with client(node, member.secret) as older:
            await older.greet(PeerRole.MEMBER)
            await node.expect("connected", peer=member.peer)
            async with client(node, member.secret) as newer:
                await newer.greet(PeerRole.MEMBER)
                assert await older.goodbye() == "replaced"
                await node.expect("disconnected", peer=member.peer, reason="replaced")
                await node.expect("connected", peer=member.peer)


async def test_port_in_use_is_an_error_at_start() -> None:
    async with fleet() as ships:
        node = Node()
        await ships.start(node, [node])
        multiaddr = parse_peer_address(node.address).multiaddr
        settings = HostSettings(CHAIN_ID, "second", frozenset(), listen=(multiaddr,))
        with pytest.raises(TransportError, match="already in use; stop what uses it"):
            await Libp2pHost(secrets.token_bytes(32), settings, random.Random()).run()
