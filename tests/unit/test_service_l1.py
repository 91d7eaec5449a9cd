"""What members tell one another of L1, and what counts as work."""

import pytest
import trio

from bridge.l1.client import L1Client
from bridge.l1.credentials import PasswordAuth
from bridge.l1.errors import L1Unavailable
from pegnode.net.messages import L1Report
from pegnode.net.transport import PeerId, PeerRole
from tests.support.members import memory_federation
from tests.support.mini_wallet import MiniWallet

ALL = (0, 1, 2, 3)
ALICE = MiniWallet("alice")


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
        assert all((driver.last_vote_view(member) or 0) >= 1 for member in ALL)
        assert driver.view > 1
        assert federation.members[0].live.status().view == driver.view
