"""One random run: a bad time of everything the seed chooses, then a healed network that must make progress."""

import random
from dataclasses import dataclass

from tests.machine.equivocator import Equivocator
from tests.machine.world import Faults, World

BAD_TIME_MS = 12_000
RECOVERY_MS = 20_000
"""Time for all to reach a common view and settle everything: a few view timeouts at their cap, and no more."""
NEW_BLOCKS = 3


@dataclass(frozen=True)
class Scenario:
    """What a seed stands for."""

    seed: int
    size: int
    byzantine: tuple[int, ...]
    down: tuple[int, ...]
    faults: Faults

    @classmethod
    def of(cls, seed: int) -> "Scenario":
        """Choose sizes and faults."""
        chance = random.Random(f"scenario {seed}")
        size = chance.choice((4, 7))
        tolerated = (size - 1) // 3
        faulty = chance.sample(range(size), k=chance.randint(0, tolerated))
        byzantine = tuple(faulty) if chance.random() < 0.5 else ()
        down = () if byzantine else tuple(faulty)
        faults = Faults(
            min_delay_ms=chance.choice((1, 5, 50)),
            max_delay_ms=chance.choice((50, 200, 1500)),
            drop=chance.choice((0.0, 0.05, 0.3)),
            duplicate=chance.choice((0.0, 0.2)),
            crash=chance.choice((0.0, 0.002, 0.02)),
            withhold_l1=chance.choice((0.0, 0.3, 1.0)),
            wait_for_l1=chance.choice((0.0, 0.5)),
            build_fails=chance.choice((0.0, 0.1)),
        )
        return cls(seed, size, byzantine, down, faults)


def run(seed: int) -> World:
    """Run it all; raises Violation or AssertionError."""
    scenario = Scenario.of(seed)
    world = World(seed, scenario.size, scenario.faults)
    for index in scenario.byzantine:
        world.members[index] = Equivocator(world, index)
        world.watch.byzantine.add(index)
    for member in world.members:
        if member.index not in scenario.down:
            member.start()
    for at_ms in range(0, BAD_TIME_MS, 400):
        world.after(at_ms, world.submit)
    for at_ms in range(0, BAD_TIME_MS, 1500):
        world.after(at_ms, lambda: _disturb(world))
    world.run_until(BAD_TIME_MS)
    world.heal()
    height = world.height
    settled = world.run_for(RECOVERY_MS, world.all_settled)
    if not settled or not world.run_for(RECOVERY_MS, lambda: world.all_reached(height + NEW_BLOCKS)):
        stores = [(m.index, len(m.store), m.machine.view, m.machine.final_view) for m in world.members]
        raise AssertionError(f"no progress after the network healed: {scenario}, {stores}")
    return world


def _disturb(world: World) -> None:
    """Cut the network in two or mend it; turn L1's news on or off."""
    world.partition = {}
    if world.random.random() < 0.3:
        world.partition = {member.index: world.random.randint(0, 1) for member in world.members}
    world.l1_news = world.random.random() < 0.5
