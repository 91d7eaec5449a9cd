"""That the bench of members far behind can fail."""

from dataclasses import dataclass
from typing import cast

import pytest
import trio

from bench.behind import STANDSTILL_S, FailedCatchUpError, Progress, agree, ending_in_words
from tests.support.members import Member, memory_federation


@dataclass
class Climber:
    """A node of which only the height matters."""

    height: int = 0


async def test_node_that_goes_on_however_slowly_is_no_failure(autojump_clock: trio.abc.Clock) -> None:
    node = Climber()
    progress = Progress(node=cast(Member, node))
    for _ in range(10):
        await trio.sleep(STANDSTILL_S - 1)
        node.height += 1
        progress.check()


async def test_node_that_stands_still_is_named(autojump_clock: trio.abc.Clock) -> None:
    going, standing = Climber(), Climber(7)
    progress = Progress(going=cast(Member, going), standing=cast(Member, standing))
    await trio.sleep(STANDSTILL_S + 1)
    going.height += 1
    with pytest.raises(FailedCatchUpError, match="standing is at height 7, and has been for 60 s"):
        progress.check()


async def test_node_with_the_same_chain_agrees_though_it_was_asked_first(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0, 1) as federation:
        front, behind = federation.members[0], federation.members[1]
        block = federation.next_block(front.store)
        federation.commit(behind.store, [block])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(agree, front, behind)
            await trio.sleep(1)
            federation.commit(front.store, [block])
        assert front.height == 1


async def test_node_with_another_block_fails(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0, 1) as federation:
        front, behind = federation.members[0], federation.members[1]
        time_ms = front.store.tip.header.time_ms
        federation.commit(front.store, [federation.next_block(front.store, time_ms=time_ms + 1)])
        federation.commit(behind.store, [federation.next_block(behind.store, time_ms=time_ms + 2)])
        with pytest.raises(FailedCatchUpError, match="another block 1"):
            await agree(front, behind)


async def test_node_with_another_ledger_fails(autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    async with memory_federation(0, 1) as federation:
        monkeypatch.setattr("bench.behind.ledger_root", lambda _: bytes(32))
        with pytest.raises(FailedCatchUpError, match="another ledger after block 0"):
            await agree(federation.members[0], federation.members[1])


def test_failure_among_tasks_ends_the_process_in_words() -> None:
    async def fails() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            raise FailedCatchUpError("who is behind is at height 3")

    with pytest.raises(SystemExit) as ended, ending_in_words():
        trio.run(fails)
    assert ended.value.code == "FAILED: who is behind is at height 3"
