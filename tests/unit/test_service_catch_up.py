"""Following the final chain from peers, whatever they answer."""

from dataclasses import replace

import pytest
import trio

from bridge.bitcoin.identifiers import BlockHash
from bridge.l1.errors import L1RpcError
from federation.certificate import VoteKind
from pegnode.chain.block import Block
from pegnode.net.messages import FinalBlock, FinalBlocksAnswer, FinalBlocksRequest, TipMessage
from pegnode.net.transport import DropReason, PeerId, PeerRole
from pegnode.service import abandoned_branch
from pegnode.service import catch_up as catch_up_module
from pegnode.service.core import SUSPICION_MS
from tests.support.library import LONG, certified, federation_block, library
from tests.support.members import memory_federation
from tests.support.records import ANY_RECORD

ALL = (0, 1, 2, 3)


async def test_node_without_blocks_fetches_all_from_a_member(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation() as federation:
        store = federation.disks[1].open_store(federation.rules)
        for unfinal in federation.run_of_blocks(store, LONG):
            federation.commit(store, [unfinal])
        await federation.start(1)
        node = await federation.start_full_node()
        await federation.until(lambda: node.height == LONG, seconds=2)
        assert node.store.block_at(LONG) == store.block_at(LONG)
        assert all(node.store.certificate_at(height) == store.certificate_at(height) for height in range(1, LONG + 1))
        assert len(node.core.unfinal) == 0


@pytest.mark.parametrize("gap", [2, 63, 64, 65, 200])
async def test_blocks_whose_finalization_is_a_descendants_are_fetched(gap: int, autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation() as federation:
        store = federation.disks[1].open_store(federation.rules)
        federation.commit(store, federation.run_of_blocks(store, gap))
        federation.commit(store, federation.run_of_blocks(store, 3))
        await federation.start(1)
        node = await federation.start_full_node()
        await federation.until(lambda: node.height == gap + 3, seconds=2)
        assert [height for height in range(1, gap + 4) if node.store.certificate_at(height)] == [gap, gap + 3]
        assert len(node.core.unfinal) == 0


async def test_proven_blocks_of_which_one_was_forgotten_are_fetched_again(autojump_clock: trio.abc.Clock) -> None:
    async with library(1) as books:
        federation, node = books.federation, books.node
        run = federation.run_of_blocks(books.store, 3)
        first, last = certified(federation, federation_block(books, 1)), certified(federation, run[2])
        bare = [FinalBlock(unfinal.data, b"") for unfinal in run]
        books.boast(4)
        assert await books.requested() == 1
        proof = (run[2].block.header.encode(),)
        books.answer(first, bare[0], bare[1], headers=proof, certificate=federation.finalization(run[2]))
        assert await books.requested() == 4, "the next after those that are proven"
        assert node.height == 1
        node.core.unfinal.forget(run[0].block.hash)
        books.answer(last)
        books.boast(4)
        assert await books.requested() == 2, "what stood on it has to be proven again"
        books.answer(bare[0], bare[1], last)
        await federation.until(lambda: node.height == 4)
        assert books.left() == []


async def test_peer_with_a_false_certificate_is_dropped(autojump_clock: trio.abc.Clock) -> None:
    async with library(1) as books:
        federation = books.federation
        block = federation_block(books, 1)
        header = block.block.header
        false_ones = [
            federation.certificate(VoteKind.NOTARIZE, header.view, header.hash).encode(),
            federation.certificate(VoteKind.FINALIZE, header.view, BlockHash(b"\x07" * 32)).encode(),
            federation.finalization(block, signers=(0, 1)),
            federation.finalization(block)[:-1] + b"\x00",
            b"no certificate",
        ]
        for certificate in false_ones:
            books.server.left.clear()
            books.boast()
            assert await books.requested() == 1
            books.answer(FinalBlock(block.data, certificate))
            await federation.until(books.left)
            assert books.left() == [DropReason.FALSE_BLOCKS]
            await trio.sleep(0.5)
        assert books.node.height == 0
        books.boast()
        await books.requested()
        books.answer(certified(federation, block))
        await federation.until(lambda: books.node.height == 1)


async def test_peer_with_a_false_block_is_dropped_and_the_block_is_not_condemned(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with library(2) as books:
        federation = books.federation
        first, second = federation_block(books, 1), federation_block(books, 2)
        forged = Block(first.block.header, replace(first.block.body, records=(ANY_RECORD,))).encode()
        for blocks in (
            (FinalBlock(forged, b""), certified(federation, second)),
            (FinalBlock(second.data, b""), certified(federation, second)),  # no chain
            (FinalBlock(b"no block", b""),),
            (FinalBlock(first.data, b""),),  # nothing proves it
        ):
            books.server.left.clear()
            books.server.heard.clear()
            books.boast()
            await books.requested()
            books.answer(*blocks)
            await federation.until(books.left)
            assert books.left() == [DropReason.FALSE_BLOCKS]
            await trio.sleep(0.5)
        books.server.heard.clear()
        books.boast()
        await books.requested()
        books.answer(FinalBlock(first.data, b""), certified(federation, second))
        await federation.until(lambda: books.node.height == 2)
        assert books.node.core.halt_findings == []


async def test_final_block_that_breaks_a_rule_here_halts_and_blames_nobody(autojump_clock: trio.abc.Clock) -> None:
    async with library(1) as books:
        federation = books.federation
        early = federation.next_block(books.store, time_ms=1)
        books.boast(2)
        await books.requested()
        books.answer(certified(federation, federation_block(books, 1)), certified(federation, early))
        await federation.until(lambda: books.node.core.halted)
        assert "header-time-not-above-parent" in books.node.core.halt_findings[0]
        await trio.sleep(1)
        assert books.node.height == 1
        assert books.left() == []


async def test_peer_that_does_not_answer_is_asked_last(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation() as federation:
        store = federation.disks[1].open_store(federation.rules)
        for unfinal in federation.run_of_blocks(store, 3):
            federation.commit(store, [unfinal])
        node = await federation.start_full_node()
        silent = await federation.join(federation.peer_id(2), PeerRole.MEMBER)
        await trio.sleep(0.5)
        silent.say_all(TipMessage(9_000, bytes(32)))
        await trio.sleep(0.1)
        await federation.start(1)
        await federation.until(lambda: node.height == 3, seconds=catch_up_module.ANSWER_TIMEOUT_S + 2)
        member = federation.members[1]
        federation.commit(member.store, federation.run_of_blocks(member.store, 1))
        silent.say_all(TipMessage(9_000, bytes(32)))
        member.peers.to_all(TipMessage(4, member.store.tip.hash))
        await federation.until(lambda: node.height == 4, seconds=1)


async def test_peer_that_never_answers_is_dropped(autojump_clock: trio.abc.Clock) -> None:
    async with library(3) as books:
        books.boast()
        await books.requested()
        await trio.sleep(catch_up_module.ANSWER_TIMEOUT_S - 2)
        assert books.left() == []
        await trio.sleep(4)
        assert books.left() == [DropReason.NO_ANSWER]


async def test_slow_peer_is_not_waited_for_when_another_can_be_asked(autojump_clock: trio.abc.Clock) -> None:
    """It brings one block an answer, each just within the time in which it would be dropped."""
    async with memory_federation() as federation:
        store = federation.disks[1].open_store(federation.rules)
        for unfinal in federation.run_of_blocks(store, LONG):
            federation.commit(store, [unfinal])
        node = await federation.start_full_node()
        slow = await federation.join(federation.peer_id(2), PeerRole.MEMBER)

        async def trickle() -> None:
            answered = 0
            while True:
                await trio.sleep(1)
                for request in slow.told(FinalBlocksRequest)[answered:]:
                    answered += 1
                    height = request.first_height
                    block = FinalBlock(store.block_at(height) or b"", store.certificate_at(height) or b"")
                    await trio.sleep(catch_up_module.ANSWER_TIMEOUT_S - 5)
                    slow.say_all(FinalBlocksAnswer(height, (block,), (), b""))

        federation.nursery.start_soon(trickle)
        await trio.sleep(0.5)
        slow.say_all(TipMessage(LONG, store.tip.hash))
        await trio.sleep(0.1)
        await federation.start(1)
        await federation.until(lambda: node.height == LONG, seconds=2 * catch_up_module.PATIENCE_S + 1)
        assert slow.left == []


async def test_peer_that_gives_little_is_asked_after_the_others(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation() as federation:
        store = federation.disks[1].open_store(federation.rules)
        for unfinal in federation.run_of_blocks(store, LONG):
            federation.commit(store, [unfinal])
        stingy = await federation.join(federation.peer_id(2), PeerRole.MEMBER)
        await federation.start(1)
        node = await federation.start_full_node()
        asked: list[int] = []

        async def give_one() -> None:
            while True:
                await trio.sleep(0.01)
                for request in stingy.told(FinalBlocksRequest)[len(asked) :]:
                    height = request.first_height
                    asked.append(height)
                    block = FinalBlock(store.block_at(height) or b"", store.certificate_at(height) or b"")
                    stingy.say_all(FinalBlocksAnswer(height, (block,), (), b""))

        federation.nursery.start_soon(give_one)
        await federation.until(lambda: node.peers.is_connected(2))
        stingy.say_all(TipMessage(LONG, store.tip.hash))
        await federation.until(lambda: node.height == LONG, seconds=5)
        assert len(asked) <= 2, "once in turn, and once while that was under way"


async def test_what_follows_is_asked_for_while_an_answer_is_applied(autojump_clock: trio.abc.Clock) -> None:
    async with library(3) as books:
        federation = books.federation
        blocks = [certified(federation, federation_block(books, height)) for height in (1, 2, 3)]
        books.boast()
        assert await books.requested() == 1
        books.answer(blocks[0], blocks[1])
        assert await books.requested() == 3
        books.answer(blocks[2])
        await federation.until(lambda: books.node.height == 3)
        assert books.left() == []


async def test_member_that_comes_back_asks_at_once(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation() as federation:
        store = federation.disks[1].open_store(federation.rules)
        for unfinal in federation.run_of_blocks(store, 5):
            federation.commit(store, [unfinal])
        await federation.start(1)
        await federation.start(0)
        await federation.until(lambda: federation.members[0].height == 5, seconds=catch_up_module.MEMBER_GRACE_S / 2)


async def test_boastful_guests_do_not_keep_a_member_from_the_chain(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL) as federation:
        boasters = [await federation.join(PeerId(f"guest {number}")) for number in range(5)]
        federation.isolate(3)
        late = federation.members.pop(3)
        await federation.until(lambda: federation.height >= 2)

        async def boast() -> None:
            while True:
                for boaster in boasters:
                    boaster.say_all(TipMessage(2**62, bytes(32)))
                await trio.sleep(1)

        federation.nursery.start_soon(boast)
        await trio.sleep(5)
        assert late.height < 2
        federation.network.heal()
        await federation.until(lambda: late.height >= 2, seconds=3 + catch_up_module.ANSWER_TIMEOUT_S)
        assert late.live.status().best_known_height < 100, "what guests boast of is not believed"


async def test_answer_that_nobody_asked_for_drops_its_sender(autojump_clock: trio.abc.Clock) -> None:
    async with library(1, PeerRole.GUEST) as books:
        books.answer(certified(books.federation, federation_block(books, 1)))
        await trio.sleep(1)
        assert books.node.height == 0
        assert books.left() == [DropReason.MISPLACED_MESSAGE]
        books.server.left.clear()
        books.boast()
        first_height = await books.requested()
        books.answer(certified(books.federation, federation_block(books, 1)), first_height=first_height + 1)
        await trio.sleep(1)
        assert books.left() == [DropReason.MISPLACED_MESSAGE]
        assert books.node.height == 0


async def test_node_that_its_bitcoin_node_refuses_waits_and_goes_on(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0, 1, 2) as federation:
        federation.bury()  # so that blocks move the anchor
        await federation.until(lambda: federation.members[0].store.tip.header.anchor.height > 10)
        node = federation.nodes[3]
        node.refusals = {
            method: L1RpcError(method, -1, "the test says so") for method in ("block_hash", "block_headers", "tip")
        }
        await federation.start(3)
        late = federation.members[3]
        await federation.until(lambda: late.core.waiting_for is not None)
        assert any(item.startswith("L1 for block ") for item in late.live.status().waiting_for)
        node.refusals = {}
        await federation.until(lambda: late.height >= federation.members[0].height)
        await federation.until(lambda: late.core.waiting_for is None)
        assert late.core.halt_findings == []


@pytest.mark.parametrize("knows_all", [False, True])
async def test_final_anchor_that_l1_contradicts_halts(
    knows_all: bool, autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its Bitcoin node left it follows if that tells what lay below, so that it can decide with the others."""
    if not knows_all:
        monkeypatch.setattr(abandoned_branch, "MAX_ABANDONED_BLOCKS", 0)
    async with memory_federation(0, 1, 2) as federation:
        federation.bury()
        await federation.until(lambda: federation.members[0].store.tip.header.anchor.height > 10)
        node = federation.nodes[3]
        chain = federation.l1.chain
        fork = type(federation.l1)(chain=type(chain)(list(chain.blocks[:11]), payments=1_000))
        fork.chain.mine(fork.chain.payment(chain.blocks[0].transactions[0].outputs[0]))
        fork.mine(20)
        node.world = fork
        node.stale = {block.hash: block for block in chain.blocks[11:]}
        await federation.start(3)
        late = federation.members[3]
        await federation.until(lambda: late.core.halted)
        assert late.core.halt_findings == [], "the node may yet think better of it"
        await federation.until(lambda: late.core.halt_findings, seconds=SUSPICION_MS / 1000 + 10)
        told = "left the L1 block" if knows_all else "another L1 block is active"
        assert told in late.core.halt_findings[0]
        assert (late.height == federation.members[0].height) == knows_all


async def test_node_that_is_shown_a_final_block_beside_its_chain_makes_nothing_final_any_more(
    autojump_clock: trio.abc.Clock,
) -> None:
    """More members are faulty than consensus bears; whoever shows it is not, and no rule says which branch is right."""
    async with library(2) as books:
        federation, node = books.federation, books.node
        first, second = (certified(federation, federation_block(books, height)) for height in (1, 2))
        genesis = federation.disks[2].open_store(federation.rules)
        beside = federation.run_of_blocks(genesis, 3)
        assert beside[0].block.hash != federation_block(books, 1).block.hash
        books.boast(1)
        await books.requested()
        books.answer(first)
        await federation.until(lambda: node.height == 1)
        books.boast(3)
        assert await books.requested() == 2
        books.answer(certified(federation, beside[1]), certified(federation, beside[2]))
        await trio.sleep(1)
        assert node.core.contradiction is not None
        assert node.core.waiting_for == f"people to settle it: {node.core.contradiction}"
        books.server.heard.clear()
        books.boast(4)
        await trio.sleep(5)
        assert books.server.told(FinalBlocksRequest) == []
        books.answer(second, first_height=2)
        await trio.sleep(5)
        assert (node.height, node.store.block_at(1)) == (1, first.block)
        assert DropReason.FALSE_BLOCKS not in books.left()


async def test_blocks_that_this_node_has_already_are_none_beside_its_chain(autojump_clock: trio.abc.Clock) -> None:
    """While its answer was underway, something became final here."""
    async with library(0) as books:
        federation, node = books.federation, books.node
        run = federation.run_of_blocks(node.store, 3)
        books.boast(3)
        assert await books.requested() == 1
        federation.commit(node.store, run[:2])
        books.answer(*(certified(federation, unfinal) for unfinal in run))
        await federation.until(lambda: node.height == 3)
        assert node.core.contradiction is None
