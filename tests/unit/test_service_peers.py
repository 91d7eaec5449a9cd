"""Who may say what to a node, and what becomes of those who say something else."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from bridge.bitcoin.identifiers import BlockHash
from bridge.errors import MalformedError
from pegnode.net.memory import MemoryNetwork
from pegnode.net.messages import (
    BlockRequest,
    FinalBlocksAnswer,
    FinalBlocksRequest,
    Message,
    RegistrationsMessage,
    TipMessage,
    TransactionsMessage,
)
from pegnode.net.transport import DropReason, PeerId, PeerRole
from pegnode.service import peers as peers_module
from pegnode.service.allowance import Allowance
from pegnode.service.peers import Peers
from tests.sim.fake_chain import fake_membership
from tests.support.members import Stranger

MEMBERSHIP = fake_membership(4)
MEMBER = PeerId(MEMBERSHIP.members[1].peer_id)
GUEST = PeerId("a guest")
TIP = TipMessage(1, bytes(32))


class Post:
    """Member 0's peers, another member, and a guest, all connected; what reached the handlers."""

    def __init__(self, network: MemoryNetwork) -> None:
        self.network = network
        self.own = network.transport(PeerId(MEMBERSHIP.members[0].peer_id))
        self.peers = Peers(self.own, MEMBERSHIP)
        self.member = Stranger(network.transport(MEMBER))
        self.guest = Stranger(network.transport(GUEST, PeerRole.GUEST))
        self.received: list[tuple[PeerId, Message]] = []
        self.greeted: list[PeerId] = []
        self.left: list[PeerId] = []
        self.peers.on_message(TipMessage, self.receive, from_guests=True)
        self.peers.on_message(FinalBlocksAnswer, self.receive, from_guests=True, is_free=True)
        self.peers.on_message(BlockRequest, self.receive, from_guests=False)
        self.peers.on_message(RegistrationsMessage, self.refuse, from_guests=True)
        self.peers.on_connected(self.greeted.append)
        self.peers.on_disconnected(self.left.append)

    def receive(self, peer: PeerId, message: Message) -> None:
        self.received.append((peer, message))

    def refuse(self, peer: PeerId, message: Message) -> None:
        raise MalformedError("not what this handler takes")


@asynccontextmanager
async def post() -> AsyncIterator[Post]:
    network = MemoryNetwork(random.Random(1))
    made = Post(network)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(network.run)
        await nursery.start(made.own.run)
        nursery.start_soon(made.peers.run)
        await nursery.start(made.member.run)
        await nursery.start(made.guest.run)
        await trio.sleep(0.5)
        yield made
        nursery.cancel_scope.cancel()


async def test_message_reaches_its_handler_with_its_sender(autojump_clock: trio.abc.Clock) -> None:
    async with post() as made:
        made.guest.say(made.own.peer_id, TIP)
        made.member.say(made.own.peer_id, BlockRequest(bytes(32)))
        await trio.sleep(0.1)
        assert set(made.greeted) == {MEMBER, GUEST}
        assert sorted(made.received) == sorted(
            [(GUEST, TIP), (MEMBER, BlockRequest(bytes(32)))], key=lambda item: item[0]
        )
        assert (made.peers.member_of(MEMBER), made.peers.member_of(GUEST)) == (1, None)
        assert (made.peers.is_connected(1), made.peers.is_connected(2)) == (True, False)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (BlockRequest(bytes(32)), DropReason.PROTOCOL_VIOLATION),  # for members alone
        (FinalBlocksRequest(1), DropReason.PROTOCOL_VIOLATION),  # of no handler
        (RegistrationsMessage((b"x",)), DropReason.GARBLED_FRAME),  # refused by its handler
    ],
)
async def test_guest_is_dropped_for_a_message_out_of_place(
    message: Message, reason: DropReason, autojump_clock: trio.abc.Clock
) -> None:
    async with post() as made:
        made.guest.say(made.own.peer_id, message)
        made.guest.say(made.own.peer_id, TIP)
        await trio.sleep(0.1)
        assert [(left.reason, left.by_peer) for left in made.guest.left] == [(reason, True)]
        assert made.left == [GUEST]
        assert made.received == []
        assert MEMBER in made.own.connected()


