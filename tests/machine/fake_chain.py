"""Blocks and signatures as light as consensus allows: hashes are real, signatures are digests anyone could make."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property

from bridge.bitcoin.curve import x_only
from bridge.bitcoin.hashes import sha256
from bridge.bitcoin.identifiers import BlockHash
from federation.certificate import NO_BLOCK, Certificate, Vote, VoteKind
from federation.membership import Member, Membership
from pegnode.consensus.events import BlockInfo, FinalTip

EPOCH = 0
GENESIS = FinalTip(BlockHash(hashlib.sha256(b"genesis").digest()), 0, 0)


@dataclass(frozen=True)
class FakeBlock:
    """A block of numbered transactions. invalid: every member finds it so. salt: tells twins apart."""

    view: int
    height: int
    parent_hash: BlockHash
    leader: int
    transactions: tuple[int, ...] = ()
    carries_l1: bool = False
    invalid: bool = False
    salt: int = 0

    @cached_property
    def encoded(self) -> bytes:
        """What the journal keeps."""
        fields = (self.view, self.height, self.parent_hash.hex(), self.leader, self.transactions)
        return json.dumps([*fields, self.carries_l1, self.invalid, self.salt]).encode()

    @classmethod
    def decode(cls, data: bytes) -> "FakeBlock":
        """The block of these bytes."""
        view, height, parent_hash_hex, leader, transactions, carries_l1, invalid, salt = json.loads(data)
        parent_hash = BlockHash(bytes.fromhex(parent_hash_hex))
        return cls(view, height, parent_hash, leader, tuple(transactions), carries_l1, invalid, salt)

    @cached_property
    def hash(self) -> BlockHash:
        """Its name."""
        return BlockHash(sha256(self.encoded))

    @cached_property
    def info(self) -> BlockInfo:
        """What the machine is told of it."""
        return BlockInfo(self.hash, self.view, self.height, self.parent_hash, self.leader, self.carries_l1)


def fake_membership(size: int) -> Membership:
    """Members with keys that nobody uses."""
    keys = [x_only(number.to_bytes(32, "big")) for number in range(1, 2 * size + 1)]
    members = tuple(
        Member(index, f"member {index}", keys[2 * index], keys[2 * index + 1], f"peer {index}") for index in range(size)
    )
    return Membership(EPOCH, members)


def fake_signature(member: int, kind: VoteKind, view: int, block_hash: bytes) -> bytes:
    """64 bytes that name signer and statement."""
    return sha256(b"%d %d %d " % (member, kind, view) + block_hash) * 2


def fake_vote(member: int, kind: VoteKind, view: int, block_hash: BlockHash = NO_BLOCK) -> Vote:
    """A vote that passes `is_genuine`."""
    return Vote(kind, EPOCH, view, block_hash, member, fake_signature(member, kind, view, block_hash))


def fake_certificate(
    members: tuple[int, ...], kind: VoteKind, view: int, block_hash: BlockHash = NO_BLOCK
) -> Certificate:
    """A certificate of these signers that passes `is_genuine`, if they are a quorum."""
    signatures = tuple((member, fake_signature(member, kind, view, block_hash)) for member in members)
    return Certificate(kind, EPOCH, view, block_hash, signatures)


def is_genuine(certificate: Certificate, membership: Membership) -> bool:
    """Whether exactly a quorum of distinct members signed this, in rising order."""
    members = [member for member, _ in certificate.signatures]
    signed = all(
        signature64 == fake_signature(member, certificate.kind, certificate.view, certificate.block_hash)
        for member, signature64 in certificate.signatures
    )
    return signed and len(members) == membership.quorum and members == sorted(set(members))
