"""Equivocation: two votes of one member that no honest member signs both, and that together prove its fault.   (pure)

A member signs one notarize and one finalize vote in a view at most, and never both finalize and nullify. So these
conflict: two notarize votes, or two finalize votes, of one view for two blocks; a finalize and a nullify vote of one
view. Nothing else does. In particular a member that notarized may nullify, and may finalize another block than the one
it notarized, if a quorum notarized that; and BIP340 has many signatures of one statement, which say nothing new.

The proof needs no witness: what is signed names chain and epoch, so a vote of another chain or epoch is none here.
"""

from dataclasses import dataclass
from typing import Self

from bridge.bitcoin.curve import schnorr_verify
from bridge.codec import Encoded, Reader, Writer
from bridge.errors import Reason
from federation.certificate import Certificate, Vote, VoteKind, VoteReason, VoteRejected, check_form, vote_digest
from federation.errors import Refused
from federation.membership import Membership

MAX_EQUIVOCATION_BYTES = 230
"""Two votes for blocks, of 115 bytes each; a nullify vote has 83."""

KindPair = tuple[VoteKind, VoteKind]
"""The kinds of the two votes, the lesser first."""


class EquivocationReason(Reason):
    """Why two votes prove nothing against a member."""

    OTHER_MEMBER = "equivocation-other-member"  # The votes are of two members.
    OTHER_EPOCH = "equivocation-other-epoch"  # The votes are of two epochs.
    OTHER_VIEW = "equivocation-other-view"  # The votes are of two views.
    SAME_STATEMENT = "equivocation-same-statement"  # Both votes say the same; their signatures may differ.
    COMPATIBLE = "equivocation-compatible"  # An honest member may sign both: notarize, and another kind.
    UNORDERED = "equivocation-unordered"  # The votes stand in the other order than the canonical one.


class EquivocationRejected(Refused):
    """Two votes that prove nothing. reason: EquivocationReason."""


@dataclass(frozen=True, slots=True)
class Equivocation(Encoded):
    """Two conflicting votes, in canonical order: by kind, then by block hash. `of` makes it; `read` does not judge."""

    first: Vote
    second: Vote

    @classmethod
    def of(cls, one: Vote, other: Vote) -> Self:
        """The proof made of two votes in any order. Raises EquivocationRejected; signatures are not checked."""
        require_conflict(one, other)
        first, second = sorted((one, other), key=_order)
        return cls(first, second)

    @property
    def member(self) -> int:
        """The index of the member that signed both."""
        return self.first.member

    @property
    def epoch(self) -> int:
        """The epoch of both."""
        return self.first.epoch

    @property
    def view(self) -> int:
        """The view of both."""
        return self.first.view

    @property
    def kinds(self) -> KindPair:
        """What was signed."""
        return self.first.kind, self.second.kind

    def write(self, writer: Writer) -> None:
        """Append both votes."""
        self.first.write(writer)
        self.second.write(writer)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(Vote.read(reader), Vote.read(reader))


def conflicting(one: Vote, other: Vote) -> bool:
    """Whether no honest member signs both."""
    return _harmless(one, other) is None


def require_conflict(one: Vote, other: Vote) -> None:
    """Raise EquivocationRejected unless no honest member signs both; whether they are genuine is not looked at."""
    reason = _harmless(one, other)
    if reason is not None:
        raise EquivocationRejected(reason)


def _harmless(one: Vote, other: Vote) -> EquivocationReason | None:
    """Why two votes prove nothing; None if they conflict."""
    if one.member != other.member:
        return EquivocationReason.OTHER_MEMBER
    if one.epoch != other.epoch:
        return EquivocationReason.OTHER_EPOCH
    if one.view != other.view:
        return EquivocationReason.OTHER_VIEW
    if one.kind is other.kind:
        return EquivocationReason.SAME_STATEMENT if one.block_hash == other.block_hash else None
    excluded = VoteKind.NOTARIZE not in (one.kind, other.kind)
    return None if excluded else EquivocationReason.COMPATIBLE


def verify_equivocation(equivocation: Equivocation, membership: Membership, chain_id: bytes) -> None:
    """Raise Refused unless the member of this index, in this epoch of this chain, signed both of two conflicting votes.

    EquivocationRejected, or VoteRejected for a vote that is none or not the member's.
    """
    if equivocation.epoch != membership.epoch:
        raise VoteRejected(VoteReason.WRONG_EPOCH, f"{equivocation.epoch}, not {membership.epoch}")
    if not membership.contains(equivocation.member):
        raise VoteRejected(VoteReason.UNKNOWN_MEMBER, str(equivocation.member))
    verify_with_key(equivocation, membership.members[equivocation.member].vote_key32, chain_id)


def verify_with_key(equivocation: Equivocation, vote_key32: bytes, chain_id: bytes) -> None:
    """The same, but for whose key it is: the holder of this one signed both. Raises Refused."""
    first, second = equivocation.first, equivocation.second
    require_conflict(first, second)
    if _order(first) > _order(second):
        raise EquivocationRejected(EquivocationReason.UNORDERED, f"{first.kind.name} first".lower())
    for vote in (first, second):
        check_form(vote)
        digest = vote_digest(chain_id, vote.epoch, vote.kind, vote.view, vote.block_hash)
        if not schnorr_verify(vote_key32, digest, vote.signature64):
            raise VoteRejected(VoteReason.BAD_SIGNATURE, f"member {vote.member}, {vote.kind.name.lower()}")


def equivocations_of(first: Certificate, second: Certificate) -> tuple[Equivocation, ...]:
    """What two genuine certificates prove of who signed both: of f+1 members at least, if their statements conflict.

    Empty for a notarization and a finalization of two blocks: an honest member may have signed both.
    """
    others = {vote.member: vote for vote in second.votes()}
    pairs = ((vote, others[vote.member]) for vote in first.votes() if vote.member in others)
    return tuple(Equivocation.of(one, other) for one, other in pairs if conflicting(one, other))


def _order(vote: Vote) -> tuple[VoteKind, bytes]:
    return vote.kind, vote.block_hash
