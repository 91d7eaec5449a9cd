"""The signer across a socket, as a functionary sees it.

Theory of operation. One connection at a time, made anew whenever it breaks. Questions are numbered, and a reader gives
each answer to whoever asked; a question whose connection broke is asked again on the next one, for all of them may be
asked twice. A vote waits for the signer for PATIENCE_S and then ends this process: a member that can't vote is none.
Beside all this the final chain is shown to the signer, block by block, each with its proof, from where it stands.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, TypeVar

import structlog
import trio

from bridge.bitcoin.identifiers import BlockHash, Txid
from bridge.errors import MalformedError
from bridge.records import Record
from federation.certificate import Certificate, Vote, VoteKind
from federation.cosign import CosignShare
from federation.membership import Member, Membership
from federation.record import SignedRecord
from federation.statement import SignedStatement, SolvencyStatement
from pegnode.chain.header import HEADER_SIZE
from pegnode.mempool.record_pool import RecordPool
from pegnode.net.messages import MAX_PROOF_HEADERS
from pegnode.service.core import NodeCore
from pegnode.signing import messages as say
from pegnode.signing.frames import FrameStream
from pegnode.signing.port import SignerAway
from pegnode.signing.refusals import LinkReason, LinkRefused, heard
from pegnode.storage.store import ChainStore

log = structlog.get_logger()

PATIENCE_S: Final = 30.0
"""For how long a question waits for a connection, and a vote for its answer. A signer starts in some seconds."""
COSIGN_S: Final = 60.0
AGAIN_S: Final = 0.25
WAITING_AGAIN_S: Final = 1.0
"""How soon a connection is tried again, and a block is shown again that waits for the signer's Bitcoin node."""
LASTING: Final = (LinkReason.WRONG_VERSION, LinkReason.WRONG_CHAIN, LinkReason.WRONG_MEMBER)
"""Refusals of a connection that no waiting changes."""

Dial = Callable[[], Awaitable[trio.abc.Stream]]
"""Makes a connection. Raises OSError."""
T = TypeVar("T")


class _Gone(Exception):  # noqa: N818 -- caught in this module alone
    """The connection broke before the answer came."""


