"""Scripts: their types, what they cost, and which spends no block may hold."""

import pytest
from bitcoin.core.script import CScript, CScriptInvalidError
from hypothesis import given
from hypothesis import strategies as st

from bridge.bitcoin.hashes import sha256
from bridge.bitcoin.identifiers import OutPoint, Script, Txid
from bridge.bitcoin.script import (
    MAX_SCRIPT_SIG_SIZE,
    ScriptReason,
    ScriptType,
    classify,
    dust_limit_sats,
    parse_pushes,
    push,
    require_standard_witness,
    sigop_cost,
    witness_program,
)
from bridge.bitcoin.transaction import Transaction, TxIn, TxOut
from bridge.errors import Rejected

P2PKH = b"\x76\xa9\x14" + bytes(20) + b"\x88\xac"
P2SH = b"\xa9\x14" + bytes(20) + b"\x87"
P2WPKH = b"\x00\x14" + bytes(20)
P2WSH = b"\x00\x20" + bytes(32)
P2TR = b"\x51\x20" + bytes(32)
OP_RETURN = b"\x6a"
CONTROL = b"\xc0" + bytes(32)
CHECKSIG, CHECKMULTISIG = b"\xac", b"\xae"

# Source: BIP342, in its own words.
OP_SUCCESSES = {80, 98, *range(126, 130), *range(131, 135), 137, 138, 141, 142, *range(149, 154), *range(187, 255)}

TYPES = {
    P2PKH: ScriptType.P2PKH,
    P2SH: ScriptType.P2SH,
    P2WPKH: ScriptType.P2WPKH,
    P2WSH: ScriptType.P2WSH,
    P2TR: ScriptType.P2TR,
}


def _spend(
    script: bytes, witness: tuple[bytes, ...] = (), script_sig: bytes = b"", pays: bytes = P2TR
) -> tuple[Transaction, list[TxOut]]:
    """A transaction of one input that spends `script`, and what it spends."""
    txin = TxIn(OutPoint(Txid(b"\x01" * 32), 0), script_sig, witness=witness)
    return Transaction(2, (txin,), (TxOut(1000, Script(pays)),)), [TxOut(2000, Script(script))]


def _reason(script: bytes, witness: tuple[bytes, ...] = (), script_sig: bytes = b"") -> ScriptReason | None:
    """Why the spend is refused, or None."""
    transaction, prevouts = _spend(script, witness, script_sig)
    try:
        require_standard_witness(transaction, prevouts)
    except Rejected as rejected:
        reason = rejected.reason
    else:
        return None
    assert isinstance(reason, ScriptReason)
    return reason


@pytest.mark.parametrize("script", TYPES)
def test_script_has_its_type_whatever_it_hashes(script: bytes) -> None:
    assert classify(script) is TYPES[script]
    assert classify(script + b"\x00") is None
    assert classify(script[:-1]) is None
    hash_start = script.index(b"\x14" if b"\x14" in script else b"\x20") + 1
    hash_end = hash_start + script[hash_start - 1]
    for place, byte in enumerate(script):
        changed = script[:place] + bytes([byte ^ 0x40]) + script[place + 1 :]
        assert classify(changed) is (TYPES[script] if hash_start <= place < hash_end else None)


@pytest.mark.parametrize("script", [b"", OP_RETURN, b"\x51", b"\x51\x02\x4e\x73", b"\x52\x20" + bytes(32)])
def test_script_has_no_type_otherwise(script: bytes) -> None:
    assert classify(script) is None


@pytest.mark.parametrize(
    ("script", "limit_sats"),
    [(P2PKH, 546), (P2SH, 540), (P2WPKH, 294), (P2WSH, 330), (P2TR, 330), (OP_RETURN + bytes(40), 0), (b"\x51", 474)],
)
def test_dust_limit_is_the_one_of_core(script: bytes, limit_sats: int) -> None:
    assert dust_limit_sats(script) == limit_sats


