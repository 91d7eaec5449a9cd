"""The watcher against a Bitcoin node whose chain the test decides."""

import pytest
import trio
from bitcoin.core import CBlock, CMutableTransaction, CMutableTxIn, CMutableTxOut, COutPoint
from bitcoin.core.script import CScript

from bridge.bitcoin.identifiers import BlockHash, Script
from bridge.l1 import watcher as watcher_module
from bridge.l1.errors import L1Reason, L1RpcError, L1Unavailable, RpcCode
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


async def test_watcher_finds_what_is_below_a_window_of_which_nothing_is_left(node: FakeNode) -> None:
    watcher = L1Watcher(node, 0, window_blocks=2)
    for _ in range(4):
        node.mine((WATCHED, 7))
    await watcher.poll()
    node.mine()
    await watcher.poll()
    assert watcher.block_at(5) is None
    del node.chain[2:]
    paid = node.mine((WATCHED, 11), branch=1)
    assert await watcher.poll()
    assert [(item.value_sats, item.l1_block) for item in watcher.payments_to(WATCHED)] == [(11, paid)]
    assert watcher.block_of(watcher.payments_to(WATCHED)[0].outpoint.txid) == paid


async def test_payments_are_found_again_when_the_window_moved(node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher_module, "MAX_FOUND", 1)
    watcher = L1Watcher(node, 0)
    left: list[int] = []
    watcher.on_left(lambda payments: left.extend(payment.value_sats for payment in payments))
    node.mine((WATCHED, 7))
    await watcher.poll()
    assert watcher.payments_to(OTHER) == ()
    node.mine((WATCHED, 9), (WATCHED, 10))
    assert [payment.value_sats for payment in watcher.payments_to(WATCHED)] == [7]
    await watcher.poll()
    assert [payment.value_sats for payment in watcher.payments_to(WATCHED)] == [7, 9, 10]
    del node.chain[4:]
    node.mine(branch=1)
    await watcher.poll()
    assert [payment.value_sats for payment in watcher.payments_to(WATCHED)] == [7]
    assert left == [9, 10]


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


class Liar(FakeNode):
    """Gives the bytes of the test's choice for any block."""

    data = b""

    async def block(self, block_hash: BlockHash) -> bytes:
        return self.data


@pytest.mark.parametrize("other", [False, True])
async def test_bytes_that_are_not_the_block_asked_for_leave_the_window(node: FakeNode, other: bool) -> None:
    liar = Liar()
    liar.chain = node.chain
    liar.data = bytes(node.chain[1].serialize()) if other else b"\x00" * 10
    watcher = L1Watcher(liar, 0)
    with pytest.raises(L1Unavailable) as caught:
        await watcher.poll()
    assert caught.value.reason is L1Reason.BAD_RESPONSE
    assert watcher.tip is None


class Pruned(FakeNode):
    """Has deleted the blocks below a height."""

    first = 0

    async def block(self, block_hash: BlockHash) -> bytes:
        if any(self.position(height).hash == block_hash for height in range(self.first)):
            raise L1RpcError("getblock", RpcCode.BLOCK_ABSENT, "Block not available (pruned data)")
        return await super().block(block_hash)


async def test_window_of_a_pruned_node_starts_above_what_it_has_deleted(node: FakeNode) -> None:
    pruned = Pruned()
    pruned.chain, pruned.first = node.chain, 2
    watcher = L1Watcher(pruned, 0)
    assert await watcher.poll()
    assert (watcher.block_at(1), watcher.block_at(2)) == (None, node.position(2))


async def test_block_that_was_pruned_before_it_was_read_is_an_outage(node: FakeNode) -> None:
    pruned = Pruned()
    pruned.chain = node.chain
    watcher = L1Watcher(pruned, 0)
    await watcher.poll()
    pruned.mine()
    pruned.mine()
    pruned.first = 4
    with pytest.raises(L1RpcError):
        await watcher.poll()
    assert watcher.tip == node.position(2)


async def test_watcher_that_was_away_for_a_window_reads_the_newest_alone(node: FakeNode) -> None:
    pruned = Pruned()
    pruned.chain = node.chain
    watcher = L1Watcher(pruned, 0, window_blocks=2)
    await watcher.poll()
    for _ in range(3):
        pruned.mine()
    pruned.first = 4
    assert await watcher.poll()
    assert (watcher.block_at(3), watcher.tip) == (None, pruned.position(5))


async def test_watcher_goes_on_after_every_kind_of_failure(node: FakeNode, autojump_clock: trio.abc.Clock) -> None:
    moves = []

    async def moved() -> None:
        moves.append(watcher.tip)

    pruned = Pruned()
    pruned.chain = node.chain
    watcher = L1Watcher(pruned, 0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watcher.run, 0.5, moved)
        await trio.sleep(1)
        pruned.reachable = False
        await trio.sleep(1)
        assert isinstance(watcher.outage, L1Unavailable)
        pruned.reachable, pruned.first = True, 5
        pruned.mine()
        await trio.sleep(1)
        assert isinstance(watcher.outage, L1RpcError)
        pruned.first = 0
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert moves == [node.position(2), node.position(3)]
    assert watcher.outage is None
