"""Plans of a recovery: when, how much, to whom, and in how many transactions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.bitcoin.amounts import fee_sats
from bridge.bitcoin.identifiers import Script
from bridge.bitcoin.script import dust_limit_sats, require_standard_witness
from bridge.bitcoin.transaction import Transaction
from bridge.custody import CoinKind, recovery_input_weight
from bridge.errors import MalformedError, Rejected
from bridge.params import MAX_STANDARD_WEIGHT
from bridge.recovery import (
    CHAIN_ID_KEY,
    Origin,
    RecoveryInput,
    RecoveryReason,
    is_worth_spending,
    maturity_height,
    origin_of,
    plan_transactions,
    recovery_psbt,
    require_feerate,
    signed_vsize_vbytes,
)
from bridge.recovery_signing import RecoveryRequest
from tests.support.peg import ALICE, BOB
from tests.support.recovery import FEERATE_SAT_KVB, ORIGINS, POLICY, TERMS, coin, planned, signed

THREE = [coin(number) for number in range(3)]


def reason(coins: list[RecoveryInput], payees: list[Script], feerate_sat_kvb: int = FEERATE_SAT_KVB) -> RecoveryReason:
    with pytest.raises(Rejected) as rejection:
        plan_transactions(coins, payees, feerate_sat_kvb)
    assert isinstance(rejection.value.reason, RecoveryReason)
    return rejection.value.reason


def test_coin_matures_when_its_lock_has_passed_and_a_coinbase_not_before_it_can_be_spent() -> None:
    assert maturity_height(POLICY, 1_000) == 1_024
    assert maturity_height(POLICY, 1_000, coinbase=True) == 1_100


def test_every_input_waits_for_the_lock_and_everything_but_the_fee_is_paid() -> None:
    [(coins, transaction)] = plan_transactions(THREE, [BOB], FEERATE_SAT_KVB)
    assert sorted(coins, key=lambda item: item.outpoint) == list(coins)
    assert [txin.outpoint for txin in transaction.inputs] == [item.outpoint for item in coins]
    assert {txin.sequence for txin in transaction.inputs} == {24}
    assert transaction.version == 2
    [output] = transaction.outputs
    vsize_vbytes = signed_vsize_vbytes(transaction, [POLICY] * 3)
    assert (output.script, output.value_sats) == (BOB, 3_000_000 - fee_sats(vsize_vbytes, FEERATE_SAT_KVB))


def test_predicted_size_is_that_of_the_signed_transaction() -> None:
    request = signed(planned(THREE, (ALICE, BOB)), 0, 2)
    transaction = request.finalized()
    assert request.vsize_vbytes == transaction.vsize_vbytes
    require_standard_witness(transaction, [item.output for item in request.coins])


@given(st.integers(1, 8), st.lists(st.integers(10_000, 10**9), min_size=1, max_size=6))
def test_shares_are_equal_and_nothing_is_lost(payee_count: int, values: list[int]) -> None:
    payees = [Script(b"\x00\x14" + bytes([index]) * 20) for index in range(payee_count)]
    coins = [coin(number, value_sats) for number, value_sats in enumerate(values)]
    [(_, transaction)] = plan_transactions(coins, payees, FEERATE_SAT_KVB)
    paid = [output.value_sats for output in transaction.outputs]
    fee = fee_sats(signed_vsize_vbytes(transaction, [POLICY] * len(coins)), FEERATE_SAT_KVB)
    assert sum(paid) == sum(values) - fee
    assert max(paid) - min(paid) < payee_count
    assert min(paid) >= dust_limit_sats(payees[0])


def test_coins_that_one_transaction_can_not_hold_are_dealt_to_several() -> None:
    most = MAX_STANDARD_WEIGHT // recovery_input_weight(POLICY)
    coins = [coin(number, 20_000 + number) for number in range(most + 1)]
    plans = plan_transactions(coins, [BOB], FEERATE_SAT_KVB)
    assert len(plans) == 2
    assert sorted(item.outpoint for chosen, _ in plans for item in chosen) == sorted(item.outpoint for item in coins)
    sizes = [signed_vsize_vbytes(transaction, [POLICY] * len(chosen)) for chosen, transaction in plans]
    assert max(sizes) <= MAX_STANDARD_WEIGHT // 4
    assert abs(len(plans[0][0]) - len(plans[1][0])) <= 1
    values = [sum(item.value_sats for item in chosen) for chosen, _ in plans]
    assert abs(values[0] - values[1]) < 2 * (20_000 + most)


def test_plan_is_the_same_in_whatever_order_the_coins_come() -> None:
    assert plan_transactions(THREE, [BOB], 1_000) == plan_transactions(THREE[::-1], [BOB], 1_000)


@pytest.mark.parametrize("payees", [[], [BOB, BOB]])
def test_plan_is_refused_without_payees_or_with_one_twice(payees: list[Script]) -> None:
    assert reason(THREE, payees) is RecoveryReason.NO_PAYEES


def test_plan_is_refused_when_it_pays_the_reserve() -> None:
    assert reason(THREE, [BOB, THREE[0].reserve.script]) is RecoveryReason.PAYEE_IS_RESERVE


def test_plan_is_refused_without_coins() -> None:
    assert reason([], [BOB]) is RecoveryReason.NOTHING


def test_plan_is_refused_when_too_little_is_left() -> None:
    assert reason([coin(0, 600)], [BOB]) is RecoveryReason.DUST
    assert reason([coin(0, 600)], [BOB, ALICE]) is RecoveryReason.DUST


def test_plan_is_refused_when_the_payees_alone_are_too_many_for_a_transaction() -> None:
    payees = [Script(b"\x00\x14" + index.to_bytes(20, "big")) for index in range(3_300)]
    assert reason(THREE, payees) is RecoveryReason.DUST


@pytest.mark.parametrize("feerate_sat_kvb", [0, 999, 5_001])
def test_feerate_is_refused_below_what_is_relayed_and_above_the_ceiling(feerate_sat_kvb: int) -> None:
    with pytest.raises(Rejected) as rejection:
        require_feerate(feerate_sat_kvb, 5_000)
    assert rejection.value.reason is RecoveryReason.FEERATE


@pytest.mark.parametrize("feerate_sat_kvb", [1_000, 5_000])
def test_feerate_is_accepted_up_to_the_ceiling(feerate_sat_kvb: int) -> None:
    require_feerate(feerate_sat_kvb, 5_000)


def test_coin_that_holds_no_more_than_its_input_costs_is_left() -> None:
    cost_sats = -(-recovery_input_weight(POLICY) // 4)
    assert not is_worth_spending(cost_sats, POLICY, 1_000)
    assert is_worth_spending(cost_sats + 1, POLICY, 1_000)


@pytest.mark.parametrize("origin", ORIGINS)
def test_origin_is_read_back_as_it_was_written(origin: Origin) -> None:
    assert Origin.decode(origin.encode()) == origin


@pytest.mark.parametrize("data", [b"", b"\x04" + bytes(8), ORIGINS[0].encode() + b"\x00"])
def test_origin_is_refused_unless_it_is_one(data: bytes) -> None:
    with pytest.raises(MalformedError):
        Origin.decode(data)


def test_input_without_an_origin_is_none_of_the_reserve() -> None:
    with pytest.raises(Rejected) as rejection:
        origin_of({})
    assert rejection.value.reason is RecoveryReason.NOT_RESERVE


def test_psbt_of_a_plan_tells_chain_and_origins() -> None:
    psbt = planned(THREE)
    assert psbt.entries == {CHAIN_ID_KEY: TERMS.chain_id}
    assert {origin_of(entries).kind for entries in psbt.inputs} == set(CoinKind)
    assert RecoveryRequest.read(psbt, TERMS).signers() == []


def test_psbt_needs_a_chain_id_of_32_bytes() -> None:
    transaction = Transaction(2, (), ())
    with pytest.raises(MalformedError):
        recovery_psbt(b"short", [], transaction)
