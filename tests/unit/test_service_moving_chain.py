"""A chain that moves on while a Bitcoin node is asked: verdicts and proposals are of the state after the questions."""

from collections.abc import Callable
from dataclasses import replace

import trio

from bridge.custody import CoinKind
from bridge.evidence import Opening
from pegnode.chain.block import Block
from pegnode.chain.builder import Candidates, Slot, build_block
from pegnode.consensus.events import Verdict
from pegnode.service.unfinal import UnfinalBlock
from tests.support.members import MemoryFederation, memory_federation, now_ms
from tests.support.mini_wallet import MiniWallet

ALICE = MiniWallet("alice")


def block_with_a_deposit(federation: MemoryFederation, parent_view: UnfinalBlock | None = None) -> UnfinalBlock:
    """A valid block that speaks about L1, on the final tip of member 0 or another parent."""
    member = federation.members[0]
    chain = federation.l1.chain
    script = federation.deposit_script(ALICE.script())
    payment = next(tx for block in chain.blocks for tx in block.transactions if tx.outputs[0].script == script)
    evidence = chain.evidence(payment, Opening(0, CoinKind.DEPOSIT, 0, ALICE.script()))
    parent = member.store if parent_view is None else parent_view.state
    header = parent.tip.header
    anchor = chain.anchor(chain.height - federation.rules.params.confirmations + 1)
    slot = Slot(header.view + 1, header.time_ms + 1_000, anchor, 2_000, include_l1=True)
    built = build_block(parent, slot, Candidates((evidence,), ()), chain.facts(anchor, evidence), federation.rules)
    assert built.block.body.evidence
    return UnfinalBlock(built.block, built.block.encode(), built.state)


def once(federation: MemoryFederation, do: Callable[[], None]) -> None:
    """Do something in the middle of the next question to member 0's Bitcoin node."""
    node = federation.nodes[0]

    def interrupt(method: str) -> None:
        node.on_ask = None
        do()

    node.on_ask = interrupt


async def still_federation(federation: MemoryFederation) -> None:
    """A deposit that nobody has claimed, and member 0 alone, so that nothing happens by itself."""
    federation.pay_deposit(ALICE.script(), 1_000_000)
    federation.bury()
    await trio.sleep(1)
    reports = federation.members[0].reports
    assert reports is not None
    reports._by_member.update(dict.fromkeys((1, 2), reports.by_member[0]))


async def test_verdict_is_of_the_chain_as_it_is_after_the_questions(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0) as federation:
        await still_federation(federation)
        member = federation.members[0]
        core, judge = member.core, member.judge

        def finalize(unfinal: UnfinalBlock) -> None:
            if core.unfinal.get(unfinal.block.hash) is None:
                core.unfinal.add(unfinal)
            core.finalize(unfinal.block.hash, federation.finalization(unfinal))

        # Its parent becomes final meanwhile: no harm.
        parent = federation.next_block(member.store)
        core.unfinal.add(parent)
        block = block_with_a_deposit(federation, parent)
        once(federation, lambda: finalize(parent))
        assert await judge.judge(block.block, block.data) is Verdict.VOTABLE
        core.unfinal.forget(block.block.hash)

        # It becomes final itself, by catching up: not invalid.
        once(federation, lambda: finalize(block))
        assert await judge.judge(block.block, block.data) is not Verdict.INVALID
        assert member.store.tip.hash == block.block.hash

        # Another branch becomes final: nothing is known of it any more.
        federation.bury()
        await trio.sleep(1)
        anchor = federation.l1.chain.anchor(federation.l1.chain.height - 5)
        dead = federation.next_block(member.store)
        moved = replace(dead.block.header, anchor=anchor)
        dead_block = Block(moved, dead.block.body)
        rival = federation.next_block(member.store, time_ms=moved.time_ms + 5)
        once(federation, lambda: finalize(rival))
        assert await judge.judge(dead_block, dead_block.encode()) is Verdict.WAITING
        assert len(core.unfinal) == 0


async def test_leader_whose_chain_moves_while_it_builds_gives_up_in_peace(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0) as federation:
        await still_federation(federation)
        member = federation.members[0]
        core = member.core

        def catch_up(count: int) -> None:
            blocks = federation.run_of_blocks(member.store, count)
            for unfinal in blocks:
                core.unfinal.add(unfinal)
            core.finalize(blocks[-1].block.hash, federation.finalization(blocks[-1]))

        tip = member.store.tip
        once(federation, lambda: catch_up(6))
        assert await member.proposer.build(4, tip.hash, include_l1=True) is None
        assert member.height == 6
        assert len(core.unfinal) == 0
        built = await member.proposer.build(8, member.store.tip.hash, include_l1=True)
        assert built is not None
        assert built.block.header.anchor.height > 10


async def test_leader_builds_on_a_parent_that_becomes_final_meanwhile(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0) as federation:
        await still_federation(federation)
        member = federation.members[0]
        core = member.core
        parent = federation.next_block(member.store)
        core.unfinal.add(parent)
        once(federation, lambda: core.finalize(parent.block.hash, federation.finalization(parent)))
        built = await member.proposer.build(4, parent.block.hash, include_l1=True)
        assert built is not None
        assert built.block.header.parent == parent.block.hash == member.store.tip.hash
        core.finalize(built.block.hash, federation.finalization(built))
        assert member.height == 2
        assert now_ms() > built.block.header.time_ms - 2_000
