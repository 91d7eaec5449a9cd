"""Evil of a leader: two blocks for one view, invalid blocks, empty ones, parents that nothing justifies."""

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from bridge.bitcoin.identifiers import BlockHash
from bridge.errors import Rejected
from federation.certificate import Certificate, Vote, VoteKind
from pegnode.chain.block import EMPTY_BODY, Block
from pegnode.chain.builder import Candidates, Slot, build_block
from pegnode.chain.facts import NO_FACTS, AnchorStatus, L1Facts
from pegnode.chain.state import ChainView
from pegnode.chain.transactions import parse_transaction
from pegnode.chain.verdicts import BlockRejected, BodyReason
from pegnode.net.messages import AnyMessage, BlockAnswer, ProposalMessage, VotesMessage, decode_message, encode_message
from pegnode.net.transport import PeerId
from tests.sim.bad_blocks import KINDS, Scene
from tests.sim.evil import Evil, Villain, encoded
from tests.sim.workload import CHEAT, user_wallet
from tests.support.memory_member import Member

OF_A_LEADER = (0.3, 1.0, 1.0)
"""How eager evil leaders are: few views of a run are theirs."""
TRIED = 16
"""Kinds of bad blocks that are tried in one turn."""
AT_ONCE = 3
"""Bad blocks of one turn."""
HEAVY = 0.2
"""The chance that a heavy kind is tried when it is drawn."""
LOOKED_BACK = 8
"""Final blocks among which an old transaction is looked for."""
SELDOM = frozenset(
    {
        BodyReason.BAD_EVIDENCE,
        BodyReason.BAD_BATCH,
        BodyReason.REFUND_MISSING,
        BodyReason.REFUND_NOT_DUE,
        BodyReason.REFUND_ORDER,
        BodyReason.REFUND_DIFFERS,
    }
)
"""Of what takes a block with evidence, a batch or a refund, which few are. These kinds come first."""


class LeaderEvil(Evil):
    """Makes other proposals of one's own, once for each view, and deals them out together with the genuine one.

    Its member's vote is heard with its proposal alone: who knows a leader's vote for one block reads no other.
    """

    def __init__(self, villain: Villain, rng: Random) -> None:
        super().__init__(villain, rng)
        self.eagerness = rng.choice(OF_A_LEADER)
        self._view = 0
        self._variants: list[bytes] = []
        self._given: dict[PeerId, bytes] = {}

    def on_send(self, destination: PeerId, message: AnyMessage, payload: bytes) -> Sequence[bytes] | None:
        if isinstance(message, VotesMessage):
            return self.silenced(message, self._is_of_own_block)
        if not isinstance(message, ProposalMessage):
            return None
        block = Block.decode(message.block)
        if block.header.leader != self.villain.index or not self.plays_in(block.header.view):
            return None
        if block.header.view != self._view:
            self._view, self._given = block.header.view, {}
            self._variants = self._dealt(payload, [encode_message(item) for item in self.variants(block, message)])
        if not self._variants:
            return None
        if destination not in self._given:
            self._given[destination] = self._variants[len(self._given) % len(self._variants)]
        return (self._given[destination],)

    def _is_of_own_block(self, vote: Vote) -> bool:
        leader = self.villain.world.rules.membership.leader(vote.view)
        return vote.kind is VoteKind.NOTARIZE and leader == self.villain.index and self.plays_in(vote.view)

    def _dealt(self, genuine: bytes, variants: list[bytes]) -> list[bytes]:
        """What is dealt out in turn: with the genuine one, without it, or a single one to all."""
        if not variants:
            return []
        dealt = self.rng.choice(([genuine, *variants], [genuine, *variants], variants, variants[:1]))
        return self.rng.sample(dealt, len(dealt))

    def variants(self, block: Block, message: ProposalMessage) -> list[ProposalMessage]:
        """Other proposals for the view of `block`."""
        raise NotImplementedError

    def proposal(self, block: Block, justification: Sequence[bytes]) -> ProposalMessage:
        """The proposal of a block, with this villain's vote."""
        header = block.header
        vote = self.villain.knowledge.sign(VoteKind.NOTARIZE, header.view, header.hash, self.villain.index)
        return ProposalMessage(block.encode(), vote.encode(), tuple(justification))


class PassOver(Evil):
    """Follows every rule, and puts nobody's transactions into its blocks."""

    name = "pass over"

    def __init__(self, villain: Villain, rng: Random) -> None:
        super().__init__(villain, rng)
        self._member: Member | None = None

    def strike(self) -> None:
        member = self.villain.member
        if member is not None and member is not self._member:
            self._member = member
            member.core.mempool.select = lambda view, max_bytes: []  # type: ignore[method-assign]
            self.villain.done(self.name)


