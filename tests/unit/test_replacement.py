"""Replacement: whom the next version pays, from which coins, at whose cost, when; and what replaces none."""

from dataclasses import replace
from typing import Any

import pytest

from bridge import replacement
from bridge.batch import Batch, batch_due, build_batch, check_batch, propose_batches
from bridge.batch_form import BatchReason
from bridge.bitcoin.amounts import fee_sats
from bridge.bitcoin.identifiers import Txid
from bridge.bitcoin.transaction import Transaction
from bridge.custody import CoinKind
from bridge.draft import Draft
from bridge.errors import Reason, Rejected
from bridge.ledger import Ledger, LedgerView, enter_donation
from bridge.lineages import MAX_VERSIONS, free_fund_sats, record_batch, settle
from bridge.params import PegParams
from bridge.replacement import RESERVED_VERSIONS, STALE_INTERVALS, is_least_step, replacement_due
from bridge.state import BatchKind, LedgerReason, Lineage, WithdrawalStatus
from tests.support.ledgers import (
    ledger_of,
    only_lineage,
    signed,
    snapshot,
    terms,
    wait,
)
from tests.support.peg import CUSTODY, START_HEIGHT, coin, outpoint, p2wpkh
from tests.support.replacements import (
    FEERATE,
    INTERVAL,
    ONE,
    bump,
    newest_version,
    open_payout,
    record,
    transaction_of,
    transactions_of,
)


def _refused(
    ledger: Ledger, feerate_sat_kvb: int = 2 * FEERATE, *, replaces: Txid | None = None, params: PegParams = ONE
) -> Reason:
    """Why the newest version, or `replaces`, can't be replaced at this feerate."""
    before = snapshot(ledger)
    target = newest_version(ledger) if replaces is None else replaces
    with pytest.raises(Rejected) as caught:
        check_batch(ledger, Batch(BatchKind.PAYOUT, target, feerate_sat_kvb, b""), CUSTODY, params)
    assert snapshot(ledger) == before
    return caught.value.reason


# What it is


