"""The signer's laws about sums, caps, due times and bytes: what a ledger says of itself is worked out again."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from bridge.batch import build_batch
from bridge.bitcoin.identifiers import OutPoint
from bridge.bitcoin.transaction import Transaction
from bridge.custody import Custody
from bridge.ledger import Ledger, advance_anchor, record_burn
from bridge.lineages import record_batch, settle
from bridge.losses import book_losses
from bridge.params import PegParams
from bridge.records import Deficit, LostCoin
from bridge.state import BatchKind, BatchVersion, Lineage, Withdrawal, WithdrawalStatus
from federation import batch_law
from federation.approval import approve_batch
from federation.refusal import RefusalReason, SigningRefused
from tests.support.approval import FEDERATION, Case, assert_refused, payout_case, shifted
from tests.support.ledgers import only_lineage
from tests.support.peg import ALICE, CUSTODY, PARAMS, START_HEIGHT, anchor, outpoint, p2tr, policy
from tests.support.replacements import ONE, bump, open_payout
from tests.support.signers import honest_facts

BURN_SATS = 17_500_000
"""Of each of the case's payees, the least of them."""


@pytest.fixture
def case() -> Case:
    """A payout that is approved as it stands."""
    return payout_case()


def approve(case: Case, **params: Any) -> None:
    """The verdict by other parameters."""
    approve_batch(case.ledger, case.version.txid, case.facts, FEDERATION.custody, replace(PARAMS, **params))


def refused(case: Case, **params: Any) -> RefusalReason:
    """Why the member does not sign by other parameters."""
    with pytest.raises(SigningRefused) as caught:
        approve(case, **params)
    reason = caught.value.reason
    assert isinstance(reason, RefusalReason)
    return reason


def payee(case: Case, position: int = 0) -> Withdrawal:
    """A burn that the payout pays."""
    withdrawal = case.ledger.open_withdrawals.get(case.lineage.payees[position])
    assert withdrawal is not None
    return withdrawal


def bumped(case: Case, feerate_sat_kvb: int = 4_000) -> BatchVersion:
    """A replacement of the newest version, recorded after the interval."""
    wait(case.ledger, PARAMS.replacement_interval_anchors)
    newest = case.lineage.versions[-1].txid
    planned = build_batch(case.ledger, BatchKind.PAYOUT, newest, feerate_sat_kvb, FEDERATION.custody, PARAMS)
    assert planned is not None
    record_batch(case.ledger, planned)
    case.version = planned.version
    return planned.version


def wait(ledger: Ledger, anchors: int, params: PegParams = PARAMS) -> None:
    """So many more anchors pass."""
    for _ in range(anchors):
        advance_anchor(ledger, anchor(ledger.totals.anchor.height + 1), params)


# No burn twice


@pytest.mark.parametrize("status", [WithdrawalStatus.SETTLED, WithdrawalStatus.REFUNDED])
def test_payee_that_was_paid_or_refunded_is_refused(case: Case, status: WithdrawalStatus) -> None:
    """Though the burn stands among the open ones as well."""
    closed = replace(payee(case), status=status)
    case.ledger.closed_withdrawals.put(closed.burn, closed)
    assert_refused(case, RefusalReason.PAYEE_CLOSED)


def test_payee_that_another_open_lineage_pays_too_is_refused(case: Case) -> None:
    other = replace(case.lineage, number=7, inputs=(outpoint(900),), payees=case.lineage.payees[2:])
    case.ledger.open_lineages.put(7, other)
    assert_refused(case, RefusalReason.PAYEE_ELSEWHERE)


# Made anew


@pytest.mark.parametrize(
    "spoil",
    [
        lambda tx: shifted(tx, 3, 4, 1),
        lambda tx: shifted(tx, 0, 1, 1),
        lambda tx: replace(tx, outputs=(*tx.outputs[:3], *sorted(tx.outputs[3:], key=lambda out: out.value_sats))),
        lambda tx: replace(tx, inputs=tx.inputs[::-1]),
    ],
    ids=["change cut unevenly", "shares that differ", "change in another order", "inputs in another order"],
)
def test_transaction_that_batches_are_not_made_of_is_refused(
    case: Case, spoil: Callable[[Transaction], Transaction]
) -> None:
    """Each pays what is owed, costs what it may, and is none that the ledger makes."""
    case.record(spoil(case.transaction))
    assert_refused(case, RefusalReason.NOT_AS_REBUILT)


