"""The ledger's values: one encoding each, nothing else decodes, and the totals refuse to be unequal."""

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.bitcoin.hashes import tagged_hash
from bridge.bitcoin.identifiers import BlockHash, OutPoint, Script, Txid
from bridge.custody import CoinKind
from bridge.errors import MalformedError, Rejected
from bridge.state import (
    MAX_LIST_ITEMS,
    Anchor,
    BatchKind,
    BatchVersion,
    Coin,
    LedgerReason,
    Lineage,
    Totals,
    WindowEntry,
    Withdrawal,
    WithdrawalStatus,
    chain_hash,
)

U32 = st.integers(min_value=0, max_value=2**32 - 1)
U64 = st.integers(min_value=0, max_value=2**64 - 1)
HASHES = st.binary(min_size=32, max_size=32)
OUTPOINTS = st.builds(OutPoint, HASHES.map(Txid), U32)
SCRIPTS = st.binary(max_size=34).map(Script)
ANCHORS = st.builds(Anchor, U32, HASHES.map(BlockHash))
VERSIONS = st.builds(BatchVersion, HASHES.map(Txid), st.binary(max_size=100), U64, U64, U64, U32, U32)
VALUES = st.one_of(
    ANCHORS,
    st.builds(Coin, OUTPOINTS, U64, st.sampled_from(CoinKind), U32, SCRIPTS, U32, st.none() | U64),
    st.builds(
        Withdrawal,
        OUTPOINTS,
        U64,
        U64,
        U64,
        SCRIPTS,
        SCRIPTS,
        U32,
        st.sampled_from(WithdrawalStatus),
        st.none() | U64,
        st.none() | OUTPOINTS,
    ),
    st.builds(
        Lineage,
        U64,
        st.sampled_from(BatchKind),
        st.lists(OUTPOINTS, max_size=3).map(tuple),
        st.lists(OUTPOINTS, max_size=3).map(tuple),
        st.lists(VERSIONS, max_size=2).map(tuple),
        U64,
        st.none() | HASHES.map(Txid),
        st.none() | U32,
    ),
    st.builds(
        Totals,
        anchor=ANCHORS,
        reserves_sats=U64,
        deficit_sats=U64,
        supply_sats=U64,
        unsettled_sats=U64,
        fund_sats=U64,
        next_withdrawal=U64,
        next_lineage=U64,
        record_serial=U64,
        withdrawal_window=st.lists(st.builds(WindowEntry, U32, U64), max_size=3).map(tuple),
        entered_chain=HASHES,
        closed_chain=HASHES,
        utxo_chain=HASHES,
    ),
)
EMPTY = Totals(Anchor(0, BlockHash(bytes(32))))
OUTPOINT = OutPoint(Txid(b"\x01" * 32), 0)
COIN = Coin(OUTPOINT, 5, CoinKind.DEPOSIT, 0, b"", 9)
WITHDRAWAL = Withdrawal(OUTPOINT, 0, 5, 1, Script(b""), Script(b""), 9)
LINEAGE = Lineage(0, BatchKind.PAYOUT, (OUTPOINT,), (), (), 0)


class _Value(Protocol):
    def encode(self) -> bytes: ...


@given(value=VALUES)
def test_value_round_trips(value: Anchor | Coin | Withdrawal | Lineage | Totals) -> None:
    assert type(value).decode(value.encode()) == value


@given(value=VALUES, data=st.data())
def test_value_cut_or_continued_is_malformed(
    value: Anchor | Coin | Withdrawal | Lineage | Totals, data: st.DataObject
) -> None:
    encoded = value.encode()
    with pytest.raises(MalformedError):
        type(value).decode(encoded[: data.draw(st.integers(min_value=0, max_value=len(encoded) - 1))])
    with pytest.raises(MalformedError):
        type(value).decode(encoded + data.draw(st.binary(min_size=1, max_size=3)))


