"""A member that lost its memory, between a thief and a network that would use it for a fork.

Member 1 is the thief's. It has block A of view 1 made final with members 0 and 2, while member 3 hears nothing. Then
member 2 loses something, member 0 is cut off, and the thief proposes block B in view 1 to members 2 and 3. With the
thief's votes, those of member 3, who knows of no A, and those of member 2, if it forgot, B becomes final too.
"""

import pytest
import trio

from federation.certificate import NO_BLOCK, VoteKind
from federation.journal import Journal
from federation.journal_errors import JournalReason, JournalRefused
from federation.journal_header import JournalIdentity
from pegnode.net.messages import Message, ProposalMessage, VotesMessage
from pegnode.net.transport import PeerRole
from pegnode.service.unfinal import UnfinalBlock
from tests.support.members import MemoryFederation, Stranger, memory_federation
from tests.support.memory_disk import Disk, MemoryDatabase
from tests.support.memory_entries import MemoryEntries

THIEF, LOSER, WITNESS, FOOL = 1, 2, 0, 3
VIEW = 1


class Scene:
    """The federation, and what the thief does in it."""

    def __init__(self, federation: MemoryFederation, stranger: Stranger) -> None:
        self.federation = federation
        self.stranger = stranger
        self.empty = MemoryEntries()
        Journal.create(self.empty, self.identity)
        self.end: BaseException | None = None

    @property
    def identity(self) -> JournalIdentity:
        return JournalIdentity(self.federation.rules.chain_id, 0, LOSER)

    @property
    def disk(self) -> Disk:
        """The loser's."""
        return self.federation.disks[LOSER]

    def say(self, message: Message, *members: int) -> None:
        """Send to those of these members that are there."""
        reached = self.stranger.transport.connected()
        for peer in {self.federation.peer_id(member) for member in members} & reached:
            self.stranger.say(peer, message)

    def push(self, unfinal: UnfinalBlock, *members: int) -> None:
        """Propose a block to these members, and vote for it in every way."""
        header = unfinal.block.header
        cast = {kind: self.federation.vote(THIEF, kind, header.view, header.hash).encode() for kind in VoteKind}
        self.say(ProposalMessage(unfinal.data, cast[VoteKind.NOTARIZE], ()), *members)
        self.say(VotesMessage((cast[VoteKind.NOTARIZE], cast[VoteKind.FINALIZE])), *members)

    def journal_state(self) -> str:
        """Of the loser's journal."""
        return self.federation.members[LOSER].own_memory.status().state

    def height(self, member: int) -> int:
        return self.federation.members[member].height

    def final(self, member: int) -> bytes | None:
        """The hash of the final block of height 1."""
        header = self.federation.members[member].store.header_at(1)
        return None if header is None else header.hash

    async def make_a_final(self) -> None:
        federation = self.federation
        federation.isolate(FOOL)
        await trio.sleep(0.1)
        self.push(federation.next_block(federation.members[WITNESS].store), WITNESS, LOSER)
        await federation.until(lambda: self.height(WITNESS) == self.height(LOSER) == 1, seconds=3)
        await federation.stop(LOSER)
        federation.isolate(WITNESS)
        for one, other in ((FOOL, LOSER), (FOOL, THIEF)):
            federation.network.mend(federation.peer_id(one), federation.peer_id(other))
        assert self.final(FOOL) is None

    async def start_the_loser(self) -> None:
        self.federation.nursery.start_soon(self._live)
        await self.federation.until(lambda: LOSER in self.federation.members, seconds=1)
        await trio.sleep(0.5)

    async def _live(self) -> None:
        """The loser's life; a refusal that ends it is kept."""
        try:
            async with trio.open_nursery() as nursery:
                self.federation.nursery, outer = nursery, self.federation.nursery
                try:
                    await self.federation.start(LOSER)
                finally:
                    self.federation.nursery = outer
        except* JournalRefused as group:
            self.end = group.exceptions[0]
            while isinstance(self.end, BaseExceptionGroup):
                self.end = self.end.exceptions[0]
            del self.federation.members[LOSER]

    async def try_to_fork(self) -> bool:
        """Whether B becomes final at the fool's."""
        header = self.federation.members[WITNESS].store.header_at(1)
        assert header is not None
        fool = self.federation.members[FOOL]
        self.push(self.federation.next_block(fool.store, time_ms=header.time_ms + 1), LOSER, FOOL)
        with trio.move_on_after(8):
            await self.federation.until(lambda: self.height(FOOL) > 0)
        return self.final(FOOL) not in (None, header.hash)

    async def go_on(self, *honest: int) -> None:
        """Everybody hears everybody again, the thief is silent but for its nullifications, and the chain grows."""
        federation = self.federation
        federation.network.heal()
        await trio.sleep(1)
        nulls = tuple(federation.vote(THIEF, VoteKind.NULLIFY, view, NO_BLOCK).encode() for view in range(2, 12))
        reached = self.height(WITNESS) + 3
        for _ in range(60):
            self.say(VotesMessage(nulls), *(member for member in honest if member in federation.members))
            await trio.sleep(2)
            if all(self.height(member) >= reached for member in honest):
                break
        await federation.until(lambda: all(self.height(member) >= reached for member in honest), seconds=1)
        assert len({self.final(member) for member in honest}) == 1


