"""What a member votes, what it makes of the votes of others, and what it refuses."""

from dataclasses import replace

import pytest

from bridge.bitcoin.hashes import sha256
from bridge.bitcoin.identifiers import BlockHash
from federation.certificate import Certificate, Vote, VoteKind
from pegnode.consensus import actions, events
from pegnode.consensus.actions import ConsensusReason
from pegnode.consensus.events import Verdict
from pegnode.consensus.state import VIEW_WINDOW
from tests.machine.fake_chain import fake_certificate, fake_vote
from tests.support.simplex import Probe, block, finalization, notarization, nullification, of, reasons

FIRST = block(1)
TWIN = block(1, salt=1)
NOTARIZE_FIRST = actions.CastVote(VoteKind.NOTARIZE, 1, FIRST.hash)
FINALIZE_FIRST = actions.CastVote(VoteKind.FINALIZE, 1, FIRST.hash)
NULLIFY_ONE = actions.CastVote(VoteKind.NULLIFY, 1, BlockHash(b""))


def timed_out() -> Probe:
    """A member that nullified view 1 for want of a block."""
    probe = Probe()
    probe.tell(events.WorkKnown(True))
    assert NULLIFY_ONE in probe.wait(10_000)
    return probe


def test_notarize_follows_the_first_valid_proposal() -> None:
    assert NOTARIZE_FIRST in Probe().propose(FIRST)


def test_notarize_waits_for_the_verdict() -> None:
    probe = Probe(answer_checks=False)
    assert of(actions.Validate, probe.propose(FIRST)) == [actions.Validate(FIRST.hash)]
    assert not of(actions.CastVote, probe.tell(events.BlockChecked(FIRST.hash, Verdict.WAITING)))
    assert NOTARIZE_FIRST in probe.tell(events.BlockChecked(FIRST.hash, Verdict.VOTABLE))


@pytest.mark.parametrize("verdict", [Verdict.INVALID, Verdict.WITHHELD, Verdict.WAITING])
def test_notarize_withheld_unless_votable(verdict: Verdict) -> None:
    probe = Probe(answer_checks=False)
    probe.propose(FIRST)
    assert not of(actions.CastVote, probe.tell(events.BlockChecked(FIRST.hash, verdict)))


def test_notarize_never_follows_nullify_in_the_same_view() -> None:
    probe = timed_out()
    assert not of(actions.CastVote, probe.propose(FIRST))


def test_notarize_never_follows_a_second_proposal() -> None:
    probe = Probe(answer_checks=False)
    probe.propose(FIRST)
    assert ConsensusReason.EQUIVOCATION in reasons(probe.propose(TWIN))
    assert not of(actions.CastVote, probe.tell(events.BlockChecked(TWIN.hash, Verdict.VOTABLE)))


def test_finalize_follows_notarization_even_of_a_withheld_block() -> None:
    probe = Probe(answer_checks=False)
    probe.propose(FIRST)
    probe.tell(events.BlockChecked(FIRST.hash, Verdict.WITHHELD))
    assert FINALIZE_FIRST in probe.take(notarization(FIRST))


def test_finalize_follows_notarization_of_a_block_never_seen() -> None:
    assert FINALIZE_FIRST in Probe().take(notarization(FIRST))


def test_finalize_never_follows_nullify() -> None:
    probe = timed_out()
    asked = probe.take(notarization(FIRST))
    assert probe.machine.view == 2
    assert not of(actions.CastVote, asked)


def test_finalize_never_follows_a_nullification() -> None:
    probe = Probe()
    probe.take(nullification(1))
    assert not of(actions.CastVote, probe.take(notarization(FIRST)))


def test_finalize_withheld_from_a_block_known_to_be_invalid() -> None:
    probe = Probe(answer_checks=False)
    probe.propose(FIRST)
    probe.tell(events.BlockChecked(FIRST.hash, Verdict.INVALID))
    asked = probe.take(notarization(FIRST))
    assert not of(actions.CastVote, asked)
    assert actions.ReportInvalidCertified(FIRST.hash, notarization(FIRST)) in asked


