"""Payout batches: who is paid, from which coins, at whose cost, when; and that nothing else is a batch."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.batch import Batch, batch_due, build_batch, check_batch
from bridge.batch_form import BATCH_VERSION, MAX_CHANGE_PARTS, REPLACEABLE_SEQUENCE, BatchReason
from bridge.bitcoin.amounts import fee_sats
from bridge.bitcoin.identifiers import Txid
from bridge.bitcoin.transaction import Transaction, TxOut
from bridge.custody import CoinKind, Custody, reserve_script
from bridge.errors import MalformedError, Rejected
from bridge.ledger import Ledger, advance_anchor, enter_donation
from bridge.lineages import PlannedBatch, record_batch, settle
from bridge.params import PegParams
from bridge.state import BatchKind, LedgerReason
from tests.support.ledgers import CHANGE, burn, ledger_of, signed, snapshot
from tests.support.peg import (
    BOB,
    CUSTODY,
    PARAMS,
    POLICY,
    START_HEIGHT,
    anchor,
    coin,
    outpoint,
    p2wpkh,
    policy,
)

FEERATE = 10_000
ONE = replace(PARAMS, batch_min_payouts=1, change_target_coins=1)
"""A single burn is due, and change is one output."""
BATCHES = st.builds(
    Batch,
    st.sampled_from(BatchKind),
    st.none() | st.binary(min_size=32, max_size=32).map(Txid),
    st.integers(min_value=0, max_value=2**64 - 1),
    st.binary(max_size=200),
)


def _build(ledger: Ledger, params: PegParams = ONE, feerate_sat_kvb: int = FEERATE) -> PlannedBatch | None:
    return build_batch(ledger, BatchKind.PAYOUT, None, feerate_sat_kvb, CUSTODY, params)


def _planned(ledger: Ledger, params: PegParams = ONE, feerate_sat_kvb: int = FEERATE) -> PlannedBatch:
    planned = _build(ledger, params, feerate_sat_kvb)
    assert planned is not None
    assert check_batch(ledger, Batch.of(planned), CUSTODY, params) == planned
    return planned


def _transaction(planned: PlannedBatch) -> Transaction:
    return Transaction.parse(planned.version.transaction)


def _payees(planned: PlannedBatch | None) -> list[int]:
    """The numbers of the burns that are paid, as `_ledger` counts them from 0."""
    by_outpoint = {outpoint(number): number - 100 for number in range(100, 1_000)}
    return [] if planned is None else [by_outpoint[payee] for payee in planned.payees]


def _change(planned: PlannedBatch) -> list[int]:
    return [output.value_sats for output in _transaction(planned).outputs[len(planned.payees) :]]


# Form


def test_payout_has_one_form() -> None:
    ledger = ledger_of([400_000, 900_000], [(500_000, 10_000)])
    planned = _planned(ledger)
    transaction = _transaction(planned)
    share_sats = planned.version.fee_sats
    assert (transaction.version, transaction.locktime) == (BATCH_VERSION, 0) == (2, 0)
    assert [(txin.outpoint, txin.script_sig, txin.sequence, txin.witness) for txin in transaction.inputs] == [
        (outpoint(1), b"", REPLACEABLE_SEQUENCE, ())
    ]
    assert transaction.outputs == (TxOut(500_000 - share_sats, p2wpkh("payee 100")), TxOut(400_000, CHANGE))
    assert planned.version.txid == transaction.txid
    assert planned.version.fee_sats == fee_sats(signed(ledger, transaction).vsize_vbytes, FEERATE)
    assert (planned.version.anchor_height, planned.version.epoch) == (START_HEIGHT, 0)
    assert (planned.inputs, planned.payees) == ((outpoint(1),), (outpoint(100),))


def test_change_goes_to_the_newest_epoch() -> None:
    custody = Custody({0: POLICY, 3: policy(3)})
    ledger = ledger_of([900_000], [(500_000, 10_000)])
    planned = build_batch(ledger, BatchKind.PAYOUT, None, FEERATE, custody, ONE)
    assert planned is not None
    assert planned.version.epoch == 3
    script = reserve_script(policy(3), CoinKind.CHANGE).script
    assert _transaction(planned).outputs[-1] == TxOut(400_000, script)
    settle(ledger, record_batch(ledger, planned).versions[0].txid, START_HEIGHT)
    assert [entry.epoch for _, entry in ledger.coins.items()] == [3]


# Who is paid


def test_payees_are_the_oldest_in_order_of_age() -> None:
    ledger = ledger_of([10_000_000], [(100_000 + number, 10_000) for number in range(7)])
    assert _payees(_planned(ledger, replace(ONE, batch_max_payees=5))) == [0, 1, 2, 3, 4]


def test_payee_with_too_low_a_fee_drops_out_and_the_next_refills() -> None:
    burns = [(100_000, 10_000), (100_000, 700), (100_000, 10_000), (100_000, 10_000)]
    params = replace(ONE, batch_max_payees=3)
    planned = _planned(ledger_of([10_000_000], burns), params)
    assert _payees(planned) == [0, 2, 3]
    assert planned.version.fee_sats % 3 == 0
    assert planned.version.fee_sats // 3 > 700


def test_payees_at_exactly_the_share_are_paid() -> None:
    share_sats = _planned(ledger_of([1_000_000], [(100_000, 10_000)] * 2)).version.fee_sats // 2
    assert _payees(_planned(ledger_of([1_000_000], [(100_000, share_sats)] * 2))) == [0, 1]
    assert _payees(_build(ledger_of([1_000_000], [(100_000, share_sats - 1)] * 2))) == []


def test_large_burn_does_not_drop_those_that_could_pay_without_it() -> None:
    # Its twenty inputs make the share 16,000 for each of two; alone, the small one's is below 3,000.
    burns = [(2_000_000, 5_000), (60_000, 5_000)]
    assert _payees(_planned(ledger_of([100_000] * 20 + [90_000], burns))) == [1]


def test_youngest_of_equal_burns_drops_out() -> None:
    # Five inputs make the share 4,000 for each of two; one takes a single input, and its share is below 2,500.
    ledger = ledger_of([200_000] + [40_000] * 10, [(150_000, 3_000), (150_000, 3_000)])
    assert _payees(_planned(ledger)) == [0]


def test_least_share_excludes_nobody_whom_a_full_payout_could_pay() -> None:
    planned = _planned(ledger_of([20_000_000], [(100_000, 340)] * 150))
    assert _payees(planned) == list(range(100))
    assert 330 <= planned.version.fee_sats // 100 <= 340


def test_burn_over_what_the_coins_hold_is_passed_over() -> None:
    # The fourth coin is beyond the three inputs that a batch may have.
    ledger = ledger_of([500_000, 300_000, 200_000, 100_000], [(1_000_001, 10_000), (90_000, 10_000)])
    params = replace(ONE, batch_max_first_inputs=3)
    assert _payees(_planned(ledger, params)) == [1]
    assert _payees(_planned(ledger, replace(ONE, batch_max_first_inputs=4))) == [0]


def test_locked_coins_do_not_count() -> None:
    ledger = ledger_of([500_000, 300_000], [(400_000, 20_000), (250_000, 20_000)])
    ledger.coins.put(outpoint(0), replace(coin(0, 500_000), lineage=7))
    planned = _planned(ledger)
    assert (_payees(planned), planned.inputs) == ([1], (outpoint(1),))


def test_nobody_is_paid_without_coins() -> None:
    ledger = ledger_of([500_000], [(400_000, 20_000)])
    ledger.coins.put(outpoint(0), replace(coin(0, 500_000), lineage=7))
    assert _build(ledger) is None


# Coins and change


def test_coins_are_taken_from_the_largest_and_the_lesser_outpoint() -> None:
    ledger = ledger_of([200_000, 300_000, 300_000, 300_000, 100_000], [(650_000, 20_000)])
    equal = sorted([outpoint(1), outpoint(2), outpoint(3)], key=lambda item: item.encode())
    assert _planned(ledger).inputs == tuple(equal)


def test_exact_coins_leave_no_change() -> None:
    planned = _planned(ledger_of([300_000, 200_000, 100_000], [(500_000, 20_000)]))
    assert (planned.inputs, _change(planned)) == ((outpoint(0), outpoint(1)), [])
    assert planned.version.fund_part_sats == 0


@pytest.mark.parametrize(("burned_sats", "inputs", "change"), [(470_000, 1, [30_000]), (470_001, 2, [129_999])])
def test_change_below_the_floor_takes_another_coin(burned_sats: int, inputs: int, change: list[int]) -> None:
    planned = _planned(ledger_of([500_000, 100_000], [(burned_sats, 20_000)]))
    assert (len(planned.inputs), _change(planned)) == (inputs, change)


def test_remainder_below_the_floor_is_the_funds_part_of_the_fee() -> None:
    ledger = ledger_of([500_000], [(400_000, 20_000), (80_000, 20_000)])
    enter_donation(ledger, coin(50, 30_000, CoinKind.DONATION))
    # The donated coin must not fill up the change.
    ledger.coins.put(outpoint(50), replace(coin(50, 30_000, CoinKind.DONATION), lineage=7))
    planned = _planned(ledger)
    assert (_payees(planned), _change(planned)) == ([0, 1], [])
    assert planned.version.fund_part_sats == 20_000
    paid_sats = sum(output.value_sats for output in _transaction(planned).outputs)
    assert planned.version.fee_sats == 500_000 - paid_sats
    lineage = record_batch(ledger, planned)
    assert lineage.reserved_fund_sats == 20_000
    settle(ledger, planned.version.txid, START_HEIGHT)
    assert ledger.totals.fund_sats == 10_000


@pytest.mark.parametrize(("donated_sats", "cap_sats"), [(0, 1_000_000), (30_000, 19_999)])
def test_youngest_is_left_out_when_the_fund_can_not_bear_the_remainder(donated_sats: int, cap_sats: int) -> None:
    ledger = ledger_of([500_000], [(400_000, 20_000), (80_000, 20_000)])
    if donated_sats:
        enter_donation(ledger, coin(50, donated_sats, CoinKind.DONATION))
        ledger.coins.put(outpoint(50), replace(coin(50, donated_sats, CoinKind.DONATION), lineage=7))
    planned = _planned(ledger, replace(ONE, lineage_fee_cap_sats=cap_sats))
    assert (_payees(planned), _change(planned), planned.version.fund_part_sats) == ([0], [100_000], 0)


def test_fund_may_bear_as_much_as_its_cap_and_as_it_has() -> None:
    ledger = ledger_of([500_000], [(400_000, 20_000), (80_000, 20_000)])
    enter_donation(ledger, coin(50, 30_000, CoinKind.DONATION))
    ledger.coins.put(outpoint(50), replace(coin(50, 30_000, CoinKind.DONATION), lineage=7))
    planned = _planned(ledger, replace(ONE, lineage_fee_cap_sats=20_000))
    assert (_payees(planned), _change(planned), planned.version.fund_part_sats) == ([0, 1], [], 20_000)


def test_burn_of_all_that_the_coins_hold_is_paid_without_change() -> None:
    planned = _planned(ledger_of([500_000, 300_000], [(800_000, 20_000)]))
    assert (_payees(planned), _change(planned), planned.version.fund_part_sats) == ([0], [], 0)


@pytest.mark.parametrize(
    ("coins_sats", "burned_sats", "change"),
    [
        pytest.param([1_000_000], 199_998, [200_001, 200_001, 200_000, 200_000], id="at most four parts"),
        pytest.param([1_000_000], 700_000, [100_000] * 3, id="each at least a deposit"),
        pytest.param([1_000_000], 850_000, [150_000], id="one when two are too small"),
        pytest.param([1_000_000], 950_000, [50_000], id="one of any size from the floor"),
        pytest.param([1_000_000] + [100_000] * 6, 400_000, [300_000] * 2, id="up to the target"),
        pytest.param([1_000_000] + [100_000] * 7, 400_000, [600_000], id="one at the target"),
        pytest.param([1_000_000] + [100_000] * 20, 400_000, [600_000], id="one above the target"),
    ],
)
def test_change_is_split_while_coins_are_few(coins_sats: list[int], burned_sats: int, change: list[int]) -> None:
    planned = _planned(ledger_of(coins_sats, [(burned_sats, 20_000)]), replace(ONE, change_target_coins=8))
    assert _change(planned) == change
    assert len(change) <= MAX_CHANGE_PARTS


def test_locked_coins_count_for_the_split() -> None:
    ledger = ledger_of([1_000_000] + [100_000] * 7, [(400_000, 20_000)])
    ledger.coins.put(outpoint(3), replace(coin(3, 100_000), lineage=7))
    assert _change(_planned(ledger, replace(ONE, change_target_coins=8))) == [600_000]


# When it is due


def test_payout_is_due_with_enough_survivors() -> None:
    burns = [(100_000, 10_000), (100_000, 10_000), (100_000, 700)]
    ledger = ledger_of([1_000_000], burns)
    assert batch_due(ledger, BatchKind.PAYOUT, PARAMS)
    assert _build(ledger, PARAMS) is None
    burn(ledger, 103, 100_000, max_fee_sats=10_000, l1_script=BOB)
    assert _payees(_planned(ledger, PARAMS)) == [0, 1, 3]


def test_payout_is_due_when_the_oldest_survivor_has_waited() -> None:
    ledger = ledger_of([1_000_000], [(100_000, 700)])
    advance_anchor(ledger, anchor(START_HEIGHT + 1), PARAMS)
    burn(ledger, 101, 100_000, max_fee_sats=10_000, l1_script=BOB)
    advance_anchor(ledger, anchor(START_HEIGHT + 5), PARAMS)
    assert not batch_due(ledger, BatchKind.PAYOUT, PARAMS)
    advance_anchor(ledger, anchor(START_HEIGHT + 6), PARAMS)
    assert batch_due(ledger, BatchKind.PAYOUT, PARAMS)
    assert _build(ledger, PARAMS) is None
    advance_anchor(ledger, anchor(START_HEIGHT + 7), PARAMS)
    assert _payees(_planned(ledger, PARAMS)) == [1]


def test_payout_is_not_due_without_burns() -> None:
    ledger = ledger_of([1_000_000], [])
    assert not batch_due(ledger, BatchKind.PAYOUT, ONE)
    assert _build(ledger) is None


def test_payout_is_not_due_while_one_is_open() -> None:
    ledger = ledger_of([1_000_000, 1_000_000], [(100_000, 10_000)])
    record_batch(ledger, _planned(ledger))
    burn(ledger, 101, 100_000, max_fee_sats=10_000, l1_script=BOB)
    assert not batch_due(ledger, BatchKind.PAYOUT, ONE)
    assert _build(ledger) is None


def test_payout_planned_twice_is_recorded_once() -> None:
    ledger = ledger_of([1_000_000, 1_000_000], [(100_000, 10_000)])
    planned = _planned(ledger)
    settle(ledger, record_batch(ledger, planned).versions[0].txid, START_HEIGHT)
    with pytest.raises(Rejected) as caught:
        record_batch(ledger, planned)
    assert caught.value.reason is LedgerReason.COIN_NOT_FREE


# Refusals


def _reason(ledger: Ledger, batch: Batch, params: PegParams = ONE) -> object:
    before = snapshot(ledger)
    with pytest.raises(Rejected) as caught:
        check_batch(ledger, batch, CUSTODY, params)
    assert snapshot(ledger) == before
    return caught.value.reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"kind": BatchKind.MAINTENANCE}, BatchReason.NOT_DUE),
        ({"replaces": Txid(bytes(32))}, BatchReason.NO_OPEN_LINEAGE),
        ({"feerate_sat_kvb": 999}, BatchReason.FEERATE_BELOW_FLOOR),
        ({"feerate_sat_kvb": 200_001}, BatchReason.FEERATE_ABOVE_CEILING),
        ({"feerate_sat_kvb": FEERATE + 5}, BatchReason.TRANSACTION_DIFFERS),
        ({"transaction": b""}, BatchReason.TRANSACTION_DIFFERS),
    ],
)
def test_batch_rejects_what_the_ledger_does_not_make(changes: dict[str, object], reason: BatchReason) -> None:
    ledger = ledger_of([1_000_000], [(100_000, 10_000)])
    batch = Batch.of(_planned(ledger))
    assert _reason(ledger, replace(batch, **changes)) is reason  # type: ignore[arg-type]


@pytest.mark.parametrize("feerate_sat_kvb", [1_000, 200_000])
def test_batch_at_the_limits_of_the_feerate_is_valid(feerate_sat_kvb: int) -> None:
    _planned(ledger_of([1_000_000], [(100_000, 90_000)]), ONE, feerate_sat_kvb)


def test_batch_rejects_before_it_is_due() -> None:
    ledger = ledger_of([1_000_000], [(100_000, 10_000)])
    assert _reason(ledger, Batch.of(_planned(ledger)), PARAMS) is BatchReason.NOT_DUE


def test_batch_rejects_while_one_is_open() -> None:
    ledger = ledger_of([1_000_000, 1_000_000], [(100_000, 10_000)])
    planned = _planned(ledger)
    record_batch(ledger, planned)
    assert _reason(ledger, Batch.of(planned)) is BatchReason.LINEAGE_OPEN


@given(batch=BATCHES)
def test_batch_round_trips(batch: Batch) -> None:
    assert Batch.decode(batch.encode()) == batch


@given(batch=BATCHES, data=st.data())
def test_batch_of_any_bytes_encodes_to_them(batch: Batch, data: st.DataObject) -> None:
    changed = bytearray(batch.encode())
    changed[data.draw(st.integers(min_value=0, max_value=len(changed) - 1))] ^= data.draw(
        st.integers(min_value=1, max_value=255)
    )
    try:
        decoded = Batch.decode(bytes(changed))
    except MalformedError:
        return
    assert decoded.encode() == changed


@pytest.mark.parametrize(
    "encoded",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x03" + bytes(16), id="unknown kind"),
        pytest.param(b"\x01\x1f\x00\x00\x00" + bytes(31 + 12), id="short txid"),
        pytest.param(b"\x01\x21\x00\x00\x00" + bytes(33 + 12), id="long txid"),
        pytest.param(b"\x01" + bytes(17), id="trailing byte"),
    ],
)
def test_batch_of_other_bytes_is_malformed(encoded: bytes) -> None:
    assert Batch.decode(b"\x01" + bytes(16)) == Batch(BatchKind.PAYOUT, None, 0, b"")
    with pytest.raises(MalformedError):
        Batch.decode(encoded)
