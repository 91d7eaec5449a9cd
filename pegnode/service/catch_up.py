"""Fetching final blocks from peers: how a node that was away, or has no keys, follows the chain.

Theory of operation. One request is out at a time, for what follows the newest block that is known to be final. An
answer holds consecutive blocks. Those up to one with a finalization of its own are checked against that certificate,
then applied by all rules, then committed. Those at the end whose finalization is a descendant's come with the headers
up to that descendant, are applied on the word of its certificate, and are committed when the descendant is.

Who answers what proves false is dropped. Who brings nothing new is asked last from then on, and not waited for when
another one could be asked.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import structlog
import trio

from bridge.bitcoin.identifiers import BlockHash
from bridge.errors import MalformedError
from bridge.l1.errors import L1Error
from federation.certificate import Certificate, VoteKind, VoteRejected, verify_certificate
from pegnode.chain.block import Block
from pegnode.chain.header import Header
from pegnode.chain.verdicts import BlockRejected, L1Contradicted, L1Waiting
from pegnode.net.messages import (
    MAX_BLOCKS_PER_ANSWER,
    MAX_PROOF_HEADERS,
    FinalBlock,
    FinalBlocksAnswer,
    FinalBlocksRequest,
    TipMessage,
)
from pegnode.net.transport import DropReason, PeerId
from pegnode.service.core import NodeCore
from pegnode.service.peers import Peers
from pegnode.service.unfinal import UnfinalBlock
from pegnode.service.validation import validate

log = structlog.get_logger()

Body = tuple[Block, bytes]
"""A block with its encoding."""

ANSWER_TIMEOUT_S: Final = 10.0
L1_RETRY_S: Final = 1.0
MEMBER_GRACE_S: Final = 1.0
"""How long a member waits before it asks: what consensus is about to decide comes without asking."""
MAX_ANSWER_BYTES: Final = 2_000_000
"""Blocks are added to an answer as long as it stays below this; a single one may be larger."""


class CatchUp:
    """Asks for what is missing, and answers what others miss."""

    def __init__(self, core: NodeCore, peers: Peers) -> None:
        self._core = core
        self._peers = peers
        self._is_member = peers.member_of(peers.transport.peer_id) is not None
        self._tips: dict[PeerId, int] = {}
        self._failures: dict[PeerId, int] = {}
        self._asked: PeerId | None = None
        self._waiting = trio.CancelScope()
        self._proven: BlockHash | None = None
        self._answers_out, self._answers = trio.open_memory_channel[tuple[PeerId, FinalBlocksAnswer]](4)
        self._wanted = trio.Event()
        peers.on_message(TipMessage, self._receive_tip, from_guests=True)
        peers.on_message(FinalBlocksRequest, self._answer, from_guests=True)
        peers.on_message(FinalBlocksAnswer, self._receive_answer, from_guests=True, is_free=True)
        peers.on_connected(self._tell_tip)
        peers.on_disconnected(self._forget)
        core.on_final(self._announce)

    @property
    def best_known_height(self) -> int:
        """The highest final height that a connected member, or this node, has."""
        return max([*self._member_heights(), self._core.store.tip.header.height])

    @property
    def is_current(self) -> bool:
        """Whether a quorum of members tells of tips, and this node has what one honest member of them must have.

        Until then L1 can't be judged by its ledger: a coin that is gone may be one that a later block pays out.
        """
        own = self._core.store.tip.header.height
        membership = self._core.rules.membership
        heights = self._member_heights()
        if self._is_member:
            heights.append(own)
        heights.sort(reverse=True)
        return len(heights) >= membership.quorum and own >= heights[membership.fault_tolerance]

    def height_of(self, peer: PeerId) -> int | None:
        """The final height that a peer has told of."""
        return self._tips.get(peer)

    def _member_heights(self) -> list[int]:
        return [height for peer, height in self._tips.items() if self._peers.member_of(peer) is not None]

    def _tell_tip(self, peer: PeerId) -> None:
        self._peers.send(peer, self._own_tip())

    def _announce(self, unfinal: UnfinalBlock) -> None:
        if unfinal.block.header == self._core.store.tip.header:
            self._peers.to_all(self._own_tip())

    def _own_tip(self) -> TipMessage:
        tip = self._core.store.tip
        return TipMessage(tip.header.height, tip.hash)

    def _forget(self, peer: PeerId) -> None:
        self._tips.pop(peer, None)
        if self._peers.member_of(peer) is None:
            self._failures.pop(peer, None)

    def _receive_tip(self, peer: PeerId, message: TipMessage) -> None:
        self._tips[peer] = message.height
        if message.height > self._core.store.tip.header.height:
            self._wanted.set()
        asked, best = self._asked, self._best_peer()
        if asked is not None and best is not None and self._failures.get(best, 0) < self._failures.get(asked, 0):
            self._waiting.cancel()

    # What others miss

    def _answer(self, peer: PeerId, message: FinalBlocksRequest) -> None:
        """Serve consecutive blocks and their proof, all of which fits one message."""
        store = self._core.store
        blocks: list[FinalBlock] = []
        size, height = 0, message.first_height
        while height > 0 and len(blocks) < MAX_BLOCKS_PER_ANSWER:
            block = store.block_at(height)
            if block is None or (blocks and size + len(block) > MAX_ANSWER_BYTES):
                break
            blocks.append(FinalBlock(block, store.certificate_at(height) or b""))
            size += len(block)
            height += 1
        headers, certificate = self._proof(height) if blocks and not blocks[-1].certificate else ((), b"")
        self._peers.send(peer, FinalBlocksAnswer(message.first_height, tuple(blocks), headers, certificate))

    def _proof(self, height: int) -> tuple[tuple[bytes, ...], bytes]:
        """The headers from `height` up to one with a finalization, and that; nothing when they are too many."""
        store = self._core.store
        certified = store.certified_height_from(height)
        if certified is None or certified - height >= MAX_PROOF_HEADERS:
            return (), b""
        headers = [store.header_at(between) for between in range(height, certified + 1)]
        return tuple(header.encode() for header in headers if header), store.certificate_at(certified) or b""

    # What is missing here

    def _receive_answer(self, peer: PeerId, message: FinalBlocksAnswer) -> None:
        if peer == self._asked:
            self._asked = None
            self._answers_out.send_nowait((peer, message))
        else:
            self._peers.charge(peer, sum(len(item.block) for item in message.blocks))

    async def run(self) -> None:
        """Catch up whenever a peer is ahead, for ever."""
        while True:
            await self._wanted.wait()
            if self._is_member:
                await trio.sleep(MEMBER_GRACE_S)
            self._wanted = trio.Event()
            while (peer := self._best_peer()) is not None:
                if not await self._ask(peer):
                    self._tips.pop(peer, None)
                    self._failures[peer] = self._failures.get(peer, 0) + 1

    def _next_height(self) -> int:
        """What to ask for: the height after the newest block that is known to be final."""
        unfinal = self._core.unfinal
        if self._proven is not None and not unfinal.reaches_tip(self._proven):
            self._proven = None
        proven = None if self._proven is None else unfinal.get(self._proven)
        newest = self._core.store.tip.header if proven is None else proven.block.header
        return newest.height + 1

    def _best_peer(self) -> PeerId | None:
        """A connected peer that says it is ahead: of those that failed least, a member, and the highest.

        So whoever boasts of blocks that it doesn't send is asked last, however often it boasts.
        """
        wanted = self._next_height()
        ahead = [
            (-self._failures.get(peer, 0), self._peers.member_of(peer) is not None, height, peer)
            for peer, height in self._tips.items()
            if height >= wanted
        ]
        return max(ahead)[-1] if ahead else None

    async def _ask(self, peer: PeerId) -> bool:
        """One request to `peer`; whether it brought this node forward."""
        wanted = self._next_height()
        self._asked = peer
        self._peers.send(peer, FinalBlocksRequest(wanted))
        with trio.move_on_after(ANSWER_TIMEOUT_S) as self._waiting:
            sender, answer = await self._answers.receive()
        self._asked = None
        if self._waiting.cancelled_caught:
            log.info("no answer to a request for blocks", peer=peer, first_height=wanted)
        else:
            await self._apply(sender, answer)
        return self._next_height() > wanted

    async def _apply(self, peer: PeerId, answer: FinalBlocksAnswer) -> None:
        """Apply the parts of an answer, each as far as one certificate proves it."""
        part: list[Body] = []
        try:
            for item in answer.blocks:
                part.append((Block.decode_whole(item.block), item.block))
                if item.certificate:
                    self._check_proof([block.header for block, _ in part], item.certificate)
                    if not await self._commit(part, item.certificate):
                        return
                    part = []
            if part:
                following = [Header.decode(data) for data in answer.headers]
                self._check_proof([*(block.header for block, _ in part), *following], answer.certificate)
                if await self._keep_all(part):
                    self._proven = part[-1][0].header.hash
        except (MalformedError, VoteRejected) as fault:
            log.warning("peer sent bad final blocks", peer=peer, detail=str(fault))
            self._peers.drop(peer, DropReason.PROTOCOL_VIOLATION)

    def _check_proof(self, headers: Sequence[Header], data: bytes) -> None:
        """Raise unless the headers are a chain and the certificate finalizes the last of them."""
        rules = self._core.rules
        certificate = Certificate.decode(data)
        verify_certificate(certificate, rules.membership, rules.chain_id)
        if certificate.kind is not VoteKind.FINALIZE or certificate.block_hash != headers[-1].hash:
            raise MalformedError("the certificate does not finalize the last block")
        for parent, child in pairwise(headers):
            if child.parent != parent.hash:
                raise MalformedError("the blocks are no chain")

    async def _commit(self, part: list[Body], certificate: bytes) -> bool:
        """Apply blocks and make them final; whether they are. The certificate is the last one's."""
        last = part[-1][0].header.hash
        if await self._keep_all(part) and self._core.unfinal.reaches_tip(last):
            self._core.finalize(last, certificate)
        return self._core.store.height_of(last) is not None

    async def _keep_all(self, part: list[Body]) -> bool:
        """Apply blocks that are certified to be final, oldest first; whether all of them are kept here, or final."""
        try:
            for block, data in part:
                await trio.lowlevel.checkpoint()
                if not await self._keep(block, data):
                    return False
        except BlockRejected as rejected:
            # A quorum made it final, so it is not the peer who is wrong.
            self._core.halt(f"a final block breaks a rule here: {rejected}")
            return False
        finally:
            self._core.waiting_for = None
        return True

    async def _keep(self, block: Block, data: bytes) -> bool:
        """Apply a block, waiting for L1 as long as it takes; False when it stands on nothing. Raises BlockRejected."""
        core = self._core
        while core.store.height_of(block.header.hash) is None:
            try:
                return await validate(core, block, data)
            except L1Contradicted as contradiction:
                core.suspect(f"final block {block.header.height}: {contradiction}")
                core.waiting_for = f"L1 for block {block.header.height}: {contradiction}"
            except (L1Waiting, L1Error) as waiting:
                core.waiting_for = f"L1 for block {block.header.height}: {waiting}"
            await trio.sleep(L1_RETRY_S)
        return True
