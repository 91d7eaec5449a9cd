"""Blocks that members ask one another for by their hash, and take from whom they asked.

Theory of operation. A block is long, and each answer may hold it: so it is asked of f+1 members, of whom one is honest,
first of those whose signatures say that they have it. Every request is answered, if only with nothing; as long as the
block is missing, each time that it is asked for again f+1 members owe an answer, one of them at least asked anew. So
those who don't answer delay it, and no more. They are asked after others, then not at all, and dropped in the end.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

import trio

from bridge.bitcoin.identifiers import BlockHash
from bridge.errors import MalformedError
from pegnode.chain.block import Block
from pegnode.chain.header import HEADER_SIZE, Header
from pegnode.net.messages import BlockAnswer, BlockRequest
from pegnode.net.transport import DropReason, PeerId
from pegnode.service.event_queue import Body
from pegnode.service.peers import Peers
from pegnode.storage.store import ChainStore

MAX_OPEN: Final = 16
"""Requests that one member may leave open before it is asked for nothing more: each waits for few blocks at a time."""
ANSWER_TIMEOUT_S: Final = 60.0
"""For how long a member may owe answers and give none. Blocks from many at once take a narrow link so long."""


@dataclass(slots=True)
class _Debt:
    """What one member has yet to answer. since_s: when it last answered, or began to owe if that was later."""

    since_s: float
    blocks: set[BlockHash] = field(default_factory=set)


class BlockRequests:
    """One member's. fault_tolerance: f.  take: is given what came.

    bodies: the blocks at hand that are not final, as they come and go.
    """

    def __init__(
        self,
        store: ChainStore,
        peers: Peers,
        fault_tolerance: int,
        bodies: Mapping[BlockHash, Body],
        take: Callable[[Body], None],
    ) -> None:
        self._store = store
        self._fault_tolerance = fault_tolerance
        self._peers = peers
        self._bodies = bodies
        self._take = take
        self._debts: dict[PeerId, _Debt] = {}
        self._turns: dict[PeerId, int] = {}
        self._turn = 0
        peers.on_message(BlockRequest, self._answer, from_guests=False)
        peers.on_message(BlockAnswer, self._receive, from_guests=False)
        peers.on_disconnected(self._forget)

    def ask(self, block_hash: BlockHash, holders: Collection[int]) -> None:
        """Ask for a block, once more if it is still missing. holders: the members that are known to have it."""
        self._drop_the_silent()
        owing = sum(block_hash in debt.blocks for debt in self._debts.values())
        for peer in self._able(block_hash, holders)[: max(1, self._fault_tolerance + 1 - owing)]:
            if self._peers.send(peer, BlockRequest(block_hash)):
                self._turn += 1
                self._turns[peer] = self._turn
                self._debts.setdefault(peer, _Debt(trio.current_time())).blocks.add(block_hash)

    def _able(self, block_hash: BlockHash, holders: Collection[int]) -> list[PeerId]:
        """Who can be asked for a block: first who have it, then who owe least, then who were asked longest ago."""
        able: list[tuple[bool, int, int, int, PeerId]] = []
        for peer in self._peers.transport.connected():
            member, debt = self._peers.member_of(peer), self._debts.get(peer)
            blocks = set() if debt is None else debt.blocks
            if member is not None and block_hash not in blocks and len(blocks) < MAX_OPEN:
                able.append((member not in holders, len(blocks), self._turns.get(peer, 0), member, peer))
        return [peer for *_, peer in sorted(able)]

    def _drop_the_silent(self) -> None:
        before_s = trio.current_time() - ANSWER_TIMEOUT_S
        for peer in [peer for peer, debt in self._debts.items() if debt.since_s <= before_s]:
            del self._debts[peer]
            self._peers.drop(peer, DropReason.NO_ANSWER, "asked for a block by its hash")

    def _answer(self, peer: PeerId, message: BlockRequest) -> None:
        block_hash = BlockHash(message.block_hash)
        _, known = self._bodies.get(block_hash, (None, None))
        data = known or self._store.block_by_hash(block_hash) or b""
        if self._peers.charge(peer, len(data)):
            self._peers.send(peer, BlockAnswer(block_hash, data))

    def _receive(self, peer: PeerId, message: BlockAnswer) -> None:
        block_hash = BlockHash(message.block_hash)
        if not self._settle(peer, block_hash):
            self._peers.drop(peer, DropReason.MISPLACED_MESSAGE, "a block that was not asked for")
            return
        if not message.block or block_hash in self._bodies:
            return
        if Header.decode(message.block[:HEADER_SIZE]).hash != block_hash:
            raise MalformedError("the answer is another block than the one asked for")
        self._take((Block.decode_whole(message.block), message.block))

    def _settle(self, peer: PeerId, block_hash: BlockHash) -> bool:
        """Note that a request was answered; False when there was none."""
        debt = self._debts.get(peer)
        if debt is None or block_hash not in debt.blocks:
            return False
        debt.blocks.discard(block_hash)
        debt.since_s = trio.current_time()
        if not debt.blocks:
            del self._debts[peer]
        return True

    def _forget(self, peer: PeerId) -> None:
        self._debts.pop(peer, None)
