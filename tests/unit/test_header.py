"""The header: its bytes, its hash, and what it refuses to read."""

from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.bitcoin.identifiers import BlockHash
from bridge.errors import MalformedError
from bridge.state import Anchor
from pegnode.chain.header import HEADER_SIZE, HEADER_VERSION, Header

HEADER = Header(
    version=HEADER_VERSION,
    chain_id=b"\x01" * 32,
    epoch=2,
    height=3,
    view=4,
    parent=BlockHash(b"\x05" * 32),
    leader=6,
    time_ms=7_999,
    anchor=Anchor(8, BlockHash(b"\x09" * 32)),
    body_root=b"\x0a" * 32,
    ledger_root=b"\x0b" * 32,
)
CHANGES: dict[str, object] = {
    "version": 9,
    "chain_id": b"\x99" * 32,
    "epoch": 9,
    "height": 9,
    "view": 9,
    "parent": b"\x99" * 32,
    "leader": 9,
    "time_ms": 9,
    "anchor": Anchor(9, BlockHash(b"\x09" * 32)),
    "body_root": b"\x99" * 32,
    "ledger_root": b"\x99" * 32,
}

hashes = st.binary(min_size=32, max_size=32)
u16 = st.integers(0, 2**16 - 1)
u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
headers = st.builds(
    Header,
    version=u32,
    chain_id=hashes,
    epoch=u32,
    height=u64,
    view=u64,
    parent=hashes,
    leader=u16,
    time_ms=u64,
    anchor=st.builds(Anchor, u32, hashes),
    body_root=hashes,
    ledger_root=hashes,
)


@given(headers)
def test_header_survives_a_round_trip(header: Header) -> None:
    data = header.encode()
    assert len(data) == HEADER_SIZE
    assert Header.decode(data) == header
    assert Header.decode(data).hash == header.hash


@given(st.binary(max_size=HEADER_SIZE + 8))
def test_header_of_arbitrary_bytes_is_malformed_or_canonical(data: bytes) -> None:
    try:
        header = Header.decode(data)
    except MalformedError:
        assert len(data) != HEADER_SIZE
    else:
        assert header.encode() == data


@pytest.mark.parametrize("data", [b"", HEADER.encode()[:-1], HEADER.encode() + b"\x00"])
def test_header_of_another_length_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedError):
        Header.decode(data)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("version", 2**32),
        ("chain_id", bytes(31)),
        ("epoch", -1),
        ("height", 2**64),
        ("view", -1),
        ("parent", bytes(33)),
        ("leader", 2**16),
        ("time_ms", 2**64),
        ("anchor", Anchor(2**32, BlockHash(bytes(32)))),
        ("body_root", b""),
        ("ledger_root", bytes(64)),
    ],
)
def test_header_with_a_field_out_of_range_has_no_bytes(name: str, value: object) -> None:
    with pytest.raises(MalformedError):
        replace(HEADER, **{name: value}).encode()  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [field.name for field in fields(Header)])
def test_header_hash_commits_to_every_field(name: str) -> None:
    changed = replace(HEADER, **{name: CHANGES[name]})  # type: ignore[arg-type]
    assert changed.hash != HEADER.hash
    assert Header.decode(changed.encode()) == changed


def test_header_hash_stays_what_it_was() -> None:
    """Pinned: a change of the encoding or of the tag would fork every chain."""
    assert HEADER.hash.hex() == "e7956c02058d2b852300aa7058c1bf1afe7dd54017d98f6dae8d5b3b47fc02bc"


def test_header_time_is_cut_to_whole_seconds() -> None:
    assert HEADER.time_seconds == 7
