"""Payouts of any ledger: everybody is paid what is owed, at a price nobody exceeds, and the ledger stays equal."""

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge import payout
from bridge.batch import build_batch
from bridge.batch_form import least_share_sats, output_weight
from bridge.bitcoin.amounts import fee_sats
from bridge.bitcoin.transaction import Transaction
from bridge.custody import CoinKind
from bridge.ledger import Ledger, enter_coin, enter_donation
from bridge.lineages import PlannedBatch, record_batch, settle
from bridge.state import BatchKind, WithdrawalStatus
from tests.support.ledgers import burn, pending, signed, wait
from tests.support.peg import CUSTODY, PARAMS, START_HEIGHT, coin, new_ledger, outpoint, p2tr, p2wpkh

LIMITS = replace(PARAMS, batch_min_payouts=2, batch_max_payees=6, batch_max_first_inputs=5)


@dataclass(frozen=True)
class Wish:
    """A burn to try: a share of the supply in thousandths, its max_fee, and whether its script is long."""

    value_permille: int
    max_fee_sats: int
    long: bool


WISHES = st.builds(
    Wish,
    st.integers(min_value=1, max_value=300),
    st.sampled_from([0, 400, 1_000, 4_000, 100_000]),
    st.booleans(),
)


def _ledger(coins_sats: list[int], wishes: list[Wish], left_sats: int | None, donated_sats: int) -> Ledger:
    """Deposits, as many of the burns as the supply allows, and one that leaves `left_sats` of the largest coins."""
    ledger = new_ledger()
    for number, value_sats in enumerate(coins_sats):
        enter_coin(ledger, coin(number, value_sats), 0)
    if donated_sats:
        enter_donation(ledger, coin(50, donated_sats, CoinKind.DONATION))
    total_sats = ledger.totals.supply_sats
    values = [(total_sats * wish.value_permille // 1_000, wish) for wish in wishes]
    for number, (value_sats, wish) in enumerate(values, 100):
        if wish.max_fee_sats + 330 <= value_sats <= ledger.totals.supply_sats:
            script = (p2tr if wish.long else p2wpkh)(f"payee {number}")
            burn(ledger, number, value_sats, max_fee_sats=wish.max_fee_sats, l1_script=script)
    if left_sats is not None:
        largest = sorted((entry.value_sats for _, entry in ledger.coins.items()), reverse=True)
        value_sats = sum(largest[: LIMITS.batch_max_first_inputs]) - ledger.totals.unsettled_sats - left_sats
        if 100_330 <= value_sats <= ledger.totals.supply_sats:
            burn(ledger, 99, value_sats, max_fee_sats=100_000)
    return ledger


def _require_fair(ledger: Ledger, planned: PlannedBatch, feerate_sat_kvb: int) -> None:
    """Everybody bears the same, within what everybody allowed, and together no more than the signed size costs."""
    transaction = Transaction.parse(planned.version.transaction)
    withdrawals = {entry.burn: entry for entry in pending(ledger)}
    paid = [withdrawals[payee] for payee in planned.payees]
    assert [entry.number for entry in paid] == sorted(entry.number for entry in paid)
    outputs = transaction.outputs[: len(paid)]
    assert [output.script for output in outputs] == [entry.l1_script for entry in paid]
    (share_sats,) = {entry.value_sats - output.value_sats for entry, output in zip(paid, outputs, strict=True)}
    assert all(share_sats <= entry.max_fee_sats for entry in paid)
    asked_sats = fee_sats(signed(ledger, transaction).vsize_vbytes, feerate_sat_kvb)
    assert asked_sats <= share_sats * len(paid) < asked_sats + len(paid)
    assert planned.version.fee_sats == share_sats * len(paid) + planned.version.fund_part_sats
    change = [output.value_sats for output in transaction.outputs[len(paid) :]]
    assert all(value_sats >= LIMITS.coin_floor_sats for value_sats in change)
    assert planned.version.fund_part_sats < LIMITS.coin_floor_sats
    assert not (change and planned.version.fund_part_sats)


def test_burn_passed_over_is_paid_after_all_when_an_older_one_drops_out() -> None:
    least_sats = least_share_sats(LIMITS, 10_000)
    ledger = _ledger([1_000_000, 600_000], [], None, 0)
    ledger.coins.put(outpoint(1), replace(coin(1, 600_000), lineage=7))
    for number, (value_sats, max_fee_sats) in enumerate([(600_000, least_sats), (900_000, 50_000)]):
        burn(ledger, 100 + number, value_sats, max_fee_sats=max_fee_sats)
    one = replace(LIMITS, batch_min_payouts=1)
    planned = build_batch(ledger, BatchKind.PAYOUT, None, 10_000, CUSTODY, one)
    assert planned is not None
    assert [entry.value_sats for entry in pending(ledger) if entry.burn in planned.payees] == [900_000]


def test_thousands_that_allow_too_little_are_passed_over_without_looking_at_all_for_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever burns little for a low fee, many times, must not make leaders miss their turns."""
    looks = 0

    def counted(script_size: int) -> int:
        nonlocal looks
        looks += 1
        return output_weight(script_size)

    monkeypatch.setattr(payout, "output_weight", counted)
    many = replace(PARAMS, batch_max_payees=1_000)
    ledger = _ledger([1_000_000_000], [], None, 0)
    for number in range(2_000):
        burn(ledger, 1_000 + number, 10_000, max_fee_sats=least_share_sats(many, 5_000))
    burn(ledger, 99, 100_000, max_fee_sats=50_000)
    wait(ledger, many.batch_max_wait_anchors)
    planned = build_batch(ledger, BatchKind.PAYOUT, None, 5_000, CUSTODY, many)
    assert planned is not None
    assert len(planned.payees) == 1
    assert looks < 3 * 2_000


@given(
    coins_sats=st.lists(st.integers(min_value=30_000, max_value=3_000_000), min_size=1, max_size=10),
    wishes=st.lists(WISHES, min_size=1, max_size=10),
    left_sats=st.none() | st.integers(min_value=0, max_value=40_000),
    donated_sats=st.sampled_from([0, 30_000, 60_000]),
    feerate_sat_kvb=st.integers(min_value=1_000, max_value=20_000),
)
def test_payout_pays_what_is_owed_and_no_more(
    coins_sats: list[int], wishes: list[Wish], left_sats: int | None, donated_sats: int, feerate_sat_kvb: int
) -> None:
    ledger = _ledger(coins_sats, wishes, left_sats, donated_sats)
    planned = build_batch(ledger, BatchKind.PAYOUT, None, feerate_sat_kvb, CUSTODY, LIMITS)
    assert planned == build_batch(Ledger(ledger), BatchKind.PAYOUT, None, feerate_sat_kvb, CUSTODY, LIMITS)
    if planned is None:
        return
    assert 2 <= len(planned.payees) <= 6
    assert len(planned.inputs) <= 5
    _require_fair(ledger, planned, feerate_sat_kvb)
    before = ledger.totals
    burned_sats = sum(entry.value_sats for entry in pending(ledger) if entry.burn in planned.payees)
    record_batch(ledger, planned)
    settle(ledger, planned.version.txid, START_HEIGHT)
    assert ledger.totals.reserves_sats == before.reserves_sats - burned_sats - planned.version.fund_part_sats
    for payee in planned.payees:
        settled = ledger.closed_withdrawals.get(payee)
        assert settled is not None
        assert settled.status is WithdrawalStatus.SETTLED