def test_nullify_follows_the_timer_even_after_notarize() -> None:
    probe = Probe()
    probe.propose(FIRST)
    assert NULLIFY_ONE in probe.wait(10_000)


def test_nullify_never_follows_finalize() -> None:
    probe = Probe()
    probe.take(notarization(FIRST))
    assert NULLIFY_ONE not in probe.wait(100_000)


def test_quorum_of_notarize_votes_ends_the_view_and_is_passed_on() -> None:
    probe = Probe()
    probe.propose(FIRST)
    probe.vote(2, VoteKind.NOTARIZE, 1, FIRST.hash)
    assert probe.machine.view == 2
    formed = fake_certificate((0, 1, 2), VoteKind.NOTARIZE, 1, FIRST.hash)
    again = Probe()
    again.propose(FIRST)
    asked = again.vote(2, VoteKind.NOTARIZE, 1, FIRST.hash)
    assert asked.index(actions.SaveCertificate(formed)) < asked.index(actions.Broadcast(certificates=(formed,)))
    assert FINALIZE_FIRST in asked


def test_votes_short_of_a_quorum_end_nothing() -> None:
    probe = Probe()
    probe.vote(1, VoteKind.NULLIFY, 1)
    probe.vote(2, VoteKind.NULLIFY, 1)
    probe.vote(2, VoteKind.NULLIFY, 1)
    assert probe.machine.view == 1


def test_votes_for_different_blocks_do_not_add_up() -> None:
    probe = Probe()
    probe.vote(1, VoteKind.NOTARIZE, 1, FIRST.hash)
    probe.vote(2, VoteKind.NOTARIZE, 1, TWIN.hash)
    probe.vote(3, VoteKind.NOTARIZE, 1, TWIN.hash)
    assert probe.machine.view == 1


def test_quorum_of_nullify_votes_ends_the_view() -> None:
    probe = Probe()
    asked = [action for member in (1, 2, 3) for action in probe.vote(member, VoteKind.NULLIFY, 1)]
    assert probe.machine.view == 2
    assert actions.Broadcast(certificates=(nullification(1),)) in asked
    assert not of(actions.CastVote, asked)


def test_quorum_of_finalize_votes_makes_the_block_final() -> None:
    probe = Probe()
    probe.propose(FIRST)
    asked = [action for member in (1, 2, 3) for action in probe.vote(member, VoteKind.FINALIZE, 1, FIRST.hash)]
    assert actions.Finalized(FIRST.info, finalization(FIRST)) in asked
    assert asked.index(actions.Finalized(FIRST.info, finalization(FIRST))) < asked.index(actions.PruneJournal(1))
    assert (probe.machine.final_tip.hash, probe.machine.final_view, probe.machine.view) == (FIRST.hash, 1, 2)


def test_certificate_received_is_kept_but_not_passed_on_at_once() -> None:
    asked = Probe().take(notarization(FIRST))
    assert actions.SaveCertificate(notarization(FIRST)) in asked
    assert not of(actions.Broadcast, asked)


def test_certificate_known_already_leads_to_nothing() -> None:
    probe = Probe()
    probe.take(nullification(1))
    assert probe.take(nullification(1, (0, 1, 2))) == []


def test_certificate_of_a_later_view_is_jumped_to() -> None:
    probe = Probe()
    probe.take(nullification(1_000))
    assert probe.machine.view == 1_001


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (fake_vote(1, VoteKind.NOTARIZE, 1, FIRST.hash), fake_vote(1, VoteKind.NOTARIZE, 1, TWIN.hash)),
        (fake_vote(1, VoteKind.FINALIZE, 1, FIRST.hash), fake_vote(1, VoteKind.FINALIZE, 1, TWIN.hash)),
        (fake_vote(1, VoteKind.FINALIZE, 1, FIRST.hash), fake_vote(1, VoteKind.NULLIFY, 1)),
        (fake_vote(1, VoteKind.NULLIFY, 1), fake_vote(1, VoteKind.FINALIZE, 1, FIRST.hash)),
    ],
    ids=["two blocks notarized", "two blocks finalized", "nullified after finalize", "finalized after nullify"],
)
def test_equivocation_is_reported_once_with_both_votes(first: Vote, second: Vote) -> None:
    probe = Probe()
    probe.take(first)
    asked = probe.take(second)
    assert of(actions.ReportEquivocation, asked) == [actions.ReportEquivocation(first, second)]
    assert reasons(asked) == [ConsensusReason.EQUIVOCATION]
    assert not of(actions.ReportEquivocation, probe.take(second))


