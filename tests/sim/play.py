"""One run of a plan in this process."""

from tests.sim.determinism import run_deterministic
from tests.sim.plan import Plan
from tests.sim.seams import Outside
from tests.sim.world import SimWorld


def play(plan: Plan, outside: Outside) -> SimWorld:
    """The world at its end; what was found is its `violation`."""
    made: list[SimWorld] = []

    async def main() -> None:
        made.append(SimWorld(plan, outside))
        await made[0].run()

    run_deterministic(plan.seed, main)
    [world] = made
    return world
