"""The consensus driver between real parts and a wire that only notes what is sent: bodies, and whose they are."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from bridge.bitcoin.identifiers import BlockHash
from federation.certificate import Certificate, Vote, VoteKind
from federation.journal_errors import JournalReason
from pegnode.chain.block import Block
from pegnode.consensus.events import Verdict
from pegnode.net.messages import BlockAnswer, CertificatesMessage, VotesMessage
from pegnode.net.transport import DropReason
from pegnode.service import consensus_driver
from pegnode.service.consensus_driver import MAKE_ROOM_S
from pegnode.service.event_queue import MAX_QUEUED
from pegnode.service.judge import Judge
from pegnode.service.own_memory import OwnMemory
from pegnode.signing.local import LocalSigner
from pegnode.signing.port import SignerAway, VoteRefused
from pegnode.storage.store import FinalBlock
from tests.support.driver_rig import OWN, DriverRig, driver_rig
from tests.support.records import built_record_block, resume


@pytest.fixture
def member(tmp_path: Path) -> Iterator[DriverRig]:
    with driver_rig(tmp_path) as ready:
        yield ready


async def test_valid_proposal_is_voted_for(member: DriverRig, autojump_clock: trio.abc.Clock) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(member.peers.run)
        nursery.start_soon(member.driver.run)
        block = member.proposal(view=1)
        member.deliver(block)
        await trio.sleep(0.1)
        assert [(vote.kind, vote.block_hash) for vote in member.own_votes()][:1] == [(VoteKind.NOTARIZE, block.hash)]
        nursery.cancel_scope.cancel()


async def test_proposal_refused_once_is_voted_for_when_it_comes_again_in_time(
    member: DriverRig, autojump_clock: trio.abc.Clock
) -> None:
    # Both wait in the queue at once: what forgets the first one's body must not take the second one's with it.
    block = member.proposal(view=6)
    member.deliver(block)
    member.deliver(block, *(member.nullification(view) for view in range(1, 6)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(member.peers.run)
        await trio.sleep(0.1)
        nursery.start_soon(member.driver.run)
        await trio.sleep(0.1)
        assert (VoteKind.NOTARIZE, block.hash) in [(vote.kind, vote.block_hash) for vote in member.own_votes()]
        nursery.cancel_scope.cancel()


async def test_body_that_is_not_the_headers_condemns_its_sender_and_not_the_header(
    member: DriverRig, autojump_clock: trio.abc.Clock
) -> None:
    block = member.proposal(view=1)
    forged = Block(block.header, replace(block.body, refunds=(b"another body" * 5,)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(member.peers.run)
        nursery.start_soon(member.driver.run)
        sender = member.deliver(forged)
        await trio.sleep(0.1)
        assert member.wire.dropped == [(sender, DropReason.GARBLED_MESSAGE)]
        assert member.own_votes() == []
        member.deliver(block)
        await trio.sleep(0.1)
        assert (VoteKind.NOTARIZE, block.hash) in [(vote.kind, vote.block_hash) for vote in member.own_votes()]
        nursery.cancel_scope.cancel()


class Stubborn(LocalSigner):
    """A signer whose own memory stands against every vote to notarize, or that is away."""

    error: Exception = VoteRefused(JournalReason.CONFLICT, "another NOTARIZE in view 1")

    async def sign_vote(
        self, kind: VoteKind, epoch: int, view: int, block_hash: BlockHash, proof: Certificate | None = None
    ) -> Vote:
        if kind is VoteKind.NOTARIZE:
            raise self.error
        return await super().sign_vote(kind, epoch, view, block_hash, proof)


async def test_vote_that_the_signer_refuses_leaves_this_member_silent_in_that_place_alone(
    member: DriverRig, autojump_clock: trio.abc.Clock
) -> None:
    member.driver._signer = Stubborn(member.signer, member.core, member.auditor, member.resumption)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(member.peers.run)
        nursery.start_soon(member.driver.run)
        member.deliver(member.proposal(view=1))
        await trio.sleep(60)
        assert {(vote.kind, vote.view) for vote in member.own_votes()} == {(VoteKind.NULLIFY, 1)}
        nursery.cancel_scope.cancel()


class Slow(LocalSigner):
    """A signer that takes its time over every vote."""

    async def sign_vote(
        self, kind: VoteKind, epoch: int, view: int, block_hash: BlockHash, proof: Certificate | None = None
    ) -> Vote:
        await trio.sleep(10)
        return await super().sign_vote(kind, epoch, view, block_hash, proof)


async def test_flood_while_the_signer_is_awaited_loses_no_certificate(
    member: DriverRig, autojump_clock: trio.abc.Clock
) -> None:
    # Each is taken as news once, and nobody says any more what it settled: lost, the member would stay in its view.
    member.driver._signer = Slow(member.signer, member.core, member.auditor, member.resumption)
    flooder, honest = member.peers.peer_of(3), member.peers.peer_of(2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(member.peers.run)
        nursery.start_soon(member.driver.run)
        member.deliver(member.proposal(view=1))
        await trio.sleep(1)
        again = member.vote(3, VoteKind.NULLIFY, 1, BlockHash(b"")).encode()
        for _ in range(MAX_QUEUED // 64 + 1):
            member.wire.deliver(flooder, VotesMessage((again,) * 64))
        await trio.sleep(1)
        assert len(member.driver._queue) == MAX_QUEUED
        member.wire.deliver(honest, CertificatesMessage((member.nullification(1).encode(),)))
        await trio.sleep(30)
        assert member.driver.watch.view == 2
        nursery.cancel_scope.cancel()


async def test_certificates_of_final_views_do_not_pile_up_while_this_member_waits_for_others(
    member: DriverRig, autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A renewed journal may wait for days, while the chain goes on."""
    monkeypatch.setattr(consensus_driver, "MAX_WAITING", 4)
    memory = OwnMemory(member.core, member.peers, member.journal, OWN, bytes)
    member.driver._own_memory = memory  # which nobody answers
    async with trio.open_nursery() as nursery:
        nursery.start_soon(member.peers.run)
        nursery.start_soon(member.driver.run)
        for view in range(1, 17):
            member.wire.deliver(member.peers.peer_of(1), CertificatesMessage((member.nullification(view).encode(),)))
            if view % 4 == 0:
                built = member.chain.extend(slot=member.chain.slot(include_l1=False, view=view))
                member.core.store.commit([FinalBlock(built.state, built.block.encode(), b"by catching up")])
                await trio.sleep(2 * MAKE_ROOM_S)
                assert [certificate.view for certificate in member.journal.contents().certificates] == []
        nursery.cancel_scope.cancel()


