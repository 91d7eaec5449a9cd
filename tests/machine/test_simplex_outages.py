"""Named situations for bare machines: who may be down, slow, faulty or prudent, and the chain goes on."""

from dataclasses import replace

import pytest

from federation.certificate import VoteKind
from pegnode.consensus import actions
from tests.machine.equivocator import Equivocator
from tests.machine.simulated_member import SimulatedMember
from tests.machine.world import HEALTHY, PARAMS, Faults, World

ROUND_MS = 20_000


def running(size: int, faults: Faults = HEALTHY, seed: int = 1) -> World:
    """A federation with every member up, and some blocks made."""
    world = World(seed, size, faults)
    for member in world.members:
        member.start()
    world.submit(3)
    assert world.run_for(ROUND_MS, world.all_settled)
    return world


def settles_more(world: World, duration_ms: int = ROUND_MS) -> bool:
    """Whether new transactions become final at every honest member that is up."""
    world.submit(3)
    up = [member for member in world.honest if member.up]
    return world.run_for(duration_ms, lambda: all(len(member.settled) == world.submitted for member in up))


def cast_votes(world: World) -> list[actions.CastVote]:
    """Every vote cast from now on, by anyone."""
    seen: list[actions.CastVote] = []

    def listen(member: SimulatedMember) -> None:
        perform = member.perform

        def listening(action: actions.Action) -> None:
            if isinstance(action, actions.CastVote):
                seen.append(action)
            perform(action)

        member.perform = listening  # type: ignore[method-assign]

    for member in world.members:
        listen(member)
    return seen


def test_chain_goes_on_with_one_of_four_dead() -> None:
    world = running(4)
    world.members[2].crash(None)
    for _ in range(5):
        assert settles_more(world)


def test_chain_stops_with_two_of_four_dead_and_goes_on_when_one_returns() -> None:
    world = running(4)
    world.members[1].crash(None)
    world.members[2].crash(None)
    height = world.height
    assert not settles_more(world, 60_000)
    assert world.height <= height + 1  # a block may have been all but final when they died
    world.members[2].start()
    assert settles_more(world)
    assert world.height > height


def test_chain_goes_on_with_two_of_seven_dead() -> None:
    world = running(7)
    for index in (2, 3):
        world.members[index].crash(None)
    for _ in range(3):
        assert settles_more(world)


def test_chain_stops_with_three_of_seven_dead_and_goes_on_when_one_returns() -> None:
    world = running(7)
    for index in (0, 3, 6):
        world.members[index].crash(None)
    assert not settles_more(world, 60_000)
    world.members[3].start()
    assert settles_more(world)


def test_member_that_was_away_for_long_catches_up() -> None:
    world = running(4)
    world.members[3].crash(None)
    for _ in range(40):
        assert settles_more(world)
    world.members[3].start()
    assert world.run_for(ROUND_MS, lambda: world.all_reached(world.height))
    assert settles_more(world)


def test_power_failure_of_everyone_loses_nothing_final() -> None:
    world = running(7)
    world.submit(3)
    world.run_for(150)
    height = world.height
    for member in world.members:
        member.crash(1_000)
    world.run_for(2_000)
    world.heal()
    assert world.run_for(ROUND_MS, world.all_settled)
    assert world.height > height


def test_idle_chain_is_silent_until_the_heartbeat() -> None:
    world = running(4)
    world.run_for(PARAMS.heartbeat_ms // 2)
    seen = cast_votes(world)
    height = world.height
    last_ms = world.now_ms
    assert world.run_for(PARAMS.heartbeat_ms, lambda: world.height > height)
    assert world.now_ms - last_ms > PARAMS.heartbeat_ms // 4
    world.run_for(PARAMS.heartbeat_ms // 4)
    assert len(seen) == 2 * 4  # one block: each member notarizes and finalizes it
    assert all(vote.kind is not VoteKind.NULLIFY for vote in seen)


def test_healthy_chain_never_nullifies_under_load() -> None:
    world = running(7)
    seen = cast_votes(world)
    for at_ms in range(0, ROUND_MS, 100):
        world.after(at_ms, world.submit)
    world.run_for(ROUND_MS)
    assert not [vote for vote in seen if vote.kind is VoteKind.NULLIFY]
    assert world.all_settled() or world.run_for(1_000, world.all_settled)


def test_blocks_come_at_most_every_interval() -> None:
    world = running(4)
    height = world.height
    for at_ms in range(0, ROUND_MS, 20):
        world.after(at_ms, world.submit)
    world.run_for(ROUND_MS)
    assert (ROUND_MS // PARAMS.block_interval_ms) // 2 < world.height - height <= ROUND_MS // PARAMS.block_interval_ms


def test_network_slower_than_the_timeout_is_overcome_by_doubling() -> None:
    slow = Faults(min_delay_ms=PARAMS.view_timeout_ms, max_delay_ms=2 * PARAMS.view_timeout_ms)
    world = World(1, 4, slow)
    for member in world.members:
        member.start()
    world.submit(3)
    assert world.run_for(120_000, world.all_settled)


def test_partition_without_quorum_on_either_side_stops_and_mends() -> None:
    world = running(4)
    world.partition = {0: 0, 1: 0, 2: 1, 3: 1}
    height = world.height
    world.submit(2)
    world.run_for(60_000)
    assert world.height <= height + 1
    world.heal()
    assert world.run_for(ROUND_MS, world.all_settled)


def test_partition_leaves_the_side_with_a_quorum_going() -> None:
    world = running(4)
    world.partition = {0: 0, 1: 0, 2: 0, 3: 1}
    height = world.height
    for _ in range(10):
        world.submit()
        world.run_for(2_000)
    assert world.height > height + 5
    world.heal()
    assert world.run_for(ROUND_MS, world.all_settled)


@pytest.mark.parametrize("prudence", [0.5, 1.0])
def test_prudence_about_l1_never_stops_transfers(prudence: float) -> None:
    world = running(4, replace(HEALTHY, withhold_l1=prudence))
    world.l1_news = True
    for _ in range(10):
        assert settles_more(world)


def test_l1_goes_on_once_the_members_agree_about_it() -> None:
    world = running(4, replace(HEALTHY, withhold_l1=1.0))
    world.l1_news = True
    world.submit(3)
    world.run_for(ROUND_MS)
    assert not any(block.carries_l1 for block in world.watch.final.values())
    world.faults = HEALTHY
    assert world.run_for(60_000, lambda: any(block.carries_l1 for block in world.watch.final.values()))


@pytest.mark.parametrize(("size", "faulty"), [(4, (1,)), (7, (1, 2)), (7, (0, 4))])
def test_equivocating_members_stop_nobody_and_are_found_out(size: int, faulty: tuple[int, ...]) -> None:
    world = World(1, size)
    accused: set[int] = set()
    world.watch.note_accused = lambda first, second: accused.add(first.member)  # type: ignore[method-assign]
    for index in faulty:
        world.members[index] = Equivocator(world, index)
        world.watch.byzantine.add(index)
    for member in world.members:
        member.start()
    for _ in range(5):
        world.submit(3)
        world.run_for(2_000)
    world.heal()
    assert world.run_for(2 * ROUND_MS, world.all_settled)
    assert accused == set(faulty)


def test_one_member_alone_is_its_own_quorum() -> None:
    world = running(1)
    for _ in range(3):
        assert settles_more(world)
