"""What every kind of evil is made of: a part that changes or swallows frames, and a part that strikes unasked."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from random import Random

from federation.certificate import Certificate, Vote
from pegnode.chain.state import ChainView
from pegnode.net.messages import AnyMessage, CertificatesMessage, Message, VotesMessage, encode_message
from pegnode.net.transport import PeerId
from tests.sim.knowledge import Knowledge
from tests.sim.seams import World
from tests.support.memory_member import Member

MAX_VIEWS = 50
"""In so many of the newest views an evil knows what it decided to do."""


@dataclass
class Villain:
    """A Byzantine member as its evils see it. carried_out: how often it did what, by name, and by "name: variety".

    inject: sends a frame of this member's.
    """

    world: World
    index: int
    knowledge: Knowledge
    inject: Callable[[PeerId, bytes], None]
    carried_out: Counter[str] = field(default_factory=Counter)

    @property
    def member(self) -> Member | None:
        """Its own real member, while that runs."""
        return self.world.members.get(self.index)

    @property
    def accomplices(self) -> list[int]:
        """The other evil members, whose keys it has."""
        return [index for index in self.knowledge.secrets if index != self.index]

    @property
    def others(self) -> list[PeerId]:
        """Every other member's peer id, by index."""
        size = self.world.rules.membership.size
        return [self.world.peer_id(index) for index in range(size) if index != self.index]

    @property
    def honest_others(self) -> list[int]:
        """The indexes of the honest members."""
        size = self.world.rules.membership.size
        return [index for index in range(size) if index not in self.world.byzantine]

    @property
    def patience_s(self) -> float:
        """How long the most impatient honest member would wait in a view that begins now."""
        machines = [member.machine for member in self.world.honest if member.machine.is_started]
        learned_ms = min((machine.timeout_ms for machine in machines), default=None)
        return (learned_ms or self.world.genesis.consensus.view_timeout_ms) / 1000

    def state_after(self, block_hash: bytes) -> ChainView | None:
        """The state after a block, as this member has it."""
        member = self.member
        return None if member is None else member.core.unfinal.view(block_hash)  # type: ignore[arg-type]

    def say(self, destination: PeerId, message: Message) -> None:
        """Send a message of one's own making."""
        self.inject(destination, encode_message(message))

    def say_some(self, rng: Random, message: Message) -> None:
        """Send it to some of the others, at least one."""
        others = self.others
        for destination in rng.sample(others, rng.randint(1, len(others))):
            self.say(destination, message)

    def done(self, name: str, detail: str = "", variety: str = "") -> None:
        """Note that an evil was carried out. variety: of what there are many, which."""
        self.carried_out[name] += 1
        if variety:
            self.carried_out[f"{name}: {variety}"] += 1
        self.world.note(f"member {self.index}", " ".join(filter(None, ("EVIL", name, detail, variety))))


class Evil:
    """One kind of evil of one villain. eagerness: the chance that an occasion is taken, drawn once."""

    name = ""

    def __init__(self, villain: Villain, rng: Random) -> None:
        self.villain = villain
        self.rng = rng
        self.eagerness = rng.choice((0.1, 0.3, 0.6, 1.0))
        self._plays: dict[int, bool] = {}

    def on_send(self, destination: PeerId, message: AnyMessage, payload: bytes) -> Sequence[bytes] | None:
        """What goes out in place of a frame; None: this evil leaves it to the others."""
        return None

    def on_hear(self, source: PeerId, message: AnyMessage, payload: bytes) -> None:
        """What it makes of a message that its member hears."""

    def strike(self) -> None:
        """What it does of its own accord, from time to time."""

    def is_eager(self) -> bool:
        """Whether it takes this occasion."""
        return self.rng.random() < self.eagerness

    def plays_in(self, view: int) -> bool:
        """Whether it takes the occasions of a view: all of them or none."""
        if view not in self._plays:
            self._plays = dict(list(self._plays.items())[-MAX_VIEWS:])
            self._plays[view] = self.is_eager()
        return self._plays[view]

    def silenced(self, message: AnyMessage, is_kept_back: Callable[[Vote], bool]) -> Sequence[bytes] | None:
        """A frame without some of its member's own votes, alone or in certificates; None if it has none of these."""
        own = self.villain.index
        match message:
            case VotesMessage(items):
                said = tuple(data for data in items if not _holds(own, [Vote.decode(data)], is_kept_back))
            case CertificatesMessage(items):
                said = tuple(data for data in items if not _holds(own, Certificate.decode(data).votes(), is_kept_back))
            case _:
                return None
        if len(said) == len(items):
            return None
        return encoded([type(message)(said)]) if said else ()


def _holds(member: int, votes: Iterable[Vote], wanted: Callable[[Vote], bool]) -> bool:
    return any(vote.member == member and wanted(vote) for vote in votes)


def encoded(messages: Iterable[Message]) -> list[bytes]:
    """The frames of messages."""
    return [encode_message(message) for message in messages]
