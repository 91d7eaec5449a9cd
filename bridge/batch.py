"""Batches: how a block pays withdrawals out, by one unsigned L1 transaction that every node builds to the same bytes.

Theory of operation
    A batch is valid if it is due and `build_batch`, given the same ledger and feerate, makes exactly its transaction.
    The first version of a payout is built so:

    1. Of the pending burns, those count whose max_fee reaches the least share that any payout has at this feerate.
    2. They are taken by age, at most `batch_max_payees`. One that the free coins can't cover together with those
       before it is passed over; the coins that count are the `batch_max_first_inputs` largest.
    3. Coins are taken from the largest (of equal ones, the lesser outpoint) until they leave no change, or change of
       at least `coin_floor`, since no smaller output may enter the ledger. If they run out before that, what remains
       goes to the fee as the fund's part; if the fund can't bear it, the youngest burn is left out.
    4. The payees share the fee equally, rounded up. While the share is above the max_fee of some, the one of them with
       the greatest value (of equal ones, the youngest) drops out for good, and 2 to 4 are repeated. One at a time:
       a large burn may need so many coins that all drop out together, and without it nobody else has to.
    5. The payout is due with `batch_min_payouts` survivors, or when the oldest of them has waited for
       `batch_max_wait_anchors`.

    Outputs are the payees in order of age, then change: in equal parts while the ledger has fewer than
    `change_target_coins` coins, so that a later batch need not wait for this one's change.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Self

from bridge.bitcoin.amounts import fee_sats
from bridge.bitcoin.identifiers import HASH_SIZE, Script, Txid
from bridge.bitcoin.transaction import WITNESS_SCALE_FACTOR, Transaction, TxIn, TxOut, compact_size
from bridge.codec import Encoded, Reader, Writer
from bridge.custody import CoinKind, Custody, CustodyPolicy, quorum_input_weight, reserve_script
from bridge.errors import MalformedError, Reason, Rejected
from bridge.ledger import LedgerView
from bridge.lineages import PlannedBatch, free_fund_sats, open_lineage
from bridge.params import PegParams
from bridge.state import (
    MAX_BATCH_TRANSACTION_BYTES,
    BatchKind,
    BatchVersion,
    Coin,
    Withdrawal,
    WithdrawalStatus,
)

BATCH_VERSION = 2
REPLACEABLE_SEQUENCE = 0xFFFFFFFD
"""Signals replacement and sets no relative lock. Source: BIP125."""
MAX_CHANGE_PARTS = 4
"""Payees bear the cost of each part, so a reserve of few coins is split over several batches."""

_FIXED_WEIGHT = (4 + 4) * WITNESS_SCALE_FACTOR + 2
"""Version, locktime; the witness's marker and flag. Source: BIP144."""
_SHORTEST_SCRIPT_SIZE = 22
"""P2WPKH."""


class BatchReason(Reason):
    """Why a batch is not valid now."""

    MAINTENANCE = "batch-maintenance"  # It is of kind 2, which is reserved.
    REPLACEMENT = "batch-replacement"  # It replaces another version, which is reserved.
    FEERATE_BELOW_FLOOR = "batch-feerate-below-floor"  # Its feerate is below `feerate_floor_sat_kvb`.
    FEERATE_ABOVE_CEILING = "batch-feerate-above-ceiling"  # Its feerate is above `feerate_ceiling_sat_kvb`.
    LINEAGE_OPEN = "batch-lineage-open"  # A payout is open: none is made before it settles.
    NOT_DUE = "batch-not-due"  # Too few burns wait that bear their share, and not for long enough.
    TRANSACTION_DIFFERS = "batch-transaction-differs"
    """Built from the ledger at this feerate, the transaction has other bytes."""


@dataclass(frozen=True, slots=True)
class Batch(Encoded):
    """A batch as a block contains it. replaces: the version it supersedes, if any; transaction: unsigned."""

    kind: BatchKind
    replaces: Txid | None
    feerate_sat_kvb: int
    transaction: bytes

    @classmethod
    def of(cls, planned: PlannedBatch) -> "Batch":
        """What a block says of a batch that was worked out."""
        return cls(planned.kind, planned.replaces, planned.version.feerate_sat_kvb, planned.version.transaction)

    def write(self, writer: Writer) -> None:
        """Append kind u8, replaced txid (variable, 0 or 32 bytes), feerate u64, transaction (variable)."""
        writer.u8(self.kind).variable(self.replaces or b"").u64(self.feerate_sat_kvb).variable(self.transaction)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        kind, replaces = reader.enumeration(BatchKind), reader.variable(HASH_SIZE)
        if len(replaces) not in (0, HASH_SIZE):
            raise MalformedError(f"a txid of {len(replaces)} bytes")
        feerate_sat_kvb, transaction = reader.u64(), reader.variable(MAX_BATCH_TRANSACTION_BYTES)
        return cls(kind, Txid(replaces) if replaces else None, feerate_sat_kvb, transaction)


