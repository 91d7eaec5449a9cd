"""Core's sighash.json: the hashes that legacy signatures sign.

This program makes no legacy signature: the kernel checks them, and python-bitcoinlib's hash makes them in the tests of
spending. So that hash is compared with every vector. Then, since a vector's script is of random operations and can't be
run, each transaction is signed with that hash for a script that can, and the kernel must accept the signature: whatever
the library's hash is, the kernel's is the same.
"""

from dataclasses import dataclass, replace
from functools import cache

import pytest
from bitcoin.core import CTransaction
from bitcoin.core.script import CScript, RawSignatureHash
from coincurve import PrivateKey

from bridge.bitcoin.hashes import sha256
from bridge.bitcoin.identifiers import Script, hash_from_hex
from bridge.bitcoin.script import ScriptReason, push
from bridge.bitcoin.script_engine import verify_scripts
from bridge.bitcoin.transaction import Transaction, TxOut
from bridge.errors import Rejected
from tests.vectors.bitcoin_core import load_cases

KEY = PrivateKey(sha256(b"a key of these tests"))
CHECKSIG = Script(push(KEY.public_key.format()) + b"\xac")
ANYONE = Script(b"\x51")
"""Succeeds by itself: for the inputs that a case is not about."""


@dataclass(frozen=True)
class Case:
    """One vector. hash_type: any i32, of which a signature can name the lowest byte alone."""

    index: int
    data: bytes
    script: bytes
    input_index: int
    hash_type: int
    digest: bytes

    def legacy_hash(self, script: bytes, hash_type: int) -> bytes:
        """What a signature of this input signs, by the library."""
        parsed = CTransaction.deserialize(self.data)
        digest, _ = RawSignatureHash(CScript(script), parsed, self.input_index, hash_type)
        return bytes(digest)


CASES = [
    Case(index, bytes.fromhex(raw), bytes.fromhex(script), input_index, hash_type, hash_from_hex(digest))
    for index, (raw, script, input_index, hash_type, digest) in enumerate(load_cases("sighash.json", 5))
]
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.index)


@cache
def signed(case: Case) -> tuple[Transaction, list[TxOut]]:
    """The transaction with a signature for CHECKSIG in the case's input, and what its inputs spend."""
    transaction = Transaction.parse(case.data)
    byte = case.hash_type & 0xFF
    signature = KEY.sign(case.legacy_hash(CHECKSIG, byte), hasher=None) + bytes([byte])
    inputs = [replace(txin, script_sig=b"") for txin in transaction.inputs]
    inputs[case.input_index] = replace(inputs[case.input_index], script_sig=push(signature))
    prevouts = [TxOut(0, CHECKSIG if index == case.input_index else ANYONE) for index in range(len(inputs))]
    return replace(transaction, inputs=tuple(inputs)), prevouts


def test_no_case_got_lost() -> None:
    assert len(CASES) == 500


@each_case
def test_library_hashes_as_published(case: Case) -> None:
    assert case.legacy_hash(case.script, case.hash_type) == case.digest


@each_case
def test_kernel_hashes_as_the_library(case: Case) -> None:
    verify_scripts(*signed(case))


@each_case
def test_kernel_refuses_a_signature_of_another_version(case: Case) -> None:
    transaction, prevouts = signed(case)
    parsed = CTransaction.deserialize(case.data)
    other = replace(transaction, version=transaction.version ^ 1)
    signs_nothing = case.hash_type & 0x1F == 3 and case.input_index >= len(parsed.vout)  # the bug of SIGHASH_SINGLE
    if signs_nothing:
        verify_scripts(other, prevouts)
        return
    with pytest.raises(Rejected) as rejection:
        verify_scripts(other, prevouts)
    assert rejection.value.reason is ScriptReason.SCRIPT_FAILED
