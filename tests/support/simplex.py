"""One consensus machine under direct control: a test tells it everything, and reads what it asks for."""

from dataclasses import dataclass, field
from typing import TypeVar

from bridge.bitcoin.identifiers import BlockHash
from federation.certificate import NO_BLOCK, Certificate, Vote, VoteKind
from pegnode.consensus import actions, events
from pegnode.consensus.events import FinalTip, Verdict
from pegnode.consensus.machine import Simplex
from pegnode.consensus.parameters import ConsensusParams
from tests.machine.fake_chain import GENESIS, FakeBlock, fake_certificate, fake_membership, fake_vote

PARAMS = ConsensusParams(
    block_interval_ms=1_000,
    view_timeout_ms=4_000,
    min_view_timeout_ms=1_000,
    max_view_timeout_ms=30_000,
    heartbeat_ms=60_000,
    resend_ms=2_000,
)
A = TypeVar("A")


def of(kind: type[A], asked: list[actions.Action]) -> list[A]:
    """The actions of one kind."""
    return [action for action in asked if isinstance(action, kind)]


def reasons(asked: list[actions.Action]) -> list[actions.ConsensusReason]:
    """Why something was refused."""
    return [refused.reason for refused in of(actions.Refuse, asked)]


def block(view: int, parent: FakeBlock | FinalTip = GENESIS, size: int = 4, **fields: object) -> FakeBlock:
    """The block of that view's leader."""
    return FakeBlock(view, parent.height + 1, parent.hash, view % size, **fields)  # type: ignore[arg-type]


def notarization(of_block: FakeBlock, members: tuple[int, ...] = (1, 2, 3)) -> Certificate:
    """Of a block, by three of four."""
    return fake_certificate(members, VoteKind.NOTARIZE, of_block.view, of_block.hash)


def nullification(view: int, members: tuple[int, ...] = (1, 2, 3)) -> Certificate:
    """Of a view, by three of four."""
    return fake_certificate(members, VoteKind.NULLIFY, view)


def finalization(of_block: FakeBlock, members: tuple[int, ...] = (1, 2, 3)) -> Certificate:
    """Of a block, by three of four."""
    return fake_certificate(members, VoteKind.FINALIZE, of_block.view, of_block.hash)


def tip(of_block: FakeBlock) -> FinalTip:
    """A block as the final tip."""
    return FinalTip(of_block.hash, of_block.height, of_block.view)


@dataclass
class Probe:
    """Member `member` of `size`, started at time `now_ms`. Every method gives the actions that followed."""

    member: int = 0
    size: int = 4
    params: ConsensusParams = PARAMS
    start: events.Start = field(default_factory=lambda: events.Start(GENESIS))
    now_ms: int = 100_000
    answer_checks: bool = True

    def __post_init__(self) -> None:
        """Start the machine."""
        self.machine = Simplex(self.member, fake_membership(self.size), self.params)
        self.started = self.tell(self.start)

    def tell(self, event: events.Event) -> list[actions.Action]:
        """Feed one event; unless told otherwise, find every block votable and sign every vote at once."""
        asked = self.machine.handle(event, self.now_ms)
        answers: list[events.Event] = []
        for action in asked:
            if isinstance(action, actions.CastVote):
                vote = fake_vote(self.member, action.kind, action.view, action.block_hash)
                answers.append(events.VoteReceived(vote))
            elif isinstance(action, actions.Validate) and self.answer_checks:
                answers.append(events.BlockChecked(action.block_hash, Verdict.VOTABLE))
        for answer in answers:
            asked = [*asked, *self.tell(answer)]
        return asked

    def at(self, now_ms: int) -> list[actions.Action]:
        """Let the clock show this, and tick."""
        self.now_ms = now_ms
        return self.tell(events.Tick())

    def wait(self, duration_ms: int) -> list[actions.Action]:
        """Let time pass in one step."""
        return self.at(self.now_ms + duration_ms)

    def vote(self, member: int, kind: VoteKind, view: int, block_hash: BlockHash = NO_BLOCK) -> list[actions.Action]:
        """A vote arrives."""
        return self.take(fake_vote(member, kind, view, block_hash))

    def take(self, *received: Vote | Certificate) -> list[actions.Action]:
        """Votes and certificates arrive."""
        asked: list[actions.Action] = []
        for one in received:
            event = events.VoteReceived(one) if isinstance(one, Vote) else events.CertificateReceived(one)
            asked += self.tell(event)
        return asked

    def propose(self, proposed: FakeBlock, *certificates: Certificate) -> list[actions.Action]:
        """A proposal arrives from its leader."""
        vote = fake_vote(proposed.leader, VoteKind.NOTARIZE, proposed.view, proposed.hash)
        return self.tell(events.ProposalReceived(proposed.info, vote, certificates))

    def build(self, asked: list[actions.Action], **fields: object) -> FakeBlock:
        """The block that the one Build among the actions asked for, on genesis or on `parent`."""
        (order,) = of(actions.Build, asked)
        parent = fields.pop("parent", GENESIS)
        assert isinstance(parent, FakeBlock | FinalTip)
        assert parent.hash == order.parent_hash
        return block(order.view, parent, self.size, **fields)
