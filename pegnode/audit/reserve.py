"""The reserve, row by row: what the ledger says and what one's own Bitcoin node holds, brought together.      (pure)

Two pictures are compared. `Books` are taken from the ledger after one final block, all at one moment. `L1Sight` is the
Bitcoin node's UTXO set at one L1 block, as far as it concerns reserve scripts. Every coin of the books, and every other
output found at a reserve script, becomes one row, and each row has one cause:

    reserve       the coin is there, with its value and script
    in flight     a recorded version of an open batch spends it, in a block or in the mempool; or its change
    unclaimed     a payment that has not entered the ledger: too young, too small, or about to
    unexplained   there, and not as the ledger has it
    missing       the ledger's, and neither there nor spent by a recorded version

The last two are findings: nothing of the kind exists as long as the peg is whole.
"""

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Self

from bridge.bitcoin.identifiers import OutPoint, Script, Txid
from bridge.bitcoin.transaction import Transaction
from bridge.custody import CoinKind, Custody, reserve_script
from bridge.deposits import ReserveTerms, is_too_old
from bridge.l1.answers import ScannedOutput
from bridge.ledger import LedgerView, may_enter
from bridge.params import PegParams
from bridge.state import Anchor, Coin


class RowStatus(enum.StrEnum):
    """What a row is."""

    RESERVE = "reserve"
    IN_FLIGHT = "in-flight"
    UNCLAIMED = "unclaimed"
    UNEXPLAINED = "unexplained"
    MISSING = "missing"


class RowCause(enum.StrEnum):
    """Why a row is what it is; stable names."""

    HELD = "held"
    """Unspent, with the right value and script."""
    SPENT_IN_MEMPOOL = "spent-in-mempool"
    """A recorded version that spends it waits in the mempool."""
    SPENT_IN_BLOCK = "spent-in-block"
    """A recorded version that spends it is in a block, and not settled yet."""
    CHANGE = "change"
    """Change of a recorded version that is not settled yet."""
    TOO_YOUNG = "too-young"
    """Fewer confirmations than the peg asks for."""
    BELOW_FLOOR = "below-floor"
    """Worth less than `coin_floor_sats`: it never enters the ledger."""
    TOO_OLD = "too-old"
    """Half of the recovery's wait has passed: it never enters the ledger, and the recovery keys alone can spend it."""
    TO_FUND = "to-fund"
    """Deep enough: a donation, or a deposit below the minimum. It goes to the fund once evidence of it is made."""
    TO_CLAIM = "to-claim"
    """Deep enough: a deposit that nobody has claimed yet."""
    RETURNED = "returned"
    """Deep enough: a coin that a record booked as lost and that L1 has again. It enters once evidence of it is made."""
    OTHER_VALUE = "other-value"
    """A coin of the ledger, with another value on L1."""
    OTHER_SCRIPT = "other-script"
    """A coin of the ledger, with another script on L1."""
    FOREIGN_SPEND = "foreign-spend"
    """A coin of the ledger that something in the mempool spends, and no recorded version is it."""
    NOT_IN_LEDGER = "not-in-ledger"
    """It entered the ledger once and left it, and L1 has it unspent."""
    SECOND_SETTLEMENT = "second-settlement"
    """Of a recorded version whose batch another version settled."""
    GONE = "gone"
    """A coin of the ledger that L1 does not have, and that no recorded version spent."""


STATUS_OF: Final = {
    RowCause.HELD: RowStatus.RESERVE,
    RowCause.SPENT_IN_MEMPOOL: RowStatus.IN_FLIGHT,
    RowCause.SPENT_IN_BLOCK: RowStatus.IN_FLIGHT,
    RowCause.CHANGE: RowStatus.IN_FLIGHT,
    RowCause.TOO_YOUNG: RowStatus.UNCLAIMED,
    RowCause.BELOW_FLOOR: RowStatus.UNCLAIMED,
    RowCause.TOO_OLD: RowStatus.UNCLAIMED,
    RowCause.TO_FUND: RowStatus.UNCLAIMED,
    RowCause.TO_CLAIM: RowStatus.UNCLAIMED,
    RowCause.RETURNED: RowStatus.UNCLAIMED,
    RowCause.OTHER_VALUE: RowStatus.UNEXPLAINED,
    RowCause.OTHER_SCRIPT: RowStatus.UNEXPLAINED,
    RowCause.FOREIGN_SPEND: RowStatus.UNEXPLAINED,
    RowCause.NOT_IN_LEDGER: RowStatus.UNEXPLAINED,
    RowCause.SECOND_SETTLEMENT: RowStatus.UNEXPLAINED,
    RowCause.GONE: RowStatus.MISSING,
}


