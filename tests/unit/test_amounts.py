"""Money in text, and fees."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.bitcoin.amounts import COIN, MAX_MONEY_SATS, AmountReason, fee_sats, format_btc, parse_btc
from bridge.errors import Rejected


@given(st.integers(0, MAX_MONEY_SATS))
def test_amount_round_trips(value_sats: int) -> None:
    assert parse_btc(format_btc(value_sats)) == value_sats


@pytest.mark.parametrize(
    ("text", "value_sats"),
    [
        ("0", 0),
        ("1", COIN),
        ("0.5", COIN // 2),
        ("0.00000001", 1),
        ("0.1", 10_000_000),  # where a float is off
        ("2.3", 230_000_000),
        ("20999999.99999999", MAX_MONEY_SATS - 1),
        ("21000000", MAX_MONEY_SATS),
        ("00000000000000000001.50", 150_000_000),
        ("0" * 5000 + "1", COIN),  # longer than the language reads a number
    ],
)
def test_amount_is_read(text: str, value_sats: int) -> None:
    assert parse_btc(text) == value_sats


@pytest.mark.parametrize(
    "text", ["", ".", "1.", ".5", "-1", "+1", "1e3", "1,5", "1.2.3", " 1", "1 ", "1_000", "0x1", "NaN", "inf", "\u0661"]
)
def test_amount_is_refused_when_malformed(text: str) -> None:
    with pytest.raises(Rejected) as rejection:
        parse_btc(text)
    assert rejection.value.reason is AmountReason.MALFORMED


def test_amount_is_refused_below_a_satoshi() -> None:
    with pytest.raises(Rejected) as rejection:
        parse_btc("0.000000001")
    assert rejection.value.reason is AmountReason.TOO_MANY_DECIMALS


@pytest.mark.parametrize("text", ["21000000.00000001", "100000000", "9" * 5000])
def test_amount_is_refused_above_all_money(text: str) -> None:
    with pytest.raises(Rejected) as rejection:
        parse_btc(text)
    assert rejection.value.reason is AmountReason.OUT_OF_RANGE


def test_negative_balance_is_shown_with_its_sign() -> None:
    assert format_btc(-1) == "-0.00000001"


@pytest.mark.parametrize(
    ("vsize_vbytes", "feerate_sat_kvb", "fee"),
    [(0, 1000, 0), (141, 1000, 141), (141, 1001, 142), (1, 1, 1), (1000, 1, 1), (1001, 1, 2), (367, 0, 0)],
)
def test_fee_is_rounded_up(vsize_vbytes: int, feerate_sat_kvb: int, fee: int) -> None:
    assert fee_sats(vsize_vbytes, feerate_sat_kvb) == fee
