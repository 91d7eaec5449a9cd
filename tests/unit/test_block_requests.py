"""Blocks that members ask one another for: from whom they are taken, and how many are given."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio

from bridge.bitcoin.identifiers import BlockHash
from bridge.errors import MalformedError
from federation.membership import Membership
from pegnode.consensus import events
from pegnode.consensus.actions import RequestBlock
from pegnode.net.messages import BlockAnswer, BlockRequest
from pegnode.net.transport import DropReason, PeerId
from pegnode.service import peers as peers_module
from pegnode.service.block_requests import ANSWER_TIMEOUT_S, MAX_OPEN, BlockRequests
from pegnode.service.event_queue import Body
from pegnode.service.peers import Peers
from pegnode.storage.store import ChainStore
from tests.machine.fake_chain import fake_membership
from tests.support.chain import MemoryChain
from tests.support.guilt import HONEST, faulty
from tests.support.lone_node import Wire
from tests.support.members import memory_federation
from tests.support.simplex import PARAMS, Probe, block, notarization, nullification, of

SILENT, *OTHERS = 1, 2, 3
ALL = (SILENT, *OTHERS)
SOME_BLOCK, OTHER_BLOCK = BlockHash(b"\x05" * 32), BlockHash(b"\x06" * 32)


class AddressedWire(Wire):
    """It keeps to whom each message went."""

    def __init__(self, membership: Membership, own: int) -> None:
        super().__init__(membership, own)
        self.sent_to: list[PeerId] = []

    def send(self, peer: PeerId, payload: bytes) -> bool:
        self.sent_to.append(peer)
        return super().send(peer, payload)


@dataclass
class Asker:
    """Member 0, which asks for blocks."""

    chain: MemoryChain
    wire: AddressedWire
    peers: Peers
    requests: BlockRequests
    taken: list[Body] = field(default_factory=list)

    def ask(self, block_hash: BlockHash = SOME_BLOCK, holders: tuple[int, ...] = ()) -> list[int]:
        """Whom it asks for a block."""
        before = len(self.wire.sent_to)
        self.requests.ask(block_hash, holders)
        return [self.peers.member_of(peer) or 0 for peer in self.wire.sent_to[before:]]

    def answer(self, member: int, block_hash: BlockHash = SOME_BLOCK, block: bytes = b"") -> None:
        """A member's answer is heard, at once."""
        self.requests._receive(self.peers.peer_of(member), BlockAnswer(block_hash, block))


@contextmanager
def asking(path: Path, members: int = 4) -> Iterator[Asker]:
    """One of so many, with its storage below `path`."""
    chain, membership = MemoryChain(), fake_membership(members)
    store = ChainStore.open(path / "chain", chain.rules)
    wire = AddressedWire(membership, 0)
    peers = Peers(wire, membership)
    taken: list[Body] = []
    try:
        requests = BlockRequests(store, peers, membership.fault_tolerance, {}, taken.append)
        yield Asker(chain, wire, peers, requests, taken)
    finally:
        store.close()


@pytest.fixture
def asker(tmp_path: Path) -> Iterator[Asker]:
    with asking(tmp_path) as ready:
        yield ready


