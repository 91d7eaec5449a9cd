"""Finding transactions and outputs where they may be: in the final chain or waiting for a block."""

from dataclasses import dataclass

from bridge.bitcoin.hashes import sha256
from bridge.bitcoin.identifiers import OutPoint, Txid
from bridge.bitcoin.transaction import Transaction, TxOut
from pegnode.chain.state import TransactionKind
from pegnode.mempool.pool import WaitingTransaction
from pegnode.rpc.node_api import NodeApi
from pegnode.storage.indexes import FinalTransaction
from pegnode.storage.keys import Place


@dataclass(frozen=True, slots=True)
class FoundTransaction:
    """A transaction, final or waiting. place: None while it waits."""

    transaction: Transaction
    fee_sats: int
    kind: TransactionKind
    place: Place | None


def find_transaction(node: NodeApi, txid: Txid) -> FoundTransaction | None:
    """The transaction of this txid, or None."""
    final = node.store.index.transaction(txid)
    if final is not None:
        return found_final(final)
    waiting = node.mempool.get(txid)
    return None if waiting is None else found_waiting(waiting)


def found_final(final: FinalTransaction) -> FoundTransaction:
    """A final transaction."""
    return FoundTransaction(Transaction.parse(final.data), final.fee_sats, final.kind, final.place)


def found_waiting(waiting: WaitingTransaction) -> FoundTransaction:
    """A waiting one."""
    return FoundTransaction(waiting.transaction, waiting.fee_sats, TransactionKind.TRANSFER, None)


def find_output(node: NodeApi, outpoint: OutPoint) -> TxOut | None:
    """The output of a final or waiting transaction, spent or not; None for the input of a claim or refund."""
    found = find_transaction(node, outpoint.txid)
    if found is None or outpoint.vout >= len(found.transaction.outputs):
        return None
    return found.transaction.outputs[outpoint.vout]


class MempoolIndex:
    """The waiting transactions by script. It follows the mempool when asked, and looks only at what came or went."""

    def __init__(self, node: NodeApi) -> None:
        self._node = node
        self._scripts: dict[Txid, frozenset[bytes]] = {}
        self._by_script: dict[bytes, set[Txid]] = {}

    def touching(self, script_hash: bytes) -> list[WaitingTransaction]:
        """The waiting transactions that pay a script or spend from it, oldest first. script_hash: its sha256."""
        entries = {entry.transaction.txid: entry for entry in self._node.mempool.entries()}
        for txid in self._scripts.keys() - entries.keys():
            self._remove(txid)
        for txid in entries.keys() - self._scripts.keys():
            self._add(txid, entries[txid].transaction)
        txids = self._by_script.get(script_hash, set())
        return [entry for txid, entry in entries.items() if txid in txids] if txids else []

    def _add(self, txid: Txid, transaction: Transaction) -> None:
        spent = (find_output(self._node, item.outpoint) for item in transaction.inputs)
        touched = {output.script for output in (*transaction.outputs, *spent) if output is not None}
        self._scripts[txid] = frozenset(sha256(script) for script in touched)
        for script_hash in self._scripts[txid]:
            self._by_script.setdefault(script_hash, set()).add(txid)

    def _remove(self, txid: Txid) -> None:
        for script_hash in self._scripts.pop(txid):
            self._by_script[script_hash].discard(txid)
            if not self._by_script[script_hash]:
                del self._by_script[script_hash]
