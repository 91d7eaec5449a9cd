"""Lineages: what recording and settling a batch does, what either refuses, and that refusing changes nothing."""

from dataclasses import replace

import pytest

from bridge.bitcoin.identifiers import OutPoint, Txid
from bridge.custody import CoinKind
from bridge.errors import Reason
from bridge.ledger import Ledger
from bridge.lineages import MAX_VERSIONS, PlannedBatch, free_fund_sats, open_lineage, record_batch, settle
from bridge.state import (
    BatchKind,
    Coin,
    LedgerReason,
    WithdrawalStatus,
)
from tests.support.ledgers import (
    batched_ledger,
    burn,
    only_lineage,
    only_withdrawal,
    pending,
    plan,
    rejection,
    small_ledger,
    terms,
)
from tests.support.peg import START_HEIGHT, coin, outpoint


@pytest.fixture
def ledger() -> Ledger:
    return small_ledger()


@pytest.fixture
def batched() -> Ledger:
    return batched_ledger()


def test_batch_locks_its_inputs_and_reserves_the_funds_part(batched: Ledger) -> None:
    assert terms(batched) == (1_400_000, 0, 840_000, 500_000, 60_000)
    assert batched.coins.get(outpoint(1)) == replace(coin(1, 1_000_000), lineage=0)
    assert batched.coins.get(outpoint(2)) == coin(2, 400_000)
    withdrawal = only_withdrawal(batched)
    assert (withdrawal.status, withdrawal.lineage) == (WithdrawalStatus.BATCHED, 0)
    lineage = open_lineage(batched, BatchKind.PAYOUT)
    assert lineage is not None
    assert (lineage.number, lineage.inputs, lineage.payees) == (0, (outpoint(1),), (outpoint(3),))
    assert lineage.reserved_fund_sats == 200
    assert free_fund_sats(batched) == 59_800
    assert batched.versions.get(lineage.versions[0].txid) == 0
    assert open_lineage(batched, BatchKind.MAINTENANCE) is None


def test_lineages_are_numbered_in_order(batched: Ledger) -> None:
    settle(batched, only_lineage(batched).versions[0].txid, START_HEIGHT)
    second = plan(batched, [coin(2, 400_000)], [burn(batched, 4, 100_000)])
    assert record_batch(batched, second).number == 1
    assert batched.totals.next_lineage == 2


def test_batch_rejects_a_second_open_lineage_of_its_kind(batched: Ledger) -> None:
    planned = plan(batched, [coin(2, 400_000)], [burn(batched, 4, 100_000)])
    assert rejection(batched, lambda: record_batch(batched, planned)) is LedgerReason.LINEAGE_OPEN


def test_batch_rejects_a_coin_that_is_unknown_or_locked(ledger: Ledger) -> None:
    waiting = only_withdrawal(ledger)
    planned = plan(ledger, [coin(2, 400_000), coin(9, 600_000)], [waiting])
    assert rejection(ledger, lambda: record_batch(ledger, planned)) is LedgerReason.COIN_NOT_FREE
    ledger.coins.put(outpoint(1), replace(coin(1, 1_000_000), lineage=5))
    planned = plan(ledger, [coin(2, 400_000), coin(1, 1_000_000)], [waiting])
    assert rejection(ledger, lambda: record_batch(ledger, planned)) is LedgerReason.COIN_NOT_FREE


def test_batch_rejects_a_burn_that_does_not_wait(ledger: Ledger) -> None:
    waiting = only_withdrawal(ledger)
    planned = plan(ledger, [coin(1, 1_000_000)], [waiting, replace(waiting, burn=outpoint(4))])
    assert rejection(ledger, lambda: record_batch(ledger, planned)) is LedgerReason.NOT_PENDING
    ledger.open_withdrawals.put(waiting.burn, replace(waiting, status=WithdrawalStatus.BATCHED))
    planned = plan(ledger, [coin(1, 1_000_000)], [waiting])
    assert rejection(ledger, lambda: record_batch(ledger, planned)) is LedgerReason.NOT_PENDING


def test_batch_rejects_more_than_the_free_fund(ledger: Ledger) -> None:
    planned = plan(ledger, [coin(1, 1_000_000)], [only_withdrawal(ledger)], fund_part_sats=60_001)
    assert rejection(ledger, lambda: record_batch(ledger, planned)) is LedgerReason.FREE_FUND


