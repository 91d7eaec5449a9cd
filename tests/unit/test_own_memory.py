"""What a member asks about its own votes, what it believes, and what it answers."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from bridge.bitcoin.curve import schnorr_sign
from bridge.bitcoin.hashes import sha256
from bridge.bitcoin.identifiers import BlockHash
from federation.certificate import NO_BLOCK, Certificate, Vote, VoteKind, vote_digest
from federation.journal import Journal
from federation.journal_errors import JournalReason, JournalRefused
from federation.journal_header import JournalIdentity, JournalState
from pegnode.chain.state import GenesisState
from pegnode.net.messages import MAX_OWN_VOTES, Message, OwnVotesAnswer, OwnVotesRequest
from pegnode.net.transport import DropReason, PeerId
from pegnode.service.own_memory import GRACE_S, OwnMemory
from pegnode.service.peers import Peers
from pegnode.service.unfinal import UnfinalBlock
from pegnode.storage.store import ChainStore, FinalBlock
from tests.support.chain import MemoryChain, local_genesis, vote_secrets
from tests.support.lone_node import Wire, lone_core
from tests.support.memory_entries import MemoryEntries

OWN = 0
OTHERS = (1, 2, 3)
NONCE = sha256(b"drawn at this start")
BLOCK = BlockHash(sha256(b"a block"))


class Rig:
    """Member 0 of four with its journal, and what the others say to it."""

    def __init__(self, path: Path, *, members: int = 4, forgotten: bool = False, floor_view: int = 0) -> None:
        self.chain = MemoryChain()
        if members != 4:
            genesis = local_genesis(self.chain.header.anchor, members=members)
            self.chain.rules, self.chain.state = genesis.rules(), GenesisState(genesis.rules().genesis_header)
        self.store = ChainStore.open(path / "chain", self.chain.rules)
        rules = self.chain.rules
        self.entries = MemoryEntries()
        self.identity = JournalIdentity(rules.chain_id, 0, OWN)
        self.journal = Journal.create(self.entries, self.identity, floor_view, forgotten=forgotten)
        self.wire = Wire(rules.membership, OWN)
        self.core = lone_core(self.chain, self.store)
        self.begin_knowing()

    def begin_knowing(self, *certificates: Certificate) -> None:
        """The member's memory as at a start, with these certificates in its journal."""
        for certificate in certificates:
            self.journal.record_certificate(certificate)
        self.peers = Peers(self.wire, self.chain.rules.membership)
        self.memory = OwnMemory(self.core, self.peers, self.journal, OWN, lambda size: NONCE[:size])

    def vote(self, kind: VoteKind, view: int, member: int = OWN) -> Vote:
        block_hash = BLOCK if kind.names_block else NO_BLOCK
        digest = vote_digest(self.chain.rules.chain_id, 0, kind, view, block_hash)
        return Vote(kind, 0, view, block_hash, member, schnorr_sign(vote_secrets()[member], digest, bytes(32)))

    def certificate(self, view: int, signers: tuple[int, ...] = OTHERS) -> Certificate:
        votes = [self.vote(VoteKind.NULLIFY, view, member) for member in signers]
        return Certificate(
            VoteKind.NULLIFY, 0, view, NO_BLOCK, tuple((vote.member, vote.signature64) for vote in votes)
        )

    def peer(self, member: int) -> PeerId:
        return self.peers.peer_of(member)

    def answer(self, member: int, *votes: Vote, view: int = 0, vouches: bool = True, nonce: bytes = NONCE) -> None:
        """What a member answers: these votes, and a certificate of this view."""
        certificate = self.certificate(view).encode() if view else b""
        self.say(member, OwnVotesAnswer(nonce, tuple(vote.encode() for vote in votes), certificate, vouches))

    def say(self, member: int, message: Message) -> None:
        self.wire.deliver(self.peer(member), message)

    def answers(self) -> list[OwnVotesAnswer]:
        return [message for message in self.wire.sent if isinstance(message, OwnVotesAnswer)]


class Start:
    """A start of the member, under way."""

    def __init__(self, rig: Rig, nursery: trio.Nursery) -> None:
        self.over = trio.Event()
        self.refused: JournalRefused | None = None
        nursery.start_soon(rig.peers.run)
        nursery.start_soon(self._run, rig)

    async def _run(self, rig: Rig) -> None:
        try:
            await rig.memory.restored()
        except JournalRefused as refused:
            self.refused = refused
        self.over.set()


