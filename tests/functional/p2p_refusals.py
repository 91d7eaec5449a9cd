"""libp2p hosts in processes of their own: who is refused before it is connected, and whom that keeps out."""

import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
import trio
from libp2p.crypto.secp256k1 import create_new_key_pair
from libp2p.custom_types import TProtocol
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.peer.id import ID
from libp2p.security.insecure.transport import PLAINTEXT_PROTOCOL_ID, InsecureTransport
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX_PROTOCOL
from libp2p.stream_muxer.yamux.yamux import Yamux
from libp2p.transport.exceptions import SecurityUpgradeFailure
from libp2p.transport.upgrader import TransportUpgrader

from pegnode.net.doorway import MAX_PENDING_INBOUND
from pegnode.net.framing import FrameKind
from pegnode.net.libp2p_link import LinkUpgrader, SocketConnection
from pegnode.net.transport import PeerRole, RemoteFault
from tests.functional.transport_fleet import ANY_PORT, HEARD, PATIENCE_S, Node, client, fleet, try_to_visit, visit
from tests.functional.transport_process import ANSWER, ECHO

pytestmark = pytest.mark.functional


async def test_stranger_is_refused_where_guests_are_not_admitted() -> None:
    async with fleet() as ships:
        member, stranger = Node(), Node()
        await ships.start(member, [member])
        await ships.start(stranger, [member], dial=[member])
        await member.expect("refused", peer=stranger.peer, reason="unknown-peer", by_peer=False)
        await stranger.expect("refused", peer=member.peer)
        assert not [event for event in stranger.events + member.events if event["event"] == "connected"]


async def test_wrong_chain_is_refused_by_reason() -> None:
    async with fleet() as ships:
        low, high = members = sorted((Node(), Node()), key=lambda node: node.peer)
        await ships.start(high, members)
        await ships.start(low, members, dial=[high], chain_id=bytes(32))
        await high.expect("refused", peer=low.peer, reason="wrong-chain")
        await low.expect("refused", peer=high.peer, reason="wrong-chain")


async def test_unwelcome_hello_is_refused_by_reason() -> None:
    async with fleet() as ships:
        node = Node()
        await ships.start(node, [node], max_guests=1, **HEARD)
        async with client(node, secrets.token_bytes(32)) as peer:
            await peer.send(FrameKind.HELLO, b"\x02\0")
            assert await peer.goodbye() == "wrong-version"
        await node.expect("refused", reason="wrong-version")
        async with client(node, secrets.token_bytes(32)) as peer:
            await peer.greet(PeerRole.MEMBER)
            assert await peer.goodbye() == "wrong-role"
        await node.expect("refused", reason="wrong-role")


async def test_plaintext_client_is_refused() -> None:
    async with fleet() as ships:
        node, friend = Node(), Node()
        await ships.start(node, [node, friend])
        pair = create_new_key_pair(friend.secret)
        security = {TProtocol(PLAINTEXT_PROTOCOL_ID): InsecureTransport(pair)}
        upgrader = TransportUpgrader(security, {TProtocol(YAMUX_PROTOCOL): Yamux})
        socket = await trio.open_tcp_stream(node.endpoint.host, node.endpoint.port)
        raw = RawConnection(SocketConnection(socket), initiator=True)
        with pytest.raises(SecurityUpgradeFailure):
            await upgrader.upgrade_security(raw, True, ID.from_base58(node.peer))
        await socket.aclose()
        await node.expect("refused", peer=None, reason="handshake-failed")


