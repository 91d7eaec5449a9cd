"""Maintenance that merges small coins, so that a large burn can be paid."""

from collections.abc import Sequence
from dataclasses import replace

from bridge.batch import batch_due, propose_batches
from bridge.ledger import Ledger
from bridge.lineages import record_batch, settle
from bridge.state import BatchKind
from tests.support.ledgers import burn, pending
from tests.support.maintenance import (
    FUND,
    SMALL,
    T,
    built_maintenance,
    input_numbers,
    maintained_ledger,
    output_values,
    planned_maintenance,
)
from tests.support.peg import CUSTODY, START_HEIGHT, coin, outpoint

MERGING = replace(SMALL, batch_max_first_inputs=3, batch_max_inputs=5)


def _crumbs(burned_sats: int, values: Sequence[int] = (500_000, 400_000, 300_000, 200_000, 100_000, 90_000)) -> Ledger:
    ledger = maintained_ledger([(value_sats, 0) for value_sats in values])
    ledger.coins.delete(FUND)
    burn(ledger, 100, burned_sats, max_fee_sats=20_000)
    return ledger


def test_merging_is_due_when_the_largest_coins_can_not_cover_a_burn() -> None:
    assert not batch_due(_crumbs(1_200_000), BatchKind.MAINTENANCE, MERGING)
    ledger = _crumbs(1_200_001)
    assert batch_due(ledger, BatchKind.MAINTENANCE, MERGING)
    planned = planned_maintenance(ledger, MERGING)
    assert input_numbers(planned) == [2, 3, 4], "the least that a payout would take, and those after it"
    assert output_values(planned) == [600_000 - planned.version.fee_sats]
    assert planned.version.fund_part_sats == planned.version.fee_sats


def test_merging_counts_locked_coins_as_covering_and_moves_none_of_them() -> None:
    ledger = _crumbs(1_200_000)
    for number in (0, 1):
        ledger.coins.put(outpoint(number), replace(coin(number, 500_000 - 100_000 * number), lineage=5))
    assert built_maintenance(ledger, MERGING) is None
    ledger = _crumbs(1_200_001)
    ledger.coins.put(outpoint(3), replace(coin(3, 200_000), lineage=5))
    assert input_numbers(planned_maintenance(ledger, MERGING)) == [2, 4, 5]


def test_merging_goes_on_until_the_burn_is_paid() -> None:
    ledger = _crumbs(1_580_000)
    params = replace(MERGING, batch_min_payouts=1)
    for _ in range(3):
        for planned in propose_batches(ledger, 1_000, (), CUSTODY, params):
            record_batch(ledger, planned)
            settle(ledger, planned.version.txid, START_HEIGHT)
    assert pending(ledger) == []


def test_merging_that_gains_nothing_or_costs_too_much_is_not_due() -> None:
    crumb = (500_000, 400_000, 300_000, 30_000)
    assert input_numbers(built_maintenance(_crumbs(1_200_001, crumb), MERGING)) == [2, 3]
    assert built_maintenance(_crumbs(1_200_001, crumb), MERGING, 100_000) is None, "the fee is more than the crumb"
    poor = replace(MERGING, lineage_fee_cap_sats=3_000)
    assert input_numbers(built_maintenance(_crumbs(1_200_001), poor, 10_000)) == []
    assert input_numbers(built_maintenance(_crumbs(1_200_001), poor, 7_000)) == [2, 3]


def test_refresh_comes_before_merging() -> None:
    ledger = _crumbs(1_200_001)
    ledger.coins.put(outpoint(5), replace(coin(5, 90_000), l1_height=START_HEIGHT - T // 2))
    assert input_numbers(planned_maintenance(ledger, MERGING)) == [5]


# Refusals, replacement and signing
