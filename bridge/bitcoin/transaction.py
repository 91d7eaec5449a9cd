"""Bitcoin transactions as values. Bytes are read and written by python-bitcoinlib, and judged by the kernel as well.

Either parser alone accepts what the other refuses: python-bitcoinlib takes a count that is not minimally encoded and
superfluous witness data, the kernel takes trailing bytes. Bytes are a transaction only if both give them back the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from io import BytesIO

from bitcoin.core import COutPoint, CTransaction, CTxIn, CTxInWitness, CTxOut, CTxWitness
from bitcoin.core.script import CScript, CScriptWitness
from bitcoin.core.serialize import SerializationError, VarIntSerializer

from bridge.bitcoin import kernel
from bridge.bitcoin.amounts import MAX_MONEY_SATS
from bridge.bitcoin.hashes import sha256d
from bridge.bitcoin.identifiers import HASH_SIZE, OutPoint, Script, Txid
from bridge.errors import Reason, Rejected

FINAL_SEQUENCE = 0xFFFFFFFF
NULL_VOUT = 0xFFFFFFFF
WITNESS_SCALE_FACTOR = 4
"""Weight units of a byte outside the witness. Source: BIP141."""


class TransactionReason(Reason):
    """Why bytes are not a transaction."""

    MALFORMED = "transaction-malformed"  # No parser takes the bytes for a transaction.
    PARSER_DISAGREEMENT = "transaction-parser-disagreement"
    """One parser takes the bytes, the other does not, or serializes them otherwise."""
    EMPTY = "transaction-empty"  # No input, or no output.
    VALUE_OUT_OF_RANGE = "transaction-value-out-of-range"
    """An output of less than nothing, or of more than 21 million BTC."""
    HAS_WITNESS = "transaction-has-witness"  # A witness where the stripped form belongs.


@dataclass(frozen=True, slots=True)
class TxIn:
    """One input. sequence: u32; witness: its stack, bottom first, empty when there is none."""

    outpoint: OutPoint
    script_sig: bytes = b""
    sequence: int = FINAL_SEQUENCE
    witness: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class TxOut:
    """One output. value_sats: 0 to MAX_MONEY_SATS when parsed."""

    value_sats: int
    script: Script


@dataclass(frozen=True)
class Transaction:
    """A transaction. version and locktime: u32.  (No slots: what is derived is computed once and kept.)"""

    version: int
    inputs: tuple[TxIn, ...]
    outputs: tuple[TxOut, ...]
    locktime: int = 0

    @classmethod
    def parse(cls, data: bytes) -> "Transaction":
        """The transaction that is exactly `data`.

        Raises Rejected: MALFORMED (both parsers refuse), PARSER_DISAGREEMENT (one does, or gives other bytes back),
        EMPTY (no input or no output), VALUE_OUT_OF_RANGE (an output's value).
        """
        by_kernel = kernel.reserialize(data)
        transaction = _parse_by_library(data)
        if by_kernel is None and transaction is None:
            raise Rejected(TransactionReason.MALFORMED, f"{len(data)} bytes that no parser takes for a transaction")
        if by_kernel != data:
            raise Rejected(TransactionReason.PARSER_DISAGREEMENT, f"libbitcoinkernel refuses these {len(data)} bytes")
        if transaction is None or transaction.serialize() != data:
            raise Rejected(TransactionReason.PARSER_DISAGREEMENT, f"python-bitcoinlib refuses these {len(data)} bytes")
        if not transaction.inputs or not transaction.outputs:
            raise Rejected(TransactionReason.EMPTY, "a transaction has an input and an output")
        for index, output in enumerate(transaction.outputs):
            if not 0 <= output.value_sats <= MAX_MONEY_SATS:
                raise Rejected(TransactionReason.VALUE_OUT_OF_RANGE, f"output {index} of {output.value_sats} sats")
        return transaction

    @classmethod
    def parse_stripped(cls, data: bytes) -> "Transaction":
        """The transaction that is exactly `data` and has no witness; raises Rejected as `parse`, or HAS_WITNESS."""
        transaction = cls.parse(data)
        if transaction.has_witness:
            raise Rejected(TransactionReason.HAS_WITNESS, "the stripped form was asked for")
        return transaction

    def serialize(self) -> bytes:
        """With the witness, if there is one. Source: BIP144."""
        return self._serialized

    def serialize_stripped(self) -> bytes:
        """Without the witness: what the txid hashes."""
        return self._stripped

    @property
    def has_witness(self) -> bool:
        """Whether any input has a witness."""
        return any(txin.witness for txin in self.inputs)

    @property
    def is_coinbase(self) -> bool:
        """Whether its one input spends nothing: the null outpoint."""
        return len(self.inputs) == 1 and is_null(self.inputs[0].outpoint)

    @cached_property
    def txid(self) -> Txid:
        """32 bytes, internal order."""
        return Txid(sha256d(self._stripped))

    @cached_property
    def wtxid(self) -> bytes:
        """32 bytes, internal order: the hash with the witness."""
        return sha256d(self._serialized)

    @property
    def stripped_size(self) -> int:
        """Bytes without the witness."""
        return len(self._stripped)

    @property
    def weight(self) -> int:
        """Weight units. Source: BIP141."""
        return len(self._stripped) * (WITNESS_SCALE_FACTOR - 1) + len(self._serialized)

    @property
    def vsize_vbytes(self) -> int:
        """Virtual bytes: a quarter of the weight, rounded up."""
        return -(-self.weight // WITNESS_SCALE_FACTOR)

    def outpoint(self, vout: int) -> OutPoint:
        """The name of output `vout`."""
        return OutPoint(self.txid, vout)

    def with_witnesses(self, witnesses: Sequence[tuple[bytes, ...]]) -> "Transaction":
        """The same transaction with these witnesses, one for each input in order; the txid stays."""
        inputs = tuple(replace(txin, witness=witness) for txin, witness in zip(self.inputs, witnesses, strict=True))
        return replace(self, inputs=inputs)

    @cached_property
    def _serialized(self) -> bytes:
        return bytes(_to_library(self).serialize())

    @cached_property
    def _stripped(self) -> bytes:
        if not self.has_witness:
            return self._serialized
        stream = BytesIO()
        _to_library(self).stream_serialize(stream, include_witness=False)
        return stream.getvalue()


def compact_size(value: int) -> bytes:
    """A count or length as Bitcoin serializes it, 1 to 9 bytes."""
    return bytes(VarIntSerializer.serialize(value))


def is_null(outpoint: OutPoint) -> bool:
    """Whether this is the outpoint that a coinbase input names: no transaction, no index."""
    return outpoint.vout == NULL_VOUT and outpoint.txid == bytes(HASH_SIZE)


def _parse_by_library(data: bytes) -> Transaction | None:
    """What python-bitcoinlib makes of `data`, if anything."""
    try:
        return _from_library(CTransaction.deserialize(data))
    except SerializationError:
        return None


def _from_library(parsed: CTransaction) -> Transaction:
    stacks = [tuple(bytes(item) for item in witness.scriptWitness.stack) for witness in parsed.wit.vtxinwit]
    stacks += [()] * (len(parsed.vin) - len(stacks))
    inputs = tuple(
        TxIn(OutPoint(Txid(txin.prevout.hash), txin.prevout.n), bytes(txin.scriptSig), txin.nSequence, stack)
        for txin, stack in zip(parsed.vin, stacks, strict=True)
    )
    outputs = tuple(TxOut(txout.nValue, Script(bytes(txout.scriptPubKey))) for txout in parsed.vout)
    # The library reads the version as signed.
    return Transaction(parsed.nVersion & 0xFFFFFFFF, inputs, outputs, parsed.nLockTime)


def _to_library(transaction: Transaction) -> CTransaction:
    signed_version = int.from_bytes(transaction.version.to_bytes(4, "little"), "little", signed=True)
    return CTransaction(
        [
            CTxIn(COutPoint(i.outpoint.txid, i.outpoint.vout), CScript(i.script_sig), i.sequence)
            for i in transaction.inputs
        ],
        [CTxOut(output.value_sats, CScript(output.script)) for output in transaction.outputs],
        transaction.locktime,
        signed_version,
        CTxWitness(tuple(CTxInWitness(CScriptWitness(txin.witness)) for txin in transaction.inputs)),
    )
