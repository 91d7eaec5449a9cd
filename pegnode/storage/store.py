"""The final chain on disk: blocks, certificates, the state after the tip, indexes, and what a node must not forget.

Blocks that become final together are written in one atomic, synced batch with everything that follows from them. So the
disk always holds the state after some final block, and the certificate that proves it final. Opening checks that it is
this chain's, and that the ledger is the one to which the tip's header commits.
"""

import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from bridge.bitcoin.identifiers import BlockHash, OutPoint, Script, Txid
from bridge.ledger import ledger_root
from bridge.state import Totals
from federation.equivocation import Equivocation
from federation.record import SignedRecord
from pegnode.chain.block import EMPTY_BODY, Block
from pegnode.chain.header import HEADER_SIZE, Header
from pegnode.chain.parameters import ChainRules
from pegnode.chain.state import ChainState, Tip, Utxo
from pegnode.halts import LatchedFinding
from pegnode.storage.audit import Recount
from pegnode.storage.database import Changes, Database, newer_advice
from pegnode.storage.errors import StorageError, StorageReason
from pegnode.storage.indexes import INDEX_FAMILIES, ChainIndex, stage_transactions
from pegnode.storage.keys import equivocation_key, height_from_key, height_key
from pegnode.storage.tables import TABLE_FAMILIES, UTXOS, StoredLedger, StoredTable

SCHEMA_VERSION = 2
"""Raised when what is written changes. A directory of a higher one is a later release's; that of a lower one is fetched
anew."""

META = "meta"
BLOCKS = "blocks"
HEIGHTS = "heights"
CERTIFICATES = "certificates"
DEPOSIT_SCRIPTS = "deposit_scripts"
SIGNED_PAYOUTS = "signed_payouts"
RECORDS = "records"
"""Serial to signed record: every one that a final block carried out."""
HALTS = "halts"
"""Number to what this node found that halts it. Nothing removes one."""
EQUIVOCATIONS = "equivocations"
"""Member, epoch, view and kinds of votes, to what proves that it signed both. Nothing removes one."""
FAMILIES = (
    META, BLOCKS, HEIGHTS, CERTIFICATES, RECORDS, DEPOSIT_SCRIPTS, SIGNED_PAYOUTS, HALTS, EQUIVOCATIONS,
    *TABLE_FAMILIES, *INDEX_FAMILIES,
)  # fmt: skip

_SCHEMA_KEY = b"schema"
_CHAIN_KEY = b"chain-id"
_TIP_KEY = b"tip"
_TOTALS_KEY = b"totals"


@dataclass(frozen=True, slots=True)
class FinalBlock:
    """A final block to write.

    state: the overlay that applying it gave.  block: its encoding.  certificate: the encoded quorum of finalize votes,
    or None for a block that is final because a descendant is.
    """

    state: ChainState
    block: bytes
    certificate: bytes | None = None


