"""The memory of votes: what it meets, what it forgets, and that it stays small whatever one member signs."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.certificate import Vote, VoteKind
from federation.equivocation import Equivocation, conflicting
from federation.vote_memory import VIEWS_AHEAD, VIEWS_REMEMBERED, VoteMemory
from tests.support.equivocations import (
    CONFLICTS,
    FINALIZE,
    NOTARIZE,
    NULLIFY,
    all_votes,
    certificate,
    equivocation,
    signed_vote,
)
from tests.support.stores import RULES

VOTES = [vote for view in (9, 10) for member in (1, 2) for vote in all_votes(RULES, member, view)]


@pytest.mark.parametrize("kinds", CONFLICTS)
@pytest.mark.parametrize("reverse", [False, True])
def test_rival_is_met_in_either_order(kinds: tuple[VoteKind, VoteKind], reverse: bool) -> None:
    item = equivocation(RULES, 1, kinds=kinds)
    first, second = (item.second, item.first) if reverse else (item.first, item.second)
    memory = VoteMemory()
    memory.add(first)
    assert [Equivocation.of(rival, second) for rival in memory.rivals(second)] == [item]


def test_vote_may_have_two_rivals() -> None:
    memory = VoteMemory()
    for vote in (signed_vote(RULES, 1, NULLIFY), signed_vote(RULES, 1, FINALIZE)):
        memory.add(vote)
    assert [rival.kind for rival in memory.rivals(signed_vote(RULES, 1, FINALIZE, block=2))] == [NULLIFY, FINALIZE]


@given(st.lists(st.sampled_from(VOTES), max_size=12))
def test_whatever_comes_rivals_are_guilty_and_no_guilt_is_missed(heard: list[Vote]) -> None:
    memory, found = VoteMemory(), set()
    for vote in heard:
        for rival in memory.rivals(vote):
            assert conflicting(rival, vote)
            found.add((vote.member, vote.view))
        memory.add(vote)
    guilty = {
        (one.member, one.view) for index, one in enumerate(heard) for other in heard[index:] if conflicting(one, other)
    }
    assert found == guilty


@pytest.mark.parametrize("kinds", CONFLICTS)
def test_votes_within_a_certificate_that_have_rivals_are_told(kinds: tuple[VoteKind, VoteKind]) -> None:
    memory = VoteMemory()
    for member in (0, 2):
        memory.add(signed_vote(RULES, member, kinds[0], block=1))
    memory.add(signed_vote(RULES, 1, NOTARIZE, view=10))
    against = certificate(RULES, (0, 1, 2), kinds[1], block=2)
    assert [vote.member for vote in memory.contradicted(against)] == [0, 2]
    assert list(memory.contradicted(certificate(RULES, (0, 1, 2), kinds[0], block=1))) == []
    assert list(memory.contradicted(replace(against, epoch=1))) == []


def test_same_vote_with_another_signature_is_no_rival_and_is_not_kept() -> None:
    memory = VoteMemory()
    memory.add(signed_vote(RULES, 1))
    again = signed_vote(RULES, 1, aux=1)
    assert list(memory.rivals(again)) == []
    memory.add(again)
    assert len(memory) == 1


def test_first_vote_stays_however_many_follow() -> None:
    memory, first = VoteMemory(), signed_vote(RULES, 1)
    memory.add(first)
    for block in range(2, 50):
        memory.add(signed_vote(RULES, 1, block=block))
    assert len(memory) == 1
    assert list(memory.rivals(signed_vote(RULES, 1, block=50))) == [first]


def test_views_outside_the_window_are_not_remembered() -> None:
    vote = signed_vote(RULES, 1)
    memory = VoteMemory(1_000)
    inside = (1_000 - VIEWS_REMEMBERED, 1_000 + VIEWS_AHEAD)
    for view in (inside[0] - 1, *inside, inside[1] + 1, 2**64 - 1):
        memory.add(replace(vote, view=view))
    assert len(memory) == len(inside)
    for view in inside:
        assert list(memory.rivals(signed_vote(RULES, 1, view=view, block=2)))


def test_views_that_quorums_left_behind_are_forgotten() -> None:
    memory = VoteMemory()
    memory.add(signed_vote(RULES, 1, view=9))
    memory.advance(9 + VIEWS_REMEMBERED)
    assert len(memory) == 1
    memory.advance(10 + VIEWS_REMEMBERED)
    assert len(memory) == 0
    memory.advance(9)
    memory.add(signed_vote(RULES, 1, view=9))
    assert len(memory) == 0, "the window never goes back"


def test_member_alone_can_not_move_the_window() -> None:
    memory = VoteMemory()
    memory.add(signed_vote(RULES, 1, NOTARIZE, view=9))
    for view in range(10, 10 + 2 * VIEWS_AHEAD):
        memory.add(replace(signed_vote(RULES, 2), view=view))
    assert list(memory.rivals(signed_vote(RULES, 1, NOTARIZE, view=9, block=2)))
    assert len(memory) == 1 + VIEWS_AHEAD - 9
