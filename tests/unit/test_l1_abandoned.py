"""What is known of L1 about blocks whose anchor L1 left: what a record says, and where it ends the active chain."""

from dataclasses import replace
from typing import cast

import pytest
import trio

from bridge.abandoned import AbandonedBranches
from bridge.evidence import Evidence, L1BlockFact
from bridge.l1.client import L1Client
from bridge.l1.errors import L1Reason, L1Unavailable
from bridge.l1.watcher import L1Watcher
from bridge.state import Anchor
from pegnode.chain.block import Block, Body
from pegnode.chain.facts import AnchorStatus, L1Facts
from pegnode.service.l1_questions import L1Questions
from tests.support.chain import L1_START, MemoryChain
from tests.support.fake_l1 import FakeBlock, merkle_block
from tests.support.fake_l1_client import FakeL1Client, L1World
from tests.support.records import rebase_of, resume

FORK = L1_START + 3
OLD_TIP = L1_START + 9


class Scene:
    """L1 left the blocks above FORK, up to OLD_TIP, for a longer branch. old: the fork, then those blocks."""

    def __init__(self) -> None:
        self.chain = MemoryChain()
        self.world = L1World(self.chain.l1)
        self.client = FakeL1Client(self.world)
        watcher = L1Watcher(cast(L1Client, self.client), L1_START)
        self.questions = L1Questions(cast(L1Client, self.client), watcher, self.chain.rules.params)
        self.chain.l1.mine_empty(OLD_TIP - self.chain.l1.height - 1)
        self.chain.l1.mine(self.chain.l1.payment())
        assert self.chain.l1.height == OLD_TIP
        self.old = self.chain.l1.reorganise(FORK)
        self.chain.l1.mine_empty(30)
        self.rebase = rebase_of(self.old, self.chain.l1.anchor(OLD_TIP + 5))
        self.branches = AbandonedBranches([self.rebase])

    def abandoned(self, height: int) -> Anchor:
        """A block of the old branch."""
        return place(self.old[height - FORK])

    async def facts(
        self, parent: Anchor, anchor: Anchor, *named: FakeBlock, branches: AbandonedBranches | None = None
    ) -> L1Facts:
        """About a block without records, with evidence about L1 blocks. branches: others than those of the record."""
        header = replace(self.chain.header, anchor=anchor)
        block = Block(header, Body(evidence=tuple(map(evidence_of, named))))
        known = self.branches if branches is None else branches
        return await self.questions.facts(replace(header, anchor=parent), block, known)


def place(block: FakeBlock) -> Anchor:
    return Anchor(block.height, block.hash)


def evidence_of(block: FakeBlock) -> Evidence:
    """Evidence of a block's first transaction."""
    [first, *_] = block.transactions
    return Evidence(first.serialize_stripped(), merkle_block(block, first.txid), block.height, ())


@pytest.fixture
def scene() -> Scene:
    return Scene()


async def test_blocks_below_an_abandoned_anchor_are_those_of_its_record_and_of_the_active_chain_below(
    scene: Scene, autojump_clock: trio.abc.Clock
) -> None:
    blocks, [fork, first, *_, last] = scene.chain.l1.blocks, scene.old
    facts = await scene.facts(place(blocks[L1_START]), place(last), last, first, fork, blocks[FORK + 1])
    assert facts.anchor is AnchorStatus.ON_CHAIN
    assert dict(facts.blocks) == {
        last.hash: L1BlockFact(OLD_TIP, 2),
        first.hash: L1BlockFact(FORK + 1, 1),
        fork.hash: L1BlockFact(FORK, 1),
        blocks[FORK + 1].hash: None,
    }


async def test_block_above_the_anchor_is_not_below_it_though_the_record_names_it(
    scene: Scene, autojump_clock: trio.abc.Clock
) -> None:
    above = scene.old[-1]
    facts = await scene.facts(scene.abandoned(FORK + 1), scene.abandoned(FORK + 4), above)
    assert facts == L1Facts(AnchorStatus.ON_CHAIN, {above.hash: None})


async def test_abandoned_anchor_without_its_record_is_waited_for_or_contradicted(
    scene: Scene, autojump_clock: trio.abc.Clock
) -> None:
    start, old = scene.chain.l1.anchor(L1_START), scene.abandoned(OLD_TIP)
    assert (await scene.facts(start, old, branches=AbandonedBranches())).anchor is AnchorStatus.UNKNOWN
    scene.client.stale = {block.hash: block for block in scene.old[1:]}
    assert (await scene.facts(start, old, branches=AbandonedBranches())).anchor is AnchorStatus.CONTRADICTED
    assert (await scene.facts(start, old)).anchor is AnchorStatus.ON_CHAIN


async def test_chain_may_not_leave_an_abandoned_branch_without_a_record_in_the_block(
    scene: Scene, autojump_clock: trio.abc.Clock
) -> None:
    old, new = scene.abandoned(OLD_TIP), scene.rebase.new_anchor
    assert (await scene.facts(old, new)).anchor is AnchorStatus.UNKNOWN
    scene.client.stale = {block.hash: block for block in scene.old[1:]}
    assert (await scene.facts(old, new)).anchor is AnchorStatus.CONTRADICTED
    header = replace(scene.chain.header, anchor=new)
    block = Block(header, Body(records=(resume(scene.chain.rules, 1, scene.rebase),)))
    facts = await scene.questions.facts(replace(header, anchor=old), block, AbandonedBranches())
    assert facts.anchor is AnchorStatus.ON_CHAIN


async def test_record_brings_nobody_from_the_new_branch_to_the_abandoned_one(
    scene: Scene, autojump_clock: trio.abc.Clock
) -> None:
    beside, old = scene.chain.l1.anchor(FORK + 2), scene.abandoned(OLD_TIP)
    assert (await scene.facts(beside, old)).anchor is AnchorStatus.CONTRADICTED
    elsewhere = replace(scene.abandoned(FORK + 2), height=FORK + 3)
    assert (await scene.facts(elsewhere, old)).anchor is AnchorStatus.CONTRADICTED


async def test_new_anchor_of_a_record_must_be_on_the_active_chain(scene: Scene, autojump_clock: trio.abc.Clock) -> None:
    header = replace(scene.chain.header, anchor=scene.rebase.new_anchor)
    block = Block(header, Body(records=(resume(scene.chain.rules, 1, scene.rebase),)))
    scene.client.lag_blocks = 30
    facts = await scene.questions.facts(replace(header, anchor=scene.abandoned(OLD_TIP)), block, AbandonedBranches())
    assert facts.anchor is AnchorStatus.UNKNOWN


async def test_record_counts_while_ones_own_node_holds_its_fork(scene: Scene, autojump_clock: trio.abc.Clock) -> None:
    start, old = scene.chain.l1.anchor(L1_START), scene.abandoned(OLD_TIP)
    scene.client.lag_blocks = scene.chain.l1.height - FORK
    assert (await scene.facts(start, old)).anchor is AnchorStatus.ON_CHAIN
    scene.client.lag_blocks += 1
    assert (await scene.facts(start, old)).anchor is AnchorStatus.UNKNOWN
    scene.client.outage = True
    with pytest.raises(L1Unavailable) as caught:
        await scene.facts(start, old)
    assert caught.value.reason is L1Reason.UNREACHABLE
