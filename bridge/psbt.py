"""Partially signed Bitcoin transactions: the container of BIP174, version 0, and the Taproot fields of BIP371.

    file    70 73 62 74 ff, the global map, a map for each input, a map for each output; nothing follows
    map     entries, no key twice, then 00
    entry   compact size and key, compact size and value; a key is its type, one byte for all that are read here, then
            what the type says

Read and written here are

    map     key                                              value
    global  00                                               the transaction, without scripts and witnesses
    input   01                                               the output that is spent: value u64, its script with length
    input   14, x-only key 32, leaf hash 32                  a signature by that key in that leaf
    input   15, control block                                that leaf's script, then its version, one byte
    input   17                                               the internal key, 32
    input   18                                               the Merkle root of the script tree, 32
    any     fc, length and "pegnode", subtype                our own, for whoever knows it

Whatever else a map holds is kept as it is, so that other wallets find what they wrote. Encodings have their keys in
order. The libraries at hand can write none of the Taproot fields.  Source: BIP174, BIP371.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Self

from bridge.bitcoin.curve import KEY_SIZE
from bridge.bitcoin.identifiers import HASH_SIZE, Script
from bridge.bitcoin.taproot import TAPSCRIPT_LEAF_VERSION
from bridge.bitcoin.transaction import Transaction, TxOut, compact_size
from bridge.codec import Reader
from bridge.errors import MalformedError, Reason, Rejected

MAGIC = b"psbt\xff"
MAX_PSBT_SIZE = 4_000_000
"""Bytes. One of a transaction that nodes relay, with every signature, has a quarter of it."""

GLOBAL_TRANSACTION = b"\x00"
GLOBAL_VERSION = b"\xfb"
WITNESS_UTXO = b"\x01"
SIGHASH_TYPE = b"\x03"
FINAL_SCRIPT_SIG = b"\x07"
FINAL_WITNESS = b"\x08"
TAP_SCRIPT_SIGNATURE = b"\x14"
TAP_LEAF_SCRIPT = b"\x15"
TAP_INTERNAL_KEY = b"\x17"
TAP_MERKLE_ROOT = b"\x18"
PROPRIETARY = b"\xfc\x07pegnode"

_SIZES = {0xFD: 2, 0xFE: 4, 0xFF: 8}

Entries = Mapping[bytes, bytes]
"""One map: key to value."""


class PsbtReason(Reason):
    """Why bytes are not a PSBT that is read here."""

    TOO_LARGE = "psbt-too-large"  # More than 4,000,000 bytes.
    MALFORMED = "psbt-malformed"  # Not a PSBT's maps: another magic, an end too early or too late, a key twice.
    VERSION = "psbt-version"  # A PSBT of another version than 0, such as BIP370's.
    TRANSACTION = "psbt-transaction"  # It holds no transaction, or one that has scripts or witnesses.
    OUTPUT = "psbt-output"  # A spent output that can't be read, or is not told.
    ANOTHER_TRANSACTION = "psbt-another-transaction"  # PSBTs of different transactions can't be combined.


@dataclass(frozen=True, slots=True)
class Psbt:
    """A transaction to be signed, and what is known about it.

    transaction: without witnesses.  entries: the global map, without the transaction.  inputs, outputs: a map for each.
    """

    transaction: Transaction
    entries: Entries
    inputs: tuple[Entries, ...]
    outputs: tuple[Entries, ...]

    @classmethod
    def of(cls, transaction: Transaction, entries: Entries, inputs: tuple[Entries, ...]) -> Self:
        """A new one. inputs: a map for each input."""
        return cls(transaction, entries, inputs, tuple({} for _ in transaction.outputs))

    def encode(self) -> bytes:
        """The bytes of a .psbt file; base 64 of them is the form for text."""
        first = {GLOBAL_TRANSACTION: self.transaction.serialize_stripped(), **self.entries}
        return MAGIC + b"".join(_encode_map(entries) for entries in (first, *self.inputs, *self.outputs))

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """The PSBT that is exactly `data`. Raises Rejected(PsbtReason)."""
        if len(data) > MAX_PSBT_SIZE:
            raise Rejected(PsbtReason.TOO_LARGE, f"{len(data)} bytes, over {MAX_PSBT_SIZE}")
        try:
            source = _Source(data)
            if source.take(len(MAGIC)) != MAGIC:
                raise MalformedError("it does not begin as a PSBT does")
            first = dict(source.map())
            transaction = _unsigned_transaction(first)
            inputs = tuple(source.map() for _ in transaction.inputs)
            outputs = tuple(source.map() for _ in transaction.outputs)
            source.finish()
        except MalformedError as error:
            raise Rejected(PsbtReason.MALFORMED, str(error)) from error
        return cls(transaction, first, inputs, outputs)

    def combined(self, other: Self) -> Self:
        """What both know. Where both say something of one thing, this one's is kept.

        Raises Rejected(PsbtReason.ANOTHER_TRANSACTION).  Source: BIP174, Combiner.
        """
        if other.transaction != self.transaction:
            raise Rejected(PsbtReason.ANOTHER_TRANSACTION, "they don't spend the same to the same")
        return type(self)(
            self.transaction,
            {**other.entries, **self.entries},
            tuple({**theirs, **ours} for ours, theirs in zip(self.inputs, other.inputs, strict=True)),
            tuple({**theirs, **ours} for ours, theirs in zip(self.outputs, other.outputs, strict=True)),
        )


def proprietary_key(subtype: int) -> bytes:
    """The key of an entry of our own. subtype: below 253."""
    return PROPRIETARY + bytes([subtype])


def signature_key(public_key: bytes, leaf_hash: bytes) -> bytes:
    """The key of a signature's entry, 65 bytes. Both arguments: 32 bytes."""
    return TAP_SCRIPT_SIGNATURE + public_key + leaf_hash


