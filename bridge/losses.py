"""Losses: what a deficit record does to the ledger, and how a lost coin comes back.

Theory of operation
    A coin is lost when L1 does not hold it unspent: its deposit was spent otherwise on the branch that won, or somebody
    has the keys. Its value leaves the reserves and becomes deficit, so the equality holds and says the truth. The coin
    moves from `coins` to `lost`.

    An L1 transaction that spends a lost coin can't confirm: every version of an open lineage that does so is dead. Each
    version spends all that the one before it spends, so the dead ones are the last ones.

    all dead     The lineage is closed, settled by none. Its payees wait again, in the order of their age and with a
                 new expiry (they could not have been refunded while they were batched, so they would be due at once).
                 Its other coins are free.
    some alive   The dead versions are taken out of it and are recorded nowhere any more, and what only they spent is
                 free. The newest that lives is the one that may be replaced; each that lives is in every replacement,
                 so all of them still conflict.

    L1 may show a lost coin again, on yet another branch. Evidence with its opening restores it, once: it repays the
    deficit, and as its claim was made when it first entered, none is made now. That it is unspent, each member asks its
    own Bitcoin node before it votes, as for every deposit: evidence shows that an output was made, no more.

    Every transition here is as those of `bridge.ledger`: one that raises has changed nothing, and the equality holds.
"""

from dataclasses import replace

from bridge.bitcoin.identifiers import OutPoint
from bridge.bitcoin.transaction import Transaction
from bridge.errors import Rejected
from bridge.ledger import Ledger, close_lineage, receive
from bridge.records import Deficit, RecordReason
from bridge.state import BatchVersion, Coin, LedgerReason, Lineage, WithdrawalStatus


def book_losses(ledger: Ledger, deficit: Deficit) -> None:
    """The coins are gone, and what was to be paid with them waits again. All of it is booked, or nothing.

    Raises Rejected(RecordReason.NOT_A_COIN or WRONG_VALUE).
    """
    with ledger.atomic() as trial:
        for lost in deficit.lost:
            coin = trial.coins.get(lost.outpoint)
            if coin is None:
                raise Rejected(RecordReason.NOT_A_COIN, str(lost.outpoint))
            if coin.value_sats != lost.value_sats:
                detail = f"{lost.outpoint} of {lost.value_sats} sats, not {coin.value_sats}"
                raise Rejected(RecordReason.WRONG_VALUE, detail)
            trial.coins.delete(lost.outpoint)
            trial.lost.put(lost.outpoint, replace(coin, lineage=None))
        for _, lineage in list(trial.open_lineages.items()):
            _bury_dead_versions(trial, lineage)
        trial.totals = trial.totals.plus(reserves_sats=-deficit.lost_sats, deficit_sats=deficit.lost_sats)


def restore_coin(ledger: Ledger, outpoint: OutPoint, l1_height: int) -> Coin:
    """L1 holds a lost coin again, in its block at `l1_height`: it is the reserve's, and free.

    Raises Rejected(LedgerReason.NOT_LOST).
    """
    lost = ledger.lost.get(outpoint)
    if lost is None:
        raise Rejected(LedgerReason.NOT_LOST, str(outpoint))
    coin = replace(lost, l1_height=l1_height)
    with ledger.atomic() as trial:
        trial.lost.delete(outpoint)
        trial.coins.put(outpoint, coin)
        receive(trial, coin.value_sats)
    return coin


def _bury_dead_versions(trial: Ledger, lineage: Lineage) -> None:
    """What becomes of an open lineage after coins were lost, maybe its own."""
    living = tuple(
        version for version in lineage.versions if not any(spent in trial.lost for spent in _inputs(version))
    )
    if len(living) == len(lineage.versions):
        return
    inputs = _inputs(living[-1]) if living else ()
    _free(trial, [outpoint for outpoint in lineage.inputs if outpoint not in inputs])
    if not living:
        _let_payees_wait(trial, lineage)
        close_lineage(trial, lineage)
        return
    for version in lineage.versions[len(living) :]:
        trial.versions.delete(version.txid)
    kept = replace(
        lineage,
        inputs=inputs,
        versions=living,
        reserved_fund_sats=max(version.fund_part_sats for version in living),
    )
    trial.open_lineages.put(lineage.number, kept)


def _inputs(version: BatchVersion) -> tuple[OutPoint, ...]:
    return tuple(txin.outpoint for txin in Transaction.parse(version.transaction).inputs)


def _free(trial: Ledger, outpoints: list[OutPoint]) -> None:
    """Unlock those of them that are still coins."""
    for outpoint in outpoints:
        coin = trial.coins.get(outpoint)
        if coin is not None:
            trial.coins.put(outpoint, replace(coin, lineage=None))


def _let_payees_wait(trial: Ledger, lineage: Lineage) -> None:
    """The lineage's withdrawals are pending again, and expire as if burned at the present anchor."""
    for burn in lineage.payees:
        withdrawal = trial.open_withdrawals.get(burn)
        if withdrawal is None:
            raise Rejected(LedgerReason.INCONSISTENT, f"no withdrawal {burn}, promised by lineage {lineage.number}")
        waiting = replace(
            withdrawal,
            status=WithdrawalStatus.PENDING,
            lineage=None,
            burned_at_anchor=trial.totals.anchor.height,
        )
        trial.open_withdrawals.put(burn, waiting)
