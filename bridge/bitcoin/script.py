"""Output scripts and what they may be spent with: types, pushes, dust, signature operations, standard witnesses.

The kernel enforces consensus rules only. What consensus leaves open for later upgrades (unknown witness and leaf
versions, OP_SUCCESS, the annex) anyone may spend today, so a block rule forbids it here, with Core's standard limits.
"""

from collections.abc import Iterator, Sequence
from enum import Enum

from bitcoin.core import script as opcodes

from bridge.bitcoin.identifiers import Script
from bridge.bitcoin.taproot import ANNEX_TAG, TAPSCRIPT_LEAF_VERSION
from bridge.bitcoin.transaction import WITNESS_SCALE_FACTOR, Transaction, TxIn, TxOut, compact_size
from bridge.errors import Reason, Rejected


class ScriptReason(Reason):
    """Why an input may not be spent as it is."""

    SCRIPT_FAILED = "script-failed"
    """The script engine refuses it: a wrong signature, key or preimage, a lock that has not passed."""
    SCRIPT_SIG_NOT_PUSH_ONLY = "script-sig-not-push-only"  # The scriptSig holds other than shortest pushes.
    SCRIPT_SIG_TOO_LARGE = "script-sig-too-large"  # The scriptSig is over 1,650 bytes.
    P2SH_SIGOPS = "script-p2sh-sigops"  # The redeem script has more than 15 signature operations.
    UNKNOWN_WITNESS_VERSION = "script-unknown-witness-version"
    """A witness program of no known version, or taproot inside P2SH."""
    UNKNOWN_LEAF_VERSION = "script-unknown-leaf-version"
    """A taproot leaf of another version than c0, or a control block without one."""
    UNEXPECTED_WITNESS = "script-unexpected-witness"  # A witness where no witness program asks for one.
    OP_SUCCESS = "script-op-success"  # A tapscript holds an OP_SUCCESS.
    ANNEX = "script-annex"  # A taproot witness carries an annex.
    WITNESS_SCRIPT_TOO_LARGE = "script-witness-script-too-large"  # A P2WSH script is over 3,600 bytes.
    WITNESS_ITEM_TOO_LARGE = "script-witness-item-too-large"  # A witness item below the script is over 80 bytes.
    WITNESS_TOO_MANY_ITEMS = "script-witness-too-many-items"  # More than 100 witness items below a P2WSH script.


class ScriptType(Enum):
    """The five types of output script that hold value."""

    P2PKH = "p2pkh"
    P2SH = "p2sh"
    P2WPKH = "p2wpkh"
    P2WSH = "p2wsh"
    P2TR = "p2tr"


# Core's policy. Source: Bitcoin Core, policy/policy.h.
MAX_SCRIPT_SIG_SIZE = 1650
MAX_P2SH_SIGOPS = 15
MAX_P2WSH_SCRIPT_SIZE = 3600
MAX_P2WSH_STACK_ITEMS = 100
MAX_WITNESS_ITEM_SIZE = 80
"""Of each item below the script of P2WSH, or below script and control block of a tapscript."""
DUST_RELAY_FEERATE_SAT_KVB = 3000

_FIRST_LONG_PUSH, _LAST_PUSH = int(opcodes.OP_PUSHDATA1), int(opcodes.OP_PUSHDATA4)
_MULTISIG_SIGOPS = 20
_SINGLE_CHECKS = frozenset((int(opcodes.OP_CHECKSIG), int(opcodes.OP_CHECKSIGVERIFY)))
_MULTISIG_CHECKS = frozenset((int(opcodes.OP_CHECKMULTISIG), int(opcodes.OP_CHECKMULTISIGVERIFY)))
_SPEND_SIZE = 32 + 4 + 1 + 107 + 4
"""Bytes of an input that spends P2PKH: what Core takes every output to cost its owner."""
_WITNESS_SPEND_SIZE = 32 + 4 + 1 + 107 // WITNESS_SCALE_FACTOR + 4
_LEAF_VERSION_MASK = 0xFE
_OP_SUCCESSES = frozenset(
    [0x50, 0x62, 0x89, 0x8A, 0x8D, 0x8E, *range(0x7E, 0x82), *range(0x83, 0x87), *range(0x95, 0x9A), *range(0xBB, 0xFF)]
)
"""Source: BIP342."""


