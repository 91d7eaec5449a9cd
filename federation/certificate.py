"""Votes of members on blocks and views, and certificates: a quorum of signatures over one and the same vote.

A vote signs a tagged digest of (chain id, epoch, view, block hash); the tag holds the kind, so that a signature of one
kind can never pass for another. Signatures are BIP340, checked against the member's vote key.
"""

import enum
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from bridge.bitcoin.curve import schnorr_verify
from bridge.bitcoin.hashes import tagged_hash
from bridge.bitcoin.identifiers import HASH_SIZE, BlockHash
from bridge.codec import Encoded, Reader, Writer
from bridge.errors import MalformedError, Reason
from federation.errors import Refused
from federation.membership import MAX_MEMBERS, Membership

SIGNATURE_SIZE = 64
NO_BLOCK = BlockHash(b"")
"""The block hash of a vote that names no block: nullify votes speak about the view alone."""


class VoteKind(enum.IntEnum):
    """What a vote says. u8 in encodings."""

    NOTARIZE = 1
    NULLIFY = 2
    FINALIZE = 3

    @property
    def tag(self) -> str:
        """The tag of this kind's digest."""
        return f"pegnode/vote/{self.name.lower()}"

    @property
    def names_block(self) -> bool:
        """Whether votes of this kind carry a block hash."""
        return self is not VoteKind.NULLIFY


class VoteReason(Reason):
    """Why a vote or a certificate is refused."""

    WRONG_EPOCH = "vote-wrong-epoch"  # Of another epoch.
    VIEW_RANGE = "vote-view-range"  # Of view 0, which nobody votes on.
    BLOCK_HASH_MISSING = "vote-block-hash-missing"  # It names no block, and its kind does.
    BLOCK_HASH_UNWANTED = "vote-block-hash-unwanted"  # It names a block, and its kind names none.
    BLOCK_HASH_NULL = "vote-block-hash-null"  # Its block hash is all zero.
    UNKNOWN_MEMBER = "vote-unknown-member"  # Its signer is no member.
    BAD_SIGNATURE = "vote-bad-signature"
    """The signature is not the member's of this kind, chain, epoch, view and block."""
    SIGNERS_UNSORTED = "vote-signers-unsorted"  # The signers don't ascend strictly: out of order, or one twice.
    QUORUM_SIZE = "vote-quorum-size"  # Fewer or more signatures than a quorum.


class VoteRejected(Refused):
    """A vote or certificate that breaks a rule. reason: VoteReason."""


@dataclass(frozen=True, slots=True)
class Vote(Encoded):
    """One member's vote.

    epoch: u32.  view: u64, from 1.  block_hash: 32 bytes, or empty for NULLIFY.  member: u16.  signature64: BIP340.
    """

    kind: VoteKind
    epoch: int
    view: int
    block_hash: BlockHash
    member: int
    signature64: bytes

    def write(self, writer: Writer) -> None:
        """Append kind u8, epoch u32, view u64, block hash (variable), member u16, signature 64."""
        _write_statement(writer, self).u16(self.member).fixed(self.signature64, SIGNATURE_SIZE)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        kind, epoch, view, block_hash = _read_statement(reader)
        return cls(kind, epoch, view, block_hash, reader.u16(), reader.take(SIGNATURE_SIZE))


@dataclass(frozen=True, slots=True)
class Certificate(Encoded):
    """Exactly a quorum of signatures over one vote: a notarization, a nullification or a finalization.

    signatures: (member u16, signature 64) in strictly rising order of members.
    """

    kind: VoteKind
    epoch: int
    view: int
    block_hash: BlockHash
    signatures: tuple[tuple[int, bytes], ...]

    def votes(self) -> Iterator[Vote]:
        """The votes that it is made of."""
        for member, signature64 in self.signatures:
            yield Vote(self.kind, self.epoch, self.view, self.block_hash, member, signature64)

    def write(self, writer: Writer) -> None:
        """Append kind u8, epoch u32, view u64, block hash (variable), then a list of (member u16, signature 64)."""
        _write_statement(writer, self).sequence(self.signatures, _write_signature)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        kind, epoch, view, block_hash = _read_statement(reader)
        return cls(kind, epoch, view, block_hash, reader.sequence(MAX_MEMBERS, _read_signature))