def test_change_that_is_too_small_for_its_parts_is_refused(case: Case) -> None:
    floor_sats = case.transaction.outputs[-1].value_sats + 1
    assert refused(case, min_deposit_sats=floor_sats) is RefusalReason.NOT_AS_REBUILT
    approve(case, min_deposit_sats=floor_sats - 1)


def test_change_may_be_cut_for_fewer_coins_than_there_are_by_now(case: Case) -> None:
    """How many there were when the batch was recorded is forgotten, so the number of parts is taken as it is."""
    approve(case, change_target_coins=1)


def test_version_of_an_older_epoch_is_made_anew_for_its_own(case: Case) -> None:
    custody = Custody({0: FEDERATION.policy, 1: policy(1)})
    assert custody.newest.epoch == 1
    approve_batch(case.ledger, case.version.txid, case.facts, custody, PARAMS)


def test_replacement_is_approved_beside_what_it_replaces(case: Case) -> None:
    first = case.version
    bumped(case)
    case.approve()
    case.version = first
    case.approve()


# Not more than a batch may have


@pytest.mark.parametrize(
    ("name", "most"),
    [("batch_max_payees", 3), ("batch_max_inputs", 4), ("batch_max_first_inputs", 4)],
)
def test_batch_with_more_than_it_may_have_is_refused(case: Case, name: str, most: int) -> None:
    assert (len(case.lineage.payees), len(case.lineage.inputs)) == (3, 4)
    approve(case, **{name: most})
    assert refused(case, **{name: most - 1}) is RefusalReason.TOO_LARGE


