"""Taproot trees, signature hashes, and a transaction of nine inputs through the kernel. Source: BIP341."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from coincurve import PublicKey

from bridge.bitcoin import curve
from bridge.bitcoin.addresses import encode_address, l1_network
from bridge.bitcoin.hashes import sha256
from bridge.bitcoin.identifiers import Script
from bridge.bitcoin.script import ScriptReason, require_standard_witness
from bridge.bitcoin.script_engine import verify_scripts
from bridge.bitcoin.taproot import (
    SigHash,
    control_block,
    key_path_sighash,
    output_key,
    output_script,
    tapbranch_hash,
    tapleaf_hash,
)
from bridge.bitcoin.transaction import Transaction, TxOut
from bridge.errors import Rejected

VECTORS = json.loads((Path(__file__).parent / "data" / "bip341.json").read_text(encoding="ascii"))
SPENDING = VECTORS["keyPathSpending"]
SIGNED = Transaction.parse(bytes.fromhex(SPENDING["fullySignedTx"]))
PREVOUTS = [
    TxOut(spent["amountSats"], Script(bytes.fromhex(spent["scriptPubKey"]))) for spent in SPENDING["utxosSpent"]
]

Leaf = tuple[int, list[bytes]]


def _tree(node: Any) -> tuple[bytes, list[Leaf]]:
    """The node's hash, and of each leaf below it the version and the siblings on its way up."""
    if node is None:
        return b"", []
    if isinstance(node, dict):
        return tapleaf_hash(bytes.fromhex(node["script"]), node["leafVersion"]), [(node["leafVersion"], [])]
    (left, left_leaves), (right, right_leaves) = _tree(node[0]), _tree(node[1])
    leaves = [(version, [*path, right]) for version, path in left_leaves]
    leaves += [(version, [*path, left]) for version, path in right_leaves]
    return tapbranch_hash(left, right), leaves


@pytest.mark.parametrize("vector", VECTORS["scriptPubKey"], ids=lambda vector: str(vector["internalPubkey"][:8]))
def test_output_script_matches_the_tree(vector: dict[str, Any]) -> None:
    internal_key = bytes.fromhex(vector["internalPubkey"])
    root, leaves = _tree(vector["scriptTree"])
    key, parity = output_key(internal_key, root)
    script = output_script(key)
    assert script.hex() == vector["scriptPubKey"]
    assert encode_address(script, l1_network("main")) == vector["bip350Address"]
    blocks = [control_block(internal_key, parity, path, version).hex() for version, path in leaves]
    assert blocks == vector["scriptPathControlBlocks"]


@pytest.mark.parametrize("vector", SPENDING["inputSpending"], ids=lambda vector: f"hash-type-{vector['hashType']}")
def test_key_path_sighash_matches_each_hash_type(vector: dict[str, Any]) -> None:
    index = vector["txinIndex"]
    digest = key_path_sighash(SIGNED, index, PREVOUTS, SigHash(vector["hashType"]))
    assert digest.hex() == vector["sigHash"]
    assert curve.schnorr_verify(PREVOUTS[index].script[2:], digest, SIGNED.inputs[index].witness[0][:64])


@pytest.mark.parametrize("vector", SPENDING["inputSpending"], ids=lambda vector: f"input-{vector['txinIndex']}")
def test_internal_key_and_root_give_the_spent_output(vector: dict[str, Any]) -> None:
    root = bytes.fromhex(vector["merkleRoot"] or "")
    key, _ = output_key(curve.x_only(bytes.fromhex(vector["internalPrivkey"])), root)
    assert output_script(key) == PREVOUTS[vector["txinIndex"]].script


def test_nums_is_the_hash_of_the_generator() -> None:
    assert sha256(PublicKey.from_secret(b"\x01").format(compressed=False)) == curve.NUMS


def test_signed_transaction_is_accepted_by_the_kernel() -> None:
    require_standard_witness(SIGNED, PREVOUTS)
    verify_scripts(SIGNED, PREVOUTS)


@pytest.mark.parametrize("index", range(9))
def test_signed_transaction_is_refused_with_a_wrong_input(index: int) -> None:
    witnesses = [txin.witness for txin in SIGNED.inputs]
    if witnesses[index]:
        first = bytearray(witnesses[index][0])
        first[10] ^= 1
        witnesses[index] = (bytes(first), *witnesses[index][1:])
        spoiled = SIGNED.with_witnesses(witnesses)
    else:
        script_sig = bytearray(SIGNED.inputs[index].script_sig)
        script_sig[10] ^= 1
        inputs = list(SIGNED.inputs)
        inputs[index] = replace(inputs[index], script_sig=bytes(script_sig))
        spoiled = replace(SIGNED, inputs=tuple(inputs))
    with pytest.raises(Rejected, match=f"input {index}") as rejection:
        verify_scripts(spoiled, PREVOUTS)
    assert rejection.value.reason is ScriptReason.SCRIPT_FAILED
