"""Members beside one that the test plays, which may do what it likes: what they vote for, keep, and put up with."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import combinations

import pytest
import trio

from bridge.bitcoin.identifiers import BlockHash
from federation.certificate import NO_BLOCK, Certificate, Vote, VoteKind, verify_certificate
from pegnode.chain.block import MAX_BODY_BYTES, Block
from pegnode.chain.header import HEADER_SIZE
from pegnode.consensus import actions as act
from pegnode.net.messages import (
    BlockAnswer,
    BlockRequest,
    CertificatesMessage,
    L1Report,
    Message,
    ProposalMessage,
    SharesMessage,
    VotesMessage,
    encode_message,
)
from pegnode.net.session import LinkLimits
from pegnode.net.transport import DropReason, PeerId, PeerRole
from pegnode.service import signature_checks
from pegnode.service.unfinal import UnfinalBlock
from tests.support.members import MemoryFederation, Stranger, memory_federation, now_ms
from tests.support.mini_wallet import MiniWallet

HONEST = (0, 2, 3)
ALL = (0, 1, 2, 3)
FAULTY = 1
"""Leads view 1, and every fourth after it."""
ALICE = MiniWallet("alice")
BOB = MiniWallet("bob")


class Faulty:
    """Member 1, and what it says as one."""

    def __init__(self, federation: MemoryFederation, stranger: Stranger) -> None:
        self.federation = federation
        self.stranger = stranger

    def propose(self, unfinal: UnfinalBlock, *members: int) -> None:
        """Send a proposal, with one's own vote, to these members."""
        header = unfinal.block.header
        vote = self.federation.vote(FAULTY, VoteKind.NOTARIZE, header.view, header.hash)
        self.say(ProposalMessage(unfinal.data, vote.encode(), ()), *members)

    def say(self, message: Message, *members: int) -> None:
        """Send a message to these members."""
        for member in members:
            self.stranger.say(self.federation.peer_id(member), message)

    def heard_votes(self) -> list[Vote]:
        """Every vote that came."""
        return [Vote.decode(data) for message in self.stranger.told(VotesMessage) for data in message.votes]

    def left(self) -> list[DropReason]:
        """Why one was dropped."""
        return [left.reason for left in self.stranger.left]


@asynccontextmanager
async def three_and_a_faulty_one(*honest: int) -> AsyncIterator[tuple[MemoryFederation, Faulty]]:
    async with memory_federation(*(honest or HONEST)) as federation:
        stranger = await federation.join(federation.peer_id(FAULTY), PeerRole.MEMBER)
        await trio.sleep(0.5)
        yield federation, Faulty(federation, stranger)


async def test_block_withheld_from_one_member_reaches_it(autojump_clock: trio.abc.Clock) -> None:
    async with three_and_a_faulty_one() as (federation, faulty):
        block = federation.next_block(federation.members[0].store)
        faulty.propose(block, 0, 2)
        await federation.all_at(1, seconds=2)
        assert federation.members[3].store.block_at(1) == block.data
        assert faulty.stranger.told(BlockRequest), "the third asked for it"


async def test_invalid_block_gets_no_vote_and_the_next_leader_goes_on(autojump_clock: trio.abc.Clock) -> None:
    async with three_and_a_faulty_one() as (federation, faulty):
        store = federation.members[0].store
        for block in (federation.next_block(store, ledger_root=bytes(32)), federation.next_block(store, time_ms=1)):
            faulty.propose(block, *HONEST)
            await trio.sleep(1)
            assert all(vote.kind is not VoteKind.NOTARIZE for vote in faulty.heard_votes())
        await federation.all_at(1, seconds=30)
        assert store.header_at(1) is not None
        final = federation.members[0].store.header_at(1)
        assert final is not None
        assert final.leader == 2
        assert faulty.left() == []


async def test_two_proposals_of_one_view_split_nobody(autojump_clock: trio.abc.Clock) -> None:
    async with three_and_a_faulty_one() as (federation, faulty):
        store = federation.members[0].store
        first = federation.next_block(store)
        second = federation.next_block(store, time_ms=first.block.header.time_ms + 1)
        faulty.propose(first, 0)
        faulty.propose(second, 2)
        faulty.propose(second, 3)
        await federation.all_at(3, seconds=60)


