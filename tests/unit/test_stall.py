"""Why no block becomes final: each cause told apart, and no alarm where there is none."""

from dataclasses import replace

import pytest

from federation.certificate import VoteKind
from pegnode.service.stall import TOGETHER_MS, ChainFacts, DueWatch, MemberSeen, stall
from pegnode.status import SeenVote

NOON_MS = 1_795_089_600_000  # 2026-11-19 12:00:00 UTC
NOW_MS = NOON_MS + 600_000
STARTED_MS = NOON_MS - 3_600_000
TIMEOUT_MS = 2_000
VIEW = 17
ALICE, BOB, CAROL, DAVE = range(4)


def seen(name: str, view: int | None = VIEW, kind: VoteKind = VoteKind.NULLIFY) -> MemberSeen:
    """A member that is connected, and voted a minute ago."""
    vote = None if view is None else SeenVote(view, kind, NOW_MS - 60_000)
    return MemberSeen(name, True, None, vote, 100)


def away(name: str, since_ms: int = NOON_MS, view: int | None = 12) -> MemberSeen:
    """A member that is not connected."""
    return replace(seen(name, view), connected=False, missing_since_ms=since_ms)


FOUR = (seen("alice"), seen("bob"), seen("carol"), seen("dave"))
FACTS = ChainFacts(
    now_ms=NOW_MS,
    started_ms=STARTED_MS,
    member=ALICE,
    members=FOUR,
    quorum=3,
    view=VIEW,
    height=40,
    best_known_height=41,
    due_since_ms=NOW_MS - 60_000,
    timeout_ms=TIMEOUT_MS,
)


def facts(*changed: tuple[int, MemberSeen], **changes: object) -> ChainFacts:
    """FACTS with other members, by index, and other values."""
    members = list(FOUR)
    for index, member in changed:
        members[index] = member
    return replace(FACTS, members=members, **changes)  # type: ignore[arg-type]


def why(*changed: tuple[int, MemberSeen], **changes: object) -> str:
    """What is told of a chain that stands."""
    found = stall(facts(*changed, **changes))
    assert found is not None
    return found.why


# when there is an alarm


def test_idle_chain_is_no_stall_however_old_its_newest_block() -> None:
    assert stall(facts(due_since_ms=None)) is None


