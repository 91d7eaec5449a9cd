"""What is due once everything is healed: the chain goes on within a bound, and settles all that users handed in.

A block of a view that began before the healing says nothing of how the chain goes on, even if it becomes final later:
its votes may have been on their way. So what is awaited is the first final block of a view in which nobody was when
everything healed. An idle chain makes one too: the heartbeat sees to it.
"""

from bisect import bisect_right
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
PAYOUT_BLOCKS: Final = 8
"""Blocks of L1 within which a chain that goes on settles the batch that was open, and makes the next one."""
FAR_PAYOUT_BLOCKS: Final = 16
"""The same where members stay far from each other: each of its steps takes seconds."""


class Recovery:
    """Of one run. The bounds follow from the protocol."""

    def __init__(self, world: "SimWorld", workload: Workload) -> None:
        self._world = world
        self._workload = workload

    async def run(self) -> None:
        """Wait until the chain has gone on everywhere, and everything is settled. Raises Violation."""
        world, workload = self._world, self._workload
        view = world.watch.highest_view
        await self._until(
            lambda: self._has_gone_on(view),
            self.time_bound_s,
            lambda: f"no block of a view above {view} within {self.time_bound_s:.0f} s of the healing",
        )
        self._check_views(view)
        workload.chain_goes_on(FAR_PAYOUT_BLOCKS if world.plan.is_far else PAYOUT_BLOCKS)
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

    def _has_gone_on(self, view: int) -> bool:
        """Whether every honest member runs, and holds a final block of a view above this one."""
        before = bisect_right(self._world.watch.final_views, view)
        is_made = before < len(self._world.watch.final_views)
        return is_made and self._all_honest_run and all(member.height > before for member in self._world.honest)

    def _check_views(self, view: int) -> None:
        """The first final block of a view above this one became so in time. Raises Violation."""
        watch = self._world.watch
        reached = watch.reached_views[bisect_right(watch.final_views, view)]
        if reached - view > self.view_bound:
            raise Violation(
                f"the first block begun after the healing became final {reached - view} views after it, and "
                f"{self.view_bound} are due"
            )

    @property
    def view_bound(self) -> int:
        """How many views may begin after the healing until a block of one of them is final at an honest member.

        Of any f+1 leaders in a row one is honest, and its block becomes final if all honest members are in its view
        before a timer fires. Votes and certificates said again bring them together within a round of leaders; in the
        next round the timer of the honest one's view is long enough, for the least timeout is longer than a healed
        network needs; and where it has adapted to less, it doubles after a round, so there is a third one. Two more:
        one begins before everybody is back, and the votes to finalize arrive in the view after their block's.

        Members that stay far from each other first learn it: the timeout doubles each time that all honest leaders had
        their turn in vain, up to its cap.
        """
        membership, params = self._world.rules.membership, self._world.genesis.consensus
        doublings = (params.max_view_timeout_ms // params.min_view_timeout_ms).bit_length()
        learning = doublings * membership.size if self._world.plan.is_far else 0
        return 3 * (membership.fault_tolerance + 1) + 2 + learning

    @property
    def time_bound_s(self) -> float:
        """When it is final everywhere: each view at the cap of the timeout; before them all is said again, twice."""
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