def signatures(entries: Entries, leaf_hash: bytes) -> dict[bytes, bytes]:
    """The signatures in one leaf by the x-only keys that are said to have made them; unchecked."""
    size = len(TAP_SCRIPT_SIGNATURE) + KEY_SIZE
    return {
        key[len(TAP_SCRIPT_SIGNATURE) : size]: value
        for key, value in entries.items()
        if len(key) == size + HASH_SIZE and key.startswith(TAP_SCRIPT_SIGNATURE) and key[size:] == leaf_hash
    }


def spent_output(entries: Entries) -> TxOut:
    """The output that an input spends, as its map says. Raises Rejected(PsbtReason.OUTPUT)."""
    data = entries.get(WITNESS_UTXO)
    if data is None:
        raise Rejected(PsbtReason.OUTPUT, "an input does not tell the output that it spends")
    try:
        source = _Source(data)
        output = TxOut(source.u64(), Script(source.take(source.size())))
        source.finish()
    except MalformedError as error:
        raise Rejected(PsbtReason.OUTPUT, str(error)) from error
    return output


def script_path_entries(
    output: TxOut, internal_key: bytes, merkle_root: bytes, leaf: bytes, control_block: bytes
) -> dict[bytes, bytes]:
    """What signers and finalizers want to know of an input that is to be spent by one leaf. Source: BIP371."""
    return {
        WITNESS_UTXO: output.value_sats.to_bytes(8, "little") + compact_size(len(output.script)) + output.script,
        TAP_LEAF_SCRIPT + control_block: leaf + bytes([TAPSCRIPT_LEAF_VERSION]),
        TAP_INTERNAL_KEY: internal_key,
        TAP_MERKLE_ROOT: merkle_root,
    }


def _unsigned_transaction(entries: dict[bytes, bytes]) -> Transaction:
    """Take the transaction out of the global map."""
    if int.from_bytes(entries.get(GLOBAL_VERSION, b""), "little"):
        raise Rejected(PsbtReason.VERSION, "only version 0, of BIP174, is read; let its maker export that")
    data = entries.pop(GLOBAL_TRANSACTION, None)
    if data is None:
        raise Rejected(PsbtReason.TRANSACTION, "it holds no transaction")
    try:
        transaction = Transaction.parse_stripped(data)
    except Rejected as error:
        raise Rejected(PsbtReason.TRANSACTION, str(error)) from error
    if any(txin.script_sig for txin in transaction.inputs):
        raise Rejected(PsbtReason.TRANSACTION, "its transaction has scripts already")
    return transaction


def _encode_map(entries: Entries) -> bytes:
    parts = (compact_size(len(item)) + item for entry in sorted(entries.items()) for item in entry)
    return b"".join(parts) + b"\x00"


class _Source(Reader):
    """Takes what Bitcoin and BIP174 write; raises MalformedError."""

    __slots__ = ()

    def size(self) -> int:
        """A compact size, which has one form."""
        first = self.take(1)[0]
        value = int.from_bytes(self.take(_SIZES[first]), "little") if first in _SIZES else first
        if len(compact_size(value)) != 1 + _SIZES.get(first, 0):
            raise MalformedError(f"a size of {value} in another form than the shortest")
        return value

    def map(self) -> dict[bytes, bytes]:
        return dict(self._entries())

    def _entries(self) -> Iterator[tuple[bytes, bytes]]:
        seen: set[bytes] = set()
        while length := self.size():
            key = self.take(length)
            if key in seen:
                raise MalformedError(f"the key {key.hex()} twice")
            seen.add(key)
            yield key, self.take(self.size())
