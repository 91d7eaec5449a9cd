"""Finding transactions and outputs where they may be: in the final chain or waiting for a block."""

from dataclasses import dataclass

from bridge.bitcoin.hashes import sha256
from bridge.bitcoin.identifiers import OutPoint, Script, Txid
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
    """The waiting transactions by script and by what they spend.

    It follows the mempool when asked, and looks only at what came or went since.
    """

    def __init__(self, node: NodeApi) -> None:
        self._node = node
        self._scripts: dict[Txid, frozenset[bytes]] = {}
        self._spends: dict[Txid, tuple[OutPoint, ...]] = {}
        self._by_script: dict[bytes, set[Txid]] = {}
        self._spenders: dict[OutPoint, Txid] = {}

    def touching(self, script_hash: bytes) -> list[WaitingTransaction]:
        """The waiting transactions that pay a script or spend from it, oldest first. script_hash: its sha256."""
        entries = self._follow()
        txids = self._by_script.get(script_hash, set())
        return [entry for txid, entry in entries.items() if txid in txids] if txids else []

    def spender(self, outpoint: OutPoint) -> Txid | None:
        """The waiting transaction that spends an output."""
        self._follow()
        return self._spenders.get(outpoint)

    def _follow(self) -> dict[Txid, WaitingTransaction]:
        entries = {entry.transaction.txid: entry for entry in self._node.mempool.entries()}
        for txid in self._spends.keys() - entries.keys():
            self._remove(txid)
        for txid, entry in entries.items():
            if txid not in self._spends:
                self._add(txid, entry.transaction)
        return entries

    def _add(self, txid: Txid, transaction: Transaction) -> None:
        spends = tuple(item.outpoint for item in transaction.inputs)
        spent = (find_output(self._node, outpoint) for outpoint in spends)
        touched: set[Script] = {output.script for output in (*transaction.outputs, *spent) if output is not None}
        self._scripts[txid] = frozenset(sha256(script) for script in touched)
        self._spends[txid] = spends
        for script_hash in self._scripts[txid]:
            self._by_script.setdefault(script_hash, set()).add(txid)
        for outpoint in spends:
            self._spenders[outpoint] = txid

    def _remove(self, txid: Txid) -> None:
        for script_hash in self._scripts.pop(txid):
            self._by_script[script_hash].discard(txid)
            if not self._by_script[script_hash]:
                del self._by_script[script_hash]
        for outpoint in self._spends.pop(txid):
            if self._spenders.get(outpoint) == txid:
                del self._spenders[outpoint]
