"""A functionary's side of the socket: it asks again on the next connection, waits for so long, and shows the chain."""

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from bridge.bitcoin.identifiers import Txid
from bridge.l1.errors import L1Reason, L1RpcError, L1Unavailable
from federation.certificate import NO_BLOCK, VoteKind
from federation.errors import Refused
from federation.journal_errors import JournalReason, JournalRefused
from federation.refusal import RefusalReason, SigningRefused
from federation.signer import SignerReason, SignerRefused
from federation.statement import StatementReason, StatementRefused
from federation.statement_law import StatementLaw
from pegnode.errors import ReasonedError
from pegnode.rpc.node_api import NodeUnavailable, UnavailableReason
from pegnode.signing import messages as say
from pegnode.signing.frames import FrameStream
from pegnode.signing.port import SignerAway, VoteRefused
from pegnode.signing.refusals import LinkReason, LinkRefused, Telling, heard, told
from pegnode.signing.remote import PATIENCE_S, RemoteSigner
from pegnode.signing.server import MAX_OPEN_QUESTIONS
from tests.support.members import Member, MemoryFederation, memory_federation
from tests.support.records import resume
from tests.support.reorgs import double_spend, reorganise
from tests.support.signer_rig import SignerRig, unfinished_payout
from tests.unit.test_resumption_circle import ALL, PEG, all_halted, height_of, planned, resumed, withdrawn
from tests.unit.test_resumption_circle import signed as decided


class Line:
    """The way to a signer, which a test cuts and mends."""

    def __init__(self, rig: SignerRig) -> None:
        self.rig = rig
        self.is_cut = False
        self.open: list[trio.abc.Stream] = []

    async def dial(self) -> trio.abc.Stream:
        if self.is_cut:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "nobody is there")
        stream = await self.rig.dial()
        self.open.append(stream)
        return stream

    async def cut(self) -> None:
        """Every connection breaks, and there is no other."""
        self.is_cut = True
        for stream in self.open:
            await trio.aclose_forcefully(stream)


class Stage:
    """Member 0 with a final chain, and a signer of member 3's that it shows it to."""

    def __init__(self, federation: MemoryFederation, line: Line, remote: RemoteSigner) -> None:
        self.federation, self.line, self.remote = federation, line, remote
        self.rig = line.rig

    @property
    def member(self) -> Member:
        return self.federation.members[0]


async def opened(line: Line) -> RemoteSigner:
    rules = line.rig.federation.rules
    return await RemoteSigner.open("the test's", line.dial, rules.membership, line.rig.index, rules.chain_id)


@asynccontextmanager
async def stage() -> AsyncIterator[Stage]:
    async with memory_federation(0, peg={"batch_min_payouts": 1}) as federation:
        line = Line(SignerRig(federation))
        remote = await opened(line)
        federation.nursery.start_soon(remote.run, federation.members[0].core)
        yield Stage(federation, line, remote)


async def test_signer_is_shown_the_chain_as_it_grows(autojump_clock: trio.abc.Clock) -> None:
    async with stage() as made:
        block, txid = unfinished_payout(made.federation, made.member)
        await made.federation.until(lambda: made.rig.height == made.member.height)
        made.member.core.unfinal.add(block)
        made.member.core.finalize(block.block.hash, made.federation.finalization(block))
        share = await made.remote.cosign(txid)  # asked for before the signer has seen the block
        assert (share.txid, share.member) == (txid, made.remote.index)
        assert made.remote.waiting_for is None


async def test_signer_is_shown_blocks_that_a_descendant_proves(autojump_clock: trio.abc.Clock) -> None:
    async with stage() as made:
        made.federation.commit(made.member.store, made.federation.run_of_blocks(made.member.store, 7))
        made.federation.commit_block(made.member)
        await made.federation.until(lambda: made.rig.height == made.member.height == 8)


