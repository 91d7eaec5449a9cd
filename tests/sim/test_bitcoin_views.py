"""A test of the test: Bitcoin nodes that are behind, on a branch or ill answer as such nodes do, and all recover."""

from random import Random
from types import SimpleNamespace
from typing import cast

import pytest
import trio

from bridge.bitcoin.transaction import Transaction, TxOut
from bridge.l1.errors import L1Unavailable
from tests.sim.bitcoin_node import ANSWER_S, FEERATE_SAT_KVB, BitcoinNode
from tests.sim.bitcoin_views import BitcoinViews
from tests.sim.l1_index import L1Index
from tests.sim.seams import World
from tests.sim.workload import PEG
from tests.support.chain import L1_START, MemoryChain, local_genesis
from tests.support.fake_l1 import MINER_SCRIPT
from tests.support.fake_l1_client import L1World

LONG_S = 500.0
AILMENTS = {
    "lags",
    "stands still",
    "is out",
    "is slow",
    "has another feerate",
    "refuses a method",
    "misses transactions",
    "is on a branch",
    "is on a deep branch",
}


@pytest.fixture
def l1() -> L1World:
    world = L1World()
    world.mine(20)
    return world


def mined(l1: L1World) -> Transaction:
    """A payment in the newest block."""
    payment = l1.chain.payment(TxOut(50_000, MINER_SCRIPT))
    l1.chain.mine(payment)
    return payment


async def test_node_that_is_behind_knows_neither_the_newest_blocks_nor_what_they_spend(
    l1: L1World, autojump_clock: trio.abc.Clock
) -> None:
    payment = mined(l1)
    node = BitcoinNode(L1Index(l1), {})
    node.seen_height = l1.chain.height - 1
    assert await node.block_hash(l1.chain.height) is None
    assert await node.txouts([payment.outpoint(0)], include_mempool=False) == [None]
    assert await node.transaction_block(payment.txid) is None
    node.recover()
    assert await node.transaction_block(payment.txid) == l1.chain.blocks[-1].hash
    [found] = await node.txouts([payment.outpoint(0)], include_mempool=False)
    assert found is not None
    assert found.confirmations == 1


async def test_node_on_a_branch_holds_other_blocks_and_calls_the_real_ones_stale(
    l1: L1World, autojump_clock: trio.abc.Clock
) -> None:
    payment = mined(l1)
    height, real = l1.chain.height, l1.chain.blocks[-1].hash
    node = BitcoinNode(L1Index(l1), {})
    node.fork(height - 2, keeps_transactions=False)
    assert await node.tip() != (height, real)
    assert (await node.tip())[0] == height
    assert await node.block_hash(height - 2) == l1.chain.blocks[height - 2].hash
    header = await node.block_header(real)
    assert header is not None
    assert header.confirmations == -1
    assert await node.txouts([payment.outpoint(0)], include_mempool=False) == [None]
    assert await node.mempool_contains(payment.txid)
    branch = await node.block_hash(height)
    node.rejoin()
    assert await node.tip() == (height, real)
    left = await node.block_header(branch) if branch is not None else None
    assert left is not None
    assert left.confirmations == -1


async def test_what_only_a_node_that_is_behind_takes_is_not_mined_again(
    l1: L1World, autojump_clock: trio.abc.Clock
) -> None:
    payment = mined(l1)
    node = BitcoinNode(L1Index(l1), {})
    node.world.mempool[payment.txid] = payment
    assert await node.mempool_contains(payment.txid)
    assert payment.txid not in l1.mempool
    other = l1.chain.payment(TxOut(1_000, MINER_SCRIPT))
    node.world.mempool[other.txid] = other
    assert other.txid in l1.mempool


async def test_every_ailment_befalls_some_node_and_all_recover(autojump_clock: trio.abc.Clock) -> None:
    l1 = L1World()
    l1.mine(L1_START + 30)
    genesis = local_genesis(l1.chain.anchor(L1_START), peg=PEG)
    notes: list[str] = []
    world = SimpleNamespace(
        l1=l1,
        genesis=genesis,
        rules=genesis.rules(),
        byzantine=frozenset(),
        incurable=frozenset(),
        note=lambda _, what: notes.append(what),
    )
    views = BitcoinViews(cast(World, world), Random("ailments"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(views.run)
        for _ in range(int(LONG_S)):
            await trio.sleep(1)
            l1.mine(1)
        assert views.carried_out == AILMENTS
        views.heal()
        tips = {await node.tip() for node in views.nodes}
        assert tips == {(l1.chain.height, l1.chain.blocks[-1].hash)}
        await trio.sleep(LONG_S)
        assert {node.outage for node in views.nodes} == {False}
        nursery.cancel_scope.cancel()


def test_incurable_member_s_node_is_ill_for_good() -> None:
    l1 = L1World()
    l1.mine(L1_START + 30)
    rules = local_genesis(l1.chain.anchor(L1_START), peg=PEG).rules()
    world = SimpleNamespace(l1=l1, rules=rules, byzantine=frozenset(), incurable={2}, note=lambda *_: None)
    for seed in range(10):
        views = BitcoinViews(cast(World, world), Random(seed))
        views.heal()
        well = [
            (node.seen_height, node.outage, node.answer_s, node.feerate_sat_kvb, bool(node.refusals))
            == (None, False, ANSWER_S, FEERATE_SAT_KVB, False)
            for node in views.nodes
        ]
        assert well == [True, True, False, True]


async def test_node_that_is_out_answers_nothing(l1: L1World, autojump_clock: trio.abc.Clock) -> None:
    node = BitcoinNode(L1Index(l1), {})
    node.outage = True
    with pytest.raises(L1Unavailable):
        await node.tip()
    node.recover()
    await node.tip()


async def test_deep_branches_are_only_for_members_that_the_federation_can_do_without() -> None:
    chain = MemoryChain()
    for byzantine, spare in ((frozenset[int](), 1), (frozenset({2}), 0)):
        world = SimpleNamespace(
            l1=L1World(chain.l1), genesis=chain.genesis, rules=chain.rules, byzantine=byzantine, note=print
        )
        assert len(BitcoinViews(cast(World, world), Random(1)).may_fork_deeply) == spare
