"""The signer's laws about the whole reserve: the ledger's sums and caps, and its own Bitcoin node's view.      (pure)

The sums are added up anew from coins and withdrawals: a total that says what was never so is found out here, before
anything is signed away on its word.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from bridge.bitcoin.identifiers import OutPoint, Script, Txid, hash_to_hex
from bridge.bitcoin.transaction import TxOut
from bridge.custody import Custody, reserve_script
from bridge.errors import Rejected
from bridge.ledger import LedgerView
from bridge.lineages import free_fund_sats
from bridge.params import PegParams
from bridge.state import BatchKind, Coin, Lineage, Withdrawal
from federation.recorded_batch import spends
from federation.refusal import RefusalReason, SigningRefused


@dataclass(frozen=True, slots=True)
class ReserveFacts:
    """What this member knows of its own: its halt, and its Bitcoin node's view of the reserve at one moment.

    l1_height: of the active chain's tip.  halted: whether a halt is latched.
    spenders: the transactions of the mempool that spend coins of the ledger, by the coin.
    unspent: every coin of the ledger with its output in the active chain's UTXO set, or None when it is not there.
    confirmed: the recorded batch versions that the active chain holds.
    """

    l1_height: int
    halted: bool
    spenders: Mapping[OutPoint, Txid]
    unspent: Mapping[OutPoint, TxOut | None]
    confirmed: frozenset[Txid] = frozenset()


def check_sums(view: LedgerView, lineage: Lineage, payees: Sequence[Withdrawal], params: PegParams) -> None:
    """The equality holds over what there is, and the caps hold over the same.

    payees: whom `lineage` pays. Raises SigningRefused: LEDGER_UNEQUAL, FUND_NOT_RESERVED, PEG_OVER_CAP,
    WINDOW_OVER_CAP.
    """
    totals = view.totals
    try:
        totals.require_equality()
    except Rejected as error:
        raise SigningRefused(RefusalReason.LEDGER_UNEQUAL, str(error)) from error
    reserves_sats = sum(coin.value_sats for _, coin in view.coins.items())
    unsettled_sats = sum(withdrawal.value_sats for _, withdrawal in view.open_withdrawals.items())
    if (reserves_sats, unsettled_sats) != (totals.reserves_sats, totals.unsettled_sats):
        raise SigningRefused(
            RefusalReason.LEDGER_UNEQUAL,
            f"coins of {reserves_sats} sats, {totals.reserves_sats} in the totals; withdrawals of {unsettled_sats}, "
            f"{totals.unsettled_sats} in the totals",
        )
    fund_part_sats = max(version.fund_part_sats for version in lineage.versions)
    if fund_part_sats > lineage.reserved_fund_sats or free_fund_sats(view) < 0:
        raise SigningRefused(
            RefusalReason.FUND_NOT_RESERVED,
            f"{fund_part_sats} sats, {lineage.reserved_fund_sats} reserved, the free fund {free_fund_sats(view)}",
        )
    if reserves_sats > params.max_peg_sats:
        raise SigningRefused(RefusalReason.PEG_OVER_CAP, f"{reserves_sats} sats")
    _check_windows(view, payees, params)


def _check_windows(view: LedgerView, payees: Sequence[Withdrawal], params: PegParams) -> None:
    """No window that holds a payee's burn exceeds the cap, as far as its burns are owed or paid.

    Each burn counts once at most, and at its true date, so no honest payout is refused: the rule of burns held at that
    date. Only a closed payout that nothing settled has its payees dated anew, by the anchor A of the record that closed
    it. If A is below `oldest`, so that it may be older than what is searched, the new date is as well, and the burn is
    left out; if not, that payout is found and the burn is left out for that, having been counted before its first
    payout was signed. Whatever else was burned at `oldest` or later is open, was given back, or was settled by a payout
    that is found. So what members short of a quorum do takes no burn out of the sum: they can sign no such record.
    """
    if not payees:
        return
    oldest = min(payee.burned_at_anchor for payee in payees) - params.withdrawal_window_anchors + 1
    found = [withdrawal for _, withdrawal in view.open_withdrawals.items()]
    dated_anew: set[OutPoint] = set()
    for lineage in _closed_payouts(view, oldest):
        if lineage.settled_by is None:
            dated_anew.update(lineage.payees)
        else:
            found.extend(_closed(view, lineage.payees))
    burns = sorted(
        (one.burned_at_anchor, one.value_sats)
        for one in found
        if one.burned_at_anchor >= oldest and one.burn not in dated_anew
    )
    window_sats = _fullest_window_sats(burns, params.withdrawal_window_anchors)
    if window_sats > params.max_window_withdrawals_sats:
        raise SigningRefused(RefusalReason.WINDOW_OVER_CAP, f"{window_sats} sats")


def _closed_payouts(view: LedgerView, oldest: int) -> Iterator[Lineage]:
    """The closed payouts, the newest first, that may have ended at an anchor of `oldest` or later.

    One is open at a time, and anchors don't descend: all before one that was recorded below `oldest` had ended by then.
    At which height L1 confirmed them says less, for a deep reorg may do so anew, at a lower one.
    """
    for number in range(view.totals.next_lineage - 1, -1, -1):
        lineage = view.closed_lineages.get(number)
        if lineage is not None and lineage.kind is BatchKind.PAYOUT:
            yield lineage
            if lineage.versions[0].anchor_height < oldest:
                return


def _closed(view: LedgerView, burns: Iterable[OutPoint]) -> Iterator[Withdrawal]:
    for burn in burns:
        withdrawal = view.closed_withdrawals.get(burn)
        if withdrawal is not None:
            yield withdrawal


def _fullest_window_sats(burns: Sequence[tuple[int, int]], window_anchors: int) -> int:
    """The most that was burned within so many anchors. burns: anchor height and value, by height."""
    first = window_sats = fullest_sats = 0
    for height, value_sats in burns:
        window_sats += value_sats
        while burns[first][0] <= height - window_anchors:
            window_sats -= burns[first][1]
            first += 1
        fullest_sats = max(fullest_sats, window_sats)
    return fullest_sats


def check_own_node(view: LedgerView, lineage: Lineage, facts: ReserveFacts, custody: Custody) -> None:
    """Own node holds every coin of the reserve as the ledger has it, and sees none spent but by recorded versions.

    Raises SigningRefused: ALREADY_CONFIRMED, MALFORMED_TRANSACTION, COIN_NOT_REPORTED, COIN_MISSING, NO_RESERVE_SCRIPT,
    COIN_DIFFERS, COIN_SPENT_IN_MEMPOOL.
    """
    confirmed = next((version.txid for version in lineage.versions if version.txid in facts.confirmed), None)
    if confirmed is not None:
        raise SigningRefused(RefusalReason.ALREADY_CONFIRMED, hash_to_hex(confirmed))
    spent = {
        outpoint
        for _, other in view.open_lineages.items()
        for version in other.versions
        if version.txid in facts.confirmed
        for outpoint in spends(version.transaction)
    }
    for outpoint, coin in view.coins.items():
        if outpoint not in facts.unspent:
            raise SigningRefused(RefusalReason.COIN_NOT_REPORTED, str(outpoint))
        found = facts.unspent[outpoint]
        if found is None:
            if outpoint not in spent:
                raise SigningRefused(RefusalReason.COIN_MISSING, str(outpoint))
        elif found != TxOut(coin.value_sats, _script(coin, custody)):
            raise SigningRefused(RefusalReason.COIN_DIFFERS, str(outpoint))
        _check_spender(view, coin, facts.spenders.get(outpoint))


def _check_spender(view: LedgerView, coin: Coin, spender: Txid | None) -> None:
    """Nothing in the mempool spends the coin but a version of the open lineage that locks it."""
    if spender is None:
        return
    number = view.versions.get(spender)
    if number is None or number != coin.lineage or number not in view.open_lineages:
        raise SigningRefused(RefusalReason.COIN_SPENT_IN_MEMPOOL, f"{coin.outpoint} by {hash_to_hex(spender)}")


def _script(coin: Coin, custody: Custody) -> Script:
    try:
        return reserve_script(custody.policy(coin.epoch), coin.kind, coin.claim_script).script
    except Rejected as error:
        raise SigningRefused(RefusalReason.NO_RESERVE_SCRIPT, str(error)) from error
