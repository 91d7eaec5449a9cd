"""One short run again and again, in which a member's process ends each time at another of its writes.

What ends it goes round from one write to the next: killed before it, in it, after it, and power failing there. The
walk over all members therefore has each of them at writes of each kind.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from tests.sim.disk import Phase, Trap
from tests.sim.plan import Disturbance, Kind, Plan
from tests.sim.run import Outcome, run_plan

SEED: Final = 1
WITHIN_S: Final = 2.9
"""The writes of so much virtual time are walked: several views, with claims, and all that makes blocks final."""
DOWN_S: Final = 0.5
ENDS: Final = tuple((phase, power) for power in (False, True) for phase in (Phase.BEFORE, Phase.TORN, Phase.AFTER))


def walk(member: int) -> Iterator[tuple[int, Outcome]]:
    """The number of each write of a member, and what came of the run in which its process ended there."""
    calm = Plan.calm(SEED, bad_time_s=WITHIN_S)
    number = 0
    while True:
        number += 1
        phase, power = ENDS[(number + member) % len(ENDS)]
        crash = Disturbance(0.0, DOWN_S, Kind.CRASH, (member,), Trap(phase, None, number, power))
        world, outcome = run_plan(replace(calm, disturbances=(crash,)))
        if not world.disks[member].was_trapped and outcome.violation is None:
            return
        yield number, outcome
