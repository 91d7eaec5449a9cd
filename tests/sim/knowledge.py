"""What Byzantine members have heard and said, and what they can sign: each with its own key and all the others'."""

from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random
from typing import TypeVar

from bridge.bitcoin.curve import schnorr_sign
from bridge.bitcoin.identifiers import BlockHash
from bridge.errors import MalformedError
from federation.certificate import NO_BLOCK, Certificate, Vote, VoteKind, vote_digest
from pegnode.chain.block import Block
from pegnode.net.messages import AnyMessage, BlockAnswer, CertificatesMessage, ProposalMessage, VotesMessage
from tests.sim.seams import World

MAX_KEPT = 300
"""Blocks, statements and frames that are remembered, each."""

Statement = tuple[VoteKind, int, BlockHash]
K = TypeVar("K")
V = TypeVar("V")


@dataclass
class Knowledge:
    """votes: by statement, each member's signature.  certificates: the newest by kind.  frames: payloads heard or said.

    view: the highest of a vote or block heard.
    """

    world: World
    secrets: dict[int, bytes]
    blocks: "OrderedDict[BlockHash, Block]" = field(default_factory=OrderedDict)
    votes: "OrderedDict[Statement, dict[int, bytes]]" = field(default_factory=OrderedDict)
    certificates: "OrderedDict[Statement, Certificate]" = field(default_factory=OrderedDict)
    frames: deque[bytes] = field(default_factory=lambda: deque(maxlen=MAX_KEPT))
    view: int = 1

    @classmethod
    def of(cls, world: World) -> "Knowledge":
        """Of all the evil of a federation, at the beginning."""
        return cls(world, {member: world.vote_secret(member) for member in sorted(world.byzantine)})

    def learn(self, message: AnyMessage, payload: bytes) -> None:
        """Remember what a message says."""
        self.frames.append(payload)
        try:
            match message:
                case ProposalMessage(block, vote, justification):
                    self._learn_block(block)
                    self._learn_votes([vote])
                    self._learn_certificates(justification)
                case VotesMessage(votes):
                    self._learn_votes(votes)
                case CertificatesMessage(certificates):
                    self._learn_certificates(certificates)
                case BlockAnswer(_, block):
                    self._learn_block(block)
        except MalformedError:
            pass  # an accomplice's garbage

    def sign(self, kind: VoteKind, view: int, block_hash: BlockHash, member: int) -> Vote:
        """A vote of one of the evil, whatever it has said before."""
        rules = self.world.rules
        digest = vote_digest(rules.chain_id, rules.membership.epoch, kind, view, block_hash)
        signature = schnorr_sign(self.secrets[member], digest, bytes(32))
        return Vote(kind, rules.membership.epoch, view, block_hash, member, signature)

    def certificate(self, kind: VoteKind, view: int, block_hash: BlockHash = NO_BLOCK) -> Certificate | None:
        """A true certificate of the votes heard and of all the evil's, if that makes a quorum; one heard is as good."""
        known = self.certificates.get((kind, view, block_hash))
        if known is not None:
            return known
        signatures = dict(self.votes.get((kind, view, block_hash), {}))
        membership = self.world.rules.membership
        missing = [member for member in self.secrets if member not in signatures]
        if len(signatures) + len(missing) < membership.quorum:
            return None
        signatures |= {member: self.sign(kind, view, block_hash, member).signature64 for member in missing}
        chosen = sorted(signatures.items())[: membership.quorum]
        return Certificate(kind, membership.epoch, view, block_hash, tuple(chosen))

    def any_vote(self, rng: Random) -> Vote | None:
        """A genuine vote of anybody."""
        if not self.votes:
            return None
        kind, view, block_hash = rng.choice(list(self.votes))
        member, signature = rng.choice(sorted(self.votes[kind, view, block_hash].items()))
        return Vote(kind, self.world.rules.membership.epoch, view, block_hash, member, signature)

    def any_certificate(self, rng: Random) -> Certificate | None:
        """A genuine certificate."""
        return rng.choice(list(self.certificates.values())) if self.certificates else None

    def any_block(self, rng: Random) -> Block | None:
        """A block that somebody proposed."""
        return rng.choice(list(self.blocks.values())) if self.blocks else None

    def blocks_of(self, view: int) -> list[Block]:
        """All blocks of a view."""
        return [block for block in self.blocks.values() if block.header.view == view]

    def _learn_block(self, data: bytes) -> None:
        if data:
            block = Block.decode(data)
            _keep(self.blocks, block.hash, block)
            self.view = max(self.view, min(block.header.view, self.view + 100))

    def _learn_votes(self, votes: Iterable[bytes]) -> None:
        for data in votes:
            vote = Vote.decode(data)
            statement = (vote.kind, vote.view, vote.block_hash)
            if statement not in self.votes:
                _keep(self.votes, statement, {})
            self.votes[statement][vote.member] = vote.signature64
            self.view = max(self.view, min(vote.view, self.view + 100))

    def _learn_certificates(self, certificates: Iterable[bytes]) -> None:
        for data in certificates:
            certificate = Certificate.decode(data)
            _keep(self.certificates, (certificate.kind, certificate.view, certificate.block_hash), certificate)
            self.view = max(self.view, min(certificate.view + 1, self.view + 100))


def _keep(kept: "OrderedDict[K, V]", key: K, value: V) -> None:
    kept[key] = value
    if len(kept) > MAX_KEPT:
        kept.popitem(last=False)