def classify(script: bytes) -> ScriptType | None:
    """The type of an output script, or None for any other script."""
    match len(script), script[:2]:
        case 25, b"\x76\xa9" if script[2] == 20 and script[23:] == b"\x88\xac":
            return ScriptType.P2PKH
        case 23, b"\xa9\x14" if script[22] == opcodes.OP_EQUAL:
            return ScriptType.P2SH
        case 22, b"\x00\x14":
            return ScriptType.P2WPKH
        case 34, b"\x00\x20":
            return ScriptType.P2WSH
        case 34, b"\x51\x20":
            return ScriptType.P2TR
    return None


def push(data: bytes) -> bytes:
    """The shortest operation that pushes `data`. Source: Bitcoin Core, CheckMinimalPush."""
    if len(data) == 1 and 1 <= data[0] <= 16:
        return bytes([opcodes.OP_1 + data[0] - 1])
    if data == b"\x81":
        return bytes([opcodes.OP_1NEGATE])
    return bytes(opcodes.CScriptOp.encode_op_pushdata(data))


def parse_pushes(script: bytes) -> list[bytes] | None:
    """What a script that only pushes leaves on the stack, bottom first; None unless every push is the shortest."""
    items: list[bytes] = []
    for opcode, data in _operations(script):
        if data is not None:
            items.append(data)
        elif opcodes.OP_1 <= opcode <= opcodes.OP_16:
            items.append(bytes([opcode - opcodes.OP_1 + 1]))
        elif opcode == opcodes.OP_1NEGATE:
            items.append(b"\x81")
        else:
            return None
    return items if b"".join(map(push, items)) == script else None


def dust_limit_sats(script: bytes) -> int:
    """The least value that Core relays in an output to `script`, at 3000 sat/kvB; 0 for an OP_RETURN.

    Source: Bitcoin Core, GetDustThreshold.
    """
    if script[:1] == bytes([opcodes.OP_RETURN]):
        return 0
    spend_size = _SPEND_SIZE if witness_program(script) is None else _WITNESS_SPEND_SIZE
    output_size = 8 + len(compact_size(len(script))) + len(script)
    return (output_size + spend_size) * DUST_RELAY_FEERATE_SAT_KVB // 1000


def witness_program(script: bytes) -> tuple[int, bytes] | None:
    """Version (0 to 16) and program (2 to 40 bytes) of a witness output script, or None. Source: BIP141."""
    if not 4 <= len(script) <= 42 or script[1] + 2 != len(script):
        return None
    if script[0] == opcodes.OP_0:
        return 0, script[2:]
    if opcodes.OP_1 <= script[0] <= opcodes.OP_16:
        return script[0] - opcodes.OP_1 + 1, script[2:]
    return None


def sigop_cost(transaction: Transaction, prevouts: Sequence[TxOut]) -> int:
    """Cost of the signature operations: 4 for one outside a witness, 1 in version 0's, none in Taproot's.

    prevouts: the outputs spent, one for each input, in order.  Source: Bitcoin Core, GetTransactionSigOpCost.
    """
    legacy = sum(_count_sigops(txin.script_sig, accurate=False) for txin in transaction.inputs)
    legacy += sum(_count_sigops(output.script, accurate=False) for output in transaction.outputs)
    cost = legacy * WITNESS_SCALE_FACTOR
    for txin, prevout in zip(transaction.inputs, prevouts, strict=True):
        locking = prevout.script
        if classify(locking) is ScriptType.P2SH:
            redeem_script = _redeem_script(txin.script_sig)
            cost += _count_sigops(redeem_script, accurate=True) * WITNESS_SCALE_FACTOR
            locking = Script(redeem_script)
        match witness_program(locking):
            case 0, program if len(program) == 20:
                cost += 1
            case 0, program if len(program) == 32 and txin.witness:
                cost += _count_sigops(txin.witness[-1], accurate=True)
    return cost


def require_standard_witness(transaction: Transaction, prevouts: Sequence[TxOut]) -> None:
    """Raise Rejected(ScriptReason) for an input that Core would not relay, or that a later upgrade may take from us.

    prevouts: the outputs spent, one for each input, in order. Whether the scripts succeed is `verify_scripts`' part.
    Source: Bitcoin Core, AreInputsStandard, IsWitnessStandard, and the script flags named "discourage".
    """
    for index, (txin, prevout) in enumerate(zip(transaction.inputs, prevouts, strict=True)):
        _require_standard_input(index, txin, prevout.script)


