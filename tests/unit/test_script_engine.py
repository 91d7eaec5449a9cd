"""Scripts run in the kernel, under every consensus rule; the published transaction is in tests/vectors."""

from dataclasses import replace

import pytest
from bitcoin.core.serialize import Hash160
from coincurve import PrivateKey

from bridge.bitcoin.hashes import sha256
from bridge.bitcoin.identifiers import OutPoint, Script, Txid
from bridge.bitcoin.script import ScriptReason, push
from bridge.bitcoin.script_engine import verify_scripts
from bridge.bitcoin.transaction import Transaction, TxIn, TxOut
from bridge.errors import Rejected

SPEND = Transaction(
    2, (TxIn(OutPoint(Txid(b"\x01" * 32), 0), sequence=5),), (TxOut(1000, Script(b"\x51\x20" + bytes(32))),), 100
)
FALSE, TRUE, DROP, EQUAL, CLTV, CSV = b"\x00", b"\x51", b"\x75", b"\x87", b"\xb1", b"\xb2"


def _p2sh(redeem_script: bytes) -> Script:
    return Script(b"\xa9\x14" + Hash160(redeem_script) + EQUAL)


def _p2wsh(witness_script: bytes) -> Script:
    return Script(b"\x00\x20" + sha256(witness_script))


def _is_valid(script: bytes, script_sig: bytes = b"", witness: tuple[bytes, ...] = ()) -> bool:
    transaction = replace(SPEND, inputs=(replace(SPEND.inputs[0], script_sig=script_sig, witness=witness),))
    try:
        verify_scripts(transaction, [TxOut(2000, Script(script))])
    except Rejected as rejected:
        if rejected.reason is not ScriptReason.SCRIPT_FAILED:
            raise
        return False
    return True


def test_p2sh_runs_the_redeem_script() -> None:
    assert _is_valid(_p2sh(TRUE), push(TRUE))
    assert not _is_valid(_p2sh(FALSE), push(FALSE))
    assert not _is_valid(_p2sh(TRUE), push(FALSE))


def test_witness_program_runs_the_witness_script() -> None:
    assert _is_valid(_p2wsh(TRUE), witness=(TRUE,))
    assert not _is_valid(_p2wsh(FALSE), witness=(FALSE,))
    assert not _is_valid(_p2wsh(TRUE))
    assert not _is_valid(_p2wsh(TRUE), b"\x51", (TRUE,))


@pytest.mark.parametrize(("locktime", "passes"), [(99, True), (100, True), (101, False)])
def test_lock_time_is_checked(locktime: int, passes: bool) -> None:
    script = push(locktime.to_bytes(1, "little")) + CLTV + DROP + TRUE
    assert _is_valid(_p2wsh(script), witness=(script,)) is passes


@pytest.mark.parametrize(("blocks", "passes"), [(4, True), (5, True), (6, False)])
def test_relative_lock_is_checked(blocks: int, passes: bool) -> None:
    script = push(bytes([blocks])) + CSV + DROP + TRUE
    assert _is_valid(_p2wsh(script), witness=(script,)) is passes


def test_dummy_of_a_multisig_must_be_empty() -> None:
    script = b"\x00\x00\xae"  # none of no keys
    assert _is_valid(_p2wsh(script), witness=(b"", script))
    assert not _is_valid(_p2wsh(script), witness=(TRUE, script))


def test_signature_must_be_strict_der() -> None:
    key = PrivateKey(b"\x07" * 32)
    script = push(key.public_key.format()) + b"\xac"
    assert not _is_valid(script, push(b"\x30\x80" + bytes(60) + b"\x01"))


def test_taproot_is_guarded() -> None:
    output = b"\x51\x20" + bytes(32)
    assert not _is_valid(output)
    assert not _is_valid(output, witness=(bytes(64),))


def test_each_input_is_checked_with_its_own_output() -> None:
    inputs = tuple(TxIn(OutPoint(Txid(b"\x01" * 32), index), witness=(TRUE,)) for index in range(3))
    transaction = replace(SPEND, inputs=inputs)
    good, bad = TxOut(1, _p2wsh(TRUE)), TxOut(1, _p2wsh(FALSE))
    verify_scripts(transaction, [good] * 3)
    for index in range(3):
        with pytest.raises(Rejected, match=f"input {index}: may not spend {inputs[index].outpoint}"):
            verify_scripts(transaction, [bad if place == index else good for place in range(3)])


@pytest.mark.parametrize("count", [0, 2])
def test_spend_is_refused_without_each_spent_output(count: int) -> None:
    with pytest.raises(Rejected) as rejection:
        verify_scripts(SPEND, [TxOut(1, Script(TRUE))] * count)
    assert rejection.value.reason is ScriptReason.SCRIPT_FAILED