def vote_digest(chain_id: bytes, epoch: int, kind: VoteKind, view: int, block_hash: bytes) -> bytes:
    """The 32 bytes that a vote signs. chain_id: 32 bytes."""
    data = Writer().fixed(chain_id, HASH_SIZE).u32(epoch).u64(view).variable(block_hash).finish()
    return tagged_hash(kind.tag, data)


def verify_vote(vote: Vote, membership: Membership, chain_id: bytes) -> None:
    """Raise VoteRejected unless `vote` is well formed and signed by its member."""
    _check_statement(vote, membership)
    digest = vote_digest(chain_id, vote.epoch, vote.kind, vote.view, vote.block_hash)
    _check_signature(vote.member, vote.signature64, digest, membership)


def verify_certificate(certificate: Certificate, membership: Membership, chain_id: bytes) -> None:
    """Raise VoteRejected unless exactly a quorum of distinct members signed, in rising order."""
    _check_statement(certificate, membership)
    check_size(certificate, membership)
    members = [member for member, _ in certificate.signatures]
    if any(first >= second for first, second in itertools.pairwise(members)):
        raise VoteRejected(VoteReason.SIGNERS_UNSORTED)
    digest = vote_digest(chain_id, certificate.epoch, certificate.kind, certificate.view, certificate.block_hash)
    for member, signature64 in certificate.signatures:
        _check_signature(member, signature64, digest, membership)


def check_size(certificate: Certificate, membership: Membership) -> None:
    """Raise VoteRejected (QUORUM_SIZE) unless it has as many signatures as a quorum; they are not checked."""
    if len(certificate.signatures) != membership.quorum:
        detail = f"{len(certificate.signatures)} signatures, {membership.quorum} belong"
        raise VoteRejected(VoteReason.QUORUM_SIZE, detail)


def check_form(statement: Vote | Certificate) -> None:
    """Raise VoteRejected unless it is of a view that is voted on, and names a block exactly if its kind does.

    VIEW_RANGE, BLOCK_HASH_MISSING, BLOCK_HASH_UNWANTED, BLOCK_HASH_NULL.
    """
    if statement.view < 1:
        raise VoteRejected(VoteReason.VIEW_RANGE, "view 0 is the genesis block's, which nobody votes on")
    if not statement.kind.names_block:
        if statement.block_hash:
            raise VoteRejected(VoteReason.BLOCK_HASH_UNWANTED)
        return
    if not statement.block_hash:
        raise VoteRejected(VoteReason.BLOCK_HASH_MISSING)
    if not any(statement.block_hash):
        raise VoteRejected(VoteReason.BLOCK_HASH_NULL)


def _check_statement(statement: Vote | Certificate, membership: Membership) -> None:
    if statement.epoch != membership.epoch:
        raise VoteRejected(VoteReason.WRONG_EPOCH, f"{statement.epoch}, not {membership.epoch}")
    check_form(statement)


def _check_signature(member: int, signature64: bytes, digest: bytes, membership: Membership) -> None:
    if not membership.contains(member):
        raise VoteRejected(VoteReason.UNKNOWN_MEMBER, str(member))
    if not schnorr_verify(membership.members[member].vote_key32, digest, signature64):
        raise VoteRejected(VoteReason.BAD_SIGNATURE, f"member {member}")


def _write_statement(writer: Writer, statement: Vote | Certificate) -> Writer:
    return writer.u8(statement.kind).u32(statement.epoch).u64(statement.view).variable(statement.block_hash)


def _read_statement(reader: Reader) -> tuple[VoteKind, int, int, BlockHash]:
    kind, epoch, view = reader.enumeration(VoteKind), reader.u32(), reader.u64()
    block_hash = reader.variable(HASH_SIZE)
    if len(block_hash) not in (0, HASH_SIZE):
        raise MalformedError(f"a block hash of {len(block_hash)} bytes")
    return kind, epoch, view, BlockHash(block_hash)


def _write_signature(writer: Writer, signature: tuple[int, bytes]) -> None:
    member, signature64 = signature
    writer.u16(member).fixed(signature64, SIGNATURE_SIZE)


def _read_signature(reader: Reader) -> tuple[int, bytes]:
    return reader.u16(), reader.take(SIGNATURE_SIZE)
