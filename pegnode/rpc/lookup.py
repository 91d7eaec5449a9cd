"""Finding transactions where they may be, in the final chain or waiting for a block, and showing many without haste.

What a transaction spends is known with it: stored beside a final one, and kept with a waiting one. Nothing here reads a
previous transaction, which may be large and foreign, for each input that spends it.
"""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Final

from bridge.bitcoin.hashes import sha256
from bridge.bitcoin.identifiers import OutPoint, Txid
from bridge.bitcoin.transaction import Transaction, TxOut
from pegnode.chain.state import TransactionKind
from pegnode.mempool.pool import WaitingTransaction
from pegnode.rpc.node_api import NodeApi
from pegnode.service.slices import to_the_end
from pegnode.storage.indexes import FinalTransaction, Spender
from pegnode.storage.keys import Place

MAX_WAITING: Final = 50
"""Waiting transactions that are told of one script. Source: Blockstream's esplora, API.md."""

Steps = Generator[None, None, None]


@dataclass(frozen=True, slots=True)
class FoundTransaction:
    """A transaction, final or waiting. place: None while it waits.

    spent: the output that each input spends; None for the one input of a claim or a refund.
    """

    transaction: Transaction
    fee_sats: int
    kind: TransactionKind
    spent: tuple[TxOut | None, ...]
    place: Place | None


def find_transaction(node: NodeApi, txid: Txid) -> FoundTransaction | None:
    """The transaction of this txid, or None."""
    final = node.store.index.transaction(txid)
    if final is not None:
        return found_final(final)
    waiting = node.mempool.get(txid)
    return None if waiting is None else _found_waiting(waiting)


def find_bytes(node: NodeApi, txid: Txid) -> bytes | None:
    """Its bytes, with witness."""
    final = node.store.index.transaction(txid)
    if final is not None:
        return final.data
    waiting = node.mempool.get(txid)
    return None if waiting is None else waiting.transaction.serialize()


def found_final(final: FinalTransaction) -> FoundTransaction:
    """A final transaction."""
    transaction = Transaction.parse(final.data)
    spent = final.spent or (None,) * len(transaction.inputs)
    return FoundTransaction(transaction, final.fee_sats, final.kind, spent, final.place)


def _found_waiting(waiting: WaitingTransaction) -> FoundTransaction:
    spent = _spent_by(waiting)
    return FoundTransaction(waiting.transaction, waiting.fee_sats, TransactionKind.TRANSFER, spent, None)


def _spent_by(waiting: WaitingTransaction) -> tuple[TxOut, ...]:
    return tuple(TxOut(utxo.value_sats, utxo.script) for _, utxo in waiting.effect.spent)


class OutputSpenders:
    """Who spends the outputs of one transaction, in the final chain or waiting."""

    def __init__(self, node: NodeApi) -> None:
        self._node = node
        self._waiting: dict[OutPoint, Spender] = {}
        self._read: set[Txid] = set()

    def spender(self, outpoint: OutPoint) -> Spender | None:
        """The input that spends an output. Each waiting transaction is gone through once, however much it spends."""
        final = self._node.store.index.spender(outpoint)
        if final is not None:
            return final
        txid = self._node.mempool.spender(outpoint)
        waiting = None if txid is None else self._node.mempool.get(txid)
        if waiting is None:
            return None
        if waiting.transaction.txid not in self._read:
            self._read.add(waiting.transaction.txid)
            for vin, item in enumerate(waiting.transaction.inputs):
                if item.outpoint.txid == outpoint.txid:
                    self._waiting[item.outpoint] = Spender(waiting.transaction.txid, vin)
        return self._waiting[outpoint]


class MempoolIndex:
    """The waiting transactions by script. It follows the mempool when asked, and looks only at what came or went."""

    def __init__(self, node: NodeApi) -> None:
        self._node = node
        self._scripts: dict[Txid, frozenset[bytes]] = {}
        self._by_script: dict[bytes, set[Txid]] = {}

    async def touching(self, script_hash: bytes) -> list[Txid]:
        """The waiting transactions that pay a script or spend from it, newest first, at most MAX_WAITING.

        script_hash: its sha256.
        """
        await to_the_end(self._follow())
        touching = self._by_script.get(script_hash, set())
        waiting = (entry.transaction.txid for entry in reversed(self._node.mempool.entries())) if touching else ()
        return [txid for txid in waiting if txid in touching][:MAX_WAITING]

    def _follow(self) -> Steps:
        """Take note of what came and went. Others may do the same, and the mempool may change, between two steps."""
        mempool = self._node.mempool
        for txid in self._scripts.keys() - {entry.transaction.txid for entry in mempool.entries()}:
            if txid in self._scripts and txid not in mempool:
                self._remove(txid)
                yield
        for entry in mempool.entries():
            txid = entry.transaction.txid
            if txid not in self._scripts and txid in mempool:
                self._add(txid, entry)
                yield

    def _add(self, txid: Txid, waiting: WaitingTransaction) -> None:
        scripts = {output.script for output in (*waiting.transaction.outputs, *_spent_by(waiting))}
        self._scripts[txid] = frozenset(sha256(script) for script in scripts)
        for script_hash in self._scripts[txid]:
            self._by_script.setdefault(script_hash, set()).add(txid)

    def _remove(self, txid: Txid) -> None:
        for script_hash in self._scripts.pop(txid):
            self._by_script[script_hash].discard(txid)
            if not self._by_script[script_hash]:
                del self._by_script[script_hash]
