"""Evil with votes and certificates: contradictions, votes of others changed, certificates that nobody gave."""

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from random import Random

from bridge.bitcoin.hashes import sha256
from bridge.bitcoin.identifiers import BlockHash
from federation.certificate import NO_BLOCK, Certificate, Vote, VoteKind
from pegnode.net.messages import AnyMessage, CertificatesMessage, ProposalMessage, VotesMessage, encode_message
from pegnode.net.transport import PeerId
from tests.sim.evil import MAX_VIEWS, Evil, Villain
from tests.sim.evil_wire import Delay
from tests.sim.knowledge import Statement

LAST_MOMENTS = (0.8, 0.9, 0.95, 1.0)
"""Of what the most impatient honest member waits."""
FAR_VIEWS = (1, 2, 30, 1_000, 5_000, 10**9, 2**63, 2**64 - 1)


class VoteForAll(Evil):
    """Notarizes and finalizes every block that it hears of, with the keys of all the evil, and nullifies its view."""

    name = "vote for all"

    def on_hear(self, source: PeerId, message: AnyMessage, payload: bytes) -> None:
        if isinstance(message, ProposalMessage) and self.is_eager():
            vote = Vote.decode(message.vote)
            self._vote(vote.view, vote.block_hash)

    def on_send(self, destination: PeerId, message: AnyMessage, payload: bytes) -> Sequence[bytes] | None:
        if isinstance(message, ProposalMessage) and self.is_eager():
            vote = Vote.decode(message.vote)
            self._vote(vote.view, vote.block_hash)
        return None

    def _vote(self, view: int, block_hash: BlockHash) -> None:
        knowledge = self.villain.knowledge
        for member in knowledge.secrets:
            kinds = self.rng.sample(list(VoteKind), self.rng.randint(1, 3))
            votes = [
                knowledge.sign(kind, view, block_hash if kind.names_block else NO_BLOCK, member).encode()
                for kind in kinds
            ]
            self.villain.say_some(self.rng, VotesMessage(tuple(votes)))
        self.villain.done(self.name, f"view {view}")


class Contradict(Evil):
    """For its member's votes, to some: another vote of the kind, for a block that nobody knows, or both."""

    name = "contradict"

    def on_send(self, destination: PeerId, message: AnyMessage, payload: bytes) -> Sequence[bytes] | None:
        if not isinstance(message, VotesMessage) or not self.is_eager():
            return None
        knowledge, index = self.villain.knowledge, self.villain.index
        own = [vote for vote in map(Vote.decode, message.votes) if vote.member == index]
        if not own:
            return None
        vote = self.rng.choice(own)
        others = [block.hash for block in knowledge.blocks_of(vote.view) if block.hash != vote.block_hash]
        other = self.rng.choice([*others, BlockHash(sha256(vote.block_hash + bytes([vote.kind])))])
        kind = self.rng.choice((VoteKind.NOTARIZE, VoteKind.FINALIZE, VoteKind.NULLIFY))
        twin = knowledge.sign(kind, vote.view, other if kind.names_block else NO_BLOCK, index)
        self.villain.done(self.name, f"{kind.name} in view {vote.view}")
        second = encode_message(VotesMessage((twin.encode(),)))
        return self.rng.choice(((payload, second), (second, payload), (second,)))


class VoteAhead(Evil):
    """Votes in views far ahead and long past, and finalizes what nobody notarized."""

    name = "vote ahead"

    def strike(self) -> None:
        if not self.is_eager():
            return
        knowledge = self.villain.knowledge
        view = max(1, min(2**64 - 1, knowledge.view + self.rng.choice((-30, -1, 0, *FAR_VIEWS))))
        block = knowledge.any_block(self.rng)
        block_hash = block.hash if block is not None and self.rng.random() < 0.5 else BlockHash(self.rng.randbytes(32))
        votes = []
        for member in knowledge.secrets:
            kind = self.rng.choice(list(VoteKind))
            votes.append(knowledge.sign(kind, view, block_hash if kind.names_block else NO_BLOCK, member).encode())
        self.villain.say_some(self.rng, VotesMessage(tuple(votes)))
        self.villain.done(self.name, f"view {view}")


class ForgeVotes(Evil):
    """Passes on genuine votes with a field changed: of another member, kind, view, epoch or block."""

    name = "forge votes"

    def strike(self) -> None:
        vote = self.villain.knowledge.any_vote(self.rng)
        if vote is None or not self.is_eager():
            return
        size = self.villain.world.rules.membership.size
        forged = self.rng.choice(
            (
                replace(vote, member=(vote.member + 1) % size),
                replace(vote, member=size),
                replace(vote, view=vote.view + 1),
                replace(vote, view=0),
                replace(vote, epoch=1),
                replace(vote, kind=VoteKind.NULLIFY, block_hash=NO_BLOCK),
                replace(vote, kind=VoteKind.FINALIZE, block_hash=vote.block_hash or BlockHash(bytes(32))),
                replace(vote, block_hash=BlockHash(self.rng.randbytes(32))),
                replace(vote, signature64=bytes(64)),
            )
        )
        if forged != vote:
            self.villain.say(self.rng.choice(self.villain.others), VotesMessage((forged.encode(),)))
            self.villain.done(self.name, f"{forged.kind.name} in view {forged.view}")