def test_fee_of_a_batch_can_not_be_taken_from_the_fund_twice(batched: Ledger) -> None:
    other = replace(plan(batched, [coin(2, 400_000)], [], fund_part_sats=59_801), kind=BatchKind.MAINTENANCE)
    assert rejection(batched, lambda: record_batch(batched, other)) is LedgerReason.FREE_FUND


# Settlement


def test_settlement_pays_and_brings_the_change_home(batched: Ledger) -> None:
    txid = only_lineage(batched).versions[0].txid
    closed = settle(batched, txid, START_HEIGHT + 2)
    assert terms(batched) == (1_400_000 - 500_200, 0, 840_000, 0, 59_800)
    change = Coin(OutPoint(txid, 1), 499_800, CoinKind.CHANGE, 0, b"", START_HEIGHT + 2)
    assert dict(batched.coins.items()) == {outpoint(2): coin(2, 400_000), change.outpoint: change}
    assert batched.entered.get(change.outpoint) == START_HEIGHT
    assert list(batched.open_withdrawals.items()) == []
    settled = batched.closed_withdrawals.get(outpoint(3))
    assert settled is not None
    assert (settled.status, settled.lineage, settled.payout) == (WithdrawalStatus.SETTLED, 0, OutPoint(txid, 0))
    assert (closed.settled_by, closed.settled_l1_height) == (txid, START_HEIGHT + 2)
    assert open_lineage(batched, BatchKind.PAYOUT) is None
    assert batched.closed_lineages.get(0) == closed
    assert free_fund_sats(batched) == 59_800


def test_settlement_without_change_leaves_no_coin(ledger: Ledger) -> None:
    burn(ledger, 4, 500_000)
    burns = [waiting for _, waiting in ledger.open_withdrawals.items()]
    lineage = record_batch(ledger, plan(ledger, [coin(1, 1_000_000)], burns, share_sats=500))
    settle(ledger, lineage.versions[0].txid, START_HEIGHT)
    assert [held for held, _ in ledger.coins.items()] == [outpoint(2)]
    assert terms(ledger) == (400_000, 0, 340_000, 0, 60_000)


def test_settlement_frees_locked_coins_that_its_version_did_not_spend(ledger: Ledger) -> None:
    planned = plan(ledger, [coin(1, 1_000_000)], [only_withdrawal(ledger)])
    lineage = record_batch(ledger, replace(planned, inputs=(outpoint(1), outpoint(2))))
    settle(ledger, lineage.versions[0].txid, START_HEIGHT)
    assert ledger.coins.get(outpoint(2)) == coin(2, 400_000)
    assert outpoint(1) not in ledger.coins


def test_settlement_rejects_an_unknown_version(batched: Ledger) -> None:
    reason = rejection(batched, lambda: settle(batched, Txid(bytes(32)), START_HEIGHT))
    assert reason is LedgerReason.UNKNOWN_VERSION


def test_settlement_rejects_a_second_time(batched: Ledger) -> None:
    txid = only_lineage(batched).versions[0].txid
    settle(batched, txid, START_HEIGHT)
    assert rejection(batched, lambda: settle(batched, txid, START_HEIGHT)) is LedgerReason.ALREADY_SETTLED


def test_settlement_rejects_a_ledger_that_lost_a_locked_coin_or_a_promised_burn(batched: Ledger) -> None:
    txid = only_lineage(batched).versions[0].txid
    without_burn = Ledger(batched)
    without_burn.open_withdrawals.delete(outpoint(3))
    reason = rejection(without_burn, lambda: settle(without_burn, txid, START_HEIGHT))
    assert reason is LedgerReason.INCONSISTENT
    batched.coins.delete(outpoint(1))
    assert rejection(batched, lambda: settle(batched, txid, START_HEIGHT)) is LedgerReason.INCONSISTENT


def test_settlement_rejects_change_that_does_not_add_up(ledger: Ledger) -> None:
    planned = plan(ledger, [coin(1, 999_999)], [only_withdrawal(ledger)])
    lineage = record_batch(ledger, planned)
    reason = rejection(ledger, lambda: settle(ledger, lineage.versions[0].txid, START_HEIGHT))
    assert reason is LedgerReason.EQUALITY


# Replacement: the ledger's own refusals, whatever builds the batch


