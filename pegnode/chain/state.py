"""The state after a block: a view of the UTXO set and the ledger, and the overlay that one block lays over another."""

from dataclasses import dataclass
from enum import Enum
from typing import Protocol, Self

from bridge.bitcoin.identifiers import BlockHash, OutPoint, Script
from bridge.bitcoin.transaction import Transaction
from bridge.codec import Reader, Writer, decode_whole
from bridge.ledger import Ledger, LedgerView
from bridge.state import OverlayTable, Table
from pegnode.chain.header import Header

MAX_SCRIPT_BYTES = 10_000
"""No output script of a transaction of 100 kB that can be spent is longer. Source: Bitcoin Core, MAX_SCRIPT_SIZE."""


@dataclass(frozen=True, slots=True)
class Utxo:
    """One unspent output. height (u64), time_ms (u64): of the block that made it, for relative lock times."""

    value_sats: int
    script: Script
    height: int
    time_ms: int

    def encode(self) -> bytes:
        """Value, height and time as u64 each, then the script."""
        return Writer().u64(self.value_sats).u64(self.height).u64(self.time_ms).variable(self.script).finish()

    @classmethod
    def read(cls, reader: Reader) -> Self:
        """The output at the front of `reader`; raises MalformedError."""
        value_sats, height, time_ms = reader.u64(), reader.u64(), reader.u64()
        return cls(value_sats, Script(reader.variable(MAX_SCRIPT_BYTES)), height, time_ms)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """The output of exactly these bytes; raises MalformedError."""
        return decode_whole(data, cls.read)


@dataclass(frozen=True, slots=True)
class Tip:
    """The block after which a state holds."""

    header: Header

    @property
    def hash(self) -> BlockHash:
        """The header's hash."""
        return self.header.hash


class TransactionKind(Enum):
    """How a transaction came into a block."""

    CLAIM = "claim"
    REFUND = "refund"
    TRANSFER = "transfer"


@dataclass(frozen=True, slots=True)
class AppliedTransaction:
    """A transaction and what it spent, for indexes.

    spent: per input of a transfer; empty for derived transactions, whose one input is no output of this chain.
    """

    kind: TransactionKind
    transaction: Transaction
    fee_sats: int
    spent: tuple[tuple[OutPoint, Utxo], ...]


class ChainView(Protocol):
    """The state after some block, to read."""

    @property
    def tip(self) -> Tip:
        """The block after which this state holds."""

    @property
    def ledger(self) -> LedgerView:
        """The peg ledger."""

    @property
    def utxos(self) -> Table[OutPoint, Utxo]:
        """Every unspent output. Burns and data outputs are none."""


class ChainState:
    """The state after one block, laid over that of its parent, and so the block's delta.

    ledger.*.writes and utxos.writes hold what changed; `transactions` what the block did, claims first, then refunds,
    then transfers.
    """

    def __init__(self, base: ChainView, header: Header) -> None:
        self.base = base
        self.tip = Tip(header)
        self.ledger = Ledger(base.ledger)
        self.utxos: OverlayTable[OutPoint, Utxo] = OverlayTable(base.utxos)
        self.transactions: list[AppliedTransaction] = []
