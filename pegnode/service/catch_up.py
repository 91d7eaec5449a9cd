"""Fetching final blocks from peers: how a node that was away, or has no keys, follows the chain.

One request is out at a time. An answer is a run of blocks whose last one carries a finalization, so its certificate is
checked before any block is applied. A peer whose answer breaks a rule is dropped, and another one asked.
"""

from itertools import pairwise
from typing import Final

import structlog
import trio

from bridge.errors import MalformedError
from bridge.l1.errors import L1Unavailable
from federation.certificate import Certificate, VoteKind, VoteRejected, verify_certificate
from pegnode.chain.block import Block
from pegnode.chain.rules import apply_block
from pegnode.chain.verdicts import BlockRejected, L1Contradicted, L1Waiting
from pegnode.net.messages import (
    MAX_BLOCKS_PER_ANSWER,
    FinalBlock,
    FinalBlocksAnswer,
    FinalBlocksRequest,
    TipMessage,
)
from pegnode.net.transport import DropReason, PeerId
from pegnode.service.core import NodeCore
from pegnode.service.peers import Peers
from pegnode.service.unfinal import UnfinalBlock

log = structlog.get_logger()

ANSWER_TIMEOUT_S: Final = 10.0
L1_RETRY_S: Final = 1.0
MAX_ANSWER_BYTES: Final = 2_000_000
"""Blocks are added to an answer while it is below this; the last may exceed it."""