class Played:
    """`async with Played() as scene`: the scene after A became final."""

    async def __aenter__(self) -> Scene:
        self._federation = memory_federation(WITNESS, LOSER, FOOL)
        federation = await self._federation.__aenter__()
        scene = Scene(federation, await federation.join(federation.peer_id(THIEF), PeerRole.MEMBER))
        await trio.sleep(1)
        await scene.make_a_final()
        return scene

    async def __aexit__(self, *error: object) -> None:
        await self._federation.__aexit__(*error)  # type: ignore[arg-type]


def lose_database(disk: Disk) -> None:
    disk.database = MemoryDatabase()


async def test_empty_journal_for_a_lost_one_would_fork_the_chain(autojump_clock: trio.abc.Clock) -> None:
    """The attack works: with a journal that pretends to be whole, there are two final blocks of one height."""
    async with Played() as scene:
        lose_database(scene.disk)
        scene.disk.entries = scene.empty
        await scene.start_the_loser()
        await trio.sleep(3)
        assert await scene.try_to_fork()


@pytest.mark.parametrize("and_database", [False, True], ids=["journal", "journal-and-database"])
async def test_lost_journal_forks_nothing(autojump_clock: trio.abc.Clock, and_database: bool) -> None:
    async with Played() as scene:
        if and_database:
            lose_database(scene.disk)
        scene.disk.entries = MemoryEntries()
        Journal.create(scene.disk.entries, scene.identity, forgotten=True)
        await scene.start_the_loser()
        await trio.sleep(3)
        assert not await scene.try_to_fork()
        loser = scene.federation.members[LOSER]
        assert scene.journal_state() == "renewing"
        assert loser.own_memory.waits_for == (WITNESS,)
        assert loser.journal.contents().votes == ()
        await scene.go_on(WITNESS, LOSER, FOOL)
        assert scene.journal_state() == "kept"
        assert loser.journal.newest_vote_view is not None
        assert loser.journal.newest_vote_view > VIEW + 2


async def test_lost_database_forks_nothing_while_the_journal_is_kept(autojump_clock: trio.abc.Clock) -> None:
    async with Played() as scene:
        lose_database(scene.disk)
        await scene.start_the_loser()
        await trio.sleep(3)
        assert not await scene.try_to_fork()
        votes = scene.federation.members[LOSER].journal.contents().votes
        assert all(vote.view > VIEW for vote in votes)
        await scene.go_on(WITNESS, LOSER, FOOL)


async def test_older_copy_of_a_journal_is_found_out_once_a_witness_answers(autojump_clock: trio.abc.Clock) -> None:
    async with Played() as scene:
        lose_database(scene.disk)
        scene.disk.entries = scene.empty
        federation = scene.federation
        federation.network.mend(federation.peer_id(WITNESS), federation.peer_id(LOSER))
        await scene.start_the_loser()
        await trio.sleep(3)
        assert isinstance(scene.end, JournalRefused)
        assert scene.end.reason is JournalReason.BEHIND
        assert not await scene.try_to_fork()
        with pytest.raises(JournalRefused):
            Journal.open(scene.empty, scene.identity)


async def test_older_copy_of_a_journal_is_found_out_by_a_witness_that_restarted(
    autojump_clock: trio.abc.Clock,
) -> None:
    """Its books are empty; the newest votes of others are in its journal since its own next vote, or in the chain."""
    async with Played() as scene:
        lose_database(scene.disk)
        scene.disk.entries = scene.empty
        federation = scene.federation
        await federation.stop(WITNESS)
        federation.disks[WITNESS].entries.lose_unsynced()
        await federation.start(WITNESS)
        federation.network.mend(federation.peer_id(WITNESS), federation.peer_id(LOSER))
        await scene.start_the_loser()
        await trio.sleep(5)
        assert isinstance(scene.end, JournalRefused)
        assert scene.end.reason is JournalReason.BEHIND


async def test_byzantine_answers_that_are_low_lower_no_floor(autojump_clock: trio.abc.Clock) -> None:
    """The thief answers at once that it knows of nothing; what one honest witness has certified decides."""
    async with Played() as scene:
        scene.disk.entries = MemoryEntries()
        Journal.create(scene.disk.entries, scene.identity, forgotten=True)
        federation = scene.federation
        for view in (2, 3, 4):
            certificate = federation.certificate(VoteKind.NULLIFY, view, signers=(0, 1, 3))
            federation.members[WITNESS].journal.record_certificate(certificate)
        federation.network.mend(federation.peer_id(WITNESS), federation.peer_id(LOSER))
        await scene.start_the_loser()
        await federation.until(lambda: federation.members[LOSER].own_memory.may_sign, seconds=5)
        assert federation.members[LOSER].journal.floor_view == 4 + 2
