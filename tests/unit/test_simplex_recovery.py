"""Restarts, missing bodies, catching up, and verdicts that come late."""

from dataclasses import replace

import pytest

from federation.certificate import Certificate, Vote, VoteKind
from pegnode.consensus import actions, events
from pegnode.consensus.actions import ConsensusReason
from pegnode.consensus.blocks import MAX_FINAL_BODIES, MAX_WALK, BlockTree
from pegnode.consensus.events import FinalTip, Verdict
from pegnode.consensus.machine import MachineMisused, Simplex
from pegnode.consensus.parameters import MAX_MS, ConsensusParams, ConsensusParamsReason, ConsensusParamsRefused
from tests.machine.fake_chain import GENESIS, FakeBlock, fake_membership, fake_vote
from tests.support.simplex import PARAMS, Probe, block, finalization, notarization, nullification, of, reasons, tip

FIRST = block(1)
SECOND = block(2, FIRST)
THIRD = block(3, SECOND)


def restarted(*votes: Vote, member: int = 0, **fields: object) -> Probe:
    """A member whose journal holds this."""
    start = events.Start(GENESIS, votes=votes, **fields)  # type: ignore[arg-type]
    return Probe(member=member, start=start)


# a restart keeps every promise


def test_restart_never_notarizes_a_second_block() -> None:
    probe = restarted(fake_vote(0, VoteKind.NOTARIZE, 1, FIRST.hash), blocks=(FIRST.info,))
    asked = probe.propose(block(1, salt=1))
    assert reasons(asked) == [ConsensusReason.SECOND_PROPOSAL]
    assert not of(actions.CastVote, asked)


def test_restart_never_notarizes_after_nullify() -> None:
    assert not of(actions.CastVote, restarted(fake_vote(0, VoteKind.NULLIFY, 1)).propose(FIRST))


def test_restart_never_finalizes_after_nullify() -> None:
    probe = restarted(fake_vote(0, VoteKind.NULLIFY, 1))
    assert not of(actions.CastVote, probe.take(notarization(FIRST)))


def test_restart_never_nullifies_after_finalize() -> None:
    probe = restarted(fake_vote(0, VoteKind.FINALIZE, 1, FIRST.hash))
    probe.tell(events.WorkKnown(True))
    assert not of(actions.CastVote, probe.wait(100_000))


def test_restart_never_builds_a_second_proposal() -> None:
    probe = restarted(fake_vote(1, VoteKind.NOTARIZE, 1, FIRST.hash), member=1, blocks=(FIRST.info,))
    probe.tell(events.WorkKnown(True))
    assert not of(actions.Build, probe.wait(PARAMS.block_interval_ms))


def test_restart_sends_its_proposal_and_votes_again_at_once() -> None:
    mine = fake_vote(1, VoteKind.NOTARIZE, 1, FIRST.hash)
    probe = restarted(mine, member=1, blocks=(FIRST.info,))
    assert of(actions.SendProposal, probe.started) == [actions.SendProposal(1, FIRST.hash, (), (0, 2, 3))]
    assert of(actions.Broadcast, probe.started) == [actions.Broadcast((mine,))]


def test_restart_enters_the_view_that_its_certificates_lead_to() -> None:
    probe = restarted(certificates=(nullification(2), notarization(FIRST)))
    assert probe.machine.view == 3
    assert not of(actions.SaveCertificate, probe.started)


def test_restart_casts_the_finalize_vote_that_the_crash_prevented() -> None:
    probe = restarted(certificates=(notarization(FIRST),))
    assert actions.CastVote(VoteKind.FINALIZE, 1, FIRST.hash) in probe.started


def test_restart_checks_its_unfinal_blocks_again_and_goes_on() -> None:
    votes = [fake_vote(0, VoteKind.NOTARIZE, one.view, one.hash) for one in (FIRST, SECOND)]
    probe = restarted(
        *votes, blocks=(SECOND.info, FIRST.info), certificates=(notarization(FIRST), notarization(SECOND))
    )
    assert of(actions.Validate, probe.started) == [actions.Validate(FIRST.hash), actions.Validate(SECOND.hash)]
    assert actions.CastVote(VoteKind.NOTARIZE, 3, THIRD.hash) in probe.propose(THIRD)


def test_restart_signs_nothing_up_to_the_floor() -> None:
    probe = restarted(floor_view=2)
    probe.tell(events.WorkKnown(True))
    asked = [*probe.propose(FIRST), *probe.wait(100_000), *probe.take(notarization(FIRST), nullification(2))]
    assert not of(actions.CastVote, asked)
    assert actions.CastVote(VoteKind.NOTARIZE, 3, (third := block(3, FIRST)).hash) in [
        *probe.tell(events.BlockReceived(FIRST.info)),
        *probe.propose(third),
    ]


