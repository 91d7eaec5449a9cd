"""When the view timer runs, when it fires, and what is said again on a timer."""

from dataclasses import replace

import pytest

from federation.certificate import NO_BLOCK, VoteKind
from pegnode.consensus import actions, events
from pegnode.consensus.blocks import MAX_FINAL_BODIES
from pegnode.consensus.events import Verdict
from pegnode.consensus.state import CHUNK
from tests.machine.fake_chain import FakeBlock, fake_vote
from tests.support.simplex import PARAMS, Probe, block, finalization, notarization, nullification, of, tip

FIRST = block(1)
INTERVAL_MS, TIMEOUT_MS = PARAMS.block_interval_ms, PARAMS.view_timeout_ms


def nullifies_at(probe: Probe, deadline_ms: int) -> bool:
    """Whether the current view is nullified at exactly this time."""
    before = of(actions.CastVote, probe.at(deadline_ms - 1))
    after = of(actions.CastVote, probe.at(deadline_ms))
    return not before and [vote.kind for vote in after] == [VoteKind.NULLIFY]


def started_long_ago() -> Probe:
    """A member for whom the block interval is over."""
    probe = Probe()
    probe.wait(INTERVAL_MS)
    return probe


# what starts the timer


def test_timer_starts_with_known_work() -> None:
    probe = started_long_ago()
    probe.wait(500)
    before = probe.machine.is_due
    probe.tell(events.WorkKnown(True))
    assert (before, probe.machine.is_due) == (False, True)
    assert nullifies_at(probe, probe.now_ms + TIMEOUT_MS)


def test_timer_counts_from_the_earliest_moment_of_a_proposal() -> None:
    probe = Probe()
    started_ms = probe.now_ms
    probe.tell(events.WorkKnown(True))
    assert nullifies_at(probe, started_ms + INTERVAL_MS + TIMEOUT_MS)


def test_timer_starts_with_more_nullify_votes_than_faults() -> None:
    probe = started_long_ago()
    probe.vote(2, VoteKind.NULLIFY, 1)
    assert not of(actions.CastVote, probe.wait(2 * TIMEOUT_MS))
    probe.vote(3, VoteKind.NULLIFY, 1)
    assert nullifies_at(probe, probe.now_ms + TIMEOUT_MS)


def test_timer_starts_with_a_notarized_block_that_is_not_final() -> None:
    probe = started_long_ago()
    probe.take(notarization(FIRST))
    entered_ms = probe.now_ms
    assert nullifies_at(probe, entered_ms + INTERVAL_MS + TIMEOUT_MS)


def test_timer_starts_with_a_proposal_of_the_view() -> None:
    probe = Probe(answer_checks=False)
    probe.wait(INTERVAL_MS)
    probe.propose(FIRST)
    assert nullifies_at(probe, probe.now_ms + TIMEOUT_MS)


def test_timer_starts_at_the_heartbeat() -> None:
    probe = Probe()
    started_ms = probe.now_ms
    assert not of(actions.CastVote, probe.at(started_ms + PARAMS.heartbeat_ms - 1))
    assert not of(actions.CastVote, probe.at(started_ms + PARAMS.heartbeat_ms))
    assert nullifies_at(probe, started_ms + PARAMS.heartbeat_ms + TIMEOUT_MS)


