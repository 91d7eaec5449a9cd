"""Lineages: how a batch locks coins and promises payouts, how its fee is raised, and how settlement on L1 ends it.

Each version of a lineage spends all that the one before it spends, so L1 confirms one of them at most; any may be it.
Every transition here is as those of `bridge.ledger`: one that raises has changed nothing, and the equality holds after.
"""

from dataclasses import dataclass, replace

from bridge.bitcoin.identifiers import OutPoint, Txid
from bridge.bitcoin.transaction import Transaction
from bridge.custody import CoinKind
from bridge.errors import Rejected
from bridge.ledger import Ledger, LedgerView, close_lineage, close_withdrawal, enter
from bridge.state import BatchKind, BatchVersion, Coin, LedgerReason, Lineage, WithdrawalStatus

MAX_VERSIONS = 32
"""Of a lineage. Every block hashes all of them."""


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
    """A batch is in a block: its lineage, opened or with one more version. Raises Rejected(LedgerReason)."""
    return _add_lineage(ledger, planned) if planned.replaces is None else _add_version(ledger, planned)


def settle(ledger: Ledger, txid: Txid, l1_height: int) -> Lineage:
    """A recorded version was confirmed in the L1 block at `l1_height`; returns its lineage, closed.

    Its inputs leave the reserve and its change enters it; other locked coins are free again; its payees are paid.
    Raises Rejected(LedgerReason.UNKNOWN_VERSION or ALREADY_SETTLED).
    """
    lineage = _open_lineage_of(ledger, txid)
    version = next(version for version in lineage.versions if version.txid == txid)
    transaction = Transaction.parse(version.transaction)
    closed = replace(lineage, settled_by=txid, settled_l1_height=l1_height)
    with ledger.atomic() as trial:
        spent_sats = _release_inputs(trial, lineage, transaction)
        paid_sats = _settle_payees(trial, lineage, txid)
        change_sats = _enter_change(trial, lineage, version, transaction, l1_height)
        close_lineage(trial, closed)
        trial.totals = trial.totals.plus(
            reserves_sats=change_sats - spent_sats,
            deficit_sats=_short_sats(lineage, version),
            unsettled_sats=-paid_sats,
            fund_sats=-version.fund_part_sats,
        )
    return closed


def open_lineage(view: LedgerView, kind: BatchKind) -> Lineage | None:
    """The open lineage of this kind: there is at most one."""
    return next((lineage for _, lineage in view.open_lineages.items() if lineage.kind is kind), None)


def open_versions(view: LedgerView) -> tuple[Txid, ...]:
    """The txids of every version of every open lineage: what may spend coins that the ledger still owns."""
    return tuple(version.txid for _, lineage in view.open_lineages.items() for version in lineage.versions)


def free_fund_sats(view: LedgerView) -> int:
    """The fund, less what open lineages may still take from it."""
    reserved_sats = sum(lineage.reserved_fund_sats for _, lineage in view.open_lineages.items())
    return view.totals.fund_sats - reserved_sats


def _add_lineage(ledger: Ledger, planned: PlannedBatch) -> Lineage:
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
        _lock(trial, planned.inputs, number)
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


def _add_version(ledger: Ledger, planned: PlannedBatch) -> Lineage:
    """The next version of an open lineage: further inputs locked, as much of the fund reserved as any version takes.

    Raises Rejected(LedgerReason.UNKNOWN_VERSION, ALREADY_SETTLED, NOT_NEWEST, TOO_MANY_VERSIONS, VERSION_KNOWN,
    PAYEES_CHANGED, INPUT_DROPPED, COIN_NOT_FREE or FREE_FUND).
    """
    version, lineage = planned.version, _open_lineage_of(ledger, planned.replaces)
    if lineage.versions[-1].txid != planned.replaces or lineage.kind is not planned.kind:
        raise Rejected(LedgerReason.NOT_NEWEST, f"lineage {lineage.number}")
    if len(lineage.versions) >= MAX_VERSIONS:
        raise Rejected(LedgerReason.TOO_MANY_VERSIONS, f"lineage {lineage.number} has {MAX_VERSIONS}")
    if version.txid in ledger.versions:
        raise Rejected(LedgerReason.VERSION_KNOWN, f"of lineage {ledger.versions.get(version.txid)}")
    if planned.payees != lineage.payees:
        raise Rejected(LedgerReason.PAYEES_CHANGED, f"lineage {lineage.number}")
    if planned.inputs[: len(lineage.inputs)] != lineage.inputs:
        raise Rejected(LedgerReason.INPUT_DROPPED, f"lineage {lineage.number}")
    if version.fund_part_sats > free_fund_sats(ledger) + lineage.reserved_fund_sats:
        raise Rejected(LedgerReason.FREE_FUND, f"{version.fund_part_sats} wanted")
    replaced = replace(
        lineage,
        inputs=planned.inputs,
        versions=(*lineage.versions, version),
        reserved_fund_sats=max(lineage.reserved_fund_sats, version.fund_part_sats),
    )
    with ledger.atomic() as trial:
        _lock(trial, planned.inputs[len(lineage.inputs) :], lineage.number)
        trial.open_lineages.put(lineage.number, replaced)
        trial.versions.put(version.txid, lineage.number)
    return replaced


def _open_lineage_of(view: LedgerView, txid: Txid | None) -> Lineage:
    """The open lineage of a recorded version. Raises Rejected(LedgerReason.UNKNOWN_VERSION or ALREADY_SETTLED)."""
    number = None if txid is None else view.versions.get(txid)
    if number is None:
        raise Rejected(LedgerReason.UNKNOWN_VERSION)
    lineage = view.open_lineages.get(number)
    if lineage is None:
        raise Rejected(LedgerReason.ALREADY_SETTLED, f"lineage {number}")
    return lineage


def _lock(trial: Ledger, outpoints: tuple[OutPoint, ...], number: int) -> None:
    """Lock free coins for a lineage. Raises Rejected(LedgerReason.COIN_NOT_FREE)."""
    for outpoint in outpoints:
        coin = trial.coins.get(outpoint)
        if coin is None or coin.lineage is not None:
            raise Rejected(LedgerReason.COIN_NOT_FREE, str(outpoint))
        trial.coins.put(outpoint, replace(coin, lineage=number))


def _short_sats(lineage: Lineage, version: BatchVersion) -> int:
    """What neither payees nor fund bear of the fee. Maintenance has no payees, and the fund may have been too small."""
    return version.fee_sats - version.fund_part_sats if lineage.kind is BatchKind.MAINTENANCE else 0


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