@pytest.mark.parametrize(
    ("data", "operation"),
    [
        (b"", b"\x00"),
        (b"\x01", b"\x51"),
        (b"\x10", b"\x60"),
        (b"\x81", b"\x4f"),
        (b"\x00", b"\x01\x00"),
        (b"\x11", b"\x01\x11"),
        (bytes(75), b"\x4b" + bytes(75)),
        (bytes(76), b"\x4c\x4c" + bytes(76)),
        (bytes(255), b"\x4c\xff" + bytes(255)),
        (bytes(256), b"\x4d\x00\x01" + bytes(256)),
        (bytes(65536), b"\x4e\x00\x00\x01\x00" + bytes(65536)),
    ],
    ids=lambda value: f"{len(value)}-{value[:2].hex()}",
)
def test_push_is_the_shortest(data: bytes, operation: bytes) -> None:
    assert push(data) == operation
    assert parse_pushes(operation) == [data]


@given(st.lists(st.one_of(st.binary(max_size=3), st.binary(min_size=74, max_size=77), st.binary(max_size=300))))
def test_pushes_round_trip(items: list[bytes]) -> None:
    assert parse_pushes(b"".join(map(push, items))) == items


@given(st.binary(max_size=40))
def test_bytes_that_parse_as_pushes_are_the_shortest(script: bytes) -> None:
    items = parse_pushes(script)
    assert items is None or b"".join(map(push, items)) == script


@pytest.mark.parametrize(
    "script",
    [
        b"\x01\x05",
        b"\x01\x81",
        b"\x4c\x01\x20",
        b"\x4c\x00",
        b"\x4d\x01\x00\x20",
        b"\x02\x00",
        b"\x61",
        b"\x50",
        b"\x4c",
    ],
    ids=bytes.hex,
)
def test_pushes_are_refused_when_longer_cut_or_not_pushes(script: bytes) -> None:
    assert parse_pushes(script) is None


@pytest.mark.parametrize(
    ("script", "program"),
    [
        (P2WPKH, (0, bytes(20))),
        (P2TR, (1, bytes(32))),
        (b"\x60\x28" + bytes(40), (16, bytes(40))),
        (b"\x51\x02\x4e\x73", (1, b"\x4e\x73")),
        (b"\x60\x29" + bytes(41), None),
        (b"\x60\x01\x00", None),
        (b"\x61\x02\x00\x00", None),
        (b"\x51\x03\x00\x00", None),
        (P2PKH, None),
    ],
)
def test_witness_program_is_read(script: bytes, program: tuple[int, bytes] | None) -> None:
    assert witness_program(script) == program


MULTISIG_2_OF_3 = b"\x52" + (b"\x21" + bytes(33)) * 3 + b"\x53" + CHECKMULTISIG


@pytest.mark.parametrize(
    ("script", "witness", "script_sig", "pays", "cost"),
    [
        (P2TR, (bytes(64),), b"", P2TR, 0),
        (P2TR, (), b"", P2PKH, 4),
        (P2TR, (), b"", CHECKMULTISIG, 80),
        (P2TR, (), b"", b"\x53" + CHECKMULTISIG, 80),  # bare: always counted as twenty keys
        (P2TR, (CHECKSIG * 9, CONTROL), b"", P2TR, 0),
        (P2PKH, (), push(bytes(71)) + push(bytes(33)), P2TR, 0),
        (P2PKH, (), CHECKSIG * 2, P2TR, 8),
        (P2WPKH, (b"", b""), b"", P2TR, 1),
        (P2WSH, (b"", MULTISIG_2_OF_3), b"", P2TR, 3),
        (P2WSH, (b"", CHECKMULTISIG), b"", P2TR, 20),
        (P2WSH, (), b"", P2TR, 0),
        (P2SH, (), push(MULTISIG_2_OF_3), P2TR, 12),
        (P2SH, (), push(CHECKSIG) + b"\x61", P2TR, 0),  # not only pushes: no redeem script
        (P2SH, (), b"", P2TR, 0),
        (P2SH, (b"", b""), push(P2WPKH), P2TR, 1),
        (P2SH, (b"", MULTISIG_2_OF_3), push(P2WSH), P2TR, 3),
        (P2TR, (), b"", CHECKSIG + b"\x4c", 4),  # counted up to where a push is cut short
    ],
)
def test_sigop_cost_is_the_one_of_core(
    script: bytes, witness: tuple[bytes, ...], script_sig: bytes, pays: bytes, cost: int
) -> None:
    assert sigop_cost(*_spend(script, witness, script_sig, pays)) == cost


