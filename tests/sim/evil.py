"""What every kind of evil is made of: a part that changes or swallows frames, and a part that strikes unasked."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from random import Random

from pegnode.chain.state import ChainView
from pegnode.net.messages import AnyMessage, Message, encode_message
from pegnode.net.transport import PeerId
from tests.sim.knowledge import Knowledge
from tests.sim.seams import World
from tests.support.memory_member import Member


@dataclass
class Villain:
    """A Byzantine member as its evils see it. carried_out: what it did, by name, for the tests of the test.

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
    def others(self) -> list[PeerId]:
        """Every other member's peer id, by index."""
        size = self.world.rules.membership.size
        return [self.world.peer_id(index) for index in range(size) if index != self.index]

    @property
    def honest_others(self) -> list[int]:
        """The indexes of the honest members."""
        size = self.world.rules.membership.size
        return [index for index in range(size) if index not in self.world.byzantine]

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

    def done(self, name: str, detail: str = "") -> None:
        """Note that an evil was carried out."""
        self.carried_out[name] += 1
        self.world.note(f"member {self.index}", f"EVIL {name}{' ' if detail else ''}{detail}")


class Evil:
    """One kind of evil of one villain. eagerness: the chance that an occasion is taken, drawn once."""

    name = ""

    def __init__(self, villain: Villain, rng: Random) -> None:
        self.villain = villain
        self.rng = rng
        self.eagerness = rng.choice((0.1, 0.3, 0.6, 1.0))

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


def encoded(messages: Iterable[Message]) -> list[bytes]:
    """The frames of messages."""
    return [encode_message(message) for message in messages]
