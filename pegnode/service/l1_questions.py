"""What the rules want to know of L1, asked of one's own Bitcoin node.

Every answer is taken afresh where a vote, a signature or a verdict depends on it. An outage raises L1Unavailable: the
caller waits, and concludes nothing.
"""

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Final

import trio

from bridge.abandoned import AbandonedBranches, Ancestry
from bridge.bitcoin.identifiers import BlockHash, OutPoint, Txid
from bridge.bitcoin.transaction import TxOut
from bridge.evidence import Evidence, L1BlockFact
from bridge.l1.answers import ChainInfo, L1Header, L1TxOut
from bridge.l1.client import L1Client
from bridge.l1.errors import L1Reason, L1Unavailable
from bridge.l1.watcher import L1Watcher
from bridge.ledger import LedgerView
from bridge.lineages import open_versions
from bridge.params import PegParams
from bridge.state import Anchor, BatchVersion, Coin
from federation.recorded_batch import spends
from federation.reserve_law import ReserveFacts
from pegnode.chain.block import Block
from pegnode.chain.conditions import VoteFacts, claimed_outputs, lost_outputs
from pegnode.chain.facts import NO_FACTS, AnchorStatus, L1Facts, needs_l1, required_facts
from pegnode.chain.header import Header
from pegnode.rpc.node_api import L1Reserve
from pegnode.service.abandoned_branch import AbandonedBranch, abandoned_branch

FEERATE_TARGET_BLOCKS: Final = 6
WATCHER_LAG_S: Final = 5.0
"""How long to wait for the watcher to read the Bitcoin node's newest blocks; it polls twice a second."""
WATCHER_POLL_S: Final = 0.1


