"""Transactions: bytes that both parsers give back, and nothing else."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from bitcoin.core import CTransaction
from hypothesis import given
from hypothesis import strategies as st

from bridge.bitcoin import kernel
from bridge.bitcoin.hashes import sha256d
from bridge.bitcoin.identifiers import OutPoint, Script, Txid
from bridge.bitcoin.transaction import Transaction, TransactionReason, TxIn, TxOut, compact_size
from bridge.errors import Rejected
from tests.support.transactions import TRANSACTIONS

COIN = OutPoint(Txid(bytes(range(32))), 1)
PLAIN = Transaction(2, (TxIn(COIN),), (TxOut(1000, Script(b"\x51")),))
WITH_WITNESS = PLAIN.with_witnesses([(b"a", b"")])


def _reason(data: bytes) -> TransactionReason:
    with pytest.raises(Rejected) as rejection:
        Transaction.parse(data)
    assert isinstance(rejection.value.reason, TransactionReason)
    return rejection.value.reason


@given(TRANSACTIONS)
def test_transaction_round_trips(transaction: Transaction) -> None:
    parsed = Transaction.parse(transaction.serialize())
    assert parsed == transaction
    assert parsed.serialize() == transaction.serialize()
    assert Transaction.parse_stripped(parsed.serialize_stripped()).txid == parsed.txid


@given(TRANSACTIONS, st.data())
def test_transaction_is_refused_when_cut(transaction: Transaction, data: st.DataObject) -> None:
    encoded = transaction.serialize()
    assert _reason(encoded[: data.draw(st.integers(0, len(encoded) - 1))]) is TransactionReason.MALFORMED


@given(st.binary(max_size=120))
def test_bytes_are_refused_or_given_back(data: bytes) -> None:
    try:
        parsed = Transaction.parse(data)
    except Rejected:
        return
    assert parsed.serialize() == data


@given(TRANSACTIONS, st.data())
def test_changed_bytes_are_refused_or_given_back(transaction: Transaction, data: st.DataObject) -> None:
    encoded = bytearray(transaction.serialize())
    position = data.draw(st.integers(0, len(encoded) - 1))
    encoded[position] = data.draw(st.integers(0, 255))
    try:
        parsed = Transaction.parse(bytes(encoded))
    except Rejected:
        return
    assert parsed.serialize() == encoded


def test_first_coinbase_has_its_known_txid() -> None:
    data = bytes.fromhex(
        "01000000010000000000000000000000000000000000000000000000000000000000000000ffffffff4d04ffff001d0104455468652054696d65"
        "732030332f4a616e2f32303039204368616e63656c6c6f72206f6e206272696e6b206f66207365636f6e64206261696c6f757420666f722062"
        "616e6b73ffffffff0100f2052a01000000434104678afdb0fe5548271967f1a67130b7105cd6a828e03909a67962e0ea1f61deb649f6bc3f4c"
        "ef38c4f35504e51ec112de5c384df7ba0b8d578a4c702b6bf11d5fac00000000"
    )
    transaction = Transaction.parse(data)
    assert transaction.txid[::-1].hex() == "4a5e1e4baab89f3a32518a88c31bc87f618f76673e2cc77ab2127b7afdeda33b"
    assert transaction.is_coinbase
    assert not PLAIN.is_coinbase


def test_sizes_count_the_witness_once_and_the_rest_four_times() -> None:
    assert PLAIN.weight == 4 * len(PLAIN.serialize())
    witness_bytes = 2 + 1 + 2 + 1  # marker and flag, count, "a", empty
    assert WITH_WITNESS.stripped_size == len(PLAIN.serialize())
    assert WITH_WITNESS.weight == PLAIN.weight + witness_bytes
    assert WITH_WITNESS.vsize_vbytes == -(-WITH_WITNESS.weight // 4)
    assert WITH_WITNESS.txid == PLAIN.txid == sha256d(PLAIN.serialize())
    assert WITH_WITNESS.wtxid == sha256d(WITH_WITNESS.serialize()) != WITH_WITNESS.txid


def test_witnesses_are_refused_when_not_one_for_each_input() -> None:
    with pytest.raises(ValueError, match="zip"):
        PLAIN.with_witnesses([])


@pytest.mark.parametrize("version", [0, 1, 2, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_version_is_unsigned(version: int) -> None:
    data = version.to_bytes(4, "little") + PLAIN.serialize()[4:]
    assert Transaction.parse(data).version == version


def test_trailing_bytes_are_refused_though_the_kernel_takes_them() -> None:
    data = PLAIN.serialize() + b"\x00"
    assert kernel.reserialize(data) == PLAIN.serialize()
    assert _reason(data) is TransactionReason.PARSER_DISAGREEMENT


def test_threads_that_parse_at_once_do_not_mix_their_bytes() -> None:
    transactions = [
        Transaction(2, (TxIn(OutPoint(Txid(sha256d(b"%d" % number)), number)),), PLAIN.outputs * (number % 7 + 1))
        for number in range(400)
    ]
    with ThreadPoolExecutor(8) as threads:
        parsed = list(threads.map(Transaction.parse, [transaction.serialize() for transaction in transactions]))
    assert parsed == transactions


def test_bytes_that_no_parser_takes_are_refused() -> None:
    assert _reason(b"nothing") is TransactionReason.MALFORMED
    assert _reason(PLAIN.serialize()[:-1]) is TransactionReason.MALFORMED


@pytest.mark.parametrize("count", [b"\xfd\x01\x00", b"\xfe\x01\x00\x00\x00", b"\xff\x01" + bytes(7)], ids=bytes.hex)
def test_count_is_refused_unless_it_is_the_shortest_though_the_library_takes_it(count: bytes) -> None:
    data = PLAIN.serialize()
    assert data[4] == 1
    long = data[:4] + count + data[5:]
    assert CTransaction.deserialize(long).serialize() == data
    assert _reason(long) is TransactionReason.PARSER_DISAGREEMENT


def test_superfluous_witness_is_refused_though_the_library_takes_it() -> None:
    data = PLAIN.serialize()
    announced = data[:4] + b"\x00\x01" + data[4:-4] + b"\x00" + data[-4:]
    assert CTransaction.deserialize(announced).serialize() == data
    assert _reason(announced) is TransactionReason.PARSER_DISAGREEMENT


def test_transaction_is_refused_without_inputs_or_outputs() -> None:
    assert _reason(bytes(10)) is TransactionReason.EMPTY
    assert _reason(replace(PLAIN, outputs=()).serialize()) is TransactionReason.EMPTY


@pytest.mark.parametrize("value", [21_000_000 * 100_000_000 + 1, 2**63 - 1, 2**63, 2**64 - 1])
def test_value_is_refused_out_of_range(value: int) -> None:
    data = PLAIN.serialize()
    start = data.index((1000).to_bytes(8, "little"))
    spoiled = data[:start] + value.to_bytes(8, "little") + data[start + 8 :]
    assert _reason(spoiled) is TransactionReason.VALUE_OUT_OF_RANGE


def test_stripped_form_is_refused_with_a_witness() -> None:
    assert Transaction.parse_stripped(PLAIN.serialize()) == PLAIN
    with pytest.raises(Rejected) as rejection:
        Transaction.parse_stripped(WITH_WITNESS.serialize())
    assert rejection.value.reason is TransactionReason.HAS_WITNESS


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (0, "00"),
        (0xFC, "fc"),
        (0xFD, "fdfd00"),
        (0xFFFF, "fdffff"),
        (0x10000, "fe00000100"),
        (0xFFFFFFFF, "feffffffff"),
        (0x100000000, "ff0000000001000000"),
    ],
)
def test_compact_size_is_the_shortest(value: int, encoded: str) -> None:
    assert compact_size(value).hex() == encoded
