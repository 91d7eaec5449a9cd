"""The outside world of a run: the evil members, the judge of final blocks, the Bitcoin nodes, and the users."""

from random import Random

from tests.sim import bitcoin_views, oracle, workload
from tests.sim.adversary import ByzantineMember
from tests.sim.knowledge import Knowledge
from tests.sim.seams import Adversary, L1Views, Oracle, Workload, World


class Everybody:
    """All of it, for one run."""

    def __init__(self) -> None:
        self._knowledge: Knowledge | None = None

    def adversary_of(self, world: World, index: int, rng: Random) -> Adversary:
        """Who plays an evil member, as drawn; all of them share what they know."""
        self._knowledge = self._knowledge or Knowledge.of(world)
        return ByzantineMember(world, index, rng, knowledge=self._knowledge)

    def oracle_of(self, world: World) -> Oracle:
        """The judge."""
        return oracle.oracle_of(world)

    def l1_views_of(self, world: World, rng: Random) -> L1Views:
        """The Bitcoin nodes."""
        return bitcoin_views.l1_views_of(world, rng)

    def workload_of(self, world: World, rng: Random) -> Workload:
        """The users and the miner."""
        return workload.workload_of(world, rng)
