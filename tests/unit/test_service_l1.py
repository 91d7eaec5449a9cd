"""What members make of L1: what they tell one another, what counts as work, and Bitcoin nodes that lag and fail."""

import pytest
import trio

from bridge.custody import CoinKind
from bridge.errors import Rejected
from bridge.evidence import EvidenceReason, Opening
from bridge.l1.client import L1Client
from bridge.l1.credentials import PasswordAuth
from bridge.l1.errors import L1Unavailable
from pegnode.chain.builder import Candidates, Slot, build_block
from pegnode.consensus.events import Verdict
from pegnode.net.messages import L1Report
from pegnode.net.transport import PeerId, PeerRole
from tests.support.members import memory_federation
from tests.support.mini_wallet import MiniWallet

ALL = (0, 1, 2, 3)
HONEST = (0, 2, 3)
ALICE = MiniWallet("alice")
BOB = MiniWallet("bob")


async def test_members_hear_how_far_l1_is_buried_at_each(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL) as federation:
        federation.l1.mine(5)
        await trio.sleep(1)
        buried = federation.l1.chain.anchor(10)
        for member in federation.members.values():
            assert member.reports is not None
            assert dict(member.reports.by_member) == dict.fromkeys(ALL, buried)
        federation.nodes[2].lag_blocks = 1
        federation.l1.mine(1)
        await trio.sleep(1)
        reports = federation.members[0].reports
        assert reports is not None
        newest = federation.l1.chain.anchor(11)
        assert dict(reports.by_member) == {0: newest, 1: newest, 2: buried, 3: newest}


async def test_member_that_connects_is_told_at_once_and_a_guest_is_not(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0) as federation:
        federation.l1.mine(5)
        await trio.sleep(1)
        member = await federation.join(federation.peer_id(1), PeerRole.MEMBER)
        guest = await federation.join(PeerId("a guest"))
        await trio.sleep(0.5)
        buried = federation.l1.chain.anchor(10)
        assert member.told(L1Report) == [L1Report(buried.height, buried.hash)]
        assert guest.told(L1Report) == []


async def test_height_that_no_node_can_hold_is_not_asked_about() -> None:
    async with L1Client("http://127.0.0.1:1", PasswordAuth("nobody", "nothing")) as client:
        assert await client.block_hash(2**31) is None
        with pytest.raises(L1Unavailable):
            await client.block_hash(2**31 - 1)


