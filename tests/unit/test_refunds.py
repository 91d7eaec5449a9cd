"""Refunds: which burns are due, the transaction that each gives, and what the ledger makes of it."""

from dataclasses import replace

import pytest

from bridge.bitcoin.identifiers import Script
from bridge.bitcoin.transaction import FINAL_SEQUENCE, Transaction
from bridge.ledger import Ledger, advance_anchor
from bridge.lineages import settle
from bridge.refunds import MAX_REFUND_BYTES, due_refunds, expires_at, refund, refund_transaction
from bridge.state import LedgerReason, Withdrawal, WithdrawalStatus
from tests.support.ledgers import (
    batched_ledger,
    burn,
    only_lineage,
    only_withdrawal,
    rejection,
    small_ledger,
    snapshot,
    terms,
)
from tests.support.peg import BOB, PARAMS, START_HEIGHT, anchor

EXPIRY = 10
SHORT = replace(PARAMS, withdrawal_expiry_anchors=EXPIRY, max_refunds_per_block=2)
FEE_SATS = SHORT.refund_fee_sats


def at(ledger: Ledger, height: int) -> Ledger:
    """The ledger above `ledger` whose anchor is at `height`."""
    later = Ledger(ledger)
    advance_anchor(later, anchor(height), PARAMS)
    return later


def numbers(withdrawals: list[Withdrawal]) -> list[int]:
    """Their age order."""
    return [withdrawal.number for withdrawal in withdrawals]


def test_burn_is_due_from_its_expiry_on_and_not_an_anchor_before() -> None:
    ledger = small_ledger()
    assert expires_at(only_withdrawal(ledger), SHORT) == START_HEIGHT + EXPIRY
    assert due_refunds(at(ledger, START_HEIGHT + EXPIRY - 1), SHORT) == []
    for height in (START_HEIGHT + EXPIRY, START_HEIGHT + EXPIRY + 5):
        assert due_refunds(at(ledger, height), SHORT) == [only_withdrawal(ledger)]


def test_due_burns_come_oldest_first_and_no_more_than_the_cap() -> None:
    ledger = small_ledger()
    for number in (9, 4, 7):  # their outpoints are in another order than their ages
        burn(ledger, number, 10_000)
    expired = at(ledger, START_HEIGHT + EXPIRY)
    assert numbers(due_refunds(expired, SHORT)) == [0, 1]
    assert numbers(due_refunds(expired, replace(SHORT, max_refunds_per_block=3))) == [0, 1, 2]
    assert numbers(due_refunds(expired, PARAMS)) == []
    for withdrawal in due_refunds(expired, SHORT):
        refund(expired, withdrawal.burn, FEE_SATS)
    assert numbers(due_refunds(expired, SHORT)) == [2, 3]


def test_batched_burn_is_not_due_however_old() -> None:
    assert due_refunds(at(batched_ledger(), START_HEIGHT + 100), SHORT) == []


def test_refund_transaction_is_fixed_by_the_burn() -> None:
    withdrawal = only_withdrawal(small_ledger())
    transaction = refund_transaction(withdrawal, SHORT)
    [returned], [credited] = transaction.inputs, transaction.outputs
    assert returned.outpoint.txid == withdrawal.burn.txid
    assert returned.outpoint.vout == withdrawal.burn.vout | 1 << 29
    assert (returned.script_sig, returned.witness, returned.sequence) == (b"", (), FINAL_SEQUENCE)
    assert (credited.value_sats, credited.script) == (500_000 - FEE_SATS, withdrawal.refund_script)
    assert (transaction.version, transaction.locktime) == (2, 0)
    assert transaction.serialize() == transaction.serialize_stripped()
    assert Transaction.parse(transaction.serialize()) == transaction


def test_longest_refund_is_as_long_as_the_genesis_reckons_with() -> None:
    longest = replace(only_withdrawal(small_ledger()), refund_script=BOB)
    assert len(refund_transaction(longest, SHORT).serialize()) == MAX_REFUND_BYTES
    shorter = replace(longest, refund_script=Script(b"\x00\x14" + bytes(20)))
    assert len(refund_transaction(shorter, SHORT).serialize()) < MAX_REFUND_BYTES


def test_refund_makes_supply_of_the_burn_and_closes_it() -> None:
    ledger = small_ledger()
    reserves, deficit, supply, unsettled, fund = terms(ledger)
    waiting = only_withdrawal(ledger)
    refunded = refund(ledger, waiting.burn, FEE_SATS)
    assert refunded == replace(waiting, status=WithdrawalStatus.REFUNDED)
    assert terms(ledger) == (reserves, deficit, supply + 500_000 - FEE_SATS, unsettled - 500_000, fund + FEE_SATS)
    assert (refunded.burn in ledger.open_withdrawals, ledger.closed_withdrawals.get(refunded.burn)) == (False, refunded)


def test_refund_is_committed_to_by_the_closed_chain() -> None:
    one, other = small_ledger(), small_ledger()
    burn(one, 4, 10_000)
    burn(other, 4, 10_000)
    [first, second] = sorted(withdrawal.burn for _, withdrawal in one.open_withdrawals.items())
    for ledger, order in ((one, (first, second)), (other, (second, first))):
        for refunded in order:
            refund(ledger, refunded, FEE_SATS)
    assert terms(one) == terms(other)
    assert len({small_ledger().totals.closed_chain, one.totals.closed_chain, other.totals.closed_chain}) == 3


def test_refund_of_what_is_not_pending_is_refused() -> None:
    batched = batched_ledger()
    settled = batched_ledger()
    lineage = only_lineage(settled)
    settle(settled, lineage.versions[0].txid, START_HEIGHT)
    refunded = small_ledger()
    known = only_withdrawal(refunded).burn
    refund(refunded, known, FEE_SATS)
    for ledger in (batched, settled, refunded):
        assert rejection(ledger, lambda ledger=ledger: refund(ledger, known, FEE_SATS)) is LedgerReason.NOT_PENDING  # type: ignore[misc]
    unknown = replace(known, vout=known.vout + 1)
    ledger = small_ledger()
    assert rejection(ledger, lambda: refund(ledger, unknown, FEE_SATS)) is LedgerReason.NOT_PENDING


@pytest.mark.parametrize("fee_sats", [-1, 500_000, 500_001])
def test_refund_for_a_fee_that_cannot_be_is_refused(fee_sats: int) -> None:
    ledger = small_ledger()
    waiting = only_withdrawal(ledger)
    assert rejection(ledger, lambda: refund(ledger, waiting.burn, fee_sats)) is LedgerReason.REFUND_FEE
    before = snapshot(ledger)
    refund(ledger, waiting.burn, 499_999)
    assert snapshot(ledger) != before
