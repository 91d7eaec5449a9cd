"""Losses: what a deficit record does to coins, lineages and payees, and that a lost coin comes back once, unclaimed."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import pytest

from bridge.bitcoin.identifiers import OutPoint
from bridge.bitcoin.transaction import Transaction
from bridge.custody import CoinKind
from bridge.deposits import apply_evidence
from bridge.errors import Reason, Rejected
from bridge.evidence import Evidence, EvidenceReason, Opening
from bridge.ledger import Ledger, enter_coin, enter_donation, may_enter
from bridge.lineages import PlannedBatch, free_fund_sats, open_lineage, record_batch, settle
from bridge.losses import book_losses, restore_coin
from bridge.records import Deficit, LostCoin, RecordReason
from bridge.refunds import due_refunds, refund
from bridge.replacement import plan_replacement
from bridge.state import BatchKind, BatchVersion, LedgerReason, Lineage, Withdrawal, WithdrawalStatus
from tests.support.ledgers import (
    batched_ledger,
    burn,
    ledger_of,
    only_lineage,
    only_withdrawal,
    pending,
    plan,
    rejection,
    small_ledger,
    terms,
    wait,
)
from tests.support.peg import (
    ALICE,
    BOB,
    CUSTODY,
    PARAMS,
    START_HEIGHT,
    coin,
    deposit_script,
    evidence_of,
    lone_fact,
    new_ledger,
    outpoint,
    pays,
)
from tests.support.replacements import FEERATE, ONE, bump, newest_version, open_payout, transaction_of

DEPOSIT_SATS = 1_000_000
DEPOSIT = pays((DEPOSIT_SATS, deposit_script()))
OPENED = evidence_of(DEPOSIT, Opening(0, CoinKind.DEPOSIT, 0, ALICE))


def losses(ledger: Ledger, outpoints: Sequence[OutPoint]) -> Deficit:
    """These coins, with the values that the ledger has them at."""
    coins = (ledger.coins.get(outpoint) for outpoint in outpoints)
    return Deficit.of(LostCoin(item.outpoint, item.value_sats) for item in coins if item is not None)


def lose(ledger: Ledger, *outpoints: OutPoint) -> None:
    """A record names these coins as lost."""
    book_losses(ledger, losses(ledger, outpoints))


def apply(ledger: Ledger, evidence: Evidence) -> tuple[Transaction, ...]:
    """Enter it; the claims it gives rise to."""
    return apply_evidence(ledger, evidence, lone_fact(), CUSTODY, PARAMS)


def reason(ledger: Ledger, deficit: Deficit) -> Reason:
    """Why the losses are refused, having changed nothing."""
    return rejection(ledger, lambda: book_losses(ledger, deficit))


def test_lost_coin_leaves_the_reserves_for_the_deficit() -> None:
    ledger = small_ledger()
    before = terms(ledger)
    lose(ledger, outpoint(2))
    assert before == (1_400_000, 0, 840_000, 500_000, 60_000)
    assert terms(ledger) == (1_000_000, 400_000, 840_000, 500_000, 60_000)
    assert outpoint(2) not in ledger.coins
    assert ledger.lost.get(outpoint(2)) == coin(2, 400_000)
    assert outpoint(2) in ledger.entered


def test_every_coin_may_be_lost_at_once() -> None:
    ledger = batched_ledger()
    lose(ledger, outpoint(1), outpoint(2))
    assert terms(ledger) == (0, 1_400_000, 840_000, 500_000, 60_000)
    assert list(ledger.coins.items()) == []


@pytest.mark.parametrize(
    ("lost", "expected"),
    [
        ([LostCoin(outpoint(9), 5)], RecordReason.NOT_A_COIN),
        ([LostCoin(outpoint(1), 1_000_000), LostCoin(outpoint(9), 5)], RecordReason.NOT_A_COIN),
        ([LostCoin(outpoint(1), 999_999)], RecordReason.WRONG_VALUE),
        ([LostCoin(outpoint(1), 1_000_000), LostCoin(outpoint(2), 400_001)], RecordReason.WRONG_VALUE),
    ],
)
def test_losses_of_other_coins_or_values_are_refused_whole(lost: list[LostCoin], expected: Reason) -> None:
    assert reason(batched_ledger(), Deficit.of(lost)) is expected


def test_coin_is_lost_once() -> None:
    ledger = small_ledger()
    deficit = losses(ledger, [outpoint(2)])
    book_losses(ledger, deficit)
    assert reason(ledger, deficit) is RecordReason.NOT_A_COIN


# Lineages


def test_lineage_whose_versions_are_all_dead_is_closed_and_its_payees_wait() -> None:
    ledger = batched_ledger()
    lineage, batched = only_lineage(ledger), only_withdrawal(ledger)
    wait(ledger, 5)
    lose(ledger, outpoint(1))
    assert list(ledger.open_lineages.items()) == []
    assert ledger.closed_lineages.get(0) == lineage
    assert lineage.settled_by is None
    assert only_withdrawal(ledger) == replace(
        batched, status=WithdrawalStatus.PENDING, lineage=None, burned_at_anchor=START_HEIGHT + 5
    )
    assert terms(ledger) == (400_000, 1_000_000, 840_000, 500_000, 60_000)
    assert free_fund_sats(ledger) == 60_000
    txid = lineage.versions[0].txid
    assert rejection(ledger, lambda: settle(ledger, txid, START_HEIGHT)) is LedgerReason.ALREADY_SETTLED


def test_loss_of_a_coin_that_no_version_spends_leaves_lineages_alone() -> None:
    ledger = batched_ledger()
    lineage = only_lineage(ledger)
    lose(ledger, outpoint(2))
    assert only_lineage(ledger) == lineage
    settle(ledger, lineage.versions[0].txid, START_HEIGHT)
    assert terms(ledger)[:2] == (499_800, 400_000)


def test_other_coins_of_a_dead_lineage_are_free() -> None:
    ledger = ledger_of([600_000, 500_000], [(800_000, 20_000)])
    record_batch(ledger, plan(ledger, [coin(0, 600_000), coin(1, 500_000)], pending(ledger)))
    lose(ledger, outpoint(0))
    assert dict(ledger.coins.items()) == {outpoint(1): coin(1, 500_000)}


def test_payee_of_a_dead_lineage_that_had_expired_is_not_refunded_at_once() -> None:
    """It could be paid by no other payout in between; a batched burn is never refunded, however old."""
    ledger = batched_ledger()
    wait(ledger, PARAMS.withdrawal_expiry_anchors + 1)
    assert due_refunds(ledger, PARAMS) == []
    lose(ledger, outpoint(1))
    assert due_refunds(ledger, PARAMS) == []
    wait(ledger, PARAMS.withdrawal_expiry_anchors - 1)
    assert due_refunds(ledger, PARAMS) == []
    wait(ledger, 1)
    assert due_refunds(ledger, PARAMS) == [only_withdrawal(ledger)]


def test_pending_burn_beside_a_dead_lineage_keeps_its_expiry() -> None:
    ledger = batched_ledger()
    other = burn(ledger, 4, 100_000)
    wait(ledger, PARAMS.withdrawal_expiry_anchors)
    lose(ledger, outpoint(1))
    assert due_refunds(ledger, PARAMS) == [other]


def test_payee_of_a_dead_lineage_is_paid_or_refunded_and_not_both() -> None:
    ledger = ledger_of([600_000, 700_000], [(500_000, 20_000)])
    [waiting] = pending(ledger)
    record_batch(ledger, plan(ledger, [coin(0, 600_000)], [waiting]))
    lose(ledger, outpoint(0))
    paid, refunded = Ledger(ledger), Ledger(ledger)
    lineage = record_batch(paid, plan(paid, [coin(1, 700_000)], pending(paid)))
    assert lineage.number == 1
    assert rejection(paid, lambda: refund(paid, waiting.burn, 0)) is LedgerReason.NOT_PENDING
    settle(paid, lineage.versions[0].txid, START_HEIGHT)
    assert rejection(paid, lambda: refund(paid, waiting.burn, 0)) is LedgerReason.NOT_PENDING
    planned = plan(refunded, [coin(1, 700_000)], pending(refunded))
    refund(refunded, waiting.burn, 500)
    assert rejection(refunded, lambda: record_batch(refunded, planned)) is LedgerReason.NOT_PENDING


def test_payees_of_a_dead_lineage_come_before_younger_burns() -> None:
    ledger = batched_ledger()
    younger = burn(ledger, 4, 100_000)
    lose(ledger, outpoint(1))
    assert [item.number for item in pending(ledger)] == [0, younger.number]


def replaced_payout() -> tuple[Ledger, Lineage]:
    """A payout of three versions, of which the last takes a second coin and part of the fund; and its lineage."""
    ledger = open_payout([600_000, 550_000, 300_000], [(560_000, 35_000)], donated_sats=5_000_000)
    bump(ledger, 10 * FEERATE)
    wait(ledger, PARAMS.replacement_interval_anchors)
    bump(ledger, 20 * FEERATE)
    lineage = only_lineage(ledger)
    assert [len(transaction_inputs(version)) for version in lineage.versions] == [1, 1, 2]
    assert lineage.reserved_fund_sats > 0
    return ledger, lineage


def transaction_inputs(version: BatchVersion) -> list[OutPoint]:
    """What it spends."""
    return [txin.outpoint for txin in Transaction.parse(version.transaction).inputs]


def test_dead_versions_leave_a_lineage_of_which_some_live() -> None:
    ledger, before = replaced_payout()
    fund_sats = free_fund_sats(ledger)
    lose(ledger, outpoint(1))
    lineage = only_lineage(ledger)
    assert lineage == replace(before, inputs=(outpoint(0),), versions=before.versions[:2], reserved_fund_sats=0)
    assert [version.txid in ledger.versions for version in before.versions] == [True, True, False]
    assert free_fund_sats(ledger) == fund_sats + before.reserved_fund_sats
    assert only_withdrawal(ledger).status is WithdrawalStatus.BATCHED
    dead = before.versions[2].txid
    assert rejection(ledger, lambda: settle(ledger, dead, START_HEIGHT)) is LedgerReason.UNKNOWN_VERSION


def test_coin_that_only_a_dead_version_spent_is_free() -> None:
    ledger, lineage = replaced_payout()
    extra = plan(ledger, [], [])
    inputs = (*lineage.inputs, outpoint(2))
    transaction = Transaction.parse(lineage.versions[-1].transaction)
    widest = replace(transaction, inputs=(*transaction.inputs, replace(transaction.inputs[0], outpoint=outpoint(2))))
    version = replace(lineage.versions[-1], txid=widest.txid, transaction=widest.serialize())
    planned = replace(extra, replaces=newest_version(ledger), inputs=inputs, payees=lineage.payees, version=version)
    record_batch(ledger, planned)
    lose(ledger, outpoint(1))
    assert only_lineage(ledger).versions == lineage.versions[:2]
    free = ledger.coins.get(outpoint(2))
    assert free is not None
    assert free.lineage is None


@pytest.mark.parametrize("index", [0, 1])
def test_living_version_settles_its_lineage_after_the_dead_are_gone(index: int) -> None:
    ledger, before = replaced_payout()
    lose(ledger, outpoint(1))
    settle(ledger, before.versions[index].txid, START_HEIGHT)
    assert list(ledger.open_lineages.items()) == []
    assert list(ledger.open_withdrawals.items()) == []
    assert {held for held, _ in ledger.coins.items()} == {
        outpoint(2),
        outpoint(50),
        OutPoint(before.versions[index].txid, 1),
    }


def test_newest_living_version_is_the_one_to_replace() -> None:
    ledger, before = replaced_payout()
    lose(ledger, outpoint(1))
    wait(ledger, PARAMS.replacement_interval_anchors)
    living, dead = before.versions[1], before.versions[2]
    with pytest.raises(Rejected):
        plan_replacement(ledger, BatchKind.PAYOUT, dead.txid, 20 * FEERATE, CUSTODY, ONE)
    planned = bump(ledger, 20 * FEERATE)
    assert planned.replaces == living.txid
    assert planned.inputs == (outpoint(0), outpoint(2))
    assert set(transaction_inputs(living)) <= {txin.outpoint for txin in transaction_of(planned).inputs}


def test_dead_version_is_recorded_again_only_with_its_coins() -> None:
    ledger, before = replaced_payout()
    dead = before.versions[2]
    again = PlannedBatch(BatchKind.PAYOUT, before.versions[1].txid, before.inputs, before.payees, dead)
    lose(ledger, outpoint(1))
    assert rejection(ledger, lambda: record_batch(ledger, again)) is LedgerReason.COIN_NOT_FREE
    restore_coin(ledger, outpoint(1), START_HEIGHT)
    assert record_batch(ledger, again).versions == before.versions
    settle(ledger, dead.txid, START_HEIGHT)


def test_lineages_of_both_kinds_lose_their_dead_versions() -> None:
    ledger = batched_ledger()
    kept = replace(plan(ledger, [coin(2, 400_000)], []), kind=BatchKind.MAINTENANCE)
    record_batch(ledger, kept)
    one, both = Ledger(ledger), Ledger(ledger)
    lose(one, outpoint(2))
    assert open_lineage(one, BatchKind.MAINTENANCE) is None
    assert open_lineage(one, BatchKind.PAYOUT) is not None
    lose(both, outpoint(1), outpoint(2))
    assert list(both.open_lineages.items()) == []
    assert [number for number, _ in both.closed_lineages.items()] == [0, 1]


def test_withdrawal_that_a_dead_lineage_promised_and_the_ledger_lacks_refuses_all() -> None:
    ledger = batched_ledger()
    ledger.open_withdrawals.delete(outpoint(3))
    assert reason(ledger, losses(ledger, [outpoint(1)])) is LedgerReason.INCONSISTENT


# Coming back


def with_lost_deposit() -> Ledger:
    """A ledger whose one deposit, Alice's, was claimed and then lost."""
    ledger = new_ledger()
    [claim] = apply(ledger, OPENED)
    assert claim.outputs[0].value_sats == DEPOSIT_SATS - PARAMS.claim_fee_sats
    lose(ledger, DEPOSIT.outpoint(0))
    return ledger


