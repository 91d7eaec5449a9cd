"""The signer's laws about outputs: payees are paid what they are owed, change returns, the fee is as recorded."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from bridge.bitcoin.amounts import fee_sats
from bridge.bitcoin.transaction import Transaction
from bridge.custody import CoinKind, reserve_script
from bridge.state import BatchKind, WithdrawalStatus
from federation.approval import approve_batch
from federation.refusal import RefusalReason, SigningRefused
from tests.support.approval import FEDERATION, Case, assert_refused, payout_case, shifted, with_output
from tests.support.peg import ALICE, PARAMS, p2wpkh
from tests.support.signers import honest_facts, ledger_with_payout


@pytest.fixture
def case() -> Case:
    """A payout that is approved as it stands."""
    return payout_case()


def test_change_of_an_unknown_epoch_is_refused(case: Case) -> None:
    case.amend(epoch=3)
    assert_refused(case, RefusalReason.NO_RESERVE_SCRIPT)


@pytest.mark.parametrize(
    ("reason", "spoil"),
    [
        (RefusalReason.PAYEE_SCRIPT, lambda tx: with_output(tx, 0, script=p2wpkh("mallory"))),
        (RefusalReason.PAYEE_SCRIPT, lambda tx: replace(tx, outputs=(tx.outputs[1], tx.outputs[0], *tx.outputs[2:]))),
        (RefusalReason.PAYEE_SCRIPT, lambda tx: replace(tx, outputs=tx.outputs[3:])),
        (RefusalReason.WRONG_PAYEE_COUNT, lambda tx: replace(tx, outputs=tx.outputs[:2])),
        (RefusalReason.SHARES_TOO_HIGH, lambda tx: replace(tx, outputs=tx.outputs[:3])),
        (RefusalReason.PAYEE_SHARE, lambda tx: shifted(tx, 3, 0, 20_000)),
        (RefusalReason.PAYEE_SHARE, lambda tx: with_output(tx, 0, value_sats=tx.outputs[0].value_sats - 20_000)),
    ],
    ids=["script", "order", "none paid", "one unpaid", "change to the fee", "more than burned", "over max_fee"],
)
def test_wrong_payees_are_refused(
    case: Case, reason: RefusalReason, spoil: Callable[[Transaction], Transaction]
) -> None:
    case.record(spoil(case.transaction))
    assert_refused(case, reason)


def test_share_may_be_the_whole_of_max_fee_and_no_more(case: Case) -> None:
    payee = case.ledger.open_withdrawals.get(case.lineage.payees[0])
    assert payee is not None
    share_sats = payee.value_sats - case.transaction.outputs[0].value_sats
    for max_fee_sats, refused in ((share_sats, False), (share_sats - 1, True)):
        case.ledger.open_withdrawals.put(payee.burn, replace(payee, max_fee_sats=max_fee_sats))
        if refused:
            assert_refused(case, RefusalReason.PAYEE_SHARE)
        else:
            case.approve()


@pytest.mark.parametrize("status", [WithdrawalStatus.PENDING, WithdrawalStatus.SETTLED, WithdrawalStatus.REFUNDED])
def test_payee_that_is_not_batched_is_refused(case: Case, status: WithdrawalStatus) -> None:
    withdrawal = case.ledger.open_withdrawals.get(case.lineage.payees[0])
    assert withdrawal is not None
    case.ledger.open_withdrawals.put(withdrawal.burn, replace(withdrawal, status=status))
    assert_refused(case, RefusalReason.PAYEE_NOT_OWED)


def test_payee_of_another_lineage_is_refused(case: Case) -> None:
    withdrawal = case.ledger.open_withdrawals.get(case.lineage.payees[0])
    assert withdrawal is not None
    case.ledger.open_withdrawals.put(withdrawal.burn, replace(withdrawal, lineage=7))
    assert_refused(case, RefusalReason.PAYEE_NOT_OWED)


def test_payee_without_a_burn_is_refused(case: Case) -> None:
    case.ledger.open_withdrawals.delete(case.lineage.payees[2])
    assert_refused(case, RefusalReason.PAYEE_NOT_OWED)


def test_payee_named_twice_is_refused(case: Case) -> None:
    first, _, third, *change = case.transaction.outputs
    case.record(replace(case.transaction, outputs=(first, first, third, *change)))
    payees = case.lineage.payees
    case.ledger.open_lineages.put(0, replace(case.lineage, payees=(payees[0], payees[0], payees[2])))
    assert_refused(case, RefusalReason.PAYEE_TWICE)


def test_payout_without_payees_is_refused(case: Case) -> None:
    case.ledger.open_lineages.put(0, replace(case.lineage, payees=()))
    assert_refused(case, RefusalReason.WRONG_PAYEE_COUNT)


def test_maintenance_with_payees_is_refused(case: Case) -> None:
    case.ledger.open_lineages.put(0, replace(case.lineage, kind=BatchKind.MAINTENANCE))
    assert_refused(case, RefusalReason.WRONG_PAYEE_COUNT)


def test_change_to_anyone_else_is_refused(case: Case) -> None:
    case.record(with_output(case.transaction, 4, script=p2wpkh("mallory")))
    assert_refused(case, RefusalReason.CHANGE_SCRIPT)


def test_change_to_a_deposit_script_is_refused(case: Case) -> None:
    deposit = reserve_script(FEDERATION.policy, CoinKind.DEPOSIT, ALICE)
    case.record(with_output(case.transaction, 4, script=deposit.script))
    assert_refused(case, RefusalReason.CHANGE_SCRIPT)


def test_change_under_the_coin_floor_is_refused(case: Case) -> None:
    left_sats = case.transaction.outputs[3].value_sats - (PARAMS.coin_floor_sats - 1)
    case.record(shifted(case.transaction, 3, 4, left_sats))
    assert_refused(case, RefusalReason.CHANGE_BELOW_FLOOR)
    case = payout_case()
    case.record(shifted(case.transaction, 3, 4, left_sats - 1))
    assert_refused(case, RefusalReason.NOT_AS_REBUILT)


def test_outputs_beyond_the_inputs_are_refused(case: Case) -> None:
    case.record(with_output(case.transaction, 3, value_sats=case.locked().value_sats * 2))
    assert_refused(case, RefusalReason.FEE_TOO_LOW)


def test_recorded_fee_that_is_another_is_refused(case: Case) -> None:
    case.amend(fee_sats=case.version.fee_sats + 1)
    assert_refused(case, RefusalReason.FEE_NOT_AS_RECORDED)


def test_recorded_fund_part_that_is_another_is_refused(case: Case) -> None:
    case.amend(fund_part_sats=1)
    assert_refused(case, RefusalReason.FUND_PART_DIFFERS)


def test_fee_below_the_feerate_is_refused(case: Case) -> None:
    case.amend(feerate_sat_kvb=case.version.feerate_sat_kvb + 100)
    assert_refused(case, RefusalReason.FEE_TOO_LOW)


def test_payees_who_bear_more_than_the_feerate_asks_are_refused(case: Case) -> None:
    case.record(shifted(case.transaction, 0, 3, 5))
    assert_refused(case, RefusalReason.SHARES_TOO_HIGH)
    case = payout_case()
    case.record(with_output(case.transaction, 0, value_sats=case.transaction.outputs[0].value_sats - 5))
    assert_refused(case, RefusalReason.SHARES_TOO_HIGH)


def test_shares_may_be_rounded_up_each_and_no_further(case: Case) -> None:
    """Each share of what the feerate asks is rounded up: together, less than a satoshi for each payee above it."""
    asked_sats = fee_sats(case.approve().plan.signed_vsize_vbytes, case.version.feerate_sat_kvb)
    for extra_sats in range(1, 6):
        spoiled = payout_case()
        spoiled.record(shifted(spoiled.transaction, 0, 3, extra_sats))
        too_high = case.version.fee_sats + extra_sats >= asked_sats + len(case.lineage.payees)
        assert_refused(spoiled, RefusalReason.SHARES_TOO_HIGH if too_high else RefusalReason.FUND_PART_DIFFERS)


@pytest.mark.parametrize("feerate_sat_kvb", range(2_000, 2_008))
def test_fee_that_is_exactly_what_the_feerate_asks_is_approved(feerate_sat_kvb: int) -> None:
    """At some of these the shares, rounded up, are the very fee."""
    ledger, version = ledger_with_payout(FEDERATION, feerate_sat_kvb=feerate_sat_kvb)
    Case(ledger, version, honest_facts(ledger, FEDERATION.custody)).approve()


def test_value_given_to_the_fee_is_refused(case: Case) -> None:
    case.record(with_output(case.transaction, 3, value_sats=case.transaction.outputs[3].value_sats - 1_000))
    assert_refused(case, RefusalReason.FUND_PART_DIFFERS)


def test_fund_part_over_the_cap_is_refused(case: Case) -> None:
    case.amend(fund_part_sats=PARAMS.lineage_fee_cap_sats + 1)
    assert_refused(case, RefusalReason.FUND_PART_OVER_CAP)


@pytest.mark.parametrize(
    ("name", "least"),
    [("max_withdrawal_sats", 17_500_002), ("feerate_ceiling_sat_kvb", 2_000), ("lineage_fee_cap_sats", 0)],
)
def test_caps_may_be_reached(case: Case, name: str, least: int) -> None:
    params = replace(PARAMS, feerate_floor_sat_kvb=2_000, **{name: least})
    approve_batch(case.ledger, case.version.txid, case.facts, FEDERATION.custody, params)


@pytest.mark.parametrize("feerate", [PARAMS.feerate_floor_sat_kvb - 1, PARAMS.feerate_ceiling_sat_kvb + 1])
def test_feerate_out_of_range_is_refused(case: Case, feerate: int) -> None:
    case.amend(feerate_sat_kvb=feerate)
    assert_refused(case, RefusalReason.FEERATE_OUT_OF_RANGE)


def test_withdrawal_over_the_cap_is_refused(case: Case) -> None:
    params = replace(PARAMS, max_withdrawal_sats=17_500_001)
    with pytest.raises(SigningRefused) as caught:
        approve_batch(case.ledger, case.version.txid, case.facts, FEDERATION.custody, params)
    assert caught.value.reason is RefusalReason.WITHDRAWAL_OVER_CAP
