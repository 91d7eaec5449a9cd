"""What is due once everything is healed: the chain goes on within a bound, and settles all that users handed in."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import trio

from tests.sim.seams import Violation, Workload
from tests.support.memory_member import Member

if TYPE_CHECKING:
    from tests.sim.world import SimWorld

LOOK_S: Final = 0.25
"""How often it is asked whether the chain has gone on."""
SETTLE_S: Final = 240.0
"""For all that users handed in: deposits need confirmations, payouts their batch, both some rounds of leaders."""


class Recovery:
    """Of one run. The bounds follow from the protocol."""

    def __init__(self, world: "SimWorld", workload: Workload) -> None:
        self._world = world
        self._workload = workload

    async def run(self) -> None:
        """Wait until the chain has gone on everywhere, and everything is settled. Raises Violation."""
        world, workload, watch = self._world, self._workload, self._world.watch
        view, height = watch.highest_view, len(watch.final)
        await self._until(
            lambda: self._all_honest_run and all(member.height > height for member in world.honest),
            self.time_bound_s,
            lambda: f"no block within {self.time_bound_s:.0f} s of the healing",
        )
        late = watch.final_views[height] - view
        if late > self.view_bound:
            raise Violation(f"the first block after the healing came {late} views later, and {self.view_bound} are due")
        await self._until(
            workload.settled,
            SETTLE_S,
            lambda: f"not settled {SETTLE_S:.0f} s after the healing: {workload.unsettled()}",
        )
        await self._until(
            lambda: len({guilty_of(member) for member in world.honest}) == 1,
            SETTLE_S,
            lambda: f"honest members know of other guilty ones: {sorted(map(sorted, map(guilty_of, world.honest)))}",
        )

    @property
    def view_bound(self) -> int:
        """Views after the healing by the end of which a block has become final.

        Of any f+1 leaders in a row one is honest, and its block becomes final if all honest members are in its view
        before a timer fires. Votes and certificates said again bring them together within a round of leaders; in the
        next round the timer of the honest one's view is long enough, for the least timeout is longer than a healed
        network needs; and where it has adapted to less, it doubles after a round, so there is a third one.

        Members that stay far from each other first learn it: the timeout doubles each time that all honest leaders had
        their turn in vain, up to its cap.
        """
        membership, params = self._world.rules.membership, self._world.genesis.consensus
        doublings = (params.max_view_timeout_ms // params.min_view_timeout_ms).bit_length()
        learning = doublings * membership.size if self._world.plan.is_far else 0
        return 3 * (membership.fault_tolerance + 1) + 2 + learning

    @property
    def time_bound_s(self) -> float:
        """The same in seconds: each view at the cap of the timeout, and before them everything is said again, twice."""
        params = self._world.genesis.consensus
        return (params.heartbeat_ms + 2 * params.resend_ms + self.view_bound * params.max_view_timeout_ms) / 1000

    @property
    def _all_honest_run(self) -> bool:
        plan = self._world.plan
        return len(self._world.honest) == plan.size - len(plan.byzantine) - len(plan.incurable)

    async def _until(self, condition: Callable[[], bool], seconds: float, failed: Callable[[], str]) -> None:
        deadline_s = trio.current_time() + seconds
        while not condition():
            if trio.current_time() > deadline_s:
                states = ", ".join(
                    f"{index}: height {member.height}, view {member.machine.view if member.machine.is_started else 0}"
                    for index, member in self._world.members.items()
                )
                raise Violation(f"{failed()} ({states})")
            await trio.sleep(LOOK_S)


def guilty_of(member: Member) -> frozenset[int]:
    """The members that one knows to have signed two votes which exclude each other."""
    return frozenset(item.member for item in member.store.equivocations())
