"""Replacement: whom the next version pays, from which coins, at whose cost, when; and what replaces none."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.batch import Batch, batch_due, build_batch, check_batch, propose_batches
from bridge.batch_form import BatchReason
from bridge.bitcoin.amounts import fee_sats
from bridge.bitcoin.identifiers import Txid
from bridge.bitcoin.transaction import Transaction
from bridge.custody import CoinKind
from bridge.errors import Reason, Rejected
from bridge.ledger import Ledger, enter_donation
from bridge.lineages import MAX_VERSIONS, PlannedBatch, free_fund_sats, open_lineage, record_batch, settle
from bridge.params import PegParams
from bridge.replacement import STALE_INTERVALS, is_least_step, replacement_due
from bridge.state import BatchKind, LedgerReason, Lineage, WithdrawalStatus
from tests.support.ledgers import (
    ledger_of,
    only_lineage,
    pending,
    signed,
    snapshot,
    terms,
    wait,
)
from tests.support.peg import CUSTODY, PARAMS, START_HEIGHT, coin, outpoint, p2wpkh

FEERATE = 10_000
INTERVAL = PARAMS.replacement_interval_anchors
ONE = replace(PARAMS, batch_min_payouts=1, change_target_coins=1)
"""A single burn is due, and change is one output."""


def _record(ledger: Ledger, replaces: Txid | None, feerate_sat_kvb: int, params: PegParams = ONE) -> PlannedBatch:
    """Record the batch that the ledger makes at this feerate, having seen that it is the valid one."""
    planned = build_batch(ledger, BatchKind.PAYOUT, replaces, feerate_sat_kvb, CUSTODY, params)
    assert planned is not None
    assert check_batch(ledger, Batch.of(planned), CUSTODY, params) == planned
    record_batch(ledger, planned)
    return planned


def _open(
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
    _record(ledger, None, FEERATE, params)
    wait(ledger, INTERVAL)
    return ledger


def _newest(ledger: Ledger) -> Txid:
    return only_lineage(ledger).versions[-1].txid


def _bump(ledger: Ledger, feerate_sat_kvb: int = 2 * FEERATE, params: PegParams = ONE) -> PlannedBatch:
    return _record(ledger, _newest(ledger), feerate_sat_kvb, params)


def _transaction(planned: PlannedBatch) -> Transaction:
    return Transaction.parse(planned.version.transaction)


def _versions(lineage: Lineage) -> list[Transaction]:
    return [Transaction.parse(version.transaction) for version in lineage.versions]


def _proposed(ledger: Ledger, estimate_sat_kvb: int, params: PegParams = ONE) -> int | None:
    """The feerate of the replacement that a leader with this estimate proposes."""
    batches = propose_batches(ledger, estimate_sat_kvb, (), CUSTODY, params)
    return batches[0].version.feerate_sat_kvb if batches else None


def _refused(
    ledger: Ledger, feerate_sat_kvb: int = 2 * FEERATE, *, replaces: Txid | None = None, params: PegParams = ONE
) -> Reason:
    """Why the newest version, or `replaces`, can't be replaced at this feerate."""
    before = snapshot(ledger)
    target = _newest(ledger) if replaces is None else replaces
    with pytest.raises(Rejected) as caught:
        check_batch(ledger, Batch(BatchKind.PAYOUT, target, feerate_sat_kvb, b""), CUSTODY, params)
    assert snapshot(ledger) == before
    return caught.value.reason


# What it is


