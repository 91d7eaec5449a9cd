"""The PSBT container: bytes that anybody may hand over, read once or refused, and kept whole."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.bitcoin.identifiers import OutPoint, Script, Txid
from bridge.bitcoin.transaction import Transaction, TxIn, TxOut
from bridge.errors import Rejected
from bridge.psbt import (
    GLOBAL_TRANSACTION,
    GLOBAL_VERSION,
    MAGIC,
    MAX_PSBT_SIZE,
    WITNESS_UTXO,
    Psbt,
    PsbtReason,
    proprietary_key,
    script_path_entries,
    signature_key,
    signatures,
    spent_output,
)
from tests.support.peg import ALICE, BOB

OUTPUT = TxOut(50_000, BOB)
TRANSACTION = Transaction(
    2, (TxIn(OutPoint(Txid(b"\x01" * 32), 3), sequence=144),), (TxOut(40_000, ALICE), TxOut(9_000, BOB))
)
FIELDS = script_path_entries(OUTPUT, b"\x11" * 32, b"\x22" * 32, b"\x51", b"\xc0" + b"\x33" * 64)
PSBT = Psbt.of(TRANSACTION, {proprietary_key(0): b"chain"}, (FIELDS,))


def reason(data: bytes) -> PsbtReason:
    with pytest.raises(Rejected) as rejection:
        Psbt.decode(data)
    assert isinstance(rejection.value.reason, PsbtReason)
    return rejection.value.reason


def entry(key: bytes, value: bytes) -> bytes:
    return bytes([len(key)]) + key + bytes([len(value)]) + value


def test_layout_is_the_one_of_bip_174_and_371() -> None:
    transaction = TRANSACTION.serialize()
    first = entry(b"\x00", transaction) + entry(b"\xfc\x07pegnode\x00", b"chain") + b"\x00"
    value = (50_000).to_bytes(8, "little") + b"\x22" + BOB
    fields = (
        entry(b"\x01", value)
        + entry(b"\x15\xc0" + b"\x33" * 64, b"\x51\xc0")
        + entry(b"\x17", b"\x11" * 32)
        + entry(b"\x18", b"\x22" * 32)
        + b"\x00"
    )
    assert PSBT.encode() == b"psbt\xff" + first + fields + b"\x00" + b"\x00"


def test_psbt_is_read_back_as_it_was_written() -> None:
    assert Psbt.decode(PSBT.encode()) == PSBT
    assert spent_output(PSBT.inputs[0]) == OUTPUT


@given(st.dictionaries(st.binary(min_size=2, max_size=300), st.binary(max_size=300), max_size=4))
def test_entries_of_others_are_kept(others: dict[bytes, bytes]) -> None:
    psbt = replace(PSBT, inputs=({**others, **FIELDS},), outputs=(others, {}))
    assert Psbt.decode(psbt.encode()) == psbt


def test_signatures_are_found_by_their_leaf() -> None:
    leaf, other = b"\x44" * 32, b"\x55" * 32
    entries = {
        signature_key(b"\x01" * 32, leaf): b"one",
        signature_key(b"\x02" * 32, other): b"of another leaf",
        signature_key(b"\x03" * 32, leaf) + b"\x00": b"of another form",
        **FIELDS,
    }
    assert signatures(entries, leaf) == {b"\x01" * 32: b"one"}


@pytest.mark.parametrize("size", range(0, len(PSBT.encode()), 7))
def test_psbt_is_refused_when_it_is_cut(size: int) -> None:
    assert reason(PSBT.encode()[:size]) is PsbtReason.MALFORMED


def test_psbt_is_refused_with_more_bytes_than_it_has() -> None:
    assert reason(PSBT.encode() + b"\x00") is PsbtReason.MALFORMED


def test_psbt_is_refused_with_a_key_twice() -> None:
    data = PSBT.encode()
    again = entry(b"\x17", b"\x66" * 32)
    assert reason(data.replace(entry(b"\x18", b"\x22" * 32), again)) is PsbtReason.MALFORMED


def test_psbt_is_refused_with_a_size_in_a_longer_form() -> None:
    data = PSBT.encode().replace(entry(b"\x17", b"\x11" * 32), b"\xfd\x01\x00\x17\x20" + b"\x11" * 32)
    assert reason(data) is PsbtReason.MALFORMED


def test_psbt_is_refused_over_the_limit_before_it_is_read() -> None:
    assert reason(MAGIC + bytes(MAX_PSBT_SIZE)) is PsbtReason.TOO_LARGE


def test_psbt_of_another_version_is_refused() -> None:
    versioned = replace(PSBT, entries={GLOBAL_VERSION: (2).to_bytes(4, "little")})
    assert reason(versioned.encode()) is PsbtReason.VERSION
    known = replace(PSBT, entries={GLOBAL_VERSION: bytes(4)})
    assert Psbt.decode(known.encode()) == known


@pytest.mark.parametrize(
    "transaction",
    [
        b"",
        b"\x00" * 60,
        TRANSACTION.with_witnesses([(b"signed",)]).serialize(),
        replace(TRANSACTION, inputs=(replace(TRANSACTION.inputs[0], script_sig=b"\x51"),)).serialize(),
    ],
    ids=["nothing", "garbage", "with a witness", "with a script"],
)
def test_psbt_is_refused_unless_its_transaction_is_unsigned(transaction: bytes) -> None:
    assert reason(MAGIC + entry(GLOBAL_TRANSACTION, transaction) + b"\x00" * 4) is PsbtReason.TRANSACTION


def test_psbt_is_refused_without_a_transaction() -> None:
    assert reason(MAGIC + b"\x00\x00") is PsbtReason.TRANSACTION


@pytest.mark.parametrize("value", [b"", bytes(8), bytes(8) + b"\x02\x51", bytes(8) + b"\x01\x51\x00"])
def test_spent_output_is_refused_unless_it_is_one(value: bytes) -> None:
    with pytest.raises(Rejected) as rejection:
        spent_output({WITNESS_UTXO: value})
    assert rejection.value.reason is PsbtReason.OUTPUT


def test_spent_output_is_refused_when_it_is_not_told() -> None:
    with pytest.raises(Rejected) as rejection:
        spent_output({})
    assert rejection.value.reason is PsbtReason.OUTPUT


def test_combining_keeps_what_either_knows() -> None:
    one = replace(PSBT, inputs=({**FIELDS, b"\x14one": b"1", b"\xffboth": b"mine"},))
    two = replace(PSBT, inputs=({**FIELDS, b"\x14two": b"2", b"\xffboth": b"theirs"},))
    both = one.combined(two)
    assert both.inputs == ({**FIELDS, b"\x14one": b"1", b"\x14two": b"2", b"\xffboth": b"mine"},)
    assert both.entries == PSBT.entries


def test_combining_refuses_another_transaction() -> None:
    other = replace(TRANSACTION, outputs=(TxOut(40_001, Script(ALICE)), TRANSACTION.outputs[1]))
    with pytest.raises(Rejected) as rejection:
        PSBT.combined(replace(PSBT, transaction=other))
    assert rejection.value.reason is PsbtReason.ANOTHER_TRANSACTION
