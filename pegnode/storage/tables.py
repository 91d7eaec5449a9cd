"""The tables of the ledger and of the UTXO set over the database: read through, or mirrored in memory.

A rule that reads all of a table (the ledger root, the choice of coins) does so for every block; those tables are small
and live in memory too. The others only grow, and are read one key at a time.
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from bridge.bitcoin.identifiers import OutPoint, Txid
from bridge.ledger import Ledger
from bridge.state import Coin, Lineage, Totals, Withdrawal
from bridge.tables import key_bytes
from pegnode.chain.state import Utxo
from pegnode.storage.database import Changes, Database
from pegnode.storage.keys import height_from_key, height_key, outpoint_from_key, txid_from_key

K = TypeVar("K", bound=OutPoint | int | bytes)
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class TableCodec(Generic[K, V]):
    """How a table's entries are written. Keys are written as `key_bytes`."""

    family: str
    decode_key: Callable[[bytes], K]
    encode_value: Callable[[V], bytes]
    decode_value: Callable[[bytes], V]


UTXOS = TableCodec("utxos", outpoint_from_key, Utxo.encode, Utxo.decode)
COINS = TableCodec("coins", outpoint_from_key, Coin.encode, Coin.decode)
LOST = TableCodec("lost", outpoint_from_key, Coin.encode, Coin.decode)
ENTERED = TableCodec("entered", outpoint_from_key, height_key, height_from_key)
OPEN_WITHDRAWALS = TableCodec("open_withdrawals", outpoint_from_key, Withdrawal.encode, Withdrawal.decode)
CLOSED_WITHDRAWALS = TableCodec("closed_withdrawals", outpoint_from_key, Withdrawal.encode, Withdrawal.decode)
OPEN_LINEAGES = TableCodec("open_lineages", height_from_key, Lineage.encode, Lineage.decode)
CLOSED_LINEAGES = TableCodec("closed_lineages", height_from_key, Lineage.encode, Lineage.decode)
VERSIONS = TableCodec("versions", txid_from_key, height_key, height_from_key)
WITHDRAWALS_BY_NUMBER = "withdrawals_by_number"
"""Number to burn, for lists in the order of age. Append-only."""

TABLE_FAMILIES = (
    WITHDRAWALS_BY_NUMBER,
    UTXOS.family,
    COINS.family,
    LOST.family,
    ENTERED.family,
    OPEN_WITHDRAWALS.family,
    CLOSED_WITHDRAWALS.family,
    OPEN_LINEAGES.family,
    CLOSED_LINEAGES.family,
    VERSIONS.family,
)


class StoredTable(Generic[K, V]):
    """A table read from the database at every call."""

    __slots__ = ("_codec", "_database")

    def __init__(self, database: Database, codec: TableCodec[K, V]) -> None:
        self._database = database
        self._codec = codec

    def get(self, key: K, /) -> V | None:
        """The value under `key`, or None."""
        data = self._database.get(self._codec.family, key_bytes(key))
        return None if data is None else self._database.decoded(self._codec.decode_value, data)

    def items(self) -> Iterator[tuple[K, V]]:
        """Every key with its value, in the order of `key_bytes`."""
        for key, value in self._database.scan(self._codec.family):
            decoded = self._database.decoded
            yield decoded(self._codec.decode_key, key), decoded(self._codec.decode_value, value)

    def __contains__(self, key: K, /) -> bool:
        return self._database.get(self._codec.family, key_bytes(key)) is not None

    def stage(self, changes: Changes, writes: Mapping[K, V | None]) -> None:
        """Add what a block wrote to `changes`."""
        for key, value in writes.items():
            if value is None:
                changes.delete(self._codec.family, key_bytes(key))
            else:
                changes.put(self._codec.family, key_bytes(key), self._codec.encode_value(value))