def test_replacement_spends_the_same_coins_and_pays_the_same_payees_at_the_new_feerate() -> None:
    ledger = _open(burns=[(200_000, 20_000), (300_000, 20_000)])
    (old,) = _versions(only_lineage(ledger))
    planned = _bump(ledger)
    new = _transaction(planned)
    assert [txin.outpoint for txin in new.inputs] == [txin.outpoint for txin in old.inputs]
    assert [output.script for output in new.outputs] == [output.script for output in old.outputs]
    assert planned.payees == (outpoint(100), outpoint(101))
    asked_sats = fee_sats(signed(ledger, new).vsize_vbytes, 2 * FEERATE)
    share_sats = -(-asked_sats // 2)
    assert [output.value_sats for output in new.outputs] == [200_000 - share_sats, 300_000 - share_sats, 500_000]
    assert (planned.version.fee_sats, planned.version.fund_part_sats) == (2 * share_sats, 0)
    assert (planned.replaces, planned.version.anchor_height) == (old.txid, START_HEIGHT + INTERVAL)


def test_replacement_leaves_what_a_payee_does_not_bear_to_the_fund() -> None:
    ledger = _open(burns=[(200_000, 1_400), (300_000, 20_000)], donated_sats=60_000)
    planned = _bump(ledger)
    new = _transaction(planned)
    share_sats = -(-fee_sats(signed(ledger, new).vsize_vbytes, 2 * FEERATE) // 2)
    assert share_sats > 1_400
    fund_sats = planned.version.fund_part_sats
    assert (
        planned.version.fee_sats
        == 1_400 + share_sats + fund_sats
        == fee_sats(signed(ledger, new).vsize_vbytes, 2 * FEERATE)
    )
    assert [output.value_sats for output in new.outputs] == [198_600, 300_000 - share_sats, 500_000 - fund_sats]
    assert free_fund_sats(ledger) == 60_000 - fund_sats
    before = terms(ledger)
    settle(ledger, planned.version.txid, START_HEIGHT)
    assert terms(ledger) == (before[0] - 500_000 - fund_sats, 0, before[2], 0, 60_000 - fund_sats)


def test_replacement_adds_free_coins_from_the_largest_where_the_fund_has_no_change_to_pay_from() -> None:
    ledger = _open([500_000, 40_000, 90_000, 70_000], [(500_000, 2_000)], donated_sats=60_000)
    assert len(only_lineage(ledger).versions[0].transaction) < 90, "one input, one output"
    planned = _bump(ledger)
    assert planned.inputs == (outpoint(0), outpoint(2))
    assert [output.value_sats for output in _transaction(planned).outputs] == [
        498_000, 90_000 - planned.version.fund_part_sats,
    ]  # fmt: skip
    locked = {held for held, entry in ledger.coins.items() if entry.lineage == 0}
    assert locked == set(planned.inputs) == set(only_lineage(ledger).inputs)


def test_replacement_gives_what_is_too_little_for_change_to_the_fee() -> None:
    ledger = _open([520_000], [(500_000, 2_000)], donated_sats=50_000)
    assert only_lineage(ledger).versions[0].fund_part_sats == 20_000
    assert _refused(ledger) is BatchReason.STEP_NOT_MET, "all of it is in the first version's fee"
    enter_donation(ledger, coin(51, 90_000, CoinKind.DONATION))
    assert _refused(ledger) is BatchReason.STEP_NOT_MET
    planned = _bump(ledger, 130_000)
    assert planned.inputs == (outpoint(0), outpoint(51))


def test_change_that_bears_a_fee_is_cut_in_fewer_parts() -> None:
    params = replace(ONE, change_target_coins=8)
    ledger = _open([700_000], [(500_000, 3_000)], donated_sats=60_000, params=params)
    assert len(_versions(only_lineage(ledger))[0].outputs) == 3
    planned = _bump(ledger, params=params)
    assert [output.value_sats for output in _transaction(planned).outputs[1:]] == [
        200_000 - planned.version.fund_part_sats
    ]


def test_every_version_pays_and_any_one_of_them_settles() -> None:
    for settling in range(3):
        ledger = _open([500_000, 90_000, 40_000], [(500_000, 2_000)], donated_sats=60_000)
        for step in (2, 3):
            wait(ledger, INTERVAL)
            _bump(ledger, step * FEERATE)
        lineage = only_lineage(ledger)
        versions = _versions(lineage)
        inputs = [{txin.outpoint for txin in version.inputs} for version in versions]
        assert inputs[0] < inputs[1] <= inputs[2]
        assert lineage.reserved_fund_sats == max(version.fund_part_sats for version in lineage.versions) > 0
        before = terms(ledger)
        closed = settle(ledger, versions[settling].txid, START_HEIGHT)
        part_sats = lineage.versions[settling].fund_part_sats
        assert terms(ledger) == (before[0] - 500_000 - part_sats, 0, before[2], 0, 60_000 - part_sats)
        assert free_fund_sats(ledger) == 60_000 - part_sats
        assert {held for held, entry in ledger.coins.items() if entry.lineage is not None} == {outpoint(50)}
        assert not inputs[settling] & {held for held, _ in ledger.coins.items()}
        assert inputs[2] - inputs[settling] <= {held for held, _ in ledger.coins.items()}
        withdrawal = ledger.closed_withdrawals.get(outpoint(100))
        assert withdrawal is not None
        assert (withdrawal.status, withdrawal.payout) == (
            WithdrawalStatus.SETTLED, versions[settling].outpoint(0),
        )  # fmt: skip
        for other in versions:
            with pytest.raises(Rejected) as caught:
                settle(ledger, other.txid, START_HEIGHT)
            assert caught.value.reason is LedgerReason.ALREADY_SETTLED
        assert closed.settled_by == versions[settling].txid


# When a version may be replaced


def test_replacement_names_the_newest_version() -> None:
    ledger = _open()
    first = _newest(ledger)
    _bump(ledger)
    wait(ledger, INTERVAL)
    assert _refused(ledger, 3 * FEERATE, replaces=first) is BatchReason.NOT_NEWEST
    assert _refused(ledger, 3 * FEERATE, replaces=Txid(bytes(32))) is BatchReason.NOT_NEWEST


def test_replacement_of_a_settled_lineage_is_refused_whether_another_is_open_or_not() -> None:
    ledger = _open(burns=[(100_000, 20_000), (100_000, 20_000)], params=replace(ONE, batch_max_payees=1))
    first = _newest(ledger)
    settle(ledger, first, START_HEIGHT)
    assert _refused(ledger, replaces=first) is BatchReason.LINEAGE_CLOSED
    _record(ledger, None, FEERATE)
    wait(ledger, INTERVAL)
    assert _refused(ledger, replaces=first) is BatchReason.LINEAGE_CLOSED


def test_replacement_without_an_open_lineage_is_refused() -> None:
    ledger = ledger_of([1_000_000], [(500_000, 20_000)])
    assert _refused(ledger, replaces=Txid(bytes(32))) is BatchReason.NO_OPEN_LINEAGE


def test_replacement_before_its_interval_is_refused() -> None:
    ledger = ledger_of([1_000_000], [(500_000, 20_000)])
    _record(ledger, None, FEERATE)
    wait(ledger, INTERVAL - 1)
    assert not replacement_due(ledger, BatchKind.PAYOUT, ONE)
    assert _refused(ledger) is BatchReason.TOO_EARLY
    wait(ledger, 1)
    assert replacement_due(ledger, BatchKind.PAYOUT, ONE)
    assert batch_due(ledger, BatchKind.PAYOUT, ONE)
    _bump(ledger)
    assert _refused(ledger, 3 * FEERATE) is BatchReason.TOO_EARLY


def test_replacement_in_a_full_lineage_is_refused() -> None:
    ledger = _open(burns=[(500_000, 100_000)])
    for step in range(1, MAX_VERSIONS):
        _bump(ledger, FEERATE + 2_000 * step)
        wait(ledger, INTERVAL)
    assert len(only_lineage(ledger).versions) == MAX_VERSIONS
    assert _refused(ledger, 200_000) is BatchReason.TOO_MANY_VERSIONS
    assert not replacement_due(ledger, BatchKind.PAYOUT, ONE)
    assert _proposed(ledger, 200_000, ONE) is None


# What it may cost


def test_replacement_below_the_step_is_refused() -> None:
    ledger = _open(burns=[(200_000, 20_000), (300_000, 20_000)])
    old = only_lineage(ledger).versions[0]
    size_vbytes = signed(ledger, Transaction.parse(old.transaction)).vsize_vbytes
    least_sat_kvb = -(-(old.fee_sats + size_vbytes) * 1000 // size_vbytes)
    assert FEERATE + 1_000 <= least_sat_kvb <= FEERATE + 1_010
    assert _refused(ledger, least_sat_kvb - 10) is BatchReason.STEP_NOT_MET
    assert _refused(ledger, FEERATE) is BatchReason.STEP_NOT_MET
    planned = _bump(ledger, least_sat_kvb)
    assert planned.version.fee_sats >= old.fee_sats + size_vbytes
    assert is_least_step(ledger, BatchKind.PAYOUT, CUSTODY)


def test_replacement_of_lower_feerate_is_refused_though_its_fee_is_higher() -> None:
    # Further inputs make it pay more in all, and less for each byte.
    ledger = _open([500_000] + [30_000] * 4, [(500_000, 2_000)], donated_sats=900_000)
    old = only_lineage(ledger).versions[0]
    trial = Ledger(ledger)
    planned = _bump(trial, 11_500)
    assert len(planned.inputs) == 3
    size_vbytes = signed(trial, _transaction(planned)).vsize_vbytes
    assert fee_sats(size_vbytes, FEERATE - 100) > old.fee_sats + size_vbytes
    assert _refused(ledger, FEERATE - 100) is BatchReason.STEP_NOT_MET


def test_replacement_out_of_the_feerates_range_is_refused() -> None:
    ledger = _open(burns=[(500_000, 90_000)])
    assert _refused(ledger, ONE.feerate_ceiling_sat_kvb + 1) is BatchReason.FEERATE_ABOVE_CEILING
    assert _refused(ledger, ONE.feerate_floor_sat_kvb - 1) is BatchReason.FEERATE_BELOW_FLOOR
    _bump(ledger, ONE.feerate_ceiling_sat_kvb)


def test_replacement_over_the_cap_of_a_lineage_or_the_free_fund_is_refused() -> None:
    ledger = _open(burns=[(500_000, 2_500)], donated_sats=60_000)
    cost_sats = _bump(Ledger(ledger), 3 * FEERATE).version.fund_part_sats
    assert _refused(ledger, 3 * FEERATE, params=replace(ONE, lineage_fee_cap_sats=cost_sats - 1)) is (
        BatchReason.OVER_FUND
    )
    poor = _open(burns=[(500_000, 2_500)])
    assert _refused(poor, 3 * FEERATE) is BatchReason.OVER_FUND
    enter_donation(poor, coin(51, cost_sats - 1, CoinKind.DONATION))
    assert _refused(poor, 3 * FEERATE) is BatchReason.OVER_FUND
    enter_donation(poor, coin(52, 1, CoinKind.DONATION))
    _bump(poor, 3 * FEERATE)


def test_replacement_may_take_what_its_own_lineage_has_reserved() -> None:
    ledger = _open(burns=[(500_000, 2_500)], donated_sats=60_000)
    first_sats = _bump(ledger, 3 * FEERATE).version.fund_part_sats
    wait(ledger, INTERVAL)
    params = replace(ONE, lineage_fee_cap_sats=60_000)
    taken_sats = _bump(ledger, 100_000, params).version.fund_part_sats
    assert first_sats < taken_sats
    assert only_lineage(ledger).reserved_fund_sats == taken_sats
    assert free_fund_sats(ledger) == 60_000 - taken_sats


def test_replacement_that_would_need_more_inputs_than_allowed_is_refused() -> None:
    ledger = _open([500_000, 90_000], [(500_000, 2_000)], donated_sats=60_000)
    params = replace(ONE, batch_max_first_inputs=1, batch_max_inputs=1)
    assert _refused(ledger, params=params) is BatchReason.NOT_COVERED
    assert len(_bump(ledger, params=replace(params, batch_max_inputs=2)).inputs) == 2


def test_replacement_without_coins_to_pay_from_is_refused() -> None:
    ledger = _open([500_000], [(500_000, 2_000)], donated_sats=60_000)
    assert _refused(ledger) is BatchReason.NOT_COVERED


# That nothing else is a replacement


def test_replacement_by_any_other_transaction_is_refused() -> None:
    ledger = _open([300_000, 300_000, 90_000], [(200_000, 20_000), (300_000, 20_000)])
    planned = build_batch(ledger, BatchKind.PAYOUT, _newest(ledger), 2 * FEERATE, CUSTODY, ONE)
    assert planned is not None
    batch, right = Batch.of(planned), _transaction(planned)
    paid, change = right.outputs[:2], right.outputs[2:]
    others = {
        "payee dropped": replace(right, outputs=(paid[0], *change)),
        "payee added": replace(right, outputs=(*paid, replace(paid[0], script=p2wpkh("mallory")), *change)),
        "payees reordered": replace(right, outputs=(paid[1], paid[0], *change)),
        "input dropped": replace(right, inputs=right.inputs[:1]),
        "inputs reordered": replace(right, inputs=right.inputs[::-1]),
        "input added": replace(right, inputs=(*right.inputs, replace(right.inputs[0], outpoint=outpoint(2)))),
        "input exchanged": replace(right, inputs=(right.inputs[0], replace(right.inputs[1], outpoint=outpoint(2)))),
        "no change": replace(right, outputs=paid),
    }
    for name, transaction in others.items():
        with pytest.raises(Rejected) as caught:
            check_batch(ledger, replace(batch, transaction=transaction.serialize()), CUSTODY, ONE)
        assert caught.value.reason is BatchReason.TRANSACTION_DIFFERS, name


def test_first_version_while_one_is_open_is_refused() -> None:
    ledger = _open(burns=[(100_000, 20_000), (100_000, 20_000)], params=replace(ONE, batch_max_payees=1))
    with pytest.raises(Rejected) as caught:
        check_batch(ledger, Batch(BatchKind.PAYOUT, None, FEERATE, b""), CUSTODY, ONE)
    assert caught.value.reason is BatchReason.LINEAGE_OPEN


# What a leader proposes


def test_leader_replaces_nothing_that_its_node_sees_confirmed() -> None:
    ledger = _open()
    first = _newest(ledger)
    assert propose_batches(ledger, 30_000, (), CUSTODY, ONE)
    assert not propose_batches(ledger, 30_000, {first}, CUSTODY, ONE)
    _bump(ledger)
    wait(ledger, INTERVAL)
    assert not propose_batches(ledger, 90_000, {first}, CUSTODY, ONE)


def test_leader_follows_an_estimate_that_is_well_above() -> None:
    ledger = _open(burns=[(500_000, 20_000)])
    wanted = [
        _proposed(ledger, estimate) for estimate in (1_000, FEERATE * 5 // 4 - 1, FEERATE * 5 // 4, 30_000, 10_000_000)
    ]
    assert wanted == [None, None, 12_500, 30_000, 11_000], "the last costs more than the payee bears and the fund has"


def test_leader_takes_the_least_step_when_the_estimate_costs_too_much() -> None:
    ledger = _open(burns=[(500_000, 2_500)], donated_sats=60_000)
    params = replace(ONE, lineage_fee_cap_sats=1_000)
    feerate = _proposed(ledger, 100_000, params)
    assert feerate is not None
    assert FEERATE + 1_000 <= feerate <= FEERATE + 1_010
    _bump(ledger, feerate, params)
    assert is_least_step(ledger, BatchKind.PAYOUT, CUSTODY)


def test_leader_raises_what_has_waited_long_by_the_least_step_whatever_the_estimate() -> None:
    ledger = _open()
    wait(ledger, (STALE_INTERVALS - 1) * INTERVAL - 1)
    assert _proposed(ledger, 1_000, ONE) is None
    wait(ledger, 1)
    feerate = _proposed(ledger, 1_000, ONE)
    assert feerate is not None
    assert FEERATE + 1_000 <= feerate <= FEERATE + 1_010
    _bump(ledger, feerate)
    assert is_least_step(ledger, BatchKind.PAYOUT, CUSTODY)


def test_leader_replaces_nothing_that_can_not_be_replaced() -> None:
    ledger = ledger_of([1_000_000], [(500_000, 20_000)])
    _record(ledger, None, FEERATE)
    assert _proposed(ledger, 50_000, ONE) is None
    wait(ledger, INTERVAL)
    low = replace(ONE, feerate_ceiling_sat_kvb=FEERATE)
    assert _proposed(ledger, 50_000, low) is None
    poor = _open(burns=[(500_000, 2_400)])
    assert _proposed(poor, 50_000, ONE) is None


def test_least_step_is_no_more_than_that() -> None:
    ledger = _open()
    assert not is_least_step(ledger, BatchKind.PAYOUT, CUSTODY)
    _bump(ledger, FEERATE + 1_100)
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
        _record(ledger, _newest(ledger), feerate, params)
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
    for version, transaction in zip(lineage.versions, _versions(lineage), strict=True):
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
