"""The state after a block: a view of the UTXO set and the ledger, and the overlay that one block lays over another."""

from dataclasses import dataclass
from enum import Enum
from typing import Protocol, Self

from bridge.bitcoin.identifiers import BlockHash, OutPoint, Script
from bridge.bitcoin.transaction import Transaction
from bridge.codec import Encoded, Reader, Writer
from bridge.ledger import GenesisLedger, Ledger, LedgerView
from bridge.state import MAX_SCRIPT_BYTES
from bridge.tables import MemoryTable, OverlayTable, Table
from federation.record import SignedRecord
from pegnode.chain.header import Header

LEDGER_TABLES = (
    "coins",
    "lost",
    "entered",
    "open_withdrawals",
    "closed_withdrawals",
    "open_lineages",
    "closed_lineages",
    "versions",
)
"""The tables of a ledger, by attribute: all of its delta but the totals."""


@dataclass(frozen=True, slots=True)
class Utxo(Encoded):
    """One unspent output, in one of the five types.

    height (u64), time_ms (u64): of the block that made it, for relative lock times.
    """

    value_sats: int
    script: Script
    height: int
    time_ms: int

    def write(self, writer: Writer) -> None:
        """Append value, height and time as u64 each, then the script."""
        writer.u64(self.value_sats).u64(self.height).u64(self.time_ms).variable(self.script)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        value_sats, height, time_ms = reader.u64(), reader.u64(), reader.u64()
        return cls(value_sats, Script(reader.variable(MAX_SCRIPT_BYTES)), height, time_ms)


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


class GenesisState:
    """The state below the first block: no output, an empty ledger at the genesis anchor."""

    def __init__(self, header: Header) -> None:
        self.tip = Tip(header)
        self.ledger: LedgerView = GenesisLedger(header.anchor)
        self.utxos: Table[OutPoint, Utxo] = MemoryTable()


class ChainState:
    """The state after one block, laid over that of its parent, and so the block's delta.

    The `writes` of the tables in `ledger`, and of `utxos`, hold what changed; `transactions` what the block did: claims
    first, then refunds, then transfers; `records` what it carried out before them.
    """

    def __init__(self, base: ChainView, header: Header) -> None:
        self.tip = Tip(header)
        self.ledger = Ledger(base.ledger)
        self.utxos: OverlayTable[OutPoint, Utxo] = OverlayTable(base.utxos)
        self.transactions: list[AppliedTransaction] = []
        self.records: list[SignedRecord] = []

    def rebased(self, base: ChainView) -> "ChainState":
        """The same delta over another view of the same parent state, such as storage once the parent is final.

        Without it a chain of overlays would grow with every block. Raises ValueError for a `base` after another block.
        """
        if base.tip.hash != self.tip.header.parent:
            raise ValueError(f"block {self.tip.header.height} does not follow {base.tip.header.height}")
        state = ChainState(base, self.tip.header)
        state.ledger.totals = self.ledger.totals
        for name in LEDGER_TABLES:
            getattr(state.ledger, name).absorb(getattr(self.ledger, name))
        state.utxos.absorb(self.utxos)
        state.transactions = self.transactions
        state.records = self.records
        return state


def recount_supply(view: ChainView) -> int:
    """The sum of the UTXO set in satoshis, counted output by output: what `totals.supply_sats` must say."""
    return sum(utxo.value_sats for _, utxo in view.utxos.items())
