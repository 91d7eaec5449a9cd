"""A final chain in the hands of a peer that the test plays, and the node that wants it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import trio

from pegnode.chain.block import Block
from pegnode.net.messages import FinalBlock, FinalBlocksAnswer, FinalBlocksRequest, TipMessage
from pegnode.net.transport import DropReason, PeerId, PeerRole
from pegnode.service.unfinal import UnfinalBlock
from pegnode.storage.store import ChainStore
from tests.support.members import Member, MemoryFederation, Stranger, memory_federation

LONG = 70
"""Blocks of a chain that takes two answers."""


class Library:
    """A final chain of its own, served by a node that the test plays. node: who wants it."""

    def __init__(self, federation: MemoryFederation, node: Member, server: Stranger, store: ChainStore) -> None:
        self.federation = federation
        self.node = node
        self.server = server
        self.store = store
        self.asked = 1

    def boast(self, height: int | None = None) -> None:
        """Tell of a tip."""
        tip = self.store.tip
        self.server.say(self.node.transport.peer_id, TipMessage(height or tip.header.height, tip.hash))

    async def requested(self) -> int:
        """The next request's first height."""
        await self.federation.until(lambda: self.server.told(FinalBlocksRequest))
        request = self.server.told(FinalBlocksRequest)[0]
        self.server.heard.clear()
        self.asked = request.first_height
        return request.first_height

    def answer(
        self,
        *blocks: FinalBlock,
        headers: tuple[bytes, ...] = (),
        certificate: bytes = b"",
        first_height: int | None = None,
    ) -> None:
        """Answer the latest request, or as if it had been for another height."""
        first_height = self.asked if first_height is None else first_height
        answer = FinalBlocksAnswer(first_height, blocks, headers, certificate)
        self.server.say(self.node.transport.peer_id, answer)

    def left(self) -> list[DropReason]:
        """Why the node dropped the server."""
        return [left.reason for left in self.server.left]


@asynccontextmanager
async def library(count: int, role: PeerRole = PeerRole.MEMBER) -> AsyncIterator[Library]:
    """A node without blocks, and a server of `count` certified ones."""
    async with memory_federation() as federation:
        store = federation.disks[1].open_store(federation.rules)
        for unfinal in federation.run_of_blocks(store, count):
            federation.commit(store, [unfinal])
        if role is PeerRole.MEMBER:
            node = await federation.start_full_node()
            server = await federation.join(federation.peer_id(1), PeerRole.MEMBER)
        else:
            await federation.start(0)
            node = federation.members[0]
            server = await federation.join(PeerId("a guest"))
        await trio.sleep(0.5)
        yield Library(federation, node, server, store)


def certified(federation: MemoryFederation, unfinal: UnfinalBlock) -> FinalBlock:
    """A block with the certificate that makes it final."""
    return FinalBlock(unfinal.data, federation.finalization(unfinal))


def federation_block(books: Library, height: int) -> UnfinalBlock:
    """A block of the library, without its state."""
    data = books.store.block_at(height)
    assert data is not None
    return UnfinalBlock(Block.decode(data), data, cast(Any, None))
