"""The running node as its RPC sees it."""

import pytest
import trio

from bridge.bitcoin.identifiers import BlockHash
from bridge.errors import Rejected
from bridge.l1.states import L1State
from federation.certificate import VoteKind
from federation.equivocation import Equivocation
from federation.journal_errors import JournalReason
from pegnode.chain.block import Block
from pegnode.chain.transactions import TransactionRule
from pegnode.consensus.events import CertificateReceived, Verdict
from pegnode.net.transport import PeerId
from pegnode.service.judge import Judge
from pegnode.service.node_status import MOST_SUSPICIONS_TOLD, OWN_SOFTWARE
from pegnode.signing.port import VoteRefused
from tests.support.halts import gone
from tests.support.members import MemoryFederation, memory_federation
from tests.support.mini_wallet import MiniWallet

ALL = (0, 1, 2, 3)
ALICE = MiniWallet("alice")
BOB = MiniWallet("bob")


async def test_status_shows_chain_members_and_l1(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0, 1, 2) as federation:
        await federation.fund(ALICE)
        status = federation.members[1].live.status()
        assert status.member == 1
        assert status.leader == federation.rules.membership.leader(status.view)
        assert [member.connected for member in status.members] == [True, True, True, False]
        assert (status.syncing, status.best_known_height) == (False, federation.height)
        assert (status.l1.health.state, status.l1.height) == (L1State.OK, federation.l1.chain.height)
        assert (status.halt_findings, status.waiting_for) == ((), ())
        assert status.uptime_ms > 0


async def test_status_names_what_is_missing(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0, 1) as federation:
        federation.nodes[0].outage = True
        await trio.sleep(2)
        federation.members[0].core.halt(gone(), "a finding")
        federation.members[0].core.halt(gone(), "a finding")
        status = federation.members[0].live.status()
        assert status.halt_findings == ("a finding",)
        assert status.l1.health.state is L1State.DOWN
        assert status.l1.health.detail == "the test says so"
        assert 0 <= federation.members[0].core.now_ms() - status.l1.health.since_ms <= 2_000
        assert status.waiting_for == (
            "the Bitcoin node: down: the test says so",
            "a quorum of 3 members, of which 2 are reachable",
        )


async def test_status_shows_each_member_as_seen_from_here(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0, 1, 2) as federation:
        await federation.fund(ALICE)
        live, start_ms = federation.members[1].live, federation.members[1].live.status().started_ms
        own, other, absent = (live.status().members[index] for index in (1, 0, 3))
        assert (own.round_trip_ms, own.software, own.final_height) == (None, OWN_SOFTWARE, federation.height)
        assert (other.software, other.final_height, other.missing_since_ms) == ("memory", federation.height, None)
        assert other.round_trip_ms is not None
        assert other.last_vote is not None
        assert own.last_vote is not None
        assert 0 <= federation.members[1].core.now_ms() - other.last_vote.seen_ms <= 60_000
        assert (absent.missing_since_ms, absent.software, absent.last_vote) == (start_ms, "", None)
        await trio.sleep(30)
        await federation.stop(0)
        await trio.sleep(30)
        gone_ms = federation.members[1].core.now_ms() - (live.status().members[0].missing_since_ms or 0)
        assert 29_000 <= gone_ms <= 31_000
        assert live.status().members[0].software == "memory", "what it was, one wants to know above all once it is gone"


async def test_status_tells_how_old_the_newest_block_is(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0, 1) as federation:
        live = federation.members[0].live
        before_ms = live.status().final_age_ms
        await trio.sleep(40)
        assert live.status().final_age_ms == before_ms + 40_000
        assert live.status().timeout_ms == federation.genesis.consensus.view_timeout_ms


async def test_equivocations_are_counted(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0) as federation:
        member = federation.members[0]
        votes = [federation.vote(2, VoteKind.NOTARIZE, 9, BlockHash(bytes([number]) * 32)) for number in (1, 2)]
        member.store.keep_equivocation(Equivocation.of(*votes))
        assert [item.equivocations for item in member.live.status().members] == [0, 0, 1, 0]


# why the chain stands


def why(federation: MemoryFederation, index: int = 0) -> str:
    """What a member tells of its standing chain."""
    found = federation.members[index].live.status().stall
    return "" if found is None else found.why


async def test_idle_chain_and_one_absent_member_are_no_stall(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0, 1, 2) as federation:
        for _ in range(40):
            await trio.sleep(1)
            assert [why(federation, index) for index in (0, 1, 2)] == [""] * 3


async def test_connected_member_that_votes_no_more_is_named(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0, 1, 2) as federation:
        await federation.fund(ALICE)
        driver = federation.members[2].driver
        assert driver is not None

        async def silent(action: object) -> None:
            """It casts nothing, whatever is asked."""

        driver._cast = silent  # type: ignore[method-assign]
        driver._broadcast = lambda votes, certificates: None  # type: ignore[method-assign]
        await trio.sleep(60)
        told = why(federation)
        assert told.startswith("3 of 4 needed, 3 reachable, but only 2 vote in view"), told
        assert "member-2 is connected, but silent since view" in told, told
        assert "member-3 is not connected since" in told, told


