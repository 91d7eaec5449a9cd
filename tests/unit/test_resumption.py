"""Plans out of a halt: what a member's own node finds, what has to be waited for, and what is booked."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import cast

import pytest
import trio

from bridge.bitcoin.hashes import sha256
from bridge.bitcoin.identifiers import BlockHash, OutPoint, Txid, hash_to_hex
from bridge.bitcoin.transaction import Transaction, TxIn, TxOut
from bridge.custody import CoinKind
from bridge.errors import Reason
from bridge.l1.client import L1Client
from bridge.l1.errors import L1RpcError, RpcCode
from bridge.records import AbandonedBlock, Deficit, Finding, LostCoin, Record, Resume
from bridge.state import Anchor, Coin
from federation.record_law import RecordLaw
from pegnode.errors import Refusal
from pegnode.resume.outlook import GIVEN_UP_BLOCKS, CoinSight, coin_outlook
from pegnode.rpc.node_api import NodeUnavailable, UnavailableReason
from pegnode.service import resumption as resumption_module
from pegnode.service.l1_branches import BranchReason
from pegnode.service.resumption import RECORD_LIFE_ANCHORS, Resumption, ResumptionReason
from tests.support.fake_l1 import MINER_SCRIPT, FakeBlock
from tests.support.members import Member, MemoryFederation, memory_federation
from tests.support.mini_wallet import MiniWallet
from tests.support.reorgs import double_spend, reorganise

ALL = (0, 1, 2, 3)
ALICE = MiniWallet("alice")
DEPOSIT_SATS = 10_000_000
CONFIRMATIONS = 6
DEEP = 2 * CONFIRMATIONS


class Scene:
    """A federation with one coin, that of a deposit, and a deep reorganisation that a test may make."""

    def __init__(self, federation: MemoryFederation) -> None:
        self.federation = federation
        self.member: Member = federation.members[0]
        self.node = federation.nodes[0]
        self.chain = federation.l1.chain
        self.resumption = Resumption(self.member.core, cast(L1Client, self.node), self.member.is_current)
        [self.coin] = [coin for _, coin in self.member.store.ledger.coins.items()]
        self.deposit = next(
            transaction
            for transaction in self.chain.blocks[self.coin.l1_height].transactions
            if transaction.txid == self.coin.outpoint.txid
        )
        self.anchor = self.member.store.ledger.totals.anchor
        self.depth = self.chain.height - self.coin.l1_height + 1

    def halt(self, *findings: Finding) -> None:
        """The member halts, as it would after a minute."""
        for finding in findings or (Finding.anchor_left(self.anchor),):
            self.member.core.halt(finding, "the test says so")

    def abandon(self, *first: Transaction, longer: int = DEEP) -> list[FakeBlock]:
        """L1 leaves the coin's block and those above, the anchor among them; the member halts."""
        left = reorganise(self.federation, self.depth, *first, longer=longer)
        self.halt()
        return left

    async def records(self) -> list[Record]:
        """The plan, which waits for nothing."""
        plan = await self.resumption.plan()
        assert plan.waits == ()
        assert [view.refusal for view in plan.records] == [None] * len(plan.records)
        return [view.record for view in plan.records]

    async def wait(self) -> str:
        """The one thing that the plan waits for."""
        plan = await self.resumption.plan()
        assert plan.records == ()
        [wait] = plan.waits
        return wait

    async def refusal(self) -> Reason:
        """Why there is no plan."""
        return await refused(self.resumption.plan)


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    """A federation whose member 0 is about to have trouble."""
    async with memory_federation(*ALL) as federation:
        await federation.fund(ALICE, DEPOSIT_SATS)
        yield Scene(federation)


async def refused(ask: Callable[[], Awaitable[object]]) -> Reason:
    with pytest.raises((Refusal, NodeUnavailable)) as caught:
        await ask()
    return caught.value.reason