def _operations_by_library(script: bytes) -> list[int]:
    """The codes of a script's operations, up to a push that is cut short, as python-bitcoinlib reads them."""
    codes = []
    try:
        for code, _, _ in CScript(script).raw_iter():
            codes.append(int(code))
    except CScriptInvalidError:
        pass
    return codes


SIGOPS = {0xAC: 1, 0xAD: 1, 0xAE: 20, 0xAF: 20}
ODD_SCRIPTS = st.lists(
    st.one_of(
        st.sampled_from([b"\xac", b"\xad", b"\xae", b"\xaf", b"\x51", b"\x50", b"\x4c", b"\x4d\x02", b"\x4e\x01\x00"]),
        st.binary(max_size=80).map(push),
        st.binary(max_size=6),
    )
).map(b"".join)


@given(ODD_SCRIPTS)
def test_operations_are_the_ones_the_library_reads(script: bytes) -> None:
    codes = _operations_by_library(script)
    assert sigop_cost(*_spend(P2TR, pays=script)) == 4 * sum(SIGOPS.get(code, 0) for code in codes)
    is_op_success = any(code in OP_SUCCESSES for code in codes)
    assert _reason(P2TR, (script, CONTROL)) is (ScriptReason.OP_SUCCESS if is_op_success else None)


def test_sigop_cost_needs_every_spent_output() -> None:
    transaction, prevouts = _spend(P2TR)
    with pytest.raises(ValueError, match="zip"):
        sigop_cost(transaction, prevouts * 2)


@pytest.mark.parametrize(
    ("script", "witness", "script_sig"),
    [
        (P2PKH, (), push(bytes(71)) + push(bytes(33))),
        (P2SH, (), push(MULTISIG_2_OF_3)),
        (P2SH, (bytes(71), bytes(33)), push(P2WPKH)),
        (P2SH, (b"", MULTISIG_2_OF_3), push(P2WSH)),
        (P2SH, (), b""),
        (P2WPKH, (bytes(71), bytes(33)), b""),
        (P2WSH, (*[bytes(80)] * 100, bytes(3600)), b""),
        (P2TR, (bytes(64),), b""),
        (P2TR, (*[bytes(80)] * 200, CHECKSIG, CONTROL), b""),
        (P2TR, (push(b"\x50\x62\xfe"), CONTROL), b""),  # data, not operations
        (P2TR, (b"\x4c", CONTROL), b""),  # the kernel refuses this one
        (P2TR, (), b""),
    ],
)
def test_spend_is_standard(script: bytes, witness: tuple[bytes, ...], script_sig: bytes) -> None:
    assert _reason(script, witness, script_sig) is None


def test_script_sig_is_refused_when_too_large() -> None:
    pushes = push(bytes(MAX_SCRIPT_SIG_SIZE - 3))
    assert len(pushes) == MAX_SCRIPT_SIG_SIZE
    assert _reason(P2PKH, script_sig=pushes) is None
    assert _reason(P2PKH, script_sig=push(bytes(MAX_SCRIPT_SIG_SIZE - 2))) is ScriptReason.SCRIPT_SIG_TOO_LARGE


@pytest.mark.parametrize("script_sig", [b"\x61", b"\x01\x05", b"\x4c\x01\x20", b"\x02\x00"], ids=bytes.hex)
@pytest.mark.parametrize("script", [P2PKH, P2SH])
def test_script_sig_is_refused_when_it_does_other_than_push(script: bytes, script_sig: bytes) -> None:
    assert _reason(script, script_sig=script_sig) is ScriptReason.SCRIPT_SIG_NOT_PUSH_ONLY


