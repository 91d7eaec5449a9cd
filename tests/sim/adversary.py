"""A Byzantine member: a whole real one, with someone evil between it and the network who has its keys.

Theory of operation. Each villain has some kinds of evil, drawn from the seed, and none of the others; of those it has,
each takes an occasion or lets it go by, as eagerly as was drawn. A frame that its member sends goes through the evils
in turn: the first that changes it decides. From time to time an evil strikes of its own accord. The villains of one
federation have each other's keys, hear what any of them hears, and have one purse: the cheat's, among the users.

Nothing that a villain sends is more than a real one could send. What it must not bring about is looked for elsewhere.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from random import Random

import trio

from bridge.errors import MalformedError
from pegnode.net.messages import decode_message
from pegnode.net.transport import PeerId
from tests.sim import evil_answers, evil_leader, evil_memory, evil_votes, evil_wire
from tests.sim.bad_blocks import KINDS
from tests.sim.evil import Evil, Villain
from tests.sim.knowledge import Knowledge
from tests.sim.seams import Adversary, World

EVILS: tuple[type[Evil], ...] = (
    evil_leader.Twins,
    evil_leader.BadBlocks,
    evil_leader.OtherBodies,
    evil_leader.BadJustification,
    evil_leader.PassOver,
    evil_leader.KeepBodies,
    evil_votes.VoteForAll,
    evil_votes.Contradict,
    evil_votes.VoteAhead,
    evil_votes.ForgeVotes,
    evil_votes.ForgeCertificates,
    evil_votes.FinishForOne,
    evil_votes.TwoEnds,
    evil_answers.FalseTips,
    evil_answers.FalseFinalBlocks,
    evil_answers.FalseBlocks,
    evil_answers.AskTooMuch,
    evil_answers.FalseReports,
    evil_answers.FalseShares,
    evil_answers.FalseItems,
    evil_memory.FalseMemories,
    evil_memory.TwinsForRestarted,
    evil_memory.FalseGuilt,
    evil_wire.Garbage,
    evil_wire.Replay,
    evil_wire.Withhold,
    evil_wire.ShowToSome,
    evil_wire.Delay,
)
"""In the order in which they are asked about a frame: those that make much of it before those that swallow it."""
MOST_EVILS = 6
STRIKE_S = 0.4
"""Between two strikes, in the mean."""


class ByzantineMember:
    """One villain, and its evils.

    chosen: only these, for tests of one of them.  knowledge: what it shares with its accomplices.
    """

    def __init__(
        self,
        world: World,
        index: int,
        rng: Random,
        chosen: Sequence[type[Evil]] | None = None,
        knowledge: Knowledge | None = None,
    ) -> None:
        self._rng = rng
        self._world = world
        inject = partial(world.network.inject, world.peer_id(index))
        self.villain = Villain(world, index, knowledge or Knowledge.of(world), inject)
        if chosen is None:
            drawn = rng.sample(EVILS, rng.randint(1, MOST_EVILS))
            chosen = [kind for kind in EVILS if kind in drawn]
        self.evils = [kind(self.villain, rng) for kind in chosen]
        self._honest_peers = {world.peer_id(member) for member in self.villain.honest_others}
        world.note(f"member {index}", f"is evil: {', '.join(evil.name for evil in self.evils)}")

    @property
    def carried_out(self) -> Counter[str]:
        """How often each evil was carried out, by name."""
        return self.villain.carried_out

    def outgoing(self, destination: PeerId, payload: bytes) -> Sequence[bytes]:
        """What is sent in place of a frame of its member's."""
        message = decode_message(payload)
        self.villain.knowledge.learn(message, payload)
        for evil in self.evils:
            instead = evil.on_send(destination, message, payload)
            if instead is not None:
                return instead
        return (payload,)

    def incoming(self, source: PeerId, payload: bytes) -> None:
        """It hears what its member hears; an accomplice's garbage teaches it nothing."""
        if source not in self._honest_peers:
            return
        try:
            message = decode_message(payload)
        except MalformedError:
            return
        self.villain.knowledge.learn(message, payload)
        for evil in self.evils:
            evil.on_hear(source, message, payload)

    async def run(self) -> None:
        """Strike from time to time, and let go what is held back, until cancelled."""
        async with trio.open_nursery() as nursery:
            for evil in self.evils:
                if isinstance(evil, evil_wire.Delay):
                    nursery.start_soon(evil.run)
            while True:
                await trio.sleep(self._rng.expovariate(1 / STRIKE_S))
                if self.villain.member is not None:
                    self._rng.choice(self.evils).strike()


def carried_out(adversaries: Iterable[Adversary]) -> Counter[str]:
    """How often all of them together did what: by an evil's name, and where there are varieties by "name: variety"."""
    counted: Counter[str] = Counter()
    for adversary in adversaries:
        if isinstance(adversary, ByzantineMember):
            counted.update(adversary.carried_out)
    return counted


def kinds_done(counted: Mapping[str, int]) -> str:
    """How many of all evils, and of all kinds of bad blocks, were carried out."""
    evils = [evil.name for evil in EVILS]
    blocks = [f"{evil_leader.BadBlocks.name}: {kind.name}" for kind in KINDS]
    evils_done, blocks_done = (sum(counted.get(name, 0) > 0 for name in names) for names in (evils, blocks))
    return f"{evils_done} of {len(evils)} kinds of evil and {blocks_done} of {len(blocks)} of bad blocks"
