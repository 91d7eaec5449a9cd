"""Which two votes prove a member's fault, and that nothing else ever does. Signatures here are real."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.bitcoin.curve import schnorr_sign
from bridge.bitcoin.hashes import sha256, tagged_hash
from bridge.bitcoin.identifiers import BlockHash
from bridge.errors import MalformedError, Reason
from federation.certificate import NO_BLOCK, Vote, VoteKind, VoteReason, vote_digest
from federation.equivocation import (
    MAX_EQUIVOCATION_BYTES,
    Equivocation,
    EquivocationReason,
    EquivocationRejected,
    conflicting,
    equivocations_of,
    verify_equivocation,
    verify_with_key,
)
from federation.errors import Refused
from tests.support.chain import vote_secrets
from tests.support.equivocations import (
    CONFLICTS,
    FINALIZE,
    NOTARIZE,
    NULLIFY,
    all_votes,
    block_hash,
    certificate,
    equivocation,
    pairs,
    signed_vote,
)
from tests.support.stores import RULES

MEMBERSHIP, CHAIN_ID = RULES.membership, RULES.chain_id
GUILTY, OTHER = 2, 1


def rejection(item: Equivocation, chain_id: bytes = CHAIN_ID) -> Reason:
    with pytest.raises(Refused) as caught:
        verify_equivocation(item, MEMBERSHIP, chain_id)
    return caught.value.reason


def no_conflict(one: Vote, other: Vote) -> Reason:
    """Why two votes make no proof; the same whichever comes first, and at the checker too."""
    reasons = set()
    for first, second in ((one, other), (other, one)):
        with pytest.raises(EquivocationRejected) as caught:
            Equivocation.of(first, second)
        reasons.add(caught.value.reason)
    [reason] = reasons
    return reason


@pytest.mark.parametrize("kinds", CONFLICTS)
@pytest.mark.parametrize("member", range(4))
def test_conflicting_votes_convict_their_member(kinds: tuple[VoteKind, VoteKind], member: int) -> None:
    item = equivocation(RULES, member, kinds=kinds)
    verify_equivocation(item, MEMBERSHIP, CHAIN_ID)
    assert (item.member, item.epoch, item.view, item.kinds) == (member, 0, 9, kinds)


def test_exactly_three_kinds_of_pairs_conflict() -> None:
    found = {
        tuple(sorted((one.kind, other.kind)))
        for one, other in pairs(all_votes(RULES, GUILTY))
        if conflicting(one, other)
    }
    assert found == set(CONFLICTS)


@pytest.mark.parametrize("kinds", CONFLICTS)
def test_proof_is_the_same_whichever_vote_came_first(kinds: tuple[VoteKind, VoteKind]) -> None:
    item = equivocation(RULES, GUILTY, kinds=kinds)
    assert Equivocation.of(item.second, item.first) == Equivocation.of(item.first, item.second) == item
    assert rejection(Equivocation(item.second, item.first)) is EquivocationReason.UNORDERED


@pytest.mark.parametrize("kinds", CONFLICTS)
def test_encoding_round_trips_and_is_no_longer_than_said(kinds: tuple[VoteKind, VoteKind]) -> None:
    data = equivocation(RULES, GUILTY, kinds=kinds).encode()
    assert Equivocation.decode(data) == equivocation(RULES, GUILTY, kinds=kinds)
    assert len(data) <= MAX_EQUIVOCATION_BYTES == len(equivocation(RULES, GUILTY).encode())
    for garbled in (data[:-1], data + b"\0", b"\x04" + data[1:], b""):
        with pytest.raises(MalformedError):
            Equivocation.decode(garbled)


# What an honest member may do


def test_member_that_signed_one_statement_twice_is_not_guilty() -> None:
    first, second = signed_vote(RULES, OTHER), signed_vote(RULES, OTHER, aux=1)
    assert first.signature64 != second.signature64
    assert no_conflict(first, second) is EquivocationReason.SAME_STATEMENT
    assert rejection(Equivocation(first, second)) is EquivocationReason.SAME_STATEMENT


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (signed_vote(RULES, OTHER, NOTARIZE), signed_vote(RULES, OTHER, NULLIFY)),
        (signed_vote(RULES, OTHER, NOTARIZE), signed_vote(RULES, OTHER, FINALIZE)),
        (signed_vote(RULES, OTHER, NOTARIZE, block=1), signed_vote(RULES, OTHER, FINALIZE, block=2)),
    ],
    ids=["notarize-then-nullify", "notarize-then-finalize", "finalize-what-others-notarized"],
)
def test_member_that_kept_its_word_is_not_guilty(one: Vote, other: Vote) -> None:
    assert no_conflict(one, other) is EquivocationReason.COMPATIBLE
    assert rejection(Equivocation(one, other)) is EquivocationReason.COMPATIBLE


@pytest.mark.parametrize("kinds", CONFLICTS)
def test_votes_of_two_views_epochs_or_members_are_not_guilt(kinds: tuple[VoteKind, VoteKind]) -> None:
    item = equivocation(RULES, OTHER, kinds=kinds)
    second = item.second.kind
    later = signed_vote(RULES, OTHER, second, view=10, block=2)
    assert no_conflict(item.first, later) is EquivocationReason.OTHER_VIEW
    next_epoch = signed_vote(RULES, OTHER, second, block=2, epoch=1)
    assert no_conflict(item.first, next_epoch) is EquivocationReason.OTHER_EPOCH
    colleague = signed_vote(RULES, OTHER + 1, second, block=2)
    assert no_conflict(item.first, colleague) is EquivocationReason.OTHER_MEMBER


@given(st.lists(st.tuples(st.sampled_from([9, 10]), st.sampled_from([1, 2]), st.booleans()), max_size=6))
def test_whatever_an_honest_member_signs_no_two_of_its_votes_convict_it(steps: list[tuple[int, int, bool]]) -> None:
    """A member as the journal allows it: one vote of each kind in a view; finalize and nullify exclude each other."""
    votes: dict[tuple[int, VoteKind], Vote] = {}
    for view, block, finalizes in steps:
        votes.setdefault((view, NOTARIZE), signed_vote(RULES, OTHER, NOTARIZE, view, block))
        last = FINALIZE if finalizes else NULLIFY
        if not {(view, FINALIZE), (view, NULLIFY)} & votes.keys():
            votes[view, last] = signed_vote(RULES, OTHER, last, view, block)
    assert not any(conflicting(one, other) for one, other in pairs(list(votes.values())))


# What a forger may try


@pytest.mark.parametrize("kinds", CONFLICTS)
def test_forged_half_convicts_nobody(kinds: tuple[VoteKind, VoteKind]) -> None:
    item = equivocation(RULES, OTHER, kinds=kinds)
    by_another = equivocation(RULES, OTHER + 1, kinds=kinds)
    for half in ("first", "second"):
        forged = replace(getattr(by_another, half), member=OTHER)
        assert rejection(replace(item, **{half: forged})) is VoteReason.BAD_SIGNATURE


@pytest.mark.parametrize("kinds", CONFLICTS)
def test_votes_of_another_chain_convict_nobody(kinds: tuple[VoteKind, VoteKind]) -> None:
    other_chain = sha256(b"another chain")
    item = equivocation(RULES, OTHER, kinds=kinds, chain_id=other_chain)
    verify_equivocation(item, MEMBERSHIP, other_chain)
    assert rejection(item) is VoteReason.BAD_SIGNATURE


def test_votes_of_another_epoch_convict_nobody() -> None:
    item = equivocation(RULES, OTHER, epoch=1)
    assert rejection(item) is VoteReason.WRONG_EPOCH
    as_ours = Equivocation(replace(item.first, epoch=0), replace(item.second, epoch=0))
    assert rejection(as_ours) is VoteReason.BAD_SIGNATURE


def test_vote_of_another_kind_view_or_block_is_not_a_second_vote() -> None:
    """A signature binds all that it says: none can be written over into a conflicting vote."""
    item = equivocation(RULES, OTHER)
    for changed in (
        replace(item.second, block_hash=block_hash(7)),
        replace(item.first, block_hash=item.second.block_hash),
    ):
        assert rejection(Equivocation.of(item.first, changed)) is VoteReason.BAD_SIGNATURE
    nullify, finalize = signed_vote(RULES, OTHER, NULLIFY), signed_vote(RULES, OTHER, NOTARIZE)
    as_finalize = replace(finalize, kind=FINALIZE)
    assert rejection(Equivocation.of(nullify, as_finalize)) is VoteReason.BAD_SIGNATURE


def test_signature_of_other_bytes_is_no_vote() -> None:
    """A vote key signs records and statements too, each under a tag of its own."""
    item = equivocation(RULES, OTHER)
    data = CHAIN_ID + bytes(4) + (9).to_bytes(8, "little") + (32).to_bytes(4, "little") + item.second.block_hash
    assert vote_digest(CHAIN_ID, 0, NOTARIZE, 9, item.second.block_hash) == tagged_hash(NOTARIZE.tag, data)
    for tag in ("pegnode/record", "pegnode/solvency-statement", "pegnode/self-test", FINALIZE.tag):
        signature64 = schnorr_sign(vote_secrets()[OTHER], tagged_hash(tag, data), bytes(32))
        assert rejection(replace(item, second=replace(item.second, signature64=signature64))) is (
            VoteReason.BAD_SIGNATURE
        )


def test_member_that_is_none_is_not_accused() -> None:
    item = equivocation(RULES, 3)
    nobody = Equivocation(replace(item.first, member=4), replace(item.second, member=4))
    assert rejection(nobody) is VoteReason.UNKNOWN_MEMBER


def malformed(kind: VoteKind, view: int, named: BlockHash) -> Vote:
    """A vote that its member signed, and that is none."""
    signature64 = schnorr_sign(vote_secrets()[OTHER], vote_digest(CHAIN_ID, 0, kind, view, named), bytes(32))
    return Vote(kind, 0, view, named, OTHER, signature64)


@pytest.mark.parametrize(
    ("vote", "reason"),
    [
        (malformed(NOTARIZE, 9, NO_BLOCK), VoteReason.BLOCK_HASH_MISSING),
        (malformed(NOTARIZE, 9, BlockHash(bytes(32))), VoteReason.BLOCK_HASH_NULL),
    ],
)
def test_vote_that_is_none_convicts_nobody(vote: Vote, reason: VoteReason) -> None:
    assert rejection(Equivocation.of(vote, signed_vote(RULES, OTHER))) is reason


def test_nullify_vote_for_a_block_convicts_nobody() -> None:
    named = malformed(NULLIFY, 9, block_hash(1))
    assert rejection(Equivocation.of(named, signed_vote(RULES, OTHER, NULLIFY))) is VoteReason.BLOCK_HASH_UNWANTED


def test_votes_of_view_zero_convict_nobody() -> None:
    item = equivocation(RULES, OTHER, view=0)
    assert rejection(item) is VoteReason.VIEW_RANGE


def test_key_alone_convicts_its_holder_only() -> None:
    item = equivocation(RULES, GUILTY)
    verify_with_key(item, MEMBERSHIP.members[GUILTY].vote_key32, CHAIN_ID)
    for key in (MEMBERSHIP.members[OTHER].vote_key32, bytes(32), b"", b"\xff" * 32):
        with pytest.raises(Refused) as caught:
            verify_with_key(item, key, CHAIN_ID)
        assert caught.value.reason is VoteReason.BAD_SIGNATURE


# Certificates


@pytest.mark.parametrize("kinds", CONFLICTS)
def test_conflicting_certificates_convict_who_signed_both(kinds: tuple[VoteKind, VoteKind]) -> None:
    first = certificate(RULES, (0, 1, 2), kinds[0], block=1)
    second = certificate(RULES, (1, 2, 3), kinds[1], block=2)
    found = equivocations_of(first, second)
    assert [item.member for item in found] == [1, 2], "f + 1 of four"
    for item in found:
        verify_equivocation(item, MEMBERSHIP, CHAIN_ID)


def test_notarization_and_finalization_of_two_blocks_convict_nobody() -> None:
    """Somebody is guilty of what is not in them; those in both may have finalized what others notarized."""
    first, second = certificate(RULES, (0, 1, 2), NOTARIZE, block=1), certificate(RULES, (1, 2, 3), FINALIZE, block=2)
    assert equivocations_of(first, second) == ()


def test_certificates_of_one_statement_or_of_two_views_convict_nobody() -> None:
    first = certificate(RULES, (0, 1, 2))
    assert equivocations_of(first, certificate(RULES, (1, 2, 3))) == ()
    assert equivocations_of(first, certificate(RULES, (1, 2, 3), view=10, block=2)) == ()
