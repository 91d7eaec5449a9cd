"""Taproot: script trees, output keys, control blocks and signature hashes. Source: BIP341, BIP342."""

from collections.abc import Sequence
from enum import IntEnum

from bridge.bitcoin import curve
from bridge.bitcoin.hashes import sha256, tagged_hash
from bridge.bitcoin.identifiers import Script
from bridge.bitcoin.transaction import Transaction, TxOut, compact_size

TAPSCRIPT_LEAF_VERSION = 0xC0
ANNEX_TAG = 0x50

_EPOCH = b"\x00"
_KEY_VERSION = b"\x00"
_NO_CODE_SEPARATOR = b"\xff\xff\xff\xff"
_ANYONE_CAN_PAY = 0x80


class SigHash(IntEnum):
    """Which parts of a transaction a signature covers. DEFAULT covers all of it and adds no byte to the signature."""

    DEFAULT = 0x00
    ALL = 0x01
    NONE = 0x02
    SINGLE = 0x03
    ALL_ANYONE_CAN_PAY = 0x81
    NONE_ANYONE_CAN_PAY = 0x82
    SINGLE_ANYONE_CAN_PAY = 0x83


def tapleaf_hash(script: bytes, version: int = TAPSCRIPT_LEAF_VERSION) -> bytes:
    """The 32-byte hash of one leaf."""
    return tagged_hash("TapLeaf", bytes([version]) + compact_size(len(script)) + script)


def tapbranch_hash(left: bytes, right: bytes) -> bytes:
    """The 32-byte hash of two nodes, in whichever order they are given."""
    return tagged_hash("TapBranch", min(left, right) + max(left, right))


def output_key(internal_key: bytes, merkle_root: bytes = b"") -> tuple[bytes, int]:
    """The x-only key that an output shows, and the parity of its y.

    internal_key: 32 bytes; merkle_root: 32 bytes, or empty for an output without scripts.
    Raises Rejected(CurveReason).
    """
    return curve.tweak_add(internal_key, tagged_hash("TapTweak", internal_key + merkle_root))


def output_script(key: bytes) -> Script:
    """The P2TR output script of an output key of 32 bytes."""
    return Script(b"\x51\x20" + key)


def control_block(
    internal_key: bytes, parity: int, path: Sequence[bytes], version: int = TAPSCRIPT_LEAF_VERSION
) -> bytes:
    """The last item of a script path's witness: 33 bytes, and 32 for each sibling on the path from the leaf up."""
    return bytes([version | parity]) + internal_key + b"".join(path)


def key_path_sighash(
    transaction: Transaction, index: int, prevouts: Sequence[TxOut], sighash: SigHash = SigHash.DEFAULT
) -> bytes:
    """The 32 bytes that a signature for input `index` by the output key covers.

    prevouts: the outputs spent by every input, in order.
    """
    return tagged_hash("TapSighash", _EPOCH + _message(transaction, index, prevouts, sighash, extension_flag=0))


def script_path_sighash(
    transaction: Transaction,
    index: int,
    prevouts: Sequence[TxOut],
    leaf_hash: bytes,
    sighash: SigHash = SigHash.DEFAULT,
) -> bytes:
    """The 32 bytes that a signature for input `index` in the leaf of `leaf_hash` covers.

    prevouts: the outputs spent by every input, in order. For a script without OP_CODESEPARATOR.  Source: BIP342.
    """
    message = _message(transaction, index, prevouts, sighash, extension_flag=1)
    return tagged_hash("TapSighash", _EPOCH + message + leaf_hash + _KEY_VERSION + _NO_CODE_SEPARATOR)


def _message(
    transaction: Transaction, index: int, prevouts: Sequence[TxOut], sighash: SigHash, extension_flag: int
) -> bytes:
    """Source: BIP341, "Common signature message". There is no annex: block rules forbid it."""
    if len(prevouts) != len(transaction.inputs):
        raise ValueError(f"{len(prevouts)} spent outputs for {len(transaction.inputs)} inputs")
    covered_outputs = sighash & 3
    anyone_can_pay = bool(sighash & _ANYONE_CAN_PAY)
    parts = [
        bytes([sighash]),
        transaction.version.to_bytes(4, "little"),
        transaction.locktime.to_bytes(4, "little"),
    ]
    if not anyone_can_pay:
        parts += [
            sha256(b"".join(txin.outpoint.encode() for txin in transaction.inputs)),
            sha256(b"".join(prevout.value_sats.to_bytes(8, "little") for prevout in prevouts)),
            sha256(b"".join(_with_length(prevout.script) for prevout in prevouts)),
            sha256(b"".join(txin.sequence.to_bytes(4, "little") for txin in transaction.inputs)),
        ]
    if covered_outputs not in (SigHash.NONE, SigHash.SINGLE):
        parts.append(sha256(b"".join(_output(output) for output in transaction.outputs)))
    parts.append(bytes([2 * extension_flag]))
    if anyone_can_pay:
        txin = transaction.inputs[index]
        parts += [txin.outpoint.encode(), _output(prevouts[index]), txin.sequence.to_bytes(4, "little")]
    else:
        parts.append(index.to_bytes(4, "little"))
    if covered_outputs == SigHash.SINGLE:
        parts.append(sha256(_output(transaction.outputs[index])))
    return b"".join(parts)


def _output(output: TxOut) -> bytes:
    return output.value_sats.to_bytes(8, "little") + _with_length(output.script)


def _with_length(data: bytes) -> bytes:
    return compact_size(len(data)) + data