async def test_bad_messages_drop_their_sender_and_disturb_nobody(autojump_clock: trio.abc.Clock) -> None:
    async with three_and_a_faulty_one() as (federation, faulty):
        block = federation.next_block(federation.members[0].store)
        header = block.block.header
        vote = federation.vote(FAULTY, VoteKind.NOTARIZE, 1, header.hash)
        other_vote = federation.vote(FAULTY, VoteKind.NOTARIZE, 1, BlockHash(b"\x01" * 32))
        forged_vote = replace(federation.vote(2, VoteKind.FINALIZE, 1, header.hash), member=0)
        too_few = federation.certificate(VoteKind.NULLIFY, 1, signers=(0, 1))
        forged = replace(federation.certificate(VoteKind.NULLIFY, 1), view=2)
        cases: list[tuple[Message, DropReason]] = [
            (VotesMessage((forged_vote.encode(),)), DropReason.FALSE_SIGNATURE),
            (VotesMessage((b"no vote",)), DropReason.GARBLED_MESSAGE),
            (CertificatesMessage((too_few.encode(),)), DropReason.FALSE_SIGNATURE),
            (CertificatesMessage((forged.encode(),)), DropReason.FALSE_SIGNATURE),
            (CertificatesMessage((b"no certificate",)), DropReason.GARBLED_MESSAGE),
            (ProposalMessage(block.data, other_vote.encode(), ()), DropReason.GARBLED_MESSAGE),
            (ProposalMessage(block.data[:-1], vote.encode(), ()), DropReason.GARBLED_MESSAGE),
            (ProposalMessage(block.data, vote.encode(), (forged.encode(),)), DropReason.FALSE_SIGNATURE),
            (ProposalMessage(block.data, forged_vote.encode(), ()), DropReason.GARBLED_MESSAGE),
            (BlockAnswer(bytes(32), block.data), DropReason.MISPLACED_MESSAGE),
            (SharesMessage((b"no share",)), DropReason.GARBLED_MESSAGE),
        ]
        for message, reason in cases:
            faulty.stranger.left.clear()
            faulty.say(message, 0)
            await trio.sleep(0.1)
            assert faulty.left() == [reason], message
            await trio.sleep(0.4)
        assert federation.members[0].height == 0
        faulty.propose(block, *HONEST)
        await federation.all_at(1, seconds=2)


async def test_guest_takes_no_part_in_consensus(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL) as federation:
        guest = await federation.join(PeerId("a guest"))
        vote = federation.vote(0, VoteKind.NULLIFY, 1)
        certificate = federation.certificate(VoteKind.NULLIFY, 1)
        for message in (
            VotesMessage((vote.encode(),)),
            CertificatesMessage((certificate.encode(),)),
            BlockRequest(bytes(32)),
            L1Report(5, bytes(32)),
            SharesMessage((b"x",)),
        ):
            await trio.sleep(0.5)
            guest.left.clear()
            guest.say(federation.peer_id(0), message)
            await trio.sleep(0.1)
            assert [left.reason for left in guest.left] == [DropReason.MISPLACED_MESSAGE], message
        assert federation.members[0].machine.view == 1