class Twins(LeaderEvil):
    """Valid blocks that differ: in time, in what they hold, in the anchor, in the parent."""

    name = "twins"

    def on_send(self, destination: PeerId, message: AnyMessage, payload: bytes) -> Sequence[bytes] | None:
        """With each twin come the votes of all the evil for it."""
        frames = super().on_send(destination, message, payload)
        if not frames or not isinstance(message, ProposalMessage):
            return frames
        proposal = decode_message(frames[0])
        assert isinstance(proposal, ProposalMessage)
        return [*frames, *accomplices_votes(self.villain, proposal)]

    def variants(self, block: Block, message: ProposalMessage) -> list[ProposalMessage]:
        parent = self.villain.state_after(block.header.parent)
        if parent is None:
            return []
        count = self.rng.randint(1, 2)
        every = (self._later, self._emptier, self._same_anchor, self._other_anchor, self._older_parent)
        makers = self.rng.sample(every, count)
        twins = [twin for maker in makers if (twin := maker(parent, block)) is not None and twin.hash != block.hash]
        if twins:
            self.villain.done(self.name, f"view {block.header.view}")
        return [self.proposal(twin, message.justification) for twin in twins]

    def _built(self, parent: ChainView, block: Block, later_ms: int, *transactions: bytes) -> Block | None:
        """About L1 it says nothing."""
        header = block.header
        slot = Slot(header.view, header.time_ms + later_ms, parent.tip.header.anchor, None, include_l1=False)
        return self._built_in(slot, parent, transactions, NO_FACTS)

    def _built_in(self, slot: Slot, parent: ChainView, transactions: Sequence[bytes], facts: L1Facts) -> Block | None:
        waiting = [parse_transaction(data) for data in transactions]
        try:
            return build_block(parent, slot, Candidates((), waiting), facts, self.villain.world.rules).block
        except (BlockRejected, Rejected):
            return None

    def _later(self, parent: ChainView, block: Block) -> Block | None:
        return self._built(parent, block, self.rng.choice((1, 100, 1_900)), *block.body.transactions)

    def _emptier(self, parent: ChainView, block: Block) -> Block | None:
        return self._built(parent, block, 1, *block.body.transactions[1:])

    def _same_anchor(self, parent: ChainView, block: Block) -> Block | None:
        """Without what its own says of L1."""
        return self._built(parent, block, 0, *block.body.transactions)

    def _other_anchor(self, parent: ChainView, block: Block) -> Block | None:
        """As deep in L1 as may just be, or not quite, so that members' Bitcoin nodes differ; batches at any feerate."""
        l1, params = self.villain.world.l1.chain, self.villain.world.rules.params
        height = l1.height - params.confirmations + self.rng.choice((0, 1, 1, 2))
        lowest = parent.tip.header.anchor.height + 1
        if not lowest <= height < lowest + params.max_anchor_step:
            return None
        feerate = self.rng.choice((None, params.feerate_floor_sat_kvb, params.feerate_ceiling_sat_kvb))
        slot = Slot(block.header.view, block.header.time_ms, l1.anchor(height), feerate, include_l1=True)
        return self._built_in(slot, parent, block.body.transactions, L1Facts(AnchorStatus.ON_CHAIN))

    def _older_parent(self, _: ChainView, block: Block) -> Block | None:
        """On the parent's parent, or any other that this member still has."""
        known = [item for item in self.villain.knowledge.blocks.values() if item.header.view < block.header.view]
        states = [state for item in known if (state := self.villain.state_after(item.header.parent)) is not None]
        return self._built(self.rng.choice(states), block, 0) if states else None


class BadBlocks(LeaderEvil):
    """Invalid blocks of every kind that the moment allows, in place of its own."""

    name = "bad block"

    def __init__(self, villain: Villain, rng: Random) -> None:
        super().__init__(villain, rng)
        self._kinds: dict[bytes, str] = {}

    def on_send(self, destination: PeerId, message: AnyMessage, payload: bytes) -> Sequence[bytes] | None:
        """Each counts once it is dealt out."""
        frames = super().on_send(destination, message, payload)
        for frame in frames or ():
            if frame in self._kinds:
                self.villain.done(self.name, f"view {self._view}", self._kinds.pop(frame))
        return frames

    def variants(self, block: Block, message: ProposalMessage) -> list[ProposalMessage]:
        parent = self.villain.state_after(block.header.parent)
        if parent is None:
            return []
        world, knowledge = self.villain.world, self.villain.knowledge
        wallets = (user_wallet(CHEAT),)
        scene = Scene(parent, block, world.rules, world.l1.chain, wallets, knowledge.secrets, self._finished())
        kinds = [kind for kind in self.rng.sample(KINDS, TRIED) if not kind.is_heavy or self.rng.random() < HEAVY]
        made = [(kind, bad) for kind in kinds if (bad := kind.make(scene)) is not None]
        made.sort(key=lambda item: item[0].reason not in SELDOM)
        proposals = [self.proposal(bad, message.justification) for _, bad in made[:AT_ONCE]]
        names = [kind.name for kind, _ in made]
        self._kinds = dict(zip(map(encode_message, proposals), names, strict=False))
        return proposals

    def _finished(self) -> Sequence[bytes]:
        """The transactions of the newest final block that has any, among the last few."""
        member = self.villain.member
        newest = member.height if member is not None else 0
        for height in range(newest, max(0, newest - LOOKED_BACK), -1):
            data = member.store.block_at(height) if member is not None else None
            if data is not None and (transactions := Block.decode(data).body.transactions):
                return transactions
        return ()


