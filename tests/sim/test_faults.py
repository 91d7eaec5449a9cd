"""The faults of whole members, one at a time: what is said to go wrong does go wrong, and is borne."""

from dataclasses import replace

import pytest

from tests.sim.disk import Phase, Trap
from tests.sim.outside import Everybody
from tests.sim.plan import Disturbance, Kind, Plan
from tests.sim.play import play
from tests.sim.world import SimWorld

QUIET = Plan.calm(1, bad_time_s=6.0)
SLOW_MEMBER = 2
SYNC_S = 0.8


@pytest.fixture
def slow_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a write to a slow disk takes is known."""
    monkeypatch.setattr("tests.sim.faults.SYNC_S", ((SYNC_S, SYNC_S),))


def with_faults(*disturbances: Disturbance) -> SimWorld:
    """The quiet run with these."""
    world = play(replace(QUIET, disturbances=disturbances), Everybody())
    assert world.violation is None
    return world


def said_of(world: SimWorld, who: str, words: str) -> list[float]:
    """When it was noted."""
    return [at_s for at_s, whose, what in world.trace.entries if whose == who and words in what]


@pytest.mark.usefixtures("slow_writes")
def test_member_with_a_slow_disk_stands_still_after_each_write_while_others_go_on() -> None:
    """Nothing of it runs meanwhile, no timer either; then what was due comes at once; and it bears all that."""
    world = with_faults(Disturbance(1.0, 4.0, Kind.SLOW_DISK, (SLOW_MEMBER,)))
    slow = f"member {SLOW_MEMBER}"
    waits = said_of(world, slow, "waits for its disk")
    assert len(waits) >= 3
    for began_s in waits:
        if began_s + SYNC_S < QUIET.bad_time_s:
            meanwhile = [who for at_s, who, _ in world.trace.entries if began_s < at_s < began_s + SYNC_S]
            assert slow not in meanwhile
            assert any(who.startswith("member") for who in meanwhile)
    assert not said_of(world, "member 1", "waits for its disk")


@pytest.mark.usefixtures("slow_writes")
def test_member_that_stands_still_can_be_killed() -> None:
    """It does not go on before it ends, and the next process does not begin with a wait of this one."""
    power_s = (1.7, 2.9, 4.1)
    world = with_faults(
        Disturbance(1.0, 4.0, Kind.SLOW_DISK, (SLOW_MEMBER,)),
        *(Disturbance(at_s, 0.3, Kind.POWER, (0, 1, 2, 3)) for at_s in power_s),
    )
    waits = said_of(world, f"member {SLOW_MEMBER}", "waits for its disk")
    assert any(began_s < at_s < began_s + SYNC_S for began_s in waits for at_s in power_s)
    assert world.ends == len(power_s) * QUIET.size


@pytest.mark.parametrize("kind", [Kind.LOSE_DATABASE, Kind.LOSE_BOTH], ids=lambda kind: kind.value)
def test_member_without_its_database_fetches_all_anew(kind: Kind) -> None:
    """With its journal, or without."""
    world = with_faults(Disturbance(3.0, 0.5, kind, (SLOW_MEMBER,)))
    [_, again_s] = said_of(world, f"member {SLOW_MEMBER}", "starts at height 0, ")
    assert again_s > 3.0
    forgot = kind is Kind.LOSE_BOTH
    assert bool(said_of(world, f"member {SLOW_MEMBER}", "starts at height 0, floor 0")[1:]) is forgot


def test_member_whose_whole_disk_is_put_back_goes_on() -> None:
    """As where a machine is set back to an older image: nothing on it tells that it is one."""
    world = with_faults(Disturbance(1.5, 3.0, Kind.OLD_BOTH, (SLOW_MEMBER,)))
    who = f"member {SLOW_MEMBER}"
    [back_s] = said_of(world, who, "its old disk of 3.0 s ago is put back")
    height = max(int(what.split()[1]) for at_s, whose, what in world.trace.entries if whose == "the chain" and at_s < 4)
    first = next(what for at_s, whose, what in world.trace.entries if whose == who and at_s > back_s)
    assert first.startswith("starts at height ")
    assert 0 < int(first.split()[3].rstrip(",")) < height


def test_each_crash_of_a_member_comes_about_though_another_waits() -> None:
    """And one at a write that never comes ends the process at another one."""
    traps = [
        Trap(Phase.AFTER, "journal vote"), Trap(Phase.BEFORE, "database block", 2), Trap(Phase.FULL, "journal vote"),
        Trap(Phase.AFTER, "database halts", power=True),
    ]  # fmt: skip
    world = with_faults(*(Disturbance(0.5, 0.2, Kind.CRASH, (1,), trap) for trap in traps))
    crashes = world.crashes()
    assert {"killed after journal vote", "killed before database block", "disk full at journal vote"} < crashes.keys()
    assert sum(crashes.values()) == world.ends == 4


def test_final_block_that_only_the_dead_had_written_is_final() -> None:
    """Each member's process ends the moment that it wrote its first block, before anything of it could take notice."""
    trap = Trap(Phase.AFTER, "database block", 2)  # the first is genesis
    world = with_faults(*(Disturbance(0.0, 0.5, Kind.CRASH, (index,), trap) for index in range(QUIET.size)))
    assert world.crashes() == {"killed after database block": QUIET.size}
    said = [f"{who}: {what}" for _, who, what in world.trace.entries]
    first = next(number for number, line in enumerate(said) if line.startswith("the chain: block 1 "))
    assert ": starts at height 1, " in said[first + 1]  # nobody who went on knew of it


@pytest.mark.usefixtures("slow_writes")
def test_member_that_stands_still_answers_nobody_on_a_later_connection() -> None:
    """Who restarts meanwhile connects to it afterwards, and hears nothing that its former process asked for."""
    restarts = [Disturbance(at_s, 0.1, Kind.POWER, (1,)) for at_s in (1.5, 2.0, 2.5)]
    world = with_faults(Disturbance(1.0, 3.0, Kind.SLOW_DISK, (SLOW_MEMBER,)), *restarts)
    assert said_of(world, f"member {SLOW_MEMBER}", "waits for its disk")
    assert len(said_of(world, "member 1", "starts at")) == 1 + len(restarts)
