"""The peg ledger: what the reserve owns and owes, and every way in which that may change.

Theory of operation
    A `LedgerView` is read-only. A `Ledger` is an overlay above a view: while a block is tried, transitions write into
    it, and afterwards it *is* the block's delta. A transition is a function here. It runs on a further overlay, which
    the ledger takes over only when the transition has completed and the equality holds:

        reserves + deficit == supply + unsettled + fund, every term ≥ 0

    So a transition that raises has changed nothing. The terms are counted from the coins and withdrawals themselves
    (settlement subtracts the coins that were spent and adds the change that came back), so the equality is a check and
    not a definition.

Commitment
    The root of a block is `tagged_list("pegnode/ledger", [totals, coins, lost, open withdrawals, open lineages])`: the
    encoded `Totals`, then for each live table the 32-byte `tagged_list("pegnode/ledger/<table>", values)` of its
    encoded values in key order (`<table>` is `coins`, `lost`, `withdrawals` or `lineages`; a value contains its key).
    What only ever grows would make a block cost more with every year, so it is committed by chained hashes inside the
    totals, each item as `tagged_hash(tag, chain so far || item)`, from 32 zero bytes:

        entered_chain   tag "pegnode/entered"             outpoint (36 bytes), anchor height (u32)
        closed_chain    tag "pegnode/closed-withdrawal"   the withdrawal as it ended
                        tag "pegnode/closed-lineage"      the lineage as it ended
        utxo_chain      advanced by the rules of blocks

    The table `versions` is an index of what lineages contain. Reservations are fields of lineages.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Protocol

from bridge.bitcoin.hashes import tagged_list
from bridge.bitcoin.identifiers import OutPoint, Script, Txid
from bridge.errors import Rejected
from bridge.params import PegParams
from bridge.state import (
    Anchor,
    Coin,
    LedgerReason,
    Lineage,
    Totals,
    WindowEntry,
    Withdrawal,
    chain_hash,
)
from bridge.tables import MemoryTable, OverlayTable, Table


class LedgerView(Protocol):
    """What rules may read.

    entered: the anchor height at which an outpoint entered.  lost: coins that a record booked as gone, as they were
    while they were free; each may enter again once.  versions: txid to lineage.
    """

    @property
    def totals(self) -> Totals: ...
    @property
    def coins(self) -> Table[OutPoint, Coin]: ...
    @property
    def lost(self) -> Table[OutPoint, Coin]: ...
    @property
    def entered(self) -> Table[OutPoint, int]: ...
    @property
    def open_withdrawals(self) -> Table[OutPoint, Withdrawal]: ...
    @property
    def closed_withdrawals(self) -> Table[OutPoint, Withdrawal]: ...
    @property
    def open_lineages(self) -> Table[int, Lineage]: ...
    @property
    def closed_lineages(self) -> Table[int, Lineage]: ...
    @property
    def versions(self) -> Table[Txid, int]: ...


class GenesisLedger:
    """The view below the first block: empty tables, all totals zero."""

    def __init__(self, anchor: Anchor) -> None:
        self.totals = Totals(anchor)
        self.coins: Table[OutPoint, Coin] = MemoryTable()
        self.lost: Table[OutPoint, Coin] = MemoryTable()
        self.entered: Table[OutPoint, int] = MemoryTable()
        self.open_withdrawals: Table[OutPoint, Withdrawal] = MemoryTable()
        self.closed_withdrawals: Table[OutPoint, Withdrawal] = MemoryTable()
        self.open_lineages: Table[int, Lineage] = MemoryTable()
        self.closed_lineages: Table[int, Lineage] = MemoryTable()
        self.versions: Table[Txid, int] = MemoryTable()


class Ledger:
    """A view that transitions write into, above a base that stays as it is."""

    __slots__ = (
        "closed_lineages",
        "closed_withdrawals",
        "coins",
        "entered",
        "lost",
        "open_lineages",
        "open_withdrawals",
        "totals",
        "versions",
    )

    def __init__(self, base: LedgerView) -> None:
        self.totals = base.totals
        self.coins = OverlayTable(base.coins)
        self.lost = OverlayTable(base.lost)
        self.entered = OverlayTable(base.entered)
        self.open_withdrawals = OverlayTable(base.open_withdrawals)
        self.closed_withdrawals = OverlayTable(base.closed_withdrawals)
        self.open_lineages = OverlayTable(base.open_lineages)
        self.closed_lineages = OverlayTable(base.closed_lineages)
        self.versions = OverlayTable(base.versions)

    @contextmanager
    def atomic(self) -> Iterator["Ledger"]:
        """A trial above this ledger, taken over if the body completes and the equality holds, else dropped.

        Raises Rejected(LedgerReason.EQUALITY or NEGATIVE_TERM).
        """
        trial = Ledger(self)
        yield trial
        trial.totals.require_equality()
        self.totals = trial.totals
        self.coins.absorb(trial.coins)
        self.lost.absorb(trial.lost)
        self.entered.absorb(trial.entered)
        self.open_withdrawals.absorb(trial.open_withdrawals)
        self.closed_withdrawals.absorb(trial.closed_withdrawals)
        self.open_lineages.absorb(trial.open_lineages)
        self.closed_lineages.absorb(trial.closed_lineages)
        self.versions.absorb(trial.versions)


def enter_coin(ledger: Ledger, coin: Coin, claim_fee_sats: int) -> None:
    """A deposit: its value, less the claim fee, becomes supply, and the fee goes to the fund.

    Raises Rejected(LedgerReason.ALREADY_ENTERED, COIN_NOT_FREE or CLAIM_FEE).
    """
    if not 0 <= claim_fee_sats <= coin.value_sats:
        raise Rejected(LedgerReason.CLAIM_FEE, f"a claim fee of {claim_fee_sats} on {coin.value_sats}")
    with ledger.atomic() as trial:
        enter(trial, coin)
        trial.totals = trial.totals.plus(
            reserves_sats=coin.value_sats, supply_sats=coin.value_sats - claim_fee_sats, fund_sats=claim_fee_sats
        )


def enter_donation(ledger: Ledger, coin: Coin) -> None:
    """A coin that nobody claims: it repays the deficit first, and the rest goes to the fund.

    Raises Rejected(LedgerReason.ALREADY_ENTERED or COIN_NOT_FREE).
    """
    with ledger.atomic() as trial:
        enter(trial, coin)
        receive(trial, coin.value_sats)


def add_fee(ledger: Ledger, fee_sats: int) -> None:
    """The fee of a sidechain transaction leaves the supply for the fund. Raises Rejected(LedgerReason)."""
    _require_amount(fee_sats)
    with ledger.atomic() as trial:
        trial.totals = trial.totals.plus(supply_sats=-fee_sats, fund_sats=fee_sats)


def record_burn(
    ledger: Ledger, burn: OutPoint, *, value_sats: int, max_fee_sats: int, l1_script: Script, refund_script: Script
) -> Withdrawal:
    """A burned output leaves the supply and is owed on L1: the newest pending withdrawal, counted in the window.

    Raises Rejected(LedgerReason.BURN_KNOWN, or NEGATIVE_TERM when the supply does not hold the value).
    """
    _require_amount(value_sats)
    if burn in ledger.open_withdrawals or burn in ledger.closed_withdrawals:
        raise Rejected(LedgerReason.BURN_KNOWN, str(burn))
    totals = ledger.totals
    withdrawal = Withdrawal(
        burn=burn,
        number=totals.next_withdrawal,
        value_sats=value_sats,
        max_fee_sats=max_fee_sats,
        l1_script=l1_script,
        refund_script=refund_script,
        burned_at_anchor=totals.anchor.height,
    )
    with ledger.atomic() as trial:
        trial.open_withdrawals.put(burn, withdrawal)
        trial.totals = replace(
            totals.plus(supply_sats=-value_sats, unsettled_sats=value_sats),
            next_withdrawal=totals.next_withdrawal + 1,
            withdrawal_window=_window_with(totals.withdrawal_window, totals.anchor.height, value_sats),
        )
    return withdrawal


def advance_anchor(ledger: Ledger, anchor: Anchor, params: PegParams) -> None:
    """A block refers to `anchor`: burns too old for the withdrawal window leave it.

    Raises Rejected(LedgerReason), as `check_anchor`.
    """
    check_anchor(ledger.totals.anchor, anchor, params)
    oldest = anchor.height - params.withdrawal_window_anchors + 1
    window = tuple(entry for entry in ledger.totals.withdrawal_window if entry.anchor_height >= oldest)
    ledger.totals = replace(ledger.totals, anchor=anchor, withdrawal_window=window)


def check_anchor(old: Anchor, new: Anchor, params: PegParams) -> None:
    """Whether a block with anchor `new` may follow one with anchor `old`, whatever L1 says of them.

    Raises Rejected(LedgerReason.ANCHOR_BACKWARDS, ANCHOR_CHANGED or ANCHOR_STEP).
    """
    if new.height < old.height:
        raise Rejected(LedgerReason.ANCHOR_BACKWARDS, f"from {old.height} to {new.height}")
    if new.height == old.height and new.hash != old.hash:
        raise Rejected(LedgerReason.ANCHOR_CHANGED, f"at {new.height}")
    if new.height - old.height > params.max_anchor_step:
        raise Rejected(LedgerReason.ANCHOR_STEP, f"from {old.height} to {new.height}")


def may_enter(view: LedgerView, outpoint: OutPoint) -> bool:
    """Whether an L1 output may still enter: it never did, or it is lost since."""
    return outpoint not in view.entered or outpoint in view.lost


def ledger_root(view: LedgerView) -> bytes:
    """The commitment to all of the ledger, 32 bytes; its layout is described above."""
    coins = [coin.encode() for _, coin in view.coins.items()]
    lost = [coin.encode() for _, coin in view.lost.items()]
    withdrawals = [withdrawal.encode() for _, withdrawal in view.open_withdrawals.items()]
    lineages = [lineage.encode() for _, lineage in view.open_lineages.items()]
    return tagged_list(
        "pegnode/ledger",
        [
            view.totals.encode(),
            tagged_list("pegnode/ledger/coins", coins),
            tagged_list("pegnode/ledger/lost", lost),
            tagged_list("pegnode/ledger/withdrawals", withdrawals),
            tagged_list("pegnode/ledger/lineages", lineages),
        ],
    )


def enter(trial: Ledger, coin: Coin) -> None:
    """A part of transitions: the coin is the reserve's.

    Raises Rejected(LedgerReason.ALREADY_ENTERED or COIN_NOT_FREE).
    """
    if coin.lineage is not None:
        raise Rejected(LedgerReason.COIN_NOT_FREE, str(coin.outpoint))
    if coin.outpoint in trial.entered:
        raise Rejected(LedgerReason.ALREADY_ENTERED, str(coin.outpoint))
    height = trial.totals.anchor.height
    trial.coins.put(coin.outpoint, coin)
    trial.entered.put(coin.outpoint, height)
    item = coin.outpoint.encode() + height.to_bytes(4, "little")
    chain = chain_hash("pegnode/entered", trial.totals.entered_chain, item)
    trial.totals = replace(trial.totals, entered_chain=chain)


def receive(trial: Ledger, value_sats: int) -> None:
    """A part of transitions: more in the reserve that nobody is owed. It repays the deficit; the rest is the fund's."""
    repaid_sats = min(value_sats, trial.totals.deficit_sats)
    trial.totals = trial.totals.plus(
        reserves_sats=value_sats, deficit_sats=-repaid_sats, fund_sats=value_sats - repaid_sats
    )


