"""Script paths: what our signature hash signs, the kernel verifies. Trees and key paths are in tests/vectors."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.bitcoin import curve
from bridge.bitcoin.identifiers import OutPoint, Script, Txid
from bridge.bitcoin.script import ScriptReason, push
from bridge.bitcoin.script_engine import verify_scripts
from bridge.bitcoin.taproot import (
    SigHash,
    control_block,
    key_path_sighash,
    output_key,
    output_script,
    script_path_sighash,
    tapbranch_hash,
    tapleaf_hash,
)
from bridge.bitcoin.transaction import Transaction, TxIn, TxOut
from bridge.errors import Rejected
from tests.support.transactions import HASHES

SECRET = b"\x07" * 32
LEAF = push(curve.x_only(SECRET)) + b"\xac"
OTHER_LEAF_HASH = tapleaf_hash(b"\x51")
KEY, PARITY = output_key(curve.NUMS, tapbranch_hash(tapleaf_hash(LEAF), OTHER_LEAF_HASH))
PREVOUTS = [TxOut(50_000 + index, output_script(KEY)) for index in range(3)]
SPEND = Transaction(
    2,
    tuple(TxIn(OutPoint(Txid(bytes([index]) * 32), index), sequence=index) for index in range(3)),
    tuple(TxOut(40_000 + index, Script(b"\x00\x14" + bytes(20))) for index in range(3)),
    7,
)


def _signed(transaction: Transaction, sighash: SigHash) -> Transaction:
    witnesses = []
    for index in range(len(transaction.inputs)):
        digest = script_path_sighash(transaction, index, PREVOUTS, tapleaf_hash(LEAF), sighash)
        signature = curve.schnorr_sign(SECRET, digest, bytes(32)) + bytes([sighash] if sighash else [])
        witnesses.append((signature, LEAF, control_block(curve.NUMS, PARITY, [OTHER_LEAF_HASH])))
    return transaction.with_witnesses(witnesses)


@pytest.mark.parametrize("sighash", SigHash)
def test_script_path_signature_is_accepted_by_the_kernel(sighash: SigHash) -> None:
    verify_scripts(_signed(SPEND, sighash), PREVOUTS)


@pytest.mark.parametrize("sighash", SigHash)
def test_script_path_signature_covers_what_its_hash_type_says(sighash: SigHash) -> None:
    digest = script_path_sighash(SPEND, 1, PREVOUTS, tapleaf_hash(LEAF), sighash)
    other_sequence = replace(SPEND, inputs=(*SPEND.inputs[:2], replace(SPEND.inputs[2], sequence=9)))
    other_output = replace(SPEND, outputs=(*SPEND.outputs[:2], TxOut(1, SPEND.outputs[2].script)))
    covers_inputs = sighash < 0x80
    covers_outputs = sighash & 3 in (SigHash.DEFAULT, SigHash.ALL)
    leaf_hash = tapleaf_hash(LEAF)
    assert (script_path_sighash(other_sequence, 1, PREVOUTS, leaf_hash, sighash) != digest) is covers_inputs
    assert (script_path_sighash(other_output, 1, PREVOUTS, leaf_hash, sighash) != digest) is covers_outputs
    assert script_path_sighash(replace(SPEND, locktime=8), 1, PREVOUTS, leaf_hash, sighash) != digest
    assert script_path_sighash(SPEND, 1, PREVOUTS, OTHER_LEAF_HASH, sighash) != digest
    assert key_path_sighash(SPEND, 1, PREVOUTS, sighash) != digest


def test_default_signature_covers_the_value_and_script_of_every_input() -> None:
    digest = script_path_sighash(SPEND, 0, PREVOUTS, tapleaf_hash(LEAF))
    for changed in (TxOut(1, PREVOUTS[2].script), TxOut(PREVOUTS[2].value_sats, Script(b"\x51"))):
        assert script_path_sighash(SPEND, 0, [*PREVOUTS[:2], changed], tapleaf_hash(LEAF)) != digest


def test_control_block_is_refused_with_the_other_parity() -> None:
    signed = _signed(SPEND, SigHash.DEFAULT)
    wrong = control_block(curve.NUMS, 1 - PARITY, [OTHER_LEAF_HASH])
    spoiled = signed.with_witnesses([(*txin.witness[:2], wrong) for txin in signed.inputs])
    with pytest.raises(Rejected, match="input 0") as rejection:
        verify_scripts(spoiled, PREVOUTS)
    assert rejection.value.reason is ScriptReason.SCRIPT_FAILED


@pytest.mark.parametrize("count", [0, 2, 4])
def test_sighash_is_refused_without_every_spent_output(count: int) -> None:
    with pytest.raises(ValueError, match="spent outputs"):
        key_path_sighash(SPEND, 0, (PREVOUTS * 2)[:count])


@given(HASHES, HASHES)
def test_branch_does_not_depend_on_the_order(left: bytes, right: bytes) -> None:
    assert tapbranch_hash(left, right) == tapbranch_hash(right, left)


@given(st.binary(max_size=300))
def test_leaf_hash_depends_on_the_version(script: bytes) -> None:
    assert tapleaf_hash(script) != tapleaf_hash(script, 0xC2)
