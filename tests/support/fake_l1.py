"""An L1 in memory: real transactions, headers and Merkle proofs, without proof of work or scripts."""

from dataclasses import dataclass, field
from functools import cached_property

from bridge.bitcoin.hashes import sha256d
from bridge.bitcoin.identifiers import BlockHash, OutPoint, Script, Txid
from bridge.bitcoin.transaction import NULL_VOUT, Transaction, TxIn, TxOut, compact_size
from bridge.evidence import Evidence, L1BlockFact, Opening
from bridge.state import Anchor
from pegnode.chain.facts import AnchorStatus, L1Facts, blocks_of

MINER_SCRIPT = Script(b"\x00\x14" + b"\x99" * 20)
SUBSIDY_SATS = 5_000_000_000


@dataclass(frozen=True)
class FakeBlock:
    """A block of the fake L1. header: 80 bytes."""

    height: int
    header: bytes
    transactions: tuple[Transaction, ...]

    @cached_property
    def hash(self) -> BlockHash:
        return BlockHash(sha256d(self.header))

    def serialize(self) -> bytes:
        """As a Bitcoin node sends it."""
        body = b"".join(transaction.serialize() for transaction in self.transactions)
        return self.header + compact_size(len(self.transactions)) + body


@dataclass
class FakeL1:
    """The active chain. Its genesis is regtest's in name only: the first block is whatever `mine` makes."""

    blocks: list[FakeBlock] = field(default_factory=list)
    payments: int = 0

    def mine(self, *transactions: Transaction) -> FakeBlock:
        """One more block with these transactions, behind a coinbase of its own."""
        height = len(self.blocks)
        coinbase = Transaction(
            1,
            (TxIn(OutPoint(Txid(bytes(32)), NULL_VOUT), b"\x04" + height.to_bytes(4, "little")),),
            (TxOut(SUBSIDY_SATS, MINER_SCRIPT),),
        )
        return self.mine_exactly(coinbase, *transactions)

    def mine_exactly(self, *transactions: Transaction) -> FakeBlock:
        """One more block that consists of these transactions, the first of which is its coinbase."""
        height = len(self.blocks)
        parent = self.blocks[-1].hash if self.blocks else bytes(32)
        root = _levels([transaction.txid for transaction in transactions])[-1][0]
        times = (1_700_000_000 + 600 * height).to_bytes(4, "little")
        header = (4).to_bytes(4, "little") + parent + root + times + b"\xff\xff\x7f\x20" + bytes(4)
        block = FakeBlock(height, header, transactions)
        self.blocks.append(block)
        return block

    def mine_empty(self, count: int) -> None:
        """More blocks."""
        for _ in range(count):
            self.mine()

    def reorganise(self, fork_height: int) -> list[FakeBlock]:
        """Give up all blocks above a height for one other block there; the abandoned branch, the fork before it."""
        branch = self.blocks[fork_height:]
        del self.blocks[fork_height + 1 :]
        self.mine(self.payment(TxOut(SUBSIDY_SATS, MINER_SCRIPT)))
        return branch

    def payment(self, *outputs: TxOut) -> Transaction:
        """A transaction nobody has seen, with these outputs; its input spends nothing in particular."""
        self.payments += 1
        return Transaction(2, (TxIn(OutPoint(Txid(sha256d(b"coin %d" % self.payments)), 0)),), outputs)

    @property
    def height(self) -> int:
        return len(self.blocks) - 1

    def anchor(self, height: int) -> Anchor:
        """The active block at a height."""
        return Anchor(height, self.blocks[height].hash)

    def block_of(self, block_hash: BlockHash) -> FakeBlock | None:
        return next((block for block in self.blocks if block.hash == block_hash), None)

    def fact(self, block_hash: BlockHash) -> L1BlockFact | None:
        """What the node says of a block; None when the active chain does not hold it."""
        block = self.block_of(block_hash)
        return None if block is None else L1BlockFact(block.height, len(block.transactions))

    def facts(self, anchor: Anchor, *evidence: Evidence) -> L1Facts:
        """What the node says about an anchor, and about the blocks that evidence names."""
        block = self.block_of(anchor.hash)
        if block is None:
            status = AnchorStatus.UNKNOWN if anchor.height > self.height else AnchorStatus.CONTRADICTED
        else:
            status = AnchorStatus.ON_CHAIN if block.height == anchor.height else AnchorStatus.WRONG_HEIGHT
        return L1Facts(status, {block_hash: self.fact(block_hash) for block_hash in blocks_of(evidence)})

    def evidence(self, transaction: Transaction, *openings: Opening) -> Evidence:
        """What proves a mined transaction."""
        block = next(block for block in self.blocks if transaction.txid in [item.txid for item in block.transactions])
        proof = merkle_block(block, transaction.txid)
        return Evidence(transaction.serialize_stripped(), proof, block.height, openings)


def merkle_block(block: FakeBlock, txid: Txid) -> bytes:
    """What gettxoutproof gives: the header and the partial tree that proves one transaction. Source: BIP37."""
    txids = [transaction.txid for transaction in block.transactions]
    levels = _levels(txids)
    target = txids.index(txid)
    hashes: list[bytes] = []
    bits: list[int] = []

    def descend(height: int, position: int) -> None:
        on_path = target >> height == position
        bits.append(int(on_path))
        if height == 0 or not on_path:
            hashes.append(levels[height][position])
            return
        descend(height - 1, 2 * position)
        if 2 * position + 1 < len(levels[height - 1]):
            descend(height - 1, 2 * position + 1)

    descend(len(levels) - 1, 0)
    flags = sum(bit << index for index, bit in enumerate(bits)).to_bytes((len(bits) + 7) // 8, "little")
    tree = compact_size(len(hashes)) + b"".join(hashes) + compact_size(len(flags)) + flags
    return block.header + len(txids).to_bytes(4, "little") + tree


def _levels(txids: list[Txid]) -> list[list[bytes]]:
    """Every level of the Merkle tree, the leaves first; an odd level's last node is paired with itself."""
    levels: list[list[bytes]] = [list(txids)]
    while len(levels[-1]) > 1:
        nodes = levels[-1]
        padded = nodes if len(nodes) % 2 == 0 else [*nodes, nodes[-1]]
        levels.append([sha256d(padded[index] + padded[index + 1]) for index in range(0, len(padded), 2)])
    return levels
