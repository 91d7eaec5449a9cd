"""What must never happen, checked as it leaves each honest member."""

from bridge.bitcoin.identifiers import BlockHash
from federation.certificate import Certificate, Vote, VoteKind
from federation.membership import Membership
from pegnode.consensus.actions import CastVote
from tests.machine.fake_chain import GENESIS, FakeBlock, is_genuine


class Violation(AssertionError):  # noqa: N818 -- what the simulation looks for
    """Something that must never happen did."""


class Watch:
    """Remembers every vote, proposal and final block of the honest members, through all their restarts."""

    def __init__(self, membership: Membership) -> None:
        self.byzantine: set[int] = set()
        self.final: dict[int, FakeBlock] = {}
        self._membership = membership
        self._signed: dict[tuple[int, int, VoteKind], BlockHash] = {}
        self._proposed: dict[tuple[int, int], BlockHash] = {}

    def note_signed(self, vote: Vote) -> None:
        """A vote is about to leave an honest member, in this life or an earlier one."""
        key = (vote.member, vote.view, vote.kind)
        if self._signed.setdefault(key, vote.block_hash) != vote.block_hash:
            raise Violation(f"member {vote.member} cast two {vote.kind.name} votes in view {vote.view}")
        both = {(vote.member, vote.view, VoteKind.FINALIZE), (vote.member, vote.view, VoteKind.NULLIFY)}
        if both <= self._signed.keys():
            raise Violation(f"member {vote.member} finalized and nullified view {vote.view}")

    def note_cast(self, action: CastVote) -> None:
        """A machine asks for a vote, of a signer who believes nothing: what the vote rests on has to come with it."""
        proof, rests = action.proof, action.view == 1 and action.kind is not VoteKind.FINALIZE
        if proof is not None and action.kind is VoteKind.FINALIZE:
            rests = (proof.kind, proof.view, proof.block_hash) == (VoteKind.NOTARIZE, action.view, action.block_hash)
        elif proof is not None:
            rests = proof.view >= action.view - 1
        if not rests or (proof is not None and not is_genuine(proof, self._membership)):
            raise Violation(f"nothing to rest on: {action}, {proof}")

    def note_proposal(self, member: int, view: int, block_hash: BlockHash) -> None:
        """A proposal is about to leave an honest leader."""
        if self._proposed.setdefault((member, view), block_hash) != block_hash:
            raise Violation(f"member {member} proposed twice in view {view}")

    def note_final(self, member: int, store: list[FakeBlock], block: FakeBlock) -> None:
        """A member is about to store `block` as final on top of `store`."""
        parent_hash = store[-1].hash if store else GENESIS.hash
        if block.parent_hash != parent_hash or block.height != len(store) + 1 or block.invalid:
            raise Violation(f"member {member} stores a block that does not follow at height {block.height}")
        if self.final.setdefault(block.height, block).hash != block.hash:
            raise Violation(f"member {member} has another final block at height {block.height}")

    def note_certificate(self, certificate: Certificate) -> None:
        """A certificate arrived; nobody here can make a false one."""
        if not is_genuine(certificate, self._membership):
            raise Violation(f"a false certificate: {certificate}")

    def note_accused(self, first: Vote, second: Vote) -> None:
        """Proof of a fault was found against a member."""
        if first.member not in self.byzantine:
            raise Violation(f"honest member {first.member} was accused: {first}, {second}")
