"""What a leader still proposes when others don't vote for a part of it."""

from dataclasses import replace

import pytest
import trio

from bridge.errors import Rejected
from bridge.state import LedgerReason
from pegnode.chain import builder
from pegnode.chain.block import Body
from pegnode.chain.conditions import MAX_VIEWS_WITH_CONTENT
from pegnode.consensus.events import Verdict
from pegnode.service import proposer
from tests.support.members import memory_federation
from tests.support.mini_wallet import MiniWallet
from tests.support.peg import p2tr

ALICE = MiniWallet("alice")
BOB = MiniWallet("bob")


async def test_deposits_enter_while_members_do_not_agree_on_the_feerate_of_a_payout(
    autojump_clock: trio.abc.Clock,
) -> None:
    """Two have no estimate and vote for the floor alone, to the others the floor is too low: no batch has a quorum."""
    async with memory_federation(0, 1, 2, 3, peg={"batch_min_payouts": 1}) as federation:
        coin = await federation.fund(ALICE)
        for index, estimate in enumerate((None, None, 4_000, 4_000)):
            federation.nodes[index].feerate_sat_kvb = estimate
        burn = ALICE.spend([coin], [federation.burn_output(coin[1].value_sats - 1_000, p2tr("payee"), ALICE.script())])
        await federation.members[0].live.submit_transaction(burn.serialize())
        await federation.settled(burn)
        await federation.fund(BOB)
        assert not federation.l1.mempool
        for node in federation.nodes.values():
            node.feerate_sat_kvb = 4_000
        await federation.until(lambda: len(federation.l1.mempool) == 1)


async def test_deposits_enter_while_no_batch_can_be_worked_out(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ledger from which planning a batch fails is nothing that the leaders could mend: they go on without."""

    def fail(*_: object) -> None:
        raise Rejected(LedgerReason.INCONSISTENT, "a lineage names a coin that is gone")

    async with memory_federation(0, 1, 2, 3, peg={"batch_min_payouts": 1}) as federation:
        coin = await federation.fund(ALICE)
        with monkeypatch.context() as broken:
            broken.setattr(builder, "propose_batches", fail)
            broken.setattr(proposer, "propose_batches", fail)
            value_sats = coin[1].value_sats - 1_000
            burn = ALICE.spend([coin], [federation.burn_output(value_sats, p2tr("payee"), ALICE.script())])
            await federation.members[0].live.submit_transaction(burn.serialize())
            await federation.settled(burn)
            await federation.fund(BOB)
            assert not federation.l1.mempool
        federation.l1.mine()
        await federation.until(lambda: len(federation.l1.mempool) == 1)


async def test_blocks_long_after_the_last_final_one_are_empty(autojump_clock: trio.abc.Clock) -> None:
    """Each is kept until one is final: without a bound, hours without finality would fill the memory."""
    async with memory_federation(0, 1, 2, 3) as federation:
        coin = await federation.fund(ALICE)
        for index in (1, 2, 3):
            await federation.stop(index)
        member = federation.members[0]
        member.relay.submit_transaction(ALICE.pay(coin, BOB.script()).serialize())
        parent, last_view = member.store.tip, member.store.tip.header.view + MAX_VIEWS_WITH_CONTENT
        full = await member.proposer.build(last_view, parent.hash, include_l1=True)
        assert full is not None
        assert len(full.block.body.transactions) == 1
        assert await member.judge.judge(full.block, full.data) is Verdict.VOTABLE
        empty = await member.proposer.build(last_view + 1, parent.hash, include_l1=True)
        assert empty is not None
        assert empty.block.body == Body()
        assert await member.judge.judge(empty.block, empty.data) is Verdict.VOTABLE

        later = replace(full.block, header=replace(full.block.header, view=last_view + 1))
        assert await member.judge.judge(later, later.encode()) is not Verdict.VOTABLE
