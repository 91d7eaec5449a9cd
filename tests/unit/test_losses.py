"""Losses: what a deficit record does to coins, lineages and payees."""

from dataclasses import replace

import pytest

from bridge.bitcoin.identifiers import OutPoint
from bridge.bitcoin.transaction import Transaction
from bridge.errors import Reason, Rejected
from bridge.ledger import Ledger
from bridge.lineages import PlannedBatch, free_fund_sats, open_lineage, record_batch, settle
from bridge.losses import book_losses, restore_coin
from bridge.records import Deficit, LostCoin, RecordReason
from bridge.refunds import due_refunds, refund
from bridge.replacement import plan_replacement
from bridge.state import BatchKind, BatchVersion, LedgerReason, Lineage, WithdrawalStatus
from tests.support.ledgers import (
    batched_ledger,
    burn,
    ledger_of,
    lose,
    losses,
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
    CUSTODY,
    PARAMS,
    START_HEIGHT,
    coin,
    outpoint,
)
from tests.support.replacements import FEERATE, ONE, bump, newest_version, open_payout, transaction_of


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