def test_p2sh_is_refused_with_too_many_signature_operations() -> None:
    assert _reason(P2SH, script_sig=push(CHECKSIG * 15)) is None
    assert _reason(P2SH, script_sig=push(CHECKSIG * 16)) is ScriptReason.P2SH_SIGOPS


@pytest.mark.parametrize(
    "program",
    [b"\x52\x20" + bytes(32), b"\x60\x02\x00\x00", b"\x51\x02\x4e\x73", b"\x51\x21" + bytes(33)],
    ids=bytes.hex,
)
@pytest.mark.parametrize("witness", [(), (b"x",)])
def test_unknown_witness_version_is_refused(program: bytes, witness: tuple[bytes, ...]) -> None:
    assert _reason(program, witness) is ScriptReason.UNKNOWN_WITNESS_VERSION
    assert _reason(P2SH, witness, push(program)) is ScriptReason.UNKNOWN_WITNESS_VERSION


def test_taproot_in_p2sh_is_refused_since_nobody_guards_it() -> None:
    assert _reason(P2SH, (), push(P2TR)) is ScriptReason.UNKNOWN_WITNESS_VERSION


@pytest.mark.parametrize(("script", "script_sig"), [(P2PKH, b""), (P2SH, push(b"\x51")), (P2SH, b"")])
def test_witness_is_refused_where_none_belongs(script: bytes, script_sig: bytes) -> None:
    assert _reason(script, (b"x",), script_sig) is ScriptReason.UNEXPECTED_WITNESS


def test_op_success_is_refused_by_each_of_its_codes_and_no_other() -> None:
    for opcode in range(256):
        leaf = push(bytes(32)) + CHECKSIG + bytes([opcode])
        is_op_success = opcode in OP_SUCCESSES
        assert _reason(P2TR, (b"", leaf, CONTROL)) is (ScriptReason.OP_SUCCESS if is_op_success else None)


@pytest.mark.parametrize("rest", [(b"",), (b"", CHECKSIG, CONTROL)])
def test_annex_is_refused(rest: tuple[bytes, ...]) -> None:
    assert _reason(P2TR, (*rest, b"\x50")) is ScriptReason.ANNEX


@pytest.mark.parametrize("control", [b"", b"\xc2" + bytes(32), b"\x00" + bytes(32), b"\xfe" + bytes(32)])
def test_unknown_leaf_version_is_refused(control: bytes) -> None:
    assert _reason(P2TR, (b"\x51", control)) is ScriptReason.UNKNOWN_LEAF_VERSION


@pytest.mark.parametrize("script_sig", [b"", push(P2WSH)])
def test_p2wsh_is_refused_over_the_limits_of_core(script_sig: bytes) -> None:
    script = P2SH if script_sig else P2WSH
    assert _reason(script, (bytes(3601),), script_sig) is ScriptReason.WITNESS_SCRIPT_TOO_LARGE
    assert _reason(script, (b"",) * 102, script_sig) is ScriptReason.WITNESS_TOO_MANY_ITEMS
    assert _reason(script, (bytes(81), b"\x51"), script_sig) is ScriptReason.WITNESS_ITEM_TOO_LARGE


def test_tapscript_is_refused_with_a_large_item() -> None:
    assert _reason(P2TR, (bytes(81), b"\x51", CONTROL)) is ScriptReason.WITNESS_ITEM_TOO_LARGE
    assert _reason(P2TR, (bytes(80), bytes(5000), CONTROL)) is None


def test_refusal_names_the_input() -> None:
    transaction, prevouts = _spend(P2TR)
    two = Transaction(2, (transaction.inputs[0], TxIn(OutPoint(Txid(sha256(b"")), 1))), transaction.outputs)
    with pytest.raises(Rejected, match="input 1"):
        require_standard_witness(two, [prevouts[0], TxOut(1, Script(b"\x52\x20" + bytes(32)))])