@dataclass(frozen=True, slots=True)
class Row:
    """One coin, or one output at a reserve script.

    value_sats: the ledger's for its coins, else L1's.  l1_height: of its block.  confirmations: 0 for what is not
    there.  recovery_l1_height: the first block in which the recovery keys could spend it.  on_l1: whether the UTXO set
    holds it.  is_coin: whether it is the ledger's.  spent_by: the transaction that spends it, if that is known.
    """

    cause: RowCause
    outpoint: OutPoint
    value_sats: int
    kind: CoinKind
    epoch: int
    l1_height: int
    confirmations: int
    recovery_l1_height: int
    on_l1: bool
    is_coin: bool
    spent_by: Txid | None = None

    @property
    def status(self) -> RowStatus:
        """What it is."""
        return STATUS_OF[self.cause]

    @property
    def is_finding(self) -> bool:
        """Whether the peg is not whole because of it."""
        return self.status in (RowStatus.UNEXPLAINED, RowStatus.MISSING)


@dataclass(frozen=True, slots=True)
class OpenVersion:
    """A recorded version of an open batch. inputs: what it spends.  payees: how many outputs come before its change."""

    txid: Txid
    inputs: frozenset[OutPoint]
    payees: int


@dataclass(frozen=True, slots=True)
class Books:
    """What the ledger says after one block, of its coins and of some other outputs, all at one moment.

    entered: those of the others that entered the ledger at some time, and are not lost.  lost: those that a record
    booked as lost.  superseded: recorded versions of batches that
    another version settled, as far as the others are theirs.
    """

    coins: tuple[Coin, ...]
    open_versions: Mapping[Txid, OpenVersion]
    entered: frozenset[OutPoint]
    lost: frozenset[OutPoint]
    superseded: frozenset[Txid]

    @classmethod
    def take(cls, ledger: LedgerView, found: Iterable[OutPoint]) -> Self:
        """The books of `ledger` now. found: outputs that L1 holds at reserve scripts."""
        outpoints = tuple(found)
        superseded: set[Txid] = set()
        for txid in {outpoint.txid for outpoint in outpoints}:
            number = ledger.versions.get(txid)
            lineage = None if number is None else ledger.closed_lineages.get(number)
            if lineage is not None and lineage.settled_by != txid:
                superseded.add(txid)
        versions = {
            version.txid: OpenVersion(version.txid, _inputs(version.transaction), len(lineage.payees))
            for _, lineage in ledger.open_lineages.items()
            for version in lineage.versions
        }
        return cls(
            coins=tuple(coin for _, coin in ledger.coins.items()),
            open_versions=versions,
            entered=frozenset(outpoint for outpoint in outpoints if not may_enter(ledger, outpoint)),
            lost=frozenset(outpoint for outpoint in outpoints if outpoint in ledger.lost),
            superseded=frozenset(superseded),
        )


def _inputs(transaction: bytes) -> frozenset[OutPoint]:
    return frozenset(txin.outpoint for txin in Transaction.parse_stripped(transaction).inputs)


@dataclass(frozen=True, slots=True)
class L1Sight:
    """What one's own Bitcoin node holds at one L1 block.

    outputs: unspent there, at reserve scripts or at outpoints of coins.  spenders: of coins, in the mempool.
    confirmed: recorded versions that the active chain holds.  terms: what each script that was looked for stands for.
    """

    tip: Anchor
    outputs: Mapping[OutPoint, ScannedOutput]
    spenders: Mapping[OutPoint, Txid]
    confirmed: frozenset[Txid]
    terms: Mapping[Script, ReserveTerms]


