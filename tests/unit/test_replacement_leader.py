"""What a leader replaces and when; and that whatever leaders propose conflicts, pays all and costs nobody too much."""

from dataclasses import replace
from itertools import accumulate, pairwise

from hypothesis import given
from hypothesis import strategies as st

from bridge.batch import build_batch, propose_batches
from bridge.bitcoin.amounts import fee_sats
from bridge.custody import CoinKind
from bridge.ledger import Ledger, enter_donation
from bridge.lineages import open_lineage, record_batch, settle
from bridge.params import PegParams
from bridge.replacement import STALE_INTERVALS, is_least_step
from bridge.state import BatchKind
from tests.support.ledgers import (
    ledger_of,
    only_lineage,
    pending,
    signed,
    wait,
)
from tests.support.peg import CUSTODY, START_HEIGHT, coin, outpoint
from tests.support.replacements import (
    FEERATE,
    INTERVAL,
    ONE,
    bump,
    newest_version,
    open_payout,
    record,
    transactions_of,
)


def _proposed(ledger: Ledger, estimate_sat_kvb: int, params: PegParams = ONE) -> int | None:
    """The feerate of the replacement that a leader with this estimate proposes."""
    batches = propose_batches(ledger, estimate_sat_kvb, (), CUSTODY, params)
    return batches[0].version.feerate_sat_kvb if batches else None


def test_leader_replaces_nothing_that_its_node_sees_confirmed() -> None:
    ledger = open_payout()
    first = newest_version(ledger)
    assert propose_batches(ledger, 30_000, (), CUSTODY, ONE)
    assert not propose_batches(ledger, 30_000, {first}, CUSTODY, ONE)
    bump(ledger)
    wait(ledger, INTERVAL)
    assert not propose_batches(ledger, 90_000, {first}, CUSTODY, ONE)