async def test_missing_block_is_asked_of_one_more_member_than_may_be_faulty(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    """Of five of fourteen, where four may be faulty; of one more each time that it is still missing."""
    holders = (0, *range(4, 14))
    with asking(tmp_path, members=15) as asker:
        first = asker.ask(holders=holders)
        assert len(first) == len(set(first)) == 5
        assert set(first) <= set(holders)
        second = [member for _ in range(4) for member in asker.ask(holders=holders)]
        assert len(second) == 4
        assert not set(first) & set(second)
        assert asker.wire.sent == [BlockRequest(SOME_BLOCK)] * 9


async def test_whoever_has_nothing_is_replaced_by_another_when_the_block_is_asked_for_again(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    with asking(tmp_path, members=15) as asker:
        holders = tuple(range(1, 12))
        first = asker.ask(holders=holders)
        for member in first:
            asker.answer(member)
        second = asker.ask(holders=holders)
        assert len(second) == 5
        assert not set(first) & set(second)
        for member in second[:3]:
            asker.answer(member)
        third = asker.ask(holders=holders)
        assert len(third) == 3
        assert not set(second) & set(third)


async def test_member_that_owes_an_answer_is_asked_after_those_who_owe_none(
    asker: Asker, autojump_clock: trio.abc.Clock
) -> None:
    assert asker.ask(holders=(SILENT, 2)) == [SILENT, 2]
    asker.answer(2)
    assert asker.ask(OTHER_BLOCK, ALL) == [3, 2]
    assert asker.ask(OTHER_BLOCK, ALL) == [SILENT]
    assert asker.ask(OTHER_BLOCK, ALL) == []


async def test_holders_who_left_are_made_up_for_by_others(asker: Asker, autojump_clock: trio.abc.Clock) -> None:
    gone = asker.peers.peer_of(2)
    assert asker.ask(holders=(2, 3)) == [2, 3]
    asker.wire.others -= {gone}
    asker.requests._forget(gone)
    assert asker.ask(holders=(2, 3)) == [SILENT]
    assert asker.ask(holders=(2, 3)) == []


def test_machine_names_who_signed_the_certificate_of_a_block_or_of_what_stands_on_it() -> None:
    probe = Probe()
    first, second = block(1), block(2, block(1))
    (request,) = of(RequestBlock, probe.take(notarization(second, (0, 2, 3))))
    assert (request.block_hash, request.holders) == (second.hash, (0, 2, 3))
    (request,) = of(RequestBlock, probe.tell(events.BlockReceived(second.info)))
    assert (request.block_hash, request.holders) == (first.hash, (0, 2, 3))
    other = Probe()
    other.take(notarization(first, (0, 1, 3)), nullification(2))
    third = block(3, first)
    other.propose(third)
    requests = of(RequestBlock, other.wait(PARAMS.resend_ms))
    assert {(request.block_hash, request.holders) for request in requests} == {(first.hash, (0, 1, 3))}


async def test_requests_that_a_member_leaves_open_are_bounded(asker: Asker, autojump_clock: trio.abc.Clock) -> None:
    for turn in range(5 * MAX_OPEN):
        block_hash = BlockHash(turn.to_bytes(32, "big"))
        asked = asker.ask(block_hash, ALL) + asker.ask(block_hash, ALL)
        assert sorted(asked) == ([*ALL] if turn < MAX_OPEN else OTHERS), "nobody twice, nor who owes too much"
        for member in OTHERS:
            asker.answer(member, block_hash)
    (debt,) = asker.requests._debts.values()
    assert len(debt.blocks) == MAX_OPEN
    assert asker.wire.dropped == []


async def test_member_that_never_answers_a_block_request_is_dropped(
    asker: Asker, autojump_clock: trio.abc.Clock
) -> None:
    for other in OTHERS:
        assert asker.ask(holders=(SILENT, other))[-1] == other
        asker.answer(other)
        await trio.sleep(ANSWER_TIMEOUT_S / 2)
        assert asker.wire.dropped == []
    asker.ask()
    assert asker.wire.dropped == [(asker.peers.peer_of(SILENT), DropReason.NO_ANSWER)]


async def test_member_that_answers_one_block_after_the_other_is_kept(
    asker: Asker, autojump_clock: trio.abc.Clock
) -> None:
    blocks = [BlockHash(bytes([turn]) * 32) for turn in range(4)]
    for block_hash in blocks:
        assert SILENT in asker.ask(block_hash, (SILENT,))
    for block_hash in blocks:
        await trio.sleep(ANSWER_TIMEOUT_S - 1)
        for peer in list(asker.requests._debts):
            member = asker.peers.member_of(peer)
            assert member is not None
            if block_hash in asker.requests._debts[peer].blocks:
                asker.answer(member, block_hash)
        asker.requests._drop_the_silent()
    assert asker.wire.dropped == []
    assert asker.requests._debts == {}


async def test_answer_that_is_another_block_is_refused_before_its_body_is_read(
    asker: Asker, autojump_clock: trio.abc.Clock
) -> None:
    block = asker.chain.build().block
    asker.ask(holders=(SILENT,))
    with pytest.raises(MalformedError, match="another block"):
        asker.answer(SILENT, SOME_BLOCK, block.header.encode() + b"no body")
    asker.ask(block.hash, (SILENT,))
    asker.answer(SILENT, block.hash, block.encode())
    assert [data for _, data in asker.taken] == [block.encode()]


async def test_member_that_asks_for_blocks_without_end_is_dropped(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers_module, "MEMBER_BURST_BYTES", 100_000)
    async with memory_federation(0) as federation:
        asker = await faulty(federation)
        block = federation.next_block(federation.members[0].store)
        federation.commit(federation.members[0].store, [block])
        for _ in range(100_000 // (len(block.data) + 2 * peers_module.MESSAGE_BYTES) + 10):
            asker.say(federation.peer_id(0), BlockRequest(block.block.hash))
        await trio.sleep(0.1)
        assert [left.reason for left in asker.left] == [DropReason.FLOOD]


async def test_block_that_nobody_asked_for_is_not_kept(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*HONEST) as federation:
        teller, member = await faulty(federation), federation.members[0]
        for block in federation.run_of_blocks(member.store, 5):
            teller.say(federation.peer_id(0), BlockAnswer(block.block.hash, block.data))
        await trio.sleep(0.2)
        assert member.driver is not None
        assert member.driver._bodies == {}
        assert len(member.core.unfinal) == 0
        assert [left.reason for left in teller.left] == [DropReason.MISPLACED_MESSAGE]
