"""What can be said in the model: blocks, votes and certificates, and what a soup of votes lets anybody be told.

Signatures are stand-ins that name key and digest; the digest, and the check of certificates, are the real ones. What
the Byzantine member can pass off is found out by trying it on that check, once.
"""

from dataclasses import dataclass
from functools import cache
from itertools import product
from unittest import mock

from bridge.bitcoin.hashes import sha256
from bridge.bitcoin.identifiers import BlockHash
from federation import certificate as certificate_module
from federation.certificate import NO_BLOCK, Certificate, Vote, VoteKind, VoteRejected, verify_certificate
from federation.membership import Membership
from tests.machine.fake_chain import EPOCH, GENESIS, FakeBlock, fake_membership

SIZE = 4
CHAIN_ID = bytes(32)
HELPERS = 2
"""The honest votes that the Byzantine member's own completes to a quorum."""


@dataclass(frozen=True, order=True)
class Statement:
    """What a vote or a certificate says."""

    view: int
    kind: VoteKind
    block_hash: BlockHash


@dataclass(frozen=True)
class Offer:
    """Something the network can bring to a member. what: certificate, votes, proposal or sync."""

    what: str
    statement: Statement


def stand_in(key32: bytes, digest: bytes) -> bytes:
    """A signature that is good for one key and one digest."""
    return sha256(key32 + digest) * 2


