"""Leaders who are near to all while honest members are far from each other, and what they make of it.

Each of these makes the honest ones wait in vain, without ever leaving f+1 nullified views in a row.
"""

from functools import partial

from bridge.bitcoin.identifiers import BlockHash
from federation.certificate import Certificate, Vote, VoteKind
from tests.machine.messages import Message, Proposal
from tests.machine.pace import LOCAL, Silent, delay
from tests.machine.simulated_member import SimulatedMember
from tests.machine.watch import Violation
from tests.machine.world import World

NEAR_MS = 50
FAR_MS = 1_500
"""Twice this is more than a view gets at first, and less than it may get."""
SUBMIT_EVERY_MS = 4_000
PATIENCE_MS = 60_000
"""A third of it is enough for the timeouts to double as often as they must."""


class UnevenWorld(World):
    """Everybody is near to everybody, until the honest members are far from each other."""

    far = False

    def send(self, source: int, target: int, message: Message) -> None:
        """Carry a message."""
        near = not self.far or not self.watch.byzantine.isdisjoint((source, target))
        self.after(NEAR_MS if near else FAR_MS, lambda: self.members[target].receive(message, source))


class BlindWorld(UnevenWorld):
    """What belongs to a view of the honest member that comes after it reaches each honest member late."""

    def send(self, source: int, target: int, message: Message) -> None:
        """Carry a message."""
        honest = [member.index for member in self.honest]
        late = False
        if self.far and target in honest:
            hidden = honest[(honest.index(target) + 1) % len(honest)]
            late = _view(message) is not None and self.membership.leader(_view(message) or 0) == hidden
        self.after(FAR_MS if late else NEAR_MS // 5, lambda: self.members[target].receive(message, source))


def _view(message: Message) -> int | None:
    match message:
        case Vote(view=view) | Certificate(view=view):
            return view
        case Proposal(block):
            return block.view
    return None


class PassOver(SimulatedMember):
    """Follows every rule, and puts no transaction into its blocks."""

    def _build(self, view: int, parent_hash: BlockHash, include_l1: bool) -> None:
        pool, self.pool = self.pool, set()
        super()._build(view, parent_hash, include_l1)
        self.pool = pool


class Withholder(Silent):
    """Proposes nothing, and never votes to finalize."""

    def cast(self, vote: Vote) -> None:
        """Keep some votes back."""
        if vote.kind is not VoteKind.FINALIZE:
            super().cast(vote)


class Staller(PassOver):
    """Never votes to finalize, passes no finalization on, and shows one member its notarizations too late."""

    def cast(self, vote: Vote) -> None:
        """Keep some votes back."""
        if vote.kind is not VoteKind.FINALIZE:
            super().cast(vote)

    def send(self, target: int, *messages: Message) -> None:
        """Keep some certificates back, for a while or for good."""
        world = self.world
        for message in messages:
            kind = message.kind if isinstance(message, Certificate) else None
            ours = isinstance(message, Certificate) and world.membership.leader(message.view) in world.watch.byzantine
            if kind is VoteKind.NOTARIZE and ours and target == world.honest[-1].index:
                self.later(world.members[target].machine.timeout_ms + 100, partial(super().send, target, message))
            elif kind is not VoteKind.FINALIZE:
                super().send(target, message)


def uneven(
    size: int, byzantine: tuple[int, ...], kind: type[SimulatedMember], world_kind: type[UnevenWorld] = UnevenWorld
) -> UnevenWorld:
    """A federation that works, with short timeouts, whose honest members are far from each other from now on."""
    world = world_kind(1, size, delay(NEAR_MS), LOCAL)
    for member in world.members:
        member.start()

    def submit() -> None:
        world.submit()
        world.after(SUBMIT_EVERY_MS, submit)

    submit()
    if not world.run_for(600_000, lambda: world.height >= 6 * size):
        raise Violation("the chain never began")
    for index in byzantine:
        world.members[index].crash(None)
        world.members[index] = _successor(world, index, kind)
        world.watch.byzantine.add(index)
    world.far = True
    return world


def _successor(world: World, index: int, kind: type[SimulatedMember]) -> SimulatedMember:
    """A member of another kind takes over what this one knew."""
    former, member = world.members[index], kind(world, index)
    member.entries, member.store = former.entries, former.store
    member.finalizations, member.settled = former.finalizations, former.settled
    world.members[index] = member
    member.start()
    return member


def require_honest_blocks(world: World) -> None:
    """Raises Violation unless some blocks of honest leaders become final."""
    began = world.height

    def some() -> bool:
        leaders = [world.watch.final[height].leader for height in range(began + 1, world.height + 1)]
        return len([leader for leader in leaders if leader not in world.watch.byzantine]) >= len(world.honest)

    if not world.run_for(PATIENCE_MS, some):
        raise Violation(
            f"honest leaders starve: {world.height - began} blocks in {PATIENCE_MS} ms, none of them theirs"
        )


def require_blocks(world: World) -> None:
    """Raises Violation unless some blocks become final."""
    began = world.height
    if not world.run_for(PATIENCE_MS, lambda: world.height >= began + world.membership.size):
        raise Violation(f"nothing becomes final: {world.height - began} blocks in {PATIENCE_MS} ms")