async def test_proposal_that_comes_again_is_not_decoded_again(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[bytes] = []
    decode_whole = Block.decode_whole

    def counting(data: bytes) -> Block:
        decoded.append(data)
        return decode_whole(data)

    async with three_and_a_faulty_one(0) as (federation, faulty):
        block = federation.next_block(federation.members[0].store)
        monkeypatch.setattr(Block, "decode_whole", counting)
        for _ in range(20):
            faulty.propose(block, 0)
            await trio.sleep(0.01)
        assert decoded == [block.data]
        assert faulty.left() == []


async def test_queue_of_events_stays_short_whatever_comes(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with three_and_a_faulty_one(0) as (federation, faulty):
        driver = federation.members[0].driver
        assert driver is not None
        queued: list[int] = []
        handle = driver._handle

        async def noting(*arguments: object) -> None:
            queued.append(len(driver._queue))
            await handle(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(driver, "_handle", noting)
        federation.network.set_delay(federation.peer_id(FAULTY), federation.peer_id(0), (0.002, 0.002))
        for part in range(10):
            views = range(1 + 50 * part, 51 + 50 * part)
            votes = [federation.vote(FAULTY, VoteKind.NULLIFY, view).encode() for view in views]
            faulty.say(VotesMessage(tuple(votes)), 0)
        await trio.sleep(0.5)
        assert len(queued) >= 500
        assert max(queued) <= 2 * 50, "that of one message more than is being handled"
        assert queued[-1] == 0


async def test_block_built_too_late_is_forgotten(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0) as federation:
        member = federation.members[0]
        assert member.driver is not None
        await member.driver._build(act.Build(8, member.store.tip.hash, include_l1=False))
        assert len(member.core.unfinal) == 1
        await trio.sleep(0.1)
        assert len(member.core.unfinal) == len(member.driver._bodies) == 0


async def test_flood_of_genuine_votes_is_cut_off(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signature_checks, "CHECKS_BURST", 400)
    async with three_and_a_faulty_one() as (federation, faulty):
        votes = tuple(federation.vote(FAULTY, VoteKind.NULLIFY, view).encode() for view in range(1, 301))
        member = federation.members[0]
        assert member.driver is not None
        faulty.say(VotesMessage(votes), 0)
        await trio.sleep(0.05)
        assert faulty.left() == []
        faulty.say(VotesMessage(votes), 0)
        await trio.sleep(0.05)
        assert faulty.left() == [DropReason.FLOOD]
        await federation.all_at(1, seconds=30)


async def test_flood_of_certificates_that_are_known_is_cut_off(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No signature in them is checked, but each is read: enough of them would keep a member from all else."""
    monkeypatch.setattr(signature_checks, "CHECKS_BURST", 400)
    async with three_and_a_faulty_one() as (federation, faulty):
        known = federation.certificate(VoteKind.NULLIFY, 1, NO_BLOCK, (0, 1, 2)).encode()
        faulty.say(CertificatesMessage((known,) * 300), 0)
        await trio.sleep(0.05)
        assert faulty.left() == []
        faulty.say(CertificatesMessage((known,) * 300), 0)
        await trio.sleep(0.05)
        assert faulty.left() == [DropReason.FLOOD]
        await federation.all_at(1, seconds=30)


@pytest.mark.parametrize("count", [0, 2, 255])
async def test_certificate_that_is_known_is_refused_with_too_few_or_too_many_signatures(
    autojump_clock: trio.abc.Clock, count: int
) -> None:
    """None is checked in what is known, but each is compared with what is remembered."""
    async with three_and_a_faulty_one() as (federation, faulty):
        known = federation.certificate(VoteKind.NULLIFY, 1, NO_BLOCK, (0, 1, 2))
        other = replace(known, signatures=(known.signatures * 85)[:count])
        faulty.say(CertificatesMessage((known.encode(), other.encode())), 0)
        await trio.sleep(0.05)
        assert faulty.left() == [DropReason.FALSE_SIGNATURE]
        await federation.all_at(1, seconds=30)


async def test_certificates_of_one_statement_are_checked_once(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[Certificate] = []

    def counting(certificate: Certificate, *rest: object) -> None:
        checked.append(certificate)
        verify_certificate(certificate, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(signature_checks, "verify_certificate", counting)
    async with three_and_a_faulty_one() as (federation, faulty):
        combined = [
            federation.certificate(VoteKind.NULLIFY, 1, NO_BLOCK, signers).encode() for signers in combinations(ALL, 3)
        ]
        faulty.say(CertificatesMessage(tuple(combined * 10)), 0)
        await trio.sleep(0.01)
        assert federation.members[0].machine.view == 2
        assert len([item for item in checked if item.view == 1]) <= 3, "one check at each member that it reached"


async def test_views_without_end_leave_no_block_in_memory_but_those_voted_for(
    autojump_clock: trio.abc.Clock,
) -> None:
    """Two members and a third that only ever nullifies: no block gets its quorum, view after view."""
    async with three_and_a_faulty_one(0, 2) as (federation, faulty):
        member = federation.members[0]
        member.core.now_ms = lambda: now_ms() - 3_600_000  # to whom every other's block is of the future

        async def nullify() -> None:
            answered: set[int] = set()
            while True:
                for vote in faulty.heard_votes():
                    if vote.kind is VoteKind.NULLIFY and vote.view not in answered:
                        answered.add(vote.view)
                        own = federation.vote(FAULTY, VoteKind.NULLIFY, vote.view)
                        faulty.say(VotesMessage((own.encode(),)), 0, 2)
                faulty.stranger.heard.clear()
                await trio.sleep(1)

        federation.nursery.start_soon(nullify)
        await federation.until(lambda: member.machine.view > 30, seconds=1_000)
        assert member.height == 0
        assert member.driver is not None
        assert sum(unfinal.block.header.leader == 2 for unfinal in member.core.unfinal) <= 2
        assert sum(block.header.leader == 2 for block, _ in member.driver._bodies.values()) <= 2
        member.core.now_ms = now_ms
        await federation.start(3)
        await federation.all_at(2, seconds=60)
        assert len(member.core.unfinal) <= 1


async def test_proposal_with_a_long_justification_fits_its_messages(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0) as federation:
        member = federation.members[0]
        driver = member.driver
        assert driver is not None
        block_hash = BlockHash(b"\x05" * 32)
        driver._bodies[block_hash] = (None, bytes(HEADER_SIZE + MAX_BODY_BYTES))  # type: ignore[assignment]
        driver._own_notarize[5_000] = federation.vote(0, VoteKind.NOTARIZE, 5_000, block_hash)
        signatures = tuple((index, bytes(64)) for index in range(171))
        certificates = tuple(Certificate(VoteKind.NULLIFY, 0, view, NO_BLOCK, signatures) for view in range(1, 300))
        sent: list[Message] = []

        def note(member: int, message: Message) -> bool:
            sent.append(message)
            return True

        member.peers.send_to_member = note  # type: ignore[method-assign]
        driver._send_proposal(act.SendProposal(5_000, block_hash, certificates, (1,)))
        assert all(len(encode_message(message)) <= LinkLimits().max_payload_bytes for message in sent)
        *ahead, proposal = sent
        assert isinstance(proposal, ProposalMessage)
        assert all(isinstance(message, CertificatesMessage) for message in ahead)
        parts = [item for message in ahead if isinstance(message, CertificatesMessage) for item in message.certificates]
        assert [*parts, *proposal.justification] == [item.encode() for item in certificates]

        sent.clear()
        driver._send_proposal(act.SendProposal(5_000, block_hash, (), (1, 2)))
        assert len(sent) == 2
        sent.clear()
        driver._send_proposal(act.SendProposal(5_001, block_hash, (), (1,)))
        assert sent == [], "a vote that the journal lacks is not sent"


async def test_absurd_report_of_one_member_does_not_stop_deposits(autojump_clock: trio.abc.Clock) -> None:
    async with three_and_a_faulty_one() as (federation, faulty):
        faulty.say(L1Report(2**32 - 1, bytes(32)), *HONEST)
        await federation.fund(ALICE)


async def test_certificate_is_heard_whatever_it_came_with(autojump_clock: trio.abc.Clock) -> None:
    """It is told of once only, so nothing that is refused may take it along."""
    async with three_and_a_faulty_one(0) as (federation, faulty):
        machine = federation.members[0].machine
        genuine = [federation.certificate(VoteKind.NULLIFY, view).encode() for view in (1, 2, 3)]
        forged = replace(federation.certificate(VoteKind.NULLIFY, 9), view=8).encode()

        faulty.say(CertificatesMessage((genuine[0], b"no certificate")), 0)
        await trio.sleep(0.5)
        faulty.say(CertificatesMessage((genuine[0], forged)), 0)
        await trio.sleep(0.5)
        assert machine.view == 1
        faulty.say(CertificatesMessage((genuine[0],)), 0)
        await trio.sleep(0.1)
        assert machine.view == 2

        block = federation.next_block(federation.members[0].store)
        misled = federation.vote(FAULTY, VoteKind.NOTARIZE, 7, block.block.hash)  # another view than the block's
        faulty.say(ProposalMessage(block.data, misled.encode(), (genuine[1],)), 0)
        await trio.sleep(0.1)
        assert machine.view == 3
        assert [left.reason for left in faulty.stranger.left] == [
            DropReason.GARBLED_MESSAGE,
            DropReason.FALSE_SIGNATURE,
            DropReason.MISPLACED_MESSAGE,
        ]
