"""The real L1 of a simulation, indexed, so that many Bitcoin nodes can be asked about it at little cost."""

from bridge.bitcoin.identifiers import BlockHash, OutPoint, Txid
from bridge.bitcoin.transaction import Transaction
from tests.support.fake_l1 import FakeBlock
from tests.support.fake_l1_client import L1World


class L1Index:
    """What the real chain holds, and where. It only ever grows; `follow` reads its new blocks."""

    def __init__(self, l1: L1World) -> None:
        self.l1 = l1
        self._read = 0
        self.heights: dict[BlockHash, int] = {}
        self.mined: dict[Txid, tuple[int, Transaction]] = {}
        self.spent_at: dict[OutPoint, int] = {}

    def follow(self) -> None:
        """Read what was mined since."""
        blocks = self.l1.chain.blocks
        while self._read < len(blocks):
            block = blocks[self._read]
            self._read += 1
            self.heights[block.hash] = block.height
            for transaction in block.transactions:
                self.mined.setdefault(transaction.txid, (block.height, transaction))
                for txin in transaction.inputs:
                    self.spent_at.setdefault(txin.outpoint, block.height)

    def may_be_mined(self, transaction: Transaction) -> bool:
        """Whether the next block may hold it: it is in none, and nothing that it spends is spent."""
        self.follow()
        return transaction.txid not in self.mined and not any(
            txin.outpoint in self.spent_at for txin in transaction.inputs
        )

    def block(self, block_hash: BlockHash) -> FakeBlock | None:
        """A block of the real chain."""
        self.follow()
        height = self.heights.get(block_hash)
        return None if height is None else self.l1.chain.blocks[height]
