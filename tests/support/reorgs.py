"""Reorganisations of the L1 that a federation in memory shares."""

from bridge.bitcoin.transaction import Transaction, TxOut
from tests.support.fake_l1 import MINER_SCRIPT, FakeBlock
from tests.support.members import MemoryFederation


def reorganise(federation: MemoryFederation, depth: int, *first: Transaction, longer: int = 1) -> list[FakeBlock]:
    """Put a branch that is longer by so many blocks in the place of the newest `depth` blocks; those.

    first: what the new branch's first block holds. What the abandoned blocks held is nowhere; every node knows them.
    """
    chain = federation.l1.chain
    left = chain.blocks[-depth:]
    del chain.blocks[-depth:]
    for node in federation.nodes.values():
        node.stale |= {block.hash: block for block in left}
    chain.mine(chain.payment(TxOut(1_000, MINER_SCRIPT)), *first)  # without it, it would be the same block again
    chain.mine_empty(depth + longer - 1)
    return left


def double_spend(transaction: Transaction) -> Transaction:
    """Another transaction that spends what this one spent."""
    return Transaction(2, transaction.inputs, (TxOut(1_000, MINER_SCRIPT),))