class ForgeCertificates(Evil):
    """Certificates of too few or of repeated signers, or of signatures that say something else."""

    name = "forge certificates"

    def strike(self) -> None:
        certificate = self.villain.knowledge.any_certificate(self.rng) or self._of_own_votes()
        if certificate is None or not self.is_eager():
            return
        forged = self.rng.choice(self.forgeries(certificate))
        self.villain.say_some(self.rng, CertificatesMessage((forged.encode(),)))
        self.villain.done(self.name, f"{forged.kind.name} in view {forged.view}")

    def forgeries(self, true: Certificate) -> list[Certificate]:
        """What a true certificate is turned into."""
        signatures = true.signatures
        [first, *rest] = signatures
        kind = VoteKind.NOTARIZE if true.kind is VoteKind.FINALIZE else VoteKind.FINALIZE
        some_block = true.block_hash or BlockHash(self.rng.randbytes(32))
        return [
            replace(true, signatures=tuple(rest)),
            replace(true, signatures=(first, *signatures[:-1])),
            replace(true, signatures=(*signatures, signatures[-1])),
            replace(true, signatures=tuple(reversed(signatures))),
            replace(true, kind=kind, block_hash=some_block),
            replace(true, kind=VoteKind.NULLIFY, block_hash=NO_BLOCK, view=true.view + 1),
            replace(true, view=true.view + 1),
            replace(true, epoch=true.epoch + 1),
            replace(true, kind=VoteKind.NOTARIZE, block_hash=BlockHash(self.rng.randbytes(32))),
            replace(true, signatures=tuple((member + 1, data) for member, data in signatures)),
        ]

    def _of_own_votes(self) -> Certificate | None:
        """Of the evil's own signatures alone, each as often as it takes."""
        knowledge, membership = self.villain.knowledge, self.villain.world.rules.membership
        members = sorted(list(knowledge.secrets) * membership.quorum)[: membership.quorum]
        votes = [knowledge.sign(VoteKind.NULLIFY, knowledge.view, NO_BLOCK, member) for member in members]
        signatures = tuple((vote.member, vote.signature64) for vote in votes)
        return Certificate(VoteKind.NULLIFY, membership.epoch, knowledge.view, NO_BLOCK, signatures)


class FinishForOne(Evil):
    """Keeps its member's votes back, and shows what they complete to a single member, another for each view."""

    name = "finish for one"

    def __init__(self, villain: Villain, rng: Random) -> None:
        super().__init__(villain, rng)
        self._shown: deque[Statement] = deque(maxlen=MAX_VIEWS)

    def on_send(self, destination: PeerId, message: AnyMessage, payload: bytes) -> Sequence[bytes] | None:
        return self.silenced(message, self._is_kept_back)

    def on_hear(self, source: PeerId, message: AnyMessage, payload: bytes) -> None:
        for data in message.votes if isinstance(message, VotesMessage) else ():
            vote = Vote.decode(data)
            statement = (vote.kind, vote.view, vote.block_hash)
            if statement not in self._shown and self.plays_in(vote.view):
                self._finish(statement)

    def _is_kept_back(self, vote: Vote) -> bool:
        return self.plays_in(vote.view)

    def _finish(self, statement: Statement) -> None:
        certificate = self.villain.knowledge.certificate(*statement)
        if certificate is not None:
            self._shown.append(statement)
            honest = self.villain.honest_others
            favoured = self.villain.world.peer_id(honest[certificate.view % len(honest)])
            self.villain.say(favoured, CertificatesMessage((certificate.encode(),)))
            self.villain.done(self.name, f"{certificate.kind.name} in view {certificate.view}")


class TwoEnds(Delay):
    """Has a view end in both ways, one for some and the other for the rest.

    It proposes when timers are about to fire, so that members notarize and nullify, and keeps its votes back until both
    certificates can be had.
    """

    name = "two ends"

    def __init__(self, villain: Villain, rng: Random) -> None:
        super().__init__(villain, rng)
        self._ended: deque[int] = deque(maxlen=MAX_VIEWS)

    def on_send(self, destination: PeerId, message: AnyMessage, payload: bytes) -> Sequence[bytes] | None:
        if isinstance(message, ProposalMessage) and self._is_kept_back(Vote.decode(message.vote)):
            self.hold(destination, payload, self.rng.choice(LAST_MOMENTS))
            return ()
        return self.silenced(message, self._is_kept_back)

    def on_hear(self, source: PeerId, message: AnyMessage, payload: bytes) -> None:
        for data in message.votes if isinstance(message, VotesMessage) else ():
            view = Vote.decode(data).view
            if view not in self._ended and self.plays_in(view):
                self._end(view)

    def _is_kept_back(self, vote: Vote) -> bool:
        return self.plays_in(vote.view)

    def _end(self, view: int) -> None:
        knowledge = self.villain.knowledge
        nullification = knowledge.certificate(VoteKind.NULLIFY, view)
        blocks = [
            block_hash for kind, voted, block_hash in knowledge.votes if (kind, voted) == (VoteKind.NOTARIZE, view)
        ]
        notarized = [item for block in blocks if (item := knowledge.certificate(VoteKind.NOTARIZE, view, block))]
        if nullification is None or not notarized:
            return
        self._ended.append(view)
        ends = [*notarized[:1], nullification]
        for number, destination in enumerate(self.rng.sample(self.villain.others, len(self.villain.others))):
            self.villain.say(destination, CertificatesMessage((ends[number % 2].encode(),)))
        self.villain.done(self.name, f"view {view}")
