"""Serving the final chain to peers: how much of it in an answer, and to whom."""

from types import SimpleNamespace
from typing import cast

import pytest
import trio

from pegnode.chain.block import MAX_BODY_BYTES
from pegnode.chain.header import HEADER_SIZE, Header
from pegnode.net.messages import (
    MAX_BLOCKS_PER_ANSWER,
    MAX_PROOF_HEADERS,
    FinalBlocksAnswer,
    FinalBlocksRequest,
    Message,
    encode_message,
)
from pegnode.net.session import LinkLimits
from pegnode.net.transport import DropReason, PeerId, PeerRole
from pegnode.service import block_server
from pegnode.service.block_server import BlockServer
from pegnode.service.core import NodeCore
from pegnode.service.peers import Peers
from tests.support.library import LONG
from tests.support.members import MemoryFederation, Stranger, memory_federation


def largest_core(store: object) -> NodeCore:
    return cast(NodeCore, SimpleNamespace(store=store, on_final=lambda listener: None))


class LargestStore:
    """Every block has the largest body there can be; certificates are those of 255 members."""

    def __init__(self, federation: MemoryFederation, gap: int) -> None:
        self._header = federation.rules.genesis_header
        self._gap = gap
        self.tip = SimpleNamespace(header=self._header, hash=self._header.hash)

    def block_at(self, height: int) -> bytes:
        return bytes(HEADER_SIZE + MAX_BODY_BYTES)

    def certificate_at(self, height: int) -> bytes | None:
        return bytes(49 + 66 * 171) if height % self._gap == 0 else None

    def certified_height_from(self, height: int) -> int:
        return -(-height // self._gap) * self._gap

    def header_at(self, height: int) -> Header:
        return self._header


@pytest.mark.parametrize("gap", [1, 2, MAX_PROOF_HEADERS, 10 * MAX_PROOF_HEADERS])
async def test_every_answer_fits_one_frame(gap: int, autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation() as federation:
        store = LargestStore(federation, gap)
        transport = federation.network.transport(federation.peer_id(0))
        sent: list[Message] = []
        peers = Peers(transport, federation.rules.membership)

        def note(peer: PeerId, message: Message) -> bool:
            sent.append(message)
            return True

        peers.send = note  # type: ignore[method-assign]
        BlockServer(largest_core(store), peers)._answer(PeerId("anybody"), 1)
        assert len(encode_message(sent[0])) <= LinkLimits().max_payload_bytes
        assert isinstance(sent[0], FinalBlocksAnswer)
        assert len(sent[0].blocks) == 1
        assert len(sent[0].headers) == (gap - 1 if gap <= MAX_PROOF_HEADERS else 0)


async def test_answer_holds_no_more_blocks_than_its_limits(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with memory_federation() as federation:
        store = federation.disks[1].open_store(federation.rules)
        for unfinal in federation.run_of_blocks(store, LONG):
            federation.commit(store, [unfinal])
        await federation.start(1)
        asker = await federation.join(PeerId("a guest"))
        await trio.sleep(0.5)

        async def answered(first_height: int) -> int:
            asker.heard.clear()
            asker.say(federation.peer_id(1), FinalBlocksRequest(first_height))
            await federation.until(lambda: asker.told(FinalBlocksAnswer))
            return len(asker.told(FinalBlocksAnswer)[0].blocks)

        assert await answered(1) == MAX_BLOCKS_PER_ANSWER
        assert await answered(LONG - 1) == 2
        assert await answered(LONG + 1) == 0
        assert await answered(0) == 0
        assert await answered(2**63 - 1) == 0
        size = len(store.block_at(1) or b"")
        monkeypatch.setattr(block_server, "MAX_ANSWER_BYTES", 3 * size + size // 2)
        assert await answered(1) == 3


async def test_peer_with_more_requests_than_may_wait_is_dropped(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(1) as federation:
        guest = await federation.join(PeerId("a guest"))
        await trio.sleep(0.5)
        for _ in range(block_server.MAX_WAITING + 2):
            guest.say(federation.peer_id(1), FinalBlocksRequest(1))
        federation.network.set_delay(guest.transport.peer_id, federation.peer_id(1), (0.002, 0.002))
        for _ in range(50):
            guest.say(federation.peer_id(1), FinalBlocksRequest(1))
        await trio.sleep(0.5)
        assert [left.reason for left in guest.left] == [DropReason.FLOOD]


async def test_guests_are_served_no_more_than_their_ration_and_members_at_once(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(block_server, "GUESTS_BYTES_PER_S", block_server.ANSWER_BYTES)
    monkeypatch.setattr(block_server, "GUESTS_BURST_BYTES", 10 * block_server.ANSWER_BYTES)
    async with memory_federation(1) as federation:
        guests = [await federation.join(PeerId(f"guest {number}")) for number in range(4)]
        member = await federation.join(federation.peer_id(2), PeerRole.MEMBER)
        await trio.sleep(0.5)

        async def keep_asking(guest: Stranger) -> None:
            while True:
                answered = len(guest.told(FinalBlocksAnswer))
                guest.say(federation.peer_id(1), FinalBlocksRequest(1))
                while len(guest.told(FinalBlocksAnswer)) == answered:
                    await trio.sleep(0.01)

        for guest in guests:
            federation.nursery.start_soon(keep_asking, guest)
        await trio.sleep(30)
        counts = [len(guest.told(FinalBlocksAnswer)) for guest in guests]
        assert 35 <= sum(counts) <= 45, "the burst, and one a second"
        assert max(counts) - min(counts) <= 1, "in turn"
        member.say(federation.peer_id(1), FinalBlocksRequest(1))
        await trio.sleep(0.1)
        assert member.told(FinalBlocksAnswer)
        assert all(guest.left == [] for guest in guests)