async def test_garbage_on_a_socket_ends_nothing_but_itself() -> None:
    multistream = b"\x13/multistream/1.0.0\n"
    openings = [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff" * 100,
        multistream,
        multistream + b"\xff\xff\xff\xff\x7f",
        multistream + b"\x07/noise\n",
        multistream + b"\x07/noise\n" + b"\0\x20" + bytes(32) + b"\xff\xff" + bytes(70_000),
    ]
    async with fleet() as ships:
        low, high = await ships.mesh(2)
        for opening in [*openings, *(os.urandom(5000) for _ in range(10))]:
            socket = await trio.open_tcp_stream(high.endpoint.host, high.endpoint.port)
            with suppress(trio.BrokenResourceError):  # it may hang up before it has all
                await socket.send_all(opening)
            await socket.aclose()
            await high.expect("refused", peer=None, reason="handshake-failed")
        assert await low.send(high, text=ECHO.decode() + "still there") == [True]
        await low.expect("frame", peer=high.peer, head=ANSWER.decode() + "still there")


async def test_endless_talk_before_the_hello_is_cut_off() -> None:
    async with fleet() as ships:
        node = Node()
        await ships.start(node, [node])
        socket = await trio.open_tcp_stream(node.endpoint.host, node.endpoint.port)
        await socket.send_all(b"\x13/multistream/1.0.0\n\xff\xff\xff\xff\x7f")
        with trio.fail_after(PATIENCE_S), suppress(trio.BrokenResourceError):
            while True:
                await socket.send_all(bytes(65536))
        await node.expect("refused", peer=None, reason="handshake-failed")


async def test_our_own_id_is_refused() -> None:
    async with fleet() as ships:
        node = Node()
        await ships.start(node, [node])
        with suppress(RemoteFault, ExceptionGroup):  # how far it gets before the host hangs up depends on timing
            async with client(node, node.secret):
                pass
        await node.expect("refused", peer=node.peer, reason="duplicate")


async def test_mute_sockets_do_not_keep_a_member_out() -> None:
    async with fleet() as ships:
        low, high = members = sorted((Node(), Node()), key=lambda node: node.peer)
        await ships.start(high, members, handshake_limit_s=3600.0)
        sockets = [
            await trio.open_tcp_stream(high.endpoint.host, high.endpoint.port) for _ in range(2 * MAX_PENDING_INBOUND)
        ]
        for _ in range(MAX_PENDING_INBOUND):
            await high.expect("refused", peer=None, reason="handshake-failed")
        await ships.start(low, members, dial=[high])
        await low.expect("connected", peer=high.peer)
        for socket in sockets:
            await socket.aclose()


async def test_address_that_connects_too_fast_is_not_answered_and_keeps_no_other_out() -> None:
    async with fleet() as ships, trio.open_nursery() as nursery:
        node, member = Node(), Node()
        await ships.start(node, [node, member])

        async def knock() -> None:
            while True:
                with suppress(OSError):
                    (await connect_from("127.0.0.2", node)).close()

        nursery.start_soon(knock)
        await node.expect("refused", peer=None, reason="too-many-connections")
        async with client(node, member.secret) as peer:
            await peer.greet(PeerRole.MEMBER)
            await node.expect("connected", peer=member.peer)
        nursery.cancel_scope.cancel()


async def greet_beside_silence(node: Node, member: Node, addresses: Sequence[str]) -> None:
    """A member greets after its handshake was under way while sockets that say nothing came from these addresses."""
    async with client(node, member.secret) as peer:
        sockets = [await connect_from(address, node) for address in addresses]
        for _ in range(10):
            await node.expect("refused", peer=None, reason="handshake-failed")
        await peer.greet(PeerRole.MEMBER)
        await node.expect("connected", peer=member.peer)
    for socket in sockets:
        socket.close()


async def test_half_open_sockets_of_one_address_end_no_handshake_of_another() -> None:
    async with fleet() as ships:
        node, member = Node(), Node()
        await ships.start(node, [node, member], handshake_limit_s=3600.0)
        await greet_beside_silence(node, member, ["127.0.0.2"] * (MAX_PENDING_INBOUND + 10))


