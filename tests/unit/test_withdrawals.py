"""Burns: what is written is read back, anything else is refused by name, and every cap holds."""

from dataclasses import replace

import pytest
from bitcoin.core.script import OP_RETURN
from hypothesis import given
from hypothesis import strategies as st

from bridge.bitcoin.identifiers import BlockHash, Script
from bridge.bitcoin.script import dust_limit_sats, push
from bridge.bitcoin.transaction import TxOut
from bridge.custody import CoinKind, reserve_script
from bridge.errors import Rejected
from bridge.ledger import Ledger, advance_anchor, enter_coin
from bridge.withdrawals import Burn, BurnReason, check_burns, encode_burn, parse_burn
from tests.support.ledgers import burn as record
from tests.support.peg import (
    ALICE,
    BOB,
    CUSTODY,
    L1_GENESIS,
    PARAMS,
    POLICY,
    START_HEIGHT,
    anchor,
    coin,
    deposit_script,
    new_ledger,
)

PROGRAMS = st.binary(min_size=32, max_size=32)
SCRIPTS = st.one_of(
    PROGRAMS.map(lambda program: Script(b"\x76\xa9\x14" + program[:20] + b"\x88\xac")),
    PROGRAMS.map(lambda program: Script(b"\xa9\x14" + program[:20] + b"\x87")),
    PROGRAMS.map(lambda program: Script(b"\x00\x14" + program[:20])),
    PROGRAMS.map(lambda program: Script(b"\x00\x20" + program)),
    PROGRAMS.map(lambda program: Script(b"\x51\x20" + program)),
)
BURNS = st.builds(Burn, SCRIPTS, st.integers(min_value=0, max_value=2**64 - 1), SCRIPTS)
BURN = Burn(BOB, 2_000, ALICE)


def _script(*items: bytes) -> Script:
    return Script(bytes([OP_RETURN]) + b"".join(push(item) for item in items))


def _parse_reason(script: bytes) -> object:
    with pytest.raises(Rejected) as caught:
        parse_burn(TxOut(100_000, Script(script)), L1_GENESIS)
    return caught.value.reason


def _check_reason(*burns: tuple[Burn, int], ledger: Ledger | None = None, **changes: int) -> object:
    with pytest.raises(Rejected) as caught:
        check_burns(burns, ledger or new_ledger(), CUSTODY, replace(PARAMS, **changes))
    return caught.value.reason


@given(burn=BURNS)
def test_burn_round_trips(burn: Burn) -> None:
    script = encode_burn(L1_GENESIS, burn)
    assert parse_burn(TxOut(1, script), L1_GENESIS) == burn
    assert 89 <= len(script) <= 113


@given(burn=BURNS, data=st.data())
def test_burn_of_any_script_encodes_to_it(burn: Burn, data: st.DataObject) -> None:
    changed = bytearray(encode_burn(L1_GENESIS, burn))
    changed[data.draw(st.integers(min_value=0, max_value=len(changed) - 1))] ^= data.draw(
        st.integers(min_value=1, max_value=255)
    )
    script = Script(bytes(changed))
    try:
        parsed = parse_burn(TxOut(1, script), L1_GENESIS)
    except Rejected:
        return
    assert encode_burn(L1_GENESIS, parsed) == script


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(b"", id="empty"),
        pytest.param(encode_burn(L1_GENESIS, BURN)[1:], id="without OP_RETURN"),
        pytest.param(encode_burn(L1_GENESIS, BURN)[:-1], id="cut"),
        pytest.param(encode_burn(L1_GENESIS, BURN) + b"\x00", id="continued"),
        pytest.param(_script(L1_GENESIS, BOB, bytes(8)), id="missing push"),
        pytest.param(_script(L1_GENESIS, BOB, bytes(8), ALICE, b"\x07\x07"), id="extra push"),
        pytest.param(_script(L1_GENESIS[:31], BOB, bytes(8), ALICE), id="short genesis hash"),
        pytest.param(_script(L1_GENESIS, BOB, bytes(7), ALICE), id="short fee"),
        pytest.param(_script(L1_GENESIS, BOB, bytes(9), ALICE), id="long fee"),
        pytest.param(
            encode_burn(L1_GENESIS, BURN).replace(b"\x08", b"\x4c\x08", 1),
            id="push longer than needed",
        ),
    ],
)
def test_burn_rejects_another_form(script: bytes) -> None:
    assert _parse_reason(script) is BurnReason.MALFORMED


def test_burn_rejects_another_networks_genesis() -> None:
    assert _parse_reason(encode_burn(BlockHash(bytes(32)), BURN)) is BurnReason.WRONG_GENESIS


@pytest.mark.parametrize("script", [b"", b"\x51", b"\x51\x20" + bytes(31), b"\x52\x20" + bytes(32)])
def test_burn_rejects_other_types_of_script(script: bytes) -> None:
    l1 = encode_burn(L1_GENESIS, replace(BURN, l1_script=Script(script)))
    refund = encode_burn(L1_GENESIS, replace(BURN, refund_script=Script(script)))
    assert _parse_reason(l1) is BurnReason.L1_SCRIPT_TYPE
    assert _parse_reason(refund) is BurnReason.REFUND_SCRIPT_TYPE