def _require_standard_input(index: int, txin: TxIn, locking: bytes) -> None:
    if len(txin.script_sig) > MAX_SCRIPT_SIG_SIZE:
        raise Rejected(ScriptReason.SCRIPT_SIG_TOO_LARGE, f"input {index}: {len(txin.script_sig)} bytes")
    pushes = parse_pushes(txin.script_sig)
    if pushes is None:
        raise Rejected(ScriptReason.SCRIPT_SIG_NOT_PUSH_ONLY, f"input {index}: other than shortest pushes")
    wrapped = classify(locking) is ScriptType.P2SH
    if wrapped:
        locking = pushes[-1] if pushes else b""
        if _count_sigops(locking, accurate=True) > MAX_P2SH_SIGOPS:
            raise Rejected(ScriptReason.P2SH_SIGOPS, f"input {index}: more than {MAX_P2SH_SIGOPS}")
    match witness_program(locking):
        case None:
            if txin.witness:
                raise Rejected(ScriptReason.UNEXPECTED_WITNESS, f"input {index}: no witness program asks for one")
        case 0, program:
            if len(program) == 32:
                _require_standard_p2wsh(index, txin.witness)
        case 1, program if len(program) == 32 and not wrapped:
            _require_standard_taproot(index, txin.witness)
        case version, _:
            raise Rejected(
                ScriptReason.UNKNOWN_WITNESS_VERSION, f"input {index}: version {version}, wrapped: {wrapped}"
            )


def _require_standard_p2wsh(index: int, witness: tuple[bytes, ...]) -> None:
    if witness and len(witness[-1]) > MAX_P2WSH_SCRIPT_SIZE:
        raise Rejected(ScriptReason.WITNESS_SCRIPT_TOO_LARGE, f"input {index}: {len(witness[-1])} bytes")
    if len(witness) > MAX_P2WSH_STACK_ITEMS + 1:
        raise Rejected(ScriptReason.WITNESS_TOO_MANY_ITEMS, f"input {index}: {len(witness) - 1}")
    _require_small_items(index, witness[:-1])


def _require_standard_taproot(index: int, witness: tuple[bytes, ...]) -> None:
    if len(witness) < 2:
        return
    *items, leaf, control = witness
    if control[:1] == bytes([ANNEX_TAG]):
        raise Rejected(ScriptReason.ANNEX, f"input {index}")
    if not control or control[0] & _LEAF_VERSION_MASK != TAPSCRIPT_LEAF_VERSION:
        raise Rejected(ScriptReason.UNKNOWN_LEAF_VERSION, f"input {index}: control block {control[:1].hex()}")
    _require_small_items(index, items)
    if any(opcode in _OP_SUCCESSES for opcode, _ in _operations(leaf)):
        raise Rejected(ScriptReason.OP_SUCCESS, f"input {index}")


def _require_small_items(index: int, items: Sequence[bytes]) -> None:
    if any(len(item) > MAX_WITNESS_ITEM_SIZE for item in items):
        raise Rejected(ScriptReason.WITNESS_ITEM_TOO_LARGE, f"input {index}: over {MAX_WITNESS_ITEM_SIZE} bytes")


def _redeem_script(script_sig: bytes) -> bytes:
    """The last push of a script that only pushes, not necessarily by the shortest operations; else nothing."""
    last = b""
    for opcode, data in _operations(script_sig):
        if opcode > opcodes.OP_16:
            return b""
        last = data or b""
    return last


def _count_sigops(script: bytes, *, accurate: bool) -> int:
    """Signature operations; `accurate` takes a multisig for its number of keys instead of 20. Source: BIP16."""
    count = 0
    previous = opcodes.OP_INVALIDOPCODE
    for opcode, _ in _operations(script):
        if opcode in _SINGLE_CHECKS:
            count += 1
        elif opcode in _MULTISIG_CHECKS:
            small = accurate and opcodes.OP_1 <= previous <= opcodes.OP_16
            count += previous - opcodes.OP_1 + 1 if small else _MULTISIG_SIGOPS
        previous = opcode
    return count


def _operations(script: bytes) -> Iterator[tuple[int, bytes | None]]:
    """Each operation's code, with its data for a push of data; ends in silence at a push that is cut short.

    A plain loop, twenty times as fast as the library's: a block may hold four million operations in data outputs and
    in leaves, and everyone must get through them before the view is over.
    """
    position, size = 0, len(script)
    while position < size:
        opcode = script[position]
        position += 1
        if opcode > _LAST_PUSH:
            yield opcode, None
            continue
        length = opcode
        if opcode >= _FIRST_LONG_PUSH:
            start, position = position, position + (1 << (opcode - _FIRST_LONG_PUSH))
            length = int.from_bytes(script[start:position], "little")
        position += length
        if position > size:
            return
        yield opcode, script[position - length : position]
