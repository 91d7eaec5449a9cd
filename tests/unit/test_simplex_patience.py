"""How long a view may take: what is measured, within which bounds, and who is not waited for."""

from dataclasses import replace

import pytest

from federation.certificate import NO_BLOCK, VoteKind
from pegnode.consensus import actions, events
from pegnode.consensus.patience import MARGIN
from tests.machine.fake_chain import FakeBlock, fake_certificate, fake_vote
from tests.support.simplex import PARAMS, Probe, block, finalization, notarization, nullification, of, tip

INTERVAL_MS, TIMEOUT_MS, LEAST_MS = PARAMS.block_interval_ms, PARAMS.view_timeout_ms, PARAMS.min_view_timeout_ms
MOST_MS = PARAMS.max_view_timeout_ms


class Chain:
    """A probe, as member 0 of 4 unless told otherwise, and the blocks that others certify before it."""

    def __init__(self, probe: Probe | None = None) -> None:
        self.probe = probe or Probe()
        self.parent: FakeBlock | None = None
        self.probe.tell(events.WorkKnown(True))

    @property
    def view(self) -> int:
        """The view that the probe is in."""
        return self.probe.machine.view

    def wait_until_due(self) -> None:
        """Let the block interval pass, which must not have passed yet."""
        self.probe.wait(INTERVAL_MS)

    def certify(self, took_ms: int) -> None:
        """The leader's block is notarized and final, so long after it was due."""
        self.wait_until_due()
        self.probe.wait(took_ms)
        self.parent = block(self.view, self.parent or tip_of_genesis(), self.probe.size)
        quorum = range(self.probe.size - (self.probe.size - 1) // 3)
        signers = tuple(sorted((self.view + offset) % self.probe.size for offset in quorum))
        self.probe.take(notarization(self.parent, signers), finalization(self.parent, signers))

    def nullify(self, *voters: int) -> None:
        """The probe waits in vain; these others gave up too."""
        self.probe.wait(MOST_MS + INTERVAL_MS)
        self.probe.take(nullification(self.view, voters))

    def gives_up_after(self, timeout_ms: int) -> bool:
        """Whether the view just entered is nullified at exactly this time after its block is due."""
        self.wait_until_due()
        before = of(actions.CastVote, self.probe.wait(timeout_ms - 1))
        after = of(actions.CastVote, self.probe.wait(1))
        return not before and [vote.kind for vote in after] == [VoteKind.NULLIFY]


def tip_of_genesis() -> events.FinalTip:
    return Probe().machine.final_tip


def certified(*took_ms: int, probe: Probe | None = None) -> Chain:
    """A chain whose views took so long, one after the other."""
    chain = Chain(probe)
    for one in took_ms:
        chain.certify(one)
    return chain


# what is measured


def test_timeout_is_that_of_the_genesis_while_a_quorum_of_leaders_was_not_measured() -> None:
    assert certified().probe.machine.timeout_ms == TIMEOUT_MS
    assert certified(400, 400).probe.machine.timeout_ms == TIMEOUT_MS


def test_timeout_is_three_times_what_the_slowest_of_the_quickest_quorum_took() -> None:
    chain = certified(*[400, 500, 600, 700] * 12)
    assert chain.probe.machine.timeout_ms == MARGIN * 600
    assert chain.gives_up_after(MARGIN * 600)


def test_longer_time_counts_at_once_and_fades_by_a_quarter_with_each_turn() -> None:
    chain = certified(*[400] * 48)
    chain.certify(1_200)
    assert chain.probe.machine.timeout_ms == MARGIN * 400  # one leader alone
    chain.certify(1_200)
    assert chain.probe.machine.timeout_ms == MARGIN * 1_200
    for faded_ms in (2_700, 2_025, 1_519, 1_200):
        for _ in range(4):
            chain.certify(400)
        assert chain.probe.machine.timeout_ms == faded_ms


def test_timeout_is_never_below_its_floor() -> None:
    assert certified(*[10] * 60).probe.machine.timeout_ms == LEAST_MS


def test_timeout_is_never_above_its_cap() -> None:
    assert certified(*[MOST_MS] * 4).probe.machine.timeout_ms == MOST_MS


def test_nothing_longer_than_the_cap_is_remembered() -> None:
    chain = certified(*[100 * MOST_MS] * 4, *[400] * 4)
    assert chain.probe.machine.timeout_ms == MOST_MS - MOST_MS // 4


@pytest.mark.parametrize("took_ms", [3_900, MOST_MS])
def test_f_leaders_who_dawdle_stretch_nothing(took_ms: int) -> None:
    chain = certified(*[400, took_ms, 400, 400] * 12)
    assert chain.probe.machine.timeout_ms == MARGIN * 400


def test_f_leaders_who_hurry_leave_the_others_time() -> None:
    chain = certified(*[600, 1, 600, 600] * 12)
    assert chain.probe.machine.timeout_ms == MARGIN * 600


def test_nullified_view_is_no_measurement() -> None:
    chain = certified(*[400] * 48)
    chain.nullify(1, 2, 3)
    chain.probe.wait(400)  # the next one is due at once
    chain.probe.take(notarization(block(chain.view, chain.parent or tip_of_genesis())))
    assert chain.probe.machine.timeout_ms == MARGIN * 400


def test_view_that_is_notarized_after_this_member_gave_it_up_is_one() -> None:
    """A member far from all others must not give up each view, and so never vote to finalize, for ever."""
    chain = certified(*[400] * 48)
    chain.certify(2_000)
    chain.certify(2_000)
    assert chain.probe.machine.timeout_ms == MARGIN * 2_000


def test_views_caught_up_with_are_no_measurement() -> None:
    chain = certified(*[600] * 48)
    for _ in range(40):
        chain.parent = block(chain.view, chain.parent or tip_of_genesis())
        chain.probe.take(notarization(chain.parent))  # all at once, before a block was due here
    assert chain.probe.machine.timeout_ms == MARGIN * 600


def test_view_that_was_jumped_over_is_no_measurement() -> None:
    chain = certified(*[600] * 48)
    for distance in (11, 5):
        chain.wait_until_due()
        chain.probe.wait(20_000)
        far = block(chain.view + distance)
        chain.probe.take(notarization(far), finalization(far))
    assert chain.probe.machine.timeout_ms == MARGIN * 600


def test_heartbeats_are_measured_too() -> None:
    chain = certified()
    chain.probe.tell(events.WorkKnown(False))
    for _ in range(60):
        chain.probe.take(*(() if chain.parent is None else (finalization(chain.parent),)))
        chain.probe.wait(PARAMS.heartbeat_ms)
        chain.probe.wait(500)
        chain.parent = block(chain.view, chain.parent or tip_of_genesis())
        chain.probe.take(notarization(chain.parent))
    assert chain.probe.machine.timeout_ms == MARGIN * 500


def test_nothing_measured_outlives_a_restart() -> None:
    chain = certified(*[400] * 48)
    assert chain.parent is not None
    start = events.Start(tip(chain.parent), finalization(chain.parent))
    assert Probe(start=start).machine.timeout_ms == TIMEOUT_MS


# backing off


@pytest.mark.parametrize(("stalled", "factor"), [(1, 1), (2, 2), (3, 2), (4, 4), (6, 8)])
def test_measured_timeout_doubles_too_after_each_f_plus_1_nullified_views(stalled: int, factor: int) -> None:
    chain = certified(*[400] * 48)
    for view in range(chain.view, chain.view + stalled):
        chain.probe.take(nullification(view))
    assert chain.probe.machine.timeout_ms == factor * MARGIN * 400


def test_what_a_view_took_after_backing_off_holds_for_every_leader() -> None:
    chain = certified(*[400] * 48)
    for view in range(chain.view, chain.view + 2):
        chain.probe.take(nullification(view))
    chain.certify(2_000)
    assert chain.probe.machine.timeout_ms == MARGIN * 2_000
    assert chain.gives_up_after(MARGIN * 2_000)


def rounds_in_vain(chain: Chain, rounds: int, *leaders: int) -> None:
    """So often everybody has its turn: those of these leaders end in a nullification, the others' blocks are final."""
    for _ in range(4 * rounds):
        if chain.view % 4 in leaders:
            chain.nullify(0, 2, 3)
        else:
            chain.parent = block(chain.view, chain.parent or tip_of_genesis())
            chain.probe.take(notarization(chain.parent), finalization(chain.parent))


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_timeout_doubles_with_each_turn_in_vain_of_f_plus_1_leaders_however_quick_the_others_are(rounds: int) -> None:
    chain = certified(*[400] * 48)
    rounds_in_vain(chain, rounds, 1, 3)
    assert chain.probe.machine.timeout_ms == (MARGIN * 400) << rounds


def test_turns_in_vain_of_f_leaders_double_nothing() -> None:
    chain = certified(*[400] * 48)
    rounds_in_vain(chain, 20, 1)
    assert chain.probe.machine.timeout_ms == MARGIN * 400


def test_final_block_of_its_own_forgives_a_leader_its_turns_in_vain() -> None:
    chain = certified(*[400] * 48)
    rounds_in_vain(chain, 2, 1, 3)
    chain.parent = block(chain.view, chain.parent or tip_of_genesis())
    chain.probe.take(notarization(chain.parent))
    assert chain.probe.machine.timeout_ms == 4 * MARGIN * 400
    chain.probe.take(finalization(chain.parent))
    assert chain.parent.leader == 1
    assert chain.probe.machine.timeout_ms == MARGIN * 400


@pytest.mark.parametrize(("turns", "factor"), [(1, 1), (2, 2)])
def test_views_given_up_here_alone_double_it_too_while_nothing_is_final(turns: int, factor: int) -> None:
    """Each member may give up another leader, and so none of the notarized views get every vote that they need."""
    chain = certified(*[400] * 48)
    for turn in range(1, turns + 1):
        chain.probe.wait(INTERVAL_MS + MOST_MS)
        if turn < turns:
            for _ in range(4):
                chain.parent = block(chain.view, chain.parent or tip_of_genesis())
                chain.probe.take(notarization(chain.parent))
    assert chain.probe.machine.timeout_ms == factor * MARGIN * 400


def test_turn_that_may_have_failed_by_prudence_is_not_held_against_the_time() -> None:
    chain = certified(*[400] * 48)
    for leader in (1, 2, 3):
        chain.probe.propose(block(chain.view, chain.parent or tip_of_genesis(), carries_l1=leader > 1))
        chain.nullify(0, 2, 3)
    assert chain.probe.machine.timeout_ms == 2 * MARGIN * 400
    chain.parent = block(chain.view, chain.parent or tip_of_genesis())
    chain.probe.take(notarization(chain.parent), finalization(chain.parent))
    assert chain.probe.machine.timeout_ms == MARGIN * 400


def test_leaders_who_give_up_themselves_were_not_waited_for_in_vain() -> None:
    chain = certified(*[400] * 48)
    for leader in (1, 2):
        chain.wait_until_due() if leader == 1 else None
        chain.probe.vote(leader, VoteKind.NULLIFY, chain.view)
        chain.probe.take(nullification(chain.view, (0, 2, 3)))
    assert chain.probe.machine.timeout_ms == 2 * MARGIN * 400
    chain.parent = block(chain.view, chain.parent or tip_of_genesis())
    chain.probe.take(notarization(chain.parent), finalization(chain.parent))
    assert chain.probe.machine.timeout_ms == MARGIN * 400


@pytest.mark.parametrize(("proposes", "factor"), [(False, 2), (True, 1)])
def test_own_turn_that_ended_before_this_member_could_propose_doubles_at_once(proposes: bool, factor: int) -> None:
    probe = Probe(member=1)
    probe.tell(events.WorkKnown(True))
    asked = probe.wait(INTERVAL_MS)
    if proposes:
        probe.tell(events.BlockBuilt(probe.build(asked).info))
    assert [vote.kind for vote in of(actions.CastVote, probe.wait(TIMEOUT_MS))] == [VoteKind.NULLIFY]
    assert probe.machine.timeout_ms == factor * TIMEOUT_MS
    probe.take(nullification(1), notarization(block(2)), finalization(block(2)))
    assert probe.machine.timeout_ms == factor * TIMEOUT_MS
    own = block(5, block(2))
    probe.take(notarization(own), finalization(own))
    assert probe.machine.timeout_ms == TIMEOUT_MS


# who is not waited for


def next_turn(chain: Chain) -> Chain:
    """Others lead three views, of which each is certified without the missed leader's signature."""
    gone = (chain.view - 1) % 4
    for _ in range(3):
        chain.wait_until_due()
        chain.probe.wait(400)
        chain.parent = block(chain.view, chain.parent or tip_of_genesis())
        others = tuple(one for one in range(4) if one != gone)
        chain.probe.take(notarization(chain.parent, others), finalization(chain.parent, others))
    return chain


def gone_leader() -> Chain:
    """Member 1 was not there in its last view, and leads the one just entered."""
    chain = Chain()
    chain.probe.wait(MOST_MS)
    assert chain.view == 1
    chain.probe.take(nullification(1, (0, 2, 3)))
    return next_turn(chain)


def test_nobody_is_missed_at_the_start() -> None:
    assert Probe().machine.missed_leaders == frozenset()


def test_leader_that_was_waited_for_in_vain_gets_the_least_timeout() -> None:
    chain = gone_leader()
    assert chain.probe.machine.missed_leaders == {1}
    assert chain.probe.machine.timeout_ms == TIMEOUT_MS
    assert chain.gives_up_after(LEAST_MS)


def test_leader_that_is_missed_again_stays_missed() -> None:
    chain = gone_leader()
    for _ in range(3):
        chain.wait_until_due()
        chain.probe.wait(LEAST_MS)
        chain.probe.take(nullification(chain.view, (0, 2, 3)))
        assert next_turn(chain).probe.machine.missed_leaders == {1}
    assert chain.gives_up_after(LEAST_MS)


@pytest.mark.parametrize("kind", list(VoteKind))
def test_any_vote_of_a_later_view_ends_that(kind: VoteKind) -> None:
    chain = gone_leader()
    chain.probe.vote(1, kind, 4, block(4).hash if kind.names_block else NO_BLOCK)
    assert chain.probe.machine.missed_leaders == frozenset()
    assert chain.gives_up_after(TIMEOUT_MS)


def test_vote_of_the_missed_view_itself_ends_that() -> None:
    chain = gone_leader()
    chain.probe.vote(1, VoteKind.NULLIFY, 1)
    assert chain.probe.machine.missed_leaders == frozenset()


def test_vote_of_an_earlier_view_ends_nothing() -> None:
    chain = certified(*[400] * 4)
    chain.nullify(0, 2, 3)
    chain.probe.vote(1, VoteKind.FINALIZE, 4, block(4).hash)
    assert chain.probe.machine.missed_leaders == {1}


def test_signature_in_a_certificate_is_a_sign_of_life() -> None:
    chain = gone_leader()
    chain.probe.take(notarization(block(chain.view, chain.parent or tip_of_genesis()), (0, 1, 2)))
    assert chain.probe.machine.missed_leaders == frozenset()


def test_proposal_ends_it_in_the_view_itself() -> None:
    chain = gone_leader()
    assert chain.parent is not None
    chain.wait_until_due()
    chain.probe.wait(LEAST_MS - 1)
    chain.probe.answer_checks = False
    chain.probe.propose(block(chain.view, chain.parent))
    assert not of(actions.CastVote, chain.probe.wait(TIMEOUT_MS - LEAST_MS))
    assert of(actions.CastVote, chain.probe.wait(1))


def test_view_that_this_member_did_not_wait_through_says_nothing_of_its_leader() -> None:
    chain = Chain()
    chain.probe.take(nullification(1, (0, 2, 3)))
    assert next_turn(chain).probe.machine.missed_leaders == frozenset()


def test_leader_whose_last_view_was_jumped_over_is_not_missed_for_an_earlier_one() -> None:
    chain = gone_leader()
    far = block(11)
    chain.probe.take(notarization(far, (0, 2, 3)))
    assert chain.probe.machine.missed_leaders == frozenset()


def test_nobody_is_missed_after_a_restart() -> None:
    nullified = fake_vote(0, VoteKind.NULLIFY, 1)
    start = events.Start(Probe().machine.final_tip, votes=(nullified,), certificates=(nullification(1, (0, 2, 3)),))
    probe = Probe(start=start)
    assert probe.machine.view == 2
    assert probe.machine.missed_leaders == frozenset()


def test_least_timeout_doubles_too_so_that_a_missed_leader_can_end_a_stall() -> None:
    chain = gone_leader()
    for _ in range(4):
        chain.probe.wait(MOST_MS)
        chain.probe.take(fake_certificate((0, 2, 3), VoteKind.NULLIFY, chain.view))
    assert chain.view % 4 == 1
    assert chain.probe.machine.missed_leaders >= {1}
    assert not of(actions.CastVote, chain.probe.wait(4 * LEAST_MS - 1))
    assert of(actions.CastVote, chain.probe.wait(1))


def test_one_member_alone_measures_itself() -> None:
    params = replace(PARAMS, min_view_timeout_ms=1)
    chain = certified(*[50] * 30, probe=Probe(size=1, params=params))
    assert chain.probe.machine.timeout_ms == MARGIN * 50
