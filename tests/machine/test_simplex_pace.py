"""What learning the timeout is worth, in virtual time: under load, with leaders dead, silent, dawdling, or far away."""

from federation.certificate import VoteKind
from tests.machine.pace import LOCAL, Dawdler, Load, Silent, Situation, delay
from tests.machine.test_simplex_outages import cast_votes

BLOCKS = 24
NEAR = Situation("four members, 50 ms apart", 4, 50)
NEAR_BLOCK_MS = LOCAL.block_interval_ms + 100
"""A round of proposals and one of votes takes twice 50 ms, but half of it passes while the interval does."""


def test_dead_leader_costs_its_turn_the_least_timeout() -> None:
    load = Load.of(Situation("one dead", 4, 50, dead=(2,)), LOCAL)
    assert load.blocks(BLOCKS) < NEAR_BLOCK_MS + (LOCAL.min_view_timeout_ms + 150) / 3
    assert {member.machine.missed_leaders for member in load.world.members if member.up} == {frozenset({2})}


def test_silent_leader_costs_what_the_others_need_three_times() -> None:
    load = Load.of(Situation("one silent", 4, 50, other=((2, Silent),)), LOCAL)
    assert load.blocks(BLOCKS) < NEAR_BLOCK_MS + (LOCAL.min_view_timeout_ms + 250) / 3
    assert not load.world.members[0].machine.missed_leaders


def test_dawdling_leader_stretches_nothing() -> None:
    load = Load.of(Situation("one dawdling", 4, 50, other=((2, Dawdler),)), LOCAL)
    load.blocks(BLOCKS)
    assert load.timeout_ms() < LOCAL.min_view_timeout_ms + 150


def test_leader_that_returns_is_waited_for_from_its_first_vote_on() -> None:
    load = Load.of(Situation("one dead", 4, 50, dead=(2,)), LOCAL)
    load.world.members[2].start()
    load.blocks(4)
    assert not any(member.machine.missed_leaders for member in load.world.members)
    votes = cast_votes(load.world)
    load.blocks(BLOCKS)
    assert not [vote for vote in votes if vote.kind is VoteKind.NULLIFY]
    leaders = [load.world.watch.final[load.world.height - back].leader for back in range(8)]
    assert leaders.count(2) == 2


def test_nobody_is_skipped_after_an_outage_of_all() -> None:
    load = Load.of(NEAR, LOCAL)
    for index in (1, 2):
        load.world.members[index].crash(None)
    load.world.run_for(60_000)
    for index in (0, 3):
        load.world.members[index].crash(1_000)
    load.world.run_for(1_000)
    for index in (1, 2):
        load.world.members[index].start()
    load.blocks(2)
    votes = cast_votes(load.world)
    load.blocks(BLOCKS)
    assert not [vote for vote in votes if vote.kind is VoteKind.NULLIFY]
    assert not any(member.machine.missed_leaders for member in load.world.members)


def test_slow_spell_costs_one_row_of_nullified_views_and_is_forgotten() -> None:
    load = Load.of(NEAR, LOCAL)
    load.world.faults = delay(1_500)
    load.blocks(2)
    votes = cast_votes(load.world)
    assert load.blocks(BLOCKS) < LOCAL.block_interval_ms + 2 * 1_650 + 100
    assert not [vote for vote in votes if vote.kind is VoteKind.NULLIFY]
    load.world.faults = delay(50)
    load.blocks(4 * 8)
    assert load.timeout_ms() < LOCAL.view_timeout_ms