def test_leader_follows_an_estimate_that_is_well_above() -> None:
    ledger = open_payout(burns=[(500_000, 20_000)])
    wanted = [
        _proposed(ledger, estimate) for estimate in (1_000, FEERATE * 5 // 4 - 1, FEERATE * 5 // 4, 30_000, 10_000_000)
    ]
    assert wanted == [None, None, 12_500, 30_000, 11_000], "the last costs more than the payee bears and the fund has"


def test_leader_takes_the_least_step_when_the_estimate_costs_too_much() -> None:
    ledger = open_payout(burns=[(500_000, 2_500)], donated_sats=60_000)
    params = replace(ONE, lineage_fee_cap_sats=1_000)
    feerate = _proposed(ledger, 100_000, params)
    assert feerate is not None
    assert FEERATE + 1_000 <= feerate <= FEERATE + 1_010
    bump(ledger, feerate, params)
    assert is_least_step(ledger, BatchKind.PAYOUT, CUSTODY)


def test_leader_raises_what_has_waited_long_by_the_least_step_whatever_the_estimate() -> None:
    ledger = open_payout()
    wait(ledger, (STALE_INTERVALS - 1) * INTERVAL - 1)
    assert _proposed(ledger, 1_000, ONE) is None
    wait(ledger, 1)
    feerate = _proposed(ledger, 1_000, ONE)
    assert feerate is not None
    assert FEERATE + 1_000 <= feerate <= FEERATE + 1_010
    bump(ledger, feerate)
    assert is_least_step(ledger, BatchKind.PAYOUT, CUSTODY)


def test_leader_replaces_nothing_that_can_not_be_replaced() -> None:
    ledger = ledger_of([1_000_000], [(500_000, 20_000)])
    record(ledger, None, FEERATE)
    assert _proposed(ledger, 50_000, ONE) is None
    wait(ledger, INTERVAL)
    low = replace(ONE, feerate_ceiling_sat_kvb=FEERATE)
    assert _proposed(ledger, 50_000, low) is None
    poor = open_payout(burns=[(500_000, 2_400)])
    assert _proposed(poor, 50_000, ONE) is None


def test_leader_proposes_no_step_that_it_would_not_vote_for_itself() -> None:
    """The step leaves one part of change where two were, so it must be higher; then a coin is added for it, and the
    size is above what the step was for. Such a block would be held back with all else that it says about L1.
    """
    params = replace(ONE, coin_floor_sats=1_000, min_deposit_sats=2_000, change_target_coins=50)
    burned_sats, first_fee_sats = 21 * 100_000 - 4_020, 4_649
    ledger = ledger_of([100_000] * 21 + [20_000], [(burned_sats, first_fee_sats)])
    enter_donation(ledger, coin(50, 400_000, CoinKind.DONATION))
    ledger.coins.put(outpoint(50), replace(coin(50, 400_000, CoinKind.DONATION), lineage=7))
    first = record(ledger, None, 1_500, params)
    assert (first.version.fee_sats, len(transactions_of(only_lineage(ledger))[0].outputs)) == (first_fee_sats, 3)
    wait(ledger, STALE_INTERVALS * INTERVAL)
    assert _proposed(ledger, 1_000, params) is None
    assert _proposed(ledger, 3_000, params) == 3_000


def test_least_step_is_no_more_than_that() -> None:
    ledger = open_payout()
    assert not is_least_step(ledger, BatchKind.PAYOUT, CUSTODY)
    bump(ledger, FEERATE + 1_100)
    assert not is_least_step(ledger, BatchKind.PAYOUT, CUSTODY)
    assert not is_least_step(ledger, BatchKind.MAINTENANCE, CUSTODY)


@given(
    coins_sats=st.lists(st.integers(min_value=30_000, max_value=900_000), min_size=1, max_size=8),
    burns=st.lists(
        st.tuples(st.integers(min_value=110_000, max_value=600_000), st.sampled_from([1_000, 3_000, 100_000])),
        min_size=1,
        max_size=5,
    ),
    donated_sats=st.sampled_from([0, 30_000, 200_000]),
    feerates=st.lists(st.integers(min_value=1_000, max_value=60_000), min_size=2, max_size=5),
)
def test_versions_conflict_pay_all_and_cost_nobody_more_than_allowed(
    coins_sats: list[int], burns: list[tuple[int, int]], donated_sats: int, feerates: list[int]
) -> None:
    sums = accumulate(value_sats for value_sats, _ in burns)
    ledger = ledger_of(coins_sats, [one for one, total in zip(burns, sums, strict=True) if total <= sum(coins_sats)])
    if donated_sats:
        enter_donation(ledger, coin(50, donated_sats, CoinKind.DONATION))
    params = replace(ONE, change_target_coins=4, batch_max_first_inputs=3, batch_max_inputs=5)
    first = build_batch(ledger, BatchKind.PAYOUT, None, feerates[0], CUSTODY, params)
    if first is None:
        return
    record_batch(ledger, first)
    for estimate in feerates[1:]:
        wait(ledger, STALE_INTERVALS * INTERVAL)
        feerate = _proposed(ledger, estimate, params)
        if feerate is None:
            continue
        record(ledger, newest_version(ledger), feerate, params)
        assert is_least_step(ledger, BatchKind.PAYOUT, CUSTODY) or feerate == estimate
    _require_one_payment(ledger, params)
    lineage = only_lineage(ledger)
    settle(ledger, lineage.versions[len(feerates) % len(lineage.versions)].txid, START_HEIGHT)
    assert open_lineage(ledger, BatchKind.PAYOUT) is None


def _require_one_payment(ledger: Ledger, params: PegParams) -> None:
    """All versions conflict, pay the same payees within their bounds, and rise as L1's nodes ask."""
    lineage = only_lineage(ledger)
    owed = {entry.burn: entry for entry in pending(ledger)}
    steps = []
    for version, transaction in zip(lineage.versions, transactions_of(lineage), strict=True):
        size_vbytes = signed(ledger, transaction).vsize_vbytes
        outputs = transaction.outputs
        for burn, output in zip(lineage.payees, outputs, strict=False):
            assert output.script == owed[burn].l1_script
            assert 0 <= owed[burn].value_sats - output.value_sats <= owed[burn].max_fee_sats
        assert all(output.value_sats >= params.coin_floor_sats for output in outputs[len(lineage.payees) :])
        assert version.fee_sats >= fee_sats(size_vbytes, version.feerate_sat_kvb)
        assert version.fund_part_sats <= min(params.lineage_fee_cap_sats, ledger.totals.fund_sats)
        steps.append(({txin.outpoint for txin in transaction.inputs}, version.fee_sats, size_vbytes))
    for (old_inputs, old_sats, old_vbytes), (inputs, sats, vbytes) in pairwise(steps):
        assert old_inputs <= inputs
        assert sats >= old_sats + vbytes
        assert sats * old_vbytes > old_sats * vbytes
    assert len(steps[-1][0]) <= params.batch_max_inputs
