"""What this program needs of L1's blocks and mempool: of blocks the parent, of transactions id, inputs and outputs."""

from dataclasses import dataclass

from bitcoin.core import CBlock, CTransaction
from bitcoin.core.serialize import SerializationError

from bridge.bitcoin.identifiers import BlockHash, OutPoint, Script, Txid
from bridge.bitcoin.transaction import TxOut
from bridge.errors import MalformedError


@dataclass(frozen=True, slots=True)
class BlockTransaction:
    """One transaction of a block or of the mempool."""

    txid: Txid
    outputs: tuple[TxOut, ...]


@dataclass(frozen=True, slots=True)
class L1Block:
    """A block as one's own Bitcoin node gave it; that node has checked it, so nothing is checked again."""

    parent_hash: BlockHash
    transactions: tuple[BlockTransaction, ...]


def parse_block(data: bytes) -> L1Block:
    """The block in `data`, in Bitcoin's serialization with witnesses; raises MalformedError."""
    try:
        block = CBlock.deserialize(data)
    except (SerializationError, ValueError) as error:
        raise MalformedError("not a block") from error
    return L1Block(
        parent_hash=BlockHash(bytes(block.hashPrevBlock)),
        transactions=tuple(_transaction(tx) for tx in block.vtx),
    )


def parse_block_spends(data: bytes) -> tuple[tuple[Txid, tuple[OutPoint, ...]], ...]:
    """Each transaction of the block in `data`, in its order, with what it spends: the coinbase nothing.

    Raises MalformedError.
    """
    try:
        block = CBlock.deserialize(data)
    except (SerializationError, ValueError) as error:
        raise MalformedError("not a block") from error
    return tuple((Txid(bytes(tx.GetTxid())), () if tx.is_coinbase() else _spends(tx)) for tx in block.vtx)


def parse_block_transaction(data: bytes) -> BlockTransaction:
    """The transaction in `data`, with its witness, as one's own Bitcoin node gave it; raises MalformedError."""
    try:
        return _transaction(CTransaction.deserialize(data))
    except (SerializationError, ValueError) as error:
        raise MalformedError("not a transaction") from error


def _spends(tx: CTransaction) -> tuple[OutPoint, ...]:
    return tuple(OutPoint(Txid(bytes(item.prevout.hash)), item.prevout.n) for item in tx.vin)


def _transaction(tx: CTransaction) -> BlockTransaction:
    outputs = tuple(TxOut(out.nValue, Script(bytes(out.scriptPubKey))) for out in tx.vout)
    return BlockTransaction(Txid(bytes(tx.GetTxid())), outputs)