def test_timer_stands_on_an_idle_chain() -> None:
    probe = Probe(start=events.Start(tip(FIRST), finalization(FIRST)))
    for _ in range(10):
        asked = probe.wait(PARAMS.heartbeat_ms // 11)
        assert not of(actions.CastVote, asked)
        assert not of(actions.Broadcast, asked)


def test_timer_stops_when_no_block_is_due_any_longer() -> None:
    probe = started_long_ago()
    probe.tell(events.WorkKnown(True))
    probe.wait(TIMEOUT_MS - 1)
    probe.tell(events.WorkKnown(False))
    assert not of(actions.CastVote, probe.wait(TIMEOUT_MS))


def test_timer_stops_when_the_notarized_block_becomes_final() -> None:
    probe = started_long_ago()
    probe.propose(FIRST)
    probe.take(notarization(FIRST), finalization(FIRST))
    assert not of(actions.CastVote, probe.wait(PARAMS.heartbeat_ms - 1))


def test_timer_starts_anew_in_each_view() -> None:
    probe = started_long_ago()
    probe.tell(events.WorkKnown(True))
    probe.wait(TIMEOUT_MS - 1)
    probe.take(nullification(1))
    assert nullifies_at(probe, probe.now_ms + TIMEOUT_MS)


# how long the timeout is


@pytest.mark.parametrize(("stalled", "factor"), [(0, 1), (1, 1), (2, 2), (3, 2), (4, 4), (5, 4), (6, 7.5), (100, 7.5)])
def test_timeout_doubles_after_each_f_plus_1_stalled_views_up_to_its_cap(stalled: int, factor: float) -> None:
    probe = started_long_ago()
    for view in range(1, stalled + 1):
        probe.take(nullification(view))
    probe.tell(events.WorkKnown(True))
    assert nullifies_at(probe, probe.now_ms + int(factor * TIMEOUT_MS))


@pytest.mark.parametrize("final", [False, True])
def test_timeout_is_short_again_after_a_final_block_and_not_after_a_notarized_one(final: bool) -> None:
    probe = started_long_ago()
    probe.tell(events.WorkKnown(True))
    for view in range(1, 5):
        probe.take(nullification(view))
    probe.take(notarization(block(5)))
    if final:
        probe.take(finalization(block(5)))
    entered_ms = probe.now_ms
    assert nullifies_at(probe, entered_ms + INTERVAL_MS + (TIMEOUT_MS if final else 4 * TIMEOUT_MS))


# when waiting is in vain


def test_view_whose_leader_nullified_it_is_given_up_at_once() -> None:
    probe = started_long_ago()
    probe.tell(events.WorkKnown(True))
    probe.vote(2, VoteKind.NULLIFY, 1)
    assert not of(actions.CastVote, probe.wait(1))
    (vote, *_) = of(actions.CastVote, probe.vote(1, VoteKind.NULLIFY, 1))
    assert vote == actions.CastVote(VoteKind.NULLIFY, 1, NO_BLOCK)


def test_view_whose_leader_nullified_it_after_its_proposal_is_not() -> None:
    probe = started_long_ago()
    probe.answer_checks = False
    probe.propose(FIRST)
    assert not of(actions.CastVote, probe.vote(1, VoteKind.NULLIFY, 1))
    assert nullifies_at(probe, probe.now_ms + TIMEOUT_MS)


def test_view_whose_leader_nullified_it_stands_while_no_block_is_due() -> None:
    probe = started_long_ago()
    assert not of(actions.CastVote, probe.vote(1, VoteKind.NULLIFY, 1))


def far_above(probe: Probe) -> FakeBlock:
    """A block that became final while the probe was away, and whose body it was sent."""
    newest = replace(block(99), height=MAX_FINAL_BODIES + 1)
    probe.take(finalization(newest))
    probe.tell(events.BlockReceived(newest.info))
    return newest


def test_leader_far_behind_gives_up_its_view_as_soon_as_a_block_is_due() -> None:
    probe = Probe()
    far_above(probe)
    assert probe.machine.view == 100
    assert not of(actions.CastVote, probe.wait(INTERVAL_MS))
    (vote,) = of(actions.CastVote, probe.tell(events.WorkKnown(True)))
    assert vote == actions.CastVote(VoteKind.NULLIFY, 100, NO_BLOCK)


def test_member_far_behind_waits_for_leaders_who_are_not() -> None:
    probe = Probe(member=3)
    far_above(probe)
    probe.wait(INTERVAL_MS)
    probe.tell(events.WorkKnown(True))
    assert nullifies_at(probe, probe.now_ms + TIMEOUT_MS)


def test_leader_that_can_catch_up_in_time_does_not_give_up() -> None:
    probe = Probe()
    near = replace(block(99), height=MAX_FINAL_BODIES)
    probe.take(finalization(near))
    probe.tell(events.BlockReceived(near.info))
    probe.wait(INTERVAL_MS)
    assert not of(actions.CastVote, probe.tell(events.WorkKnown(True)))


# what is said again


def test_votes_are_sent_again_on_the_timer() -> None:
    probe = Probe()
    probe.wait(PARAMS.resend_ms)
    probe.propose(FIRST)
    mine = fake_vote(0, VoteKind.NOTARIZE, 1, FIRST.hash)
    for _ in range(2):
        assert of(actions.Broadcast, probe.wait(PARAMS.resend_ms)) == [actions.Broadcast((mine,))]


def test_certificates_above_the_last_final_view_are_sent_again_with_its_proof() -> None:
    probe = Probe(start=events.Start(tip(FIRST), finalization(FIRST)))
    second = block(2, FIRST)
    probe.take(notarization(second), nullification(3))
    mine = fake_vote(0, VoteKind.FINALIZE, 2, second.hash)
    asked = probe.wait(PARAMS.resend_ms)
    proofs = (finalization(FIRST), notarization(second), nullification(3))
    assert of(actions.Broadcast, asked) == [actions.Broadcast((mine,), proofs)]


def test_votes_that_a_certificate_replaced_are_not_sent_again() -> None:
    probe = started_long_ago()
    probe.propose(FIRST)
    probe.wait(TIMEOUT_MS)
    probe.take(nullification(1))
    (again,) = of(actions.Broadcast, probe.wait(PARAMS.resend_ms))
    assert again == actions.Broadcast((), (nullification(1),))


def test_finalize_votes_of_a_nullified_view_are_not_sent_again() -> None:
    probe = Probe()
    probe.take(notarization(FIRST), nullification(1))
    (again,) = of(actions.Broadcast, probe.wait(PARAMS.resend_ms))
    assert again.votes == ()


def test_votes_at_or_below_the_last_final_view_are_not_sent_again() -> None:
    probe = Probe()
    second = block(2, FIRST)
    probe.take(notarization(FIRST), notarization(second), finalization(second), nullification(3))
    (again,) = of(actions.Broadcast, probe.wait(PARAMS.resend_ms))
    assert again.votes == ()


def test_nothing_is_sent_again_within_the_interval_after_finality_moved() -> None:
    probe = Probe()
    probe.wait(PARAMS.resend_ms - 1)
    probe.propose(FIRST)
    probe.take(finalization(FIRST), nullification(2))
    assert not of(actions.Broadcast, probe.wait(PARAMS.resend_ms - 1))
    assert of(actions.Broadcast, probe.wait(1))


def test_long_backlog_is_sent_in_turns_until_all_was_sent() -> None:
    probe = Probe()
    views = range(1, 3 * CHUNK)
    for view in views:
        probe.take(nullification(view))
    sent: set[int] = set()
    for _ in range(3):
        (again,) = of(actions.Broadcast, probe.wait(PARAMS.resend_ms))
        assert len(again.certificates) <= CHUNK
        sent |= {certificate.view for certificate in again.certificates}
    assert sent == set(views)


def test_missing_body_is_asked_for_again_on_the_timer() -> None:
    probe = Probe()
    request = actions.RequestBlock(FIRST.hash)
    assert request in probe.take(notarization(FIRST))
    assert request not in probe.wait(1)
    assert request in probe.wait(PARAMS.resend_ms)


def test_block_that_waits_for_l1_is_checked_again_on_the_timer() -> None:
    probe = Probe(answer_checks=False)
    check = actions.Validate(FIRST.hash)
    assert check in probe.propose(FIRST)
    assert check not in probe.wait(PARAMS.resend_ms)
    probe.tell(events.BlockChecked(FIRST.hash, Verdict.WAITING))
    assert check in probe.wait(PARAMS.resend_ms)


# when it asks to be woken


def test_wake_up_is_asked_for_at_the_next_moment_that_matters() -> None:
    probe = Probe()
    started_ms = probe.now_ms
    assert of(actions.WakeAt, probe.started) == [actions.WakeAt(started_ms + PARAMS.resend_ms)]
    probe.wait(INTERVAL_MS)
    probe.tell(events.WorkKnown(True))
    moments = [wake.at_ms for _ in range(6) for wake in of(actions.WakeAt, probe.wait(1_000))]
    assert started_ms + INTERVAL_MS + TIMEOUT_MS in moments


@pytest.mark.parametrize("member", range(4))
def test_wake_ups_alone_drive_the_machine_without_spinning(member: int) -> None:
    probe = Probe(member=member)
    moments, ticks = [wake.at_ms for wake in of(actions.WakeAt, probe.started)], 0
    end_ms = probe.now_ms + 2 * PARAMS.heartbeat_ms
    while probe.now_ms < end_ms:
        assert moments[-1] > probe.now_ms
        moments += [wake.at_ms for wake in of(actions.WakeAt, probe.at(moments[-1]))]
        ticks += 1
    assert ticks <= 2 * PARAMS.heartbeat_ms // 1_000