class CatchUp:
    """Asks for what is missing, and answers what others miss."""

    def __init__(self, core: NodeCore, peers: Peers) -> None:
        self._core = core
        self._peers = peers
        self._tips: dict[PeerId, int] = {}
        self._failures: dict[PeerId, int] = {}
        self._asked: PeerId | None = None
        self._answers_out, self._answers = trio.open_memory_channel[tuple[PeerId, FinalBlocksAnswer]](4)
        self._wanted = trio.Event()
        peers.on_message(TipMessage, self._receive_tip, from_guests=True)
        peers.on_message(FinalBlocksRequest, self._answer, from_guests=True)
        peers.on_message(FinalBlocksAnswer, self._receive_answer, from_guests=True)
        peers.on_connected(self._tell_tip)
        peers.on_disconnected(self._forget)
        core.on_final(self._announce)

    @property
    def best_known_height(self) -> int:
        """The highest final height that a connected peer or this node has."""
        return max([*self._tips.values(), self._core.store.tip.header.height])

    @property
    def is_current(self) -> bool:
        """Whether a quorum of members tells of tips, and this node has what one honest member of them must have.

        Until then L1 can't be judged by its ledger: a coin that is gone may be one that a later block pays out.
        """
        own = self._core.store.tip.header.height
        membership = self._core.rules.membership
        heights = [height for peer, height in self._tips.items() if self._peers.member_of(peer) is not None]
        if self._peers.member_of(self._peers.transport.peer_id) is not None:
            heights.append(own)
        heights.sort(reverse=True)
        return len(heights) >= membership.quorum and own >= heights[membership.fault_tolerance]

    def height_of(self, peer: PeerId) -> int | None:
        """The final height that a peer has told of."""
        return self._tips.get(peer)

    def _tell_tip(self, peer: PeerId) -> None:
        self._peers.send(peer, self._own_tip())

    def _announce(self, _: UnfinalBlock) -> None:
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

    def _receive_answer(self, peer: PeerId, message: FinalBlocksAnswer) -> None:
        if peer == self._asked:
            self._asked = None
            self._answers_out.send_nowait((peer, message))

    def _answer(self, peer: PeerId, message: FinalBlocksRequest) -> None:
        """Serve a run of blocks that ends with a certified one."""
        store = self._core.store
        blocks: list[FinalBlock] = []
        certified = 0
        size = 0
        for height in range(message.first_height, message.first_height + MAX_BLOCKS_PER_ANSWER):
            block = store.block_at(height) if height else None
            if block is None:
                break
            certificate = store.certificate_at(height) or b""
            blocks.append(FinalBlock(block, certificate))
            size += len(block)
            if certificate:
                certified = len(blocks)
                if size >= MAX_ANSWER_BYTES:
                    break
        self._peers.send(peer, FinalBlocksAnswer(message.first_height, tuple(blocks[:certified])))

    async def run(self) -> None:
        """Catch up whenever a peer is ahead, for ever."""
        while True:
            await self._wanted.wait()
            self._wanted = trio.Event()
            while (peer := self._best_peer()) is not None:
                if not await self._ask(peer):
                    self._tips.pop(peer, None)
                    self._failures[peer] = self._failures.get(peer, 0) + 1

    def _best_peer(self) -> PeerId | None:
        """A connected peer that says it is ahead: of those that failed least, a member, and the highest.

        So whoever boasts of blocks that it doesn't send is asked last, however often it boasts.
        """
        own = self._core.store.tip.header.height
        ahead = [
            (-self._failures.get(peer, 0), self._peers.member_of(peer) is not None, height, peer)
            for peer, height in self._tips.items()
            if height > own
        ]
        return max(ahead)[-1] if ahead else None

    async def _ask(self, peer: PeerId) -> bool:
        """One request to `peer`; whether it brought this node forward."""
        before = self._core.store.tip.header.height
        self._asked = peer
        self._peers.send(peer, FinalBlocksRequest(before + 1))
        with trio.move_on_after(ANSWER_TIMEOUT_S) as waiting:
            sender, answer = await self._answers.receive()
        self._asked = None
        if waiting.cancelled_caught:
            log.info("no answer to a request for blocks", peer=peer, first_height=before + 1)
        else:
            await self._apply(sender, answer)
        return self._core.store.tip.header.height > before

    async def _apply(self, peer: PeerId, answer: FinalBlocksAnswer) -> None:
        """Apply the parts of an answer, each up to a block with a finalization."""
        part: list[Block] = []
        try:
            for item in answer.blocks:
                part.append(Block.decode(item.block))
                if item.certificate:
                    certificate = Certificate.decode(item.certificate)
                    self._check_part(part, certificate)
                    await self._apply_part(part, item.certificate)
                    part = []
        except (MalformedError, VoteRejected, BlockRejected) as fault:
            log.warning("peer sent bad final blocks", peer=peer, detail=str(fault))
            self._peers.transport.drop(peer, DropReason.PROTOCOL_VIOLATION)

    def _check_part(self, part: list[Block], certificate: Certificate) -> None:
        """Raise unless the blocks are a chain and the certificate finalizes its last one."""
        rules = self._core.rules
        verify_certificate(certificate, rules.membership, rules.chain_id)
        last = part[-1].header
        if certificate.kind is not VoteKind.FINALIZE or certificate.block_hash != last.hash:
            raise MalformedError("the certificate does not finalize the last block")
        for parent, child in pairwise(part):
            if child.header.parent != parent.header.hash:
                raise MalformedError("the blocks are no chain")

    async def _apply_part(self, part: list[Block], certificate: bytes) -> None:
        """Apply blocks that are certified to be final, waiting for L1 as long as it takes."""
        for block in part:
            if self._core.store.height_of(block.header.hash) is None:
                await self._apply_one(block)
        last = part[-1].header.hash
        if self._core.unfinal.view(last) is not None:
            self._core.finalize(last, certificate)

    async def _apply_one(self, block: Block) -> None:
        core = self._core
        while core.unfinal.get(block.header.hash) is None and core.store.height_of(block.header.hash) is None:
            parent = core.unfinal.view(block.header.parent)
            if parent is None:
                raise MalformedError("the blocks do not continue this node's chain")
            try:
                facts = await core.questions.facts(parent.tip.header, block)
                state = apply_block(parent, block, facts, core.rules)
                core.unfinal.add(UnfinalBlock(block, block.encode(), state))
                return
            except L1Contradicted as contradiction:
                core.halt(f"final block {block.header.height}: {contradiction}")
            except (L1Waiting, L1Unavailable) as waiting:
                core.waiting_for = f"L1 for block {block.header.height}: {waiting}"
            await trio.sleep(L1_RETRY_S)
        core.waiting_for = None