class _Pending:
    """A question under way. answer: None when the connection broke."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.answer: say.Answer | None = None


class RemoteSigner:
    """A `SignerPort` to a signer at a socket. Made by `open`; `run` has to run for it to answer."""

    def __init__(self, place: str, dial: Dial, membership: Membership, index: int, chain_id: bytes) -> None:
        """For `open` only."""
        self._place = place
        self._dial = dial
        self._hello = say.OpenLink(say.LINK_VERSION, chain_id, index)
        self._member = membership.members[index]
        self._frames: FrameStream | None = None
        self._opened: say.LinkOpened | None = None
        self._connected = trio.Event()
        self._pending: dict[int, _Pending] = {}
        self._number = 0
        self._blocked: str | None = None
        self._trouble = ""
        self._news = trio.Event()

    @classmethod
    async def open(cls, place: str, dial: Dial, membership: Membership, index: int, chain_id: bytes) -> "RemoteSigner":
        """Connect, waiting for PATIENCE_S at most. place: of the signer, for people. Raises SignerAway, LinkRefused."""
        remote = cls(place, dial, membership, index, chain_id)
        with trio.move_on_after(PATIENCE_S):
            await remote._connect()
        if remote._frames is None:
            raise remote._away()
        return remote

    @property
    def index(self) -> int:
        """The member's index."""
        return self._member.index

    @property
    def member(self) -> Member:
        """The member, as the membership names it."""
        return self._member

    @property
    def transport_secret(self) -> bytes:
        """The transport's secret key, 32 bytes: it is in this process's memory, and nowhere on its disk."""
        if self._opened is None:
            raise self._away()
        return self._opened.transport_secret

    @property
    def waiting_for(self) -> str | None:
        """What is missing before it can sign, for people."""
        if self._frames is None:
            return f"the signer at {self._place}, which does not answer"
        return None if self._blocked is None else f"the signer at {self._place}: {self._blocked}"

    async def sign_vote(
        self, kind: VoteKind, epoch: int, view: int, block_hash: BlockHash, proof: Certificate | None = None
    ) -> Vote:
        """The member's vote, which is in the signer's journal. Raises SignerRefused, VoteRefused, SignerAway."""
        with trio.move_on_after(PATIENCE_S):
            encoded = b"" if proof is None else proof.encode()
            signed = await self._signed(lambda number: say.AskVote(number, kind, epoch, view, block_hash, encoded))
            vote = self._decoded(Vote.decode, signed)
            if (vote.kind, vote.epoch, vote.view, vote.block_hash) == (kind, epoch, view, block_hash):
                return vote
        raise self._away()

    async def cosign(self, txid: Txid) -> CosignShare:
        """The member's signatures. Raises SigningRefused, SignerRefused, L1Error, SignerAway."""
        with trio.move_on_after(COSIGN_S):
            return self._decoded(CosignShare.decode, await self._signed(lambda number: say.AskCosign(number, txid)))
        raise self._away()

    async def sign_statement(self, statement: SolvencyStatement | None) -> SignedStatement:
        """A signed statement, which takes a scan of L1. Raises StatementRefused, NodeUnavailable, SignerAway."""
        given = b"" if statement is None else statement.encode()
        return self._decoded(SignedStatement.decode, await self._signed(lambda number: say.AskStatement(number, given)))

    async def sign_record(self, records: Sequence[Record], index: int) -> SignedRecord:
        """One of the records of a plan, signed. Raises as `SignerPort.sign_record`."""
        encoded = tuple(record.encode() for record in records)
        return self._decoded(
            SignedRecord.decode, await self._signed(lambda number: say.AskRecord(number, encoded, index))
        )

    async def run(self, core: NodeCore) -> None:
        """Keep the connection, and show the signer the final chain of `core`, for ever. Raises LinkRefused (LASTING).

        Runs once, for a core tells its listeners for good.
        """
        core.on_final(lambda _: self._news.set())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._show, core)
            while True:
                if self._frames is not None:
                    await self._read(self._frames)
                    log.warning("the signer has gone", signer=self._place)
                self._disconnected()
                await trio.sleep(AGAIN_S)
                await self._connect()

    def _away(self) -> SignerAway:
        trouble = f" ({self._trouble})" if self._trouble else ""
        what = f"the signer at {self._place} did not answer for {PATIENCE_S:.0f} s{trouble}"
        return SignerAway(f"{what}; start it with peg signer run, and then this member again")

    def _decoded(self, decode: Callable[[bytes], T], signed: bytes) -> T:
        try:
            return decode(signed)
        except MalformedError as error:
            raise SignerAway(f"what answers at {self._place} is no signer: {error}") from error

    async def _connect(self) -> None:
        """Connect and open the link, trying again until it is done. Raises LinkRefused (LASTING)."""
        while self._frames is None:
            try:
                frames = FrameStream(await self._dial())
            except OSError as error:
                self._trouble = error.strerror or str(error)
                await trio.sleep(AGAIN_S)
                continue
            try:
                self._opened = await self._open_link(frames)
                self._frames, self._trouble = frames, ""
            except (LinkRefused, MalformedError) as refused:
                self._trouble = str(refused)
                log.info("no connection to the signer", detail=self._trouble)
                if isinstance(refused, LinkRefused) and refused.reason in LASTING:
                    raise
            finally:
                if self._frames is None:
                    await frames.aclose()
            if self._frames is None:
                await trio.sleep(AGAIN_S)
        self._connected.set()

    async def _open_link(self, frames: FrameStream) -> say.LinkOpened:
        await frames.send(say.encode(self._hello))
        payload = await frames.receive()
        if payload is None:
            raise MalformedError("it went without a word")
        answer = say.decode_answer(payload)
        if isinstance(answer, say.AskRefused):
            error = heard(answer.reason, answer.detail)
            raise error if isinstance(error, LinkRefused) else MalformedError(str(error))
        if not isinstance(answer, say.LinkOpened):
            raise MalformedError("the first message does not open the link")
        if self._opened is not None and answer.transport_secret != self._opened.transport_secret:
            raise LinkRefused(LinkReason.WRONG_MEMBER, "another transport key than before: restart this member")
        return answer

    def _disconnected(self) -> None:
        """Whoever waits for an answer asks again."""
        self._frames, self._connected = None, trio.Event()
        pending, self._pending = self._pending, {}
        for question in pending.values():
            question.done.set()

    async def _read(self, frames: FrameStream) -> None:
        """Give out answers until the connection breaks."""
        try:
            while (payload := await frames.receive()) is not None:
                answer = say.decode_answer(payload)
                if isinstance(answer, say.LinkOpened) or answer.number not in self._pending:
                    if isinstance(answer, say.AskRefused):
                        log.warning("the signer ends the connection", reason=answer.reason, detail=answer.detail)
                    continue
                question = self._pending.pop(answer.number)
                question.answer = answer
                question.done.set()
        except (LinkRefused, MalformedError) as fault:
            log.warning("the connection to the signer breaks", detail=str(fault))
        finally:
            with trio.CancelScope(shield=True):
                await frames.aclose()

    async def _signed(self, question: Callable[[int], say.Question]) -> bytes:
        """What the signer signed. Raises what its laws refuse with, and SignerAway when it has no time for this."""
        try:
            answer = await self._ask(question)
        except LinkRefused as refused:
            raise SignerAway(f"the signer at {self._place} does not look into it: {refused}") from refused
        if isinstance(answer, say.Signed):
            return answer.signed
        raise SignerAway(f"what answers at {self._place} is no signer")

    async def _ask(self, question: Callable[[int], say.Question]) -> say.Answer:
        """The answer, on this connection or the next. Raises what the signer refuses with, and SignerAway."""
        while True:
            with trio.move_on_after(PATIENCE_S):
                await self._connected.wait()
            if self._frames is None:
                raise self._away()
            with suppress(_Gone):
                return await self._exchange(self._frames, question)

    async def _exchange(self, frames: FrameStream, question: Callable[[int], say.Question]) -> say.Answer:
        """The answer on this connection. Raises _Gone, and what the signer refuses with."""
        self._number = number = self._number % (2**32 - 1) + 1
        self._pending[number] = pending = _Pending()
        try:
            await frames.send(say.encode(question(number)))
            await pending.done.wait()
        except LinkRefused as broken:
            raise _Gone from broken
        finally:
            self._pending.pop(number, None)
        if pending.answer is None:
            raise _Gone
        if isinstance(pending.answer, say.AskRefused):
            raise heard(pending.answer.reason, pending.answer.detail)
        return pending.answer

    async def _show(self, core: NodeCore) -> None:
        """Show the signer what is final, connection after connection."""
        while True:
            await self._connected.wait()
            frames, opened = self._frames, self._opened
            if frames is None or opened is None:
                continue
            with suppress(_Gone):
                await self._show_on(frames, core, opened.height + 1)
            self._blocked = None
            await frames.aclose()
            await trio.sleep(AGAIN_S)

    async def _show_records(self, frames: FrameStream, records: RecordPool) -> None:
        """Show what a quorum said of branches that L1 left: a block may be judged by it alone. Raises _Gone."""
        for signed in list(records.leading(1)):
            try:
                await self._exchange(frames, partial(say.ShowRecord, record=signed.encode()))
            except LinkRefused as refused:
                log.warning("the signer takes no record", reason=refused.reason, detail=refused.detail)

    async def _show_on(self, frames: FrameStream, core: NodeCore, height: int) -> None:
        """Show the blocks from a height on, until the signer loses the thread. Raises _Gone."""
        while True:
            self._news = trio.Event()
            shown = proven_block(core.store, height)
            if shown is None:
                await self._news.wait()
                continue
            block, headers, certificate = shown
            try:
                await self._exchange(
                    frames, partial(say.ShowBlock, block=block, headers=headers, certificate=certificate)
                )
            except LinkRefused as refused:
                if refused.reason is LinkReason.BLOCK_NOT_NEXT:
                    return
                await self._show_records(frames, core.records)
                if self._blocked != refused.detail:
                    self._blocked = refused.detail
                    log.warning("the signer takes no block", reason=refused.reason, detail=refused.detail)
                await trio.sleep(WAITING_AGAIN_S)
                continue
            except SignerAway as unknown:
                raise _Gone from unknown
            self._blocked = None
            height += 1


def proven_block(store: ChainStore, height: int) -> tuple[bytes, tuple[bytes, ...], bytes] | None:
    """The block at a height, the headers from its child up to one with a finalization, and that; None while none is."""
    certified = store.certified_height_from(height)
    if certified is None or certified - height > MAX_PROOF_HEADERS:
        return None
    block, certificate = store.block_at(height), store.certificate_at(certified)
    between = (store.block_at(other) for other in range(height + 1, certified + 1))
    headers = tuple(data[:HEADER_SIZE] for data in between if data is not None)
    return None if block is None or certificate is None else (block, headers, certificate)
