"""Records: one encoding each, nothing in them twice or out of order, and a block carries out only the next of them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.bitcoin.hashes import sha256, tagged_hash
from bridge.bitcoin.identifiers import BlockHash, OutPoint, Txid
from bridge.codec import Encoded, Writer
from bridge.errors import MalformedError, Rejected
from bridge.records import (
    MAX_ABANDONED_BLOCKS,
    MAX_FINDINGS,
    MAX_LOST_COINS,
    MAX_RECORD_BYTES,
    AbandonedBlock,
    Deficit,
    Finding,
    FindingKind,
    LostCoin,
    Rebase,
    Record,
    RecordReason,
    Resume,
    check_rebase,
    check_record,
)
from bridge.state import Anchor

CHAIN_ID = sha256(b"a chain")
FORK = Anchor(100, BlockHash(sha256(b"fork")))
ABANDONED = tuple(AbandonedBlock(BlockHash(sha256(b"old %d" % height)), height) for height in range(101, 108))
NEW_ANCHOR = Anchor(109, BlockHash(sha256(b"new 109")))
REBASE = Rebase(FORK, ABANDONED, NEW_ANCHOR)
COIN = OutPoint(Txid(sha256(b"a deposit")), 3)
LATER_COIN = OutPoint(COIN.txid, 256)
"""Its encoding is below COIN's, for the index stands least byte first."""
FINDINGS = (
    Finding.anchor_left(REBASE.old_anchor),
    Finding.coin_gone(COIN),
    Finding.second_version(Txid(sha256(b"a version"))),
    Finding.block_refused(BlockHash(sha256(b"a block"))),
)
RESUME = Resume.of(FINDINGS, REBASE)
DEFICIT = Deficit.of((LostCoin(COIN, 70_000), LostCoin(LATER_COIN, 5)))
RECORD = Record(CHAIN_ID, 0, 7, 300, RESUME)

hashes = st.binary(min_size=32, max_size=32)
heights = st.integers(0, 2**32 - 5000)
anchors = st.builds(Anchor, heights, hashes.map(BlockHash))
outpoints = st.builds(OutPoint, hashes.map(Txid), st.integers(0, 2**32 - 1))
findings = st.one_of(
    anchors.map(Finding.anchor_left),
    outpoints.map(Finding.coin_gone),
    hashes.map(Txid).map(Finding.second_version),
    hashes.map(BlockHash).map(Finding.block_refused),
)
deficits = st.builds(
    Deficit.of,
    st.lists(
        st.builds(LostCoin, outpoints, st.integers(0, 2**64 - 1)),
        min_size=1,
        max_size=8,
        unique_by=lambda coin: coin.outpoint,
    ),
)


@st.composite
def rebases(draw: st.DrawFn) -> Rebase:
    """Any that can be made."""
    fork = draw(anchors)
    names = draw(st.lists(hashes, min_size=2, max_size=9, unique=True).filter(lambda drawn: fork.hash not in drawn))
    blocks = [AbandonedBlock(BlockHash(name), draw(st.integers(1, 2**32 - 1))) for name in names[1:]]
    height = draw(st.integers(fork.height + len(blocks) + 1, 2**32 - 1))
    return Rebase(fork, tuple(blocks), Anchor(height, BlockHash(names[0])))


records = st.builds(
    Record,
    hashes,
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**32 - 1),
    st.one_of(
        deficits,
        st.builds(Resume.of, st.lists(findings, min_size=1, max_size=8), st.one_of(st.none(), rebases())),
        st.builds(Resume.of, st.just(()), rebases()),
    ),
)


@given(records)
def test_record_is_read_back(record: Record) -> None:
    assert Record.decode(record.encode()) == record


@given(records, st.binary(min_size=1, max_size=3))
def test_record_with_bytes_missing_or_left_over_is_malformed(record: Record, more: bytes) -> None:
    for data in (record.encode() + more, record.encode()[:-1], record.encode()[: len(more)]):
        with pytest.raises(MalformedError):
            Record.decode(data)


@given(st.binary(max_size=300))
def test_whatever_decodes_is_the_one_encoding(data: bytes) -> None:
    for kind in (Record, Resume, Deficit, Rebase, Finding, LostCoin, AbandonedBlock):
        try:
            value: Encoded = kind.decode(data)
        except MalformedError:
            continue
        assert value.encode() == data