@asynccontextmanager
async def starting(rig: Rig) -> AsyncIterator[Start]:
    """A start that has asked everybody; it is cut short in the end, and the store closed."""
    async with trio.open_nursery() as nursery:
        start = Start(rig, nursery)
        await trio.sleep(0.1)
        yield start
        nursery.cancel_scope.cancel()
    rig.store.close()


async def test_kept_journal_is_used_once_enough_have_answered(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    rig = Rig(tmp_path)
    async with starting(rig) as start:
        assert [type(message) for message in rig.wire.sent] == [OwnVotesRequest] * 3
        assert (rig.memory.status().heard_from, rig.memory.waits_for) == (0, OTHERS)
        for member in (1, 2):
            rig.answer(member)
        await trio.sleep(0.1)
        assert (start.over.is_set(), rig.memory.may_sign) == (False, False)
        assert (rig.memory.status().heard_from, rig.memory.status().waits_for) == (2, (3,))
        rig.answer(3, vouches=False)
        await trio.sleep(0.1)
        assert (start.over.is_set(), start.refused, rig.memory.may_sign, rig.memory.waits_for) == (True, None, True, ())
        assert rig.memory.status().state == "kept"


async def test_kept_journal_waits_no_longer_than_the_chain_would(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    rig = Rig(tmp_path)
    async with starting(rig) as start:
        rig.answer(1)
        await trio.sleep(100)
        assert not start.over.is_set(), "with one other there is no quorum, and a vote leads to nothing"
        rig.answer(3)
        await trio.sleep(1)
        assert start.over.is_set()


async def test_kept_journal_hears_the_last_member_out_for_a_while(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    rig = Rig(tmp_path)
    async with starting(rig) as start:
        rig.answer(1)
        rig.answer(2)
        await trio.sleep(GRACE_S - 1)
        assert not start.over.is_set()
        await trio.sleep(2)
        assert start.over.is_set()


@pytest.mark.parametrize(("members", "needed"), [(3, 1), (4, 2), (5, 3), (6, 3)])
async def test_kept_journal_never_needs_more_answers_for_having_waited(
    tmp_path: Path, autojump_clock: trio.abc.Clock, members: int, needed: int
) -> None:
    """2f + 1 others, or a quorum less one if that is fewer: with 3 or 6 members it is not."""
    rig = Rig(tmp_path, members=members)
    async with starting(rig) as start:
        for member in range(1, needed):
            rig.answer(member)
        await trio.sleep(GRACE_S + 1)
        assert not start.over.is_set()
        rig.answer(needed)
        await trio.sleep(0.1)
        assert start.over.is_set()


async def test_vote_that_the_journal_lacks_ends_the_start(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    rig = Rig(tmp_path, floor_view=3)
    rig.journal.record_vote(rig.vote(VoteKind.NULLIFY, 4))
    async with starting(rig) as start:
        rig.answer(1, rig.vote(VoteKind.NULLIFY, 4), rig.vote(VoteKind.FINALIZE, 3))
        await trio.sleep(0.1)
        assert not start.over.is_set(), "one is in the journal, the other is not above its floor"
        rig.answer(2, rig.vote(VoteKind.NOTARIZE, 5))
        await trio.sleep(0.1)
        assert start.refused is not None
        assert start.refused.reason is JournalReason.BEHIND
        assert "NOTARIZE in view 5" in start.refused.detail
        assert "peg journal renew" in start.refused.detail
        assert "\n" not in start.refused.detail
        assert (rig.memory.may_sign, rig.memory.status().state) == (False, "behind")
    with pytest.raises(JournalRefused):
        Journal.open(rig.entries, rig.identity)


async def test_floor_rises_to_what_was_certified_while_this_member_was_away(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    rig = Rig(tmp_path)
    rig.begin_knowing(rig.certificate(5))
    async with starting(rig):
        for member, view in ((1, 5), (2, 9), (3, 7)):
            rig.answer(member, view=view)
        await trio.sleep(0.1)
        assert rig.journal.floor_view == 9
        newest = rig.journal.newest_certificate
        assert newest is not None
        assert newest.view == 9


async def test_floor_stays_for_a_member_that_was_not_away(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    rig = Rig(tmp_path)
    rig.begin_knowing(rig.certificate(5))
    async with starting(rig) as start:
        for member in OTHERS:
            rig.answer(member, view=5)
        await trio.sleep(0.1)
        assert (start.over.is_set(), rig.journal.floor_view) == (True, 0)


async def test_answers_that_are_not_enough_lead_to_no_more_questions(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    rig = Rig(tmp_path, forgotten=True)
    async with starting(rig):
        for _ in range(100):
            rig.answer(1, vouches=False)
            await trio.sleep(0.05)
        assert len(rig.wire.sent) <= 3 * 6, "in five seconds"


# A journal that has forgotten


async def test_forgotten_journal_signs_two_views_above_what_enough_others_vouch_for(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    rig = Rig(tmp_path, forgotten=True)
    async with starting(rig) as start:
        rig.answer(1, view=40, vouches=False)
        rig.answer(2, view=41)
        rig.answer(3)  # a lie: nothing was certified
        await trio.sleep(1_000)
        status = rig.memory.status()
        assert (start.over.is_set(), status.state, status.heard_from, status.needed) == (False, "renewing", 2, 3)
        assert status.waits_for == (1,)
        rig.answer(1, view=40)
        await trio.sleep(0.1)
        assert (start.over.is_set(), rig.journal.state, rig.journal.floor_view) == (True, JournalState.KEPT, 43)
    rig.entries.lose_unsynced()
    assert Journal.open(rig.entries, rig.identity).floor_view == 43


async def test_forgotten_journal_signs_above_its_own_votes_that_are_shown(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    rig = Rig(tmp_path, forgotten=True)
    async with starting(rig) as start:
        rig.answer(1, rig.vote(VoteKind.NULLIFY, 60), view=40)
        rig.answer(2)
        rig.answer(3)
        await trio.sleep(0.1)
        assert (start.refused, rig.journal.floor_view) == (None, 62)


async def test_forgotten_journal_signs_above_a_vote_of_its_own_that_a_proof_shows(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    rig = Rig(tmp_path, forgotten=True)
    rig.memory.found(rig.vote(VoteKind.NULLIFY, 60))
    rig.memory.found(rig.vote(VoteKind.NULLIFY, 70, member=1))
    async with starting(rig) as start:
        for member in OTHERS:
            rig.answer(member, view=40)
        await trio.sleep(0.1)
        assert (start.refused, rig.journal.floor_view) == (None, 62)


# False answers


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("nonce", DropReason.GARBLED_MESSAGE),
        ("another member's vote", DropReason.GARBLED_MESSAGE),
        ("no vote", DropReason.GARBLED_MESSAGE),
        ("forged vote", DropReason.FALSE_SIGNATURE),
        ("forged certificate", DropReason.FALSE_SIGNATURE),
        ("no certificate", DropReason.GARBLED_MESSAGE),
        ("not asked", DropReason.MISPLACED_MESSAGE),
    ],
)
async def test_false_answer_drops_its_sender_and_counts_nothing(
    tmp_path: Path, autojump_clock: trio.abc.Clock, fault: str, reason: DropReason
) -> None:
    rig = Rig(tmp_path)
    own = rig.vote(VoteKind.NULLIFY, 5)
    good = OwnVotesAnswer(NONCE, (), rig.certificate(5).encode(), vouches=True)
    false = {
        "nonce": replace_fields(good, nonce=bytes(32)),
        "another member's vote": replace_fields(good, votes=(rig.vote(VoteKind.NULLIFY, 5, 1).encode(),)),
        "no vote": replace_fields(good, votes=(b"no vote",)),
        "forged vote": replace_fields(good, votes=(replace(own, view=6).encode(),)),
        "forged certificate": replace_fields(good, certificate=replace(rig.certificate(5), view=6).encode()),
        "no certificate": replace_fields(good, certificate=b"no certificate"),
        "not asked": good,
    }[fault]
    async with starting(rig) as start:
        if fault == "not asked":
            rig.answer(1)
            await trio.sleep(0.01)
        rig.say(1, false)
        await trio.sleep(0.1)
        assert rig.wire.dropped == [(rig.peer(1), reason)]
        assert rig.memory.status().heard_from == (1 if fault == "not asked" else 0)
        assert (start.over.is_set(), rig.journal.state) == (False, JournalState.KEPT)


def replace_fields(answer: OwnVotesAnswer, **changes: object) -> OwnVotesAnswer:
    fields = {name: getattr(answer, name) for name in answer.__struct_fields__}
    return OwnVotesAnswer(**(fields | changes))


# Answering


async def test_answer_holds_the_newest_votes_of_the_asker_and_the_highest_certificate(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    rig = Rig(tmp_path)
    newest = [rig.vote(kind, 8, member=2) for kind in VoteKind]
    for vote in (*newest, rig.vote(VoteKind.NULLIFY, 7, member=2), rig.vote(VoteKind.NULLIFY, 9, member=3)):
        rig.memory.witness(vote)
    rig.journal.record_certificate(rig.certificate(8))
    async with starting(rig):
        rig.say(2, OwnVotesRequest(bytes(32)))
        await trio.sleep(0.1)
        [answer] = rig.answers()
        assert answer == OwnVotesAnswer(
            bytes(32), tuple(vote.encode() for vote in newest), rig.certificate(8).encode(), vouches=False
        ), "it does not vouch before it votes itself"
        assert len(answer.votes) == MAX_OWN_VOTES
        for member in OTHERS:
            rig.answer(member)
        await trio.sleep(0.1)
        rig.say(2, OwnVotesRequest(bytes(32)))
        await trio.sleep(0.1)
        assert rig.answers()[-1].vouches


async def test_member_does_not_vouch_below_its_floor(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """It was renewed, or lost its database: what it voted for may lie above all that it knows."""
    rig = Rig(tmp_path, forgotten=True)
    async with starting(rig):
        for member in OTHERS:
            rig.answer(member, view=5)
        await trio.sleep(0.1)
        assert (rig.journal.floor_view, rig.memory.may_sign) == (7, True)
        for view, vouches in ((6, False), (7, True)):
            rig.journal.record_certificate(rig.certificate(view))
            rig.say(2, OwnVotesRequest(bytes(32)))
            await trio.sleep(0.1)
            assert rig.answers()[-1].vouches is vouches


# While it runs


async def test_unknown_own_vote_ends_signing_for_good(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    rig = Rig(tmp_path)
    async with starting(rig) as start:
        for member in OTHERS:
            rig.answer(member)
        await trio.sleep(0.1)
        assert start.over.is_set()
        rig.journal.record_vote(rig.vote(VoteKind.NULLIFY, 4))
        rig.memory.found(rig.vote(VoteKind.NULLIFY, 4))
        rig.memory.found(rig.vote(VoteKind.NULLIFY, 5, member=1))
        assert rig.memory.may_sign
        rig.memory.found(rig.vote(VoteKind.FINALIZE, 4))
        assert (rig.memory.may_sign, rig.memory.status().state) == (False, "behind")
    with pytest.raises(JournalRefused) as caught:
        Journal.open(rig.entries, rig.identity)
    assert caught.value.reason is JournalReason.BEHIND


@pytest.mark.parametrize("signers", [(0, 1, 2), (1, 2, 3)])
def test_final_block_with_a_vote_that_the_journal_lacks_ends_signing(tmp_path: Path, signers: tuple[int, ...]) -> None:
    rig = Rig(tmp_path)
    built = rig.chain.build()
    header = built.block.header
    digest = vote_digest(rig.chain.rules.chain_id, 0, VoteKind.FINALIZE, header.view, header.hash)
    signatures = tuple((member, schnorr_sign(vote_secrets()[member], digest, bytes(32))) for member in signers)
    certificate = Certificate(VoteKind.FINALIZE, 0, header.view, header.hash, signatures)
    rig.store.commit([FinalBlock(built.state, built.block.encode(), certificate.encode())])
    unfinal = UnfinalBlock(built.block, built.block.encode(), built.state)
    rig.memory._check_final(unfinal)
    expected = "behind" if OWN in signers else "kept"
    assert rig.memory.status().state == expected
    rig.store.close()