def payout_due(view: LedgerView, params: PegParams) -> bool:
    """Whether a payout may be due at some feerate: `build_batch` counts the burns that survive at the one it is given.

    It is not while another payout is open, whatever waits.
    """
    return open_lineage(view, BatchKind.PAYOUT) is None and _is_due(_pending(view), view, params)


def build_batch(
    view: LedgerView,
    kind: BatchKind,
    replaces: Txid | None,
    feerate_sat_kvb: int,
    custody: Custody,
    params: PegParams,
) -> PlannedBatch | None:
    """The batch that is valid on top of `view` at this feerate, or None when none is due.

    Raises Rejected(BatchReason): MAINTENANCE and REPLACEMENT, which are not made; the feerate out of its range.
    """
    if kind is BatchKind.MAINTENANCE:
        raise Rejected(BatchReason.MAINTENANCE, "only payouts are made")
    if replaces is not None:
        raise Rejected(BatchReason.REPLACEMENT, "only first versions are made")
    if feerate_sat_kvb < params.feerate_floor_sat_kvb:
        raise Rejected(BatchReason.FEERATE_BELOW_FLOOR, f"{feerate_sat_kvb} sat/kvB")
    if feerate_sat_kvb > params.feerate_ceiling_sat_kvb:
        raise Rejected(BatchReason.FEERATE_ABOVE_CEILING, f"{feerate_sat_kvb} sat/kvB")
    if not payout_due(view, params):
        return None
    selection = _Funding(view, custody, params, feerate_sat_kvb).select(_pending(view))
    if selection is None or not _is_due(selection.payees, view, params):
        return None
    return _planned(selection, feerate_sat_kvb, view, custody)


def check_batch(view: LedgerView, batch: Batch, custody: Custody, params: PegParams) -> PlannedBatch:
    """What recording `batch` on top of `view` means: the ledger after the block's records, evidence and refunds.

    Raises Rejected(BatchReason).
    """
    planned = build_batch(view, batch.kind, batch.replaces, batch.feerate_sat_kvb, custody, params)
    if planned is None and open_lineage(view, batch.kind) is not None:
        raise Rejected(BatchReason.LINEAGE_OPEN, f"a {batch.kind.name} has not settled")
    if planned is None:
        raise Rejected(BatchReason.NOT_DUE, "too few burns wait, and not for long enough")
    if planned.version.transaction != batch.transaction:
        raise Rejected(BatchReason.TRANSACTION_DIFFERS, "the ledger and this feerate make another transaction")
    return planned