@pytest.mark.parametrize("kind", [VoteKind.NULLIFY, VoteKind.FINALIZE])
def test_equivocation_is_no_vote_after_notarize(kind: VoteKind) -> None:
    probe = Probe()
    probe.vote(1, VoteKind.NOTARIZE, 1, FIRST.hash)
    block_hash = TWIN.hash if kind.names_block else BlockHash(b"")
    assert not of(actions.ReportEquivocation, probe.vote(1, kind, 1, block_hash))


def test_vote_counts_once_when_its_member_equivocates() -> None:
    probe = Probe()
    probe.vote(1, VoteKind.NOTARIZE, 1, FIRST.hash)
    probe.vote(1, VoteKind.NOTARIZE, 1, TWIN.hash)
    probe.vote(2, VoteKind.NOTARIZE, 1, TWIN.hash)
    probe.vote(3, VoteKind.NOTARIZE, 1, TWIN.hash)
    assert probe.machine.view == 1


def test_vote_refused_from_another_epoch() -> None:
    vote = replace(fake_vote(1, VoteKind.NULLIFY, 1), epoch=1)
    assert reasons(Probe().take(vote)) == [ConsensusReason.WRONG_EPOCH]


def test_certificate_refused_from_another_epoch() -> None:
    probe = Probe()
    assert reasons(probe.take(replace(nullification(1), epoch=1))) == [ConsensusReason.WRONG_EPOCH]
    assert probe.machine.view == 1


def test_vote_refused_from_unknown_member() -> None:
    assert reasons(Probe().vote(4, VoteKind.NULLIFY, 1)) == [ConsensusReason.UNKNOWN_MEMBER]


def test_vote_refused_beyond_the_window() -> None:
    probe = Probe()
    assert not reasons(probe.vote(1, VoteKind.NULLIFY, 1 + VIEW_WINDOW))
    assert reasons(probe.vote(1, VoteKind.NULLIFY, 2 + VIEW_WINDOW)) == [ConsensusReason.VIEW_TOO_FAR]


def test_vote_refused_behind_the_window() -> None:
    probe = Probe()
    probe.take(nullification(1 + VIEW_WINDOW))
    assert not reasons(probe.vote(1, VoteKind.NULLIFY, 2))
    assert reasons(probe.vote(1, VoteKind.NULLIFY, 1)) == [ConsensusReason.VIEW_PASSED]


def test_stale_vote_is_answered_with_the_final_certificate() -> None:
    probe = Probe()
    probe.take(finalization(FIRST), finalization(second := block(2, FIRST)))
    asked = probe.vote(1, VoteKind.NULLIFY, 1)
    assert of(actions.SendTo, asked) == [actions.SendTo(1, (finalization(second),))]


def test_stale_vote_is_not_answered_twice_within_half_a_resend_interval() -> None:
    probe = Probe()
    probe.take(finalization(FIRST), finalization(block(2, FIRST)))
    probe.vote(1, VoteKind.NULLIFY, 1)
    assert not of(actions.SendTo, probe.vote(1, VoteKind.NULLIFY, 1))
    assert of(actions.SendTo, probe.vote(2, VoteKind.NULLIFY, 1))
    probe.wait(1_000)
    assert of(actions.SendTo, probe.vote(1, VoteKind.NULLIFY, 1))


def test_late_vote_in_the_final_view_is_answered_only_when_it_is_sent_again() -> None:
    probe = Probe()
    probe.take(finalization(FIRST))
    assert not of(actions.SendTo, probe.vote(1, VoteKind.FINALIZE, 1, FIRST.hash))
    asked = probe.vote(1, VoteKind.FINALIZE, 1, FIRST.hash)
    assert of(actions.SendTo, asked) == [actions.SendTo(1, (finalization(FIRST),))]


