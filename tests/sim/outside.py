"""The outside world of a run: the evil members, the judge of final blocks, the Bitcoin nodes, and the users."""

from collections.abc import Sequence
from random import Random

from pegnode.net.transport import PeerId
from tests.sim import bitcoin_views, oracle, workload
from tests.sim.seams import Adversary, L1Views, Oracle, Workload, World


class Idle:
    """An evil member that does no evil."""

    def outgoing(self, destination: PeerId, payload: bytes) -> Sequence[bytes]:
        """As it is."""
        return (payload,)

    def incoming(self, source: PeerId, payload: bytes) -> None:
        """Of no interest."""

    async def run(self) -> None:
        """Nothing."""


class Everybody:
    """All of it."""

    def adversary_of(self, world: World, index: int, rng: Random) -> Adversary:
        """Who plays an evil member."""
        return Idle()

    def oracle_of(self, world: World) -> Oracle:
        """The judge."""
        return oracle.oracle_of(world)

    def l1_views_of(self, world: World, rng: Random) -> L1Views:
        """The Bitcoin nodes."""
        return bitcoin_views.l1_views_of(world, rng)

    def workload_of(self, world: World, rng: Random) -> Workload:
        """The users and the miner."""
        return workload.workload_of(world, rng)