def test_change_in_more_parts_than_any_batch_has_is_refused(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = len(case.transaction.outputs) - len(case.lineage.payees)
    for most, reason in ((parts, None), (parts - 1, RefusalReason.TOO_LARGE)):
        monkeypatch.setattr(batch_law, "MAX_CHANGE_PARTS", most)
        if reason is None:
            case.approve()
        else:
            assert_refused(case, reason)


def test_lineage_of_more_versions_than_one_may_have_is_refused(case: Case) -> None:
    case.ledger.open_lineages.put(0, replace(case.lineage, versions=(case.version,) * 33))
    assert_refused(case, RefusalReason.TOO_LARGE)


# Due


def test_payout_that_was_not_due_is_refused(case: Case) -> None:
    approve(case, batch_min_payouts=4, batch_max_wait_anchors=1)
    assert refused(case, batch_min_payouts=4, batch_max_wait_anchors=2) is RefusalReason.NOT_DUE


def test_payout_of_a_burn_that_came_later_is_refused(case: Case) -> None:
    height = case.version.anchor_height
    for burned_at, reason in ((height, None), (height + 1, RefusalReason.NOT_DUE)):
        late = replace(payee(case, 2), burned_at_anchor=burned_at)
        case.ledger.open_withdrawals.put(late.burn, late)
        if reason is None:
            case.approve()
        else:
            assert_refused(case, reason)


def test_version_recorded_above_the_anchor_is_refused(case: Case) -> None:
    case.amend(anchor_height=case.ledger.totals.anchor.height + 1)
    assert_refused(case, RefusalReason.NOT_DUE)


@pytest.mark.parametrize(
    "change",
    [
        lambda version: {"anchor_height": version.anchor_height - 1},
        lambda version: {"fee_sats": version.fee_sats - 10_000},
    ],
    ids=["before its interval", "for no more"],
)
def test_replacement_that_was_not_due_makes_every_version_refused(
    case: Case, change: Callable[[BatchVersion], dict[str, Any]]
) -> None:
    first, second = case.version, bumped(case)
    spoiled = replace(second, **change(second))
    case.ledger.open_lineages.put(0, replace(case.lineage, versions=(first, spoiled)))
    case.version = first
    assert_refused(case, RefusalReason.NOT_DUE)


def test_last_versions_that_raise_the_feerate_by_little_are_refused(case: Case) -> None:
    """The record of the versions between is made up: the bytes are the first one's."""
    first = case.version
    versions = [
        replace(
            first,
            anchor_height=first.anchor_height + 3 * number,
            fee_sats=first.fee_sats + number,
            feerate_sat_kvb=first.feerate_sat_kvb + 10 * number,
        )
        for number in range(1, 25)
    ]
    wait(case.ledger, 3 * 24)
    case.facts = honest_facts(case.ledger, FEDERATION.custody)
    case.ledger.open_lineages.put(0, replace(case.lineage, versions=(first, *versions[:23])))
    case.approve()
    case.ledger.open_lineages.put(0, replace(case.lineage, versions=(first, *versions)))
    assert_refused(case, RefusalReason.NOT_DUE)


def _maintenance(case: Case) -> Lineage:
    """Of the one free coin, which is old enough."""
    case.age(case.other().outpoint, 3, 4)
    planned = build_batch(case.ledger, BatchKind.MAINTENANCE, None, 2_000, FEDERATION.custody, PARAMS)
    assert planned is not None
    lineage = record_batch(case.ledger, planned)
    case.version = planned.version
    return lineage


def test_maintenance_of_a_young_coin_is_refused(case: Case) -> None:
    lineage = _maintenance(case)
    case.age(lineage.inputs[0], 1, 2)
    case.approve()
    young = case.ledger.coins.get(lineage.inputs[0])
    assert young is not None
    case.ledger.coins.put(young.outpoint, replace(young, l1_height=young.l1_height + 1))
    assert_refused(case, RefusalReason.NOT_DUE)


# Sums


@pytest.mark.parametrize("name", ["reserves_sats", "deficit_sats", "supply_sats", "unsettled_sats", "fund_sats"])
def test_ledger_whose_equality_does_not_hold_is_refused(case: Case, name: str) -> None:
    case.ledger.totals = case.ledger.totals.plus(**{name: 1})
    assert_refused(case, RefusalReason.LEDGER_UNEQUAL)


@pytest.mark.parametrize("name", ["reserves_sats", "unsettled_sats"])
def test_total_that_is_no_sum_of_what_there_is_is_refused(case: Case, name: str) -> None:
    """Though the equality holds: coin was made out of nothing, or a burn is owed that nobody made."""
    other = {"reserves_sats": {"supply_sats": 1}, "unsettled_sats": {"deficit_sats": 1}}[name]
    case.ledger.totals = case.ledger.totals.plus(**{name: 1}, **other)
    case.ledger.totals.require_equality()
    assert_refused(case, RefusalReason.LEDGER_UNEQUAL)


def test_peg_over_its_cap_is_refused(case: Case) -> None:
    reserves_sats = case.ledger.totals.reserves_sats
    approve(case, max_peg_sats=reserves_sats)
    assert refused(case, max_peg_sats=reserves_sats - 1) is RefusalReason.PEG_OVER_CAP


def test_fund_part_that_the_lineage_did_not_reserve_is_refused(case: Case) -> None:
    lineage = _maintenance(case)
    case.approve()
    case.ledger.open_lineages.put(1, replace(lineage, reserved_fund_sats=case.version.fund_part_sats - 1))
    assert_refused(case, RefusalReason.FUND_NOT_RESERVED)


def test_fund_that_lineages_have_reserved_twice_is_refused(case: Case) -> None:
    fund_sats = case.ledger.totals.fund_sats
    for reserved_sats, reason in ((fund_sats, None), (fund_sats + 1, RefusalReason.FUND_NOT_RESERVED)):
        case.ledger.open_lineages.put(0, replace(case.lineage, reserved_fund_sats=reserved_sats))
        if reason is None:
            case.approve()
        else:
            assert_refused(case, reason)


# The window


def test_burns_over_the_windows_cap_are_refused_whatever_the_totals_say(case: Case) -> None:
    burned_sats = sum(payee(case, position).value_sats for position in range(3))
    case.ledger.totals = replace(case.ledger.totals, withdrawal_window=())
    approve(case, max_window_withdrawals_sats=burned_sats)
    assert refused(case, max_window_withdrawals_sats=burned_sats - 1) is RefusalReason.WINDOW_OVER_CAP


def test_burns_that_no_window_holds_together_are_not_added_up(case: Case) -> None:
    last = payee(case, 2)
    cap_sats = 2 * BURN_SATS + 10
    window = PARAMS.withdrawal_window_anchors
    for burned_at, reason in (
        (START_HEIGHT - window, None),
        (START_HEIGHT - window + 1, RefusalReason.WINDOW_OVER_CAP),
    ):
        case.ledger.open_withdrawals.put(last.burn, replace(last, burned_at_anchor=burned_at))
        if reason is None:
            approve(case, max_window_withdrawals_sats=cap_sats)
        else:
            assert refused(case, max_window_withdrawals_sats=cap_sats) is reason


def _second_payout(case: Case, settled_l1_height: int) -> None:
    """The first one is settled, and three more burns at one anchor are in a payout of their own."""
    settle(case.ledger, case.version.txid, settled_l1_height)
    for number in range(3):
        record_burn(
            case.ledger,
            outpoint(200 + number),
            value_sats=100_000,
            max_fee_sats=20_000,
            l1_script=p2tr(f"second {number}"),
            refund_script=ALICE,
        )
    wait(case.ledger, 1)
    planned = build_batch(case.ledger, BatchKind.PAYOUT, None, 2_000, FEDERATION.custody, PARAMS)
    assert planned is not None
    record_batch(case.ledger, planned)
    case.version = planned.version
    case.facts = honest_facts(case.ledger, FEDERATION.custody)


def test_burns_of_the_window_count_though_they_were_paid_already(case: Case) -> None:
    burned_sats = sum(payee(case, position).value_sats for position in range(3)) + 300_000
    _second_payout(case, START_HEIGHT + 1)
    approve(case, max_window_withdrawals_sats=burned_sats)
    assert refused(case, max_window_withdrawals_sats=burned_sats - 1) is RefusalReason.WINDOW_OVER_CAP


def test_burns_that_were_paid_before_the_window_do_not_count(case: Case) -> None:
    cap_sats = 3 * BURN_SATS
    wait(case.ledger, PARAMS.withdrawal_window_anchors)
    _second_payout(case, START_HEIGHT + 1)
    approve(case, max_window_withdrawals_sats=cap_sats)


def test_burn_that_waits_again_since_its_coins_were_lost_is_not_counted_twice(case: Case) -> None:
    """Its date is that of the record that names the loss: with what was burned since, it may be above the cap."""
    lost = replace(case.lineage, number=1, payees=(payee(case, 2).burn,), settled_by=None)
    case.ledger.totals = replace(case.ledger.totals, next_lineage=2)
    cap_sats = 2 * BURN_SATS + 10
    assert refused(case, max_window_withdrawals_sats=cap_sats) is RefusalReason.WINDOW_OVER_CAP
    case.ledger.closed_lineages.put(1, lost)
    approve(case, max_window_withdrawals_sats=cap_sats)


# After losses


def _lose(ledger: Ledger, lost: OutPoint) -> None:
    """A record books a coin as lost."""
    coin = ledger.coins.get(lost)
    assert coin is not None
    book_losses(ledger, Deficit((LostCoin(lost, coin.value_sats),)))


def test_version_that_outlives_a_loss_is_approved_and_the_dead_one_is_not() -> None:
    ledger = open_payout([500_000, 40_000, 90_000, 70_000], [(500_000, 2_000)], donated_sats=60_000)
    bump(ledger)
    living, dead = (version.txid for version in only_lineage(ledger).versions)
    _lose(ledger, only_lineage(ledger).inputs[-1])
    facts = honest_facts(ledger, CUSTODY)
    assert approve_batch(ledger, living, facts, CUSTODY, ONE).txid == living
    with pytest.raises(SigningRefused) as caught:
        approve_batch(ledger, dead, facts, CUSTODY, ONE)
    assert caught.value.reason is RefusalReason.NOT_RECORDED


def test_payout_of_burns_that_wait_again_after_a_loss_is_approved(case: Case) -> None:
    burned_sats = sum(payee(case, position).value_sats for position in range(3))
    _lose(case.ledger, case.lineage.inputs[-1])
    assert_refused(case, RefusalReason.LINEAGE_CLOSED)
    wait(case.ledger, 1)
    planned = build_batch(case.ledger, BatchKind.PAYOUT, None, 2_000, FEDERATION.custody, PARAMS)
    assert planned is not None
    record_batch(case.ledger, planned)
    case.version = planned.version
    case.facts = honest_facts(case.ledger, FEDERATION.custody)
    approve(case, max_window_withdrawals_sats=burned_sats)