class ChainStore:
    """The root view: the state after the newest final block. Its tables change when `commit` returns, all at once."""

    def __init__(self, path: Path, database: Database, tip: Tip, totals: Totals) -> None:
        self.path = path
        self._database = database
        self._tip = tip
        self._ledger = StoredLedger(database, totals)
        self._utxos: StoredTable[OutPoint, Utxo] = StoredTable(database, UTXOS)
        self._equivocations = tuple(
            database.decoded(Equivocation.decode, value) for _, value in database.scan(EQUIVOCATIONS)
        )
        self.index = ChainIndex(database)

    @classmethod
    def open(cls, path: Path, rules: ChainRules) -> Self:
        """Open the directory `path`, or begin the chain of `rules` there.

        Raises StorageError: LOCKED, WRONG_CHAIN, NEWER_SCHEMA, DAMAGED, NO_SPACE, READ_ONLY or UNUSABLE, with what to
        do in the detail; what was refused is left as it was.
        """
        if Database.exists(path):
            Database.require_free(path)
            cls.look(path, rules).close()  # RocksDB would move files about even in a directory that is refused
        else:
            Database.create(path, FAMILIES, _genesis(rules))
        return cls._loaded(path, Database.open(path, FAMILIES), rules)

    @classmethod
    def look(cls, path: Path, rules: ChainRules) -> Self:
        """Open the directory `path` to read only; no file is changed, nor created.

        Whoever must not be disturbed by a process that writes holds the directory meanwhile. Raises StorageError.
        """
        return cls._loaded(path, look_at_database(path, rules), rules)

    @classmethod
    def _loaded(cls, path: Path, database: Database, rules: ChainRules) -> Self:
        try:
            check_owner(path, database, rules)
            return cls._load(path, database, rules)
        except BaseException:
            database.close()
            raise

    @classmethod
    def _load(cls, path: Path, database: Database, rules: ChainRules) -> Self:
        tip = Tip(database.decoded(Header.decode, database.get(META, _TIP_KEY) or b""))
        store = cls(path, database, tip, database.decoded(Totals.decode, database.get(META, _TOTALS_KEY) or b""))
        if ledger_root(store.ledger) != tip.header.ledger_root:
            raise database.damaged(f"the ledger is not the one of block {tip.header.height}")
        if store.header_at(0) != rules.genesis_header or store.header_at(tip.header.height) != tip.header:
            raise database.damaged("the first or the last block is missing")
        return store

    @property
    def tip(self) -> Tip:
        """The newest final block."""
        return self._tip

    @property
    def ledger(self) -> StoredLedger:
        """The peg ledger after it."""
        return self._ledger

    @property
    def utxos(self) -> StoredTable[OutPoint, Utxo]:
        """Every unspent output after it."""
        return self._utxos

    def commit(self, blocks: Sequence[FinalBlock]) -> None:
        """Make `blocks` final, each a child of the one before and the last with its certificate: all of them or none.

        Raises StorageError: NOT_NEXT, UNPROVEN, or what the disk says.
        """
        changes, parent = Changes(), self._tip
        for final in blocks:
            _check_follows(parent, final)
            self._stage(changes, final)
            parent = final.state.tip
        if blocks and blocks[-1].certificate is None:
            raise StorageError(StorageReason.UNPROVEN, f"nothing proves that block {parent.header.height} is final")
        self._database.write(changes)
        for final in blocks:
            self._absorb(final.state)

    def _stage(self, changes: Changes, final: FinalBlock) -> None:
        """Add everything that follows from one block."""
        height = final.state.tip.header.height
        key = height_key(height)
        changes.put(BLOCKS, key, final.block)
        changes.put(HEIGHTS, final.state.tip.hash, key)
        if final.certificate is not None:
            changes.put(CERTIFICATES, key, final.certificate)
        stage_transactions(changes, height, final.state.transactions)
        for signed in final.state.records:
            changes.put(RECORDS, height_key(signed.record.serial), signed.encode())
        self._utxos.stage(changes, final.state.utxos.writes)
        self._ledger.stage(changes, final.state.ledger)
        changes.put(META, _TIP_KEY, final.state.tip.header.encode())
        changes.put(META, _TOTALS_KEY, final.state.ledger.totals.encode())

    def _absorb(self, state: ChainState) -> None:
        self._ledger.absorb(state.ledger)
        self._tip = state.tip

    def block_at(self, height: int) -> bytes | None:
        """The encoded block at a height."""
        return self._database.get(BLOCKS, height_key(height))

    def header_at(self, height: int) -> Header | None:
        """The header at a height."""
        data = self.block_at(height)
        return None if data is None else self._database.decoded(Header.decode, data[:HEADER_SIZE])

    def height_of(self, block_hash: BlockHash) -> int | None:
        """The height of a final block."""
        data = self._database.get(HEIGHTS, block_hash)
        return None if data is None else self._database.decoded(height_from_key, data)

    def block_by_hash(self, block_hash: BlockHash) -> bytes | None:
        """The encoded final block of this hash."""
        height = self.height_of(block_hash)
        return None if height is None else self.block_at(height)

    def certificate_at(self, height: int) -> bytes | None:
        """The certificate stored with the block at a height."""
        return self._database.get(CERTIFICATES, height_key(height))

    def certified_height_from(self, height: int) -> int | None:
        """The least height, from `height` upwards, whose block has a certificate of its own."""
        for key, _ in self._database.scan(CERTIFICATES, start=height_key(height)):
            return height_from_key(key)
        return None

    def records(self, from_serial: int = 1) -> Iterator[SignedRecord]:
        """The records that final blocks carried out, by rising serial, from `from_serial` on."""
        for _, data in self._database.scan(RECORDS, start=height_key(from_serial)):
            yield self._database.decoded(SignedRecord.decode, data)

    def keep_deposit_scripts(
        self, claim_scripts: Sequence[Script], created_ms: int, *, forget: Sequence[Script] = ()
    ) -> None:
        """Remember that addresses were handed out for these claim scripts, and forget others, in one write.

        created_ms: Unix time in milliseconds.  forget: they need not be known.
        """
        changes = Changes()
        for claim_script in forget:
            changes.delete(DEPOSIT_SCRIPTS, claim_script)
        for claim_script in claim_scripts:
            changes.put(DEPOSIT_SCRIPTS, claim_script, height_key(created_ms))
        self._database.write(changes)

    def deposit_scripts(self) -> dict[Script, int]:
        """Every claim script an address was handed out for, and when."""
        return {Script(key): height_from_key(value) for key, value in self._database.scan(DEPOSIT_SCRIPTS)}

    def keep_signed_payout(self, txid: Txid, transaction: bytes) -> None:
        """Remember a batch version with its signatures, so that it can be broadcast again."""
        changes = Changes()
        changes.put(SIGNED_PAYOUTS, txid, transaction)
        self._database.write(changes)

    def signed_payout(self, txid: Txid) -> bytes | None:
        """A batch version with its signatures, if this node has seen them."""
        return self._database.get(SIGNED_PAYOUTS, txid)

    def keep_halt(self, latched: LatchedFinding) -> None:
        """Remember for good what this node found that halts it."""
        newest = next(iter(self._database.scan(HALTS, backwards=True)), None)
        number = 0 if newest is None else self._database.decoded(height_from_key, newest[0]) + 1
        changes = Changes()
        changes.put(HALTS, height_key(number), latched.encode())
        self._database.write(changes)

    def halts(self) -> list[LatchedFinding]:
        """What this node ever found that halts it, oldest first, ended or not."""
        return [self._database.decoded(LatchedFinding.decode, value) for _, value in self._database.scan(HALTS)]

    def keep_equivocation(self, equivocation: Equivocation) -> None:
        """Remember for good what proves a member's fault, in place of what proves the same."""
        changes = Changes()
        changes.put(EQUIVOCATIONS, equivocation_key(equivocation), equivocation.encode())
        self._database.write(changes)
        kept = {equivocation_key(item): item for item in (*self._equivocations, equivocation)}
        self._equivocations = tuple(kept[key] for key in sorted(kept))

    def equivocations(self) -> tuple[Equivocation, ...]:
        """The proofs of members' faults that this node has, by member, epoch and view. From memory."""
        return self._equivocations

    def begin_recount(self) -> Recount:
        """A recount of everything after the present tip, to be finished in a worker thread."""
        values = self._database.frozen_values(UTXOS.family)
        utxos = (self._database.decoded(Utxo.decode, value) for value in values)
        return Recount.begin(self._tip, self._ledger, utxos)

    def size_on_disk_bytes(self) -> int:
        """What the directory holds, as file sizes. RocksDB may delete some of them meanwhile."""
        size_bytes = 0
        for file in self.path.iterdir():
            with suppress(FileNotFoundError):
                status = file.stat()
                size_bytes += status.st_size if stat.S_ISREG(status.st_mode) else 0
        return size_bytes

    def close(self) -> None:
        """Free the directory. The store can't be read afterwards; closing twice is allowed."""
        self._database.close()


