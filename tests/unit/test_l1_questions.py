"""What is asked of one's own Bitcoin node about the reserve, while blocks come in."""

from collections.abc import Callable, Sequence
from typing import cast

import pytest
import trio

from bridge.bitcoin.identifiers import BlockHash, OutPoint, Txid
from bridge.l1.answers import ChainInfo, L1Header, L1TxOut
from bridge.l1.client import L1Client
from bridge.l1.errors import L1Reason, L1Unavailable
from bridge.l1.watcher import L1Watcher
from bridge.ledger import Ledger
from bridge.lineages import settle
from bridge.state import Anchor
from pegnode.chain.facts import AnchorStatus
from pegnode.service.l1_questions import L1Questions
from tests.support.ledgers import batched_ledger, ledger_of, only_lineage
from tests.support.peg import ALICE, PARAMS, START_HEIGHT, anchor, deposit_script
from tests.support.replacements import FEERATE, bump, open_payout, record


class FakeNode:
    """A Bitcoin node and the watcher of it. The batch of the ledger is in the block after START_HEIGHT."""

    def __init__(self, ledger: Ledger) -> None:
        self.coins = {outpoint: coin.value_sats for outpoint, coin in ledger.coins.items()}
        self.spent = set(only_lineage(ledger).inputs)
        self.payouts = {version.txid for version in only_lineage(ledger).versions}
        self.node_tip = anchor(START_HEIGHT)
        self.tip = anchor(START_HEIGHT)
        self.indexed: set[Txid] = set()
        self.looked_for: list[Txid] = []
        self.mempool: dict[OutPoint, Txid] = {}
        self.unmined: set[OutPoint] = set()
        self.blocks = {anchor(START_HEIGHT): 1, anchor(START_HEIGHT + 1): 1}
        self.other_blocks: set[Anchor] = set()
        self.extra_blocks, self.headers_ahead, self.downloading = 0, 0, False
        self.when_asked: Callable[[], object] = lambda: None

    def mine(self) -> None:
        """The Bitcoin node has the payout; the watcher has not read it yet."""
        self.node_tip = anchor(START_HEIGHT + 1)

    def watch(self) -> None:
        """The watcher has read what the Bitcoin node has."""
        self.tip = self.node_tip

    def block_of(self, txid: Txid) -> Anchor | None:
        """The watcher's answer."""
        return self.tip if txid in self.payouts and self.tip.height > START_HEIGHT else None

    async def txouts(self, outpoints: Sequence[OutPoint], include_mempool: bool) -> list[L1TxOut | None]:
        """The Bitcoin node's answer."""
        await trio.lowlevel.checkpoint()
        self.when_asked()
        gone = self.spent if self.node_tip.height > START_HEIGHT else set()
        gone = gone if include_mempool else gone | self.unmined
        script = deposit_script(ALICE)
        return [
            None if outpoint in gone else L1TxOut(self.coins[outpoint], script, 6, False, self.node_tip.hash)
            for outpoint in outpoints
        ]

    async def mempool_spenders(self, outpoints: Sequence[OutPoint]) -> list[Txid | None]:
        """The Bitcoin node's answer."""
        await trio.lowlevel.checkpoint()
        return [self.mempool.get(outpoint) for outpoint in outpoints]

    async def chain_info(self) -> ChainInfo:
        """The Bitcoin node's answer: the tip is at the peg's depth above the newest block that it names."""
        await trio.lowlevel.checkpoint()
        blocks = START_HEIGHT + PARAMS.confirmations + self.extra_blocks
        return ChainInfo("regtest", blocks, blocks + self.headers_ahead, self.node_tip.hash, self.downloading, False, 0)

    async def transaction_block(self, txid: Txid) -> BlockHash | None:
        """The Bitcoin node's index."""
        await trio.lowlevel.checkpoint()
        self.looked_for.append(txid)
        return self.node_tip.hash if txid in self.indexed else None

    async def block_header(self, block_hash: BlockHash) -> L1Header | None:
        """The Bitcoin node's answer."""
        await trio.lowlevel.checkpoint()
        known = {block.hash: (block, confirmations) for block, confirmations in self.blocks.items()}
        if block_hash not in known:
            return None
        block, confirmations = known[block_hash]
        return L1Header(block.hash, block.height, confirmations, 1, bytes(32), 0, None)

    async def block_hash(self, height: int) -> BlockHash | None:
        """The Bitcoin node's answer."""
        await trio.lowlevel.checkpoint()
        active = [
            block.hash for block, confirmations in self.blocks.items() if block.height == height and confirmations > 0
        ]
        active += [block.hash for block in self.other_blocks if block.height == height]
        return active[0] if active else None

    async def block_headers(self, block_hashes: Sequence[BlockHash]) -> list[L1Header | None]:
        """The Bitcoin node's answer."""
        return [await self.block_header(block_hash) for block_hash in block_hashes]

    async def tip_of_node(self) -> tuple[int, BlockHash]:
        """The Bitcoin node's answer."""
        await trio.lowlevel.checkpoint()
        return self.node_tip.height, self.node_tip.hash


