"""libbitcoinkernel, Bitcoin Core's own engine: the one file that touches `pbk`.

The library is a pre-release, so it is pinned, used through this one adapter, and checked against published vectors.
Its flat C interface (`pbk.capi.bindings`) is called where the Python wrapper copies byte by byte: a transaction of
1 MB takes 0.3 s through the wrapper and 0.06 s here. Calls release the interpreter lock.
"""

import ctypes
import threading
from collections.abc import Sequence

import pbk
from pbk.capi import bindings
from pbk.script import PrecomputedTransactionData

CONSENSUS_FLAGS = pbk.ScriptVerificationFlags.ALL
"""P2SH, DERSIG, NULLDUMMY, CHECKLOCKTIMEVERIFY, CHECKSEQUENCEVERIFY, WITNESS and TAPROOT."""

_received = threading.local()


@bindings.btck_WriteBytes  # type: ignore[untyped-decorator]  # pbk has no types
def _receive(chunk: int, size: int, _context: int) -> int:
    """Take one piece of a serialization; the kernel calls this in the thread that asked for it."""
    _received.buffer += ctypes.string_at(chunk, size)
    return 0


def _parse(data: bytes) -> "pbk.Transaction | None":
    handle = bindings.btck_transaction_create(data, len(data))
    return pbk.Transaction._from_handle(handle) if handle else None


def reserialize(data: bytes) -> bytes | None:
    """The kernel's serialization of the transaction it finds at the front of `data`, or None when it finds none.

    The kernel accepts trailing bytes in silence: only a result equal to `data` means that `data` is one transaction.
    """
    transaction = _parse(data)
    if transaction is None:
        return None
    _received.buffer = bytearray()
    if bindings.btck_transaction_to_bytes(transaction, _receive, None) != 0:
        return None
    return bytes(_received.buffer)


def first_failing_input(data: bytes, prevouts: Sequence[tuple[int, bytes]]) -> int | None:
    """The lowest input of the transaction `data` whose script fails under every consensus rule; None: all succeed.

    data: a canonical transaction with its witness.  prevouts: (value in satoshis, script) spent by each input, in
    the order of the inputs, one for each: the caller has checked the count.
    """
    transaction = _parse(data)
    if transaction is None:
        return 0
    scripts = [pbk.ScriptPubkey(script) for _, script in prevouts]
    outputs = [pbk.TransactionOutput(script, value) for script, (value, _) in zip(scripts, prevouts, strict=True)]
    precomputed = PrecomputedTransactionData(transaction, outputs)
    for index, (value, _) in enumerate(prevouts):
        if not scripts[index].verify(value, transaction, precomputed, index, CONSENSUS_FLAGS):
            return index
    return None