def close_withdrawal(trial: Ledger, ended: Withdrawal) -> None:
    """A part of transitions: an open withdrawal is closed as what it ended as, for ever."""
    trial.open_withdrawals.delete(ended.burn)
    trial.closed_withdrawals.put(ended.burn, ended)
    chain = chain_hash("pegnode/closed-withdrawal", trial.totals.closed_chain, ended.encode())
    trial.totals = replace(trial.totals, closed_chain=chain)


def close_lineage(trial: Ledger, ended: Lineage) -> None:
    """A part of transitions: an open lineage is closed as what it ended as, for ever."""
    trial.open_lineages.delete(ended.number)
    trial.closed_lineages.put(ended.number, ended)
    chain = chain_hash("pegnode/closed-lineage", trial.totals.closed_chain, ended.encode())
    trial.totals = replace(trial.totals, closed_chain=chain)


def _require_amount(value_sats: int) -> None:
    if value_sats < 0:
        raise Rejected(LedgerReason.NEGATIVE_AMOUNT, str(value_sats))


def _window_with(window: tuple[WindowEntry, ...], height: int, burned_sats: int) -> tuple[WindowEntry, ...]:
    if window and window[-1].anchor_height == height:
        return (*window[:-1], WindowEntry(height, window[-1].burned_sats + burned_sats))
    return (*window, WindowEntry(height, burned_sats))
