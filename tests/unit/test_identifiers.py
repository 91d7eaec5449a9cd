"""Ids are raw bytes inside, and reversed hex at the edge."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.bitcoin.hashes import sha256, sha256d, tagged_hash, tagged_list
from bridge.bitcoin.identifiers import OutPoint, Txid, hash_from_hex, hash_to_hex, outpoint_from_text
from bridge.errors import MalformedError
from tests.support.transactions import HASHES, OUTPOINTS


@given(OUTPOINTS)
def test_outpoint_round_trips_as_bytes_and_text(outpoint: OutPoint) -> None:
    assert len(outpoint.encode()) == 36
    assert OutPoint.decode(outpoint.encode()) == outpoint
    assert outpoint_from_text(str(outpoint)) == outpoint


@given(HASHES)
def test_hash_round_trips_reversed(value: bytes) -> None:
    assert hash_to_hex(value) == bytes(reversed(value)).hex()
    assert hash_from_hex(hash_to_hex(value)) == value


def test_hash_of_the_first_block_is_shown_as_everyone_knows_it() -> None:
    header = bytes.fromhex(
        "0100000000000000000000000000000000000000000000000000000000000000000000003ba3edfd7a7b12b27ac72c3e67768f617fc81bc3"
        "888a51323a9fb8aa4b1e5e4a29ab5f49ffff001d1dac2b7c"
    )
    assert hash_to_hex(sha256d(header)) == "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f"


@pytest.mark.parametrize("size", [0, 35, 37])
def test_outpoint_is_refused_with_another_size(size: int) -> None:
    with pytest.raises(MalformedError):
        OutPoint.decode(bytes(size))


@pytest.mark.parametrize(
    "text", ["", "00" * 31, "00" * 33, "0x" + "00" * 31, "zz" * 32, "00 " * 21 + "0", "00 " * 32, "é" * 64]
)
def test_hash_text_is_refused(text: str) -> None:
    with pytest.raises(MalformedError):
        hash_from_hex(text)


@pytest.mark.parametrize(
    "vout", ["", ":", ":-1", ":+1", ":1.0", ":4294967296", ":\u0663", ":00000000001", ": 1", ":1_0"]
)
def test_outpoint_text_is_refused(vout: str) -> None:
    with pytest.raises(MalformedError):
        outpoint_from_text("00" * 32 + vout)


@given(st.lists(st.binary(max_size=8), max_size=4))
def test_outpoints_are_ordered_as_their_encodings_are_for_one_transaction(items: list[bytes]) -> None:
    outpoints = [OutPoint(Txid(item.ljust(32, b"\x00")), 0) for item in items]
    assert sorted(outpoints) == sorted(outpoints, key=OutPoint.encode)


def test_tagged_hash_is_the_one_of_bip340() -> None:
    prefix = sha256(b"BIP0340/challenge") * 2
    assert tagged_hash("BIP0340/challenge", b"x") == sha256(prefix + b"x")


def test_tagged_list_commits_to_count_and_borders() -> None:
    lists: list[list[bytes]] = [[], [b""], [b"", b""], [b"ab"], [b"a", b"b"], [tagged_hash("t", b"")]]
    assert len({tagged_list("t", items) for items in lists}) == len(lists)