async def test_transaction_that_came_while_empty_blocks_were_underway_counts_as_work(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with memory_federation(0) as federation:
        member = federation.members[0]
        coin = federation.fund_by_hand(member, ALICE)
        member.relay.submit_transaction(ALICE.pay(coin, ALICE.script()).serialize())
        for _ in range(5):
            await trio.sleep(0.3)
            federation.commit_block(member)
            assert await member.work._is_known(), "its leader may not have had it"


async def test_transaction_counts_as_work_while_the_bitcoin_node_hangs(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with memory_federation(0) as federation:
        member = federation.members[0]
        coin = federation.fund_by_hand(member, ALICE)
        told: list[bool] = []
        assert member.driver is not None
        monkeypatch.setattr(member.driver, "work_known", told.append)
        monkeypatch.setattr(member.proposer, "l1_work", trio.sleep_forever)
        federation.commit_block(member)
        await trio.sleep(1)
        assert True not in told
        member.relay.submit_transaction(ALICE.pay(coin, ALICE.script()).serialize())
        assert told[-1] is True


async def test_block_that_the_node_knows_by_its_header_alone_proves_nothing_false(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with memory_federation(0) as federation:
        member, node, chain = federation.members[0], federation.nodes[0], federation.l1.chain
        federation.pay_deposit(ALICE.script(), 1_000_000)
        evidence = chain.evidence(chain.blocks[-1].transactions[1], Opening(0, CoinKind.DEPOSIT, 0, ALICE.script()))
        federation.bury()
        await trio.sleep(1)
        header = member.store.tip.header
        anchor = chain.anchor(evidence.l1_height)
        slot = Slot(header.view + 1, header.time_ms + 1_000, anchor, None, include_l1=True)
        facts = chain.facts(anchor, evidence)
        block = build_block(member.store, slot, Candidates((evidence,)), facts, federation.rules).block
        assert block.body.evidence
        node.unread.add(evidence.l1_block_hash)
        assert await member.judge.judge(block, block.encode()) is Verdict.WAITING
        with pytest.raises(Rejected) as caught:
            await member.relay.submit_evidence(evidence)
        assert caught.value.reason is EvidenceReason.WRONG_BLOCK, "which is held against nobody"
        node.unread.clear()
        assert await member.judge.judge(block, block.encode()) is Verdict.VOTABLE


async def test_work_that_leaders_pass_over_again_and_again_does_not_hurry_the_chain(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with memory_federation(0) as federation:
        member = federation.members[0]
        coin = federation.fund_by_hand(member, ALICE)
        payment = ALICE.pay(coin, ALICE.script())
        member.relay.submit_transaction(payment.serialize())
        known = []
        for _ in range(4):
            await trio.sleep(5)
            known.append(await member.work._is_known())
            federation.commit_block(member)
        assert known == [True, True, False, False], "f+1 leaders had their turn"
        other = federation.fund_by_hand(member, MiniWallet("bob"))
        assert other
        assert await member.work._is_known(), "a block that held something may have changed the reason"


async def test_votes_of_members_are_seen(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL) as federation:
        await federation.fund(ALICE)
        driver = federation.members[0].driver
        assert driver is not None
        assert all(driver.watch.last_vote(member) is not None for member in ALL)
        assert driver.watch.view > 1
        assert federation.members[0].live.status().view == driver.watch.view


# A Bitcoin node that lags or fails


async def test_member_whose_bitcoin_node_lags_waits_and_then_votes(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*HONEST) as federation:
        federation.nodes[3].lag_blocks = 8
        script = ALICE.script()
        federation.members[0].relay.register(script)
        deposit = federation.pay_deposit(script, 1_000_000)
        federation.bury()
        await trio.sleep(30)
        assert all(deposit not in member.store.ledger.entered for member in federation.members.values())
        assert federation.height > 0, "blocks without L1 went on"
        federation.nodes[3].lag_blocks = 0
        await federation.until(
            lambda: all(deposit in member.store.ledger.entered for member in federation.members.values()), seconds=120
        )
        assert all(member.core.halt_findings == [] for member in federation.members.values())


async def test_transfers_go_on_while_no_bitcoin_node_answers(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL) as federation:
        coin = await federation.fund(ALICE)
        for node in federation.nodes.values():
            node.outage = True
        federation.members[0].relay.register(BOB.script())
        deposit = federation.pay_deposit(BOB.script(), 1_000_000)
        federation.bury()
        payment = ALICE.pay(coin, BOB.script())
        federation.members[1].relay.submit_transaction(payment.serialize())
        await federation.settled(payment)
        assert "the Bitcoin node" in str(federation.members[0].live.status().waiting_for)
        for node in federation.nodes.values():
            node.outage = False
        await federation.until(lambda: deposit in federation.members[0].store.ledger.entered)


async def test_leader_whose_bitcoin_node_fails_proposes_without_l1(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL) as federation:
        federation.bury()
        await federation.until(lambda: federation.members[0].store.tip.header.anchor.height > 10)
        member = federation.members[0]
        federation.bury()
        await trio.sleep(0.1)
        federation.nodes[0].outage = True
        built = await member.proposer.build(50, member.store.tip.hash, include_l1=True)
        assert built is not None
        assert built.block.header.anchor == member.store.tip.header.anchor


async def test_transfers_go_on_while_every_bitcoin_node_hangs(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL) as federation:
        coin = await federation.fund(ALICE)
        federation.members[0].relay.register(BOB.script())
        federation.pay_deposit(BOB.script(), 1_000_000)
        federation.bury()
        await federation.until(lambda: all(len(member.core.evidence) for member in federation.members.values()))
        for node in federation.nodes.values():
            node.answer_s = 1_000
        payment = ALICE.pay(coin, BOB.script())
        federation.members[1].relay.submit_transaction(payment.serialize())
        started_s = trio.current_time()
        await federation.settled(payment)
        assert trio.current_time() - started_s < 3


# What can't enter hurries nobody


async def test_evidence_that_can_not_enter_makes_no_stream_of_blocks(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL, peg={"max_peg_sats": 10_000_000_000}) as federation:
        await federation.fund(ALICE, value_sats=9_000_000_000)
        federation.members[0].relay.register(BOB.script())
        for _ in range(2):  # there is room for either, not for both
            federation.pay_deposit(BOB.script(), 600_000_000)
        federation.bury()
        evidence = [member.core.evidence for member in federation.members.values()]
        await federation.until(lambda: all(len(pool) == 2 for pool in evidence))
        await federation.until(lambda: all(len(pool) == 1 for pool in evidence))
        await trio.sleep(10)
        height = federation.height
        await trio.sleep(60)
        assert federation.height - height <= 8, "the heartbeat's blocks, and no others"
        small = federation.pay_deposit(ALICE.script(), 1_000_000)
        federation.bury()
        await federation.until(lambda: small in federation.members[0].store.ledger.entered, seconds=3)
