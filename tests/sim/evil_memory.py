"""Evil about what was voted: lies to a member that asks for its own votes, and false or needless proofs of guilt."""

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from bridge.bitcoin.identifiers import BlockHash
from federation.certificate import NO_BLOCK, Vote, VoteKind
from federation.equivocation import Equivocation
from pegnode.chain.block import Block
from pegnode.net.messages import (
    AnyMessage,
    EquivocationsMessage,
    OwnVotesAnswer,
    OwnVotesRequest,
    ProposalMessage,
    VotesMessage,
)
from pegnode.net.transport import PeerId
from tests.sim.evil import Evil, Villain, encoded

LAST_VIEWS = 3
"""Below the highest one known, in which a member that starts again may still be."""


class FalseMemories(Evil):
    """Answers who asks for its own votes: nothing, little, what others voted, forgeries; and vouches for everything."""

    name = "false memories"

    def on_send(self, destination: PeerId, message: AnyMessage, payload: bytes) -> Sequence[bytes] | None:
        if not isinstance(message, OwnVotesAnswer) or not self.is_eager():
            return None
        self.villain.done(self.name)
        return self.rng.choice(((), encoded([self._lie(destination, message)])))

    def strike(self) -> None:
        """Ask and answer unasked."""
        if self.is_eager():
            nonce = self.rng.randbytes(32)
            lies = (OwnVotesRequest(nonce), OwnVotesAnswer(nonce, (), b"", True))
            self.villain.say(self.rng.choice(self.villain.others), self.rng.choice(lies))
            self.villain.done(self.name, "unasked")

    def _lie(self, destination: PeerId, answer: OwnVotesAnswer) -> OwnVotesAnswer:
        knowledge, nonce = self.villain.knowledge, answer.nonce
        vote = knowledge.any_vote(self.rng)
        certificate = knowledge.any_certificate(self.rng)
        asker = next(item for item in range(len(self.villain.others) + 1) if self._is(item, destination))
        lies = [
            OwnVotesAnswer(nonce, (), b"", True),
            OwnVotesAnswer(nonce, (), b"", False),
            OwnVotesAnswer(nonce, answer.votes, b"", True),
            OwnVotesAnswer(nonce, (), certificate.encode() if certificate else b"", True),
            OwnVotesAnswer(self.rng.randbytes(32), answer.votes, answer.certificate, True),
        ]
        if vote is not None:
            forged = replace(vote, member=asker, view=vote.view + self.rng.choice((0, 1, 1_000)))
            lies.append(OwnVotesAnswer(nonce, (forged.encode(),), answer.certificate, True))
        old = self._old_votes_of(asker)
        if old:
            lies += [OwnVotesAnswer(nonce, tuple(item.encode() for item in old), b"", True)] * 3
        return self.rng.choice(lies)

    def _old_votes_of(self, member: int) -> list[Vote]:
        """Genuine votes of a member, of any age, at most as many as an answer holds."""
        epoch = self.villain.world.rules.membership.epoch
        genuine = [
            Vote(kind, epoch, view, block_hash, member, signatures[member])
            for (kind, view, block_hash), signatures in self.villain.knowledge.votes.items()
            if member in signatures
        ]
        return self.rng.sample(genuine, min(3, len(genuine)))

    def _is(self, index: int, peer: PeerId) -> bool:
        return self.villain.world.peer_id(index) == peer


class TwinsForRestarted(Evil):
    """Whoever starts again gets another block for the last views, if the evil lead them, and their votes to nullify.

    It may have voted there, and its own word is all that keeps it from voting again.
    """

    name = "twins for restarted"

    def __init__(self, villain: Villain, rng: Random) -> None:
        super().__init__(villain, rng)
        self._starts: set[bytes] = set()

    def on_hear(self, source: PeerId, message: AnyMessage, payload: bytes) -> None:
        if not isinstance(message, OwnVotesRequest) or message.nonce in self._starts:
            return
        self._starts.add(message.nonce)
        knowledge = self.villain.knowledge
        for view in range(max(1, knowledge.view - LAST_VIEWS), knowledge.view + 1):
            leader = self.villain.world.rules.membership.leader(view)
            blocks = knowledge.blocks_of(view)
            if blocks and leader in knowledge.secrets and self.is_eager():
                self._contradict(source, blocks[0], leader)

    def _contradict(self, restarted: PeerId, block: Block, leader: int) -> None:
        knowledge, view = self.villain.knowledge, block.header.view
        twin = Block(replace(block.header, time_ms=block.header.time_ms + 1), block.body)
        vote = knowledge.sign(VoteKind.NOTARIZE, view, twin.hash, leader)
        justification = [item for item in knowledge.certificates.values() if item.view == view - 1]
        proofs = tuple(item.encode() for item in justification)
        self.villain.say(restarted, ProposalMessage(twin.encode(), vote.encode(), proofs))
        others = [knowledge.sign(VoteKind.NULLIFY, view, NO_BLOCK, index) for index in knowledge.secrets]
        others += [knowledge.sign(VoteKind.NOTARIZE, view, twin.hash, index) for index in self.villain.accomplices]
        self.villain.say(restarted, VotesMessage(tuple(item.encode() for item in others)))
        self.villain.done(self.name, f"view {view}")


class FalseGuilt(Evil):
    """Accuses honest members by what they did not sign, and the evil by so many proofs as nobody needs."""

    name = "false guilt"

    def strike(self) -> None:
        if not self.is_eager():
            return
        knowledge = self.villain.knowledge
        vote = knowledge.any_vote(self.rng)
        proofs: list[Equivocation] = []
        if vote is not None:
            other = replace(vote, kind=VoteKind.FINALIZE, block_hash=BlockHash(self.rng.randbytes(32)))
            own = self._own_vote(VoteKind.NULLIFY, vote.view)
            proofs += [Equivocation(vote, other), Equivocation(vote, vote), Equivocation(vote, own)]
        if self.rng.random() < 0.5:
            view = knowledge.view + self.rng.randint(0, 50)
            kinds = self.rng.choice(((VoteKind.NOTARIZE, VoteKind.NOTARIZE), (VoteKind.NULLIFY, VoteKind.FINALIZE)))
            proofs = [
                Equivocation.of(*(self._own_vote(kind, view + step) for kind in kinds))
                for step in range(self.rng.randint(1, 12))
            ]
        for proof in proofs:
            self.villain.say_some(self.rng, EquivocationsMessage((proof.encode(),)))
            self.villain.done(self.name)

    def _own_vote(self, kind: VoteKind, view: int) -> Vote:
        block_hash = BlockHash(self.rng.randbytes(32)) if kind.names_block else NO_BLOCK
        return self.villain.knowledge.sign(kind, view, block_hash, self.villain.index)