def test_lost_deposit_comes_back_once_and_is_not_claimed_again() -> None:
    ledger = with_lost_deposit()
    before = terms(ledger)
    assert apply(ledger, OPENED) == ()
    assert before == (0, DEPOSIT_SATS, 970_000, 0, 30_000)
    assert terms(ledger) == (DEPOSIT_SATS, 0, 970_000, 0, 30_000)
    assert DEPOSIT.outpoint(0) not in ledger.lost
    assert rejection(ledger, lambda: apply(ledger, OPENED)) is EvidenceReason.ALREADY_ENTERED


def test_lost_coin_comes_back_at_its_new_height_and_free() -> None:
    ledger = batched_ledger()
    lose(ledger, outpoint(1))
    assert restore_coin(ledger, outpoint(1), START_HEIGHT + 3) == replace(
        coin(1, 1_000_000), l1_height=START_HEIGHT + 3
    )
    assert ledger.coins.get(outpoint(1)) == replace(coin(1, 1_000_000), l1_height=START_HEIGHT + 3)


def test_coin_that_is_not_lost_is_not_restored() -> None:
    ledger = small_ledger()
    for known in (outpoint(1), outpoint(9)):
        assert rejection(ledger, partial(restore_coin, ledger, known, 1)) is LedgerReason.NOT_LOST


