"""The watcher against a Bitcoin node whose chain the test decides."""

import pytest
from bitcoin.core import CBlock, CMutableTransaction, CMutableTxIn, CMutableTxOut, COutPoint
from bitcoin.core.script import CScript

from bridge.bitcoin.identifiers import BlockHash, Script
from bridge.errors import MalformedError
from bridge.l1.errors import L1Reason, L1Unavailable
from bridge.l1.watcher import L1Watcher
from bridge.state import Anchor

WATCHED = Script(b"\x51\x20" + b"\x07" * 32)
OTHER = Script(b"\x00\x14" + b"\x08" * 20)


def make_block(parent: bytes, branch: int, *payments: tuple[Script, int]) -> CBlock:
    """A block on `parent`, unique for its branch; its one transaction makes the payments."""
    transaction = CMutableTransaction(
        [CMutableTxIn(COutPoint(b"\x01" * 32, branch))],
        [CMutableTxOut(value, CScript(script)) for script, value in (payments or ((OTHER, 1),))],
    )
    return CBlock(hashPrevBlock=parent, nNonce=branch, vtx=[transaction])


class FakeNode:
    """A chain of blocks from height 0."""

    def __init__(self) -> None:
        self.chain: list[CBlock] = []
        self.reachable = True
        self.blocks_read = 0

    def mine(self, *payments: tuple[Script, int], branch: int = 0) -> Anchor:
        parent = self.chain[-1].GetHash() if self.chain else b"\x00" * 32
        self.chain.append(make_block(parent, 1_000 * branch + len(self.chain), *payments))
        return self.position(len(self.chain) - 1)

    def position(self, height: int) -> Anchor:
        return Anchor(height, BlockHash(bytes(self.chain[height].GetHash())))

    def _answer(self) -> None:
        if not self.reachable:
            raise L1Unavailable(L1Reason.UNREACHABLE)

    async def tip(self) -> tuple[int, BlockHash]:
        self._answer()
        newest = self.position(len(self.chain) - 1)
        return newest.height, newest.hash

    async def block_hash(self, height: int) -> BlockHash | None:
        self._answer()
        return self.position(height).hash if height < len(self.chain) else None

    async def block(self, block_hash: BlockHash) -> bytes:
        self._answer()
        self.blocks_read += 1
        [block] = [block for block in self.chain if block.GetHash() == block_hash]
        return bytes(block.serialize())


@pytest.fixture
def node() -> FakeNode:
    fake = FakeNode()
    for _ in range(3):
        fake.mine()
    return fake


async def test_watcher_remembers_who_was_paid_and_where(node: FakeNode) -> None:
    watcher = L1Watcher(node, 0)
    paid = node.mine((OTHER, 5), (WATCHED, 7), (WATCHED, 9))
    node.mine()
    assert await watcher.poll()
    assert [(payment.value_sats, payment.outpoint.vout) for payment in watcher.payments_to(WATCHED)] == [(7, 1), (9, 2)]
    [txid] = {payment.outpoint.txid for payment in watcher.payments_to(WATCHED)}
    assert watcher.block_of(txid) == paid
    assert watcher.payments_to(OTHER) == ()
    assert watcher.confirmations(paid.height) == 2
    assert watcher.buried(2) == paid


async def test_watcher_reads_nothing_below_the_first_height_and_each_block_once(node: FakeNode) -> None:
    watcher = L1Watcher(node, 2)
    await watcher.poll()
    assert node.blocks_read == 1
    assert not await watcher.poll()
    node.mine()
    assert await watcher.poll()
    assert node.blocks_read == 2
    assert watcher.block_at(1) is None
    assert watcher.block_at(2) == node.position(2)


async def test_watcher_forgets_what_a_reorganisation_undid(node: FakeNode) -> None:
    watcher = L1Watcher(node, 0)
    node.mine((WATCHED, 7))
    await watcher.poll()
    del node.chain[3:]
    node.mine(branch=1)
    replaced = node.mine((WATCHED, 11), branch=1)
    assert await watcher.poll()
    assert [(item.value_sats, item.l1_block) for item in watcher.payments_to(WATCHED)] == [(11, replaced)]
    assert watcher.tip == replaced


async def test_watcher_follows_a_chain_that_became_shorter(node: FakeNode) -> None:
    watcher = L1Watcher(node, 0)
    await watcher.poll()
    del node.chain[2:]
    assert await watcher.poll()
    assert watcher.tip == node.position(1)


async def test_watcher_keeps_only_its_window(node: FakeNode) -> None:
    watcher = L1Watcher(node, 0, window_blocks=2)
    node.mine((WATCHED, 7))
    await watcher.poll()
    assert len(watcher.payments_to(WATCHED)) == 1
    node.mine()
    node.mine()
    await watcher.poll()
    assert watcher.payments_to(WATCHED) == ()
    assert watcher.block_at(3) is None
    assert watcher.tip == node.position(5)


async def test_watcher_keeps_its_window_during_an_outage(node: FakeNode) -> None:
    watcher = L1Watcher(node, 0)
    await watcher.poll()
    before = watcher.tip
    node.mine()
    node.reachable = False
    with pytest.raises(L1Unavailable) as caught:
        await watcher.poll()
    assert caught.value.reason is L1Reason.UNREACHABLE
    assert watcher.tip == before
    node.reachable = True
    assert await watcher.poll()
    assert watcher.tip == node.position(3)


async def test_block_that_is_none_is_malformed_and_leaves_the_window(node: FakeNode) -> None:
    class Garbled(FakeNode):
        async def block(self, block_hash: BlockHash) -> bytes:
            return b"\x00" * 10

    garbled = Garbled()
    garbled.chain = node.chain
    watcher = L1Watcher(garbled, 0)
    with pytest.raises(MalformedError):
        await watcher.poll()
    assert watcher.tip is None