def test_vote_sent_again_in_an_ended_view_is_answered_with_what_ended_it() -> None:
    probe = Probe()
    probe.take(nullification(1), nullification(2))
    probe.vote(1, VoteKind.NULLIFY, 1)
    asked = probe.vote(1, VoteKind.NULLIFY, 1)
    assert of(actions.SendTo, asked) == [actions.SendTo(1, (nullification(1), nullification(2)))]


def test_own_vote_never_asked_for_is_reported_and_binds() -> None:
    probe = Probe()
    stranger = fake_vote(0, VoteKind.NULLIFY, 1)
    assert actions.ReportUnknownOwnVote(stranger) in probe.take(stranger)
    assert not of(actions.CastVote, probe.propose(FIRST))


def test_own_vote_asked_for_is_no_stranger() -> None:
    assert not of(actions.ReportUnknownOwnVote, Probe().propose(FIRST))


def test_own_votes_promised_bind_before_they_are_signed() -> None:
    probe = timed_out()
    unsigned = Probe()
    unsigned.tell(events.WorkKnown(True))
    asked = unsigned.machine.handle(events.Tick(), unsigned.now_ms + 10_000)
    assert NULLIFY_ONE in asked
    vote = fake_vote(1, VoteKind.NOTARIZE, 1, FIRST.hash)
    asked = unsigned.machine.handle(events.ProposalReceived(FIRST.info, vote), unsigned.now_ms + 10_001)
    assert not of(actions.CastVote, asked)
    assert probe.machine.view == unsigned.machine.view == 1


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (notarization(FIRST), notarization(TWIN)),
        (notarization(FIRST), finalization(TWIN)),
        (nullification(1), finalization(FIRST)),
        (finalization(FIRST), nullification(1)),
        (finalization(FIRST), finalization(TWIN)),
        (finalization(FIRST), notarization(TWIN)),
    ],
    ids=["notarized", "notarized and final", "null then final", "final then null", "final", "final and notarized"],
)
def test_conflicting_certificates_stop_signing_and_finality(first: Certificate, second: Certificate) -> None:
    probe = Probe()
    probe.take(first)
    asked = probe.take(second)
    assert of(actions.ReportConflictingCertificates, asked) == [actions.ReportConflictingCertificates(first, second)]
    assert probe.machine.stopped
    probe.tell(events.WorkKnown(True))
    later = [*probe.wait(100_000), *probe.take(notarization(block(9))), *probe.propose(FIRST)]
    assert not of(actions.CastVote, later)
    assert not of(actions.Finalized, later)
    assert not of(actions.Build, later)


def test_notarization_and_nullification_of_one_view_do_not_conflict() -> None:
    probe = Probe()
    probe.take(notarization(FIRST), nullification(1))
    assert not probe.machine.stopped


def test_votes_kept_are_bounded_under_a_flood() -> None:
    probe = Probe()
    for view in range(1, 500):
        for member in (1, 2, 3):
            probe.vote(member, VoteKind.NOTARIZE, view, BlockHash(sha256(b"%d %d" % (member, view))))
        if view % 10 == 0:
            probe.take(nullification(view))
    assert probe.machine._state is not None
    assert len(probe.machine._state.votes) <= 3 * (2 * VIEW_WINDOW + 1)


def test_notarized_block_that_waits_for_l1_is_no_parent_until_the_verdict_comes() -> None:
    """So a member whose Bitcoin node is away counts among the faulty ones: docs/consensus.md, Assumptions."""
    probe = Probe(answer_checks=False)
    probe.propose(FIRST)
    probe.tell(events.BlockChecked(FIRST.hash, Verdict.WAITING))
    probe.take(notarization(FIRST))
    child = block(2, FIRST)
    assert actions.Validate(child.hash) not in probe.propose(child)
    assert actions.Validate(child.hash) in probe.tell(events.BlockChecked(FIRST.hash, Verdict.VOTABLE))