def test_coin_that_came_back_may_be_lost_and_come_back_again() -> None:
    ledger = with_lost_deposit()
    for _ in range(2):
        apply(ledger, OPENED)
        assert not may_enter(ledger, DEPOSIT.outpoint(0))
        lose(ledger, DEPOSIT.outpoint(0))
        assert may_enter(ledger, DEPOSIT.outpoint(0))
    assert terms(ledger) == (0, DEPOSIT_SATS, 970_000, 0, 30_000)


def test_lost_coin_comes_back_only_by_its_own_opening() -> None:
    ledger = with_lost_deposit()
    for opening in (
        Opening(0, CoinKind.DEPOSIT, 0, BOB),
        Opening(0, CoinKind.DONATION, 0, b""),
        Opening(0, CoinKind.CHANGE, 0, b""),
    ):
        assert rejection(ledger, partial(apply, ledger, evidence_of(DEPOSIT, opening))) is EvidenceReason.WRONG_SCRIPT


def test_lost_coin_that_comes_back_after_the_deficit_was_repaid_goes_to_the_fund() -> None:
    ledger = with_lost_deposit()
    enter_donation(ledger, coin(5, 800_000, CoinKind.DONATION))
    assert terms(ledger) == (800_000, 200_000, 970_000, 0, 30_000)
    apply(ledger, OPENED)
    assert terms(ledger) == (1_800_000, 0, 970_000, 0, 830_000)


