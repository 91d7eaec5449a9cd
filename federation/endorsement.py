"""Endorsement: members' signatures under one digest, by their vote keys, and when they make a quorum.      (pure)

What is signed, and under which tag, its own module says: a record, or a statement of solvency. Votes are counted apart,
in `federation.certificate`: there exactly a quorum signs, here at least one.
"""

from itertools import pairwise
from typing import TypeAlias

from bridge.bitcoin.curve import SIGNATURE_SIZE, schnorr_verify
from bridge.codec import Reader, Writer
from bridge.errors import Reason
from federation.errors import Refused
from federation.membership import MAX_MEMBERS, Membership

Signatures: TypeAlias = tuple[tuple[int, bytes], ...]
"""(member, signature of 64 bytes), in rising order of members."""


class EndorsementReason(Reason):
    """Why signatures endorse nothing."""

    REPEATED_SIGNER = "endorsement-repeated-signer"  # A member stands twice among the signers.
    SIGNERS_UNSORTED = "endorsement-signers-unsorted"  # The signers are not in rising order.
    UNKNOWN_MEMBER = "endorsement-unknown-member"  # A signer is no member.
    BAD_SIGNATURE = "endorsement-bad-signature"
    """A signature is not the member's of exactly this: of other bytes, of a vote, or by another key."""
    TOO_FEW = "endorsement-too-few-signatures"  # Fewer signers than a quorum.
    DIFFERENT = "endorsement-different"  # Signatures of two different things don't add up.


class EndorsementRefused(Refused):
    """Signatures that are not accepted. reason: EndorsementReason."""


def check_signatures(signatures: Signatures, digest32: bytes, membership: Membership) -> None:
    """Raise EndorsementRefused unless distinct members, in rising order, signed exactly this digest.

    REPEATED_SIGNER, SIGNERS_UNSORTED, UNKNOWN_MEMBER, BAD_SIGNATURE.
    """
    for (first, _), (second, _) in pairwise(signatures):
        if first >= second:
            reason = EndorsementReason.REPEATED_SIGNER if first == second else EndorsementReason.SIGNERS_UNSORTED
            raise EndorsementRefused(reason, f"member {second} after member {first}")
    for member, signature64 in signatures:
        if not membership.contains(member):
            raise EndorsementRefused(EndorsementReason.UNKNOWN_MEMBER, str(member))
        if not schnorr_verify(membership.members[member].vote_key32, digest32, signature64):
            raise EndorsementRefused(EndorsementReason.BAD_SIGNATURE, membership.members[member].name)


def require_quorum(signatures: Signatures, digest32: bytes, membership: Membership) -> None:
    """Raise EndorsementRefused unless at least a quorum signed: as `check_signatures`, and TOO_FEW."""
    if len(signatures) < membership.quorum:
        detail = f"{len(signatures)} of the {membership.quorum} that a quorum has"
        raise EndorsementRefused(EndorsementReason.TOO_FEW, detail)
    check_signatures(signatures, digest32, membership)


def joined(first: Signatures, second: Signatures) -> Signatures:
    """Those of both, under one digest."""
    return tuple(sorted((dict(first) | dict(second)).items()))


def write_signatures(writer: Writer, signatures: Signatures) -> None:
    """Append a list of (member u16, signature 64)."""
    writer.sequence(signatures, lambda to, item: to.u16(item[0]).fixed(item[1], SIGNATURE_SIZE))


def read_signatures(reader: Reader) -> Signatures:
    """Take a list of (member u16, signature 64); raises MalformedError."""
    return reader.sequence(MAX_MEMBERS, lambda source: (source.u16(), source.take(SIGNATURE_SIZE)))
