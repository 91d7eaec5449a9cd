"""Maintenance: which coins the reserve moves and when, at whose cost, and that nothing else is maintenance."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.batch import Batch, batch_due, build_batch, check_batch, propose_batches
from bridge.batch_form import BatchReason
from bridge.bitcoin.amounts import fee_sats
from bridge.bitcoin.identifiers import OutPoint
from bridge.bitcoin.transaction import Transaction
from bridge.custody import CoinKind, Custody, reserve_script
from bridge.errors import Rejected
from bridge.ledger import Ledger
from bridge.lineages import free_fund_sats, record_batch, settle
from bridge.maintenance import Backlog, backlog
from bridge.replacement import STALE_INTERVALS
from bridge.state import BatchKind, Coin
from federation.approval import approve_batch
from federation.refusal import RefusalReason, SigningRefused
from tests.support.ledgers import CHANGE, burn, only_lineage, signed, terms, wait
from tests.support.maintenance import (
    FEERATE,
    FUND,
    SMALL,
    T,
    built_maintenance,
    input_numbers,
    maintained_ledger,
    output_values,
    planned_maintenance,
)
from tests.support.peg import CUSTODY, POLICY, START_HEIGHT, coin, outpoint, policy
from tests.support.signers import honest_facts


def test_refresh_moves_old_coins_to_the_change_script_at_the_funds_cost() -> None:
    ledger = maintained_ledger([(500_000, T // 2), (900_000, 0)])
    planned = planned_maintenance(ledger)
    transaction = Transaction.parse(planned.version.transaction)
    cost_sats = fee_sats(signed(ledger, transaction).vsize_vbytes, FEERATE)
    assert input_numbers(planned) == [0]
    assert [(output.value_sats, output.script) for output in transaction.outputs] == [(500_000 - cost_sats, CHANGE)]
    assert (planned.version.fee_sats, planned.version.fund_part_sats) == (cost_sats, cost_sats)
    before = terms(ledger)
    record_batch(ledger, planned)
    assert free_fund_sats(ledger) == 200_000 - cost_sats
    settle(ledger, planned.version.txid, START_HEIGHT)
    assert terms(ledger) == (before[0] - cost_sats, 0, before[2], 0, 200_000 - cost_sats)
    moved = ledger.coins.get(OutPoint(planned.version.txid, 0))
    assert moved is not None
    assert (moved.kind, moved.l1_height, moved.lineage) == (CoinKind.CHANGE, START_HEIGHT, None)


def test_refresh_is_due_from_half_of_the_recovery_wait() -> None:
    ledger = maintained_ledger([(500_000, T // 2 - 1), (900_000, 0)])
    assert not batch_due(ledger, BatchKind.MAINTENANCE, SMALL)
    assert built_maintenance(ledger) is None
    wait(ledger, 1)
    assert batch_due(ledger, BatchKind.MAINTENANCE, SMALL)
    assert input_numbers(planned_maintenance(ledger)) == [0]


def test_refresh_takes_the_oldest_within_half_of_the_free_value() -> None:
    ages = [(300_000, T // 2), (300_000, T // 2 + 2), (300_000, T // 2 + 1), (300_000, 0)]
    assert input_numbers(planned_maintenance(maintained_ledger(ages))) == [1, 2]
    large = [(900_000, T // 2 + 2), (300_000, T // 2 + 1), (300_000, T // 2), (200_000, 0)]
    assert input_numbers(planned_maintenance(maintained_ledger(large))) == [1, 2], (
        "the large one waits, or takes its turn at three quarters"
    )


def test_refresh_takes_what_is_past_three_quarters_whatever_it_holds() -> None:
    ledger = maintained_ledger([(900_000, 3 * T // 4 - 1), (100_000, 0)])
    assert built_maintenance(ledger) is None
    wait(ledger, 1)
    assert input_numbers(planned_maintenance(ledger)) == [0]


def test_refresh_counts_free_coins_only() -> None:
    ledger = maintained_ledger([(500_000, T - 1), (900_000, 0)])
    ledger.coins.put(outpoint(0), replace(coin(0, 500_000), l1_height=START_HEIGHT - T + 1, lineage=5))
    assert not batch_due(ledger, BatchKind.MAINTENANCE, SMALL)
    assert built_maintenance(ledger) is None


def test_refresh_takes_an_urgent_first_and_then_no_more_than_half() -> None:
    """Payouts go on meanwhile, for there is time for another batch."""
    urgent = [(300_000, 3 * T // 4 + 2), (300_000, 3 * T // 4 + 1), (300_000, 3 * T // 4), (100_000, 0)]
    assert input_numbers(planned_maintenance(maintained_ledger(urgent))) == [0]
    assert input_numbers(planned_maintenance(maintained_ledger([*urgent, (300_000, 0)]))) == [0, 1]


def test_refresh_takes_whatever_has_time_for_two_batches_alone() -> None:
    last = SMALL.last_refresh_age
    assert sorted(input_numbers(planned_maintenance(maintained_ledger([(300_000, last)] * 4)))) == [0, 1, 2, 3]
    assert len(input_numbers(planned_maintenance(maintained_ledger([(300_000, last - 1)] * 4)))) == 2


def test_refresh_takes_the_largest_of_those_that_press_and_then_the_oldest() -> None:
    pressing = -(-13 * T // 16)
    ages = [(200_000, pressing + 1), (300_000, pressing), (400_000, pressing - 1), (400_000, pressing - 2)]
    ledger = maintained_ledger([*ages, (9_000_000, 0)])
    assert input_numbers(planned_maintenance(ledger)) == [1, 0, 2, 3]


def test_refresh_takes_as_many_as_maintenance_may_and_not_as_a_payout() -> None:
    ledger = maintained_ledger([(100_000, T // 2 + number) for number in range(6)] + [(9_000_000, 0)])
    for most, first in ((4, 2), (4, 4), (2, 2)):
        params = replace(SMALL, maintenance_max_first_inputs=most, batch_max_first_inputs=first)
        assert input_numbers(planned_maintenance(ledger, params)) == [5, 4, 3, 2][:most]


@given(
    values=st.lists(st.integers(100_000, 400_000), min_size=1, max_size=12),
    fund_sats=st.integers(2_000, 80_000),
    feerate_sat_kvb=st.integers(1_000, SMALL.feerate_ceiling_sat_kvb),
)
def test_refresh_takes_as_many_as_the_fund_bears_and_no_fewer(
    values: list[int], fund_sats: int, feerate_sat_kvb: int
) -> None:
    """The number is searched by halving: one more would not do."""
    coins = [(value_sats, T // 2) for value_sats in values] + [(9_000_000, 0)]
    planned = built_maintenance(maintained_ledger(coins, fund_sats), feerate_sat_kvb=feerate_sat_kvb)
    taken = 0 if planned is None else len(planned.inputs)
    assert planned is None or planned.version.fee_sats <= fund_sats
    if taken < len(values):
        one_more = replace(SMALL, maintenance_max_first_inputs=taken + 1)
        assert (
            planned_maintenance(maintained_ledger(coins, 1_000_000), one_more, feerate_sat_kvb).version.fee_sats
            > fund_sats
        )


def test_refresh_splits_its_change_while_coins_are_few_and_names_the_newest_epoch() -> None:
    ledger = maintained_ledger([(700_000, T // 2), (900_000, 0)])
    planned = planned_maintenance(ledger, replace(SMALL, change_target_coins=5))
    outputs = output_values(planned)
    assert len(outputs) == 3
    assert max(outputs) - min(outputs) <= 1
    custody = Custody({0: POLICY, 3: policy(3)})
    newest = build_batch(ledger, BatchKind.MAINTENANCE, None, FEERATE, custody, SMALL)
    assert newest is not None
    assert newest.version.epoch == 3
    [output] = Transaction.parse(newest.version.transaction).outputs
    assert output.script == reserve_script(policy(3), CoinKind.CHANGE).script


def test_coin_too_small_to_pay_for_itself_takes_the_least_along_that_is_enough() -> None:
    """Not the largest: whoever gives such coins away, one after the other, would keep it from payouts for ever."""
    ledger = maintained_ledger([(30_000, T // 2), (900_000, 0), (40_000, 0), (30_000, 0)])
    assert input_numbers(planned_maintenance(ledger)) == [0, 3]
    assert input_numbers(planned_maintenance(ledger, feerate_sat_kvb=100_000)) == [0, 2]
    assert input_numbers(planned_maintenance(ledger, feerate_sat_kvb=200_000)) == [0, 1]
    alone = maintained_ledger([(30_000, 3 * T // 4)])
    assert built_maintenance(alone) is None, "nothing can be done for it"


def test_replacement_of_maintenance_is_refused_when_it_would_leave_nothing() -> None:
    """A transaction has an output. One without could not be signed, settled, or replaced in turn."""
    ledger = maintained_ledger([(60_000, 3 * T // 4)])
    first = planned_maintenance(ledger)
    record_batch(ledger, first)
    wait(ledger, SMALL.replacement_interval_anchors)
    for feerate in (160_000, 200_000):
        with pytest.raises(Rejected) as caught:
            build_batch(ledger, BatchKind.MAINTENANCE, first.version.txid, feerate, CUSTODY, SMALL)
        assert caught.value.reason is BatchReason.NOT_COVERED
    [proposed] = propose_batches(ledger, 200_000, (), CUSTODY, SMALL)
    assert Transaction.parse(proposed.version.transaction).outputs


def test_refresh_leaves_out_the_youngest_that_the_fund_can_not_bear() -> None:
    coins = [(200_000, T // 2 + 2), (200_000, T // 2 + 1), (200_000, T // 2), (900_000, 0)]
    two_sats = planned_maintenance(maintained_ledger(coins[:2] + coins[3:])).version.fee_sats
    assert input_numbers(built_maintenance(maintained_ledger(coins, two_sats))) == [0, 1]
    assert input_numbers(built_maintenance(maintained_ledger(coins, two_sats - 1))) == [0]
    assert built_maintenance(maintained_ledger(coins, 1_000)) is None
    capped = replace(SMALL, lineage_fee_cap_sats=two_sats)
    assert input_numbers(built_maintenance(maintained_ledger(coins), capped)) == [0, 1]


def test_fund_that_another_lineage_reserves_is_not_spent() -> None:
    ledger = maintained_ledger([(500_000, T // 2), (900_000, 0), (900_000, 0)], 60_000)
    burn(ledger, 100, 900_000, max_fee_sats=2_500)
    cost_sats = planned_maintenance(ledger).version.fee_sats
    one = replace(SMALL, batch_min_payouts=1)
    payout = build_batch(ledger, BatchKind.PAYOUT, None, FEERATE, CUSTODY, one)
    assert payout is not None
    spent_sats = 60_000 - cost_sats
    record_batch(ledger, replace(payout, version=replace(payout.version, fund_part_sats=spent_sats)))
    assert planned_maintenance(Ledger(ledger)).version.fund_part_sats == cost_sats
    number = only_lineage(ledger).number
    ledger.open_lineages.put(number, replace(only_lineage(ledger), reserved_fund_sats=spent_sats + 1))
    assert built_maintenance(ledger) is None


# The urgent refresh


@pytest.mark.parametrize(
    ("age", "order"),
    [
        (T // 2, [BatchKind.PAYOUT, BatchKind.MAINTENANCE]),
        (3 * T // 4, [BatchKind.MAINTENANCE, BatchKind.PAYOUT]),
    ],
)
def test_payouts_come_before_maintenance_unless_it_is_urgent(age: int, order: list[BatchKind]) -> None:
    ledger = maintained_ledger([(300_000, age), (500_000, 0), (400_000, 0)])
    burn(ledger, 100, 400_000, max_fee_sats=20_000)
    batches = propose_batches(ledger, FEERATE, (), CUSTODY, replace(SMALL, batch_min_payouts=1))
    assert [planned.kind for planned in batches] == order
    assert not set(batches[0].inputs) & set(batches[1].inputs)


# Merging


def test_maintenance_that_is_not_due_or_is_open_or_other_is_refused() -> None:
    ledger = maintained_ledger([(500_000, T // 2), (900_000, 0)])
    batch = Batch.of(planned_maintenance(ledger))
    wrong = replace(Transaction.parse(batch.transaction), outputs=())
    young = maintained_ledger([(500_000, 0), (900_000, 0)])
    recorded = Ledger(ledger)
    record_batch(recorded, planned_maintenance(ledger))
    for view, tried, reason in (
        (young, batch, BatchReason.NOT_DUE),
        (recorded, batch, BatchReason.LINEAGE_OPEN),
        (ledger, replace(batch, transaction=wrong.serialize()), BatchReason.TRANSACTION_DIFFERS),
        (ledger, replace(batch, feerate_sat_kvb=999), BatchReason.FEERATE_BELOW_FLOOR),
    ):
        with pytest.raises(Rejected) as caught:
            check_batch(view, tried, CUSTODY, SMALL)
        assert caught.value.reason is reason


def test_maintenance_is_replaced_at_the_funds_cost() -> None:
    ledger = maintained_ledger([(500_000, T // 2), (900_000, 0)])
    record_batch(ledger, planned_maintenance(ledger))
    wait(ledger, STALE_INTERVALS * SMALL.replacement_interval_anchors)
    [planned] = propose_batches(ledger, 2 * FEERATE, (), CUSTODY, SMALL)
    assert (planned.kind, planned.replaces) == (BatchKind.MAINTENANCE, only_lineage(ledger).versions[0].txid)
    assert planned.version.fund_part_sats == planned.version.fee_sats
    assert record_batch(ledger, planned).reserved_fund_sats == planned.version.fee_sats
    settle(ledger, planned.version.txid, START_HEIGHT)
    assert ledger.totals.deficit_sats == 0


def test_replacement_of_an_urgent_refresh_may_be_short_and_of_another_may_not() -> None:
    for age in (3 * T // 4, T // 2):
        ledger = maintained_ledger([(500_000, age), (900_000, 0)], 2_000)
        ledger.coins.put(FUND, Coin(FUND, 2_000, CoinKind.DONATION, 0, b"", START_HEIGHT, lineage=7))
        record_batch(ledger, planned_maintenance(ledger, feerate_sat_kvb=5_000))
        wait(ledger, STALE_INTERVALS * SMALL.replacement_interval_anchors)
        batches = propose_batches(ledger, 20_000, (), CUSTODY, SMALL)
        shorts = [planned.version.fee_sats - planned.version.fund_part_sats for planned in batches]
        assert [short > 0 for short in shorts] == ([True] if age > T // 2 else [False])
        assert age > T // 2 or batches[0].version.feerate_sat_kvb < 20_000, "the least step, which the fund can bear"


def test_signer_approves_maintenance_and_a_deficit_within_its_cap() -> None:
    ledger = maintained_ledger([(500_000, 3 * T // 4), (900_000, 0)], 0)
    planned = planned_maintenance(ledger)
    record_batch(ledger, planned)
    facts = honest_facts(ledger, CUSTODY)
    assert approve_batch(ledger, planned.version.txid, facts, CUSTODY, SMALL).txid == planned.version.txid
    capped = replace(SMALL, maintenance_deficit_cap_sats=planned.version.fee_sats - 1)
    with pytest.raises(SigningRefused) as caught:
        approve_batch(ledger, planned.version.txid, facts, CUSTODY, capped)
    assert caught.value.reason is RefusalReason.FUND_PART_DIFFERS


def test_signer_refuses_more_inputs_than_maintenance_may_have() -> None:
    ledger = maintained_ledger([(500_000, T // 2)] * 3 + [(9_000_000, 0)])
    planned = planned_maintenance(ledger)
    record_batch(ledger, planned)
    facts = honest_facts(ledger, CUSTODY)
    narrow = replace(SMALL, batch_max_first_inputs=2, batch_max_inputs=2)
    assert approve_batch(ledger, planned.version.txid, facts, CUSTODY, narrow).txid == planned.version.txid
    for name in ("maintenance_max_first_inputs", "maintenance_max_inputs"):
        with pytest.raises(SigningRefused) as caught:
            approve_batch(ledger, planned.version.txid, facts, CUSTODY, replace(SMALL, **{name: 2}))
        assert caught.value.reason is RefusalReason.TOO_LARGE


def test_replacement_of_maintenance_has_as_many_inputs_as_maintenance_may() -> None:
    ledger = maintained_ledger([(60_000, T // 2), (50_000, 0), (50_000, 0)])
    record_batch(ledger, planned_maintenance(ledger))
    wait(ledger, SMALL.replacement_interval_anchors)
    replaces = only_lineage(ledger).versions[-1].txid
    one = replace(SMALL, batch_max_first_inputs=1, batch_max_inputs=1)
    planned = build_batch(ledger, BatchKind.MAINTENANCE, replaces, 180_000, CUSTODY, one)
    assert planned is not None
    assert len(planned.inputs) == 2
    with pytest.raises(Rejected) as caught:
        build_batch(ledger, BatchKind.MAINTENANCE, replaces, 180_000, CUSTODY, replace(SMALL, maintenance_max_inputs=1))
    assert caught.value.reason is BatchReason.NOT_COVERED


@pytest.mark.parametrize(("ahead", "least_coins"), [(False, 3), (True, 1)])
def test_backlog_is_told_when_it_takes_more_than_half_of_what_the_oldest_has_left(
    ahead: bool, least_coins: int
) -> None:
    params = replace(SMALL, maintenance_max_first_inputs=2)
    batch_anchors = SMALL.confirmations + SMALL.replacement_interval_anchors
    age = T - 4 * batch_anchors + 1
    for count in range(1, 4):
        ledger = maintained_ledger([(300_000, age)] * count + [(100_000, T // 2 - 1)])
        if ahead:
            ledger = maintained_ledger([(300_000, age)] * count + [(1_000_000, SMALL.last_refresh_age)])
            only = planned_maintenance(ledger, replace(params, maintenance_max_first_inputs=1))
            record_batch(ledger, only)
        batches = -(-count // 2) + ahead
        expected = Backlog(count, 300_000 * count, batches * batch_anchors, T - age)
        assert backlog(ledger, params) == (expected if count >= least_coins else None)