def test_restart_leaves_out_what_is_final() -> None:
    votes = (fake_vote(0, VoteKind.NOTARIZE, 1, FIRST.hash), fake_vote(0, VoteKind.FINALIZE, 1, FIRST.hash))
    start = events.Start(tip(FIRST), finalization(FIRST), votes, (notarization(FIRST),), (FIRST.info,))
    probe = Probe(start=start)
    assert probe.machine.view == 2
    assert not probe.machine.keeps(FIRST.hash)
    assert not of(actions.Broadcast, probe.started)


# bodies that are missing


def test_body_of_a_notarized_block_is_fetched_and_judged() -> None:
    probe = Probe()
    assert actions.RequestBlock(FIRST.hash) in probe.take(notarization(FIRST))
    assert actions.Validate(FIRST.hash) in probe.tell(events.BlockReceived(FIRST.info))


def test_ancestors_are_fetched_one_by_one_down_to_the_tip() -> None:
    probe = Probe()
    assert of(actions.RequestBlock, probe.take(finalization(THIRD))) == [actions.RequestBlock(THIRD.hash)]
    for received, wanted in ((THIRD, SECOND), (SECOND, FIRST)):
        asked = probe.tell(events.BlockReceived(received.info))
        assert of(actions.RequestBlock, asked) == [actions.RequestBlock(wanted.hash)]
        assert not of(actions.Validate, asked)
    asked = probe.tell(events.BlockReceived(FIRST.info))
    assert [check.block_hash for check in of(actions.Validate, asked)] == [FIRST.hash, SECOND.hash, THIRD.hash]
    assert of(actions.Finalized, asked) == [actions.Finalized(THIRD.info, finalization(THIRD))]
    assert probe.machine.final_tip == tip(THIRD)


def test_final_body_is_fetched_beside_that_of_a_newer_certified_block() -> None:
    probe = Probe()
    probe.take(finalization(FIRST))
    assert of(actions.RequestBlock, probe.take(notarization(THIRD))) == [actions.RequestBlock(THIRD.hash)]
    again = of(actions.RequestBlock, probe.wait(PARAMS.resend_ms))
    assert again == [actions.RequestBlock(FIRST.hash), actions.RequestBlock(THIRD.hash)]


def test_body_not_asked_for_is_refused_and_forgotten() -> None:
    asked = Probe().tell(events.BlockReceived(FIRST.info))
    assert reasons(asked) == [ConsensusReason.BLOCK_NOT_WANTED]
    assert actions.Forget((FIRST.hash,)) in asked


def test_late_proposal_serves_as_the_body_that_was_asked_for() -> None:
    probe = Probe()
    probe.take(notarization(FIRST))
    asked = probe.propose(FIRST)
    assert not reasons(asked)
    assert actions.Validate(FIRST.hash) in asked


def test_walk_down_ends_at_its_limit() -> None:
    tree = BlockTree(GENESIS)
    newest = block(1)
    for view in range(2, MAX_WALK + 10):
        newest = FakeBlock(view, view, newest.hash, 0)
        tree.add(newest.info, 0)
    assert tree.missing(newest.hash, final_view=0) is None


def test_walk_down_ends_when_it_can_not_meet_the_tip() -> None:
    tree = BlockTree(GENESIS)
    fork = FakeBlock(5, 1, block(4).hash, 0)
    tree.add(fork.info, 0)
    assert tree.missing(fork.hash, final_view=0) is None


def chain_of(length: int) -> list[FakeBlock]:
    """Blocks of one view after the other, from genesis."""
    blocks = [FIRST]
    while len(blocks) < length:
        blocks.append(block(blocks[-1].view + 1, blocks[-1]))
    return blocks


def test_final_bodies_far_above_the_tip_are_not_fetched() -> None:
    probe, blocks = Probe(), chain_of(3 * MAX_FINAL_BODIES)
    (request,) = of(actions.RequestBlock, probe.take(finalization(blocks[-1])))
    fetched = 0
    for received in reversed(blocks):
        if request.block_hash != received.hash:
            break
        fetched += 1
        requests = of(actions.RequestBlock, probe.tell(events.BlockReceived(received.info)))
        request = requests[0] if requests else actions.RequestBlock(GENESIS.hash)
    assert fetched == MAX_FINAL_BODIES
    assert not of(actions.RequestBlock, probe.wait(PARAMS.resend_ms))


def test_bodies_above_the_last_final_block_are_fetched_however_many_they_are() -> None:
    probe, blocks = Probe(), chain_of(3 * MAX_FINAL_BODIES)
    asked = probe.take(notarization(blocks[-1]))
    for received in reversed(blocks):
        assert of(actions.RequestBlock, asked) == [actions.RequestBlock(received.hash)]
        asked = probe.tell(events.BlockReceived(received.info))
    assert len(of(actions.Validate, asked)) == len(blocks)


