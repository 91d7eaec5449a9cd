"""Blocks: their bytes, what the body root commits to, and what a decoder refuses."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.batch import Batch
from bridge.bitcoin.identifiers import OutPoint, Script, Txid
from bridge.bitcoin.transaction import Transaction, TxIn, TxOut
from bridge.codec import Writer
from bridge.custody import CoinKind
from bridge.errors import MalformedError
from bridge.evidence import Evidence, Opening
from bridge.state import BatchKind
from federation.record import MAX_SIGNED_RECORD_BYTES
from pegnode.chain.block import (
    EMPTY_BODY,
    MAX_BATCHES,
    MAX_EVIDENCE,
    MAX_RECORDS,
    MAX_REFUNDS,
    MAX_TRANSACTION_BYTES,
    MAX_TRANSACTIONS,
    MIN_TRANSACTION_BYTES,
    Block,
    Body,
)
from tests.support.records import ANY_RECORD
from tests.unit.test_header import HEADER, headers

EVIDENCE = Evidence(b"transaction", b"proof", 5, (Opening(1, CoinKind.DEPOSIT, 0, b"script"),))
BATCH = Batch(BatchKind.PAYOUT, None, 1_000, b"unsigned")
BODY = Body((ANY_RECORD,), (EVIDENCE,), (b"refund",), (b"one", b"two"), (BATCH,))

items = st.lists(st.binary(min_size=MIN_TRANSACTION_BYTES, max_size=100), max_size=3).map(tuple)
openings = st.builds(
    Opening,
    st.integers(0, 2**32 - 1),
    st.sampled_from(CoinKind),
    st.integers(0, 2**32 - 1),
    st.binary(max_size=34),
)
evidence = st.builds(
    Evidence,
    st.binary(max_size=60),
    st.binary(max_size=60),
    st.integers(0, 2**32 - 1),
    st.lists(openings, max_size=3).map(tuple),
)
batches = st.builds(
    Batch,
    st.sampled_from(BatchKind),
    st.none() | st.binary(min_size=32, max_size=32).map(Txid),
    st.integers(0, 2**64 - 1),
    st.binary(max_size=60),
)
records = st.builds(
    lambda serial, members: replace(
        ANY_RECORD,
        record=replace(ANY_RECORD.record, serial=serial),
        signatures=tuple((member, bytes(64)) for member in members),
    ),
    st.integers(0, 2**64 - 1),
    st.lists(st.integers(0, 2**16 - 1), max_size=3),
)
bodies = st.builds(
    Body,
    records=st.lists(records, max_size=2).map(tuple),
    evidence=st.lists(evidence, max_size=3).map(tuple),
    refunds=items,
    transactions=items,
    batches=st.lists(batches, max_size=2).map(tuple),
)
blocks = st.builds(Block, headers, bodies)


@given(blocks)
def test_block_survives_a_round_trip(block: Block) -> None:
    data = block.encode()
    decoded = Block.decode(data)
    assert decoded == block
    assert (decoded.hash, decoded.body.root) == (block.hash, block.body.root)
    assert block.body.size_bytes == len(block.body.encode())
    assert block.body.evidence_bytes == sum(len(item.encode()) for item in block.body.evidence)


@given(blocks, st.data())
def test_block_cut_short_is_malformed(block: Block, data: st.DataObject) -> None:
    encoded = block.encode()
    with pytest.raises(MalformedError):
        Block.decode(encoded[: data.draw(st.integers(0, len(encoded) - 1))])


@given(blocks, st.binary(min_size=1, max_size=5))
def test_block_with_trailing_bytes_is_malformed(block: Block, trailing: bytes) -> None:
    with pytest.raises(MalformedError):
        Block.decode(block.encode() + trailing)


@given(blocks, st.data())
def test_block_with_a_changed_byte_is_malformed_or_another_block(block: Block, data: st.DataObject) -> None:
    encoded = bytearray(block.encode())
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        changed = Block.decode(bytes(encoded))
    except MalformedError:
        return
    assert changed.encode() == bytes(encoded)
    assert changed.hash != block.hash or changed.body.root != block.body.root


@given(bodies, bodies)
def test_body_root_tells_bodies_apart(first: Body, second: Body) -> None:
    assert (first == second) == (first.root == second.root)


@pytest.mark.parametrize(
    "other",
    [
        replace(BODY, records=()),
        replace(BODY, evidence=()),
        replace(BODY, evidence=(EVIDENCE, EVIDENCE)),
        replace(BODY, evidence=(replace(EVIDENCE, proof=b"another"),)),
        replace(BODY, evidence=(replace(EVIDENCE, openings=()),)),
        replace(BODY, refunds=(b"refund", b"")),
        replace(BODY, records=(), refunds=(ANY_RECORD.encode(), b"refund")),
        replace(BODY, transactions=(b"two", b"one")),
        replace(BODY, transactions=(b"onetwo",)),
        replace(BODY, transactions=(b"one", b"two", b"two")),
        replace(BODY, refunds=(), transactions=(b"refund", b"one", b"two")),
        replace(BODY, batches=()),
        replace(BODY, batches=(replace(BATCH, feerate_sat_kvb=1_001),)),
    ],
)
def test_body_root_commits_to_every_section_and_its_order(other: Body) -> None:
    assert other.root != BODY.root


def test_body_root_stays_what_it_was() -> None:
    """Pinned: a change of the encoding or of the tags would fork every chain."""
    assert EMPTY_BODY.root.hex() == "707c27aed8164846dcfe10fbfa21c972a6af2fd27d1229ac4168282426b829b9"
    assert BODY.root.hex() == "ef2dacba5a759f8248ef121190ac54e224f7f6c1dd67e08bf28d20127ea47ccc"


def _counted(section: int, count: int) -> bytes:
    """A body whose sections are empty, but for one that announces `count` items and has none."""
    writer = Writer()
    for index in range(5):
        writer.u32(count if index == section else 0)
    return writer.finish()


@pytest.mark.parametrize(
    ("section", "limit"),
    list(enumerate([MAX_RECORDS, MAX_EVIDENCE, MAX_REFUNDS, MAX_TRANSACTIONS, MAX_BATCHES])),
)
def test_body_with_too_many_items_is_malformed_before_they_are_read(section: int, limit: int) -> None:
    with pytest.raises(MalformedError, match="over its limit"):
        Body.decode(_counted(section, limit + 1))
    with pytest.raises(MalformedError, match=r"wanted|a transaction of 0 bytes"):
        Body.decode(_counted(section, limit))


def test_body_with_too_large_a_transaction_is_malformed() -> None:
    largest = Body(transactions=(bytes(MAX_TRANSACTION_BYTES),))
    assert Body.decode(largest.encode()) == largest
    with pytest.raises(MalformedError, match="over its limit"):
        Body.decode(Body(transactions=(bytes(MAX_TRANSACTION_BYTES + 1),)).encode())


def test_body_with_too_short_a_transaction_or_refund_is_malformed() -> None:
    """Else a body of 400,000 bytes held 100,000 of them, and took a fifth of a second to read."""
    shortest, shorter = bytes(MIN_TRANSACTION_BYTES), bytes(MIN_TRANSACTION_BYTES - 1)
    for body in (Body(transactions=(shortest,)), Body(refunds=(shortest,))):
        assert Body.decode(body.encode()) == body
    for body in (Body(transactions=(shorter,)), Body(refunds=(shorter,))):
        with pytest.raises(MalformedError, match="a transaction of 59 bytes"):
            Body.decode(body.encode())


def test_least_length_of_a_transaction_is_that_of_one_input_and_one_output() -> None:
    least = Transaction(2, (TxIn(OutPoint(Txid(bytes(32)), 0)),), (TxOut(0, Script(b"")),), 0)
    assert len(least.serialize()) == MIN_TRANSACTION_BYTES


def test_body_with_too_long_a_record_or_one_in_another_encoding_is_malformed() -> None:
    def of_records(*items: bytes) -> bytes:
        writer = Writer().sequence(items, Writer.variable)
        for _ in range(4):
            writer.u32(0)
        return writer.finish()

    whole = ANY_RECORD.encode()
    assert Body.decode(of_records(whole, whole)) == Body(records=(ANY_RECORD, ANY_RECORD))
    with pytest.raises(MalformedError, match="over its limit"):
        Body.decode(of_records(bytes(MAX_SIGNED_RECORD_BYTES + 1)))
    for item in (whole + b"\x00", whole[:-1], b""):
        with pytest.raises(MalformedError):
            Body.decode(of_records(whole, item))


def test_body_with_malformed_record_evidence_or_batch_is_malformed() -> None:
    for section in (0, 1, 4):
        writer = Writer()
        for index in range(5):
            writer.sequence([b"no such thing"] if index == section else [], Writer.variable)
        with pytest.raises(MalformedError):
            Body.decode(writer.finish())


def test_block_hash_is_the_headers() -> None:
    assert Block(HEADER, BODY).hash == HEADER.hash == Block(HEADER, EMPTY_BODY).hash