class Universe:
    """Four members, one of them Byzantine, and `views` views in which anything can happen."""

    def __init__(self, views: int, byzantine: int | None, *, plain: bool = False) -> None:
        self._plain = plain
        self.views = views
        self.byzantine = byzantine
        self.membership: Membership = fake_membership(SIZE)
        self.honest = tuple(index for index in range(SIZE) if index != byzantine)
        self.blocks: dict[BlockHash, FakeBlock] = {}
        self.statements: list[Statement] = []
        self.offers: list[Offer] = []
        self._bits: dict[Statement, int] = {}
        self._offer_bits: dict[Offer, int] = {}
        self._certificates: dict[Statement, Certificate] = {}
        self._offered: dict[tuple[int, ...], int] = {}
        self._by_mask: dict[int, tuple[Offer, ...]] = {}
        self.helpers = {kind: self._helpers_needed(kind) for kind in VoteKind}
        self.passes_as = [pair for pair in product(VoteKind, VoteKind) if self._passes(*pair)]

    # what there is

    def block(self, view: int, parent_hash: BlockHash, salt: int) -> FakeBlock:
        """The block of this view on this parent. salt: tells twins apart."""
        parent = self.blocks.get(parent_hash)
        height = GENESIS.height if parent is None else parent.height
        block = FakeBlock(view, height + 1, parent_hash, self.membership.leader(view), salt=salt)
        return self.blocks.setdefault(block.hash, block)

    def bit(self, statement: Statement) -> int:
        """The bit of this statement in a member's word: the set of all that it ever said."""
        if statement not in self._bits:
            self._bits[statement] = 1 << len(self.statements)
            self.statements.append(statement)
        return self._bits[statement]

    def said(self, word: int) -> list[Statement]:
        """The statements of a word."""
        return [statement for position, statement in enumerate(self.statements) if word >> position & 1]

    def vote(self, member: int, statement: Statement) -> Vote:
        """This member's vote."""
        kind, view, block_hash = statement.kind, statement.view, statement.block_hash
        return Vote(kind, EPOCH, view, block_hash, member, self._signature(member, kind, view, block_hash))

    def certificate(self, statement: Statement) -> Certificate:
        """A certificate that says so; who signed it makes no difference to anyone."""
        if statement not in self._certificates:
            helpers = [index for index in range(SIZE) if index != self.byzantine]
            signers = sorted([*helpers, *([] if self.byzantine is None else [self.byzantine])])
            kind, view, block_hash = statement.kind, statement.view, statement.block_hash
            signatures = tuple(
                (member, self._signature(member, kind, view, block_hash))
                for member in signers[: self.membership.quorum]
            )
            self._certificates[statement] = Certificate(kind, EPOCH, view, block_hash, signatures)
        return self._certificates[statement]

    def descends(self, block_hash: BlockHash, ancestor_hash: BlockHash) -> bool:
        """Whether a block is this one or stands on it, at whatever distance."""
        while block_hash != ancestor_hash and block_hash in self.blocks:
            block_hash = self.blocks[block_hash].parent_hash
        return block_hash == ancestor_hash

    def chain(self, block_hash: BlockHash) -> list[FakeBlock]:
        """The block and its ancestors, oldest first."""
        blocks: list[FakeBlock] = []
        while block_hash in self.blocks:
            blocks.append(self.blocks[block_hash])
            block_hash = blocks[-1].parent_hash
        return blocks[::-1]

    # what the soup allows

    def certified(self, words: tuple[int, ...], byzantine_helps: bool = True) -> int:
        """The statements for which a certificate passes the check, as a word."""
        by_count = _by_count(words)
        certified = 0
        for kind, mask in self._kind_masks():
            needed = self.helpers[kind] if byzantine_helps and self.byzantine is not None else self.membership.quorum
            certified |= (by_count[needed] if needed <= len(words) else 0) & mask
        for source, target in self.passes_as:
            if source is not target:
                for statement in self.said(by_count[self.helpers[source]]):
                    if statement.kind is source:
                        certified |= self.bit(Statement(statement.view, target, statement.block_hash))
        return certified

    def offered(self, words: tuple[int, ...]) -> int:
        """All that the network can bring to an honest member, as a mask over `offers`."""
        any_word = 0
        for word in words:
            any_word |= word
        key = (any_word, self.certified(words))
        if key not in self._offered:
            self._offered[key] = self._offers_of(*key)
        return self._offered[key]

    def offer_bit(self, offer: Offer) -> int:
        """The bit of this offer."""
        if offer not in self._offer_bits:
            self._offer_bits[offer] = 1 << len(self.offers)
            self.offers.append(offer)
        return self._offer_bits[offer]

    def offers_for(self, certified: int) -> int:
        """Certificates of these statements, the votes that they consist of, and final chains, as a mask."""
        mask = 0
        for statement in self.said(certified):
            mask |= self.offer_bit(Offer("certificate", statement))
            if self._plain:
                mask |= self.offer_bit(Offer("votes", statement))
            if statement.kind is VoteKind.FINALIZE:
                mask |= self.offer_bit(Offer("sync", statement))
        return mask

    def offers_of(self, mask: int) -> tuple[Offer, ...]:
        """The offers of a mask: certificates and votes before proposals."""
        if mask not in self._by_mask:
            chosen = [offer for position, offer in enumerate(self.offers) if mask >> position & 1]
            self._by_mask[mask] = tuple(sorted(chosen, key=lambda offer: offer.what))
        return self._by_mask[mask]

    def honest_proposals(self, words: tuple[int, ...]) -> int:
        """The blocks that honest leaders voted for, as a mask over `offers`."""
        mask = 0
        for statement in self.said(_by_count(words)[1]):
            honest = self.membership.leader(statement.view) != self.byzantine
            if statement.kind is VoteKind.NOTARIZE and honest:
                mask |= self.offer_bit(Offer("proposal", statement))
        return mask

    def _offers_of(self, any_word: int, certified: int) -> int:
        mask = self.offers_for(certified)
        voted = [self.blocks[s.block_hash] for s in self.said(any_word) if s.kind is VoteKind.NOTARIZE]
        for view in range(1, self.views + 1):
            for block in self._proposals(view, voted):
                mask |= self.offer_bit(Offer("proposal", Statement(view, VoteKind.NOTARIZE, block.hash)))
        return mask

    def _proposals(self, view: int, voted: list[FakeBlock]) -> list[FakeBlock]:
        """What the leader of `view` can be seen to propose.

        An honest one: what it voted for. The Byzantine one: two blocks that get votes, each on any block that got one.
        """
        blocks = [block for block in voted if block.view == view]
        if self.membership.leader(view) != self.byzantine or len(blocks) >= 2:
            return blocks
        parents = [GENESIS.hash, *(block.hash for block in voted if block.view < view)]
        taken = {block.parent_hash for block in blocks}
        return blocks + [self.block(view, parent_hash, int(parent_hash in taken)) for parent_hash in parents]

    def _kind_masks(self) -> list[tuple[VoteKind, int]]:
        masks = dict.fromkeys(VoteKind, 0)
        for position, statement in enumerate(self.statements):
            masks[statement.kind] |= 1 << position
        return list(masks.items())

    # what passes the real check

    def _signature(self, member: int, kind: VoteKind, view: int, block_hash: bytes) -> bytes:
        digest = certificate_module.vote_digest(CHAIN_ID, EPOCH, kind, view, block_hash)
        return stand_in(self.membership.members[member].vote_key32, digest)

    def _helpers_needed(self, kind: VoteKind) -> int:
        """How few honest votes the Byzantine member has to add its own to, once or many times, for a certificate."""
        if self.byzantine is None:
            return self.membership.quorum
        block_hash = NO_BLOCK if kind is VoteKind.NULLIFY else GENESIS.hash
        for count in range(len(self.honest) + 1):
            signers = sorted([*self.honest[:count], *[self.byzantine] * (self.membership.quorum - count)])
            signatures = tuple((member, self._signature(member, kind, 1, block_hash)) for member in signers)
            if self._is_accepted(Certificate(kind, EPOCH, 1, block_hash, signatures)):
                return count
        raise AssertionError("no certificate passes")

    def _passes(self, source: VoteKind, target: VoteKind) -> bool:
        """Whether votes of one kind make up a certificate of another, about one block or about none."""
        if source.names_block is not target.names_block:
            return False
        block_hash = GENESIS.hash if source.names_block else NO_BLOCK
        signers = range(self.membership.quorum)
        signatures = tuple((member, self._signature(member, source, 1, block_hash)) for member in signers)
        return self._is_accepted(Certificate(target, EPOCH, 1, block_hash, signatures))

    def _is_accepted(self, certificate: Certificate) -> bool:
        def verify(key32: bytes, digest: bytes, signature64: bytes) -> bool:
            return signature64 == stand_in(key32, digest)

        with mock.patch.object(certificate_module, "schnorr_verify", verify):
            try:
                verify_certificate(certificate, self.membership, CHAIN_ID)
            except VoteRejected:
                return False
        return True

    # for people

    def name(self, block_hash: BlockHash) -> str:
        """The block for a reader: view, a letter for its twin, and what it stands on."""
        if block_hash not in self.blocks:
            return "genesis"
        block = self.blocks[block_hash]
        return f"B{block.view}{'ab'[block.salt]} on {_short(self, block.parent_hash)}"

    def phrase(self, statement: Statement) -> str:
        """The statement for a reader."""
        about = f" {self.name(statement.block_hash)}" if statement.block_hash else ""
        return f"{statement.kind.name.lower()} in view {statement.view}{about}"


def _short(universe: Universe, block_hash: BlockHash) -> str:
    return universe.name(block_hash).split(" ")[0]


@cache
def _by_count(words: tuple[int, ...]) -> tuple[int, ...]:
    """By number: the statements that at least so many of the words hold.

    At 0 stands what at least one holds: nobody gains by a certificate of what nobody else said.
    """
    held = [0] * (len(words) + 1)
    for word in words:
        for count in range(len(words), 1, -1):
            held[count] |= held[count - 1] & word
        held[1] |= word
    return (held[1], *held[1:])