def _recorded() -> tuple[Ledger, PlannedBatch]:
    """A ledger with an open payout, and a replacement of it that could be recorded."""
    ledger = small_ledger()
    waiting = pending(ledger)
    record_batch(ledger, plan(ledger, [coin(1, 1_000_000)], waiting, share_sats=800, fund_part_sats=200))
    planned = plan(ledger, [coin(1, 1_000_000), _second()], waiting, share_sats=1_000, fund_part_sats=500)
    return ledger, replace(planned, replaces=only_lineage(ledger).versions[-1].txid)


def _second() -> Coin:
    return coin(2, 400_000)


def test_recorded_replacement_locks_what_it_adds_and_reserves_the_most() -> None:
    ledger, planned = _recorded()
    lineage = record_batch(ledger, planned)
    assert len(lineage.versions) == 2
    assert (lineage.inputs, lineage.reserved_fund_sats) == ((outpoint(1), outpoint(2)), 500)
    assert ledger.coins.get(outpoint(2)) == replace(_second(), lineage=0)
    assert ledger.versions.get(planned.version.txid) == 0
    assert free_fund_sats(ledger) == 59_500
    assert ledger.totals.next_lineage == 1


def test_reservation_stays_at_the_largest_part_of_any_version() -> None:
    ledger, planned = _recorded()
    record_batch(ledger, replace(planned, version=replace(planned.version, fund_part_sats=100)))
    assert only_lineage(ledger).reserved_fund_sats == 200


def _record_refused(ledger: Ledger, planned: PlannedBatch) -> Reason:
    return rejection(ledger, lambda: record_batch(ledger, planned))


def test_ledger_refuses_a_replacement_of_no_version_or_of_a_closed_lineage() -> None:
    ledger, planned = _recorded()
    unknown = replace(planned, replaces=Txid(bytes(32)))
    assert _record_refused(ledger, unknown) is LedgerReason.UNKNOWN_VERSION
    settle(ledger, only_lineage(ledger).versions[-1].txid, START_HEIGHT)
    assert _record_refused(ledger, planned) is LedgerReason.ALREADY_SETTLED


def test_ledger_refuses_a_replacement_of_an_older_version_or_of_another_kind() -> None:
    ledger, planned = _recorded()
    assert _record_refused(ledger, replace(planned, kind=BatchKind.MAINTENANCE)) is LedgerReason.NOT_NEWEST
    record_batch(ledger, planned)
    assert _record_refused(ledger, planned) is LedgerReason.NOT_NEWEST


def test_ledger_refuses_a_replacement_that_is_a_version_already() -> None:
    ledger, planned = _recorded()
    same = only_lineage(ledger).versions[0]
    assert _record_refused(ledger, replace(planned, version=same)) is LedgerReason.VERSION_KNOWN


def test_ledger_refuses_a_replacement_that_changes_payees_or_drops_an_input() -> None:
    ledger, planned = _recorded()
    for payees in ((), (*planned.payees, outpoint(9)), planned.payees * 2):
        assert _record_refused(ledger, replace(planned, payees=payees)) is LedgerReason.PAYEES_CHANGED
    for inputs in ((), (outpoint(2),), (outpoint(2), outpoint(1))):
        assert _record_refused(ledger, replace(planned, inputs=inputs)) is LedgerReason.INPUT_DROPPED


def test_ledger_refuses_a_replacement_with_a_coin_or_a_fund_that_is_not_free() -> None:
    ledger, planned = _recorded()
    for inputs in ((outpoint(1), outpoint(9)), (outpoint(1), outpoint(1))):
        assert _record_refused(ledger, replace(planned, inputs=inputs)) is LedgerReason.COIN_NOT_FREE
    greedy = replace(planned, version=replace(planned.version, fund_part_sats=60_001))
    assert _record_refused(ledger, greedy) is LedgerReason.FREE_FUND
    record_batch(ledger, replace(planned, version=replace(planned.version, fund_part_sats=60_000)))


def test_ledger_refuses_more_versions_than_a_lineage_may_have() -> None:
    ledger, planned = _recorded()
    lineage = only_lineage(ledger)
    ledger.open_lineages.put(0, replace(lineage, versions=lineage.versions * MAX_VERSIONS))
    assert _record_refused(ledger, planned) is LedgerReason.TOO_MANY_VERSIONS
