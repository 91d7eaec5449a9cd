"""When a leader proposes and on what, and which proposals the others take."""

from dataclasses import replace

import pytest

from federation.certificate import Vote, VoteKind
from pegnode.consensus import actions, events
from pegnode.consensus.actions import ConsensusReason
from pegnode.consensus.events import Verdict
from tests.machine.fake_chain import GENESIS, fake_vote
from tests.support.simplex import PARAMS, Probe, block, finalization, notarization, nullification, of, reasons, tip

FIRST = block(1)
SECOND = block(2, FIRST)
INTERVAL_MS = PARAMS.block_interval_ms


def leader() -> Probe:
    """Member 1, who leads view 1; a block interval has passed."""
    probe = Probe(member=1)
    probe.now_ms += INTERVAL_MS
    return probe


# the leader


def test_leader_builds_at_once_when_work_is_known() -> None:
    probe = leader()
    assert of(actions.Build, probe.tell(events.WorkKnown(True))) == [actions.Build(1, GENESIS.hash, True)]


def test_leader_waits_for_the_block_interval() -> None:
    probe = Probe(member=1)
    started_ms = probe.now_ms
    asked = probe.tell(events.WorkKnown(True))
    assert not of(actions.Build, asked)
    assert actions.WakeAt(started_ms + INTERVAL_MS) in asked
    assert not of(actions.Build, probe.at(started_ms + INTERVAL_MS - 1))
    assert of(actions.Build, probe.at(started_ms + INTERVAL_MS))


def test_leader_counts_the_interval_from_when_the_parent_was_first_seen() -> None:
    probe = Probe(member=2)
    probe.propose(FIRST)
    seen_ms = probe.now_ms
    probe.wait(INTERVAL_MS - 10)
    probe.take(notarization(FIRST))
    probe.tell(events.WorkKnown(True))
    assert of(actions.Build, probe.at(seen_ms + INTERVAL_MS)) == [actions.Build(2, FIRST.hash, True)]


def test_leader_without_work_builds_at_the_heartbeat() -> None:
    probe = Probe(member=1)
    started_ms = probe.now_ms
    assert not of(actions.Build, probe.at(started_ms + PARAMS.heartbeat_ms - 1))
    assert of(actions.Build, probe.at(started_ms + PARAMS.heartbeat_ms))


