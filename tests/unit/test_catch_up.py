"""Whether a node knows enough of the chain to judge L1 by its ledger."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio.testing

from bridge.bitcoin.identifiers import BlockHash
from pegnode.net.messages import TipMessage
from pegnode.net.transport import PeerId
from pegnode.service.catch_up import CatchUp
from pegnode.service.peers import Peers
from pegnode.service.records import RecordRelay
from pegnode.storage.store import ChainStore
from tests.support.chain import MemoryChain
from tests.support.lone_node import Wire, lone_core

OWN = 0


class Follower:
    """Member 0 of four, at the genesis block, and what the others tell of their tips."""

    def __init__(self, path: Path) -> None:
        chain = MemoryChain()
        self.store = ChainStore.open(path, chain.rules)
        self.wire = Wire(chain.rules.membership, OWN)
        self.peers = Peers(self.wire, chain.rules.membership)
        core = lone_core(chain, self.store)
        self.catch_up = CatchUp(core, self.peers, RecordRelay(core, self.peers))

    async def told(self, **heights: int) -> bool:
        """Whether the node is current once members (m1, m2, m3), or a guest, have told of their heights."""
        for name, height in heights.items():
            peer = PeerId("a guest") if name == "guest" else self.peers.peer_of(int(name[1:]))
            self.wire.deliver(peer, TipMessage(height, BlockHash(bytes([height + 1]) * 32)))
        await trio.testing.wait_all_tasks_blocked()
        return self.catch_up.is_current


@pytest.fixture
async def follower(tmp_path: Path) -> AsyncIterator[Follower]:
    node = Follower(tmp_path / "chain")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.peers.run)
        yield node
        nursery.cancel_scope.cancel()
    node.store.close()


async def test_node_is_not_current_before_a_quorum_told_of_tips(follower: Follower) -> None:
    assert not await follower.told()
    assert not await follower.told(m1=0)
    assert not await follower.told(guest=0)
    assert await follower.told(m2=0)


async def test_node_is_not_current_below_what_an_honest_member_has(follower: Follower) -> None:
    assert await follower.told(m1=0, m2=0, m3=9), "one member alone may lie"
    assert not await follower.told(m2=7)


async def test_node_is_not_current_when_members_left(follower: Follower) -> None:
    assert await follower.told(m1=0, m2=0)
    follower.wire.disconnect(follower.peers.peer_of(1))
    assert not await follower.told()