class _Client:
    """The client's half of the fake, whose `tip` is a question and no property."""

    def __init__(self, node: FakeNode) -> None:
        self.txouts = node.txouts
        self.mempool_spenders = node.mempool_spenders
        self.tip = node.tip_of_node
        self.chain_info = node.chain_info
        self.transaction_block = node.transaction_block
        self.block_header = node.block_header
        self.block_headers = node.block_headers
        self.block_hash = node.block_hash


def questions(node: FakeNode) -> L1Questions:
    return L1Questions(cast(L1Client, _Client(node)), cast(L1Watcher, node), PARAMS)


async def test_reserve_is_held_while_the_payout_waits() -> None:
    ledger = batched_ledger()
    reserve = await questions(FakeNode(ledger)).reserve(ledger)
    assert (reserve.held_sats, reserve.paid_out_sats, reserve.missing) == (1_400_000, 0, ())


async def test_coin_paid_out_in_a_block_not_read_yet_is_not_missing(autojump_clock: trio.abc.Clock) -> None:
    ledger = batched_ledger()
    node = FakeNode(ledger)
    node.mine()
    async with trio.open_nursery() as nursery:

        async def read_later() -> None:
            await trio.sleep(1)
            node.watch()

        nursery.start_soon(read_later)
        reserve = await questions(node).reserve(ledger)
    assert (reserve.held_sats, reserve.paid_out_sats, reserve.missing) == (400_000, 1_000_000, ())


async def test_reserve_is_not_judged_while_the_newest_blocks_stay_unread(autojump_clock: trio.abc.Clock) -> None:
    ledger = batched_ledger()
    node = FakeNode(ledger)
    node.mine()
    with pytest.raises(L1Unavailable) as caught:
        await questions(node).reserve(ledger)
    assert caught.value.reason is L1Reason.UNREAD
    with pytest.raises(L1Unavailable):
        await questions(node).reserve_facts(ledger, halted=False)


async def test_coin_is_missing_when_no_recorded_version_spent_it() -> None:
    ledger = batched_ledger()
    node = FakeNode(ledger)
    node.payouts = set()
    node.mine()
    node.watch()
    assert (await questions(node).reserve(ledger)).missing == only_lineage(ledger).inputs


async def test_coin_that_the_confirmed_version_leaves_alone_is_missing_when_it_is_gone() -> None:
    """A replacement added a coin, L1 confirmed the version before, and somebody took that coin."""
    ledger = open_payout([500_000, 90_000], [(500_000, 2_000)], donated_sats=60_000)
    first = only_lineage(ledger)
    added = set(bump(ledger).inputs) - set(first.inputs)
    assert added
    node = FakeNode(ledger)
    node.payouts = {first.versions[0].txid}
    node.mine()
    node.watch()
    assert set((await questions(node).reserve(ledger)).missing) == added


async def test_lost_coin_has_returned_when_it_is_mined_or_its_batch_may_be() -> None:
    """Else anybody could keep the transaction of a coin that no batch spends in the mempool, and the peg halted."""
    ledger = open_payout([500_000, 90_000], [(500_000, 2_000)], donated_sats=60_000)
    lost = [outpoint for outpoint, _ in ledger.coins.items()]
    locked = {outpoint for outpoint, coin in ledger.coins.items() if coin.lineage is not None}
    assert set(only_lineage(ledger).inputs) <= locked < set(lost)
    node = FakeNode(ledger)
    assert await questions(node).returned(lost, ledger) == set(lost)
    node.unmined = set(lost)  # in the mempool
    assert await questions(node).returned(lost, ledger) == locked


async def test_each_version_is_looked_for_once_however_many_coins_its_batch_locks() -> None:
    ledger = ledger_of([500_000] * 20, [(9_000_000, 500_000)])
    record(ledger, None, FEERATE)
    node = FakeNode(ledger)
    await questions(node).reserve_facts(ledger, halted=False)
    assert len(only_lineage(ledger).inputs) > 10
    assert node.looked_for == [version.txid for version in only_lineage(ledger).versions]


async def test_coin_is_not_missing_when_its_batch_settles_while_the_node_is_asked() -> None:
    ledger = batched_ledger()
    node = FakeNode(ledger)
    node.mine()
    node.watch()
    [payout] = node.payouts
    node.when_asked = lambda: settle(ledger, payout, START_HEIGHT + 1)
    reserve = await questions(node).reserve(ledger)
    assert (reserve.paid_out_sats, reserve.missing) == (1_000_000, ())


