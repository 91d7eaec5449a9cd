"""A signer whose journal was lost: it signs again when the chain itself shows how far it has come since."""

import pytest
import trio

from federation.certificate import NO_BLOCK, Vote, VoteKind
from federation.journal import Journal
from federation.journal_errors import JournalReason, JournalRefused
from federation.journal_header import JournalIdentity
from pegnode.service.unfinal import UnfinalBlock
from pegnode.signing.follower import RENEWAL_MS
from tests.support.members import MemoryFederation, memory_federation, now_ms
from tests.support.memory_disk import Disk
from tests.support.signer_rig import SignerRig

OWN = 3


def forgotten(federation: MemoryFederation) -> SignerRig:
    """What `peg journal renew` leaves of member 3's signer; its chain is gone as well."""
    disk = Disk()
    Journal.create(disk.entries, JournalIdentity(federation.rules.chain_id, 0, OWN), forgotten=True)
    return SignerRig(federation, OWN, disk)


def block_at(federation: MemoryFederation, rig: SignerRig, time_ms: int, view: int) -> UnfinalBlock:
    """The block that follows what the signer knows."""
    leader = federation.rules.membership.leader(view)
    return federation.next_block(rig.core.store, time_ms=time_ms, view=view, leader=leader)


async def test_signer_that_has_forgotten_signs_two_views_above_a_block_made_after_its_start(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with memory_federation() as federation:
        rig = forgotten(federation)
        started_ms = now_ms()
        functionary = await rig.functionary()
        assert await functionary.vote(VoteKind.NULLIFY, 1) == JournalReason.FORGOTTEN
        assert await functionary.show_block(block_at(federation, rig, started_ms + RENEWAL_MS - 1, 20)) == 1
        proof = federation.certificate(VoteKind.NULLIFY, 29)
        assert await functionary.vote(VoteKind.NULLIFY, 30, proof=proof) == JournalReason.FORGOTTEN
        await trio.sleep(RENEWAL_MS / 1_000)
        assert await functionary.show_block(block_at(federation, rig, started_ms + RENEWAL_MS, 30)) == 2
        await rig.restart()
        functionary = await rig.functionary()
        assert rig.journal.floor_view == 32
        assert await functionary.vote(VoteKind.NULLIFY, 31) == JournalReason.PASSED
        proof = federation.certificate(VoteKind.NULLIFY, 31)
        assert await functionary.vote(VoteKind.NULLIFY, 32, proof=proof) == JournalReason.PASSED
        proof = federation.certificate(VoteKind.NULLIFY, 32)
        vote = await functionary.vote(VoteKind.NULLIFY, 33, proof=proof)
        assert isinstance(vote, Vote)
        assert (vote.view, vote.block_hash) == (33, NO_BLOCK)


async def test_old_blocks_renew_no_signer_however_many_are_shown(autojump_clock: trio.abc.Clock) -> None:
    """A thief's functionary can show what is old, or nothing; it can't make a quorum sign a time."""
    async with memory_federation(0) as federation:
        member, rig = federation.members[0], forgotten(federation)
        federation.commit(member.store, federation.run_of_blocks(member.store, 5))
        functionary = await rig.functionary()
        await functionary.show_chain(member)
        assert rig.height == 5
        await trio.sleep(10 * RENEWAL_MS / 1_000)
        proof = federation.certificate(VoteKind.NULLIFY, 99)
        assert await functionary.vote(VoteKind.NULLIFY, 100, proof=proof) == JournalReason.FORGOTTEN


async def test_signer_that_finds_its_journal_older_never_opens_it_again(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation() as federation:
        rig = SignerRig(federation, OWN)
        block = block_at(federation, rig, now_ms(), 4)
        finalization = federation.certificate(VoteKind.FINALIZE, 4, block.block.hash, signers=(0, 1, OWN)).encode()
        with pytest.raises(JournalRefused) as caught:
            await rig.follower.take(block.data, (), finalization)
        assert caught.value.reason is JournalReason.BEHIND
        with pytest.raises(JournalRefused):
            Journal.open(rig.disk.entries, JournalIdentity(federation.rules.chain_id, 0, OWN))