def test_encodings_are_of_the_documented_sizes() -> None:
    assert [len(finding.encode()) for finding in FINDINGS] == [37, 37, 33, 33]
    assert len(ABANDONED[0].encode()) == 36
    assert len(REBASE.encode()) == 36 + 4 + 7 * 36 + 36
    assert len(DEFICIT.encode()) == 4 + 2 * 44
    assert len(replace(RECORD, content=DEFICIT).encode()) == 32 + 4 + 8 + 4 + 1 + 4 + 2 * 44


def test_longest_records_are_within_the_limit() -> None:
    findings = (Finding.coin_gone(OutPoint(Txid(number.to_bytes(32, "big")), 0)) for number in range(MAX_FINDINGS))
    blocks = tuple(
        AbandonedBlock(BlockHash(number.to_bytes(32, "big")), 1) for number in range(1, MAX_ABANDONED_BLOCKS + 1)
    )
    resume = Resume.of(findings, Rebase(FORK, blocks, Anchor(9000, NEW_ANCHOR.hash)))
    assert len(replace(RECORD, content=resume).encode()) == MAX_RECORD_BYTES
    lost = (LostCoin(OutPoint(Txid(number.to_bytes(32, "big")), 0), 1) for number in range(MAX_LOST_COINS))
    assert len(replace(RECORD, content=Deficit.of(lost)).encode()) < MAX_RECORD_BYTES


def test_what_members_sign_is_the_tagged_hash_of_every_byte() -> None:
    assert RECORD.digest32 == tagged_hash("pegnode/record", RECORD.encode())
    changed = [
        replace(RECORD, chain_id=bytes(32)),
        replace(RECORD, epoch=1),
        replace(RECORD, serial=8),
        replace(RECORD, expires_at_anchor=301),
        replace(RECORD, content=DEFICIT),
        replace(RECORD, content=replace(RESUME, rebase=None)),
    ]
    assert len({record.digest32 for record in (RECORD, *changed)}) == 7


def test_lists_are_put_in_order_whatever_order_they_come_in() -> None:
    assert Resume.of(reversed((*FINDINGS, FINDINGS[0])), REBASE) == RESUME
    assert [coin.outpoint for coin in DEFICIT.lost] == [LATER_COIN, COIN]
    assert DEFICIT.lost_sats == 70_005


@pytest.mark.parametrize(
    "make",
    [
        lambda: Finding(FindingKind.COIN_GONE, bytes(32)),
        lambda: Finding(FindingKind.SECOND_VERSION, bytes(36)),
        lambda: Finding(FindingKind.ANCHOR_LEFT, b""),
        lambda: Resume(FINDINGS[::-1]),
        lambda: Resume((FINDINGS[1], FINDINGS[1])),
        lambda: Resume(()),
        lambda: Resume.of(Finding.coin_gone(OutPoint(COIN.txid, index)) for index in range(MAX_FINDINGS + 1)),
        lambda: Deficit(DEFICIT.lost[::-1]),
        lambda: Deficit((LostCoin(COIN, 1), LostCoin(COIN, 2))),
        lambda: Deficit(()),
        lambda: Deficit.of(LostCoin(OutPoint(COIN.txid, index), 1) for index in range(MAX_LOST_COINS + 1)),
        lambda: AbandonedBlock(FORK.hash, 0),
        lambda: Rebase(FORK, (), NEW_ANCHOR),
        lambda: Rebase(FORK, ABANDONED, Anchor(107, NEW_ANCHOR.hash)),
        lambda: Rebase(FORK, ABANDONED, Anchor(2**32, NEW_ANCHOR.hash)),
        lambda: Rebase(FORK, (*ABANDONED, ABANDONED[0]), NEW_ANCHOR),
        lambda: Rebase(FORK, ABANDONED, Anchor(109, FORK.hash)),
        lambda: Rebase(FORK, ABANDONED, Anchor(109, ABANDONED[2].hash)),
        lambda: Rebase(
            FORK,
            tuple(AbandonedBlock(BlockHash(sha256(b"%d" % n)), 1) for n in range(MAX_ABANDONED_BLOCKS + 1)),
            Anchor(9000, NEW_ANCHOR.hash),
        ),
    ],
)
def test_record_out_of_form_cannot_be_made(make: Callable[[], Any]) -> None:
    with pytest.raises(MalformedError):
        make()


