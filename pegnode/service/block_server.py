"""Serving final blocks to those who miss them, without hurting those who don't.

Theory of operation. Requests wait in inboxes, one for members and one for guests, a few of each peer, taken from all
peers in turn. Serving rests as long as it worked, and what goes out is rationed: so many bytes a second to all members,
and so many to all guests. So whoever fetches the whole chain slows down others who fetch it, and never those who vote
on its next block.
"""

import time
from typing import Final

import trio

from pegnode.net.allowance import Allowance
from pegnode.net.messages import (
    MAX_BLOCKS_PER_ANSWER,
    MAX_PROOF_HEADERS,
    FinalBlock,
    FinalBlocksAnswer,
    FinalBlocksRequest,
)
from pegnode.net.transport import DropReason, PeerId
from pegnode.service.core import NodeCore
from pegnode.service.inbox import Inbox
from pegnode.service.peers import Peers

MAX_ANSWER_BYTES: Final = 500_000
"""Blocks are added to an answer as long as it stays below this; a single one may be larger."""
MAX_WAITING: Final = 4
"""Requests of one peer that may wait: it asks one at a time, and again when it gave up on an answer."""
GUESTS_BYTES_PER_S: Final = 2_000_000
GUESTS_BURST_BYTES: Final = 4_000_000
MEMBERS_BYTES_PER_S: Final = 8_000_000
MEMBERS_BURST_BYTES: Final = 16_000_000
"""What all guests together, and all members together, are sent of final blocks."""
ANSWER_BYTES: Final = 5_000
"""What an answer costs beside its own bytes."""


class _Lane:
    """Requests of one kind of peer, and what they may cost."""

    def __init__(self, bytes_per_s: int, burst_bytes: int) -> None:
        self.inbox: Inbox[int] = Inbox(MAX_WAITING, MAX_WAITING)
        self.allowance = Allowance(bytes_per_s, burst_bytes, trio.current_time)


class BlockServer:
    """Answers requests for final blocks."""

    def __init__(self, core: NodeCore, peers: Peers) -> None:
        self._core = core
        self._peers = peers
        self._members = _Lane(MEMBERS_BYTES_PER_S, MEMBERS_BURST_BYTES)
        self._guests = _Lane(GUESTS_BYTES_PER_S, GUESTS_BURST_BYTES)
        peers.on_message(FinalBlocksRequest, self._receive, from_guests=True)
        for lane in (self._members, self._guests):
            peers.on_disconnected(lane.inbox.forget)

    def _receive(self, peer: PeerId, message: FinalBlocksRequest) -> None:
        lane = self._guests if self._peers.member_of(peer) is None else self._members
        if not lane.inbox.put(peer, message.first_height, 1):
            self._peers.drop(peer, DropReason.FLOOD, "more requests for blocks than may wait")

    async def run(self) -> None:
        """Answer, for ever."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._serve, self._members)
            nursery.start_soon(self._serve, self._guests)

    async def _serve(self, lane: _Lane) -> None:
        while True:
            peer, first_height = await lane.inbox.take()
            started_s = time.perf_counter()
            cost_bytes = self._answer(peer, first_height)
            worked_s = time.perf_counter() - started_s
            await trio.sleep(max(worked_s, lane.allowance.owe(cost_bytes)))

    def _answer(self, peer: PeerId, first_height: int) -> int:
        """Serve consecutive blocks and their proof, all of which fits one message; what that costs, in bytes."""
        store = self._core.store
        blocks: list[FinalBlock] = []
        size, height = 0, first_height
        while height > 0 and len(blocks) < MAX_BLOCKS_PER_ANSWER:
            block = store.block_at(height)
            if block is None or (blocks and size + len(block) > MAX_ANSWER_BYTES):
                break
            blocks.append(FinalBlock(block, store.certificate_at(height) or b""))
            size += len(block)
            height += 1
        headers, certificate = self._proof(height) if blocks and not blocks[-1].certificate else ((), b"")
        self._peers.send(peer, FinalBlocksAnswer(first_height, tuple(blocks), headers, certificate))
        return ANSWER_BYTES + size

    def _proof(self, height: int) -> tuple[tuple[bytes, ...], bytes]:
        """The headers from `height` up to one with a finalization, and that; nothing when they are too many."""
        store = self._core.store
        certified = store.certified_height_from(height)
        if certified is None or certified - height >= MAX_PROOF_HEADERS:
            return (), b""
        headers = [store.header_at(between) for between in range(height, certified + 1)]
        return tuple(header.encode() for header in headers if header), store.certificate_at(certified) or b""