@pytest.mark.parametrize(("size", "timeouts"), [(4, 3), (7, 4), (15, 6)])
def test_stall_is_told_after_some_timeouts_with_a_block_due(size: int, timeouts: int) -> None:
    members = [seen(f"member-{index}") for index in range(size)]
    patience_ms = timeouts * TIMEOUT_MS
    still = replace(FACTS, members=members, quorum=size - (size - 1) // 3, due_since_ms=NOW_MS - patience_ms)
    assert stall(still) is None
    stands = stall(replace(still, due_since_ms=NOW_MS - patience_ms - 1))
    assert stands is not None
    assert stands.since_ms == NOW_MS - patience_ms - 1


def test_lost_quorum_is_told_before_a_block_is_due() -> None:
    found = stall(facts((CAROL, away("carol")), (DAVE, away("dave", NOON_MS + 60_000)), due_since_ms=None))
    assert found is not None
    assert found.since_ms == NOON_MS + 60_000, "with carol alone away there was a quorum"
    at_once = (DAVE, away("dave", NOW_MS - 3 * TIMEOUT_MS))
    assert stall(facts((CAROL, away("carol")), at_once, due_since_ms=None)) is None, "it may be back in a moment"


def test_one_absent_member_of_four_is_no_stall() -> None:
    assert stall(facts((DAVE, away("dave")), due_since_ms=None)) is None


# who is missing


def test_members_that_went_together_are_named_with_the_moment_since_which_both_are_away() -> None:
    both = ((CAROL, away("carol")), (DAVE, away("dave", NOON_MS + TOGETHER_MS)))
    assert why(*both) == "3 of 4 needed, 2 reachable; carol and dave both missing since 12:00:10 UTC (0:09:50)"


def test_members_that_went_at_different_times_are_told_apart() -> None:
    both = ((CAROL, away("carol", NOON_MS + 60_000)), (DAVE, away("dave")))
    assert why(*both) == (
        "3 of 4 needed, 2 reachable; "
        "dave missing since 12:00:00 UTC (0:10:00), carol missing since 12:01:00 UTC (0:09:00)"
    )


def test_member_not_seen_since_the_start_is_told_so() -> None:
    both = ((CAROL, away("carol")), (DAVE, away("dave", STARTED_MS)))
    assert "dave not seen since this node started at 11:00:00 UTC (1:10:00)" in why(*both)


def test_node_that_reaches_nobody_is_told_to_look_at_itself() -> None:
    alone = ((BOB, away("bob")), (CAROL, away("carol")), (DAVE, away("dave")))
    assert why(*alone) == (
        "3 of 4 needed, and this node reaches none of the others; "
        "bob, carol and dave all missing since 12:00:00 UTC (0:10:00); look at its own network first"
    )


# this node itself


def test_node_behind_the_others_is_told_that_the_chain_goes_on() -> None:
    assert why(best_known_height=900) == (
        "the chain goes on without this node: it stands at block 40, and others have block 900"
    )


def test_node_in_an_earlier_view_than_more_than_f_others_is_told_so() -> None:
    ahead = ((CAROL, seen("carol", 25)), (DAVE, seen("dave", 24)))
    assert why(*ahead) == "this node is still in view 17, while carol and dave vote in later ones up to 25"
    assert "later ones" not in why((DAVE, seen("dave", 2**60))), "a single member may say anything"


@pytest.mark.parametrize("obstacle", ["its journal is renewed, and 1 of 3 others were heard", "its signer refuses: x"])
def test_member_that_does_not_vote_itself_says_why(obstacle: str) -> None:
    quiet = ((ALICE, seen("alice", None)), (DAVE, away("dave")))
    assert why(*quiet, obstacles=(obstacle,)) == (
        "3 of 4 needed, 3 reachable, but only 2 vote in view 17; "
        f"this member (alice) does not vote: {obstacle}; dave is not connected since 12:00:00 UTC (0:10:00)"
    )


def test_contradicting_certificates_are_told_at_once() -> None:
    found = stall(facts(due_since_ms=None, contradicted=True))
    assert found is not None
    assert found.since_ms == NOW_MS
    assert found.why.startswith("two certificates contradict each other")


# connected, and silent or divided


def test_connected_members_that_are_silent_are_named_with_their_last_view() -> None:
    silent = ((CAROL, seen("carol", 12)), (DAVE, seen("dave", None)))
    assert why(*silent) == (
        "3 of 4 needed, 4 reachable, but only 2 vote in view 17; carol is connected, but silent since view 12; "
        "dave is connected, but no vote of it was heard since this node started"
    )


def test_nobody_is_silent_in_a_view_whose_timer_has_yet_to_fire() -> None:
    fresh = [(index, seen(member.name, VIEW - 1)) for index, member in enumerate(FOUR)]
    assert "silent" not in why(*fresh)
    fired = (ALICE, replace(FOUR[ALICE], last_vote=SeenVote(VIEW, VoteKind.NULLIFY, NOW_MS - TIMEOUT_MS - 1)))
    assert "but only 1 votes in view 17" in why(*fresh[1:], fired)


def test_quorum_that_votes_for_different_things_says_what_this_member_withholds() -> None:
    assert why(withheld="vote-time-ahead: 9 s") == (
        "a quorum votes, but no block gets 3 votes, and view after view is given up; "
        "this member votes for no block that it was shown: vote-time-ahead: 9 s"
    )


def test_member_whose_l1_lags_is_named() -> None:
    told = why((CAROL, replace(FOUR[CAROL], l1_buried_height=94)), (DAVE, replace(FOUR[DAVE], l1_buried_height=99)))
    assert told.endswith(
        "carol's Bitcoin node is 6 blocks behind the others'; dave's Bitcoin node is 1 block behind the others'"
    ), told
    assert "Bitcoin" not in why((DAVE, replace(FOUR[DAVE], l1_buried_height=999))), "one ahead makes nobody lag"


def test_absent_member_is_told_beside_a_divided_quorum() -> None:
    assert why((DAVE, away("dave"))).endswith("; dave missing since 12:00:00 UTC (0:10:00)")


# without keys


def test_node_without_keys_tells_what_it_can_know() -> None:
    assert why(member=None) == "no block has come although one was due: a member's `peg status` says why"
    nobody = [(index, away(member.name)) for index, member in enumerate(FOUR)]
    assert why(*nobody, member=None).startswith("this node reaches none of the members; alice, bob, carol and dave")
    assert "goes on without this node" in why(member=None, best_known_height=900)
    dialled = [(index, away(member.name)) for index, member in enumerate(FOUR) if index != BOB]
    assert stall(facts(*dialled, member=None, due_since_ms=None)) is None, "it may know one member alone"


# words and watch


def test_block_is_due_since_the_last_one_became_final() -> None:
    watch = DueWatch()

    def since_ms(due: bool, final_view: int, now_ms: int) -> int | None:
        watch.note(due=due, final_view=final_view, timeout_ms=now_ms * 2, now_ms=now_ms)
        return watch.since_ms

    assert since_ms(False, 1, 10) is None
    assert [since_ms(True, 1, 20), since_ms(True, 1, 30)] == [20, 20]
    assert watch.timeout_ms == 40, "what it doubled to since is no measure of patience"
    assert since_ms(True, 2, 40) == 40
    assert watch.timeout_ms == 80
    assert since_ms(False, 2, 50) is None