def test_replacement_spends_the_same_coins_and_pays_the_same_payees_at_the_new_feerate() -> None:
    ledger = open_payout(burns=[(200_000, 20_000), (300_000, 20_000)])
    (old,) = transactions_of(only_lineage(ledger))
    planned = bump(ledger)
    new = transaction_of(planned)
    assert [txin.outpoint for txin in new.inputs] == [txin.outpoint for txin in old.inputs]
    assert [output.script for output in new.outputs] == [output.script for output in old.outputs]
    assert planned.payees == (outpoint(100), outpoint(101))
    asked_sats = fee_sats(signed(ledger, new).vsize_vbytes, 2 * FEERATE)
    share_sats = -(-asked_sats // 2)
    assert [output.value_sats for output in new.outputs] == [200_000 - share_sats, 300_000 - share_sats, 500_000]
    assert (planned.version.fee_sats, planned.version.fund_part_sats) == (2 * share_sats, 0)
    assert (planned.replaces, planned.version.anchor_height) == (old.txid, START_HEIGHT + INTERVAL)


def test_replacement_leaves_what_a_payee_does_not_bear_to_the_fund() -> None:
    ledger = open_payout(burns=[(200_000, 1_400), (300_000, 20_000)], donated_sats=60_000)
    planned = bump(ledger)
    new = transaction_of(planned)
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
    ledger = open_payout([500_000, 40_000, 90_000, 70_000], [(500_000, 2_000)], donated_sats=60_000)
    assert len(only_lineage(ledger).versions[0].transaction) < 90, "one input, one output"
    planned = bump(ledger)
    assert planned.inputs == (outpoint(0), outpoint(2))
    assert [output.value_sats for output in transaction_of(planned).outputs] == [
        498_000, 90_000 - planned.version.fund_part_sats,
    ]  # fmt: skip
    locked = {held for held, entry in ledger.coins.items() if entry.lineage == 0}
    assert locked == set(planned.inputs) == set(only_lineage(ledger).inputs)


def test_replacement_gives_what_is_too_little_for_change_to_the_fee() -> None:
    ledger = open_payout([520_000], [(500_000, 2_000)], donated_sats=50_000)
    assert only_lineage(ledger).versions[0].fund_part_sats == 20_000
    assert _refused(ledger) is BatchReason.STEP_NOT_MET, "all of it is in the first version's fee"
    enter_donation(ledger, coin(51, 90_000, CoinKind.DONATION))
    assert _refused(ledger) is BatchReason.STEP_NOT_MET
    planned = bump(ledger, 130_000)
    assert planned.inputs == (outpoint(0), outpoint(51))


def test_change_that_bears_a_fee_is_cut_in_fewer_parts() -> None:
    params = replace(ONE, change_target_coins=8)
    ledger = open_payout([700_000], [(500_000, 3_000)], donated_sats=60_000, params=params)
    assert len(transactions_of(only_lineage(ledger))[0].outputs) == 3
    planned = bump(ledger, params=params)
    assert [output.value_sats for output in transaction_of(planned).outputs[1:]] == [
        200_000 - planned.version.fund_part_sats
    ]


def test_every_version_pays_and_any_one_of_them_settles() -> None:
    for settling in range(3):
        ledger = open_payout([500_000, 90_000, 40_000], [(500_000, 2_000)], donated_sats=60_000)
        for step in (2, 3):
            wait(ledger, INTERVAL)
            bump(ledger, step * FEERATE)
        lineage = only_lineage(ledger)
        versions = transactions_of(lineage)
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
    ledger = open_payout()
    first = newest_version(ledger)
    bump(ledger)
    wait(ledger, INTERVAL)
    assert _refused(ledger, 3 * FEERATE, replaces=first) is BatchReason.NOT_NEWEST
    assert _refused(ledger, 3 * FEERATE, replaces=Txid(bytes(32))) is BatchReason.NOT_NEWEST


def test_replacement_of_a_settled_lineage_is_refused_whether_another_is_open_or_not() -> None:
    ledger = open_payout(burns=[(100_000, 20_000), (100_000, 20_000)], params=replace(ONE, batch_max_payees=1))
    first = newest_version(ledger)
    settle(ledger, first, START_HEIGHT)
    assert _refused(ledger, replaces=first) is BatchReason.LINEAGE_CLOSED
    record(ledger, None, FEERATE)
    wait(ledger, INTERVAL)
    assert _refused(ledger, replaces=first) is BatchReason.LINEAGE_CLOSED


def test_replacement_without_an_open_lineage_is_refused() -> None:
    ledger = ledger_of([1_000_000], [(500_000, 20_000)])
    assert _refused(ledger, replaces=Txid(bytes(32))) is BatchReason.NO_OPEN_LINEAGE


def test_replacement_before_its_interval_is_refused() -> None:
    ledger = ledger_of([1_000_000], [(500_000, 20_000)])
    record(ledger, None, FEERATE)
    wait(ledger, INTERVAL - 1)
    assert not replacement_due(ledger, BatchKind.PAYOUT, ONE)
    assert _refused(ledger) is BatchReason.TOO_EARLY
    wait(ledger, 1)
    assert replacement_due(ledger, BatchKind.PAYOUT, ONE)
    assert batch_due(ledger, BatchKind.PAYOUT, ONE)
    bump(ledger)
    assert _refused(ledger, 3 * FEERATE) is BatchReason.TOO_EARLY


HIGH = replace(ONE, feerate_ceiling_sat_kvb=400_000)


def _up_to_the_reserved() -> tuple[Ledger, int]:
    """A payout of which leaders have used up by least steps what they can, and the newest version's feerate."""
    ledger = open_payout(burns=[(500_000, 100_000)])
    while True:
        wait(ledger, STALE_INTERVALS * INTERVAL)
        batches = propose_batches(ledger, FEERATE, (), CUSTODY, HIGH)
        if not batches:
            break
        record_batch(ledger, batches[0])
        assert is_least_step(ledger, BatchKind.PAYOUT, CUSTODY)
    versions = only_lineage(ledger).versions
    assert len(versions) == MAX_VERSIONS - RESERVED_VERSIONS
    return ledger, versions[-1].feerate_sat_kvb


def test_replacement_in_a_full_lineage_is_refused() -> None:
    ledger, feerate_sat_kvb = _up_to_the_reserved()
    for _ in range(RESERVED_VERSIONS):
        feerate_sat_kvb = -(-5 * feerate_sat_kvb // 4)
        bump(ledger, feerate_sat_kvb, HIGH)
        wait(ledger, INTERVAL)
    assert len(only_lineage(ledger).versions) == MAX_VERSIONS
    assert _refused(ledger, 400_000, params=HIGH) is BatchReason.TOO_MANY_VERSIONS
    assert not replacement_due(ledger, BatchKind.PAYOUT, HIGH)
    assert propose_batches(ledger, 400_000, (), CUSTODY, HIGH) == []


def test_last_versions_are_refused_below_a_quarter_more() -> None:
    ledger, newest_sat_kvb = _up_to_the_reserved()
    well_above_sat_kvb = -(-5 * newest_sat_kvb // 4)
    assert _refused(ledger, well_above_sat_kvb - 1, params=HIGH) is BatchReason.RESERVED
    bump(ledger, well_above_sat_kvb, HIGH)


def test_last_versions_are_proposed_at_a_leaders_estimate_alone() -> None:
    ledger, newest_sat_kvb = _up_to_the_reserved()
    assert propose_batches(ledger, newest_sat_kvb, (), CUSTODY, HIGH) == []
    assert propose_batches(ledger, -(-5 * newest_sat_kvb // 4) - 1, (), CUSTODY, HIGH) == []
    [planned] = propose_batches(ledger, 2 * newest_sat_kvb, (), CUSTODY, HIGH)
    assert planned.version.feerate_sat_kvb == 2 * newest_sat_kvb


def test_none_of_the_last_versions_is_a_least_step() -> None:
    """So members vote for one by their own estimates, even where the step that L1 asks for is as large."""
    ledger, newest_sat_kvb = _up_to_the_reserved()
    bump(ledger, -(-5 * newest_sat_kvb // 4), HIGH)
    lineage = only_lineage(ledger)
    old, new = lineage.versions[-2:]
    ledger.open_lineages.put(0, replace(lineage, versions=(*lineage.versions[:-1], replace(new, feerate_sat_kvb=1))))
    assert not is_least_step(ledger, BatchKind.PAYOUT, CUSTODY)
    ledger.open_lineages.put(0, replace(lineage, versions=(old, replace(new, feerate_sat_kvb=1))))
    assert is_least_step(ledger, BatchKind.PAYOUT, CUSTODY)


def test_no_version_is_drafted_twice_for_a_proposal(monkeypatch: pytest.MonkeyPatch) -> None:
    drafted: list[int] = []
    draft = replacement._draft

    def counted(view: LedgerView, lineage: Lineage, feerate_sat_kvb: int, *rules: Any) -> Draft:
        drafted.append(feerate_sat_kvb)
        return draft(view, lineage, feerate_sat_kvb, *rules)

    monkeypatch.setattr(replacement, "_draft", counted)
    ledger = open_payout(burns=[(500_000, 2_500)], donated_sats=4_000)
    wait(ledger, STALE_INTERVALS * INTERVAL)
    for estimate_sat_kvb, least in ((1_000, True), (2 * FEERATE, False), (100_000, True)):
        drafted.clear()
        [planned] = propose_batches(ledger, estimate_sat_kvb, (), CUSTODY, ONE)
        assert planned.version.feerate_sat_kvb == drafted[-1]
        assert (drafted[-1] < FEERATE + 1_010) == least
        assert len(drafted) == len(set(drafted)) <= 2


# What it may cost


def test_replacement_below_the_step_is_refused() -> None:
    ledger = open_payout(burns=[(200_000, 20_000), (300_000, 20_000)])
    old = only_lineage(ledger).versions[0]
    size_vbytes = signed(ledger, Transaction.parse(old.transaction)).vsize_vbytes
    least_sat_kvb = -(-(old.fee_sats + size_vbytes) * 1000 // size_vbytes)
    assert FEERATE + 1_000 <= least_sat_kvb <= FEERATE + 1_010
    assert _refused(ledger, least_sat_kvb - 10) is BatchReason.STEP_NOT_MET
    assert _refused(ledger, FEERATE) is BatchReason.STEP_NOT_MET
    planned = bump(ledger, least_sat_kvb)
    assert planned.version.fee_sats >= old.fee_sats + size_vbytes
    assert is_least_step(ledger, BatchKind.PAYOUT, CUSTODY)


def test_replacement_of_lower_feerate_is_refused_though_its_fee_is_higher() -> None:
    # Further inputs make it pay more in all, and less for each byte.
    ledger = open_payout([500_000] + [30_000] * 4, [(500_000, 2_000)], donated_sats=900_000)
    old = only_lineage(ledger).versions[0]
    trial = Ledger(ledger)
    planned = bump(trial, 11_500)
    assert len(planned.inputs) == 3
    size_vbytes = signed(trial, transaction_of(planned)).vsize_vbytes
    assert fee_sats(size_vbytes, FEERATE - 100) > old.fee_sats + size_vbytes
    assert _refused(ledger, FEERATE - 100) is BatchReason.STEP_NOT_MET


def test_replacement_out_of_the_feerates_range_is_refused() -> None:
    ledger = open_payout(burns=[(500_000, 90_000)])
    assert _refused(ledger, ONE.feerate_ceiling_sat_kvb + 1) is BatchReason.FEERATE_ABOVE_CEILING
    assert _refused(ledger, ONE.feerate_floor_sat_kvb - 1) is BatchReason.FEERATE_BELOW_FLOOR
    bump(ledger, ONE.feerate_ceiling_sat_kvb)


def test_replacement_over_the_cap_of_a_lineage_or_the_free_fund_is_refused() -> None:
    ledger = open_payout(burns=[(500_000, 2_500)], donated_sats=60_000)
    cost_sats = bump(Ledger(ledger), 3 * FEERATE).version.fund_part_sats
    assert _refused(ledger, 3 * FEERATE, params=replace(ONE, lineage_fee_cap_sats=cost_sats - 1)) is (
        BatchReason.OVER_FUND
    )
    poor = open_payout(burns=[(500_000, 2_500)])
    assert _refused(poor, 3 * FEERATE) is BatchReason.OVER_FUND
    enter_donation(poor, coin(51, cost_sats - 1, CoinKind.DONATION))
    assert _refused(poor, 3 * FEERATE) is BatchReason.OVER_FUND
    enter_donation(poor, coin(52, 1, CoinKind.DONATION))
    bump(poor, 3 * FEERATE)


def test_replacement_may_take_what_its_own_lineage_has_reserved() -> None:
    ledger = open_payout(burns=[(500_000, 2_500)], donated_sats=60_000)
    first_sats = bump(ledger, 3 * FEERATE).version.fund_part_sats
    wait(ledger, INTERVAL)
    params = replace(ONE, lineage_fee_cap_sats=60_000)
    taken_sats = bump(ledger, 100_000, params).version.fund_part_sats
    assert first_sats < taken_sats
    assert only_lineage(ledger).reserved_fund_sats == taken_sats
    assert free_fund_sats(ledger) == 60_000 - taken_sats


def test_replacement_that_would_need_more_inputs_than_allowed_is_refused() -> None:
    ledger = open_payout([500_000, 90_000], [(500_000, 2_000)], donated_sats=60_000)
    params = replace(ONE, batch_max_first_inputs=1, batch_max_inputs=1)
    assert _refused(ledger, params=params) is BatchReason.NOT_COVERED
    assert len(bump(ledger, params=replace(params, batch_max_inputs=2)).inputs) == 2


def test_replacement_without_coins_to_pay_from_is_refused() -> None:
    ledger = open_payout([500_000], [(500_000, 2_000)], donated_sats=60_000)
    assert _refused(ledger) is BatchReason.NOT_COVERED


# That nothing else is a replacement


def test_replacement_by_any_other_transaction_is_refused() -> None:
    ledger = open_payout([300_000, 300_000, 90_000], [(200_000, 20_000), (300_000, 20_000)])
    planned = build_batch(ledger, BatchKind.PAYOUT, newest_version(ledger), 2 * FEERATE, CUSTODY, ONE)
    assert planned is not None
    batch, right = Batch.of(planned), transaction_of(planned)
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
    ledger = open_payout(burns=[(100_000, 20_000), (100_000, 20_000)], params=replace(ONE, batch_max_payees=1))
    with pytest.raises(Rejected) as caught:
        check_batch(ledger, Batch(BatchKind.PAYOUT, None, FEERATE, b""), CUSTODY, ONE)
    assert caught.value.reason is BatchReason.LINEAGE_OPEN
