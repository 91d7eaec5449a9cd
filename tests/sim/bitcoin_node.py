"""One member's Bitcoin node in a simulation: as much of the real L1 as it has seen, or a branch of its own."""

from collections.abc import Iterator, MutableMapping, Sequence
from typing import cast

from bridge.bitcoin.identifiers import BlockHash, OutPoint, Script, Txid
from bridge.bitcoin.transaction import Transaction, TxOut
from bridge.l1.answers import L1TxOut
from tests.sim.l1_index import L1Index
from tests.support.fake_l1 import MINER_SCRIPT, FakeBlock, FakeL1
from tests.support.fake_l1_client import FakeL1Client, L1World

FEERATE_SAT_KVB = 2_000
ANSWER_S = 0.001
WAITED_FOR = 4
"""Of a node that is well, every fourth answer takes time: a third of what a run did was to wait for answers."""


class SeenMempool(MutableMapping[Txid, Transaction]):
    """The one mempool as a node sees it. unseen: what has not reached it.  own: what it alone takes for good."""

    def __init__(self, index: L1Index) -> None:
        self._index = index
        self.unseen: set[Txid] = set()
        self.own: dict[Txid, Transaction] = {}

    def __getitem__(self, txid: Txid) -> Transaction:
        if txid in self.own:
            return self.own[txid]
        if txid in self.unseen:
            raise KeyError(txid)
        return self._index.l1.mempool[txid]

    def __setitem__(self, txid: Txid, transaction: Transaction) -> None:
        """It is passed on, and the others take it unless they know better than a node that is behind."""
        self.unseen.discard(txid)
        if self._index.may_be_mined(transaction):
            self._index.l1.mempool[txid] = transaction
        else:
            self.own[txid] = transaction

    def __delitem__(self, txid: Txid) -> None:
        if self.own.pop(txid, None) is None:
            self._index.l1.mempool.pop(txid, None)

    def __iter__(self) -> Iterator[Txid]:
        seen = (txid for txid in self._index.l1.mempool if txid not in self.unseen and txid not in self.own)
        return iter([*seen, *self.own])

    def __len__(self) -> int:
        return sum(1 for _ in self)


class BitcoinNode(FakeL1Client):
    """A Bitcoin node whose view of L1 may differ from the real one.

    seen_height: it has come no further; None when it is up to date.  branch: another chain that it takes for the best.
    """

    def __init__(self, index: L1Index, known_descriptors: dict[str, Script]) -> None:
        self._index = index
        self.seen_mempool = SeenMempool(index)
        world = L1World(index.l1.chain, cast("dict[Txid, Transaction]", self.seen_mempool), index.l1.pinned_sats)
        super().__init__(world, answer_s=ANSWER_S, feerate_sat_kvb=FEERATE_SAT_KVB, known_descriptors=known_descriptors)
        self.seen_height: int | None = None
        self.branch: list[FakeBlock] | None = None

    def recover(self) -> None:
        """All is well with it, at once."""
        self.rejoin()
        self.seen_height = None
        self.outage = False
        self.answer_s = ANSWER_S
        self.feerate_sat_kvb = FEERATE_SAT_KVB
        self.refusals.clear()
        self.seen_mempool.unseen.clear()
        self.seen_mempool.own.clear()

    def fork(self, fork_height: int, *, keeps_transactions: bool) -> None:
        """Take a branch above `fork_height` for the best, as long as the real one. What it replaces is known to it.

        keeps_transactions: whether the branch holds the transactions of the real one too; else they wait.
        """
        real = self._index.l1.chain.blocks
        own = FakeL1(list(real[: fork_height + 1]), payments=1_000_000 + 1_000 * len(real))
        replaced = real[fork_height + 1 :]
        for block in replaced:
            mark = own.payment(TxOut(1, MINER_SCRIPT))
            own.mine(mark, *(block.transactions[1:] if keeps_transactions else ()))
        if not keeps_transactions:
            waiting = {item.txid: item for block in replaced for item in block.transactions[1:]}
            self.seen_mempool.own.update(waiting)
        self.stale.update({block.hash: block for block in replaced})
        self.branch = own.blocks

    def rejoin(self) -> None:
        """Give a branch up for the real chain; it stays known as stale."""
        if self.branch is not None:
            real = self._index.l1.chain.blocks
            for block in self.branch:
                if block.height >= len(real) or real[block.height].hash != block.hash:
                    self.stale[block.hash] = block
            self.branch = None
            self.seen_mempool.own.clear()
        for block_hash in [item for item in self.stale if self._index.block(item) is not None]:
            del self.stale[block_hash]

    @property
    def is_plain(self) -> bool:
        """Whether it sees the real chain, up to some height."""
        return self.branch is None

    @property
    def length(self) -> int:
        """How many blocks of the real chain it has, on no branch."""
        real = len(self._index.l1.chain.blocks)
        return real if self.seen_height is None else min(real, self.seen_height + 1)

    @property
    def _blocks(self) -> list[FakeBlock]:
        if self.branch is not None:
            return self.branch
        blocks = self._index.l1.chain.blocks
        return blocks if self.seen_height is None else blocks[: self.seen_height + 1]

    def _block(self, block_hash: BlockHash) -> FakeBlock | None:
        if not self.is_plain:
            return super()._block(block_hash)
        block = self._index.block(block_hash)
        return block if block is not None and block.height < self.length else None

    def _header_of(self, txid: Txid) -> FakeBlock | None:
        if not self.is_plain:
            return super()._header_of(txid)
        self._index.follow()
        height, _ = self._index.mined.get(txid, (None, None))
        return self._blocks[height] if height is not None and height < self.length else None

    async def _take_time(self) -> None:
        if self.answer_s > ANSWER_S or len(self.asked) % WAITED_FOR == 0:
            await super()._take_time()

    async def raw_transaction(self, txid: Txid, block_hash: BlockHash | None = None) -> bytes | None:
        """See `FakeL1Client`."""
        if not self.is_plain:
            return await super().raw_transaction(txid, block_hash)
        await self._ask("raw_transaction")
        block = self._header_of(txid)
        if block is None or block_hash not in (None, block.hash):
            return None
        return next(item.serialize() for item in block.transactions if item.txid == txid)

    async def transaction_block(self, txid: Txid) -> BlockHash | None:
        """See `FakeL1Client`."""
        await self._ask("transaction_block")
        block = self._header_of(txid) if self.is_indexed else None
        return None if block is None else block.hash

    def _txouts(self, outpoints: Sequence[OutPoint], include_mempool: bool) -> list[L1TxOut | None]:
        if not self.is_plain:
            return super()._txouts(outpoints, include_mempool)
        self._index.follow()
        waiting = self.world.mempool.values() if include_mempool else ()
        spent = {txin.outpoint for transaction in waiting for txin in transaction.inputs} | self.hidden
        return [None if item in spent else self._unspent(item, include_mempool) for item in outpoints]

    def _unspent(self, outpoint: OutPoint, include_mempool: bool) -> L1TxOut | None:
        height, transaction = self._index.mined.get(outpoint.txid, (self.length, None))
        if transaction is None or height >= self.length:
            waiting = self.world.mempool.get(outpoint.txid) if include_mempool else None
            return self._output(outpoint, None if waiting is None else (self.length, waiting))
        if self._index.spent_at.get(outpoint, self.length) < self.length:
            return None
        return self._output(outpoint, (height, transaction))
