"""A member whose own key is proved guilty: it says so loudly, and signs no more unless its journal knows better."""

import pytest
import trio

from federation.journal import Journal
from federation.journal_errors import JournalReason, JournalRefused
from federation.journal_header import JournalIdentity
from tests.support.equivocations import NULLIFY, equivocation, signed_vote
from tests.support.guilt import HONEST, accused, alarm, faulty, guest, known, nodes, proof, votes
from tests.support.members import memory_federation
from tests.support.memory_entries import MemoryEntries


async def test_own_key_that_signed_twice_is_told_loudly_also_after_a_restart(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0, 1) as federation:
        teller = await guest(federation)
        assert alarm(federation.members[0]) == ""
        teller.say_all(proof(equivocation(federation.rules, 0)))
        await federation.until(lambda: all(accused(each) == {0} for each in nodes(federation)), 5)
        for _ in range(2):
            said = alarm(federation.members[0])
            assert said.startswith("our key signed two votes that exclude each other, in view 9: ")
            assert alarm(federation.members[1]) == "", "a colleague's key is not ours"
            await federation.stop(0)
            federation.disks[0].entries = MemoryEntries()
            await federation.start(0)


@pytest.mark.parametrize("kept", [True, False])
async def test_member_whose_journal_lacks_a_vote_of_its_own_guilt_signs_no_more(
    kept: bool, autojump_clock: trio.abc.Clock
) -> None:
    """kept: the proof is on its disk when it starts with another journal."""
    async with memory_federation(0, 1) as federation:
        teller = await guest(federation)
        member = federation.members[0]
        assert member.own_memory.may_sign
        teller.say_all(proof(equivocation(federation.rules, 0)))
        await federation.until(lambda: accused(member) == {0}, 5)
        if kept:
            await federation.stop(0)
            federation.disks[0].entries = MemoryEntries()
            await federation.start(0)
            member = federation.members[0]
        assert not member.own_memory.may_sign
        assert member.own_memory.status().state == "behind"
        assert federation.members[1].own_memory.may_sign, "a colleague's key is not ours"
        await federation.stop(0)
        with pytest.raises(JournalRefused) as caught:
            await federation.start(0)
        assert caught.value.reason is JournalReason.BEHIND


async def test_journal_whose_floor_is_above_the_own_guilt_goes_on(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(1) as federation:
        teller = await guest(federation)
        identity = JournalIdentity(federation.rules.chain_id, 0, 0)
        Journal.create(federation.disks[0].entries, identity, equivocation(federation.rules, 0).view)
        await federation.start(0)
        teller.say_all(proof(equivocation(federation.rules, 0)))
        await federation.until(lambda: alarm(federation.members[0]), 5)
        assert federation.members[0].own_memory.may_sign, "it signs nothing there again"


async def test_vote_under_our_key_that_we_never_cast_is_told_loudly(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*HONEST) as federation:
        thief = await faulty(federation)
        member = federation.members[0]
        thief.say(federation.peer_id(0), votes(signed_vote(federation.rules, 0, NULLIFY, member.machine.view + 1)))
        await federation.until(lambda: alarm(member), 5)
        assert alarm(member).startswith("a vote under our key that our journal lacks, in view ")
        assert known(member) == (), "one vote is no proof of two"
