"""The rules of one transaction, on its own and against the outputs it spends."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from bridge.bitcoin.identifiers import HASH_SIZE, OutPoint
from bridge.bitcoin.script import classify, require_standard_witness, sigop_cost
from bridge.bitcoin.script_engine import verify_scripts
from bridge.bitcoin.transaction import FINAL_SEQUENCE, Transaction, TxOut
from bridge.errors import Reason, Rejected
from bridge.ledger import LedgerView
from bridge.withdrawals import Burn, check_burns, parse_burn
from pegnode.chain.block import MAX_TRANSACTION_BYTES
from pegnode.chain.parameters import MAX_TRANSACTION_SIGOP_COST, ChainRules
from pegnode.chain.state import Utxo

VERSIONS = (1, 2)
"""0xffffffff passes relative locks in one parser, which reads it as signed, and not in the other."""
MAX_STRIPPED_BYTES = 100_000
SIZE_OF_A_MERKLE_NODE = 64
"""A stripped transaction of this size could be taken for an inner node of a Merkle tree. Source: CVE-2017-12842."""
RESERVED_INDEX_BITS = 0b111 << 29
"""Bits 30 and 29 mark the inputs of claims and refunds; bit 31 is kept free with them."""

OP_RETURN = 0x6A

LOCKTIME_THRESHOLD = 500_000_000
"""A lock time below this is a height, above it a time. Source: Bitcoin Core, script/script.h."""
RELATIVE_LOCK_DISABLED = 1 << 31
RELATIVE_LOCK_IN_SECONDS = 1 << 22
RELATIVE_LOCK_MASK = 0xFFFF
RELATIVE_LOCK_GRANULARITY = 9
"""A relative lock in time counts units of 512 seconds. Source: BIP68, as the constants above."""


class TransactionRule(Reason):
    """Which rule of the sidechain a transaction breaks. Rules of bytes, scripts and burns have the bridge's reasons."""

    VERSION = "transaction-version"  # The version is neither 1 nor 2.
    NULL_PREVOUT = "transaction-null-prevout"  # An input names the zero txid.
    RESERVED_INDEX = "transaction-reserved-index"  # An input's index has bit 29, 30 or 31 set.
    DUPLICATE_INPUT = "transaction-duplicate-input"  # Two inputs name one output.
    STRIPPED_SIZE = "transaction-stripped-size"  # More than 100,000 bytes without witness.
    SIZE_64 = "transaction-size-64"  # 64 bytes without witness, as two hashes of a Merkle tree have (CVE-2017-12842).
    TOTAL_SIZE = "transaction-total-size"  # More than 400,000 bytes with witness.
    OUTPUT_TYPE = "transaction-output-type"  # An output's script is none of the five types and no OP_RETURN.
    MISSING_INPUT = "transaction-missing-input"  # An input names an output that is spent or never was.
    NOT_FINAL = "transaction-not-final"  # The lock time, a height or a time, has not passed.
    RELATIVE_LOCK = "transaction-relative-lock"  # An input's relative lock, in blocks or in time, has not passed.
    FEE_NEGATIVE = "transaction-fee-negative"  # Outputs exceed inputs.
    SIGOP_COST = "transaction-sigop-cost"  # Signature operations cost more than 16,000.


class UtxoSource(Protocol):
    """Where a transaction's inputs are looked up: a table of outputs, or what stands for one."""

    def get(self, outpoint: OutPoint, /) -> Utxo | None:
        """The unspent output, or None."""


@dataclass(frozen=True, slots=True)
class BlockContext:
    """Where a transaction stands: the height and the time in milliseconds of its block."""

    height: int
    time_ms: int

    @property
    def time_seconds(self) -> int:
        """What lock times are compared with."""
        return self.time_ms // 1000


@dataclass(frozen=True, slots=True)
class TransactionEffect:
    """What a valid transaction does.

    burns: each burning output's index, its burn, and its value in satoshis.  spent: one for each input, in order.
    sigop_cost: in Bitcoin's units.
    """

    fee_sats: int
    burns: tuple[tuple[int, Burn, int], ...]
    spent: tuple[tuple[OutPoint, Utxo], ...]
    sigop_cost: int


def parse_transaction(data: bytes) -> Transaction:
    """The transaction of exactly these bytes, witness included.

    Raises Rejected: TransactionRule.TOTAL_SIZE before any parsing, or bridge's TransactionReason.
    """
    if len(data) > MAX_TRANSACTION_BYTES:
        raise Rejected(TransactionRule.TOTAL_SIZE, f"{len(data)} bytes, at most {MAX_TRANSACTION_BYTES}")
    return Transaction.parse(data)


def check_transaction(
    transaction: Transaction,
    utxos: UtxoSource,
    ledger: LedgerView,
    context: BlockContext,
    rules: ChainRules,
) -> TransactionEffect:
    """What `transaction` does in a block at `context`, on top of `utxos` and `ledger`.

    Raises Rejected: TransactionRule, or bridge's ScriptReason or BurnReason.
    """
    effect = check_all_but_scripts(transaction, utxos, ledger, context, rules)
    check_scripts(transaction, effect)
    return effect


