"""Lineages: how a batch locks coins and promises payouts, and how its settlement on L1 ends both.

Every transition here is as those of `bridge.ledger`: one that raises has changed nothing, and the equality holds after.
"""

from dataclasses import dataclass, replace

from bridge.bitcoin.identifiers import OutPoint, Txid
from bridge.bitcoin.transaction import Transaction
from bridge.custody import CoinKind
from bridge.errors import Rejected
from bridge.ledger import Ledger, LedgerView, close_lineage, close_withdrawal, enter
from bridge.state import BatchKind, BatchVersion, Coin, LedgerReason, Lineage, WithdrawalStatus


@dataclass(frozen=True, slots=True)
class PlannedBatch:
    """A batch worked out in full: what recording it will lock and promise.

    replaces: the version it supersedes, or None for the first of a lineage.  inputs: the coins of its transaction, in
    order.  payees: the burns that its first outputs pay, in order; the outputs after them are change.
    """

    kind: BatchKind
    replaces: Txid | None
    inputs: tuple[OutPoint, ...]
    payees: tuple[OutPoint, ...]
    version: BatchVersion


def record_batch(ledger: Ledger, planned: PlannedBatch) -> Lineage:
    """The first version of a batch opens a lineage: inputs locked, payees batched, the fund's part reserved.

    Raises Rejected(LedgerReason.LINEAGE_OPEN, COIN_NOT_FREE, NOT_PENDING or FREE_FUND).
    """
    version = planned.version
    if open_lineage(ledger, planned.kind) is not None:
        raise Rejected(LedgerReason.LINEAGE_OPEN, planned.kind.name)
    if version.fund_part_sats > free_fund_sats(ledger):
        raise Rejected(LedgerReason.FREE_FUND, f"{version.fund_part_sats} wanted")
    number = ledger.totals.next_lineage
    lineage = Lineage(number, planned.kind, planned.inputs, planned.payees, (version,), version.fund_part_sats)
    with ledger.atomic() as trial:
        for outpoint in planned.inputs:
            coin = trial.coins.get(outpoint)
            if coin is None or coin.lineage is not None:
                raise Rejected(LedgerReason.COIN_NOT_FREE, str(outpoint))
            trial.coins.put(outpoint, replace(coin, lineage=number))
        for burn in planned.payees:
            withdrawal = trial.open_withdrawals.get(burn)
            if withdrawal is None or withdrawal.status is not WithdrawalStatus.PENDING:
                raise Rejected(LedgerReason.NOT_PENDING, str(burn))
            batched = replace(withdrawal, status=WithdrawalStatus.BATCHED, lineage=number)
            trial.open_withdrawals.put(burn, batched)
        trial.open_lineages.put(number, lineage)
        trial.versions.put(version.txid, number)
        trial.totals = replace(trial.totals, next_lineage=number + 1)
    return lineage


def settle(ledger: Ledger, txid: Txid, l1_height: int) -> Lineage:
    """A recorded version was confirmed in the L1 block at `l1_height`; returns its lineage, closed.

    Its inputs leave the reserve and its change enters it; other locked coins are free again; its payees are paid.
    Raises Rejected(LedgerReason.UNKNOWN_VERSION or ALREADY_SETTLED).
    """
    number = ledger.versions.get(txid)
    if number is None:
        raise Rejected(LedgerReason.UNKNOWN_VERSION)
    lineage = ledger.open_lineages.get(number)
    if lineage is None:
        raise Rejected(LedgerReason.ALREADY_SETTLED, f"lineage {number}")
    version = next(version for version in lineage.versions if version.txid == txid)
    transaction = Transaction.parse(version.transaction)
    closed = replace(lineage, settled_by=txid, settled_l1_height=l1_height)
    with ledger.atomic() as trial:
        spent_sats = _release_inputs(trial, lineage, transaction)
        paid_sats = _settle_payees(trial, lineage, txid)
        change_sats = _enter_change(trial, lineage, version, transaction, l1_height)
        close_lineage(trial, closed)
        trial.totals = trial.totals.plus(
            reserves_sats=change_sats - spent_sats, unsettled_sats=-paid_sats, fund_sats=-version.fund_part_sats
        )
    return closed


def open_lineage(view: LedgerView, kind: BatchKind) -> Lineage | None:
    """The open lineage of this kind: there is at most one."""
    return next((lineage for _, lineage in view.open_lineages.items() if lineage.kind is kind), None)


def free_fund_sats(view: LedgerView) -> int:
    """The fund, less what open lineages may still take from it."""
    reserved_sats = sum(lineage.reserved_fund_sats for _, lineage in view.open_lineages.items())
    return view.totals.fund_sats - reserved_sats


def _release_inputs(trial: Ledger, lineage: Lineage, transaction: Transaction) -> int:
    """Remove the coins that the transaction spent, free the others that the lineage locked; the spent value in sats."""
    spent = {tx_input.outpoint for tx_input in transaction.inputs}
    spent_sats = 0
    for outpoint in lineage.inputs:
        coin = trial.coins.get(outpoint)
        if coin is None:
            raise Rejected(LedgerReason.INCONSISTENT, f"no coin {outpoint}, locked by lineage {lineage.number}")
        if outpoint in spent:
            trial.coins.delete(outpoint)
            spent_sats += coin.value_sats
        else:
            trial.coins.put(outpoint, replace(coin, lineage=None))
    return spent_sats


def _settle_payees(trial: Ledger, lineage: Lineage, txid: Txid) -> int:
    """Close the lineage's withdrawals, each with the output that paid it; their burned value in sats."""
    paid_sats = 0
    for index, burn in enumerate(lineage.payees):
        withdrawal = trial.open_withdrawals.get(burn)
        if withdrawal is None:
            raise Rejected(LedgerReason.INCONSISTENT, f"no withdrawal {burn}, promised by lineage {lineage.number}")
        settled = replace(withdrawal, status=WithdrawalStatus.SETTLED, payout=OutPoint(txid, index))
        close_withdrawal(trial, settled)
        paid_sats += withdrawal.value_sats
    return paid_sats


def _enter_change(
    trial: Ledger, lineage: Lineage, version: BatchVersion, transaction: Transaction, l1_height: int
) -> int:
    """Enter the outputs after the payees' as free change coins; their value in sats."""
    change_sats = 0
    for index in range(len(lineage.payees), len(transaction.outputs)):
        value_sats = transaction.outputs[index].value_sats
        outpoint = OutPoint(version.txid, index)
        enter(trial, Coin(outpoint, value_sats, CoinKind.CHANGE, version.epoch, b"", l1_height))
        change_sats += value_sats
    return change_sats
