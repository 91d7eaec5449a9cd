"""Maintenance that can wait no longer, and costs more than the fund has."""

from dataclasses import replace

from bridge.batch import propose_batches
from bridge.custody import CoinKind
from bridge.ledger import Ledger, enter_donation
from bridge.lineages import record_batch, settle
from bridge.replacement import STALE_INTERVALS
from bridge.state import Coin
from tests.support.ledgers import terms, wait
from tests.support.maintenance import (
    FUND,
    SMALL,
    T,
    built_maintenance,
    input_numbers,
    maintained_ledger,
    planned_maintenance,
)
from tests.support.peg import CUSTODY, START_HEIGHT, coin


def test_urgent_refresh_spends_the_fund_to_zero_and_books_the_rest_as_deficit() -> None:
    ledger = maintained_ledger([(500_000, 3 * T // 4), (900_000, 0)], 500)
    ledger.coins.put(FUND, Coin(FUND, 500, CoinKind.DONATION, 0, b"", START_HEIGHT, lineage=7))
    planned = planned_maintenance(ledger)
    assert planned.version.fund_part_sats == 500
    short_sats = planned.version.fee_sats - 500
    assert short_sats > 0
    before = terms(ledger)
    record_batch(ledger, planned)
    settle(ledger, planned.version.txid, START_HEIGHT)
    fee = planned.version.fee_sats
    assert terms(ledger) == (before[0] - fee, short_sats, before[2], 0, 0)
    enter_donation(ledger, coin(60, short_sats + 40, CoinKind.DONATION))
    assert (ledger.totals.deficit_sats, ledger.totals.fund_sats) == (0, 40)


def test_urgent_refresh_books_no_more_than_the_cap() -> None:
    ledger = maintained_ledger([(500_000, 3 * T // 4), (900_000, 0)], 0)
    fee = planned_maintenance(ledger).version.fee_sats
    assert built_maintenance(ledger, replace(SMALL, maintenance_deficit_cap_sats=fee)) is not None
    assert built_maintenance(ledger, replace(SMALL, maintenance_deficit_cap_sats=fee - 1)) is None


def _owing(ledger: Ledger, deficit_sats: int) -> Ledger:
    """With a deficit that is open already."""
    ledger.totals = ledger.totals.plus(deficit_sats=deficit_sats, supply_sats=deficit_sats)
    ledger.totals.require_equality()
    return ledger


def test_urgent_refreshes_together_book_no_more_than_the_cap() -> None:
    coins = [(500_000, 3 * T // 4), (900_000, 0)]
    fee = planned_maintenance(maintained_ledger(coins, 0)).version.fee_sats
    room_sats = SMALL.maintenance_deficit_cap_sats - fee
    assert input_numbers(planned_maintenance(_owing(maintained_ledger(coins, 0), room_sats))) == [0]
    assert built_maintenance(_owing(maintained_ledger(coins, 0), room_sats + 1)) is None
    assert built_maintenance(_owing(maintained_ledger(coins, 0), 2 * SMALL.maintenance_deficit_cap_sats)) is None


def test_coin_that_can_not_wait_longer_is_moved_whatever_is_owed_already() -> None:
    """Custody comes before bookkeeping: beyond this age no sum of deficits, only the cap of one batch, holds it up."""
    ages = [(500_000, 13 * T // 16 - 1), (400_000, 13 * T // 16 - 2), (900_000, 0)]
    ledger = _owing(maintained_ledger(ages, 0), 2 * SMALL.maintenance_deficit_cap_sats)
    assert built_maintenance(ledger) is None
    wait(ledger, 1)
    planned = planned_maintenance(ledger)
    assert input_numbers(planned) == [0], "the other can wait"
    assert built_maintenance(ledger, replace(SMALL, maintenance_deficit_cap_sats=planned.version.fee_sats - 1)) is None
    wait(ledger, 1)
    assert input_numbers(planned_maintenance(ledger)) == [0, 1]


def test_replacement_of_an_urgent_refresh_keeps_the_sum_of_deficits_within_the_cap() -> None:
    cap_sats = SMALL.maintenance_deficit_cap_sats
    for age, short in ((3 * T // 4, False), (13 * T // 16, True)):
        ledger = maintained_ledger([(500_000, age), (900_000, 0)], 0)
        first = planned_maintenance(ledger, feerate_sat_kvb=5_000)
        record_batch(ledger, first)
        _owing(ledger, cap_sats - first.version.fee_sats)
        wait(ledger, STALE_INTERVALS * SMALL.replacement_interval_anchors)
        batches = propose_batches(ledger, 20_000, (), CUSTODY, SMALL)
        assert [planned.version.fund_part_sats for planned in batches] == ([0] if short else [])


def test_deficit_is_booked_for_urgent_coins_alone() -> None:
    ledger = maintained_ledger([(200_000, 3 * T // 4), (200_000, T // 2), (900_000, 0)], 0)
    assert input_numbers(planned_maintenance(ledger)) == [0]
    assert input_numbers(built_maintenance(maintained_ledger([(200_000, 3 * T // 4 - 1), (900_000, 0)], 0))) == []