async def test_plan_moves_the_anchor_and_names_every_abandoned_block(autojump_clock: trio.abc.Clock) -> None:
    async with scene() as at:
        left = at.abandon(at.deposit)
        [record] = await at.records()
        assert isinstance(record.content, Resume)
        rebase = record.content.rebase
        assert rebase is not None
        assert rebase.old_anchor == at.anchor
        assert rebase.fork == at.chain.anchor(at.coin.l1_height - 1)
        below = [block for block in left if block.height <= at.anchor.height]
        assert rebase.abandoned == tuple(AbandonedBlock(block.hash, len(block.transactions)) for block in below)
        assert rebase.new_anchor == at.chain.anchor(at.chain.height - CONFIRMATIONS + 1)
        assert record.content.findings == (Finding.anchor_left(at.anchor),)
        assert (record.serial, record.epoch, record.chain_id) == (1, 0, at.federation.rules.chain_id)
        assert record.expires_at_anchor == rebase.new_anchor.height + RECORD_LIFE_ANCHORS


async def test_double_spent_deposit_is_a_deficit(autojump_clock: trio.abc.Clock) -> None:
    async with scene() as at:
        other = double_spend(at.deposit)
        at.abandon(other)
        plan = await at.resumption.plan()
        deficit, resume = plan.records
        assert deficit.record.content == Deficit((LostCoin(at.coin.outpoint, DEPOSIT_SATS),))
        assert (deficit.record.serial, resume.record.serial) == (1, 2)
        assert isinstance(resume.record.content, Resume)
        assert resume.record.content.rebase is not None
        text = "\n".join(deficit.own_view)
        for words in (str(at.coin.outpoint), hash_to_hex(other.txid), "deficit: 0 sats, then 10,000,000 sats"):
            assert words in text
        spender = at.chain.anchor(at.coin.l1_height)
        assert f"in L1 block {spender.height} {hash_to_hex(spender.hash)} spent what it came from" in text