def check_all_but_scripts(
    transaction: Transaction,
    utxos: UtxoSource,
    ledger: LedgerView,
    context: BlockContext,
    rules: ChainRules,
) -> TransactionEffect:
    """What `transaction` would do if its scripts succeed: every rule that costs little. Raises Rejected."""
    _check_inputs(transaction)
    _check_size(transaction)
    burns = _burns(transaction, rules)
    spent = _spent_outputs(transaction, utxos)
    fee_sats = _fee(transaction, spent)
    _check_locktime(transaction, context)
    _check_relative_locks(transaction, [utxo for _, utxo in spent], context)
    check_burns([(burn, value_sats) for _, burn, value_sats in burns], ledger, rules.custody, rules.params)
    prevouts = [TxOut(utxo.value_sats, utxo.script) for _, utxo in spent]
    cost = sigop_cost(transaction, prevouts)
    if cost > MAX_TRANSACTION_SIGOP_COST:
        raise Rejected(TransactionRule.SIGOP_COST, f"{cost}, at most {MAX_TRANSACTION_SIGOP_COST}")
    return TransactionEffect(fee_sats, burns, spent, cost)


def check_scripts(transaction: Transaction, effect: TransactionEffect) -> None:
    """Whether the inputs may spend what `effect` says they spend. Raises Rejected: bridge's ScriptReason."""
    prevouts = [TxOut(utxo.value_sats, utxo.script) for _, utxo in effect.spent]
    require_standard_witness(transaction, prevouts)
    verify_scripts(transaction, prevouts)


def is_spendable(output: TxOut) -> bool:
    """Whether an output of a valid transaction becomes part of the UTXO set: burns and data outputs don't."""
    return output.script[:1] != bytes([OP_RETURN])


def _check_inputs(transaction: Transaction) -> None:
    """What an input may name, before anything is looked up: an index is never masked."""
    seen: set[OutPoint] = set()
    for index, txin in enumerate(transaction.inputs):
        outpoint = txin.outpoint
        if outpoint.txid == bytes(HASH_SIZE):
            raise Rejected(TransactionRule.NULL_PREVOUT, f"input {index}")
        if outpoint.vout & RESERVED_INDEX_BITS:
            raise Rejected(TransactionRule.RESERVED_INDEX, f"input {index}: index {outpoint.vout:#x}")
        if outpoint in seen:
            raise Rejected(TransactionRule.DUPLICATE_INPUT, f"input {index}: {outpoint}")
        seen.add(outpoint)


def _check_size(transaction: Transaction) -> None:
    if transaction.version not in VERSIONS:
        raise Rejected(TransactionRule.VERSION, f"{transaction.version:#x}")
    size = transaction.stripped_size
    if size > MAX_STRIPPED_BYTES:
        raise Rejected(TransactionRule.STRIPPED_SIZE, f"{size} bytes, at most {MAX_STRIPPED_BYTES}")
    if size == SIZE_OF_A_MERKLE_NODE:
        raise Rejected(TransactionRule.SIZE_64, "could be taken for an inner node of a Merkle tree")


def _burns(transaction: Transaction, rules: ChainRules) -> tuple[tuple[int, Burn, int], ...]:
    """The burns among the outputs; every other output holds value in one of the five types, or is a note without."""
    burns = []
    for index, output in enumerate(transaction.outputs):
        if is_spendable(output):
            if classify(output.script) is None:
                raise Rejected(TransactionRule.OUTPUT_TYPE, f"output {index}: {output.script[:40].hex()}")
        elif output.value_sats:
            burns.append((index, parse_burn(output, rules.l1_genesis_hash), output.value_sats))
    return tuple(burns)


def _spent_outputs(transaction: Transaction, utxos: UtxoSource) -> tuple[tuple[OutPoint, Utxo], ...]:
    spent = []
    for index, txin in enumerate(transaction.inputs):
        utxo = utxos.get(txin.outpoint)
        if utxo is None:
            raise Rejected(TransactionRule.MISSING_INPUT, f"input {index}: {txin.outpoint} is spent or unknown")
        spent.append((txin.outpoint, utxo))
    return tuple(spent)


def _fee(transaction: Transaction, spent: Sequence[tuple[OutPoint, Utxo]]) -> int:
    inputs_sats = sum(utxo.value_sats for _, utxo in spent)
    outputs_sats = sum(output.value_sats for output in transaction.outputs)
    if outputs_sats > inputs_sats:
        raise Rejected(TransactionRule.FEE_NEGATIVE, f"{inputs_sats} sats in, {outputs_sats} out")
    return inputs_sats - outputs_sats


def _check_locktime(transaction: Transaction, context: BlockContext) -> None:
    """Source: Bitcoin Core, IsFinalTx; the block's own time stands for the median of the past ones."""
    lock = transaction.locktime
    now = context.height if lock < LOCKTIME_THRESHOLD else context.time_seconds
    if lock >= now and any(txin.sequence != FINAL_SEQUENCE for txin in transaction.inputs):
        raise Rejected(TransactionRule.NOT_FINAL, f"lock time {lock}, at {now}")


def _check_relative_locks(transaction: Transaction, spent: Sequence[Utxo], context: BlockContext) -> None:
    """Source: BIP68; the block's own time stands for the median of the past ones, for both outputs and spends."""
    if transaction.version < 2:
        return
    for index, (txin, utxo) in enumerate(zip(transaction.inputs, spent, strict=True)):
        if txin.sequence & RELATIVE_LOCK_DISABLED:
            continue
        lock = txin.sequence & RELATIVE_LOCK_MASK
        if txin.sequence & RELATIVE_LOCK_IN_SECONDS:
            due, now = utxo.time_ms // 1000 + (lock << RELATIVE_LOCK_GRANULARITY), context.time_seconds
        else:
            due, now = utxo.height + lock, context.height
        if now < due:
            raise Rejected(TransactionRule.RELATIVE_LOCK, f"input {index}: due at {due}, now {now}")