@pytest.mark.parametrize("known_by", ["configuration", "an earlier visit"])
async def test_half_open_sockets_of_many_addresses_end_no_handshake_of_a_member(known_by: str) -> None:
    async with fleet() as ships:
        member, node = sorted((Node(), Node()), key=lambda node: node.peer)
        member.address = f"{ANY_PORT}/p2p/{member.peer}"
        is_configured = known_by == "configuration"
        await ships.start(node, [node, member], dial=[member] if is_configured else (), handshake_limit_s=3600.0)
        if not is_configured:
            await visit(node, member.secret, PeerRole.MEMBER)
        addresses = [f"127.0.1.{number}" for number in range(1, MAX_PENDING_INBOUND + 11)]
        await greet_beside_silence(node, member, addresses)


async def test_peer_that_committed_a_fault_is_kept_out_for_a_while() -> None:
    async with fleet() as ships:
        node, member, friend = Node(), Node(), Node()
        await ships.start(node, [node, member, friend], max_guests=1, **HEARD)
        for secret, role in ((member.secret, PeerRole.MEMBER), (secrets.token_bytes(32), PeerRole.GUEST)):
            kept_out = False
            while not kept_out:  # a slow machine may be back too late, and has then to wait twice as long
                async with client(node, secret) as peer:
                    await peer.greet(role)
                    await node.expect("connected")
                    await peer.stream.write(bytes(4))
                    assert await peer.goodbye() == "garbled-frame"
                kept_out = await try_to_visit(node, secret, role) == "backing-off"
        await visit(node, member.secret, PeerRole.MEMBER)
        assert await try_to_visit(node, friend.secret, PeerRole.MEMBER) == "connected"


HALF_HANDSHAKES = {
    "nothing": b"",
    "half of the first line": b"\x13/multi",
    "multistream": b"\x13/multistream/1.0.0\n",
    "noise chosen": b"\x13/multistream/1.0.0\n\x07/noise\n",
    "half of noise's first message": b"\x13/multistream/1.0.0\n\x07/noise\n\x00\x20" + bytes(16),
    "noise's first message": b"\x13/multistream/1.0.0\n\x07/noise\n\x00\x20" + bytes(range(1, 33)),
}


async def test_handshake_that_stops_at_any_step_is_ended_by_reason() -> None:
    async with fleet() as ships:
        node, member = Node(), Node()
        await ships.start(node, [node, member], handshake_limit_s=1.0)
        sockets = []
        for sent in HALF_HANDSHAKES.values():
            sockets.append(await trio.open_tcp_stream(node.endpoint.host, node.endpoint.port))
            await sockets[-1].send_all(sent)
        for _ in HALF_HANDSHAKES:
            await node.expect("refused", peer=None, reason="handshake-failed")
        # Noise is through: from here on the peer is known by name. A slow machine may have to try again.
        told: dict[str, Any] = {}
        while told.get("peer") is None:
            sockets.append(await trio.open_tcp_stream(node.endpoint.host, node.endpoint.port))
            with suppress(RemoteFault):
                await LinkUpgrader(member.secret).secure(SocketConnection(sockets[-1]), node.peer)
            told = await node.expect("refused", reason="handshake-failed")
        assert told["peer"] == member.peer
        for each in sockets:
            await each.aclose()
        await visit(node, member.secret, PeerRole.MEMBER)


async def connect_from(address: str, node: Node) -> trio.socket.SocketType:
    """A connection to a node from another address of this machine."""
    socket = trio.socket.socket()
    await socket.bind((address, 0))
    await socket.connect((node.endpoint.host, node.endpoint.port))
    return socket


async def test_silent_handshake_is_ended_when_its_time_is_up() -> None:
    async with fleet() as ships:
        node, member = Node(), Node()
        await ships.start(node, [node, member], handshake_limit_s=1.0)
        told: dict[str, Any] = {}
        while told.get("peer") is None:  # a slow machine may not get far enough in time
            with suppress(RemoteFault, ExceptionGroup):
                async with client(node, member.secret) as peer:
                    while await peer.stream.read(65536):
                        pass
            told = await node.expect("refused", reason="handshake-failed")
        assert told["peer"] == member.peer
