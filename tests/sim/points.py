"""One short run again and again, in which a member's process ends each time at another of its writes, or otherwise.

Nothing else goes wrong, so the run is the same up to that write: what is walked is each write with each of `ENDS`. It
is long enough for all that a member writes among honest ones, its signatures of a payout too.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from tests.sim.disk import ENDS, Trap
from tests.sim.plan import Disturbance, Kind, Plan
from tests.sim.run import Outcome, run_plan

SEED: Final = 21
WITHIN_S: Final = 2.5
"""The writes of so much virtual time are walked; in this one a payout is signed after 1.1 s."""
DOWN_S: Final = 0.5
CALM: Final = Plan.calm(SEED, bad_time_s=WITHIN_S)


@dataclass(frozen=True, slots=True)
class Point:
    """An end of a member's process. number: of the write, from 1 on.  end: see `Trap.end`."""

    member: int
    number: int
    kind: str
    end: str

    def __str__(self) -> str:
        return f"member {self.member}, {self.end} its write {self.number}, {self.kind}"


def writes_of(member: int) -> Sequence[str]:
    """The kind of each write that is walked."""
    world, outcome = run_plan(CALM)
    assert outcome.violation is None, outcome.violation
    return world.disks[member].written


def spread(writes: Sequence[str], of_each: int | None) -> list[int]:
    """The numbers of all writes, or of so many of each kind: the first, the last, and others between them."""
    numbers: list[int] = []
    for kind in dict.fromkeys(writes):
        found = [number for number, other in enumerate(writes, 1) if other == kind]
        count = len(found) if of_each is None else min(of_each, len(found))
        numbers += {found[index * (len(found) - 1) // max(1, count - 1)] for index in range(count)}
    return sorted(numbers)


def walk(member: int, numbers: Iterable[int]) -> Iterator[tuple[Point, Outcome]]:
    """What came of each run in which a member's process ended at one of these writes, in each way."""
    for number in numbers:
        for phase, power in ENDS:
            trap = Trap(phase, None, number, power)
            crash = Disturbance(0.0, DOWN_S, Kind.CRASH, (member,), trap)
            world, outcome = run_plan(replace(CALM, disturbances=(crash,)))
            [(_, kind)] = world.disks[member].sprung
            yield Point(member, number, kind, trap.end), outcome
