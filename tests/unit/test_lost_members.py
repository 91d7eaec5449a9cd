"""Members that lost something and come back: whole ones, with everybody else honest."""

import pytest
import trio

from federation.journal import Journal
from federation.journal_header import JournalIdentity
from pegnode.status import JournalStatus
from tests.support.members import MemoryFederation, memory_federation
from tests.support.memory_disk import MemoryDatabase
from tests.support.memory_entries import MemoryEntries

ALL = (0, 1, 2, 3)


def forget(federation: MemoryFederation, index: int) -> None:
    """What `peg journal renew` does."""
    entries = MemoryEntries()
    Journal.create(entries, JournalIdentity(federation.rules.chain_id, 0, index), forgotten=True)
    federation.disks[index].entries = entries


def status(federation: MemoryFederation, index: int) -> JournalStatus:
    return federation.members[index].own_memory.status()


def has_voted(federation: MemoryFederation, index: int) -> bool:
    return federation.members[index].journal.newest_vote_view is not None


async def test_member_with_a_renewed_journal_votes_again(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL) as federation:
        await federation.all_at(3)
        await federation.stop(2)
        forget(federation, 2)
        await federation.start(2)
        await federation.until(lambda: status(federation, 2).state == "kept", seconds=5)
        floor = status(federation, 2).floor_view
        assert floor >= max(member.store.tip.header.view for member in federation.members.values())
        await federation.until(lambda: has_voted(federation, 2), seconds=60)
        newest = status(federation, 2).newest_vote_view
        assert newest is not None
        assert newest > floor
        await federation.all_at(federation.height + 2)


@pytest.mark.parametrize("index", [0, 3])
async def test_database_that_is_lost_is_fetched_again(autojump_clock: trio.abc.Clock, index: int) -> None:
    async with memory_federation(*ALL) as federation:
        await federation.all_at(4)
        await federation.stop(index)
        federation.disks[index].database = MemoryDatabase()
        await federation.start(index)
        await federation.all_at(federation.height + 3)
        await federation.until(lambda: has_voted(federation, index), seconds=60)


async def test_renewal_waits_for_a_member_that_is_away_and_names_it(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL) as federation:
        await federation.all_at(2)
        await federation.stop(2)
        await federation.stop(3)
        forget(federation, 2)
        await federation.start(2)
        await trio.sleep(60)
        assert status(federation, 2) == JournalStatus("renewing", 0, None, 2, 3, (3,))
        waiting = federation.members[2].live.status().waiting_for
        assert "a vote of its own (its journal is renewed: heard 2 of 3 needed; waits for member-3)" in waiting
        height = federation.height
        await federation.start(3)
        await federation.until(lambda: status(federation, 2).state == "kept", seconds=30)
        await federation.all_at(height + 2)


async def test_more_lost_journals_than_faults_are_tolerated_stop_the_chain(autojump_clock: trio.abc.Clock) -> None:
    """Neither vouches for the other, so nothing is ever signed that could be against a forgotten word."""
    async with memory_federation(*ALL) as federation:
        await federation.all_at(2)
        for index in (1, 2):
            await federation.stop(index)
            forget(federation, index)
        await federation.start(1, 2)
        await trio.sleep(30)
        height = federation.height
        await trio.sleep(60)
        assert federation.height == height
        for index, other in ((1, 2), (2, 1)):
            assert (status(federation, index).state, status(federation, index).waits_for) == ("renewing", (other,))


async def test_members_that_lose_power_together_wait_for_one_another_briefly(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with memory_federation(*ALL) as federation:
        await federation.all_at(2)
        for index in ALL:
            await federation.stop(index)
            federation.disks[index].entries.lose_unsynced()
        height = max(federation.disks[index].open_store(federation.rules).tip.header.height for index in ALL)
        await federation.start(0, 1, 2)
        await federation.all_at(height + 1, seconds=30)
