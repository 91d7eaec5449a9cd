"""Refunds: how a burn that was not paid out in time gives its value back, by a transaction that nobody writes.

Theory of operation
    A withdrawal expires `withdrawal_expiry_anchors` after its burn. An expired one that no batch has taken up is due:
    the block at whose anchor it is due refunds it, whoever leads. If more than `max_refunds_per_block` are due, the
    oldest come first and the others follow in the next blocks. A block has to contain the derived transactions of
    exactly these, so there is nothing to choose, and nobody to ask.

    A batched withdrawal is never refunded, however old: one of its lineage's versions may be on its way. And a refunded
    one is closed, so no batch can take it up later. Refunds come before the batch of a block, so that the batch finds
    them closed already.
"""

from dataclasses import replace
from heapq import nsmallest

from bridge.bitcoin.identifiers import OutPoint
from bridge.bitcoin.transaction import Transaction, TxIn, TxOut
from bridge.deposits import DERIVED_VERSION, REFUND_FLAG
from bridge.errors import Rejected
from bridge.ledger import Ledger, LedgerView, close_withdrawal
from bridge.params import PegParams
from bridge.state import LedgerReason, Withdrawal, WithdrawalStatus

MAX_REFUND_BYTES = 94
"""The length of the longest refund: to a P2WSH or P2TR script."""


def expires_at(withdrawal: Withdrawal, params: PegParams) -> int:
    """The anchor height from which a burn that no batch has taken up is refunded."""
    return withdrawal.burned_at_anchor + params.withdrawal_expiry_anchors


def due_refunds(view: LedgerView, params: PegParams) -> list[Withdrawal]:
    """The withdrawals that a block on top of `view`, at its anchor, has to refund: oldest first, within the cap."""
    latest = view.totals.anchor.height - params.withdrawal_expiry_anchors
    expired = (
        withdrawal
        for _, withdrawal in view.open_withdrawals.items()
        if withdrawal.burned_at_anchor <= latest and withdrawal.status is WithdrawalStatus.PENDING
    )
    return nsmallest(params.max_refunds_per_block, expired, key=lambda withdrawal: withdrawal.number)


def refund_transaction(withdrawal: Withdrawal, params: PegParams) -> Transaction:
    """The transaction that gives a burn's value back, less the refund fee."""
    returned = TxIn(refund_outpoint(withdrawal.burn))
    credited = TxOut(withdrawal.value_sats - params.refund_fee_sats, withdrawal.refund_script)
    return Transaction(DERIVED_VERSION, (returned,), (credited,))


def refund_outpoint(burn: OutPoint) -> OutPoint:
    """What the input of a burn's refund names: an output that no other transaction can spend."""
    return OutPoint(burn.txid, burn.vout | REFUND_FLAG)


def refund(ledger: Ledger, burn: OutPoint, refund_fee_sats: int) -> Withdrawal:
    """A pending withdrawal is closed as refunded: its value becomes supply again, less the fee, which the fund gets.

    Raises Rejected(LedgerReason.NOT_PENDING or REFUND_FEE).
    """
    withdrawal = ledger.open_withdrawals.get(burn)
    if withdrawal is None or withdrawal.status is not WithdrawalStatus.PENDING:
        raise Rejected(LedgerReason.NOT_PENDING, str(burn))
    value_sats = withdrawal.value_sats
    if not 0 <= refund_fee_sats < value_sats:
        raise Rejected(LedgerReason.REFUND_FEE, f"a refund fee of {refund_fee_sats} on {value_sats}")
    refunded = replace(withdrawal, status=WithdrawalStatus.REFUNDED)
    with ledger.atomic() as trial:
        close_withdrawal(trial, refunded)
        trial.totals = trial.totals.plus(
            supply_sats=value_sats - refund_fee_sats, unsettled_sats=-value_sats, fund_sats=refund_fee_sats
        )
    return refunded
