"""The peg's parameters: what can't keep its promises is refused at start."""

from dataclasses import fields, replace

import pytest

from bridge.bitcoin.amounts import MAX_MONEY_SATS, fee_sats
from bridge.custody import quorum_input_weight
from bridge.errors import Rejected
from bridge.params import MAX_STANDARD_WEIGHT, ParamsReason, PegParams
from bridge.state import MAX_LIST_ITEMS
from tests.support.peg import PARAMS, POLICY

INPUT_WEIGHT = quorum_input_weight(POLICY)
SPEND_FEE_SATS = fee_sats(-(-INPUT_WEIGHT // 4), PARAMS.feerate_ceiling_sat_kvb)
NAMES = [field.name for field in fields(PegParams)]


def _reason(input_weight: int = INPUT_WEIGHT, **changes: int) -> ParamsReason | None:
    """Why the parameters with these changes are refused, or None."""
    try:
        replace(PARAMS, **changes).validate(input_weight)
    except Rejected as rejected:
        reason = rejected.reason
    else:
        return None
    assert isinstance(reason, ParamsReason)
    return reason


def test_params_are_accepted() -> None:
    assert _reason() is None


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_is_refused_when_negative_or_huge(name: str) -> None:
    assert _reason(**{name: -1}) is ParamsReason.OUT_OF_RANGE
    assert _reason(**{name: MAX_MONEY_SATS + 1}) is ParamsReason.OUT_OF_RANGE


@pytest.mark.parametrize(
    "name", sorted(set(NAMES) - {"refund_fee_sats"} - {name for name in NAMES if "cap_sats" in name})
)
def test_parameter_is_refused_when_zero(name: str) -> None:
    assert _reason(**{name: 0}) is ParamsReason.OUT_OF_RANGE


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("recovery_timelock_blocks", 65_535),
        ("max_evidence_transaction_bytes", 1_000_000),
        ("max_openings", 1_000),
        ("withdrawal_window_anchors", MAX_LIST_ITEMS),
    ],
)
def test_parameter_is_refused_above_what_bitcoin_or_an_encoding_holds(name: str, most: int) -> None:
    assert _reason(**{name: most}) is None
    assert _reason(**{name: most + 1}) is ParamsReason.OUT_OF_RANGE


def test_coinbase_is_refused_before_it_matures() -> None:
    assert _reason(coinbase_confirmations=100) is None
    assert _reason(coinbase_confirmations=99) is ParamsReason.OUT_OF_RANGE


def test_evidence_share_is_refused_below_the_largest_piece() -> None:
    largest = 1_000_000 + 1024 + 47 * PARAMS.max_openings + 16
    assert _reason(max_evidence_bytes=largest) is None
    assert _reason(max_evidence_bytes=largest - 1) is ParamsReason.EVIDENCE_BYTES


def test_coin_floor_is_refused_below_the_cost_of_spending() -> None:
    assert _reason(coin_floor_sats=SPEND_FEE_SATS) is None
    assert _reason(coin_floor_sats=SPEND_FEE_SATS - 1) is ParamsReason.COIN_FLOOR


def test_coin_floor_is_refused_where_change_would_be_dust() -> None:
    """However low the highest feerate: a batch with such change would never reach a miner, nor any later version."""
    low = PARAMS.feerate_floor_sat_kvb
    assert _reason(feerate_ceiling_sat_kvb=low, coin_floor_sats=330) is None
    assert _reason(feerate_ceiling_sat_kvb=low, coin_floor_sats=329) is ParamsReason.COIN_FLOOR


def test_claim_fee_is_refused_below_the_cost_of_spending() -> None:
    assert _reason(claim_fee_sats=SPEND_FEE_SATS) is None
    assert _reason(claim_fee_sats=SPEND_FEE_SATS - 1) is ParamsReason.CLAIM_FEE


def test_costs_follow_the_size_of_the_federation() -> None:
    assert _reason(input_weight=INPUT_WEIGHT * 4) is ParamsReason.COIN_FLOOR