class MirroredTable(Generic[K, V]):
    """A table in the database, and all of it in memory."""

    __slots__ = ("_order", "_stored", "_values")

    def __init__(self, database: Database, codec: TableCodec[K, V]) -> None:
        self._stored = StoredTable(database, codec)
        self._values = dict(self._stored.items())
        self._order = [(key_bytes(key), key) for key in self._values]

    def get(self, key: K, /) -> V | None:
        """The value under `key`, or None."""
        return self._values.get(key)

    def items(self) -> Iterator[tuple[K, V]]:
        """Every key with its value, in the order of `key_bytes`."""
        return ((key, self._values[key]) for _, key in self._order)

    def __contains__(self, key: K, /) -> bool:
        return key in self._values

    def __len__(self) -> int:
        return len(self._values)

    def stage(self, changes: Changes, writes: Mapping[K, V | None]) -> None:
        """Add what a block wrote to `changes`; memory follows with `absorb`, once they are on disk."""
        self._stored.stage(changes, writes)

    def absorb(self, writes: Mapping[K, V | None]) -> None:
        """Take over what a block wrote."""
        for key, value in writes.items():
            if value is None:
                if self._values.pop(key, None) is not None:
                    del self._order[bisect_left(self._order, (key_bytes(key), key))]
            else:
                if key not in self._values:
                    insort(self._order, (key_bytes(key), key))
                self._values[key] = value


class StoredLedger:
    """The peg ledger after the newest final block."""

    def __init__(self, database: Database, totals: Totals) -> None:
        self._database = database
        self.totals = totals
        self.coins: MirroredTable[OutPoint, Coin] = MirroredTable(database, COINS)
        self.lost: MirroredTable[OutPoint, Coin] = MirroredTable(database, LOST)
        self.open_withdrawals: MirroredTable[OutPoint, Withdrawal] = MirroredTable(database, OPEN_WITHDRAWALS)
        self.open_lineages: MirroredTable[int, Lineage] = MirroredTable(database, OPEN_LINEAGES)
        self.entered: StoredTable[OutPoint, int] = StoredTable(database, ENTERED)
        self.closed_withdrawals: StoredTable[OutPoint, Withdrawal] = StoredTable(database, CLOSED_WITHDRAWALS)
        self.closed_lineages: StoredTable[int, Lineage] = StoredTable(database, CLOSED_LINEAGES)
        self.versions: StoredTable[Txid, int] = StoredTable(database, VERSIONS)

    def stage(self, changes: Changes, delta: Ledger) -> None:
        """Add what a block did to the ledger's tables to `changes`. The totals are not among them."""
        self.coins.stage(changes, delta.coins.writes)
        self.lost.stage(changes, delta.lost.writes)
        self.open_withdrawals.stage(changes, delta.open_withdrawals.writes)
        self.open_lineages.stage(changes, delta.open_lineages.writes)
        self.entered.stage(changes, delta.entered.writes)
        self.closed_withdrawals.stage(changes, delta.closed_withdrawals.writes)
        self.closed_lineages.stage(changes, delta.closed_lineages.writes)
        self.versions.stage(changes, delta.versions.writes)
        for burn, withdrawal in delta.open_withdrawals.writes.items():
            if withdrawal is not None:
                changes.put(WITHDRAWALS_BY_NUMBER, key_bytes(withdrawal.number), burn.encode())

    def absorb(self, delta: Ledger) -> None:
        """Follow in memory what `stage` brought to disk."""
        self.totals = delta.totals
        self.coins.absorb(delta.coins.writes)
        self.lost.absorb(delta.lost.writes)
        self.open_withdrawals.absorb(delta.open_withdrawals.writes)
        self.open_lineages.absorb(delta.open_lineages.writes)

    def withdrawal(self, burn: OutPoint) -> Withdrawal | None:
        """A withdrawal, open or closed."""
        return self.open_withdrawals.get(burn) or self.closed_withdrawals.get(burn)

    def withdrawals_newest_first(self, before: int | None = None) -> Iterator[Withdrawal]:
        """Every withdrawal, by descending number. before: only those with a lesser number."""
        if before == 0:
            return
        start = None if before is None else key_bytes(before - 1)
        for _, burn in self._database.scan(WITHDRAWALS_BY_NUMBER, start=start, backwards=True):
            withdrawal = self.withdrawal(self._database.decoded(outpoint_from_key, burn))
            if withdrawal is not None:
                yield withdrawal

    def lineage(self, number: int) -> Lineage | None:
        """A lineage, open or closed."""
        return self.open_lineages.get(number) or self.closed_lineages.get(number)

    def lineages_newest_first(self, before: int | None = None) -> Iterator[Lineage]:
        """Every lineage, by descending number. before: only those with a lesser number."""
        newest = self.totals.next_lineage if before is None else min(before, self.totals.next_lineage)
        for number in range(newest - 1, -1, -1):
            lineage = self.lineage(number)
            if lineage is not None:
                yield lineage
