"""Blocks that members ask one another for: from whom they are taken, and how many are given."""

import pytest
import trio

from pegnode.net.messages import BlockAnswer, BlockRequest
from pegnode.net.transport import DropReason
from pegnode.service import peers as peers_module
from tests.support.guilt import HONEST, faulty
from tests.support.members import memory_federation


async def test_member_that_asks_for_blocks_without_end_is_dropped(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers_module, "MEMBER_BURST_BYTES", 100_000)
    async with memory_federation(0) as federation:
        asker = await faulty(federation)
        block = federation.next_block(federation.members[0].store)
        federation.commit(federation.members[0].store, [block])
        for _ in range(100_000 // (len(block.data) + 2 * peers_module.MESSAGE_BYTES) + 10):
            asker.say(federation.peer_id(0), BlockRequest(block.block.hash))
        await trio.sleep(0.1)
        assert [left.reason for left in asker.left] == [DropReason.FLOOD]


async def test_block_that_nobody_asked_for_is_not_kept(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*HONEST) as federation:
        teller, member = await faulty(federation), federation.members[0]
        for block in federation.run_of_blocks(member.store, 5):
            teller.say(federation.peer_id(0), BlockAnswer(block.block.hash, block.data))
        await trio.sleep(0.2)
        assert member.driver is not None
        assert member.driver._bodies == {}
        assert len(member.core.unfinal) == 0
        assert [left.reason for left in teller.left] == [DropReason.MISPLACED_MESSAGE]