def _check_follows(parent: Tip, final: FinalBlock) -> None:
    """Raise StorageError unless the block is the parent's child, and its bytes are its own."""
    header = final.state.tip.header
    if header.parent != parent.hash or header.height != parent.header.height + 1:
        what = f"block {header.height} does not follow block {parent.header.height}"
        raise StorageError(StorageReason.NOT_NEXT, what)
    if final.block[:HEADER_SIZE] != header.encode():
        raise StorageError(StorageReason.NOT_NEXT, f"the bytes of block {header.height} have another header")


def _genesis(rules: ChainRules) -> Changes:
    """What a database begins with."""
    header = rules.genesis_header
    changes = Changes()
    changes.put(META, _SCHEMA_KEY, height_key(SCHEMA_VERSION))
    changes.put(META, _CHAIN_KEY, rules.chain_id)
    changes.put(META, _TIP_KEY, header.encode())
    changes.put(META, _TOTALS_KEY, Totals(header.anchor).encode())
    changes.put(BLOCKS, height_key(0), Block(header, EMPTY_BODY).encode())
    changes.put(HEIGHTS, header.hash, height_key(0))
    return changes


def look_at_database(path: Path, rules: ChainRules) -> Database:
    """The database of the store at `path`, to read only, whatever its entries say. Raises StorageError."""
    if not Database.exists(path):
        raise StorageError(StorageReason.MISSING, f"there is no chain in {path}; it is fetched at the first start")
    database = Database.look(path, FAMILIES)
    try:
        check_owner(path, database, rules)
    except BaseException:
        database.close()
        raise
    return database


def check_owner(path: Path, database: Database, rules: ChainRules) -> None:
    """Raise StorageError unless the database is of a schema that we know and of the chain of `rules`."""
    schema = int.from_bytes(database.get(META, _SCHEMA_KEY) or b"", "big")
    if schema > SCHEMA_VERSION:
        raise StorageError(StorageReason.NEWER_SCHEMA, newer_advice(path, f"schema {schema}, ours is {SCHEMA_VERSION}"))
    if schema < SCHEMA_VERSION:
        raise database.damaged(f"schema {schema}, ours is {SCHEMA_VERSION}")
    chain_id = database.get(META, _CHAIN_KEY) or b""
    if chain_id != rules.chain_id:
        detail = (
            f"{path} holds the chain {chain_id.hex()[:16]}…, not {rules.chain_id.hex()[:16]}…; give another directory"
        )
        raise StorageError(StorageReason.WRONG_CHAIN, detail)