async def test_losses_that_fill_a_plan_are_booked_before_another_ends_the_halt(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scene() as at:
        at.abandon(double_spend(at.deposit))
        assert len(await at.records()) == 2
        monkeypatch.setattr(resumption_module, "MAX_RECORDS", 1)
        [record] = await at.records()
        assert isinstance(record.content, Deficit)


async def test_fresh_double_spend_is_waited_for(autojump_clock: trio.abc.Clock) -> None:
    async with scene() as at:
        at.abandon()
        at.chain.mine(double_spend(at.deposit))
        at.chain.mine_empty(CONFIRMATIONS - 2)
        assert f"{CONFIRMATIONS - 1} deep: wait until it is {CONFIRMATIONS} deep" in await at.wait()
        at.chain.mine_empty(1)
        assert len(await at.records()) == 2


async def test_deposit_in_the_mempool_is_waited_for(autojump_clock: trio.abc.Clock) -> None:
    async with scene() as at:
        at.abandon()
        at.federation.l1.mempool[at.deposit.txid] = at.deposit
        assert "waits in the mempool" in await at.wait()
        at.federation.l1.mine()
        assert "a block holds it again, 1 deep: wait until it is 6 deep" in await at.wait()
        at.federation.l1.mine(CONFIRMATIONS - 1)
        assert len(await at.records()) == 1


async def test_resume_on_a_deposit_that_is_not_deep_again_is_not_signed(autojump_clock: trio.abc.Clock) -> None:
    """Another reorganisation, of one block, would take it away: no member signed when it was credited so."""
    async with scene() as at:
        at.abandon()
        at.chain.mine(at.deposit)
        at.chain.mine_empty(CONFIRMATIONS - 1)
        [record] = await at.records()
        at.chain.reorganise(at.chain.height - CONFIRMATIONS)
        at.chain.mine_empty(2)
        at.chain.mine(at.deposit)
        at.chain.mine_empty(CONFIRMATIONS - 2)
        [view] = await at.resumption.judge([record])
        assert view.refusal is not None
        assert view.refusal.startswith(str(RecordLaw.COIN_MISSING))


async def test_plan_steps_no_further_than_members_sign(autojump_clock: trio.abc.Clock) -> None:
    async with scene() as at:
        core = at.member.core
        params = replace(core.rules.params, max_anchor_step=3 * RECORD_LIFE_ANCHORS, withdrawal_expiry_anchors=10_000)
        core.rules = replace(core.rules, params=params)
        at.abandon(at.deposit, longer=2 * RECORD_LIFE_ANCHORS + DEEP)
        [record] = await at.records()
        assert record.rebase is not None
        assert record.rebase.new_anchor.height == at.anchor.height + RECORD_LIFE_ANCHORS


async def test_deposit_that_is_nowhere_may_come_back(autojump_clock: trio.abc.Clock) -> None:
    async with scene() as at:
        at.abandon()
        wait = await at.wait()
        assert str(at.coin.outpoint) in wait
        assert "send it again" in wait


async def test_deposit_that_no_miner_takes_again_is_given_up_after_a_day(autojump_clock: trio.abc.Clock) -> None:
    async with scene() as at:
        at.abandon()
        at.chain.mine_empty(GIVEN_UP_BLOCKS - 1 - (at.chain.height - (at.coin.l1_height - 1)))
        assert "send it again" in await at.wait()
        at.chain.mine_empty(1)
        deficit, _ = await at.records()
        assert deficit.content == Deficit((LostCoin(at.coin.outpoint, DEPOSIT_SATS),))


def test_coin_that_an_open_batch_spends_is_not_given_up() -> None:
    """If it came back, so would the batch, and pay beside the one that took its place."""
    outpoint = OutPoint(Txid(bytes(32)), 0)
    coin = Coin(outpoint, DEPOSIT_SATS, CoinKind.DEPOSIT, 0, b"", 100)
    tip = Anchor(100 + GIVEN_UP_BLOCKS, BlockHash(bytes(32)))
    for waiting in (frozenset[OutPoint](), frozenset({outpoint})):  # or anybody's mempool could keep it for ever
        sight = CoinSight(tip, GIVEN_UP_BLOCKS, (outpoint,), {}, {}, waiting, frozenset({outpoint}), {})
        assert coin_outlook(coin, sight, CONFIRMATIONS).lost
        assert not coin_outlook(coin, replace(sight, new_blocks=GIVEN_UP_BLOCKS - 1), CONFIRMATIONS).lost
        assert not coin_outlook(replace(coin, lineage=1), sight, CONFIRMATIONS).lost


async def test_branch_that_is_not_deep_enough_is_waited_for(autojump_clock: trio.abc.Clock) -> None:
    async with scene() as at:
        at.abandon(at.deposit, longer=0)
        assert await at.wait() == f"L1 needs 1 more block: a block above {at.anchor.height} has to be 6 deep"
        at.chain.mine_empty(1)
        assert len(await at.records()) == 1


async def test_stolen_coin_is_a_deficit_when_the_theft_is_deep(autojump_clock: trio.abc.Clock) -> None:
    async with scene() as at:
        at.halt(Finding.coin_gone(at.coin.outpoint))
        theft = Transaction(2, (TxIn(at.coin.outpoint),), (TxOut(1_000, MINER_SCRIPT),))
        at.federation.l1.mempool[theft.txid] = theft
        assert f"{hash_to_hex(theft.txid)} in the mempool spends it" in await at.wait()
        at.federation.l1.mine(CONFIRMATIONS - 1)
        assert "spent it, 5 deep" in await at.wait()
        at.federation.l1.mine()
        deficit, resume = await at.records()
        assert deficit.content == Deficit((LostCoin(at.coin.outpoint, DEPOSIT_SATS),))
        assert resume.content == Resume((Finding.coin_gone(at.coin.outpoint),))
        at.federation.l1.mine(CONFIRMATIONS)  # no block that is looked at shows who spent it
        assert len(await at.records()) == 2


async def test_plan_ends_what_others_found_too(autojump_clock: trio.abc.Clock) -> None:
    async with scene() as at:
        other = Finding.second_version(at.deposit.txid)
        plan = await at.resumption.plan([other])
        [view] = plan.records
        assert view.record.content == Resume((other,))
        assert any(line.startswith("not found: ") for line in view.own_view)


async def test_plan_ends_what_is_only_suspected_yet(autojump_clock: trio.abc.Clock) -> None:
    async with scene() as at:
        at.abandon(at.deposit)
        suspected = Finding.second_version(at.deposit.txid)
        at.member.core.suspect(suspected, "a second version")
        [record] = await at.records()
        assert isinstance(record.content, Resume)
        assert set(record.content.findings) == {Finding.anchor_left(at.anchor), suspected}


async def test_member_that_has_not_halted_has_no_plan(autojump_clock: trio.abc.Clock) -> None:
    async with scene() as at:
        assert await at.refusal() is ResumptionReason.NOT_HALTED
        at.member.core.suspect(Finding.anchor_left(at.anchor), "it may have left")
        with pytest.raises(Refusal, match="it may have left"):
            await at.resumption.plan()


async def test_refused_block_is_ended_by_no_record(autojump_clock: trio.abc.Clock) -> None:
    async with scene() as at:
        at.halt(Finding.block_refused(BlockHash(sha256(b"a block"))))
        assert await at.refusal() is ResumptionReason.BLOCK_REFUSED


async def test_node_that_never_had_the_branch_has_no_plan(autojump_clock: trio.abc.Clock) -> None:
    async with scene() as at:
        at.abandon(at.deposit)
        at.node.stale.clear()
        assert await at.refusal() is BranchReason.UNKNOWN


async def test_node_without_the_blocks_has_no_plan(autojump_clock: trio.abc.Clock) -> None:
    async with scene() as at:
        at.abandon(double_spend(at.deposit))
        await at.records()
        at.node.refusals["block"] = L1RpcError("getblock", RpcCode.BLOCK_ABSENT, "Block not available (pruned data)")
        assert await at.refusal() is BranchReason.BLOCK_ABSENT


async def test_plan_waits_for_a_bitcoin_node_that_has_read_everything(autojump_clock: trio.abc.Clock) -> None:
    async with scene() as at:
        at.abandon(at.deposit)
        at.node.headers_ahead = 1
        assert await at.refusal() is UnavailableReason.L1_BEHIND
        at.node.headers_ahead = 0
        at.node.outage = True
        assert await at.refusal() is UnavailableReason.L1_UNREACHABLE
        at.node.outage = False
        behind = Resumption(at.member.core, cast(L1Client, at.node), lambda: False)
        assert await refused(behind.plan) is UnavailableReason.SYNCING


async def test_plan_is_of_one_l1(autojump_clock: trio.abc.Clock) -> None:
    async with scene() as at:
        at.abandon(at.deposit)
        await at.records()

        def mine(method: str) -> None:
            if method == "txouts":
                at.chain.mine()

        at.node.on_ask = mine
        assert await at.refusal() in (UnavailableReason.L1_MOVED, UnavailableReason.L1_BEHIND)


async def test_record_about_a_coin_that_is_there_is_judged_so(autojump_clock: trio.abc.Clock) -> None:
    async with scene() as at:
        at.abandon(at.deposit)
        [resume] = await at.records()
        nothing = OutPoint(at.deposit.txid, 99)
        lost = Deficit.of([LostCoin(at.coin.outpoint, DEPOSIT_SATS), LostCoin(nothing, 1)])
        rules = at.federation.rules
        [view] = await at.resumption.judge([Record(rules.chain_id, 0, 1, resume.expires_at_anchor, lost)])
        assert (
            f"{at.coin.outpoint}: unspent on L1, or spent by a batch that the ledger has yet to settle" in view.own_view
        )
        assert f"{nothing}: no coin of the ledger here" in view.own_view
        assert any("can't be booked" in line for line in view.own_view)
        assert view.refusal is not None