def least_share_sats(params: PegParams, feerate_sat_kvb: int) -> int:
    """A share that no payout is below: one of the most payees and the shortest outputs, its inputs not counted."""
    most = params.batch_max_payees
    weight = _FIXED_WEIGHT + most * _output_weight(_SHORTEST_SCRIPT_SIZE)
    return -(-weight * feerate_sat_kvb // (WITNESS_SCALE_FACTOR * 1000 * most))


@dataclass(frozen=True, slots=True)
class _Selection:
    """Who is paid from which coins. change_sats: of each part; fund_part_sats: what the fee has beyond the shares."""

    payees: tuple[Withdrawal, ...]
    coins: tuple[Coin, ...]
    change_sats: tuple[int, ...]
    share_sats: int
    fund_part_sats: int


class _Funding:
    """What a payout may spend, and the rule by which payees and coins are chosen from it."""

    def __init__(self, view: LedgerView, custody: Custody, params: PegParams, feerate_sat_kvb: int) -> None:
        coins = [coin for _, coin in view.coins.items()]
        free = [coin for coin in coins if coin.lineage is None]
        free.sort(key=lambda coin: (-coin.value_sats, coin.outpoint.encode()))
        self._coins = free[: params.batch_max_first_inputs]
        self._coin_sums = list(accumulate(coin.value_sats for coin in self._coins))
        input_weights = (quorum_input_weight(custody.policy(coin.epoch)) for coin in self._coins)
        self._input_weights = [0, *accumulate(input_weights)]
        self._coin_count = len(coins)
        self._change_weight = _output_weight(len(_change_script(custody.newest)))
        self._fund_limit_sats = min(free_fund_sats(view), params.lineage_fee_cap_sats)
        self._params = params
        self._feerate_sat_kvb = feerate_sat_kvb

    def select(self, pending: Sequence[Withdrawal]) -> _Selection | None:
        """The stable selection from `pending`, which is in order of age; None if nobody can be paid."""
        least_sats = least_share_sats(self._params, self._feerate_sat_kvb)
        waiting = {withdrawal.number: withdrawal for withdrawal in pending if withdrawal.max_fee_sats >= least_sats}
        while True:
            payees, funds = self._payees(waiting.values())
            if funds is None:
                return None
            coin_count, change_sats, fund_part_sats = funds
            change = self._split(change_sats, coin_count)
            share_sats = self._share_sats(payees, coin_count, len(change))
            low = [payee for payee in payees if payee.max_fee_sats < share_sats]
            if not low:
                return _Selection(tuple(payees), tuple(self._coins[:coin_count]), change, share_sats, fund_part_sats)
            del waiting[max(low, key=lambda payee: (payee.value_sats, payee.number)).number]

    def _payees(self, waiting: Iterable[Withdrawal]) -> tuple[list[Withdrawal], tuple[int, int, int] | None]:
        """The oldest burns that the coins cover together, and how they do; see `_funds`."""
        left_sats = self._coin_sums[-1] if self._coin_sums else 0
        payees: list[Withdrawal] = []
        for withdrawal in waiting:
            if withdrawal.value_sats <= left_sats:
                payees.append(withdrawal)
                left_sats -= withdrawal.value_sats
                if len(payees) == self._params.batch_max_payees:
                    break
        total_sats = sum(payee.value_sats for payee in payees)
        while payees:
            funds = self._funds(total_sats)
            if funds is not None:
                return payees, funds
            total_sats -= payees.pop().value_sats
        return [], None

    def _funds(self, total_sats: int) -> tuple[int, int, int] | None:
        """How many coins to take for `total_sats`, the change, and the fund's part; None if that can't be."""
        floor_sats = self._params.coin_floor_sats
        for index in range(bisect_left(self._coin_sums, total_sats), len(self._coin_sums)):
            change_sats = self._coin_sums[index] - total_sats
            if change_sats == 0 or change_sats >= floor_sats:
                return index + 1, change_sats, 0
        remainder_sats = self._coin_sums[-1] - total_sats
        return (len(self._coins), 0, remainder_sats) if remainder_sats <= self._fund_limit_sats else None

    def _share_sats(self, payees: Sequence[Withdrawal], coin_count: int, change_count: int) -> int:
        counts_size = len(compact_size(coin_count)) + len(compact_size(len(payees) + change_count))
        weight = _FIXED_WEIGHT + counts_size * WITNESS_SCALE_FACTOR + self._input_weights[coin_count]
        weight += sum(_output_weight(len(payee.l1_script)) for payee in payees) + change_count * self._change_weight
        vsize_vbytes = -(-weight // WITNESS_SCALE_FACTOR)
        return -(-fee_sats(vsize_vbytes, self._feerate_sat_kvb) // len(payees))

    def _split(self, change_sats: int, spent_count: int) -> tuple[int, ...]:
        """The change in equal parts, none below the least deposit unless it is the only one."""
        if change_sats == 0:
            return ()
        missing = self._params.change_target_coins - (self._coin_count - spent_count)
        parts = max(1, min(missing, change_sats // self._params.min_deposit_sats, MAX_CHANGE_PARTS))
        part_sats, left_over_sats = divmod(change_sats, parts)
        return tuple(part_sats + (index < left_over_sats) for index in range(parts))


def _pending(view: LedgerView) -> list[Withdrawal]:
    """Burns that wait, the oldest first."""
    waiting = [entry for _, entry in view.open_withdrawals.items() if entry.status is WithdrawalStatus.PENDING]
    return sorted(waiting, key=lambda withdrawal: withdrawal.number)


def _is_due(payees: Sequence[Withdrawal], view: LedgerView, params: PegParams) -> bool:
    if not payees:
        return False
    waited_anchors = view.totals.anchor.height - payees[0].burned_at_anchor
    return len(payees) >= params.batch_min_payouts or waited_anchors >= params.batch_max_wait_anchors


def _planned(selection: _Selection, feerate_sat_kvb: int, view: LedgerView, custody: Custody) -> PlannedBatch:
    share_sats = selection.share_sats
    change_script = _change_script(custody.newest)
    transaction = Transaction(
        BATCH_VERSION,
        tuple(TxIn(coin.outpoint, b"", REPLACEABLE_SEQUENCE) for coin in selection.coins),
        tuple(TxOut(payee.value_sats - share_sats, payee.l1_script) for payee in selection.payees)
        + tuple(TxOut(value_sats, change_script) for value_sats in selection.change_sats),
    )
    version = BatchVersion(
        txid=transaction.txid,
        transaction=transaction.serialize_stripped(),
        feerate_sat_kvb=feerate_sat_kvb,
        fee_sats=share_sats * len(selection.payees) + selection.fund_part_sats,
        fund_part_sats=selection.fund_part_sats,
        epoch=custody.newest.epoch,
        anchor_height=view.totals.anchor.height,
    )
    inputs = tuple(coin.outpoint for coin in selection.coins)
    return PlannedBatch(BatchKind.PAYOUT, None, inputs, tuple(payee.burn for payee in selection.payees), version)


def _change_script(policy: CustodyPolicy) -> Script:
    return reserve_script(policy, CoinKind.CHANGE).script


@lru_cache(maxsize=64)
def _output_weight(script_size: int) -> int:
    return (8 + len(compact_size(script_size)) + script_size) * WITNESS_SCALE_FACTOR