def test_least_deposit_is_refused_below_claim_fee_and_floor() -> None:
    least = PARAMS.claim_fee_sats + PARAMS.coin_floor_sats
    assert _reason(min_deposit_sats=least) is None
    assert _reason(min_deposit_sats=least - 1) is ParamsReason.MIN_DEPOSIT


@pytest.mark.parametrize(
    "changes",
    [
        {"max_withdrawal_sats": PARAMS.min_deposit_sats - 1},
        {"max_window_withdrawals_sats": PARAMS.max_withdrawal_sats - 1},
        {"max_peg_sats": PARAMS.max_window_withdrawals_sats - 1},
    ],
)
def test_caps_are_refused_out_of_order(changes: dict[str, int]) -> None:
    assert _reason(**{name: value + 1 for name, value in changes.items()}) is None
    assert _reason(**changes) is ParamsReason.WITHDRAWAL_CAPS


def test_expiry_is_refused_within_the_step_that_makes_a_batch_due() -> None:
    least = PARAMS.batch_max_wait_anchors + PARAMS.max_anchor_step + 1
    assert _reason(withdrawal_expiry_anchors=least) is None
    assert _reason(withdrawal_expiry_anchors=least - 1) is ParamsReason.WITHDRAWAL_EXPIRY


def test_feerates_are_refused_when_crossed() -> None:
    ceiling = PARAMS.feerate_ceiling_sat_kvb
    assert _reason(feerate_floor_sat_kvb=ceiling) is None
    assert _reason(feerate_floor_sat_kvb=ceiling + 1) is ParamsReason.FEERATES_CROSSED


def test_batch_is_refused_when_due_only_with_too_many_payees() -> None:
    assert _reason(batch_min_payouts=PARAMS.batch_max_payees) is None
    assert _reason(batch_min_payouts=PARAMS.batch_max_payees + 1) is ParamsReason.BATCH_PAYEES


def test_first_version_is_refused_more_inputs_than_any() -> None:
    most = PARAMS.batch_max_inputs
    wide = {"maintenance_max_first_inputs": most, "maintenance_max_inputs": most}
    assert _reason(batch_max_first_inputs=most, **wide) is None
    assert _reason(batch_max_first_inputs=most + 1, **wide) is ParamsReason.BATCH_INPUTS


def test_least_withdrawal_is_refused_above_what_the_least_deposit_credits() -> None:
    most = PARAMS.min_deposit_sats - PARAMS.claim_fee_sats
    assert _reason(min_withdrawal_sats=most) is None
    assert _reason(min_withdrawal_sats=most + 1) is ParamsReason.MIN_WITHDRAWAL


def test_maintenance_is_refused_fewer_inputs_than_a_payout_and_more_first_ones_than_any() -> None:
    least, most = PARAMS.batch_max_first_inputs, PARAMS.maintenance_max_inputs
    assert _reason(maintenance_max_first_inputs=least, maintenance_max_inputs=least) is None
    assert _reason(maintenance_max_first_inputs=least - 1) is ParamsReason.MAINTENANCE_INPUTS
    assert _reason(maintenance_max_first_inputs=most) is None
    assert _reason(maintenance_max_first_inputs=most + 1) is ParamsReason.MAINTENANCE_INPUTS


def test_largest_maintenance_is_refused_above_what_nodes_relay() -> None:
    fixed = 4 * 12 + 2 + PARAMS.change_target_coins * 172
    most = (MAX_STANDARD_WEIGHT - fixed) // INPUT_WEIGHT
    assert _reason(maintenance_max_inputs=most) is None
    assert _reason(maintenance_max_inputs=most + 1) is ParamsReason.MAINTENANCE_WEIGHT


def test_largest_batch_is_refused_when_it_would_not_be_relayed() -> None:
    fixed = 4 * 12 + 2 + (PARAMS.batch_max_payees + PARAMS.change_target_coins) * 172
    most = (400_000 - fixed) // INPUT_WEIGHT
    assert _reason(batch_max_inputs=most) is None
    assert _reason(batch_max_inputs=most + 1) is ParamsReason.BATCH_WEIGHT