class L1Questions:
    """Answers about blocks, anchors, deposits and the reserve."""

    def __init__(self, client: L1Client, watcher: L1Watcher, params: PegParams) -> None:
        self._client = client
        self._watcher = watcher
        self._params = params

    async def active_block(self, height: int) -> BlockHash | None:
        """The active chain's block at `height`; None above the tip. Raises L1Unavailable."""
        return await self._client.block_hash(height)

    async def facts(self, parent: Header, block: Block, branches: AbandonedBranches) -> L1Facts:
        """What validity needs to know about `block`. branches: those that records abandoned. Raises L1Unavailable."""
        if not needs_l1(parent, block):
            return NO_FACTS
        # A rebase leaves the parent's branch: there it is the record, and no descent, that vouches for the new anchor.
        below = parent.anchor if block.body.rebase is None else block.header.anchor
        facts = await self._facts(below, block.header.anchor, required_facts(block))
        if facts.anchor is AnchorStatus.ON_CHAIN or not branches.knows(block.header.anchor):
            return facts
        return await self._facts_of_abandoned(below, branches.ancestry(block.header.anchor), required_facts(block))

    async def facts_for_evidence(self, parent: Anchor, anchor: Anchor, evidence: Iterable[Evidence]) -> L1Facts:
        """What building a block at `anchor`, on a parent at `parent`, with some of `evidence` needs to know.

        Raises L1Unavailable.
        """
        return await self._facts(parent, anchor, tuple(dict.fromkeys(item.l1_block_hash for item in evidence)))

    async def _facts(self, parent: Anchor, anchor: Anchor, block_hashes: Iterable[BlockHash]) -> L1Facts:
        wanted = list(block_hashes)
        if await self._descent(parent, anchor) is AnchorStatus.ON_CHAIN:
            headers = await self._client.block_headers(wanted)
            if any(header is not None and _is_unread(header) for header in headers):
                return L1Facts(AnchorStatus.UNKNOWN)
            blocks = {block_hash: _fact(header) for block_hash, header in zip(wanted, headers, strict=True)}
            if await self._descent(parent, anchor) is AnchorStatus.ON_CHAIN:
                return L1Facts(AnchorStatus.ON_CHAIN, blocks)
        # Also when the chain changed between two questions, for then the answers are not of one chain.
        return L1Facts(await self._descent(parent, anchor))

    async def _facts_of_abandoned(self, parent: Anchor, ancestry: Ancestry, wanted: Sequence[BlockHash]) -> L1Facts:
        """What lay below an abandoned anchor: what its records say, and below their root the active chain."""
        status = await self.anchor_status(ancestry.root)
        if status is not AnchorStatus.ON_CHAIN:
            return L1Facts(status)
        headers = await self._client.block_headers([parent.hash, *wanted])
        if any(header is not None and header.confirmations > 0 and _is_unread(header) for header in headers):
            return L1Facts(AnchorStatus.UNKNOWN)
        below, *facts = [
            ancestry.fact(block_hash, _fact(header))
            for block_hash, header in zip([parent.hash, *wanted], headers, strict=True)
        ]
        if below is None or below.height != parent.height:
            return L1Facts(AnchorStatus.CONTRADICTED)
        return L1Facts(await self.anchor_status(ancestry.root), dict(zip(wanted, facts, strict=True)))

    async def _descent(self, parent: Anchor, anchor: Anchor) -> AnchorStatus:
        """Where `anchor` stands, if the active chain holds the parent's anchor too, so that the one descends from it.

        Otherwise where the parent's stands: whatever the new one is, it is not on top of what is decided.
        """
        status = await self.anchor_status(anchor)
        if status is not AnchorStatus.ON_CHAIN:
            return status
        return await self.anchor_status(parent)

    async def anchor_status(self, anchor: Anchor) -> AnchorStatus:
        """Where `anchor` stands on the active chain. Raises L1Unavailable.

        A node on its way tells much that it will take back: one that returns with a stale tip first learns of the
        headers above the anchor, and calls it off its chain. So only what it can't take back is a contradiction.
        """
        if await self._client.block_hash(anchor.height) == anchor.hash:
            return AnchorStatus.ON_CHAIN
        header = await self._client.block_header(anchor.hash)
        if header is None:
            return AnchorStatus.UNKNOWN
        if header.height != anchor.height:
            active = header.confirmations > 0 and await self._client.block_hash(header.height) == anchor.hash
            return AnchorStatus.WRONG_HEIGHT if active else AnchorStatus.UNKNOWN
        if header.confirmations < 0 and await self.has_another_block(anchor, await self._client.chain_info()):
            return AnchorStatus.CONTRADICTED
        return AnchorStatus.UNKNOWN

    async def left_branch(self, anchor: Anchor) -> AbandonedBranch | None:
        """The branch that ends in `anchor`, if the Bitcoin node left it and knows all of it. Raises L1Unavailable."""
        return await abandoned_branch(self._client, anchor)

    async def has_another_block(self, anchor: Anchor, chain: ChainInfo) -> bool:
        """Whether the active chain holds another block than `anchor` at its height, and means it.

        It means it when the node has downloaded all that it knows of, and that other block is at the peg's depth.
        chain: what the node said of itself just now.  Raises L1Unavailable.
        """
        depth = chain.blocks - anchor.height + 1
        if chain.is_downloading or chain.blocks < chain.headers or depth < self._params.confirmations:
            return False
        return await self._client.block_hash(anchor.height) not in (None, anchor.hash)

    async def block_fact(self, block_hash: BlockHash) -> L1BlockFact | None:
        """What evidence needs of a block; None unless the active chain holds it. Raises L1Unavailable."""
        return _fact(await self._client.block_header(block_hash))

    async def feerate_sat_kvb(self) -> int | None:
        """The Bitcoin node's estimate, within the peg's floor and ceiling; None when it has none."""
        estimate = await self._client.estimate_feerate(FEERATE_TARGET_BLOCKS)
        if estimate is None:
            return None
        return min(max(estimate, self._params.feerate_floor_sat_kvb), self._params.feerate_ceiling_sat_kvb)

    async def vote_facts(
        self, parent: Header, block: Block, ledger: LedgerView, *, now_ms: int, halted: bool
    ) -> VoteFacts:
        """What this member's prudence needs to know about `block`, whose parent's ledger is `ledger`."""
        claimed, lost = claimed_outputs(block), lost_outputs(block)
        if not needs_l1(parent, block) and not block.body.batches and not lost:
            return VoteFacts(now_ms=now_ms, anchor_confirmations=None, halted=halted)
        outputs = await self._client.txouts(claimed, include_mempool=True)
        returned = await self.returned(lost, ledger)
        return VoteFacts(
            now_ms=now_ms,
            anchor_confirmations=await self.confirmations(block.header.anchor),
            unspent={
                **{outpoint: found is not None for outpoint, found in zip(claimed, outputs, strict=True)},
                **{outpoint: outpoint in returned for outpoint in lost},
            },
            feerate_estimate_sat_kvb=await self.feerate_sat_kvb() if block.body.batches else None,
            halted=halted,
            reserve_agrees=bool(block.body.records) or not (await self.reserve(ledger)).missing,
            confirmed=await self.confirmed_versions(ledger) if block.body.batches else frozenset(),
        )

    async def confirmations(self, anchor: Anchor) -> int | None:
        """Of a block on the active chain; None for any other. Raises L1Unavailable."""
        tip_height, _ = await self._client.tip()
        on_chain = await self._client.block_hash(anchor.height) == anchor.hash
        return tip_height - anchor.height + 1 if on_chain else None

    async def returned(self, outpoints: Sequence[OutPoint], ledger: LedgerView) -> frozenset[OutPoint]:
        """Those that this node holds unspent in its chain, and those that a batch locks also in its mempool.

        With such a coin its payout might come back, and pay beside the next one. Another coin that comes back late
        enters again, and anybody could keep its transaction in mempools for ever.  Raises L1Unavailable.
        """
        if not outpoints:
            return frozenset()
        coins = (ledger.coins.get(outpoint) for outpoint in outpoints)
        locked = [coin.outpoint for coin in coins if coin is not None and coin.lineage is not None]
        waiting = await self._client.txouts(locked, include_mempool=True)
        mined = await self._client.txouts(outpoints, include_mempool=False)
        found = chain(zip(locked, waiting, strict=True), zip(outpoints, mined, strict=True))
        return frozenset(outpoint for outpoint, output in found if output is not None)

    async def confirmed_versions(self, ledger: LedgerView) -> frozenset[Txid]:
        """The versions of open batches that the active chain holds. Raises L1Unavailable."""
        return await self._confirmed(open_versions(ledger))

    async def spent(self, outpoints: Sequence[OutPoint]) -> frozenset[OutPoint]:
        """Those that this Bitcoin node does not hold unspent, its mempool included. Raises L1Unavailable."""
        if not outpoints:
            return frozenset()
        found = await self._client.txouts(outpoints, include_mempool=True)
        return frozenset(outpoint for outpoint, output in zip(outpoints, found, strict=True) if output is None)

    async def transaction(self, txid: Txid, block: Anchor) -> bytes | None:
        """A transaction with its witness, from an L1 block; None when that doesn't hold it. Raises L1Error."""
        return await self._client.raw_transaction(txid, block.hash)

    async def in_mempool(self, txid: Txid) -> bool:
        """Whether the Bitcoin node's mempool holds a transaction. Raises L1Unavailable."""
        return await self._client.mempool_contains(txid)

    async def has_transaction_index(self) -> bool:
        """Whether the Bitcoin node finds confirmed transactions of any age by their id alone. Raises L1Unavailable."""
        return await self._client.has_transaction_index()

    async def reserve(self, ledger: LedgerView) -> L1Reserve:
        """The ledger's coins as this Bitcoin node has them. Raises L1Unavailable."""
        versions = _versions_by_coin(ledger)  # taken at once: the ledger may move on while the node is asked
        _, outputs = await self._coin_outputs(versions)
        gone = [coin for coin, output in zip(versions, outputs, strict=True) if output is None]
        spent = await self._spent_by_confirmed(chain.from_iterable(versions[coin] for coin in gone))
        return L1Reserve(
            held_sats=sum(output.value_sats for output in outputs if output is not None),
            paid_out_sats=sum(coin.value_sats for coin in gone if coin.outpoint in spent),
            missing=tuple(coin.outpoint for coin in gone if coin.outpoint not in spent),
        )

    async def reserve_facts(self, ledger: LedgerView, *, halted: bool) -> ReserveFacts:
        """What a signature needs to know of the reserve. Raises L1Unavailable."""
        versions = _versions_by_coin(ledger)
        outpoints = [coin.outpoint for coin in versions]
        # First: what leaves the mempool for a block meanwhile is missed among the outputs.
        spenders = await self._client.mempool_spenders(outpoints)
        tip_height, outputs = await self._coin_outputs(versions)
        unspent = {
            coin.outpoint: None if found is None else TxOut(found.value_sats, found.script)
            for coin, found in zip(versions, outputs, strict=True)
        }
        recorded = dict.fromkeys(chain.from_iterable(versions.values()))  # coins of one batch share its versions
        confirmed = await self._confirmed(version.txid for version in recorded)
        spent = {outpoint: txid for outpoint, txid in zip(outpoints, spenders, strict=True) if txid is not None}
        return ReserveFacts(tip_height, halted, spent, unspent, confirmed)

    async def _coin_outputs(self, coins: Iterable[Coin]) -> tuple[int, list[L1TxOut | None]]:
        """The tip's height, and each coin's output. Raises L1Unavailable.

        A coin that is gone may have been paid out in a block that the watcher has yet to read. So the answer waits
        until the watcher knows every block that it tells of.
        """
        outpoints = [coin.outpoint for coin in coins]
        with trio.move_on_after(WATCHER_LAG_S):
            while True:
                outputs = await self._client.txouts(outpoints, include_mempool=False)
                tip_height, tip_hash = await self._client.tip()
                watched = self._watcher.tip
                if None not in outputs or (watched is not None and watched.hash == tip_hash):
                    return tip_height, outputs
                await trio.sleep(WATCHER_POLL_S)
        raise L1Unavailable(L1Reason.UNREAD, "a reserve coin is gone, and the newest blocks are not read yet")

    async def _spent_by_confirmed(self, versions: Iterable[BatchVersion]) -> frozenset[OutPoint]:
        """What those of the versions spend that are confirmed. Each is asked for once, and read only if it is."""
        recorded = {version.txid: version for version in versions}  # coins of one batch share its versions
        confirmed = [recorded[txid] for txid in await self._confirmed(recorded)]
        return frozenset(chain.from_iterable(spends(version.transaction) for version in confirmed))

    async def _confirmed(self, txids: Iterable[Txid]) -> frozenset[Txid]:
        return frozenset([txid for txid in txids if await self.block_of(txid) is not None])

    async def block_of(self, txid: Txid) -> Anchor | None:
        """The active chain's block that holds a transaction: from the watcher's window, else from the node's index.

        Raises L1Unavailable.
        """
        seen = self._watcher.block_of(txid)
        if seen is not None:
            return seen
        block_hash = await self._client.transaction_block(txid)
        header = None if block_hash is None else await self._client.block_header(block_hash)
        return None if header is None or header.confirmations < 1 else Anchor(header.height, header.block_hash)


def _versions_by_coin(ledger: LedgerView) -> dict[Coin, tuple[BatchVersion, ...]]:
    """Every coin with the versions of the open batch that locks it."""
    by_lineage = {number: lineage.versions for number, lineage in ledger.open_lineages.items()}
    return {coin: () if coin.lineage is None else by_lineage.get(coin.lineage, ()) for _, coin in ledger.coins.items()}


def _fact(header: L1Header | None) -> L1BlockFact | None:
    """What evidence needs of a block; None unless the active chain holds it, and the node has read it."""
    if header is None or header.confirmations < 1 or _is_unread(header):
        return None
    return L1BlockFact(header.height, header.n_tx)


def _is_unread(header: L1Header) -> bool:
    """Whether the node knows a block by its header alone, as below a snapshot of the UTXO set that it started from."""
    return header.n_tx == 0
