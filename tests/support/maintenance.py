"""Ledgers whose coins grow old, and the maintenance that is due for them."""

from collections.abc import Sequence
from dataclasses import replace

from bridge.batch import Batch, build_batch, check_batch
from bridge.bitcoin.transaction import Transaction
from bridge.custody import CoinKind, Custody
from bridge.ledger import Ledger, enter_coin, enter_donation
from bridge.lineages import PlannedBatch
from bridge.params import PegParams
from bridge.state import BatchKind, Coin
from tests.support.peg import CUSTODY, PARAMS, START_HEIGHT, coin, new_ledger, outpoint

FEERATE = 10_000
T = 400
SMALL = replace(PARAMS, recovery_timelock_blocks=T, change_target_coins=1)
FUND = outpoint(900)


def maintained_ledger(coins: Sequence[tuple[int, int]], fund_sats: int = 200_000) -> Ledger:
    """Coins 0, 1, ... of (value, age in anchors). A young coin that is not free has given the fund what it holds."""
    ledger = new_ledger()
    for number, (value_sats, age) in enumerate(coins):
        enter_coin(ledger, replace(coin(number, value_sats), l1_height=START_HEIGHT - age), 0)
    if fund_sats:
        given = Coin(FUND, fund_sats, CoinKind.DONATION, 0, b"", START_HEIGHT)
        enter_donation(ledger, given)
        ledger.coins.put(FUND, replace(given, lineage=7))
    return ledger


def built_maintenance(
    ledger: Ledger, params: PegParams = SMALL, feerate_sat_kvb: int = FEERATE, custody: Custody = CUSTODY
) -> PlannedBatch | None:
    """The maintenance that is due, if any, which the rules take as it is."""
    planned = build_batch(ledger, BatchKind.MAINTENANCE, None, feerate_sat_kvb, custody, params)
    if planned is not None:
        assert check_batch(ledger, Batch.of(planned), custody, params) == planned
        assert planned.payees == ()
    return planned


def planned_maintenance(ledger: Ledger, params: PegParams = SMALL, feerate_sat_kvb: int = FEERATE) -> PlannedBatch:
    """The maintenance that is due."""
    planned = built_maintenance(ledger, params, feerate_sat_kvb)
    assert planned is not None
    return planned


def input_numbers(planned: PlannedBatch | None) -> list[int]:
    """The numbers of the coins that are moved."""
    numbers = {outpoint(number): number for number in range(100)}
    return [] if planned is None else [numbers[spent] for spent in planned.inputs]


def output_values(planned: PlannedBatch) -> list[int]:
    """What it pays, in order."""
    return [output.value_sats for output in Transaction.parse(planned.version.transaction).outputs]
