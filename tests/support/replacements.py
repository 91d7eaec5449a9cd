"""Open payouts for unit tests, and the steps by which their fees are raised."""

from collections.abc import Sequence
from dataclasses import replace

from bridge.batch import Batch, build_batch, check_batch
from bridge.bitcoin.identifiers import Txid
from bridge.bitcoin.transaction import Transaction
from bridge.custody import CoinKind
from bridge.ledger import Ledger, enter_donation
from bridge.lineages import PlannedBatch, record_batch
from bridge.params import PegParams
from bridge.state import BatchKind, Lineage
from tests.support.ledgers import ledger_of, only_lineage, wait
from tests.support.peg import CUSTODY, PARAMS, coin, outpoint

FEERATE = 10_000
INTERVAL = PARAMS.replacement_interval_anchors
ONE = replace(PARAMS, batch_min_payouts=1, change_target_coins=1)
"""A single burn is due, and change is one output."""


def record(ledger: Ledger, replaces: Txid | None, feerate_sat_kvb: int, params: PegParams = ONE) -> PlannedBatch:
    """Record the batch that the ledger makes at this feerate, having seen that it is the valid one."""
    planned = build_batch(ledger, BatchKind.PAYOUT, replaces, feerate_sat_kvb, CUSTODY, params)
    assert planned is not None
    assert check_batch(ledger, Batch.of(planned), CUSTODY, params) == planned
    record_batch(ledger, planned)
    return planned


def open_payout(
    coins_sats: Sequence[int] = (1_000_000, 1_000_000),
    burns: Sequence[tuple[int, int]] = ((500_000, 20_000),),
    *,
    donated_sats: int = 0,
    params: PegParams = ONE,
) -> Ledger:
    """A ledger with an open payout at FEERATE that is old enough to be replaced; the donated coin is not free."""
    ledger = ledger_of(coins_sats, burns)
    if donated_sats:
        enter_donation(ledger, coin(50, donated_sats, CoinKind.DONATION))
        ledger.coins.put(outpoint(50), replace(coin(50, donated_sats, CoinKind.DONATION), lineage=7))
    record(ledger, None, FEERATE, params)
    wait(ledger, INTERVAL)
    return ledger


def newest_version(ledger: Ledger) -> Txid:
    """The newest version of the one open lineage."""
    return only_lineage(ledger).versions[-1].txid


def bump(ledger: Ledger, feerate_sat_kvb: int = 2 * FEERATE, params: PegParams = ONE) -> PlannedBatch:
    """Record a replacement of the newest version."""
    return record(ledger, newest_version(ledger), feerate_sat_kvb, params)


def transaction_of(planned: PlannedBatch) -> Transaction:
    """The unsigned transaction."""
    return Transaction.parse(planned.version.transaction)


def transactions_of(lineage: Lineage) -> list[Transaction]:
    """Those of all its versions, oldest first."""
    return [Transaction.parse(version.transaction) for version in lineage.versions]
