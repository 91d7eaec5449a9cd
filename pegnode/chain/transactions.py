"""The rules of one transaction, on its own and against the outputs it spends."""

from dataclasses import dataclass

from bridge.bitcoin.identifiers import OutPoint
from bridge.bitcoin.transaction import Transaction
from bridge.errors import Reason
from bridge.ledger import LedgerView
from bridge.state import Table
from bridge.withdrawals import Burn
from pegnode.chain.parameters import ChainRules
from pegnode.chain.state import Utxo


class TransactionRule(Reason):
    """Which rule of the sidechain a transaction breaks. Rules of bytes, scripts and burns have the bridge's reasons."""

    VERSION = "transaction-version"
    NO_INPUTS = "transaction-no-inputs"
    NO_OUTPUTS = "transaction-no-outputs"
    NULL_PREVOUT = "transaction-null-prevout"
    RESERVED_INDEX = "transaction-reserved-index"
    DUPLICATE_INPUT = "transaction-duplicate-input"
    STRIPPED_SIZE = "transaction-stripped-size"
    SIZE_64 = "transaction-size-64"
    TOTAL_SIZE = "transaction-total-size"
    OUTPUT_TYPE = "transaction-output-type"
    OUTPUT_VALUE = "transaction-output-value"
    MISSING_INPUT = "transaction-missing-input"
    NOT_FINAL = "transaction-not-final"
    RELATIVE_LOCK = "transaction-relative-lock"
    FEE_NEGATIVE = "transaction-fee-negative"
    SIGOP_COST = "transaction-sigop-cost"


@dataclass(frozen=True, slots=True)
class BlockContext:
    """Where a transaction stands: the height and time of its block."""

    height: int
    time_ms: int


@dataclass(frozen=True, slots=True)
class TransactionEffect:
    """What a valid transaction does.

    burns: output index, burn, value in satoshis.  spent: per input.  sigop_cost: in Bitcoin's units.
    """

    fee_sats: int
    burns: tuple[tuple[int, Burn, int], ...]
    spent: tuple[tuple[OutPoint, Utxo], ...]
    sigop_cost: int


def check_transaction(
    transaction: Transaction,
    utxos: Table[OutPoint, Utxo],
    ledger: LedgerView,
    context: BlockContext,
    rules: ChainRules,
) -> TransactionEffect:
    """What `transaction` does in a block at `context`; raises TransactionRejected."""
    raise NotImplementedError