def explain(books: Books, sight: L1Sight, custody: Custody, params: PegParams) -> tuple[Row, ...]:
    """A row for each coin and for each other output at a reserve script; findings first, then by status and age."""
    coins = {coin.outpoint for coin in books.coins}
    rows = [_coin_row(coin, books, sight, custody) for coin in books.coins]
    rows += [
        _other_row(output, sight.terms[output.script], books, sight, custody, params)
        for outpoint, output in sight.outputs.items()
        if outpoint not in coins and output.script in sight.terms
    ]
    order = list(reversed(RowStatus))
    return tuple(sorted(rows, key=lambda row: (order.index(row.status), row.l1_height, row.outpoint)))


def _coin_row(coin: Coin, books: Books, sight: L1Sight, custody: Custody) -> Row:
    found = sight.outputs.get(coin.outpoint)
    spender = sight.spenders.get(coin.outpoint)
    if found is None:
        by = (version for version in books.open_versions.values() if coin.outpoint in version.inputs)
        spender = next((version.txid for version in by if version.txid in sight.confirmed), None)
        cause = RowCause.GONE if spender is None else RowCause.SPENT_IN_BLOCK
    elif found.value_sats != coin.value_sats:
        cause = RowCause.OTHER_VALUE
    elif found.script != reserve_script(custody.policy(coin.epoch), coin.kind, coin.claim_script).script:
        cause = RowCause.OTHER_SCRIPT
    elif spender is None:
        cause = RowCause.HELD
    elif spender in books.open_versions:
        cause = RowCause.SPENT_IN_MEMPOOL
    else:
        cause = RowCause.FOREIGN_SPEND
    return Row(
        cause=cause,
        outpoint=coin.outpoint,
        value_sats=coin.value_sats,
        kind=coin.kind,
        epoch=coin.epoch,
        l1_height=coin.l1_height,
        confirmations=0 if found is None else sight.tip.height - coin.l1_height + 1,
        recovery_l1_height=coin.l1_height + custody.policy(coin.epoch).recovery_timelock_blocks,
        on_l1=found is not None,
        is_coin=True,
        spent_by=spender,
    )


def _other_row(
    output: ScannedOutput, terms: ReserveTerms, books: Books, sight: L1Sight, custody: Custody, params: PegParams
) -> Row:
    confirmations = sight.tip.height - output.height + 1
    return Row(
        cause=_cause_of_other(output, terms, books, confirmations, params),
        outpoint=output.outpoint,
        value_sats=output.value_sats,
        kind=terms.kind,
        epoch=terms.epoch,
        l1_height=output.height,
        confirmations=confirmations,
        recovery_l1_height=output.height + custody.policy(terms.epoch).recovery_timelock_blocks,
        on_l1=True,
        is_coin=False,
    )


def _cause_of_other(
    output: ScannedOutput, terms: ReserveTerms, books: Books, confirmations: int, params: PegParams
) -> RowCause:
    outpoint = output.outpoint
    version = books.open_versions.get(outpoint.txid)
    if outpoint in books.entered:
        return RowCause.NOT_IN_LEDGER
    if outpoint.txid in books.superseded:
        return RowCause.SECOND_SETTLEMENT
    if version is not None and outpoint.vout >= version.payees:
        return RowCause.CHANGE
    if output.value_sats < params.coin_floor_sats:
        return RowCause.BELOW_FLOOR
    needed = params.coinbase_confirmations if output.coinbase else params.confirmations
    if confirmations < needed or version is not None:
        return RowCause.TOO_YOUNG
    if outpoint in books.lost:
        return RowCause.RETURNED
    if is_too_old(output.height, output.height + confirmations - params.confirmations, params):
        return RowCause.TOO_OLD
    if terms.kind is CoinKind.DEPOSIT and output.value_sats >= params.min_deposit_sats:
        return RowCause.TO_CLAIM
    return RowCause.TO_FUND