def test_record_out_of_form_cannot_be_read() -> None:
    unsorted = Writer().sequence(FINDINGS[::-1], lambda to, finding: finding.write(to)).u8(0).finish()
    with pytest.raises(MalformedError, match="ascend"):
        Resume.decode(unsorted)
    repeated = Writer().sequence((DEFICIT.lost[0],) * 2, lambda to, coin: coin.write(to)).finish()
    with pytest.raises(MalformedError, match="ascend"):
        Deficit.decode(repeated)
    unknown = RECORD.encode()[:48] + b"\x03" + RESUME.encode()
    with pytest.raises(MalformedError, match="ContentKind"):
        Record.decode(unknown)


def test_finding_names_its_subject_and_no_other() -> None:
    left, gone, second, refused = FINDINGS
    assert (left.anchor, gone.outpoint) == (REBASE.old_anchor, COIN)
    assert (second.txid, refused.block_hash) == (sha256(b"a version"), sha256(b"a block"))
    for finding, name in ((left, "outpoint"), (gone, "anchor"), (second, "block_hash"), (refused, "txid")):
        with pytest.raises(MalformedError):
            getattr(finding, name)


def test_rebase_leads_from_the_highest_abandoned_block() -> None:
    assert REBASE.old_anchor == Anchor(107, ABANDONED[-1].hash)
    assert REBASE.abandoned_anchors[0] == Anchor(101, ABANDONED[0].hash)
    assert REBASE.abandoned_anchors[-1] == REBASE.old_anchor


def test_rebase_abandons_each_of_its_blocks_at_its_height_and_no_other() -> None:
    assert all(map(REBASE.abandons, REBASE.abandoned_anchors))
    for height, named in (
        (100, FORK.hash),
        (100, ABANDONED[0].hash),
        (108, ABANDONED[-1].hash),
        (109, NEW_ANCHOR.hash),
    ):
        assert not REBASE.abandons(Anchor(height, named))
    assert not REBASE.abandons(Anchor(102, ABANDONED[0].hash))
    assert not REBASE.abandons(Anchor(0, ABANDONED[-1].hash))


def test_resume_covers_what_it_names_and_every_anchor_that_it_abandons() -> None:
    named = Resume.of(FINDINGS[1:3])
    assert [named.covers(finding) for finding in FINDINGS] == [False, True, True, False]
    rebased = Resume.of((), REBASE)
    assert all(rebased.covers(Finding.anchor_left(anchor)) for anchor in REBASE.abandoned_anchors)
    assert not rebased.covers(Finding.anchor_left(Anchor(106, REBASE.old_anchor.hash)))
    assert not rebased.covers(Finding.anchor_left(FORK))
    assert not rebased.covers(FINDINGS[1])


def test_refused_block_is_covered_by_no_record_even_if_named() -> None:
    assert not RESUME.covers(FINDINGS[3])


def test_next_record_of_this_chain_may_be_carried_out() -> None:
    check_record(RECORD, chain_id=CHAIN_ID, epoch=0, serial=6, anchor_height=300)


@pytest.mark.parametrize(
    ("reason", "facts"),
    [
        (RecordReason.WRONG_CHAIN, {"chain_id": bytes(32)}),
        (RecordReason.WRONG_EPOCH, {"epoch": 1}),
        (RecordReason.WRONG_SERIAL, {"serial": 7}),
        (RecordReason.WRONG_SERIAL, {"serial": 5}),
        (RecordReason.EXPIRED, {"anchor_height": 301}),
    ],
)
def test_record_for_elsewhere_or_another_time_is_refused(reason: RecordReason, facts: dict[str, Any]) -> None:
    now: dict[str, Any] = {"chain_id": CHAIN_ID, "epoch": 0, "serial": 6, "anchor_height": 300}
    with pytest.raises(Rejected) as caught:
        check_record(RECORD, **(now | facts))
    assert caught.value.reason is reason


def test_rebase_from_or_to_another_anchor_is_refused() -> None:
    check_rebase(REBASE, REBASE.old_anchor, NEW_ANCHOR)
    with pytest.raises(Rejected) as caught:
        check_rebase(REBASE, FORK, NEW_ANCHOR)
    assert caught.value.reason is RecordReason.WRONG_OLD_ANCHOR
    with pytest.raises(Rejected) as caught:
        check_rebase(REBASE, REBASE.old_anchor, Anchor(109, FORK.hash))
    assert caught.value.reason is RecordReason.WRONG_NEW_ANCHOR
