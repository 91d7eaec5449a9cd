"""Votes and certificates: their bytes, and every rule that a signature must meet. Signatures here are real."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.bitcoin.curve import schnorr_sign, x_only
from bridge.bitcoin.hashes import sha256, tagged_hash
from bridge.bitcoin.identifiers import BlockHash
from bridge.errors import MalformedError
from federation.certificate import (
    NO_BLOCK,
    Certificate,
    Vote,
    VoteKind,
    VoteReason,
    VoteRejected,
    verify_certificate,
    verify_vote,
    vote_digest,
)
from federation.membership import Member, Membership

CHAIN_ID = sha256(b"a chain")
EPOCH = 3
VIEW = 9
BLOCK = BlockHash(sha256(b"a block"))
SECRETS = [sha256(b"vote %d" % index) for index in range(5)]
MEMBERSHIP = Membership(
    EPOCH,
    tuple(
        Member(index, f"member-{index}", x_only(SECRETS[index]), x_only(sha256(SECRETS[index])), f"peer-{index}")
        for index in range(4)
    ),
)


def signed(
    kind: VoteKind = VoteKind.NOTARIZE,
    member: int = 0,
    block_hash: BlockHash | None = None,
    view: int = VIEW,
    epoch: int = EPOCH,
) -> Vote:
    if block_hash is None:
        block_hash = BLOCK if kind.names_block else NO_BLOCK
    signature64 = schnorr_sign(SECRETS[member], vote_digest(CHAIN_ID, epoch, kind, view, block_hash), bytes(32))
    return Vote(kind, epoch, view, block_hash, member, signature64)


def certified(kind: VoteKind = VoteKind.NOTARIZE, members: tuple[int, ...] = (0, 1, 3)) -> Certificate:
    votes = [signed(kind, member) for member in members]
    signatures = tuple((vote.member, vote.signature64) for vote in votes)
    return Certificate(kind, EPOCH, VIEW, votes[0].block_hash, signatures)


def vote_rejection(vote: Vote, chain_id: bytes = CHAIN_ID) -> VoteReason:
    with pytest.raises(VoteRejected) as caught:
        verify_vote(vote, MEMBERSHIP, chain_id)
    assert isinstance(caught.value.reason, VoteReason)
    return caught.value.reason


def certificate_rejection(certificate: Certificate) -> VoteReason:
    with pytest.raises(VoteRejected) as caught:
        verify_certificate(certificate, MEMBERSHIP, CHAIN_ID)
    assert isinstance(caught.value.reason, VoteReason)
    return caught.value.reason


@pytest.mark.parametrize("kind", VoteKind)
def test_vote_is_accepted_with_its_members_signature(kind: VoteKind) -> None:
    verify_vote(signed(kind, member=2), MEMBERSHIP, CHAIN_ID)


@pytest.mark.parametrize("kind", VoteKind)
def test_certificate_is_accepted_with_a_quorum(kind: VoteKind) -> None:
    verify_certificate(certified(kind), MEMBERSHIP, CHAIN_ID)


def test_digest_is_the_tagged_hash_of_all_fields() -> None:
    data = CHAIN_ID + EPOCH.to_bytes(4, "little") + VIEW.to_bytes(8, "little") + b"\x20\0\0\0" + BLOCK
    assert vote_digest(CHAIN_ID, EPOCH, VoteKind.FINALIZE, VIEW, BLOCK) == tagged_hash("pegnode/vote/finalize", data)


def test_digest_differs_for_each_kind() -> None:
    assert len({vote_digest(CHAIN_ID, EPOCH, kind, VIEW, BLOCK) for kind in VoteKind}) == len(VoteKind)


def test_vote_refused_from_another_epoch() -> None:
    assert vote_rejection(signed(epoch=EPOCH + 1)) is VoteReason.WRONG_EPOCH


def test_vote_refused_in_view_zero() -> None:
    verify_vote(signed(view=1), MEMBERSHIP, CHAIN_ID)
    assert vote_rejection(signed(view=0)) is VoteReason.VIEW_RANGE


@pytest.mark.parametrize("kind", [VoteKind.NOTARIZE, VoteKind.FINALIZE])
def test_vote_refused_without_the_block_it_is_about(kind: VoteKind) -> None:
    assert vote_rejection(signed(kind, block_hash=NO_BLOCK)) is VoteReason.BLOCK_HASH_MISSING


@pytest.mark.parametrize("kind", [VoteKind.NOTARIZE, VoteKind.FINALIZE])
def test_vote_refused_for_the_null_hash(kind: VoteKind) -> None:
    assert vote_rejection(signed(kind, block_hash=BlockHash(bytes(32)))) is VoteReason.BLOCK_HASH_NULL


def test_vote_refused_when_nullify_names_a_block() -> None:
    assert vote_rejection(signed(VoteKind.NULLIFY, block_hash=BLOCK)) is VoteReason.BLOCK_HASH_UNWANTED


def test_vote_refused_from_unknown_member() -> None:
    assert vote_rejection(signed(member=4)) is VoteReason.UNKNOWN_MEMBER


@pytest.mark.parametrize(
    "change",
    [
        {"member": 1},
        {"kind": VoteKind.FINALIZE},
        {"view": VIEW + 1},
        {"block_hash": BlockHash(sha256(b"another block"))},
        {"signature64": bytes(64)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_vote_refused_when_signature_is_over_something_else(change: dict[str, object]) -> None:
    assert vote_rejection(replace(signed(), **change)) is VoteReason.BAD_SIGNATURE  # type: ignore[arg-type]


def test_vote_refused_from_another_chain() -> None:
    assert vote_rejection(signed(), chain_id=sha256(b"another chain")) is VoteReason.BAD_SIGNATURE


@pytest.mark.parametrize("members", [(0, 1), (0, 1, 2, 3)])
def test_certificate_refused_unless_exactly_a_quorum_signed(members: tuple[int, ...]) -> None:
    assert certificate_rejection(certified(members=members)) is VoteReason.QUORUM_SIZE


@pytest.mark.parametrize("members", [(0, 0, 1), (0, 3, 1)])
def test_certificate_refused_with_members_doubled_or_out_of_order(members: tuple[int, ...]) -> None:
    assert certificate_rejection(certified(members=members)) is VoteReason.SIGNERS_UNSORTED


def test_certificate_refused_with_unknown_member() -> None:
    assert certificate_rejection(certified(members=(0, 1, 4))) is VoteReason.UNKNOWN_MEMBER


def test_certificate_refused_with_one_false_signature() -> None:
    sound = certified()
    *first, (member, signature64) = sound.signatures
    flipped = bytes([signature64[0] ^ 1]) + signature64[1:]
    assert certificate_rejection(replace(sound, signatures=(*first, (member, flipped)))) is VoteReason.BAD_SIGNATURE


def test_certificate_refused_for_the_null_hash() -> None:
    null = replace(certified(), block_hash=BlockHash(bytes(32)))
    assert certificate_rejection(null) is VoteReason.BLOCK_HASH_NULL


hashes = st.one_of(st.just(b""), st.binary(min_size=32, max_size=32)).map(BlockHash)
signatures = st.binary(min_size=64, max_size=64)
kinds = st.sampled_from(VoteKind)
u16, u32, u64 = (st.integers(0, 2**bits - 1) for bits in (16, 32, 64))
votes = st.builds(Vote, kinds, u32, u64, hashes, u16, signatures)
certificates = st.builds(
    Certificate, kinds, u32, u64, hashes, st.lists(st.tuples(u16, signatures), max_size=16).map(tuple)
)


@given(votes)
def test_vote_survives_its_encoding(vote: Vote) -> None:
    assert Vote.decode(vote.encode()) == vote


@given(certificates)
def test_certificate_survives_its_encoding(certificate: Certificate) -> None:
    assert Certificate.decode(certificate.encode()) == certificate


@given(st.binary(max_size=200))
def test_vote_bytes_decode_canonically_or_are_malformed(data: bytes) -> None:
    try:
        vote = Vote.decode(data)
    except MalformedError:
        return
    assert vote.encode() == data


@given(certificates, st.data())
def test_certificate_bytes_damaged_are_canonical_or_malformed(certificate: Certificate, data: st.DataObject) -> None:
    encoded = bytearray(certificate.encode())
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        decoded = Certificate.decode(bytes(encoded))
    except MalformedError:
        return
    assert decoded.encode() == bytes(encoded)


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data + b"\0", lambda data: b"\4" + data[1:]])
def test_vote_malformed_when_short_long_or_of_no_kind(damage: object) -> None:
    assert callable(damage)
    with pytest.raises(MalformedError):
        Vote.decode(damage(signed().encode()))


def test_vote_malformed_with_a_hash_of_another_size() -> None:
    with pytest.raises(MalformedError):
        Vote.decode(replace(signed(), block_hash=BlockHash(b"\1" * 31)).encode())