async def test_chain_is_shown_on_from_where_the_signer_stands_after_either_restarts(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with stage() as made:
        for _ in range(3):
            made.federation.commit_block(made.member)
        await made.federation.until(lambda: made.rig.height == 3)
        await made.line.cut()
        await made.rig.restart()
        made.federation.commit_block(made.member)
        made.line.is_cut = False
        await made.federation.until(lambda: made.rig.height == 4)


async def test_vote_is_asked_for_again_on_the_next_connection(autojump_clock: trio.abc.Clock) -> None:
    async with stage() as made:
        await made.line.cut()
        await trio.sleep(0.1)
        assert "does not answer" in (made.remote.waiting_for or "")

        async def mend() -> None:
            await trio.sleep(PATIENCE_S - 5)
            made.line.is_cut = False

        made.federation.nursery.start_soon(mend)
        vote = await made.remote.sign_vote(VoteKind.NULLIFY, 0, 1, NO_BLOCK)
        assert (vote.member, vote.view) == (made.remote.index, 1)
        assert made.remote.waiting_for is None


async def test_vote_without_an_answer_ends_after_a_while(autojump_clock: trio.abc.Clock) -> None:
    async with stage() as made:
        await made.line.cut()
        started_s = trio.current_time()
        with pytest.raises(SignerAway, match="peg signer run"):
            await made.remote.sign_vote(VoteKind.NULLIFY, 0, 1, NO_BLOCK)
        assert trio.current_time() - started_s == pytest.approx(PATIENCE_S, abs=1)
        with pytest.raises(SignerAway):
            await made.remote.sign_statement(None)


async def test_signer_that_is_not_there_is_waited_for_at_the_start(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation() as federation:
        line = Line(SignerRig(federation))
        line.is_cut = True
        with pytest.raises(SignerAway, match=r"30 s \(nobody is there\); start it with peg signer run"):
            await opened(line)


async def test_member_that_runs_twice_is_told_so(autojump_clock: trio.abc.Clock) -> None:
    async with stage() as made:
        with pytest.raises(SignerAway, match=LinkReason.OCCUPIED.value):
            await opened(made.line)


@pytest.mark.parametrize("reason", [LinkReason.WRONG_MEMBER, LinkReason.WRONG_CHAIN])
async def test_signer_of_another_member_or_chain_is_not_waited_for(
    reason: LinkReason, autojump_clock: trio.abc.Clock
) -> None:
    async with memory_federation() as federation:
        rig = SignerRig(federation)
        rules = federation.rules
        index, chain_id = (0, rules.chain_id) if reason is LinkReason.WRONG_MEMBER else (rig.index, bytes(32))
        started_s = trio.current_time()
        with pytest.raises(LinkRefused) as caught:
            await RemoteSigner.open("the test's", rig.dial, rules.membership, index, chain_id)
        assert caught.value.reason is reason
        assert trio.current_time() - started_s < 1


async def test_second_word_is_refused_as_by_a_journal_here(autojump_clock: trio.abc.Clock) -> None:
    async with stage() as made:
        block_hash = made.member.store.tip.hash
        notarized = made.federation.certificate(VoteKind.NOTARIZE, 1, block_hash)
        await made.remote.sign_vote(VoteKind.FINALIZE, 0, 1, block_hash, notarized)
        with pytest.raises(VoteRefused) as caught:
            await made.remote.sign_vote(VoteKind.NULLIFY, 0, 1, NO_BLOCK)
        assert caught.value.reason is JournalReason.CONFLICT


async def test_vote_without_its_proof_is_refused_and_ends_nothing(autojump_clock: trio.abc.Clock) -> None:
    async with stage() as made:
        with pytest.raises(VoteRefused) as caught:
            await made.remote.sign_vote(VoteKind.NULLIFY, 0, 9, NO_BLOCK)
        assert caught.value.reason is LinkReason.VOTE_UNPROVEN


async def test_signer_that_halted_for_good_is_told_by_its_functionary(autojump_clock: trio.abc.Clock) -> None:
    async with stage() as made:
        made.federation.commit_block(made.member)
        await made.federation.until(lambda: made.rig.height == 1)
        nullified = made.federation.certificate(VoteKind.NULLIFY, made.member.store.tip.header.view)
        for _ in range(2):
            with pytest.raises(VoteRefused) as caught:
                await made.remote.sign_vote(VoteKind.NULLIFY, 0, 3, NO_BLOCK, nullified)
            assert caught.value.reason is JournalReason.CONTRADICTED
        made.federation.commit_block(made.member)
        await trio.sleep(2)
        assert "can't both be" in (made.remote.waiting_for or "")


async def test_signer_that_is_busy_is_as_good_as_away(autojump_clock: trio.abc.Clock) -> None:
    async with stage() as made:
        made.rig.server._open_questions = MAX_OPEN_QUESTIONS
        with pytest.raises(SignerAway, match=LinkReason.BUSY.value):
            await made.remote.cosign(Txid(bytes(32)))
        with pytest.raises(SignerAway, match=LinkReason.BUSY.value):
            await made.remote.sign_record([resume(made.federation.rules).record], 0)
        made.rig.server._open_questions = 0
        with pytest.raises(SigningRefused):
            await made.remote.cosign(Txid(bytes(32)))


async def test_what_keeps_the_signer_from_a_block_is_told(autojump_clock: trio.abc.Clock) -> None:
    async with stage() as made:
        made.rig.node.outage = True
        unfinished_payout(made.federation, made.member)
        await made.federation.until(lambda: made.remote.waiting_for is not None)
        assert "height 1" in (made.remote.waiting_for or "")
        made.rig.node.outage = False
        await made.federation.until(lambda: made.remote.waiting_for is None)
        assert made.rig.height == made.member.height


async def test_signer_follows_the_chain_through_a_deep_reorganisation(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL, peg=PEG) as running:
        deposit = await withdrawn(running)
        running.l1.mempool.clear()
        reorganise(running, running.l1.chain.height - height_of(running, deposit) + 1, double_spend(deposit), longer=12)
        await all_halted(running)
        await resumed(running, await planned(running.members[1]))
        member = running.members[0]
        # Its Bitcoin node never had the blocks that L1 abandoned: only the records say what they were.
        line = Line(SignerRig(running, floor_view=10_000))
        running.nursery.start_soon((await opened(line)).run, member.core)
        await running.until(lambda: line.rig.height == member.height)
        assert line.rig.core.store.ledger.totals == member.store.ledger.totals
        assert not line.rig.core.halted


async def test_signer_follows_by_a_record_that_no_block_holds_yet(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL, peg=PEG) as running:
        deposit = await withdrawn(running)
        running.l1.mempool.clear()
        reorganise(running, running.l1.chain.height - height_of(running, deposit) + 1, double_spend(deposit), longer=12)
        await all_halted(running)
        member = running.members[0]
        line = Line(SignerRig(running, floor_view=10_000))
        remote = await opened(line)
        running.nursery.start_soon(remote.run, member.core)
        await running.until(lambda: remote.waiting_for is not None)
        halted_at = member.height
        *_, last = await decided(await planned(running.members[1]), *[running.members[index] for index in (0, 1, 3)])
        assert last.record.rebase is not None
        member.core.records.add(last, member.store, running.rules)
        await running.until(lambda: line.rig.height >= halted_at)
        assert member.store.ledger.totals.record_serial == 0, "nothing else waits for it to be carried out"


@pytest.mark.parametrize("answer", [b"\xc1", say.encode(say.Taken(1, 1)), say.encode(say.Signed(1, b"no vote"))])
async def test_answer_that_is_none_makes_the_signer_one_that_is_away(
    answer: bytes, autojump_clock: trio.abc.Clock
) -> None:
    async with memory_federation(0) as federation:

        async def dial() -> trio.abc.Stream:
            ours, theirs = trio.testing.memory_stream_pair()
            federation.nursery.start_soon(liar, FrameStream(theirs))
            return ours

        async def liar(frames: FrameStream) -> None:
            await frames.receive()
            await frames.send(say.encode(say.LinkOpened(bytes(32), 0)))
            await frames.receive()
            await frames.send(answer)
            await frames.receive()
            await frames.aclose()

        rules = federation.rules
        remote = await RemoteSigner.open("the test's", dial, rules.membership, 3, rules.chain_id)
        federation.nursery.start_soon(remote.run, federation.members[0].core)
        with pytest.raises(SignerAway):
            await remote.sign_vote(VoteKind.NULLIFY, 0, 1, NO_BLOCK)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (SigningRefused(RefusalReason.HALTED, "why"), SigningRefused),
        (SigningRefused(LinkReason.STALE, "why"), SigningRefused),
        (SignerRefused(SignerReason.WRONG_EPOCH, "why"), SignerRefused),
        (StatementRefused(StatementLaw.FINDINGS, "why"), StatementRefused),
        (StatementRefused(StatementReason.STALE, "why"), StatementRefused),
        (JournalRefused(JournalReason.PASSED, "why"), VoteRefused),
        (NodeUnavailable(UnavailableReason.SCAN_BUSY, "why"), NodeUnavailable),
        (L1Unavailable(L1Reason.TIMEOUT, "why"), L1Unavailable),
        (LinkRefused(LinkReason.BUSY, "why"), LinkRefused),
    ],
)
def test_refusal_crosses_the_socket_as_what_it_was(error: Telling, kind: type[Exception]) -> None:
    crossed = heard(*told(error))
    assert type(crossed) is kind
    assert isinstance(crossed, Refused | ReasonedError | L1Unavailable)
    assert isinstance(error, Refused | ReasonedError | L1Unavailable)
    assert (crossed.reason, crossed.detail) == (error.reason, "why")


def test_refusal_for_an_unknown_reason_is_as_good_as_none() -> None:
    assert isinstance(heard("of-a-later-release", ""), SignerAway)
    crossed = heard(*told(L1RpcError("gettxout", -8, "why")))
    assert isinstance(crossed, L1Unavailable)
    assert crossed.reason is L1Reason.FAILING
