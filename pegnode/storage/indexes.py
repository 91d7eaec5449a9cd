"""What the store keeps so that a transaction, a script's history or an output's spender can be found. Append-only.

Anybody may spend thousands of outputs of one large transaction, and pay somebody with it. So a transaction is stored
with what it spends: to show it, nobody has to read a previous transaction for each input.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from bridge.bitcoin.hashes import sha256
from bridge.bitcoin.identifiers import HASH_SIZE, OutPoint, Script, Txid
from bridge.bitcoin.transaction import TxOut
from bridge.codec import Encoded, Reader, Writer
from bridge.errors import MalformedError
from bridge.state import MAX_SCRIPT_BYTES
from pegnode.chain.block import MAX_TRANSACTION_BYTES
from pegnode.chain.parameters import MAX_TRANSACTION_INPUTS
from pegnode.chain.state import AppliedTransaction, TransactionKind
from pegnode.chain.transactions import is_spendable
from pegnode.storage.database import Changes, Database
from pegnode.storage.keys import Place, height_key, history_key, place_from_history_key, txid_from_key

TRANSACTIONS = "transactions"
PLACES = "places"
HISTORY = "history"
CLAIMS = "claims"
"""The claims in HISTORY: so that whoever pays an address often does not stand between its owner and the deposits."""
SPENDS = "spends"
INDEX_FAMILIES = (TRANSACTIONS, PLACES, HISTORY, CLAIMS, SPENDS)

_KIND_CODES = {TransactionKind.CLAIM: 1, TransactionKind.REFUND: 2, TransactionKind.TRANSFER: 3}
_KINDS = {code: kind for kind, code in _KIND_CODES.items()}


@dataclass(frozen=True, slots=True)
class FinalTransaction:
    """A transaction of the final chain. data: with witness.

    spent: the output that each input of a transfer spends; empty for a claim or a refund, which spends none.
    """

    txid: Txid
    place: Place
    kind: TransactionKind
    fee_sats: int
    data: bytes
    spent: tuple[TxOut, ...]

    def encode(self) -> bytes:
        """Txid, kind u8, fee u64, transaction, spent outputs of value u64 and script. The place is the key."""
        writer = Writer().fixed(self.txid, HASH_SIZE).u8(_KIND_CODES[self.kind]).u64(self.fee_sats)
        return writer.variable(self.data).sequence(self.spent, _write_output).finish()

    @classmethod
    def decode(cls, place: Place, data: bytes) -> Self:
        """The transaction stored at `place`; raises MalformedError."""
        reader = Reader(data)
        txid, kind = Txid(reader.take(HASH_SIZE)), _KINDS.get(reader.u8())
        if kind is None:
            raise MalformedError("an unknown kind of transaction")
        fee_sats, transaction = reader.u64(), reader.variable(MAX_TRANSACTION_BYTES)
        spent = reader.sequence(MAX_TRANSACTION_INPUTS, _read_output)
        reader.finish()
        return cls(txid, place, kind, fee_sats, transaction, spent)


def _write_output(writer: Writer, output: TxOut) -> None:
    writer.u64(output.value_sats).variable(output.script)


def _read_output(reader: Reader) -> TxOut:
    return TxOut(reader.u64(), Script(reader.variable(MAX_SCRIPT_BYTES)))


@dataclass(frozen=True, slots=True)
class Spender(Encoded):
    """The input that spends an output. vin: u32, its index in the transaction."""

    txid: Txid
    vin: int

    def write(self, writer: Writer) -> None:
        """Append 36 bytes."""
        writer.fixed(self.txid, HASH_SIZE).u32(self.vin)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(Txid(reader.take(HASH_SIZE)), reader.u32())


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
        spent = tuple(TxOut(utxo.value_sats, utxo.script) for _, utxo in applied.spent)
        data = applied.transaction.serialize()
        entry = FinalTransaction(txid, place, applied.kind, applied.fee_sats, data, spent)
        changes.put(TRANSACTIONS, place.encode(), entry.encode())
        changes.put(PLACES, txid, place.encode())
        for vin, item in enumerate(applied.transaction.inputs):
            changes.put(SPENDS, item.outpoint.encode(), Spender(txid, vin).encode())
        for script in touched_scripts(applied):
            key = history_key(sha256(script), place)
            changes.put(HISTORY, key, txid)
            if applied.kind is TransactionKind.CLAIM:
                changes.put(CLAIMS, key, txid)


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
        place = self.place(txid)
        return None if place is None else self._at(place)

    def place(self, txid: Txid) -> Place | None:
        """Where the transaction of this txid stands; None when it is not final."""
        data = self._database.get(PLACES, txid)
        return None if data is None else self._database.decoded(Place.decode, data)

    def transactions_at(self, height: int) -> Iterator[FinalTransaction]:
        """The transactions of a block in their order: claims, refunds, transfers."""
        for key, value in self._database.scan(TRANSACTIONS, height_key(height)):
            yield self._final(self._database.decoded(Place.decode, key), value)

    def txids_at(self, height: int) -> Iterator[Txid]:
        """Their txids."""
        for _, value in self._database.scan(TRANSACTIONS, height_key(height)):
            yield self._database.decoded(txid_from_key, value[:HASH_SIZE])

    def count_at(self, height: int) -> int:
        """How many transactions a block has."""
        for key, _ in self._database.scan(TRANSACTIONS, height_key(height), backwards=True):
            return self._database.decoded(Place.decode, key).position + 1
        return 0

    def script_history(self, script_hash: bytes, before: Place | None = None) -> Iterator[HistoryEntry]:
        """The transactions that touch a script, newest first. script_hash: its sha256.

        before: only those that stand before this place.
        """
        start = None if before is None else history_key(script_hash, before)
        for key, value in self._database.scan(HISTORY, script_hash, start=start, backwards=True):
            place = self._database.decoded(place_from_history_key, key)
            if place != before:
                yield HistoryEntry(Txid(value), place)

    def claims(self, script_hash: bytes) -> Iterator[Txid]:
        """The claims that pay a script, newest first. script_hash: its sha256."""
        for _, value in self._database.scan(CLAIMS, script_hash, backwards=True):
            yield Txid(value)

    def spender(self, outpoint: OutPoint) -> Spender | None:
        """The final input that spends an output. A claim spends its deposit's outpoint with bit 30 set."""
        data = self._database.get(SPENDS, outpoint.encode())
        return None if data is None else self._database.decoded(Spender.decode, data)

    def _at(self, place: Place) -> FinalTransaction | None:
        data = self._database.get(TRANSACTIONS, place.encode())
        return None if data is None else self._final(place, data)

    def _final(self, place: Place, data: bytes) -> FinalTransaction:
        return self._database.decoded(lambda stored: FinalTransaction.decode(place, stored), data)