async def test_member_without_its_signer_ends(member: DriverRig, autojump_clock: trio.abc.Clock) -> None:
    signer = Stubborn(member.signer, member.core, member.auditor, member.resumption)
    signer.error = SignerAway("the test says so")
    member.driver._signer = signer
    with pytest.RaisesGroup(SignerAway, flatten_subgroups=True):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(member.peers.run)
            nursery.start_soon(member.driver.run)
            member.deliver(member.proposal(view=1))
    assert member.own_votes() == []


async def test_nothing_becomes_final_once_certificates_contradict_each_other(
    member: DriverRig, autojump_clock: trio.abc.Clock
) -> None:
    """Neither by the machine, nor by catching up, nor after a restart: the journal keeps them."""
    block = member.proposal(1)
    notarization = member.certificate(VoteKind.NOTARIZE, 1, block.hash)
    finalization = member.certificate(VoteKind.FINALIZE, 1, block.hash)
    async with member.running():
        member.deliver(block)
        await trio.sleep(0.1)
        member.tell(notarization)
        member.tell(member.certificate(VoteKind.NOTARIZE, 1, BlockHash(b"\x07" * 32)))
        await trio.sleep(0.1)
        assert member.core.contradiction is not None
        member.tell(finalization)
        await trio.sleep(0.1)
        assert member.core.unfinal.reaches_tip(block.hash)
        member.core.finalize(block.hash, finalization.encode())
        assert member.core.store.tip.header.height == 0
    votes = len(member.journal.contents().votes)
    restarted = DriverRig(member.chain, member.core.store, member.journal)
    assert restarted.core.contradiction == member.core.contradiction
    async with restarted.running():
        restarted.deliver(block)
        await trio.sleep(0.1)
        restarted.tell(finalization)
        await trio.sleep(60)
        assert restarted.driver._machine.stopped
        assert restarted.core.store.tip.header.height == 0
        assert len(restarted.journal.contents().votes) == votes


class Reluctant(Judge):
    """It finds one block as valid as others, and is not prudent to vote for it."""

    withheld_hash: BlockHash | None = None

    async def judge(self, block: Block, data: bytes) -> Verdict:
        verdict = await super().judge(block, data)
        return Verdict.WITHHELD if block.header.hash == self.withheld_hash else verdict


@pytest.mark.parametrize("newest_first", [False, True])
async def test_block_that_was_forgotten_and_comes_again_is_judged_again(
    member: DriverRig, autojump_clock: trio.abc.Clock, newest_first: bool
) -> None:
    """It comes back while the judging of its first time still sleeps."""
    judge = Reluctant(member.core)
    member.driver._judge = judge
    withheld = member.proposal(1)
    judge.withheld_hash = withheld.hash
    notarization = member.certificate(VoteKind.NOTARIZE, 1, withheld.hash)
    nullifications = [member.nullification(view) for view in range(2, 9)]
    async with member.running():
        member.deliver(withheld)
        await trio.sleep(1)
        if newest_first:
            member.tell(nullifications.pop())  # of a view so late that the block of view 1 is forgotten
            await trio.sleep(0.01)
            assert not member.driver._machine.keeps(withheld.hash)
        member.tell(notarization, *nullifications)
        await trio.sleep(0.01)
        member.wire.deliver(member.peers.peer_of(1), BlockAnswer(withheld.hash, withheld.encode()))
        await trio.sleep(60)
        member.chain.extend(slot=member.chain.slot(include_l1=False, view=1))
        following = member.proposal(9)
        member.deliver(following, member.certificate(VoteKind.FINALIZE, 9, following.hash))
        await trio.sleep(10)
        assert member.core.store.tip.hash == following.hash


def test_block_with_a_record_counts_as_one_that_depends_on_l1(member: DriverRig) -> None:
    """So that leaders leave records out for a while when one finds no quorum, and transfers go on."""
    plain = member.proposal(view=1)
    decided = built_record_block(member.chain, resume(member.chain.rules)).block
    assert decided.header.anchor == plain.header.anchor
    assert [member.driver._info(block).carries_l1 for block in (plain, decided)] == [False, True]
