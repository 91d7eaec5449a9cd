"""Blocks that members ask one another for: from whom they are taken, and how many are given."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio

from bridge.bitcoin.identifiers import BlockHash
from bridge.errors import MalformedError
from pegnode.net.messages import BlockAnswer, BlockRequest
from pegnode.net.transport import DropReason
from pegnode.service import peers as peers_module
from pegnode.service.block_requests import ANSWER_TIMEOUT_S, MAX_OPEN, BlockRequests
from pegnode.service.event_queue import Body
from pegnode.service.peers import Peers
from pegnode.storage.store import ChainStore
from tests.support.chain import MemoryChain
from tests.support.guilt import HONEST, faulty
from tests.support.lone_node import Wire
from tests.support.members import memory_federation

SILENT, *OTHERS = 1, 2, 3
SOME_BLOCK = BlockHash(b"\x05" * 32)


@dataclass
class Asker:
    """Member 0 of four, which asks for blocks."""

    chain: MemoryChain
    wire: Wire
    peers: Peers
    requests: BlockRequests
    taken: list[Body] = field(default_factory=list)

    def asked(self) -> list[BlockHash]:
        """What was asked for since this was asked last, once for each request."""
        sent, self.wire.sent = self.wire.sent, []
        return [BlockHash(message.block_hash) for message in sent if isinstance(message, BlockRequest)]

    def answer(self, member: int, block_hash: BlockHash, block: bytes = b"") -> None:
        """A member's answer is heard, at once."""
        self.requests._receive(self.peers.peer_of(member), BlockAnswer(block_hash, block))


@pytest.fixture
def asker(tmp_path: Path) -> Iterator[Asker]:
    chain = MemoryChain()
    store = ChainStore.open(tmp_path / "chain", chain.rules)
    wire = Wire(chain.rules.membership, 0)
    peers = Peers(wire, chain.rules.membership)
    taken: list[Body] = []
    try:
        yield Asker(chain, wire, peers, BlockRequests(store, peers, {}, taken.append), taken)
    finally:
        store.close()


async def test_requests_that_a_member_leaves_open_are_bounded(asker: Asker, autojump_clock: trio.abc.Clock) -> None:
    for turn in range(5 * MAX_OPEN):
        block_hash = BlockHash(turn.to_bytes(32, "big"))
        asker.requests.ask(block_hash)
        asker.requests.ask(block_hash)
        assert len(asker.asked()) == (3 if turn < MAX_OPEN else 2), "of nobody twice, nor of who owes too much"
        for member in OTHERS:
            asker.answer(member, block_hash)
    (debt,) = asker.requests._debts.values()
    assert len(debt.blocks) == MAX_OPEN
    assert asker.wire.dropped == []


async def test_member_that_never_answers_a_block_request_is_dropped(
    asker: Asker, autojump_clock: trio.abc.Clock
) -> None:
    for _ in range(2):
        asker.requests.ask(SOME_BLOCK)
        for member in OTHERS:
            asker.answer(member, SOME_BLOCK)
        await trio.sleep(ANSWER_TIMEOUT_S / 2)
        assert asker.wire.dropped == []
    asker.requests.ask(SOME_BLOCK)
    assert asker.wire.dropped == [(asker.peers.peer_of(SILENT), DropReason.NO_ANSWER)]


async def test_member_that_answers_one_block_after_the_other_is_kept(
    asker: Asker, autojump_clock: trio.abc.Clock
) -> None:
    blocks = [BlockHash(bytes([turn]) * 32) for turn in range(4)]
    for block_hash in blocks:
        asker.requests.ask(block_hash)
    for block_hash in blocks:
        await trio.sleep(ANSWER_TIMEOUT_S - 1)
        for member in (SILENT, *OTHERS):
            asker.answer(member, block_hash)
        asker.requests.ask(SOME_BLOCK)
        for member in (SILENT, *OTHERS):
            asker.answer(member, SOME_BLOCK)
    assert asker.wire.dropped == []
    assert asker.requests._debts == {}


async def test_answer_that_is_another_block_is_refused_before_its_body_is_read(
    asker: Asker, autojump_clock: trio.abc.Clock
) -> None:
    block = asker.chain.build().block
    asker.requests.ask(SOME_BLOCK)
    with pytest.raises(MalformedError, match="another block"):
        asker.answer(SILENT, SOME_BLOCK, block.header.encode() + b"no body")
    asker.requests.ask(block.hash)
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