def test_lost_change_comes_back_when_its_payout_is_confirmed_again() -> None:
    ledger = batched_ledger()
    version = Transaction.parse(only_lineage(ledger).versions[0].transaction)
    apply(ledger, evidence_of(version))
    before = terms(ledger)
    lose(ledger, version.outpoint(1))
    opened = evidence_of(version, Opening(1, CoinKind.CHANGE, 0, b""))
    assert apply(ledger, opened) == ()
    assert terms(ledger) == before
    assert rejection(ledger, lambda: apply(ledger, opened)) is EvidenceReason.ALREADY_ENTERED
    assert rejection(ledger, lambda: apply(ledger, evidence_of(version))) is LedgerReason.ALREADY_SETTLED


def test_version_of_a_dead_lineage_that_confirms_settles_nothing_and_its_change_is_a_donation() -> None:
    """The coin came back with the payout that spent it: who was paid is not in the books, what came back is."""
    ledger = batched_ledger()
    version = Transaction.parse(only_lineage(ledger).versions[0].transaction)
    lose(ledger, outpoint(1))
    assert rejection(ledger, lambda: apply(ledger, evidence_of(version))) is LedgerReason.ALREADY_SETTLED
    assert apply(ledger, evidence_of(version, Opening(1, CoinKind.CHANGE, 0, b""))) == ()
    assert terms(ledger) == (899_800, 500_200, 840_000, 500_000, 60_000)