@pytest.mark.parametrize("kind", [CoinKind.CHANGE, CoinKind.DONATION])
def test_burn_rejects_the_reserve_as_its_payee(kind: CoinKind) -> None:
    to_reserve = replace(BURN, l1_script=reserve_script(POLICY, kind).script)
    assert _check_reason((to_reserve, 100_000)) is BurnReason.RESERVE_SCRIPT


def test_burn_may_pay_a_deposit_script() -> None:
    check_burns([(replace(BURN, l1_script=deposit_script()), 100_000)], new_ledger(), CUSTODY, PARAMS)


@given(burn=BURNS.map(lambda burn: replace(burn, max_fee_sats=burn.max_fee_sats % 100_000)))
def test_burn_leaves_its_payee_no_dust(burn: Burn) -> None:
    least_sats = burn.max_fee_sats + dust_limit_sats(burn.l1_script)
    check_burns([(burn, least_sats)], new_ledger(), CUSTODY, replace(PARAMS, refund_fee_sats=0, min_withdrawal_sats=1))
    expected = BurnReason.MAX_FEE if burn.max_fee_sats else BurnReason.DUST
    assert _check_reason((burn, least_sats - 1), refund_fee_sats=0, min_withdrawal_sats=1) is expected


def test_burn_rejects_a_value_below_dust_whatever_its_max_fee() -> None:
    dust_sats = dust_limit_sats(BURN.l1_script)
    for max_fee_sats in (0, 1, 2**64 - 1):
        burn = replace(BURN, max_fee_sats=max_fee_sats)
        assert _check_reason((burn, dust_sats - 1), refund_fee_sats=0, min_withdrawal_sats=1) is BurnReason.DUST


def test_burn_rejects_a_max_fee_that_may_eat_its_value() -> None:
    dust_sats = dust_limit_sats(BURN.l1_script)
    check_burns([(replace(BURN, max_fee_sats=100_000 - dust_sats), 100_000)], new_ledger(), CUSTODY, PARAMS)
    for max_fee_sats in (100_000 - dust_sats + 1, 100_000, 100_001, 2**64 - 1):
        assert _check_reason((replace(BURN, max_fee_sats=max_fee_sats), 100_000)) is BurnReason.MAX_FEE


def test_burn_rejects_what_a_refund_would_use_up() -> None:
    check_burns([(BURN, 5_001)], new_ledger(), CUSTODY, replace(PARAMS, refund_fee_sats=5_000))
    assert _check_reason((BURN, 5_000), refund_fee_sats=5_000) is BurnReason.BELOW_REFUND_FEE


def test_burn_rejects_less_than_the_least_withdrawal() -> None:
    check_burns([(BURN, 10_000)], new_ledger(), CUSTODY, replace(PARAMS, min_withdrawal_sats=10_000))
    assert _check_reason((BURN, 9_999), min_withdrawal_sats=10_000) is BurnReason.BELOW_MIN_WITHDRAWAL


def test_burn_rejects_more_than_the_cap_of_one() -> None:
    check_burns([(BURN, 100_000)], new_ledger(), CUSTODY, replace(PARAMS, max_withdrawal_sats=100_000))
    assert _check_reason((BURN, 100_001), max_withdrawal_sats=100_000) is BurnReason.OVER_MAX_WITHDRAWAL


def test_burns_of_one_transaction_count_together_for_the_window() -> None:
    params = replace(PARAMS, max_window_withdrawals_sats=300_000)
    check_burns([(BURN, 200_000), (BURN, 100_000)], new_ledger(), CUSTODY, params)
    reason = _check_reason((BURN, 200_000), (BURN, 100_001), max_window_withdrawals_sats=300_000)
    assert reason is BurnReason.OVER_WINDOW


def test_burn_counts_those_of_the_window_and_no_older_ones() -> None:
    ledger = new_ledger()
    enter_coin(ledger, coin(1, 1_000_000), 0)
    record(ledger, 2, 200_000)
    advance_anchor(ledger, anchor(START_HEIGHT + 100), PARAMS)
    record(ledger, 3, 50_000)
    params = replace(PARAMS, max_window_withdrawals_sats=300_000)
    check_burns([(BURN, 50_000)], ledger, CUSTODY, params)
    assert _check_reason((BURN, 50_001), ledger=ledger, max_window_withdrawals_sats=300_000) is BurnReason.OVER_WINDOW
    advance_anchor(ledger, anchor(START_HEIGHT + 144), PARAMS)
    check_burns([(BURN, 250_000)], ledger, CUSTODY, params)


def test_no_burns_are_always_within_the_caps() -> None:
    check_burns([], new_ledger(), CUSTODY, PARAMS)
