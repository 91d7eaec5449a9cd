"""Maintenance: which coins the reserve moves and when, at whose cost, and that nothing else is maintenance."""

from collections.abc import Sequence
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
from bridge.ledger import Ledger, enter_coin, enter_donation
from bridge.lineages import PlannedBatch, free_fund_sats, record_batch, settle
from bridge.maintenance import Backlog, backlog
from bridge.params import PegParams
from bridge.replacement import STALE_INTERVALS
from bridge.state import BatchKind, Coin
from federation.approval import approve_batch
from federation.refusal import RefusalReason, SigningRefused
from tests.support.ledgers import CHANGE, burn, only_lineage, pending, signed, terms, wait
from tests.support.peg import CUSTODY, PARAMS, POLICY, START_HEIGHT, coin, new_ledger, outpoint, policy
from tests.support.signers import honest_facts

FEERATE = 10_000
T = 400
SMALL = replace(PARAMS, recovery_timelock_blocks=T, change_target_coins=1)
FUND = outpoint(900)


def _ledger(coins: Sequence[tuple[int, int]], fund_sats: int = 200_000) -> Ledger:
    """Coins 0, 1, ... of (value, age in anchors). A young coin that is not free has given the fund what it holds."""
    ledger = new_ledger()
    for number, (value_sats, age) in enumerate(coins):
        enter_coin(ledger, replace(coin(number, value_sats), l1_height=START_HEIGHT - age), 0)
    if fund_sats:
        given = Coin(FUND, fund_sats, CoinKind.DONATION, 0, b"", START_HEIGHT)
        enter_donation(ledger, given)
        ledger.coins.put(FUND, replace(given, lineage=7))
    return ledger


def _build(
    ledger: Ledger, params: PegParams = SMALL, feerate_sat_kvb: int = FEERATE, custody: Custody = CUSTODY
) -> PlannedBatch | None:
    planned = build_batch(ledger, BatchKind.MAINTENANCE, None, feerate_sat_kvb, custody, params)
    if planned is not None:
        assert check_batch(ledger, Batch.of(planned), custody, params) == planned
        assert planned.payees == ()
    return planned


def _planned(ledger: Ledger, params: PegParams = SMALL, feerate_sat_kvb: int = FEERATE) -> PlannedBatch:
    planned = _build(ledger, params, feerate_sat_kvb)
    assert planned is not None
    return planned


def _inputs(planned: PlannedBatch | None) -> list[int]:
    """The numbers of the coins that are moved."""
    numbers = {outpoint(number): number for number in range(100)}
    return [] if planned is None else [numbers[spent] for spent in planned.inputs]


def _outputs(planned: PlannedBatch) -> list[int]:
    return [output.value_sats for output in Transaction.parse(planned.version.transaction).outputs]


# Refresh


