"""The outside world of a run: the evil members, the judge of final blocks, the Bitcoin nodes, and the users."""

from random import Random

from tests.sim import adversary, bitcoin_views, oracle, workload
from tests.sim.seams import Adversary, L1Views, Oracle, Workload, World


class Everybody:
    """All of it."""

    def adversary_of(self, world: World, index: int, rng: Random) -> Adversary:
        """Who plays an evil member."""
        return adversary.adversary_of(world, index, rng)

    def oracle_of(self, world: World) -> Oracle:
        """The judge."""
        return oracle.oracle_of(world)

    def l1_views_of(self, world: World, rng: Random) -> L1Views:
        """The Bitcoin nodes."""
        return bitcoin_views.l1_views_of(world, rng)

    def workload_of(self, world: World, rng: Random) -> Workload:
        """The users and the miner."""
        return workload.workload_of(world, rng)
