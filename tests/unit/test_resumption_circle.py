"""From a deep reorganisation to a peg that works again: members halt, plan, sign and go on."""

import pytest
import trio

from bridge.bitcoin.transaction import Transaction, TxOut
from bridge.records import Deficit, Record
from bridge.state import WithdrawalStatus
from federation.endorsement import EndorsementReason, EndorsementRefused
from federation.errors import Refused
from federation.record import SignedRecord
from federation.record_law import RecordLaw
from pegnode.rpc.node_api import NodeUnavailable, UnavailableReason
from pegnode.service.core import SUSPICION_MS
from tests.support.members import Member, MemoryFederation, memory_federation
from tests.support.mini_wallet import MiniWallet
from tests.support.peg import p2tr
from tests.support.reorgs import double_spend, reorganise

ALL = (0, 1, 2, 3)
ALICE, BOB = MiniWallet("alice"), MiniWallet("bob")
PEG = {"batch_min_payouts": 1}
HALT_S = SUSPICION_MS / 1000 + 30
SMALL_SATS, LARGE_SATS, BURNED_SATS = 10_000_000, 50_000_000, 9_000_000


def height_of(running: MemoryFederation, transaction: Transaction) -> int:
    """Where L1 has it."""
    return next(block.height for block in running.l1.chain.blocks if transaction in block.transactions)


async def all_halted(running: MemoryFederation) -> None:
    """Wait for every member."""
    await running.until(lambda: all(one.core.active_findings() for one in running.members.values()), HALT_S)


async def planned(member: Member) -> list[Record]:
    """A member's plan, with which its own law agrees."""
    plan = await member.live.plan_resume(())
    assert (plan.waits, [view.refusal for view in plan.records]) == ((), [None] * len(plan.records))
    return [view.record for view in plan.records]


async def signed(records: list[Record], *members: Member) -> list[SignedRecord]:
    """The records with the signatures of these members, each by its own law."""
    whole = []
    for index in range(len(records)):
        first, *others = [await member.live.sign_record(records, index) for member in members]
        for other in others:
            first = first.joined(other)
        whole.append(first)
    return whole


async def resumed(running: MemoryFederation, records: list[Record], signers: tuple[int, ...] = (0, 1, 3)) -> None:
    """A quorum signs, one hands it in, and nobody is halted any more."""
    for record in await signed(records, *[running.members[index] for index in signers]):
        running.members[2].live.submit_record(record)
    await running.until(lambda: not any(one.core.halted for one in running.members.values()))


async def withdrawn(running: MemoryFederation) -> Transaction:
    """Alice has a small coin of the reserve behind her and a large one, which a payout to Bob is about to spend; the
    large one's deposit.
    """
    funds = await running.fund(ALICE, SMALL_SATS)
    await running.fund(BOB, LARGE_SATS)
    [coin] = [coin for _, coin in running.members[0].store.ledger.coins.items() if coin.value_sats == LARGE_SATS]
    burn = running.burn_output(BURNED_SATS, p2tr("payee"), ALICE.script())
    change = TxOut(funds[1].value_sats - BURNED_SATS - 1_000, ALICE.script())
    running.members[0].relay.submit_transaction(ALICE.spend([funds], [burn, change]).serialize())
    await running.until(lambda: running.l1.mempool)
    block = running.l1.chain.blocks[coin.l1_height]
    return next(transaction for transaction in block.transactions if transaction.txid == coin.outpoint.txid)