async def test_what_came_before_the_drop_and_was_not_heard_yet_is_not_heard(autojump_clock: trio.abc.Clock) -> None:
    async with post() as made:
        made.network.set_delay(GUEST, made.own.peer_id, (0.002, 0.002))
        made.guest.say(made.own.peer_id, RegistrationsMessage((b"x",)))
        made.guest.say(made.own.peer_id, TIP)  # arrives at the same moment
        await trio.sleep(0.1)
        assert [left.reason for left in made.guest.left] == [DropReason.GARBLED_FRAME]
        assert made.received == []


async def test_garbage_drops_its_sender_and_nobody_else(autojump_clock: trio.abc.Clock) -> None:
    async with post() as made:
        made.member.transport.send(made.own.peer_id, b"\xc1 is nothing in MessagePack")
        await trio.sleep(0.1)
        assert [left.reason for left in made.member.left] == [DropReason.GARBLED_FRAME]
        made.guest.say(made.own.peer_id, TIP)
        await trio.sleep(0.3)
        assert made.received == [(GUEST, TIP)]
        assert MEMBER in made.own.connected(), "a dropped peer may come back"
        made.member.say(made.own.peer_id, TIP)
        await trio.sleep(0.1)
        assert made.received[1:] == [(MEMBER, TIP)]


async def test_guest_that_floods_is_dropped_and_a_member_is_not(autojump_clock: trio.abc.Clock) -> None:
    fitting = peers_module.GUEST_BURST_BYTES // (peers_module.MESSAGE_BYTES + 100)
    async with post() as made:
        for _ in range(fitting):
            made.guest.say(made.own.peer_id, TIP)
        await trio.sleep(0.01)
        assert len(made.received) == fitting
        for _ in range(fitting // 5):
            made.guest.say(made.own.peer_id, TIP)
            made.member.say(made.own.peer_id, TIP)
        await trio.sleep(0.05)
        assert [left.reason for left in made.guest.left] == [DropReason.FLOOD]
        assert sum(peer == MEMBER for peer, _ in made.received) == fitting // 5
        assert made.member.left == []


async def test_answer_that_was_asked_for_costs_a_guest_nothing(autojump_clock: trio.abc.Clock) -> None:
    async with post() as made:
        large = FinalBlocksAnswer(1, (), (), bytes(1_000_000))
        for _ in range(20):
            made.guest.say(made.own.peer_id, large)
            await trio.sleep(0.01)
        assert len(made.received) == 20
        assert made.guest.left == []


async def test_peer_that_is_gone_is_not_held_dropped(autojump_clock: trio.abc.Clock) -> None:
    async with post() as made:
        made.peers.drop(PeerId(MEMBERSHIP.members[2].peer_id), DropReason.PROTOCOL_VIOLATION)
        assert made.peers._dropped == set()
        made.peers.drop(GUEST, DropReason.PROTOCOL_VIOLATION)
        assert made.peers._dropped == {GUEST}
        await trio.sleep(0.1)
        assert made.peers._dropped == set()
        assert made.peers._guests == {}


async def test_message_goes_to_whom_it_is_for(autojump_clock: trio.abc.Clock) -> None:
    async with post() as made:
        request = BlockRequest(BlockHash(b"\x01" * 32))
        transactions = TransactionsMessage((b"x",))
        made.peers.to_members(request)
        made.peers.to_all(transactions, except_peer=MEMBER)
        assert made.peers.send_to_member(1, TIP)
        assert not made.peers.send_to_member(2, TIP)
        await trio.sleep(0.1)
        assert [message for _, message in made.member.heard] == [request, TIP]
        assert [message for _, message in made.guest.heard] == [transactions]


def test_allowance_gives_its_burst_and_then_what_flows_in() -> None:
    now = [100.0]
    allowance = Allowance(per_s=2, burst=10, now_s=lambda: now[0])
    assert allowance.take(10)
    assert not allowance.take(1)
    now[0] += 0.5
    assert allowance.take(1)
    assert not allowance.take(0.5)
    now[0] += 1_000
    assert not allowance.take(10.5), "never more than the burst"
    assert allowance.take(10)
