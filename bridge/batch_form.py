"""What every batch looks like on L1, what it weighs once it is signed, and how its change is cut."""

from collections.abc import Iterable, Sequence
from functools import lru_cache

from bridge.bitcoin.identifiers import Script
from bridge.bitcoin.transaction import WITNESS_SCALE_FACTOR, Transaction, TxIn, TxOut, compact_size
from bridge.custody import CoinKind, Custody, quorum_input_weight, reserve_script
from bridge.errors import Reason
from bridge.ledger import LedgerView
from bridge.params import PegParams
from bridge.state import Coin

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

    FEERATE_BELOW_FLOOR = "batch-feerate-below-floor"  # Its feerate is below `feerate_floor_sat_kvb`.
    FEERATE_ABOVE_CEILING = "batch-feerate-above-ceiling"  # Its feerate is above `feerate_ceiling_sat_kvb`.
    LINEAGE_OPEN = "batch-lineage-open"  # One of its kind is open, and it does not replace that one's newest version.
    NOT_DUE = "batch-not-due"  # A first version, and nothing asks for one now.
    TRANSACTION_DIFFERS = "batch-transaction-differs"
    """Built from the ledger at this feerate, the transaction has other bytes."""
    NO_OPEN_LINEAGE = "batch-no-open-lineage"  # It replaces a version, and none of its kind is open.
    LINEAGE_CLOSED = "batch-lineage-closed"  # It replaces a version of a lineage that has settled.
    NOT_NEWEST = "batch-not-newest"  # It replaces another version than the newest of the open lineage.
    TOO_MANY_VERSIONS = "batch-too-many-versions"  # The lineage has as many versions as one may have.
    TOO_EARLY = "batch-too-early"  # Less than `replacement_interval_anchors` after the version that it replaces.
    RESERVED = "batch-reserved"  # One of a lineage's last 8 versions, at less than 5/4 of the feerate before.
    NOT_COVERED = "batch-not-covered"
    """The replaced inputs, with free coins up to its kind's most, don't hold payees, the fund's part and change."""
    OVER_FUND = "batch-over-fund"
    """The fund's part is above `lineage_fee_cap_sats`, or above what is free for it, and no deficit may be booked."""
    STEP_NOT_MET = "batch-step-not-met"  # Fee or feerate don't exceed the replaced version's by what L1's nodes ask.


def unsigned_transaction(coins: Iterable[Coin], outputs: tuple[TxOut, ...]) -> Transaction:
    """The one form that a batch has: only the coins that it spends and its outputs are free."""
    inputs = tuple(TxIn(coin.outpoint, b"", REPLACEABLE_SEQUENCE) for coin in coins)
    return Transaction(BATCH_VERSION, inputs, outputs)


def vsize_vbytes(input_weights: int, input_count: int, output_weights: int, output_count: int) -> int:
    """Virtual bytes of a batch once it is signed. input_weights, output_weights: sums, in weight units."""
    counts_size = len(compact_size(input_count)) + len(compact_size(output_count))
    weight = _FIXED_WEIGHT + counts_size * WITNESS_SCALE_FACTOR + input_weights + output_weights
    return -(-weight // WITNESS_SCALE_FACTOR)


def coin_weight(coin: Coin, custody: Custody) -> int:
    """Weight units of an input that spends `coin`, signed by a quorum. Raises Rejected(UNKNOWN_EPOCH)."""
    return quorum_input_weight(custody.policy(coin.epoch))


@lru_cache(maxsize=64)
def output_weight(script_size: int) -> int:
    """Weight units of an output with a script of so many bytes."""
    return (8 + len(compact_size(script_size)) + script_size) * WITNESS_SCALE_FACTOR


def least_share_sats(params: PegParams, feerate_sat_kvb: int) -> int:
    """A share that no payout is below: one of the most payees and the shortest outputs, its inputs not counted."""
    most = params.batch_max_payees
    weight = _FIXED_WEIGHT + most * output_weight(_SHORTEST_SCRIPT_SIZE)
    return -(-weight * feerate_sat_kvb // (WITNESS_SCALE_FACTOR * 1000 * most))


def free_coins(view: LedgerView) -> list[Coin]:
    """What no lineage locks, the largest first; of equal ones, the lesser outpoint."""
    return by_value(coin for _, coin in view.coins.items() if coin.lineage is None)


def by_value(coins: Iterable[Coin]) -> list[Coin]:
    """The largest first; of equal ones, the lesser outpoint."""
    return sorted(coins, key=lambda coin: (-coin.value_sats, coin.outpoint.encode()))


def change_script(custody: Custody) -> Script:
    """Where change goes: the newest epoch's script."""
    return reserve_script(custody.newest, CoinKind.CHANGE).script


def change_parts(change_sats: int, other_coins: int, params: PegParams) -> int:
    """In how many parts change is cut; none is below the least deposit unless it is the only one.

    other_coins: how many coins the ledger has beside those that the batch spends.
    """
    missing = params.change_target_coins - other_coins
    return max(1, min(missing, change_sats // params.min_deposit_sats, MAX_CHANGE_PARTS))


def cut(change_sats: int, parts: int) -> tuple[int, ...]:
    """The change in so many equal parts; of the odd satoshis, each of the first parts has one more."""
    if parts == 0:
        return ()
    part_sats, left_over_sats = divmod(change_sats, parts)
    return tuple(part_sats + (index < left_over_sats) for index in range(parts))


def change_outputs(values_sats: Sequence[int], custody: Custody) -> tuple[TxOut, ...]:
    """Change of these values."""
    script = change_script(custody)
    return tuple(TxOut(value_sats, script) for value_sats in values_sats)