async def test_payout_of_a_lost_coin_is_made_of_another_after_the_resume(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL, peg=PEG) as running:
        deposit = await withdrawn(running)
        ledger = running.members[0].store.ledger
        [(burn, withdrawal)] = ledger.open_withdrawals.items()
        assert withdrawal.status is WithdrawalStatus.BATCHED
        before = ledger.totals
        depth = running.l1.chain.height - height_of(running, deposit) + 1
        running.l1.mempool.clear()
        reorganise(running, depth, double_spend(deposit), longer=12)
        await all_halted(running)
        records = await planned(running.members[1])
        deficit = records[0].content
        assert isinstance(deficit, Deficit)
        assert deficit.lost_sats == LARGE_SATS
        [view, _] = (await running.members[2].live.plan_resume(())).records
        assert "batch 0 is closed, and what it was to pay, 1 withdrawal, waits for another one" in view.own_view
        await resumed(running, records)
        totals = ledger.totals
        assert (totals.deficit_sats, totals.reserves_sats) == (LARGE_SATS, before.reserves_sats - LARGE_SATS)
        await running.until(lambda: running.l1.mempool)
        running.bury()
        await running.until(lambda: ledger.closed_withdrawals.get(burn) is not None)
        settled = ledger.closed_withdrawals.get(burn)
        assert settled is not None
        assert settled.status is WithdrawalStatus.SETTLED
        await running.fund(ALICE, SMALL_SATS + 1)


async def test_members_sign_by_their_own_node_and_fewer_than_a_quorum_end_nothing(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with memory_federation(*ALL, peg=PEG) as running:
        deposit = await withdrawn(running)
        depth = running.l1.chain.height - height_of(running, deposit) + 1
        running.l1.mempool.clear()
        reorganise(running, depth, double_spend(deposit), longer=12)
        await all_halted(running)
        records = await planned(running.members[0])
        for record in await signed(records, running.members[0], running.members[1]):
            with pytest.raises(EndorsementRefused) as few:
                running.members[0].live.submit_record(record)
            assert few.value.reason is EndorsementReason.TOO_FEW
        with pytest.raises(Refused) as alone:  # the deficit before it does not count as carried out
            await running.members[2].live.sign_record(records[1:], 0)
        assert alone.value.reason.value == "record-wrong-serial"
        other = Record(records[1].chain_id, 0, 1, records[1].expires_at_anchor, records[1].content)
        with pytest.raises(Refused) as incomplete:
            await running.members[2].live.sign_record([other], 0)
        assert incomplete.value.reason is RecordLaw.COIN_MISSING
        assert all(one.core.halted for one in running.members.values())
        node = await running.start_full_node()
        with pytest.raises(NodeUnavailable) as keyless:
            await node.live.sign_record(records, 0)
        assert keyless.value.reason is UnavailableReason.NO_KEYS


@pytest.mark.parametrize("is_paid", [False, True])
async def test_plan_says_which_settled_withdrawals_are_not_paid(autojump_clock: trio.abc.Clock, is_paid: bool) -> None:
    async with memory_federation(*ALL, peg=PEG) as running:
        deposit = await withdrawn(running)
        member = running.members[0]
        [payout] = running.l1.mempool.values()
        for node in running.nodes.values():
            node.feerate_sat_kvb = 4_000
        running.l1.chain.mine_empty(running.rules.params.replacement_interval_anchors)
        await running.until(lambda: running.l1.mempool and payout.txid not in running.l1.mempool)
        running.bury()
        await running.until(lambda: not list(member.store.ledger.open_lineages.items()))
        below = height_of(running, deposit) if not is_paid else running.l1.chain.height - 5
        other = payout if is_paid else double_spend(deposit)
        reorganise(running, running.l1.chain.height - below + 1, other, longer=12)
        await all_halted(running)
        plan = await member.live.plan_resume(())
        text = "\n".join(plan.records[0].own_view)
        if is_paid:
            assert "batch 0, whose change it was, is paid all the same" in text
        else:
            assert "can't be paid any more: 1 withdrawal, 9,000,000 sats, settled in the ledger and NOT PAID" in text


async def test_member_that_was_off_is_at_work_again_as_soon_as_it_has_the_records(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with memory_federation(*ALL, peg=PEG) as running:
        deposit = await withdrawn(running)
        await running.stop(3)
        running.l1.mempool.clear()
        reorganise(running, running.l1.chain.height - height_of(running, deposit) + 1, double_spend(deposit), longer=12)
        await all_halted(running)
        await resumed(running, await planned(running.members[0]), (0, 1, 2))
        await running.start(3)
        await running.until(lambda: running.members[3].height == running.height)
        await trio.sleep(3)
        assert not running.members[3].core.halted
        assert running.members[3].live.status().waiting_for == ()
