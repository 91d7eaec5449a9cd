"""A member under an adversary: it follows the chain to be heard, and says everything at once."""

from bridge.bitcoin.identifiers import BlockHash
from federation.certificate import NO_BLOCK, Certificate, Vote, VoteKind
from pegnode.consensus import actions, events
from tests.machine.fake_chain import FakeBlock, fake_vote
from tests.machine.messages import Proposal
from tests.machine.simulated_member import SimulatedMember


class Equivocator(SimulatedMember):
    """Proposes twins to two halves of the federation, and casts every vote with its opposite."""

    def cast(self, vote: Vote) -> None:
        """Send the vote to some and a contradiction to others; keep no journal."""
        contradictions = [vote, fake_vote(self.index, VoteKind.NULLIFY, vote.view)]
        if vote.block_hash:
            contradictions.append(fake_vote(self.index, VoteKind.FINALIZE, vote.view, vote.block_hash))
            contradictions.append(fake_vote(self.index, vote.kind, vote.view, self._twin_hash(vote.block_hash)))
        for other in self.others:
            self.send(other, *self.world.random.sample(contradictions, k=2))
        self.feed(events.VoteReceived(vote))

    def propose(
        self, view: int, block_hash: BlockHash, certificates: tuple[Certificate, ...], members: tuple[int, ...]
    ) -> None:
        """Send a block to some members and a twin to others: an equal one, an invalid one, one on an older parent."""
        block = self.bodies[block_hash]
        twins = (block, self._twin(block), self._twin(block, invalid=True), self._on_older_parent(block))
        for twin in twins:
            self.bodies[twin.hash] = twin
        weights = self.world.random.choice(((4, 4, 1, 1, 2), (1, 0, 0, 8, 0)))
        for member in members:
            sent = self.world.random.choices((*twins, None), weights)[0]
            if sent is not None:
                vote = fake_vote(self.index, VoteKind.NOTARIZE, view, sent.hash)
                self.send(member, Proposal(sent, vote, certificates))

    def crash(self, downtime_ms: int | None) -> None:
        """An adversary does not crash."""

    def perform(self, action: actions.Action) -> None:
        """Carry out what serves it; its own reports interest nobody."""
        if not isinstance(action, actions.ReportEquivocation | actions.ReportUnknownOwnVote):
            super().perform(action)

    def _twin_hash(self, block_hash: BlockHash) -> BlockHash:
        block = self.bodies.get(block_hash)
        return NO_BLOCK if block is None else self._twin(block).hash

    def _on_older_parent(self, block: FakeBlock) -> FakeBlock:
        """A block beside the newest certified one, as if that had never been."""
        past = [*self.store, *self.bodies.values()]
        parent = next((one for one in past if one.hash == block.parent_hash), None)
        if parent is None:
            return self._twin(block)
        return FakeBlock(block.view, parent.height, parent.parent_hash, block.leader, salt=2)

    @staticmethod
    def _twin(block: FakeBlock, invalid: bool = False) -> FakeBlock:
        transactions = block.transactions[1:]
        return FakeBlock(
            block.view, block.height, block.parent_hash, block.leader, transactions, block.carries_l1, invalid, salt=1
        )
