"""A signer behind its socket: it answers one functionary, which it believes nothing.

Theory of operation. Votes are answered one by one, in order, each on disk before the answer leaves. What needs a look
at L1, and the blocks that are shown, are worked on beside: a few questions at a time, one block at a time. Every
question is answered, with what was asked for or with the reason of a refusal. What is no question ends the connection,
and only that. What says that these keys are no longer safe to use ends the process.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, assert_never

import structlog
import trio

from bridge.bitcoin.identifiers import HASH_SIZE, BlockHash, Txid, hash_to_hex
from bridge.errors import MalformedError
from bridge.l1.errors import L1Error
from bridge.records import Record
from federation.certificate import VoteKind
from federation.errors import Refused
from federation.journal import Journal
from federation.journal_errors import JournalReason, JournalRefused
from federation.record import SignedRecord
from federation.refusal import SigningRefused
from federation.statement import SolvencyStatement
from pegnode.errors import Refusal
from pegnode.rpc.node_api import NodeUnavailable
from pegnode.signing import messages as say
from pegnode.signing.follower import Follower
from pegnode.signing.frames import FrameStream
from pegnode.signing.local import LocalSigner
from pegnode.signing.refusals import LinkReason, LinkRefused, Telling, told
from pegnode.signing.sockets import bind_private

if TYPE_CHECKING:
    from trio_typing import TaskStatus

log = structlog.get_logger()

OPEN_S: Final = 10.0
"""How long a connection may take to say who it is."""
MAX_OPEN_QUESTIONS: Final = 8
"""Of those that need a look at L1; each takes seconds at most, but for a statement."""
MAX_CONNECTIONS: Final = 8
"""One is served; the others are told so, and these are few."""
_STANDS_AGAINST: Final = (
    JournalReason.FORGOTTEN,
    JournalReason.NOT_OWN,
    JournalReason.PASSED,
    JournalReason.CONTRADICTED,
    JournalReason.CONFLICT,
)
"""What the journal refuses a vote for. With any other reason it is not to be written any more: a full disk, for one."""

SlowQuestion = say.AskCosign | say.AskStatement | say.AskRecord | say.ShowBlock


class SignerServer:
    """Answers the functionary at one socket."""

    def __init__(
        self, signer: LocalSigner, transport_secret: bytes, journal: Journal, follower: Follower, chain_id: bytes
    ) -> None:
        self._signer = signer
        self._transport_secret = transport_secret
        self._journal = journal
        self._follower = follower
        self._chain_id = chain_id
        self._is_occupied = False
        self._connections = trio.CapacityLimiter(MAX_CONNECTIONS)
        self._open_questions = 0
        self._is_following = False

    async def run(self, path: Path, *, task_status: "TaskStatus[None]" = trio.TASK_STATUS_IGNORED) -> None:
        """Listen at `path` and answer, for ever. Raises SocketRefused, JournalRefused, StorageError."""
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(bind_private(path)))
        try:
            async with listener, trio.open_nursery() as nursery:
                task_status.started()
                log.info("listening", socket=str(path))
                while True:
                    stream = await listener.accept()
                    nursery.start_soon(self._serve, stream)
        finally:
            with suppress(FileNotFoundError):  # somebody took the folder away
                os.unlink(path)

    async def _serve(self, stream: trio.abc.Stream) -> None:
        """One connection, from its first word to its end."""
        frames = FrameStream(stream)
        try:
            self._connections.acquire_nowait()
        except trio.WouldBlock:
            await frames.aclose()
            return
        try:
            await self._opened(frames)
            await self._converse(frames)
        except (LinkRefused, MalformedError) as fault:
            await self._part(frames, fault)
        finally:
            self._connections.release()
            with trio.CancelScope(shield=True):
                await frames.aclose()

    async def _part(self, frames: FrameStream, fault: LinkRefused | MalformedError) -> None:
        """Tell why a connection ends, to whom it may still reach."""
        refused = fault if isinstance(fault, LinkRefused) else LinkRefused(LinkReason.GARBLED, str(fault))
        log.warning("connection ended", reason=refused.reason, detail=refused.detail)
        if refused.reason is not LinkReason.SLOW:
            try:
                await frames.send(_refusal(0, refused))
            except LinkRefused:
                log.debug("it had gone before it heard")

    async def _opened(self, frames: FrameStream) -> None:
        """Hear who it is. Raises LinkRefused, MalformedError."""
        with trio.move_on_after(OPEN_S) as limit:
            payload = await frames.receive()
        if limit.cancelled_caught or payload is None:
            raise LinkRefused(LinkReason.SLOW, "it did not say who it is")
        hello = say.decode_question(payload)
        if not isinstance(hello, say.OpenLink):
            raise MalformedError("the first message does not say who it is")
        if hello.version != say.LINK_VERSION:
            detail = f"version {hello.version}, and this signer speaks {say.LINK_VERSION}: run the same release"
            raise LinkRefused(LinkReason.WRONG_VERSION, detail)
        if hello.chain_id != self._chain_id:
            raise LinkRefused(LinkReason.WRONG_CHAIN, f"{hello.chain_id.hex()}, and this signer is of another")
        if hello.member != self._signer.index:
            detail = f"member {hello.member}, and these keys are {self._signer.member.name}'s"
            raise LinkRefused(LinkReason.WRONG_MEMBER, detail)
        if self._is_occupied:
            raise LinkRefused(LinkReason.OCCUPIED, "another functionary is connected: a member runs once")

    async def _converse(self, frames: FrameStream) -> None:
        """Answer until the other side goes. Raises LinkRefused, MalformedError."""
        self._is_occupied = True
        fault: LinkRefused | MalformedError | None = None
        try:
            log.info("functionary connected")
            await frames.send(say.encode(say.LinkOpened(self._transport_secret, self._follower.height)))
            async with trio.open_nursery() as nursery:
                try:
                    while (payload := await frames.receive()) is not None:
                        await self._answer(say.decode_question(payload), frames, nursery)
                except (LinkRefused, MalformedError) as caught:
                    fault = caught
                nursery.cancel_scope.cancel()
        finally:
            self._is_occupied = False
        if fault is not None:
            raise fault
        log.info("functionary gone")

    async def _answer(self, question: say.Question, frames: FrameStream, nursery: trio.Nursery) -> None:
        match question:
            case say.AskVote():
                await frames.send(await self._vote(question))
            case say.ShowBlock():
                if self._is_following:
                    busy = LinkRefused(LinkReason.BUSY, "one block at a time")
                    await frames.send(_refusal(question.number, busy))
                    return
                self._is_following = True
                nursery.start_soon(self._answer_beside, question, frames)
            case say.ShowRecord():
                await frames.send(self._record_shown(question))
            case say.AskCosign() | say.AskStatement() | say.AskRecord():
                if self._open_questions >= MAX_OPEN_QUESTIONS:
                    busy = LinkRefused(LinkReason.BUSY, f"{MAX_OPEN_QUESTIONS} questions are open")
                    await frames.send(_refusal(question.number, busy))
                    return
                self._open_questions += 1
                nursery.start_soon(self._answer_beside, question, frames)
            case say.OpenLink():
                raise MalformedError("it said already who it is")
            case _:
                assert_never(question)

    async def _answer_beside(self, question: SlowQuestion, frames: FrameStream) -> None:
        """Answer what takes longer. Whoever does not take the answer is no longer there."""
        try:
            answer = await self._slow(question)
        finally:
            if isinstance(question, say.ShowBlock):
                self._is_following = False
            else:
                self._open_questions -= 1
        try:
            await frames.send(answer)
        except LinkRefused as slow:
            log.info("answer not taken", detail=slow.detail)

    async def _vote(self, question: say.AskVote) -> bytes:
        """A vote that is on disk, or a refusal. Raises MalformedError, and JournalRefused for a journal that fails."""
        try:
            kind = VoteKind(question.kind)
        except ValueError as error:
            raise MalformedError(f"{question.kind} is no kind of vote") from error
        if len(question.block_hash) != (0 if kind is VoteKind.NULLIFY else HASH_SIZE):
            raise MalformedError(f"a vote to {kind.name} on {len(question.block_hash)} bytes")
        try:
            block_hash = BlockHash(question.block_hash)
            self._follower.require_reached(kind, question.view, block_hash, question.proof)
            vote = await self._signer.sign_vote(kind, question.epoch, question.view, block_hash)
            self._journal.record_promise(vote)
        except Refused as refused:
            if isinstance(refused, JournalRefused) and refused.reason not in _STANDS_AGAINST:
                raise  # a member that can't vote is none: its process says so by its end
            if isinstance(refused, LinkRefused) and refused.reason is LinkReason.CONTRADICTED:
                refused = JournalRefused(JournalReason.CONTRADICTED, refused.detail)
            log.warning("vote refused", view=question.view, kind=kind.name, detail=str(refused))
            return _refusal(question.number, refused)
        return say.encode(say.Signed(question.number, vote.encode()))

    async def _slow(self, question: SlowQuestion) -> bytes:
        """The answer to a question that takes longer. Raises JournalRefused, StorageError: the end of this process."""
        try:
            self._follower.require_no_contradiction()
            match question:
                case say.ShowBlock():
                    await self._follower.take(question.block, question.headers, question.certificate)
                    return say.encode(say.Taken(question.number, self._follower.height))
                case say.AskCosign():
                    return say.encode(say.Signed(question.number, await self._cosigned(question)))
                case say.AskStatement():
                    given = SolvencyStatement.decode(question.statement) if question.statement else None
                    signed = await self._signer.sign_statement(given)
                    return say.encode(say.Signed(question.number, signed.encode()))
                case say.AskRecord():
                    records = tuple(Record.decode(data) for data in question.records)
                    if question.index >= len(records):
                        raise MalformedError(f"record {question.index} of {len(records)}")
                    record = await self._signer.sign_record(records, question.index)
                    return say.encode(say.Signed(question.number, record.encode()))
                case _:
                    assert_never(question)
        except MalformedError as error:
            return _refusal(question.number, LinkRefused(LinkReason.GARBLED, str(error)))
        except (LinkRefused, SigningRefused, NodeUnavailable, Refusal, L1Error) as refused:
            return _refusal(question.number, refused)
        except Refused as refused:
            if isinstance(question, say.ShowBlock):
                raise  # the journal's: these keys may be in use elsewhere
            return _refusal(question.number, refused)

    def _record_shown(self, question: say.ShowRecord) -> bytes:
        """Keep a record, unless it is no news. Raises MalformedError."""
        try:
            self._follower.take_record(SignedRecord.decode(question.record))
        except LinkRefused as refused:
            return _refusal(question.number, refused)
        return say.encode(say.Taken(question.number, self._follower.height))

    async def _cosigned(self, question: say.AskCosign) -> bytes:
        """The encoded share. Raises as `LocalSigner.cosign`, and SigningRefused (STALE)."""
        if not self._follower.is_current:
            raise SigningRefused(LinkReason.STALE, self._follower.newest)
        txid = Txid(question.txid)
        await self._follower.reached(txid)
        share = await self._signer.cosign(txid)
        log.info("payout signed", txid=hash_to_hex(txid), inputs=len(share.signatures))
        return share.encode()


def _refusal(number: int, error: Telling) -> bytes:
    reason, detail = told(error)
    return say.encode(say.AskRefused(number, reason, detail[: say.MAX_DETAIL]))