class OtherBodies(LeaderEvil):
    """The header and the vote of its block, with another body."""

    name = "other body"

    def variants(self, block: Block, message: ProposalMessage) -> list[ProposalMessage]:
        bodies = (EMPTY_BODY, replace(block.body, transactions=(*block.body.transactions, b"\x00" * 60)))
        body = self.rng.choice(bodies)
        if body.root == block.body.root:
            return []
        self.villain.done(self.name, f"view {block.header.view}")
        return [ProposalMessage(block.header.encode() + body.encode(), message.vote, message.justification)]


class BadJustification(LeaderEvil):
    """A proposal without a nullification that it needs, with certificates of something else, or with too many."""

    name = "bad justification"

    def variants(self, block: Block, message: ProposalMessage) -> list[ProposalMessage]:
        """The same block, or one on an older parent, over the views between."""
        certificates = [Certificate.decode(data) for data in message.justification]
        nullified = [item.encode() for item in certificates if item.kind is VoteKind.NULLIFY]
        knowledge = self.villain.knowledge
        others = [item.encode() for item in knowledge.certificates.values()]
        choices: list[tuple[bytes, ...]] = [(), tuple(others[:40])]
        if nullified:
            dropped = self.rng.choice(nullified)
            choices.append(tuple(data for data in message.justification if data != dropped))
        self.villain.done(self.name, f"view {block.header.view}")
        justification = self.rng.choice(choices)
        older = self._on_older(block) if self.rng.random() < 0.5 else None
        return [self.proposal(older or block, justification)]

    def _on_older(self, block: Block) -> Block | None:
        """A valid block on the final tip, or on the genesis block: what came since is passed over."""
        member = self.villain.member
        if member is None:
            return None
        parent = member.store
        if parent.tip.header.view >= block.header.view or BlockHash(parent.tip.hash) == block.header.parent:
            return None
        slot = Slot(block.header.view, block.header.time_ms, parent.tip.header.anchor, None, include_l1=False)
        return build_block(parent, slot, Candidates(), NO_FACTS, self.villain.world.rules).block


def accomplices_votes(villain: Villain, proposal: ProposalMessage) -> list[bytes]:
    """Frames with the votes of the other evil members for a block, to go with its proposal."""
    vote = Vote.decode(proposal.vote)
    votes = [villain.knowledge.sign(vote.kind, vote.view, vote.block_hash, index) for index in villain.accomplices]
    return encoded([VotesMessage(tuple(item.encode() for item in votes))]) if votes else []


class KeepBodies(Evil):
    """Shows its block to as many as it takes to notarize it, with the votes of all the evil, and then to nobody."""

    name = "keep bodies"

    def __init__(self, villain: Villain, rng: Random) -> None:
        super().__init__(villain, rng)
        self.eagerness = rng.choice(OF_A_LEADER)
        self._view = 0
        self._chosen: list[PeerId] = []

    def on_send(self, destination: PeerId, message: AnyMessage, payload: bytes) -> Sequence[bytes] | None:
        if isinstance(message, BlockAnswer):
            return self._denied(message)
        if not isinstance(message, ProposalMessage) or not self.plays_in(view := Vote.decode(message.vote).view):
            return None
        if view != self._view:
            self._view, self._chosen = view, self._just_enough()
            self.villain.done(self.name, f"view {view}")
        return (payload, *accomplices_votes(self.villain, message)) if destination in self._chosen else ()

    def _just_enough(self) -> list[PeerId]:
        world, knowledge = self.villain.world, self.villain.knowledge
        count = world.rules.membership.quorum - len(knowledge.secrets)
        return [world.peer_id(index) for index in self.rng.sample(self.villain.honest_others, count)]

    def _denied(self, answer: BlockAnswer) -> Sequence[bytes] | None:
        """No word, or that it has no such block."""
        if not answer.block or not self.plays_in(Block.decode(answer.block).header.view):
            return None
        self.villain.done(self.name, "", "asked")
        return self.rng.choice(((), encoded([BlockAnswer(answer.block_hash, b"")])))
