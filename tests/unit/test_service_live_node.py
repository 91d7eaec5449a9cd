"""The running node as its RPC sees it."""

import pytest
import trio

from bridge.errors import Rejected
from bridge.l1.states import L1State
from pegnode.chain.transactions import TransactionRule
from pegnode.net.transport import PeerId
from pegnode.service.live_node import MOST_SUSPICIONS_TOLD
from tests.support.halts import gone
from tests.support.members import memory_federation
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
        assert len(status.waiting_for) == 2
        assert status.waiting_for[0] == "the Bitcoin node: down: the test says so"
        assert "quorum" in status.waiting_for[1]


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