def test_leader_without_work_carries_an_unfinal_block_along_but_gives_it_time() -> None:
    probe = Probe(member=2)
    probe.propose(FIRST)
    probe.wait(INTERVAL_MS)
    probe.take(notarization(FIRST))
    entered_ms = probe.now_ms
    assert not of(actions.Build, probe.at(entered_ms + PARAMS.view_timeout_ms // 4 - 1))
    assert of(actions.Build, probe.at(entered_ms + PARAMS.view_timeout_ms // 4)) == [actions.Build(2, FIRST.hash, True)]


def test_leader_without_work_stays_silent_once_the_block_is_final() -> None:
    probe = Probe(member=2)
    probe.propose(FIRST)
    probe.wait(INTERVAL_MS)
    probe.take(notarization(FIRST), finalization(FIRST))
    assert not of(actions.Build, probe.wait(PARAMS.view_timeout_ms))


def test_other_members_never_build() -> None:
    probe = Probe(member=2)
    probe.tell(events.WorkKnown(True))
    assert not of(actions.Build, probe.wait(100_000))


def test_leader_builds_once() -> None:
    probe = leader()
    probe.tell(events.WorkKnown(True))
    assert not of(actions.Build, probe.wait(100))


def test_leader_asks_again_a_block_interval_after_a_failed_build() -> None:
    probe = leader()
    probe.tell(events.WorkKnown(True))
    assert not of(actions.Build, probe.tell(events.BuildFailed(1)))
    assert not of(actions.Build, probe.wait(INTERVAL_MS - 1))
    assert of(actions.Build, probe.wait(1))


def test_failed_build_of_another_view_changes_nothing() -> None:
    probe = leader()
    probe.tell(events.WorkKnown(True))
    probe.tell(events.BuildFailed(5))
    assert not of(actions.Build, probe.wait(INTERVAL_MS))


def test_leader_votes_then_sends_its_proposal_to_all_others() -> None:
    probe = leader()
    built = probe.build(probe.tell(events.WorkKnown(True)))
    asked = probe.tell(events.BlockBuilt(built.info))
    vote = actions.CastVote(VoteKind.NOTARIZE, 1, built.hash)
    proposal = actions.SendProposal(1, built.hash, (), (0, 2, 3))
    assert asked.index(vote) < asked.index(proposal)
    assert not of(actions.Validate, asked)


def test_proposal_carries_the_parents_notarization_and_all_nullifications_between() -> None:
    probe = Probe(member=0)
    probe.propose(FIRST)
    probe.take(notarization(FIRST), nullification(2), nullification(3))
    probe.tell(events.WorkKnown(True))
    asked = probe.wait(INTERVAL_MS)
    assert of(actions.Build, asked) == [actions.Build(4, FIRST.hash, True)]
    built = block(4, FIRST)
    (sent,) = of(actions.SendProposal, probe.tell(events.BlockBuilt(built.info)))
    assert sent.certificates == (notarization(FIRST), nullification(2), nullification(3))


def test_proposal_on_the_final_tip_carries_its_finalization() -> None:
    start = events.Start(tip(FIRST), finalization(FIRST))
    probe = Probe(member=2, start=start)
    probe.tell(events.WorkKnown(True))
    built = probe.build(probe.wait(INTERVAL_MS), parent=FIRST)
    (sent,) = of(actions.SendProposal, probe.tell(events.BlockBuilt(built.info)))
    assert sent.certificates == (finalization(FIRST),)


def test_built_block_is_dropped_when_its_view_has_passed() -> None:
    probe = leader()
    built = probe.build(probe.tell(events.WorkKnown(True)))
    probe.take(nullification(1))
    asked = probe.tell(events.BlockBuilt(built.info))
    assert actions.Forget((built.hash,)) in asked
    assert not of(actions.SendProposal, asked)
    assert not of(actions.CastVote, asked)


def test_built_block_is_dropped_after_the_own_nullify() -> None:
    probe = leader()
    built = probe.build(probe.tell(events.WorkKnown(True)))
    assert of(actions.CastVote, probe.wait(PARAMS.view_timeout_ms))
    assert not of(actions.SendProposal, probe.tell(events.BlockBuilt(built.info)))


def test_leader_never_proposes_twice_in_one_view() -> None:
    probe = leader()
    built = probe.build(probe.tell(events.WorkKnown(True)))
    probe.tell(events.BlockBuilt(built.info))
    other = replace(built, salt=1)
    assert not of(actions.CastVote, probe.tell(events.BlockBuilt(other.info)))
    assert not of(actions.Build, probe.wait(INTERVAL_MS))


def test_leader_skips_a_notarized_block_it_cannot_judge_if_its_view_is_nullified() -> None:
    probe = Probe(member=2, answer_checks=False)
    probe.propose(FIRST)
    probe.tell(events.BlockChecked(FIRST.hash, Verdict.WAITING))
    probe.take(notarization(FIRST))
    probe.tell(events.WorkKnown(True))
    assert not of(actions.Build, probe.wait(INTERVAL_MS))
    assert of(actions.Build, probe.take(nullification(1))) == [actions.Build(2, GENESIS.hash, True)]


def test_leader_waits_for_nullifications_it_lacks() -> None:
    probe = Probe(member=3)
    probe.tell(events.WorkKnown(True))
    probe.wait(INTERVAL_MS)
    assert not of(actions.Build, probe.take(nullification(2)))
    assert of(actions.Build, probe.take(nullification(1))) == [actions.Build(3, GENESIS.hash, True)]


def test_proposal_is_sent_again_to_members_who_have_not_voted() -> None:
    probe = leader()
    built = probe.build(probe.tell(events.WorkKnown(True)))
    probe.tell(events.BlockBuilt(built.info))
    probe.vote(3, VoteKind.NULLIFY, 1)
    asked = probe.wait(PARAMS.resend_ms)
    assert of(actions.SendProposal, asked) == [actions.SendProposal(1, built.hash, (), (0, 2))]


# the others


def test_proposal_on_an_uncertified_parent_waits_for_the_certificate() -> None:
    probe = Probe()
    probe.propose(FIRST)
    probe.take(nullification(1))
    assert not of(actions.CastVote, probe.propose(SECOND))
    asked = probe.take(notarization(FIRST))
    assert actions.CastVote(VoteKind.NOTARIZE, 2, SECOND.hash) in asked


def test_proposal_found_votable_before_its_parent_is_certified_waits_all_the_same() -> None:
    probe = Probe()
    probe.propose(FIRST)
    probe.take(nullification(1))
    probe.propose(SECOND)
    assert not of(actions.CastVote, probe.tell(events.BlockChecked(SECOND.hash, Verdict.VOTABLE)))
    assert actions.CastVote(VoteKind.NOTARIZE, 2, SECOND.hash) in probe.take(notarization(FIRST))


def test_proposal_over_a_view_not_nullified_waits_for_the_nullification() -> None:
    probe = Probe()
    probe.take(nullification(2))
    third = block(3)
    assert not of(actions.Validate, probe.propose(third))
    assert actions.CastVote(VoteKind.NOTARIZE, 3, third.hash) in probe.take(nullification(1))


def test_proposal_on_a_parent_below_the_final_view_is_never_voted_for() -> None:
    probe = Probe()
    probe.propose(FIRST)
    probe.take(finalization(FIRST))
    assert not of(actions.Validate, probe.propose(block(2)))
    assert not of(actions.Validate, probe.take(nullification(2)))


def test_proposal_brings_the_certificates_to_enter_its_view() -> None:
    probe = Probe()
    third = block(3)
    asked = probe.propose(third, nullification(1), nullification(2))
    assert probe.machine.view == 3
    assert actions.CastVote(VoteKind.NOTARIZE, 3, third.hash) in asked


def test_proposal_on_another_parent_than_the_newest_is_voted_for() -> None:
    probe = Probe()
    probe.propose(FIRST)
    probe.take(notarization(FIRST), nullification(1))
    assert actions.CastVote(VoteKind.NOTARIZE, 2, (other := block(2)).hash) in probe.propose(other)


def test_proposal_that_comes_early_is_used_on_entering_its_view() -> None:
    probe = Probe()
    third = block(3)
    assert not of(actions.CastVote, probe.propose(third))
    probe.take(nullification(1))
    assert actions.CastVote(VoteKind.NOTARIZE, 3, third.hash) in probe.take(nullification(2))


def test_proposal_too_early_is_refused_and_forgotten() -> None:
    probe = Probe()
    assert not reasons(probe.propose(block(1 + 4)))
    asked = probe.propose(far := block(2 + 4))
    assert reasons(asked) == [ConsensusReason.VIEW_TOO_FAR]
    assert actions.Forget((far.hash,)) in asked
    assert not probe.machine.keeps(far.hash)


def test_proposal_of_a_passed_view_is_refused_and_forgotten() -> None:
    probe = Probe()
    probe.take(nullification(1))
    asked = probe.propose(FIRST)
    assert reasons(asked) == [ConsensusReason.VIEW_PASSED]
    assert actions.Forget((FIRST.hash,)) in asked


def test_proposal_refused_from_a_member_who_does_not_lead() -> None:
    impostor = replace(FIRST, leader=2)
    assert reasons(Probe().propose(impostor)) == [ConsensusReason.NOT_LEADER]


@pytest.mark.parametrize(
    "vote",
    [
        fake_vote(1, VoteKind.FINALIZE, 1, FIRST.hash),
        fake_vote(1, VoteKind.NOTARIZE, 2, FIRST.hash),
        fake_vote(1, VoteKind.NOTARIZE, 1, SECOND.hash),
        fake_vote(2, VoteKind.NOTARIZE, 1, FIRST.hash),
    ],
    ids=["kind", "view", "block", "member"],
)
def test_proposal_refused_when_its_vote_is_for_something_else(vote: Vote) -> None:
    probe = Probe()
    asked = probe.tell(events.ProposalReceived(FIRST.info, vote, (nullification(1),)))
    assert reasons(asked) == [ConsensusReason.PROPOSAL_MISMATCH]
    assert probe.machine.view == 1


def test_second_proposal_refused_with_proof_against_its_leader() -> None:
    probe = Probe()
    probe.propose(FIRST)
    asked = probe.propose(twin := block(1, salt=1))
    assert reasons(asked) == [ConsensusReason.EQUIVOCATION]
    votes = [fake_vote(1, VoteKind.NOTARIZE, 1, one.hash) for one in (FIRST, twin)]
    assert actions.ReportEquivocation(*votes) in asked
    assert actions.Forget((twin.hash,)) in asked


def test_same_proposal_again_changes_nothing() -> None:
    probe = Probe()
    probe.propose(FIRST)
    assert probe.propose(FIRST) == []


@pytest.mark.parametrize("change", [{"height": 3}, {"height": 1}])
def test_proposal_of_a_wrong_height_is_refused(change: dict[str, int]) -> None:
    probe = Probe()
    probe.propose(FIRST)
    asked = probe.propose(replace(SECOND, **change), notarization(FIRST))  # type: ignore[arg-type]
    assert reasons(asked) == [ConsensusReason.WRONG_HEIGHT]
    assert not of(actions.Validate, asked)
    assert not [vote for vote in of(actions.CastVote, asked) if vote.kind is VoteKind.NOTARIZE]


def test_proposals_of_passed_views_are_forgotten_after_a_rotation() -> None:
    probe = Probe(answer_checks=False)
    proposals = [block(1)]
    probe.propose(proposals[0])
    for view in range(1, 5):
        assert not of(actions.Forget, probe.take(nullification(view)))
    assert of(actions.Forget, probe.take(nullification(5))) == [actions.Forget((proposals[0].hash,))]


def test_block_voted_for_is_kept_until_finality_passes_it() -> None:
    probe = Probe()
    probe.propose(FIRST)
    for view in range(1, 9):
        assert not of(actions.Forget, probe.take(nullification(view)))
    assert probe.machine.keeps(FIRST.hash)
    ninth = block(9)
    probe.propose(ninth)
    assert FIRST.hash in of(actions.Forget, probe.take(finalization(ninth)))[-1].block_hashes


# what depends on L1 is left out after it failed


def fail_with_l1(probe: Probe, view: int) -> None:
    """A proposal that carries L1 ends in a nullification."""
    probe.propose(block(view, carries_l1=True))
    probe.take(nullification(view))


def l1_included(probe: Probe) -> bool:
    """Whether this member, leading the current view, includes L1."""
    probe.tell(events.WorkKnown(True))
    (order,) = of(actions.Build, probe.wait(INTERVAL_MS))
    return order.include_l1


@pytest.mark.parametrize(("nullified_after", "included"), [(0, False), (1, False), (2, True)])
def test_l1_is_left_out_by_the_next_leaders(nullified_after: int, included: bool) -> None:
    probe = Probe(member=(2 + nullified_after) % 4, answer_checks=False)
    fail_with_l1(probe, 1)
    for view in range(2, 2 + nullified_after):
        probe.take(nullification(view))
    assert l1_included(probe) is included


@pytest.mark.parametrize(("view", "included"), [(5, False), (8, False), (9, True)])
def test_l1_is_left_out_for_twice_as_long_after_a_second_failure(view: int, included: bool) -> None:
    probe = Probe(member=view % 4, answer_checks=False)
    fail_with_l1(probe, 1)
    probe.take(nullification(2), nullification(3))
    fail_with_l1(probe, 4)
    for passed in range(5, view):
        probe.take(nullification(passed))
    assert l1_included(probe) is included


def test_l1_failing_while_it_is_left_out_anyway_doubles_nothing() -> None:
    probe = Probe(member=0, answer_checks=False)
    fail_with_l1(probe, 1)
    fail_with_l1(probe, 2)
    probe.take(nullification(3))
    assert l1_included(probe)


def test_l1_is_included_again_after_it_was_certified() -> None:
    probe = Probe(member=3)
    fail_with_l1(probe, 1)
    certified = block(2, carries_l1=True)
    probe.propose(certified)
    probe.take(notarization(certified))
    assert l1_included(probe)


def test_l1_is_not_blamed_for_a_nullified_view_without_it() -> None:
    probe = Probe(member=2, answer_checks=False)
    probe.propose(FIRST)
    probe.take(nullification(1))
    assert l1_included(probe)