def test_refresh_moves_old_coins_to_the_change_script_at_the_funds_cost() -> None:
    ledger = _ledger([(500_000, T // 2), (900_000, 0)])
    planned = _planned(ledger)
    transaction = Transaction.parse(planned.version.transaction)
    cost_sats = fee_sats(signed(ledger, transaction).vsize_vbytes, FEERATE)
    assert _inputs(planned) == [0]
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
    ledger = _ledger([(500_000, T // 2 - 1), (900_000, 0)])
    assert not batch_due(ledger, BatchKind.MAINTENANCE, SMALL)
    assert _build(ledger) is None
    wait(ledger, 1)
    assert batch_due(ledger, BatchKind.MAINTENANCE, SMALL)
    assert _inputs(_planned(ledger)) == [0]


def test_refresh_takes_the_oldest_within_half_of_the_free_value() -> None:
    ages = [(300_000, T // 2), (300_000, T // 2 + 2), (300_000, T // 2 + 1), (300_000, 0)]
    assert _inputs(_planned(_ledger(ages))) == [1, 2]
    large = [(900_000, T // 2 + 2), (300_000, T // 2 + 1), (300_000, T // 2), (200_000, 0)]
    assert _inputs(_planned(_ledger(large))) == [1, 2], "the large one waits, or takes its turn at three quarters"


def test_refresh_takes_what_is_past_three_quarters_whatever_it_holds() -> None:
    ledger = _ledger([(900_000, 3 * T // 4 - 1), (100_000, 0)])
    assert _build(ledger) is None
    wait(ledger, 1)
    assert _inputs(_planned(ledger)) == [0]


def test_refresh_counts_free_coins_only() -> None:
    ledger = _ledger([(500_000, T - 1), (900_000, 0)])
    ledger.coins.put(outpoint(0), replace(coin(0, 500_000), l1_height=START_HEIGHT - T + 1, lineage=5))
    assert not batch_due(ledger, BatchKind.MAINTENANCE, SMALL)
    assert _build(ledger) is None


def test_refresh_takes_an_urgent_first_and_then_no_more_than_half() -> None:
    """Payouts go on meanwhile, for there is time for another batch."""
    urgent = [(300_000, 3 * T // 4 + 2), (300_000, 3 * T // 4 + 1), (300_000, 3 * T // 4), (100_000, 0)]
    assert _inputs(_planned(_ledger(urgent))) == [0]
    assert _inputs(_planned(_ledger([*urgent, (300_000, 0)]))) == [0, 1]


def test_refresh_takes_whatever_has_time_for_two_batches_alone() -> None:
    last = SMALL.last_refresh_age
    assert sorted(_inputs(_planned(_ledger([(300_000, last)] * 4)))) == [0, 1, 2, 3]
    assert len(_inputs(_planned(_ledger([(300_000, last - 1)] * 4)))) == 2


def test_refresh_takes_the_largest_of_those_that_press_and_then_the_oldest() -> None:
    pressing = -(-13 * T // 16)
    ages = [(200_000, pressing + 1), (300_000, pressing), (400_000, pressing - 1), (400_000, pressing - 2)]
    ledger = _ledger([*ages, (9_000_000, 0)])
    assert _inputs(_planned(ledger)) == [1, 0, 2, 3]


def test_refresh_takes_as_many_as_maintenance_may_and_not_as_a_payout() -> None:
    ledger = _ledger([(100_000, T // 2 + number) for number in range(6)] + [(9_000_000, 0)])
    for most, first in ((4, 2), (4, 4), (2, 2)):
        params = replace(SMALL, maintenance_max_first_inputs=most, batch_max_first_inputs=first)
        assert _inputs(_planned(ledger, params)) == [5, 4, 3, 2][:most]


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
    planned = _build(_ledger(coins, fund_sats), feerate_sat_kvb=feerate_sat_kvb)
    taken = 0 if planned is None else len(planned.inputs)
    assert planned is None or planned.version.fee_sats <= fund_sats
    if taken < len(values):
        one_more = replace(SMALL, maintenance_max_first_inputs=taken + 1)
        assert _planned(_ledger(coins, 1_000_000), one_more, feerate_sat_kvb).version.fee_sats > fund_sats


def test_refresh_splits_its_change_while_coins_are_few_and_names_the_newest_epoch() -> None:
    ledger = _ledger([(700_000, T // 2), (900_000, 0)])
    planned = _planned(ledger, replace(SMALL, change_target_coins=5))
    outputs = _outputs(planned)
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
    ledger = _ledger([(30_000, T // 2), (900_000, 0), (40_000, 0), (30_000, 0)])
    assert _inputs(_planned(ledger)) == [0, 3]
    assert _inputs(_planned(ledger, feerate_sat_kvb=100_000)) == [0, 2]
    assert _inputs(_planned(ledger, feerate_sat_kvb=200_000)) == [0, 1]
    alone = _ledger([(30_000, 3 * T // 4)])
    assert _build(alone) is None, "nothing can be done for it"


def test_replacement_of_maintenance_is_refused_when_it_would_leave_nothing() -> None:
    """A transaction has an output. One without could not be signed, settled, or replaced in turn."""
    ledger = _ledger([(60_000, 3 * T // 4)])
    first = _planned(ledger)
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
    two_sats = _planned(_ledger(coins[:2] + coins[3:])).version.fee_sats
    assert _inputs(_build(_ledger(coins, two_sats))) == [0, 1]
    assert _inputs(_build(_ledger(coins, two_sats - 1))) == [0]
    assert _build(_ledger(coins, 1_000)) is None
    capped = replace(SMALL, lineage_fee_cap_sats=two_sats)
    assert _inputs(_build(_ledger(coins), capped)) == [0, 1]


def test_fund_that_another_lineage_reserves_is_not_spent() -> None:
    ledger = _ledger([(500_000, T // 2), (900_000, 0), (900_000, 0)], 60_000)
    burn(ledger, 100, 900_000, max_fee_sats=2_500)
    cost_sats = _planned(ledger).version.fee_sats
    one = replace(SMALL, batch_min_payouts=1)
    payout = build_batch(ledger, BatchKind.PAYOUT, None, FEERATE, CUSTODY, one)
    assert payout is not None
    spent_sats = 60_000 - cost_sats
    record_batch(ledger, replace(payout, version=replace(payout.version, fund_part_sats=spent_sats)))
    assert _planned(Ledger(ledger)).version.fund_part_sats == cost_sats
    number = only_lineage(ledger).number
    ledger.open_lineages.put(number, replace(only_lineage(ledger), reserved_fund_sats=spent_sats + 1))
    assert _build(ledger) is None


# The urgent refresh


def test_urgent_refresh_spends_the_fund_to_zero_and_books_the_rest_as_deficit() -> None:
    ledger = _ledger([(500_000, 3 * T // 4), (900_000, 0)], 500)
    ledger.coins.put(FUND, Coin(FUND, 500, CoinKind.DONATION, 0, b"", START_HEIGHT, lineage=7))
    planned = _planned(ledger)
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
    ledger = _ledger([(500_000, 3 * T // 4), (900_000, 0)], 0)
    fee = _planned(ledger).version.fee_sats
    assert _build(ledger, replace(SMALL, maintenance_deficit_cap_sats=fee)) is not None
    assert _build(ledger, replace(SMALL, maintenance_deficit_cap_sats=fee - 1)) is None


def _owing(ledger: Ledger, deficit_sats: int) -> Ledger:
    """With a deficit that is open already."""
    ledger.totals = ledger.totals.plus(deficit_sats=deficit_sats, supply_sats=deficit_sats)
    ledger.totals.require_equality()
    return ledger


def test_urgent_refreshes_together_book_no_more_than_the_cap() -> None:
    coins = [(500_000, 3 * T // 4), (900_000, 0)]
    fee = _planned(_ledger(coins, 0)).version.fee_sats
    room_sats = SMALL.maintenance_deficit_cap_sats - fee
    assert _inputs(_planned(_owing(_ledger(coins, 0), room_sats))) == [0]
    assert _build(_owing(_ledger(coins, 0), room_sats + 1)) is None
    assert _build(_owing(_ledger(coins, 0), 2 * SMALL.maintenance_deficit_cap_sats)) is None


def test_coin_that_can_not_wait_longer_is_moved_whatever_is_owed_already() -> None:
    """Custody comes before bookkeeping: beyond this age no sum of deficits, only the cap of one batch, holds it up."""
    ages = [(500_000, 13 * T // 16 - 1), (400_000, 13 * T // 16 - 2), (900_000, 0)]
    ledger = _owing(_ledger(ages, 0), 2 * SMALL.maintenance_deficit_cap_sats)
    assert _build(ledger) is None
    wait(ledger, 1)
    planned = _planned(ledger)
    assert _inputs(planned) == [0], "the other can wait"
    assert _build(ledger, replace(SMALL, maintenance_deficit_cap_sats=planned.version.fee_sats - 1)) is None
    wait(ledger, 1)
    assert _inputs(_planned(ledger)) == [0, 1]


def test_replacement_of_an_urgent_refresh_keeps_the_sum_of_deficits_within_the_cap() -> None:
    cap_sats = SMALL.maintenance_deficit_cap_sats
    for age, short in ((3 * T // 4, False), (13 * T // 16, True)):
        ledger = _ledger([(500_000, age), (900_000, 0)], 0)
        first = _planned(ledger, feerate_sat_kvb=5_000)
        record_batch(ledger, first)
        _owing(ledger, cap_sats - first.version.fee_sats)
        wait(ledger, STALE_INTERVALS * SMALL.replacement_interval_anchors)
        batches = propose_batches(ledger, 20_000, (), CUSTODY, SMALL)
        assert [planned.version.fund_part_sats for planned in batches] == ([0] if short else [])


def test_deficit_is_booked_for_urgent_coins_alone() -> None:
    ledger = _ledger([(200_000, 3 * T // 4), (200_000, T // 2), (900_000, 0)], 0)
    assert _inputs(_planned(ledger)) == [0]
    assert _inputs(_build(_ledger([(200_000, 3 * T // 4 - 1), (900_000, 0)], 0))) == []


@pytest.mark.parametrize(
    ("age", "order"),
    [
        (T // 2, [BatchKind.PAYOUT, BatchKind.MAINTENANCE]),
        (3 * T // 4, [BatchKind.MAINTENANCE, BatchKind.PAYOUT]),
    ],
)
def test_payouts_come_before_maintenance_unless_it_is_urgent(age: int, order: list[BatchKind]) -> None:
    ledger = _ledger([(300_000, age), (500_000, 0), (400_000, 0)])
    burn(ledger, 100, 400_000, max_fee_sats=20_000)
    batches = propose_batches(ledger, FEERATE, (), CUSTODY, replace(SMALL, batch_min_payouts=1))
    assert [planned.kind for planned in batches] == order
    assert not set(batches[0].inputs) & set(batches[1].inputs)


# Merging

MERGING = replace(SMALL, batch_max_first_inputs=3, batch_max_inputs=5)


def _crumbs(burned_sats: int, values: Sequence[int] = (500_000, 400_000, 300_000, 200_000, 100_000, 90_000)) -> Ledger:
    ledger = _ledger([(value_sats, 0) for value_sats in values])
    ledger.coins.delete(FUND)
    burn(ledger, 100, burned_sats, max_fee_sats=20_000)
    return ledger


def test_merging_is_due_when_the_largest_coins_can_not_cover_a_burn() -> None:
    assert not batch_due(_crumbs(1_200_000), BatchKind.MAINTENANCE, MERGING)
    ledger = _crumbs(1_200_001)
    assert batch_due(ledger, BatchKind.MAINTENANCE, MERGING)
    planned = _planned(ledger, MERGING)
    assert _inputs(planned) == [2, 3, 4], "the least that a payout would take, and those after it"
    assert _outputs(planned) == [600_000 - planned.version.fee_sats]
    assert planned.version.fund_part_sats == planned.version.fee_sats


def test_merging_counts_locked_coins_as_covering_and_moves_none_of_them() -> None:
    ledger = _crumbs(1_200_000)
    for number in (0, 1):
        ledger.coins.put(outpoint(number), replace(coin(number, 500_000 - 100_000 * number), lineage=5))
    assert _build(ledger, MERGING) is None
    ledger = _crumbs(1_200_001)
    ledger.coins.put(outpoint(3), replace(coin(3, 200_000), lineage=5))
    assert _inputs(_planned(ledger, MERGING)) == [2, 4, 5]


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
    assert _inputs(_build(_crumbs(1_200_001, crumb), MERGING)) == [2, 3]
    assert _build(_crumbs(1_200_001, crumb), MERGING, 100_000) is None, "the fee is more than the crumb"
    poor = replace(MERGING, lineage_fee_cap_sats=3_000)
    assert _inputs(_build(_crumbs(1_200_001), poor, 10_000)) == []
    assert _inputs(_build(_crumbs(1_200_001), poor, 7_000)) == [2, 3]


def test_refresh_comes_before_merging() -> None:
    ledger = _crumbs(1_200_001)
    ledger.coins.put(outpoint(5), replace(coin(5, 90_000), l1_height=START_HEIGHT - T // 2))
    assert _inputs(_planned(ledger, MERGING)) == [5]


# Refusals, replacement and signing


def test_maintenance_that_is_not_due_or_is_open_or_other_is_refused() -> None:
    ledger = _ledger([(500_000, T // 2), (900_000, 0)])
    batch = Batch.of(_planned(ledger))
    wrong = replace(Transaction.parse(batch.transaction), outputs=())
    young = _ledger([(500_000, 0), (900_000, 0)])
    recorded = Ledger(ledger)
    record_batch(recorded, _planned(ledger))
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
    ledger = _ledger([(500_000, T // 2), (900_000, 0)])
    record_batch(ledger, _planned(ledger))
    wait(ledger, STALE_INTERVALS * SMALL.replacement_interval_anchors)
    [planned] = propose_batches(ledger, 2 * FEERATE, (), CUSTODY, SMALL)
    assert (planned.kind, planned.replaces) == (BatchKind.MAINTENANCE, only_lineage(ledger).versions[0].txid)
    assert planned.version.fund_part_sats == planned.version.fee_sats
    assert record_batch(ledger, planned).reserved_fund_sats == planned.version.fee_sats
    settle(ledger, planned.version.txid, START_HEIGHT)
    assert ledger.totals.deficit_sats == 0


def test_replacement_of_an_urgent_refresh_may_be_short_and_of_another_may_not() -> None:
    for age in (3 * T // 4, T // 2):
        ledger = _ledger([(500_000, age), (900_000, 0)], 2_000)
        ledger.coins.put(FUND, Coin(FUND, 2_000, CoinKind.DONATION, 0, b"", START_HEIGHT, lineage=7))
        record_batch(ledger, _planned(ledger, feerate_sat_kvb=5_000))
        wait(ledger, STALE_INTERVALS * SMALL.replacement_interval_anchors)
        batches = propose_batches(ledger, 20_000, (), CUSTODY, SMALL)
        shorts = [planned.version.fee_sats - planned.version.fund_part_sats for planned in batches]
        assert [short > 0 for short in shorts] == ([True] if age > T // 2 else [False])
        assert age > T // 2 or batches[0].version.feerate_sat_kvb < 20_000, "the least step, which the fund can bear"


def test_signer_approves_maintenance_and_a_deficit_within_its_cap() -> None:
    ledger = _ledger([(500_000, 3 * T // 4), (900_000, 0)], 0)
    planned = _planned(ledger)
    record_batch(ledger, planned)
    facts = honest_facts(ledger, CUSTODY)
    assert approve_batch(ledger, planned.version.txid, facts, CUSTODY, SMALL).txid == planned.version.txid
    capped = replace(SMALL, maintenance_deficit_cap_sats=planned.version.fee_sats - 1)
    with pytest.raises(SigningRefused) as caught:
        approve_batch(ledger, planned.version.txid, facts, CUSTODY, capped)
    assert caught.value.reason is RefusalReason.FUND_PART_DIFFERS


def test_signer_refuses_more_inputs_than_maintenance_may_have() -> None:
    ledger = _ledger([(500_000, T // 2)] * 3 + [(9_000_000, 0)])
    planned = _planned(ledger)
    record_batch(ledger, planned)
    facts = honest_facts(ledger, CUSTODY)
    narrow = replace(SMALL, batch_max_first_inputs=2, batch_max_inputs=2)
    assert approve_batch(ledger, planned.version.txid, facts, CUSTODY, narrow).txid == planned.version.txid
    for name in ("maintenance_max_first_inputs", "maintenance_max_inputs"):
        with pytest.raises(SigningRefused) as caught:
            approve_batch(ledger, planned.version.txid, facts, CUSTODY, replace(SMALL, **{name: 2}))
        assert caught.value.reason is RefusalReason.TOO_LARGE


def test_replacement_of_maintenance_has_as_many_inputs_as_maintenance_may() -> None:
    ledger = _ledger([(60_000, T // 2), (50_000, 0), (50_000, 0)])
    record_batch(ledger, _planned(ledger))
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
        ledger = _ledger([(300_000, age)] * count + [(100_000, T // 2 - 1)])
        if ahead:
            ledger = _ledger([(300_000, age)] * count + [(1_000_000, SMALL.last_refresh_age)])
            only = _planned(ledger, replace(params, maintenance_max_first_inputs=1))
            record_batch(ledger, only)
        batches = -(-count // 2) + ahead
        expected = Backlog(count, 300_000 * count, batches * batch_anchors, T - age)
        assert backlog(ledger, params) == (expected if count >= least_coins else None)
