"""Typed fields of a reply: what is read, and what is refused instead of guessed."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.bitcoin.amounts import MAX_MONEY_SATS, format_btc
from bridge.l1.answers import MAX_VOUT, ChainInfo, L1Header, L1TxOut, MempoolVerdict, ScannedOutput, TxOutSetScan
from bridge.l1.errors import L1Reason, L1Unavailable
from bridge.l1.reply import Reply

HASH_HEX = "00" * 31 + "01"
HASH = b"\x01" + bytes(31)


def _refused(read: Callable[[], object]) -> str:
    with pytest.raises(L1Unavailable) as caught:
        read()
    assert caught.value.reason == L1Reason.BAD_RESPONSE
    return caught.value.detail


@given(st.integers(0, MAX_MONEY_SATS))
def test_sats_of_any_amount_are_exact(value_sats: int) -> None:
    assert Reply(Decimal(format_btc(value_sats)), "x").sats() == value_sats


@pytest.mark.parametrize(
    "value",
    [
        Decimal("0.000000001"),
        Decimal("-0.00000001"),
        Decimal("21000000.00000001"),
        Decimal("NaN"),
        Decimal("Infinity"),
        Decimal("1E+99999"),
        Decimal("0." + "1" * 60),
        -1,
        21_000_001,
        True,
        "0.5",
        0.5,
        None,
    ],
)
def test_sats_refuses_what_is_no_amount(value: object) -> None:
    _refused(Reply(value, "x").sats)


@pytest.mark.parametrize(("value", "sats"), [(2, 200_000_000), (Decimal("1E-8"), 1), (Decimal("0E-8"), 0)])
def test_sats_reads_other_spellings_of_a_number(value: object, sats: int) -> None:
    assert Reply(value, "x").sats() == sats


@pytest.mark.parametrize("value", [True, "1", Decimal(1), -1, 1 << 63, None])
def test_integer_refuses_what_is_no_integer_in_range(value: object) -> None:
    _refused(Reply(value, "x").integer)


def test_integer_above_the_greatest_is_refused() -> None:
    assert Reply(7, "x").integer(maximum=7) == 7
    _refused(lambda: Reply(8, "x").integer(maximum=7))


def test_output_beyond_any_transaction_is_refused() -> None:
    found = {"txid": "ab" * 32, "vout": MAX_VOUT, "amount": 1, "scriptPubKey": "51", "height": 1, "coinbase": False}
    assert ScannedOutput.parse(Reply(found, "x")).outpoint.vout == MAX_VOUT
    _refused(lambda: ScannedOutput.parse(Reply({**found, "vout": MAX_VOUT + 1}, "x")))


def test_integer_below_zero_is_read_where_it_is_allowed() -> None:
    assert Reply(-1, "x").integer(minimum=-1) == -1


@pytest.mark.parametrize("value", ["00" * 31, "zz" * 32, "00" * 33, "  " + "00" * 31, 5, None])
def test_hash_refuses_what_is_no_hash(value: object) -> None:
    _refused(Reply(value, "x").hash)


def test_hash_is_turned_into_internal_order() -> None:
    assert Reply(HASH_HEX, "x").txid() == HASH


@pytest.mark.parametrize("value", ["0", "zz", 5])
def test_data_refuses_what_is_not_hexadecimal(value: object) -> None:
    _refused(Reply(value, "x").data)


def test_flag_and_text_and_items_refuse_other_types() -> None:
    for read in (Reply(1, "x").flag, Reply(1, "x").text, Reply({}, "x").items, Reply({}, "x").only):
        _refused(read)
    _refused(lambda: Reply([], "x")["y"])


def test_only_element_is_refused_beside_others_and_without_any() -> None:
    assert Reply(["a"], "x").only().text() == "a"
    for value in ([], ["a", "b"]):
        _refused(Reply(value, "x").only)


def test_error_names_the_absent_field() -> None:
    assert _refused(Reply({"a": [{}]}, "method")["a"].items()[0]["b"].text) == "method.a[0].b: absent"


def test_header_of_the_genesis_block_has_no_parent() -> None:
    fields = {"hash": HASH_HEX, "height": 0, "confirmations": -1, "nTx": 1, "merkleroot": HASH_HEX, "time": 5}
    header = L1Header.parse(Reply(fields, "x"))
    assert (header.previous_hash, header.confirmations, header.block_hash) == (None, -1, HASH)
    child = L1Header.parse(Reply({**fields, "previousblockhash": HASH_HEX}, "x"))
    assert child.previous_hash == HASH


def test_refused_transaction_has_a_reason_and_no_size() -> None:
    verdict = MempoolVerdict.parse(Reply({"allowed": False, "reject-reason": "missing-inputs"}, "x"))
    assert verdict == MempoolVerdict(False, "missing-inputs", None, None)


@pytest.mark.parametrize(
    "parse", [ChainInfo.parse, L1Header.parse, L1TxOut.parse, MempoolVerdict.parse, ScannedOutput.parse]
)
@given(value=st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.dictionaries(st.text(), inner)))
def test_arbitrary_json_is_refused_by_every_answer(parse: Callable[[Reply], object], value: object) -> None:
    _refused(lambda: parse(Reply(value, "x")))


def test_scan_that_was_ended_early_is_no_answer() -> None:
    """The node then tells what it had found by that time, as if there were nothing more."""
    scan: dict[str, object] = {"success": True, "height": 7, "bestblock": HASH_HEX, "unspents": []}
    assert TxOutSetScan.parse(Reply(scan, "scantxoutset")).height == 7
    assert "before it was complete" in _refused(lambda: TxOutSetScan.parse(Reply(scan | {"success": False}, "x")))
    del scan["success"]
    assert _refused(lambda: TxOutSetScan.parse(Reply(scan, "x"))) == "x.success: absent"
