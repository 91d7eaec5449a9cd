"""What goes wrong while the time is bad, carried out as the plan says."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import trio

from pegnode.net.transport import PeerId
from tests.sim.disk import Trap
from tests.sim.plan import RARE_WRITES, Disturbance, Kind

if TYPE_CHECKING:
    from tests.sim.world import SimWorld

PATIENCE_S: Final = 3.0
PATIENCE_SHARE: Final = 0.15
"""A trap at a kind of write that does not come for so long, or such a share of the bad time, is set at any write; and
where none comes for twice as long, the process is killed where it stands, as soon as there is one."""
RARE_SHARE: Final = 0.7
"""One at a rare write waits up to this share of the bad time."""
LOOK_S: Final = 0.1
"""How often it is asked whether there is a process."""
SYNC_S: Final = ((0.05, 0.5), (0.05, 0.5), (0.5, 2.5))
"""What a write to a slow disk takes: less than the silence after which others end the connection."""
SLOW_S: Final = (0.3, 2.5)
"""What frames take on slow links."""


class Faults:
    """The disturbances of one run; to be made before anybody runs, for the crashes from 0.0 s on count every write."""

    def __init__(self, world: "SimWorld") -> None:
        self._world = world
        for crash in world.plan.disturbances:
            if crash.trap is not None and crash.at_s == 0.0:
                world.disks[crash.members[0]].set_trap(crash.trap, crash.for_s)

    async def run(self) -> None:
        """Let them happen, each at its time, until cancelled."""
        self._world.network.weather = self._world.plan.weather
        async with trio.open_nursery() as nursery:
            for disturbance in self._world.plan.disturbances:
                if disturbance.trap is not None and disturbance.at_s == 0.0:
                    continue
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
            case Kind.CUT:
                await self._block(self._world.lanes_from(struck) | self._world.lanes_to(struck), disturbance.for_s)
            case Kind.ONE_WAY:
                await self._block(self._world.lanes_from(struck), disturbance.for_s)
            case Kind.SLOW_DISK:
                await self._slow_disk(disturbance.members[0], disturbance.for_s)
            case Kind.LOSE_JOURNAL | Kind.LOSE_BOTH | Kind.LOSE_DATABASE:
                self._lose(disturbance.members[0], disturbance.kind)
            case Kind.OLD_JOURNAL | Kind.OLD_BOTH:
                await self._roll_back(disturbance.members[0], disturbance.kind, disturbance.for_s)
            case Kind.SLOW:
                await self._slow_down(self._world.lanes_from(struck), disturbance.for_s)

    async def _crash(self, index: int, trap: Trap, for_s: float) -> None:
        world, disk = self._world, self._world.disks[index]
        armed = disk.set_trap(trap, for_s)
        if trap.kind is None:
            return
        patience_s = min(PATIENCE_S, PATIENCE_SHARE * world.bad_time_s)
        is_rare = trap.kind in RARE_WRITES
        await trio.sleep_until(RARE_SHARE * world.bad_time_s if is_rare else trio.current_time() + patience_s)
        if armed.sprung_at is None:
            armed.loosen()
            await trio.sleep(2 * patience_s)
        while armed.sprung_at is None:
            if world.kill(index, "killed where it stands", power=trap.power, down_s=for_s):
                disk.withdraw(armed)
                world.killed_standing += 1
                return
            await trio.sleep(LOOK_S)

    async def _slow_disk(self, index: int, for_s: float) -> None:
        rng = self._world.random(f"slow disk {index} {trio.current_time()}")
        slow = self._world.slow_disks[index]
        sync_s = rng.choice(SYNC_S)
        slow.append(sync_s)
        try:
            await trio.sleep(for_s)
        finally:
            slow.remove(sync_s)

    def _lose(self, index: int, kind: Kind) -> None:
        self._world.kill(index, f"killed, and suffers a {kind.value}", power=True)
        if kind is not Kind.LOSE_JOURNAL:
            self._world.disks[index].replace_database({})
        if kind is not Kind.LOSE_DATABASE:
            self._world.lose_journal(index, {})

    async def _roll_back(self, index: int, kind: Kind, for_s: float) -> None:
        disk = self._world.disks[index]
        copy, tables = disk.journal_entries.copied(), disk.copied_tables()
        await trio.sleep(for_s)
        if copy and index not in self._world.to_renew:
            self._world.kill(index, f"killed, and its {kind.value} of {for_s:.1f} s ago is put back", power=False)
            self._world.watch.excused.add(index)
            self._world.lose_journal(index, copy)
            if kind is Kind.OLD_BOTH:
                disk.replace_database(tables)

    def _fail_power(self, index: int, for_s: float) -> None:
        """Nobody tells the others, either: they find out by the silence."""
        rng = self._world.random(f"power {index} {trio.current_time()}")
        if index in self._world.members and index not in self._world.is_powerless:
            self._world.is_powerless.add(index)
            self._world.network.block(self._world.lanes_from({index}))
        self._world.kill(index, "power fails", power=True, down_s=for_s * rng.uniform(0.2, 1.0))

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
