"""What goes wrong while the time is bad, carried out as the plan says."""

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import trio

from pegnode.net.transport import PeerId
from tests.sim.disk import Trap
from tests.sim.plan import Disturbance, Kind

if TYPE_CHECKING:
    from tests.sim.world import SimWorld

PATIENCE_S: Final = 3.0
"""A trap that nobody steps into for so long is set at any write, and after that the process is killed as it stands."""
SLOW_S: Final = (0.3, 2.5)
"""What frames take on slow links."""


class Faults:
    """The disturbances of one run."""

    def __init__(self, world: "SimWorld") -> None:
        self._world = world

    async def run(self) -> None:
        """Let them happen, each at its time, until cancelled."""
        self._world.network.weather = self._world.plan.weather
        async with trio.open_nursery() as nursery:
            for disturbance in self._world.plan.disturbances:
                nursery.start_soon(self._disturb, disturbance)
            await trio.sleep_forever()

    async def _disturb(self, disturbance: Disturbance) -> None:
        await trio.sleep_until(disturbance.at_s)
        self._world.note("the world", f"{disturbance}{f' at {disturbance.trap}' if disturbance.trap else ''}")
        struck = set(disturbance.members)
        match disturbance.kind:
            case Kind.CRASH:
                assert disturbance.trap is not None
                await self._crash(disturbance.members[0], disturbance.trap, disturbance.for_s)
            case Kind.POWER:
                for index in sorted(struck):
                    self._fail_power(index, disturbance.for_s)
            case Kind.CUT | Kind.FREEZE:
                await self._block(self._world.lanes_from(struck) | self._world.lanes_to(struck), disturbance.for_s)
            case Kind.ONE_WAY:
                await self._block(self._world.lanes_from(struck), disturbance.for_s)
            case Kind.LOSE_JOURNAL:
                self._world.kill(disturbance.members[0], "killed, and its journal is gone", power=True)
                self._world.lose_journal(disturbance.members[0], {})
            case Kind.OLD_JOURNAL:
                await self._roll_back(disturbance.members[0], disturbance.for_s)
            case Kind.SLOW:
                await self._slow_down(self._world.lanes_from(struck), disturbance.for_s)

    async def _crash(self, index: int, trap: Trap, for_s: float) -> None:
        disk = self._world.disks[index]
        disk.set_trap(trap)
        self._world.down_s[index] = for_s
        await trio.sleep(PATIENCE_S)
        if disk.trap is trap:
            disk.set_trap(any_write := replace(trap, kind=None, nth=1))
            await trio.sleep(PATIENCE_S)
            if disk.trap is any_write:
                disk.trap = None
                self._world.kill(index, "killed where it stands", power=trap.power)

    async def _roll_back(self, index: int, for_s: float) -> None:
        copy = self._world.disks[index].journal_entries.copied()
        await trio.sleep(for_s)
        if copy and index not in self._world.to_renew:
            self._world.kill(index, f"killed, and its journal of {for_s:.1f} s ago put back", power=False)
            self._world.watch.excused.add(index)
            self._world.lose_journal(index, copy)

    def _fail_power(self, index: int, for_s: float) -> None:
        """Nobody tells the others, either: they find out by the silence."""
        rng = self._world.random(f"power {index} {trio.current_time()}")
        if index in self._world.members and index not in self._world.is_powerless:
            self._world.is_powerless.add(index)
            self._world.network.block(self._world.lanes_from({index}))
        self._world.down_s[index] = for_s * rng.uniform(0.2, 1.0)
        self._world.kill(index, "power fails", power=True)

    async def _block(self, lanes: Iterable[tuple[PeerId, PeerId]], for_s: float) -> None:
        lanes = sorted(lanes)
        self._world.network.block(lanes)
        try:
            await trio.sleep(for_s)
        finally:
            self._world.network.unblock(lanes)

    async def _slow_down(self, lanes: Iterable[tuple[PeerId, PeerId]], for_s: float) -> None:
        lanes = sorted(lanes)
        for lane in lanes:
            self._world.network.set_delay(*lane, SLOW_S)
        try:
            await trio.sleep(for_s)
        finally:
            for lane in lanes:
                self._world.network.set_delay(*lane, self._world.plan.delay_s)
