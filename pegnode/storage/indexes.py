"""What the store keeps so that a transaction, a script's history or an output's spender can be found. Append-only."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from bridge.bitcoin.hashes import sha256
from bridge.bitcoin.identifiers import HASH_SIZE, OutPoint, Script, Txid
from bridge.codec import Reader, Writer
from bridge.errors import MalformedError
from pegnode.chain.block import MAX_TRANSACTION_BYTES
from pegnode.chain.state import AppliedTransaction, TransactionKind
from pegnode.chain.transactions import is_spendable
from pegnode.storage.database import Changes, Database
from pegnode.storage.keys import Place, height_key, history_key, place_from_history_key

TRANSACTIONS = "transactions"
PLACES = "places"
HISTORY = "history"
SPENDS = "spends"
INDEX_FAMILIES = (TRANSACTIONS, PLACES, HISTORY, SPENDS)

_KIND_CODES = {TransactionKind.CLAIM: 1, TransactionKind.REFUND: 2, TransactionKind.TRANSFER: 3}
_KINDS = {code: kind for kind, code in _KIND_CODES.items()}


@dataclass(frozen=True, slots=True)
class FinalTransaction:
    """A transaction of the final chain. data: with witness."""

    txid: Txid
    place: Place
    kind: TransactionKind
    fee_sats: int
    data: bytes

    def encode(self) -> bytes:
        """Txid, kind u8, fee u64, transaction. The place is the key."""
        writer = Writer().fixed(self.txid, HASH_SIZE).u8(_KIND_CODES[self.kind]).u64(self.fee_sats)
        return writer.variable(self.data).finish()

    @classmethod
    def decode(cls, place: Place, data: bytes) -> Self:
        """The transaction stored at `place`; raises MalformedError."""
        reader = Reader(data)
        txid, kind = Txid(reader.take(HASH_SIZE)), _KINDS.get(reader.u8())
        if kind is None:
            raise MalformedError("an unknown kind of transaction")
        final = cls(txid, place, kind, reader.u64(), reader.variable(MAX_TRANSACTION_BYTES))
        reader.finish()
        return final


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """A transaction that pays a script or spends from it."""

    txid: Txid
    place: Place


def stage_transactions(changes: Changes, height: int, transactions: list[AppliedTransaction]) -> None:
    """Add the index entries of a block's transactions to `changes`."""
    for position, applied in enumerate(transactions):
        place = Place(height, position)
        txid = applied.transaction.txid
        entry = FinalTransaction(txid, place, applied.kind, applied.fee_sats, applied.transaction.serialize())
        changes.put(TRANSACTIONS, place.encode(), entry.encode())
        changes.put(PLACES, txid, place.encode())
        for item in applied.transaction.inputs:
            changes.put(SPENDS, item.outpoint.encode(), txid)
        for script in touched_scripts(applied):
            changes.put(HISTORY, history_key(sha256(script), place), txid)


def touched_scripts(applied: AppliedTransaction) -> set[Script]:
    """The scripts that a transaction pays or spends from, those that nobody can spend left out."""
    paid = {output.script for output in applied.transaction.outputs if is_spendable(output)}
    return paid | {utxo.script for _, utxo in applied.spent}


class ChainIndex:
    """Reads the index."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def transaction(self, txid: Txid) -> FinalTransaction | None:
        """The final transaction of this txid."""
        place = self._database.get(PLACES, txid)
        return None if place is None else self._at(self._database.decoded(Place.decode, place))

    def transactions_at(self, height: int) -> Iterator[FinalTransaction]:
        """The transactions of a block in their order: claims, refunds, transfers."""
        for key, value in self._database.scan(TRANSACTIONS, height_key(height)):
            yield self._final(self._database.decoded(Place.decode, key), value)

    def script_history(self, script_hash: bytes, before: Place | None = None) -> Iterator[HistoryEntry]:
        """The transactions that touch a script, newest first. script_hash: its sha256.

        before: only those that stand before this place.
        """
        start = None if before is None else history_key(script_hash, before)
        for key, value in self._database.scan(HISTORY, script_hash, start=start, backwards=True):
            place = self._database.decoded(place_from_history_key, key)
            if place != before:
                yield HistoryEntry(Txid(value), place)

    def spender(self, outpoint: OutPoint) -> Txid | None:
        """The final transaction that spends an output. A claim spends its deposit's outpoint with bit 30 set."""
        txid = self._database.get(SPENDS, outpoint.encode())
        return None if txid is None else Txid(txid)

    def _at(self, place: Place) -> FinalTransaction | None:
        data = self._database.get(TRANSACTIONS, place.encode())
        return None if data is None else self._final(place, data)

    def _final(self, place: Place, data: bytes) -> FinalTransaction:
        return self._database.decoded(lambda stored: FinalTransaction.decode(place, stored), data)