@given(value=VALUES, data=st.data())
def test_value_of_any_bytes_encodes_to_them(
    value: Anchor | Coin | Withdrawal | Lineage | Totals, data: st.DataObject
) -> None:
    changed = bytearray(value.encode())
    changed[data.draw(st.integers(min_value=0, max_value=len(changed) - 1))] ^= data.draw(
        st.integers(min_value=1, max_value=255)
    )
    try:
        decoded = type(value).decode(bytes(changed))
    except MalformedError:
        return
    assert decoded != value
    assert decoded.encode() == changed


@pytest.mark.parametrize(
    ("decode", "encoded", "at", "byte"),
    [
        pytest.param(Coin.decode, COIN.encode(), 44, 4, id="unknown kind of coin"),
        pytest.param(Coin.decode, COIN.encode(), -1, 2, id="flag of two"),
        pytest.param(Withdrawal.decode, WITHDRAWAL.encode(), -3, 0, id="status of zero"),
        pytest.param(Withdrawal.decode, WITHDRAWAL.encode(), -3, 5, id="unknown status"),
        pytest.param(Lineage.decode, LINEAGE.encode(), 8, 3, id="unknown kind of batch"),
    ],
)
def test_value_with_an_unknown_byte_is_malformed(
    decode: Callable[[bytes], _Value], encoded: bytes, at: int, byte: int
) -> None:
    assert decode(encoded).encode() == encoded
    changed = bytearray(encoded)
    changed[at] = byte
    with pytest.raises(MalformedError):
        decode(bytes(changed))


def test_coin_with_a_long_claim_script_is_malformed() -> None:
    with pytest.raises(MalformedError):
        Coin.decode(replace(COIN, claim_script=bytes(35)).encode())


def test_totals_of_the_longest_window_are_read_back() -> None:
    """Each anchor height of the window may have its entry, and no parameter makes the window longer."""
    entries = tuple(WindowEntry(height, 1) for height in range(MAX_LIST_ITEMS))
    full = replace(EMPTY, withdrawal_window=entries)
    assert Totals.decode(full.encode()) == full
    with pytest.raises(MalformedError):
        Totals.decode(replace(full, withdrawal_window=(*entries, WindowEntry(MAX_LIST_ITEMS, 1))).encode())


@pytest.mark.parametrize("value_sats", [-1, 2**64])
def test_value_out_of_range_is_malformed(value_sats: int) -> None:
    with pytest.raises(MalformedError):
        replace(COIN, value_sats=value_sats).encode()


def test_equality_holds_for_balanced_totals() -> None:
    EMPTY.require_equality()
    EMPTY.plus(reserves_sats=10, deficit_sats=5, supply_sats=7, unsettled_sats=6, fund_sats=2).require_equality()


@pytest.mark.parametrize("term", ["reserves_sats", "deficit_sats", "supply_sats", "unsettled_sats", "fund_sats"])
def test_equality_rejects_one_satoshi_too_many(term: str) -> None:
    with pytest.raises(Rejected) as caught:
        EMPTY.plus(**{term: 1}).require_equality()
    assert caught.value.reason is LedgerReason.EQUALITY


@pytest.mark.parametrize(
    "terms",
    [
        {"reserves_sats": -1, "deficit_sats": 1},
        {"reserves_sats": 1, "deficit_sats": -1},
        {"supply_sats": -1, "fund_sats": 1},
        {"unsettled_sats": -1, "fund_sats": 1},
        {"fund_sats": -1, "supply_sats": 1},
    ],
)
def test_equality_rejects_a_negative_term(terms: dict[str, int]) -> None:
    with pytest.raises(Rejected) as caught:
        EMPTY.plus(**terms).require_equality()
    assert caught.value.reason is LedgerReason.NEGATIVE_TERM


def test_chain_hash_binds_tag_past_and_item() -> None:
    chain = chain_hash("pegnode/test", bytes(32), b"item")
    assert chain == tagged_hash("pegnode/test", bytes(32) + b"item")
    others = (("pegnode/other", bytes(32), b"item"), ("pegnode/test", chain, b"item"), ("pegnode/test", bytes(32), b""))
    assert chain not in {chain_hash(*other) for other in others}