def test_member_far_behind_keeps_few_of_the_blocks_that_become_final() -> None:
    probe = Probe()
    for passed in chain_of(100)[50:]:
        probe.propose(passed)
        probe.take(notarization(passed), finalization(passed))
    kept = [passed for passed in chain_of(100) if probe.machine.keeps(passed.hash)]
    assert kept == chain_of(100)[-MAX_FINAL_BODIES:]


def test_member_that_keeps_up_in_checking_drops_nothing_it_found_valid() -> None:
    probe, blocks = Probe(), chain_of(3 * MAX_FINAL_BODIES)
    for passed in blocks:
        probe.propose(passed)
        probe.take(notarization(passed))
    asked = probe.take(finalization(blocks[-1]))
    assert of(actions.Finalized, asked) == [actions.Finalized(blocks[-1].info, finalization(blocks[-1]))]


# finality waits for bodies and verdicts


def test_final_block_that_waits_for_l1_is_committed_when_the_verdict_comes() -> None:
    probe = Probe(answer_checks=False)
    probe.propose(FIRST)
    probe.tell(events.BlockChecked(FIRST.hash, Verdict.WAITING))
    assert not of(actions.Finalized, probe.take(finalization(FIRST)))
    assert (probe.machine.final_view, probe.machine.final_tip) == (1, GENESIS)
    asked = probe.tell(events.BlockChecked(FIRST.hash, Verdict.VOTABLE))
    assert of(actions.Finalized, asked) == [actions.Finalized(FIRST.info, finalization(FIRST))]


def test_withheld_block_is_good_as_parent_and_as_final() -> None:
    probe = Probe(answer_checks=False)
    probe.propose(FIRST)
    probe.tell(events.BlockChecked(FIRST.hash, Verdict.WITHHELD))
    probe.take(notarization(FIRST))
    assert actions.Validate(SECOND.hash) in probe.propose(SECOND)
    assert of(actions.Finalized, probe.take(finalization(FIRST)))


def test_certified_invalid_block_is_reported_once_and_never_final() -> None:
    probe = Probe(answer_checks=False)
    probe.propose(FIRST)
    probe.tell(events.BlockChecked(FIRST.hash, Verdict.INVALID))
    asked = [*probe.take(notarization(FIRST), finalization(FIRST)), *probe.wait(10_000)]
    assert of(actions.ReportInvalidCertified, asked) == [
        actions.ReportInvalidCertified(FIRST.hash, notarization(FIRST))
    ]
    assert not of(actions.Finalized, asked)
    assert not of(actions.Validate, probe.propose(SECOND))


def test_final_block_that_forks_from_the_tip_is_reported_not_committed() -> None:
    probe = Probe(start=events.Start(tip(SECOND), finalization(SECOND)))
    fork = replace(block(4, SECOND), parent_hash=FIRST.hash)
    probe.take(finalization(fork))
    asked = probe.tell(events.BlockReceived(fork.info))
    assert not of(actions.Finalized, asked)
    assert probe.machine.final_tip == tip(SECOND)


def test_final_block_judged_before_the_tip_moved_elsewhere_is_reported_not_committed() -> None:
    probe = Probe(member=3)
    probe.take(notarization(fork := block(2)))
    probe.tell(events.BlockReceived(fork.info))
    probe.take(finalization(FIRST))
    assert of(actions.Finalized, probe.tell(events.BlockReceived(FIRST.info)))
    asked = probe.take(finalization(fork))
    assert of(actions.ReportInvalidCertified, asked) == [actions.ReportInvalidCertified(fork.hash, finalization(fork))]
    assert not of(actions.Finalized, asked)
    assert probe.machine.final_tip == tip(FIRST)


def test_certified_block_of_a_wrong_height_is_reported() -> None:
    probe = Probe()
    bad = replace(FIRST, height=2)
    probe.take(notarization(bad))
    asked = probe.tell(events.BlockReceived(bad.info))
    assert not of(actions.Validate, asked)
    assert of(actions.ReportInvalidCertified, asked)


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [
        (Verdict.WAITING, Verdict.VOTABLE, Verdict.VOTABLE),
        (Verdict.WAITING, Verdict.WITHHELD, Verdict.WITHHELD),
        (Verdict.WAITING, Verdict.INVALID, Verdict.INVALID),
        (Verdict.WITHHELD, Verdict.VOTABLE, Verdict.VOTABLE),
        (Verdict.WITHHELD, Verdict.WAITING, Verdict.WITHHELD),
        (Verdict.WITHHELD, Verdict.INVALID, Verdict.WITHHELD),
        (Verdict.VOTABLE, Verdict.WITHHELD, Verdict.VOTABLE),
        (Verdict.VOTABLE, Verdict.INVALID, Verdict.VOTABLE),
        (Verdict.INVALID, Verdict.VOTABLE, Verdict.INVALID),
    ],
)
def test_verdict_once_settled_stays(first: Verdict, second: Verdict, kept: Verdict) -> None:
    tree = BlockTree(GENESIS)
    tree.add(FIRST.info, 0)
    tree.judge(FIRST.hash, first)
    tree.judge(FIRST.hash, second)
    assert tree.verdict(FIRST.hash) is kept


