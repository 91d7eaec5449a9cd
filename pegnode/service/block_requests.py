"""Blocks that members ask one another for by their hash: asked of all, and taken from whom they were asked of."""

from collections import Counter
from collections.abc import Callable, Mapping

from bridge.bitcoin.identifiers import BlockHash
from bridge.errors import MalformedError
from pegnode.chain.block import Block
from pegnode.net.messages import BlockAnswer, BlockRequest
from pegnode.net.transport import DropReason, PeerId
from pegnode.service.event_queue import Body
from pegnode.service.peers import Peers
from pegnode.storage.store import ChainStore


class BlockRequests:
    """One member's. bodies: the blocks at hand that are not final, as they come and go.  take: is given what came."""

    def __init__(
        self, store: ChainStore, peers: Peers, bodies: Mapping[BlockHash, Body], take: Callable[[Body], None]
    ) -> None:
        self._store = store
        self._peers = peers
        self._bodies = bodies
        self._take = take
        self._asked: Counter[tuple[PeerId, BlockHash]] = Counter()
        peers.on_message(BlockRequest, self._answer, from_guests=False)
        peers.on_message(BlockAnswer, self._receive, from_guests=False)
        peers.on_disconnected(self._forget)

    def ask(self, block_hash: BlockHash) -> None:
        """Ask every member that is connected; each answers once."""
        for peer in self._peers.to_members(BlockRequest(block_hash)):
            self._asked[peer, block_hash] += 1

    def _answer(self, peer: PeerId, message: BlockRequest) -> None:
        block_hash = BlockHash(message.block_hash)
        _, known = self._bodies.get(block_hash, (None, None))
        data = known or self._store.block_by_hash(block_hash) or b""
        if self._peers.charge(peer, len(data)):
            self._peers.send(peer, BlockAnswer(block_hash, data))

    def _receive(self, peer: PeerId, message: BlockAnswer) -> None:
        key = (peer, BlockHash(message.block_hash))
        if not self._asked[key]:
            self._peers.drop(peer, DropReason.MISPLACED_MESSAGE, "a block that was not asked for")
            return
        self._asked -= Counter([key])
        if not message.block or key[1] in self._bodies:
            return
        block = Block.decode_whole(message.block)
        if block.header.hash != message.block_hash:
            raise MalformedError("the answer is another block than the one asked for")
        self._take((block, message.block))

    def _forget(self, peer: PeerId) -> None:
        self._asked = Counter({key: count for key, count in self._asked.items() if key[0] != peer})