def test_payee_of_a_dead_version_that_is_a_deposit_address_is_claimed_once() -> None:
    ledger = new_ledger()
    enter_coin(ledger, coin(1, 1_000_000), 0)
    waiting = burn(ledger, 2, 300_000, l1_script=deposit_script(BOB))
    record_batch(ledger, plan(ledger, [coin(1, 1_000_000)], [waiting]))
    version = Transaction.parse(only_lineage(ledger).versions[0].transaction)
    opened = evidence_of(version, Opening(0, CoinKind.DEPOSIT, 0, BOB))
    assert rejection(ledger, lambda: apply(ledger, opened)) is EvidenceReason.CHANGE_CLAIMED
    lose(ledger, outpoint(1))
    [claim] = apply(ledger, opened)
    assert claim.outputs[0].script == BOB
    assert rejection(ledger, lambda: apply(ledger, opened)) is EvidenceReason.ALREADY_ENTERED
    assert pending(ledger) == [replace(waiting, burned_at_anchor=START_HEIGHT)]


def test_first_version_with_the_bytes_of_a_dead_one_is_of_the_new_lineage() -> None:
    """The coin is back, the payee waits, so the same payout is due again: L1 may confirm it for the new lineage."""
    ledger = batched_ledger()
    dead = only_lineage(ledger)
    lose(ledger, outpoint(1))
    restore_coin(ledger, outpoint(1), START_HEIGHT)
    again = PlannedBatch(BatchKind.PAYOUT, None, dead.inputs, dead.payees, dead.versions[0])
    assert record_batch(ledger, again).number == 1
    assert settle(ledger, dead.versions[0].txid, START_HEIGHT).number == 1
    assert ledger.closed_lineages.get(0) == dead


def test_waiting_withdrawal_is_written_as_any_other() -> None:
    ledger = batched_ledger()
    lose(ledger, outpoint(1))
    waiting = only_withdrawal(ledger)
    assert Withdrawal.decode(waiting.encode()) == waiting