async def test_members_that_withhold_their_votes_say_why(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL) as federation:
        await federation.fund(ALICE)
        for index in (1, 2, 3):
            judge = federation.members[index].judge

            async def withheld(block: Block, parent: object, judge: Judge = judge) -> Verdict:
                judge._explain(block, "vote withheld", "the test says so")
                return Verdict.WITHHELD

            judge._votable = withheld  # type: ignore[method-assign]
        await trio.sleep(60)
        divided = "a quorum votes, but no block gets 3 votes, and view after view is given up"
        assert why(federation, 3) == f"{divided}; this member votes for no block that it was shown: the test says so"


async def test_member_that_is_cut_off_is_told_to_look_at_itself(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL) as federation:
        await federation.fund(ALICE)
        federation.isolate(3)
        await trio.sleep(30)
        assert "this node reaches none of the others" in why(federation, 3)
        assert why(federation, 0) == ""


async def test_contradicting_certificates_silence_a_member_for_good(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL) as federation:
        await federation.fund(ALICE)
        header = federation.members[0].store.tip.header
        against = federation.certificate(VoteKind.NULLIFY, header.view)
        driver = federation.members[0].driver
        assert driver is not None
        driver._queue.put(CertificateReceived(against))
        await trio.sleep(1)
        assert "two certificates contradict each other" in why(federation, 0)
        await federation.stop(0)
        await federation.start(0)
        await trio.sleep(60)
        assert "two certificates contradict each other" in why(federation, 0), "a restart forgets nothing of it"
        own = federation.members[1].live.status().members[0].last_vote
        assert own is not None
        assert own.view <= header.view + 1, "and it votes no more"
        assert federation.height > header.height + 2, "the others don't need it"


async def test_signer_that_refuses_is_told(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0, 1, 2) as federation:
        signer = federation.members[2].signer
        assert signer is not None

        async def refuses(*_: object) -> None:
            raise VoteRefused(JournalReason.CONFLICT, "it says so")

        signer.sign_vote = refuses  # type: ignore[assignment, method-assign]
        await trio.sleep(30)
        missing = federation.members[2].live.status().waiting_for
        assert "votes of its signer, which refuses: journal-conflict: it says so" in missing, missing
        assert "this member (member-2) does not vote: its signer refuses" in why(federation, 2), why(federation, 2)


async def test_node_without_keys_tells_that_a_block_is_overdue(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL) as federation:
        await federation.fund(ALICE)
        node = await federation.start_full_node()
        await trio.sleep(30)
        assert node.live.status().stall is None
        assert node.live.status().journal is None
        await federation.stop(2)
        await federation.stop(3)
        await trio.sleep(60)
        stands = node.live.status().stall
        assert stands is not None
        assert stands.why == "no block has come although one was due: a member's `peg status` says why"


async def test_peers_are_shown_with_their_heights(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL) as federation:
        await federation.fund(ALICE)
        await federation.join(PeerId("a guest"))
        await trio.sleep(0.5)
        peers = {peer.peer_id: peer for peer in federation.members[0].live.peers()}
        assert len(peers) == 4
        member = peers[federation.peer_id(2)]
        assert (member.member, member.final_height) == (2, federation.height)
        assert member.round_trip_ms is not None
        assert (peers["a guest"].member, peers["a guest"].final_height) == (None, None)


async def test_transaction_is_tried_without_being_taken(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0) as federation:
        member = federation.members[0]
        payment = ALICE.pay(federation.fund_by_hand(member, ALICE), BOB.script())
        verdict = member.live.try_transaction(payment.serialize())
        assert (verdict.txid, verdict.fee_sats, verdict.vsize_vbytes) == (payment.txid, 1_000, payment.vsize_vbytes)
        assert len(member.core.mempool) == 0
        child = BOB.pay((payment.outpoint(0), payment.outputs[0]), BOB.script())
        with pytest.raises(Rejected) as caught:
            member.live.try_transaction(child.serialize())
        assert caught.value.reason is TransactionRule.MISSING_INPUT


async def test_node_stops_when_it_is_told_to(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0) as federation:
        federation.members[0].live.request_stop()
        with trio.fail_after(1):
            await federation.members[0].stopped.wait()


async def test_status_tells_some_of_many_suspicions(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0) as federation:
        core, live = federation.members[0].core, federation.members[0].live
        before = len(live.status().waiting_for)
        for number in range(MOST_SUSPICIONS_TOLD + 2):
            core.suspect(gone(number), f"coin {number} is gone")
        *told, more = live.status().waiting_for[: MOST_SUSPICIONS_TOLD + 1]
        assert told[0] == "certainty whether it has to halt: coin 0 is gone"
        assert (len(told), more) == (MOST_SUSPICIONS_TOLD, "certainty about 2 more findings")
        assert len(live.status().waiting_for) == before + MOST_SUSPICIONS_TOLD + 1