# catching up


def test_synced_tip_is_gone_on_from() -> None:
    probe = Probe(member=1)
    asked = probe.tell(events.Synced(tip(THIRD), finalization(THIRD)))
    assert (probe.machine.final_tip, probe.machine.view) == (tip(THIRD), 4)
    assert actions.PruneJournal(3) in asked
    fourth = block(4, THIRD)
    assert actions.CastVote(VoteKind.NOTARIZE, 4, fourth.hash) in probe.propose(fourth)


def test_synced_tip_forgets_what_lies_below_and_asks_no_more() -> None:
    probe = Probe()
    probe.propose(FIRST)
    probe.take(finalization(THIRD))
    asked = probe.tell(events.Synced(tip(THIRD), finalization(THIRD)))
    assert actions.Forget((FIRST.hash,)) in asked
    assert not of(actions.RequestBlock, probe.wait(PARAMS.resend_ms))


def test_synced_tip_below_the_own_changes_nothing() -> None:
    probe = Probe(start=events.Start(tip(THIRD), finalization(THIRD)))
    probe.tell(events.Synced(tip(FIRST), finalization(FIRST)))
    assert probe.machine.final_tip == tip(THIRD)


# the driver's own mistakes


def test_misuse_event_before_start() -> None:
    with pytest.raises(MachineMisused):
        Simplex(0, fake_membership(4), PARAMS).handle(events.Tick(), 0)


def test_misuse_second_start() -> None:
    with pytest.raises(MachineMisused):
        Probe().tell(events.Start(GENESIS))


def test_misuse_member_out_of_range() -> None:
    with pytest.raises(MachineMisused):
        Simplex(4, fake_membership(4), PARAMS)


def test_misuse_journal_of_another_member() -> None:
    with pytest.raises(MachineMisused):
        restarted(fake_vote(1, VoteKind.NULLIFY, 1))


@pytest.mark.parametrize("proof", [None, notarization(FIRST), finalization(SECOND)])
def test_misuse_final_tip_without_its_finalization(proof: Certificate | None) -> None:
    with pytest.raises(MachineMisused):
        Probe(start=events.Start(tip(FIRST), proof))


def test_misuse_leaves_the_machine_as_it_was() -> None:
    probe = Probe()
    with pytest.raises(MachineMisused):
        probe.tell(events.Synced(tip(FIRST), finalization(SECOND)))
    assert (probe.machine.view, probe.machine.final_tip) == (1, FinalTip(GENESIS.hash, 0, 0))
    assert actions.CastVote(VoteKind.NOTARIZE, 1, FIRST.hash) in probe.propose(FIRST)


# parameters


def params_refusal(params: ConsensusParams) -> ConsensusParamsReason:
    with pytest.raises(ConsensusParamsRefused) as caught:
        params.validate()
    assert isinstance(caught.value.reason, ConsensusParamsReason)
    return caught.value.reason


@pytest.mark.parametrize(
    "name", ["block_interval_ms", "view_timeout_ms", "min_view_timeout_ms", "heartbeat_ms", "resend_ms"]
)
@pytest.mark.parametrize("value_ms", [0, MAX_MS + 1])
def test_params_refused_out_of_range(name: str, value_ms: int) -> None:
    assert params_refusal(replace(PARAMS, **{name: value_ms})) is ConsensusParamsReason.OUT_OF_RANGE


def test_params_refused_with_a_floor_above_the_timeout() -> None:
    broken = replace(PARAMS, min_view_timeout_ms=PARAMS.view_timeout_ms + 1)
    assert params_refusal(broken) is ConsensusParamsReason.FLOOR_ABOVE_TIMEOUT


def test_params_refused_with_a_cap_below_the_timeout() -> None:
    broken = replace(PARAMS, max_view_timeout_ms=PARAMS.view_timeout_ms - 1)
    assert params_refusal(broken) is ConsensusParamsReason.CAP_BELOW_TIMEOUT


def test_params_refused_with_a_heartbeat_below_the_interval() -> None:
    broken = replace(PARAMS, heartbeat_ms=PARAMS.block_interval_ms - 1)
    assert params_refusal(broken) is ConsensusParamsReason.HEARTBEAT_TOO_SHORT
