"""A Bitcoin node in memory, as one member sees it: the shared chain of a FakeL1, as far as this node has come.

It answers what the service asks of `L1Client`, in the same types. A test may let it lag, fail, or refuse.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import trio

from bridge.bitcoin.identifiers import BlockHash, OutPoint, Script, Txid, hash_from_hex
from bridge.bitcoin.script_engine import verify_scripts
from bridge.bitcoin.transaction import Transaction, TxOut
from bridge.errors import Rejected
from bridge.l1.answers import ChainInfo, L1Header, L1TxOut, NetworkInfo, ScannedOutput, TxOutSetScan
from bridge.l1.errors import L1Error, L1Reason, L1RpcError, L1Unavailable, RpcCode
from pegnode.genesis_rules import L1_GENESIS_HASHES_HEX
from tests.support.fake_l1 import FakeBlock, FakeL1, merkle_block

ANSWER_S = 0.001
"""How long an answer takes, unless the test says otherwise: other tasks may change the world meanwhile."""


REGTEST_GENESIS = BlockHash(hash_from_hex(L1_GENESIS_HASHES_HEX["regtest"]))


@dataclass
class L1World:
    """What every Bitcoin node shares: the chain, and one mempool.

    pinned_sats: fees of what somebody spends out of a transaction in the mempool, which a replacement must exceed too.
    """

    chain: FakeL1 = field(default_factory=FakeL1)
    mempool: dict[Txid, Transaction] = field(default_factory=dict)
    pinned_sats: dict[Txid, int] = field(default_factory=dict)

    def mine(self, count: int = 1) -> None:
        """More blocks, the first of which holds the mempool."""
        waiting, self.mempool = list(self.mempool.values()), {}
        self.chain.mine(*waiting)
        self.chain.mine_empty(count - 1)


@dataclass
class FakeL1Client:
    """One node. lag_blocks: how far it is behind.  outage: it can't be asked.

    refusals: an error by method, raised instead of an answer.  asked: the methods' names.
    on_ask: called with each name before it is answered.  lie: makes another header of a true one.
    stale: blocks by hash that it knows off its active chain.
    unread: blocks that it knows by their headers alone.  headers_ahead: further headers that it knows of.
    is_indexed: whether it finds transactions by their id.  hidden: outputs that it calls spent.
    """

    world: L1World
    lag_blocks: int = 0
    answer_s: float = ANSWER_S
    outage: bool = False
    feerate_sat_kvb: int | None = 2_000
    refusals: dict[str, L1Error] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    on_ask: Callable[[str], None] | None = None
    lie: Callable[[L1Header], L1Header | None] = lambda header: header
    stale: dict[BlockHash, FakeBlock] = field(default_factory=dict)
    unread: set[BlockHash] = field(default_factory=set)
    headers_ahead: int = 0
    downloading: bool = False
    prune_height: int = 0
    version: int = 290_000
    connections: int = 1
    first_block: BlockHash = REGTEST_GENESIS
    known_descriptors: dict[str, Script] = field(default_factory=dict)
    is_indexed: bool = True
    hidden: set[OutPoint] = field(default_factory=set)

    async def tip(self) -> tuple[int, BlockHash]:
        await self._ask("tip")
        block = self._blocks[-1]
        return block.height, block.hash

    async def chain_info(self) -> ChainInfo:
        await self._ask("chain_info")
        tip = self._blocks[-1]
        headers = tip.height + self.headers_ahead
        pruned = self.prune_height > 0
        return ChainInfo("regtest", tip.height, headers, tip.hash, self.downloading, pruned, self.prune_height)

    async def network_info(self) -> NetworkInfo:
        await self._ask("network_info")
        return NetworkInfo(self.version, "/Fake:29.0/", self.connections, 1_000, 1_000)

    async def block_hash(self, height: int) -> BlockHash | None:
        await self._ask("block_hash")
        if height == 0:
            return self.first_block
        return self._blocks[height].hash if height < len(self._blocks) else None

    async def block_header(self, block_hash: BlockHash) -> L1Header | None:
        [header] = await self.block_headers([block_hash])
        return header

    async def block_headers(self, block_hashes: Sequence[BlockHash]) -> list[L1Header | None]:
        await self._ask("block_headers")
        headers = [self._header(block_hash) for block_hash in block_hashes]
        return [header and self.lie(header) for header in headers]

    async def block(self, block_hash: BlockHash) -> bytes:
        await self._ask("block")
        block = self._block(block_hash) or self.stale.get(block_hash)
        if block is None:
            raise L1RpcError("getblock", RpcCode.NOT_FOUND, "Block not found")
        return block.serialize()

    async def txouts(self, outpoints: Sequence[OutPoint], include_mempool: bool) -> list[L1TxOut | None]:
        await self._ask("txouts")
        return self._txouts(outpoints, include_mempool)

    async def tx_out_proof(self, txids: Sequence[Txid], block_hash: BlockHash) -> bytes:
        await self._ask("tx_out_proof")
        block = self._block(block_hash)
        [txid] = txids
        if block is None or txid not in {transaction.txid for transaction in block.transactions}:
            raise L1RpcError("gettxoutproof", RpcCode.NOT_FOUND, "Not all transactions found")
        return merkle_block(block, txid)

    async def raw_transaction(self, txid: Txid, block_hash: BlockHash | None = None) -> bytes | None:
        await self._ask("raw_transaction")
        for block in self._blocks:
            for transaction in block.transactions:
                if transaction.txid == txid and block_hash in (None, block.hash):
                    return transaction.serialize()
        return None

    async def mempool_txids(self) -> frozenset[Txid]:
        await self._ask("mempool_txids")
        return frozenset(self.world.mempool)

    async def raw_transactions(self, txids: Sequence[Txid]) -> list[bytes | None]:
        await self._ask("raw_transactions")
        found = [self.world.mempool.get(txid) for txid in txids]
        return [None if transaction is None else transaction.serialize() for transaction in found]

    async def has_transaction_index(self) -> bool:
        await self._ask("has_transaction_index")
        return self.is_indexed

    async def transaction_block(self, txid: Txid) -> BlockHash | None:
        await self._ask("transaction_block")
        if not self.is_indexed:
            return None
        return next((block.hash for block in self._blocks if txid in {tx.txid for tx in block.transactions}), None)

    async def send_raw_transaction(self, transaction: bytes) -> Txid:
        await self._ask("send_raw_transaction")
        parsed = Transaction.parse(transaction)
        if self._header_of(parsed.txid) is not None:
            raise L1RpcError("sendrawtransaction", RpcCode.ALREADY_IN_CHAIN, "Transaction outputs already in utxo set")
        found = self._txouts([txin.outpoint for txin in parsed.inputs], include_mempool=False)
        prevouts = [TxOut(output.value_sats, output.script) for output in found if output is not None]
        if len(prevouts) != len(parsed.inputs):
            raise L1RpcError("sendrawtransaction", RpcCode.VERIFY_ERROR, "bad-txns-inputs-missingorspent")
        try:
            verify_scripts(parsed, prevouts)
        except Rejected as error:
            raise L1RpcError("sendrawtransaction", RpcCode.VERIFY_REJECTED, error.detail) from error
        self._replace(parsed, sum(prevout.value_sats for prevout in prevouts))
        self.world.mempool[parsed.txid] = parsed
        return parsed.txid

    def _replace(self, transaction: Transaction, spent_sats: int) -> None:
        """Evict what the mempool holds that spends the same, if this pays for it. Source: BIP125, rules 3 and 4."""
        spent = {txin.outpoint for txin in transaction.inputs}
        evicted = [
            other
            for other in self.world.mempool.values()
            if other.txid != transaction.txid and spent & {txin.outpoint for txin in other.inputs}
        ]
        fee_sats = spent_sats - sum(output.value_sats for output in transaction.outputs)
        old_sats = sum(self._fee_sats(other) + self.world.pinned_sats.get(other.txid, 0) for other in evicted)
        if evicted and fee_sats < old_sats + transaction.vsize_vbytes:
            raise L1RpcError("sendrawtransaction", RpcCode.VERIFY_REJECTED, "insufficient fee, rejecting replacement")
        for other in evicted:
            del self.world.mempool[other.txid]

    def _fee_sats(self, transaction: Transaction) -> int:
        found = self._txouts([txin.outpoint for txin in transaction.inputs], include_mempool=False)
        spent_sats = sum(output.value_sats for output in found if output is not None)
        return spent_sats - sum(output.value_sats for output in transaction.outputs)

    async def mempool_contains(self, txid: Txid) -> bool:
        await self._ask("mempool_contains")
        return txid in self.world.mempool

    async def mempool_spenders(self, outpoints: Sequence[OutPoint]) -> list[Txid | None]:
        await self._ask("mempool_spenders")
        waiting = self.world.mempool.values()
        by = {txin.outpoint: transaction.txid for transaction in waiting for txin in transaction.inputs}
        return [by.get(outpoint) for outpoint in outpoints]

    async def scan_txoutset(self, descriptors: Sequence[str]) -> TxOutSetScan:
        await self._ask("scan_txoutset")
        scripts = {self.script_of(descriptor) for descriptor in descriptors}
        outputs = [
            ScannedOutput(outpoint, output.value_sats, output.script, block.height, transaction.is_coinbase)
            for block in self._blocks
            for transaction in block.transactions
            for vout, output in enumerate(transaction.outputs)
            if output.script in scripts
            and self._txouts([outpoint := transaction.outpoint(vout)], include_mempool=False) != [None]
        ]
        return TxOutSetScan(self._blocks[-1].height, self._blocks[-1].hash, tuple(outputs))

    def script_of(self, descriptor: str) -> Script:
        """The script of a descriptor that a member may scan for: a reserve script's, or a raw script."""
        if descriptor.startswith("raw("):
            return Script(bytes.fromhex(descriptor[4:-1]))
        return self.known_descriptors[descriptor]

    async def estimate_feerate(self, target_blocks: int) -> int | None:
        await self._ask("estimate_feerate")
        return self.feerate_sat_kvb

    async def aclose(self) -> None:
        pass

    @property
    def _blocks(self) -> list[FakeBlock]:
        """The active chain as this node has it."""
        blocks = self.world.chain.blocks
        return blocks[: len(blocks) - self.lag_blocks]

    async def _ask(self, method: str) -> None:
        self.asked.append(method)
        await self._take_time()
        if self.on_ask is not None:
            self.on_ask(method)
        if self.outage:
            raise L1Unavailable(L1Reason.UNREACHABLE, "the test says so")
        if method in self.refusals:
            raise self.refusals[method]

    async def _take_time(self) -> None:
        await trio.sleep(self.answer_s)

    def _block(self, block_hash: BlockHash) -> FakeBlock | None:
        return next((block for block in self._blocks if block.hash == block_hash), None)

    def _header(self, block_hash: BlockHash) -> L1Header | None:
        block = self._block(block_hash) or self.stale.get(block_hash)
        if block is None:
            return None
        depth = -1 if block_hash in self.stale else len(self._blocks) - block.height
        parent = BlockHash(block.header[4:36])
        root = block.header[36:68]
        n_tx = 0 if block_hash in self.unread else len(block.transactions)
        return L1Header(block.hash, block.height, depth, n_tx, root, 0, parent)

    def _header_of(self, txid: Txid) -> FakeBlock | None:
        return next((block for block in self._blocks if txid in {tx.txid for tx in block.transactions}), None)

    def _txouts(self, outpoints: Sequence[OutPoint], include_mempool: bool) -> list[L1TxOut | None]:
        mined = [(block.height, transaction) for block in self._blocks for transaction in block.transactions]
        if include_mempool:
            mined += [(len(self._blocks), transaction) for transaction in self.world.mempool.values()]
        spent = {txin.outpoint for _, transaction in mined for txin in transaction.inputs} | self.hidden
        by_txid = {transaction.txid: (height, transaction) for height, transaction in reversed(mined)}
        return [None if item in spent else self._output(item, by_txid.get(item.txid)) for item in outpoints]

    def _output(self, outpoint: OutPoint, found: tuple[int, Transaction] | None) -> L1TxOut | None:
        if found is None or outpoint.vout >= len(found[1].outputs):
            return None
        height, transaction = found
        output = transaction.outputs[outpoint.vout]
        depth, best = len(self._blocks) - height, self._blocks[-1].hash
        return L1TxOut(output.value_sats, output.script, depth, transaction.is_coinbase, best)