async def test_signature_is_asked_for_with_the_payouts_that_blocks_hold() -> None:
    ledger = batched_ledger()
    node = FakeNode(ledger)
    facts = await questions(node).reserve_facts(ledger, halted=False)
    assert (facts.l1_height, facts.confirmed) == (START_HEIGHT, frozenset())
    assert None not in facts.unspent.values()
    node.mine()
    node.watch()
    facts = await questions(node).reserve_facts(ledger, halted=True)
    assert (facts.l1_height, facts.halted, facts.confirmed) == (START_HEIGHT + 1, True, frozenset(node.payouts))
    assert [outpoint for outpoint, found in facts.unspent.items() if found is None] == list(node.spent)


async def test_signature_is_asked_for_with_what_the_mempool_spends() -> None:
    """Before the outputs: what a block takes from the mempool meanwhile is gone from them."""
    ledger = batched_ledger()
    node = FakeNode(ledger)
    [payout] = node.payouts
    stolen = next(outpoint for outpoint in node.coins if outpoint not in node.spent)
    node.mempool = {**dict.fromkeys(node.spent, payout), stolen: Txid(bytes(32))}
    waiting = dict(node.mempool)
    node.when_asked = node.mempool.clear
    facts = await questions(node).reserve_facts(ledger, halted=False)
    assert facts.spenders == waiting


async def test_payout_that_the_watcher_never_read_is_found_by_the_index() -> None:
    ledger = batched_ledger()
    node = FakeNode(ledger)
    node.indexed, node.payouts = node.payouts, set()
    node.mine()
    node.watch()
    reserve = await questions(node).reserve(ledger)
    assert (reserve.paid_out_sats, reserve.missing) == (1_000_000, ())
    [payout] = node.indexed
    assert await questions(node).block_of(payout) == node.node_tip


async def test_index_that_names_a_stale_block_is_no_confirmation() -> None:
    ledger = batched_ledger()
    node = FakeNode(ledger)
    node.indexed, node.payouts = node.payouts, set()
    node.mine()
    node.watch()
    node.blocks[node.node_tip] = -1
    [payout] = node.indexed
    assert await questions(node).block_of(payout) is None


@pytest.mark.parametrize(
    ("parent_confirmations", "expected"),
    [(1, AnchorStatus.ON_CHAIN), (-1, AnchorStatus.CONTRADICTED), (None, AnchorStatus.UNKNOWN)],
)
async def test_new_anchor_is_judged_with_the_one_it_should_descend_from(
    parent_confirmations: int | None, expected: AnchorStatus
) -> None:
    node = FakeNode(batched_ledger())
    parent, new = anchor(START_HEIGHT), anchor(START_HEIGHT + 1)
    if parent_confirmations is None:
        del node.blocks[parent]
    else:
        node.blocks[parent] = parent_confirmations
        node.other_blocks = {Anchor(parent.height, BlockHash(b"\x55" * 32))}
    facts = await questions(node).facts_for_evidence(parent, new, ())
    assert facts.anchor is expected


# What one's own node says on its way is no contradiction


def left_behind() -> tuple[FakeNode, Anchor]:
    """A node that has left a block for another one, for good; and that block."""
    node, left = FakeNode(batched_ledger()), anchor(START_HEIGHT)
    node.blocks[left] = -1
    node.other_blocks = {Anchor(left.height, BlockHash(b"\x55" * 32))}
    return node, left


async def test_anchor_that_the_node_left_for_good_is_contradicted() -> None:
    node, left = left_behind()
    assert await questions(node).anchor_status(left) is AnchorStatus.CONTRADICTED


@pytest.mark.parametrize(
    "on_its_way",
    [
        lambda node: setattr(node, "headers_ahead", 1),
        lambda node: setattr(node, "extra_blocks", -PARAMS.confirmations),
        lambda node: node.other_blocks.clear(),
    ],
    ids=["headers without blocks", "a stale tip that is not deep", "no block at that height"],
)
async def test_anchor_off_the_chain_of_a_node_on_its_way_is_unknown(on_its_way: Callable[[FakeNode], object]) -> None:
    node, left = left_behind()
    on_its_way(node)
    assert await questions(node).anchor_status(left) is AnchorStatus.UNKNOWN


async def test_height_is_wrong_only_where_the_node_holds_the_block() -> None:
    node, known = FakeNode(batched_ledger()), anchor(START_HEIGHT)
    false = Anchor(known.height + 5, known.hash)
    assert await questions(node).anchor_status(false) is AnchorStatus.WRONG_HEIGHT
    node.blocks = {false: 1}  # the header says so, and the chain does not
    node.other_blocks = {Anchor(false.height, BlockHash(b"\x55" * 32))}
    node.blocks[false] = -1
    assert await questions(node).anchor_status(known) is AnchorStatus.UNKNOWN
