"""Who may say what to a node, and what becomes of those who say something else."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from bridge.bitcoin.identifiers import BlockHash
from bridge.errors import MalformedError
from pegnode.net.allowance import Allowance
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
from pegnode.service.departures import MAX_DEPARTURES, Departure, Departures
from pegnode.service.peers import Peers
from tests.machine.fake_chain import fake_membership
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
        (BlockRequest(bytes(32)), DropReason.MISPLACED_MESSAGE),  # for members alone
        (FinalBlocksRequest(1), DropReason.MISPLACED_MESSAGE),  # of no handler
        (RegistrationsMessage((b"x",)), DropReason.GARBLED_MESSAGE),  # refused by its handler
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
        assert [left.reason for left in made.guest.left] == [DropReason.GARBLED_MESSAGE]
        assert made.received == []


async def test_garbage_drops_its_sender_and_nobody_else(autojump_clock: trio.abc.Clock) -> None:
    async with post() as made:
        made.member.transport.send(made.own.peer_id, b"\xc1 is nothing in MessagePack")
        await trio.sleep(0.1)
        assert [left.reason for left in made.member.left] == [DropReason.GARBLED_MESSAGE]
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
        assert made.peers._dropped == {}
        made.peers.drop(GUEST, DropReason.PROTOCOL_VIOLATION)
        assert set(made.peers._dropped) == {GUEST}
        await trio.sleep(0.1)
        assert made.peers._dropped == {}
        assert made.peers.presence_of(GUEST) is None


async def test_departures_are_remembered_with_their_reasons_and_told_apart(autojump_clock: trio.abc.Clock) -> None:
    async with post() as made:
        for _ in range(3):
            made.peers.drop(MEMBER, DropReason.FALSE_SIGNATURE, "of member 2")
            await trio.sleep(0.5)
        made.peers.drop(GUEST, DropReason.FLOOD, "so much")
        await trio.sleep(0.1)
        guest, member = made.peers.departures()
        assert (guest.peer, guest.member, guest.reason, guest.count) == (GUEST, None, DropReason.FLOOD, 1)
        assert (member.peer, member.member, member.reason, member.count) == (MEMBER, 1, DropReason.FALSE_SIGNATURE, 3)
        assert (member.detail, member.by_peer) == ("of member 2", False)


def departure(address: str, reason: DropReason = DropReason.FLOOD) -> Departure:
    return Departure(PeerId(address), None, address, reason, False, "", 0)


def test_departures_of_one_address_take_one_place_and_are_logged_ever_less_often() -> None:
    book = Departures()
    book.note(departure("192.0.2.1"))
    logged = [book.note(departure("192.0.2.2")) for _ in range(1_000)]
    assert sum(logged) == 10
    assert [(item.address, item.count) for item in book.newest_first()] == [("192.0.2.2", 1_000), ("192.0.2.1", 1)]
    for number in range(MAX_DEPARTURES):
        book.note(departure(f"198.51.100.{number}"))
    assert len(book.newest_first()) == MAX_DEPARTURES
    assert all(item.address.startswith("198") for item in book.newest_first())


async def test_member_that_floods_is_dropped_too_and_not_for_what_others_do(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers_module, "MEMBER_BURST_BYTES", 100_000)
    async with post() as made:
        for _ in range(200):
            made.member.say(made.own.peer_id, TIP)
        await trio.sleep(0.05)
        assert [left.reason for left in made.member.left] == [DropReason.FLOOD]
        assert made.guest.left == []


async def test_guest_that_comes_back_finds_its_allowance_as_it_left_it(autojump_clock: trio.abc.Clock) -> None:
    fitting = peers_module.GUEST_BURST_BYTES // (peers_module.MESSAGE_BYTES + 100)
    async with post() as made:
        for _ in range(fitting):
            made.guest.say(made.own.peer_id, TIP)
        await trio.sleep(0.01)
        made.peers.drop(GUEST, DropReason.PROTOCOL_VIOLATION)
        await trio.sleep(0.5)
        made.guest.left.clear()
        for _ in range(fitting):
            made.guest.say(made.own.peer_id, TIP)
        await trio.sleep(0.1)
        assert [left.reason for left in made.guest.left] == [DropReason.FLOOD]


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
