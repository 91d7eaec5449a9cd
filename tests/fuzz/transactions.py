"""Transactions that begin as valid ones, changed in any field, some signed again so that the scripts are reached.

What must hold:
    only `Rejected` escapes, twice the same, and the state is as it was;
    bytes that parse are given back;
    a transaction that keeps its signatures and is accepted spends and pays what was signed;
    what is accepted creates no money, names no reserved index, and keeps the ledger's equality.
"""

import struct
from dataclasses import replace
from functools import cache

from bitcoin.core.serialize import SerializationError

from bridge.bitcoin.identifiers import OutPoint, Script, Txid
from bridge.bitcoin.script import ScriptType, classify
from bridge.bitcoin.transaction import Transaction, TxIn, TxOut
from bridge.errors import Rejected
from pegnode.chain.execution import ScriptBudget, enter_transfer
from pegnode.chain.state import ChainState
from pegnode.chain.transactions import RESERVED_INDEX_BITS, is_spendable, parse_transaction
from tests.fuzz.chooser import Chooser
from tests.fuzz.decoders import Finding
from tests.fuzz.scene import ALICE, BOB, scene, snapshot

MAX_CHANGES = 6


def check(data: bytes) -> bool:
    """Raise Finding unless all of it holds; whether the transaction was accepted."""
    choose = Chooser(data)
    origin, transaction, signed_again = _fuzzed(choose)
    raw = transaction.serialize()
    for _ in range(choose.below(3)):
        raw = choose.edited(raw)
    return _judge(raw, None if signed_again else origin)


def fuzzed(choose: Chooser) -> Transaction:
    """A payment with some changes."""
    return _fuzzed(choose)[1]


def _fuzzed(choose: Chooser) -> tuple[Transaction, Transaction, bool]:
    """A payment, what became of it, and whether that was signed again."""
    origin = choose.pick(scene().payments)
    transaction = origin
    for _ in range(choose.below(MAX_CHANGES + 1)):
        transaction = _changed(transaction, choose)
    signed_again = bool(choose.below(2))
    return origin, _signed(transaction) if signed_again else transaction, signed_again


def seeds() -> list[bytes]:
    """Each payment as it is, each kind of change, signed again and not."""
    count = len(scene().payments)
    plain = [bytes([index, 0, 0, 0]) for index in range(count)]
    changes = [
        bytes([index, 1, kind, *values, again])
        for index in range(count)
        for kind in range(10)
        for values in (b"\x00\x00\x00", b"\x00\x01\x02\x03", b"\x01\x00\x05\x06\x07", b"\x00\x02\x03", b"\x00\x02\x05")
        for again in (0, 1)
    ]
    return plain + changes


def _judge(raw: bytes, origin: Transaction | None) -> bool:
    try:
        transaction = parse_transaction(raw)
    except Rejected:
        return False
    if transaction.serialize() != raw:
        raise Finding(f"{raw.hex()} parses, and serializes to {transaction.serialize().hex()}")
    first, second = _entered(transaction), _entered(transaction)
    if first != second and repr(first) != repr(second):
        raise Finding(f"{raw.hex()}: {first!r}, then {second!r}")
    if isinstance(first, Rejected):
        return False
    _check_accepted(transaction, origin)
    return True


def _entered(transaction: Transaction) -> object:
    """What the state holds after the transaction, in a block of its own; or the refusal."""
    state = _state(transaction)
    before = snapshot(state)
    rules = scene().chain.rules
    try:
        enter_transfer(state, transaction, ScriptBudget.of(rules.chain), rules)
    except Rejected as rejected:
        if before != snapshot(state):
            raise Finding(f"{transaction.serialize().hex()} was refused, and left traces") from rejected
        return rejected
    state.ledger.totals.require_equality()
    return snapshot(state)


def _state(transaction: Transaction) -> ChainState:
    """Before any of the scene's payments, or after the one that this one spends from."""
    state = ChainState(scene().chain.state, scene().block.header)
    rules = scene().chain.rules
    earlier = scene().payments[1]
    if any(txin.outpoint.txid == earlier.txid for txin in transaction.inputs):
        enter_transfer(state, earlier, ScriptBudget.of(rules.chain), rules)
    return state


def _check_accepted(transaction: Transaction, origin: Transaction | None) -> None:
    spent_sats = sum(output.value_sats for output in map(_spent_output, transaction.inputs))
    paid_sats = sum(output.value_sats for output in transaction.outputs)
    names = [txin.outpoint for txin in transaction.inputs]
    faults = {
        "creates money": paid_sats > spent_sats,
        "spends twice": len(set(names)) != len(names),
        "names a reserved index": any(name.vout & RESERVED_INDEX_BITS for name in names),
        "pays a type that nobody may pay": any(
            is_spendable(output) and classify(output.script) is None for output in transaction.outputs
        ),
        "is not what was signed": origin is not None and _intent(transaction) != _intent(origin),
    }
    for fault, found in faults.items():
        if found:
            raise Finding(f"{transaction.serialize().hex()} is accepted, and {fault}")


def _intent(transaction: Transaction) -> object:
    """All that signatures of SIGHASH_ALL cover."""
    inputs = tuple((txin.outpoint, txin.sequence) for txin in transaction.inputs)
    return transaction.version, inputs, transaction.outputs, transaction.locktime


@cache
def _known_outputs() -> dict[OutPoint, TxOut]:
    """What the scene's payments spend."""
    known = dict(scene().coins)
    for payment in scene().payments:
        known.update((payment.outpoint(vout), output) for vout, output in enumerate(payment.outputs))
    return known


def _spent_output(txin: TxIn) -> TxOut:
    utxo = scene().chain.state.utxos.get(txin.outpoint)
    return _known_outputs()[txin.outpoint] if utxo is None else TxOut(utxo.value_sats, utxo.script)


def _signed(transaction: Transaction) -> Transaction:
    """With Alice's signatures wherever she can sign; without change where an input is nobody's."""
    try:
        return ALICE.sign(transaction, [_known_outputs()[txin.outpoint] for txin in transaction.inputs])
    except (
        KeyError,
        ValueError,
        SerializationError,
        struct.error,
    ):  # the last: of fields that the library takes for signed
        return transaction


# Changes


def _changed(transaction: Transaction, choose: Chooser) -> Transaction:
    match choose.below(10):
        case 0:
            return replace(transaction, version=choose.number(transaction.version, 4))
        case 1:
            return replace(transaction, locktime=choose.number(transaction.locktime, 4))
        case 2:
            return replace(transaction, inputs=(*transaction.inputs, _other_input(choose)))
        case 3:
            outputs = (*transaction.outputs, _other_output(transaction, choose))
            return replace(transaction, outputs=outputs[choose.below(2) :])
        case 4 | 5 | 6:
            return _input_changed(transaction, choose)
        case 7:
            return replace(transaction, inputs=transaction.inputs[choose.below(2) :][::-1])
        case _:
            return _output_changed(transaction, choose)


def _input_changed(transaction: Transaction, choose: Chooser) -> Transaction:
    if not transaction.inputs:
        return transaction
    inputs = list(transaction.inputs)
    index = choose.below(len(inputs))
    txin = inputs[index]
    match choose.below(6):
        case 0:
            txin = replace(txin, sequence=choose.number(txin.sequence, 4))
        case 1:
            txin = replace(txin, outpoint=OutPoint(txin.outpoint.txid, choose.number(txin.outpoint.vout, 4)))
        case 2:
            txin = replace(txin, script_sig=choose.edited(txin.script_sig))
        case 3 if txin.witness:
            items = list(txin.witness)
            place = choose.below(len(items))
            items[place] = choose.edited(items[place])
            txin = replace(txin, witness=tuple(items))
        case 4:
            txin = replace(txin, witness=(*txin.witness, choose.take(choose.below(40)))[choose.below(2) :])
        case _:
            txin = replace(txin, outpoint=_other_input(choose).outpoint)
    inputs[index] = txin
    return replace(transaction, inputs=tuple(inputs))


def _output_changed(transaction: Transaction, choose: Chooser) -> Transaction:
    if not transaction.outputs:
        return transaction
    outputs = list(transaction.outputs)
    index = choose.below(len(outputs))
    output = outputs[index]
    match choose.below(3):
        case 0:
            output = replace(output, value_sats=choose.number(output.value_sats, 8) % 2**63)
        case 1:
            output = replace(output, script=Script(choose.edited(output.script)))
        case _:
            output = replace(output, value_sats=_all_that_is_left(transaction, output) + choose.below(7))
    outputs[index] = output
    return replace(transaction, outputs=tuple(outputs))


def _all_that_is_left(transaction: Transaction, output: TxOut) -> int:
    """What `output` may hold at most, less a little: the inputs' value but for the other outputs'."""
    known = _known_outputs()
    spent_sats = sum(known[txin.outpoint].value_sats for txin in transaction.inputs if txin.outpoint in known)
    others_sats = sum(item.value_sats for item in transaction.outputs) - output.value_sats
    return max(3, spent_sats - others_sats) - 3


def _other_input(choose: Chooser) -> TxIn:
    """One that may be there already, belong to another payment, or not exist."""
    options = [*_known_outputs(), OutPoint(Txid(bytes(32)), 0xFFFFFFFF), OutPoint(Txid(choose.take(1) * 32), 0)]
    return TxIn(choose.pick(options), sequence=choose.pick((0xFFFFFFFF, 0xFFFFFFFE, 0, 1, 1 << 22)))


def _other_output(transaction: Transaction, choose: Chooser) -> TxOut:
    kind = choose.pick((*ScriptType, None))
    if kind is None:
        return choose.pick(scene().payments[0].outputs)
    return TxOut(choose.number(1_000, 4), choose.pick((ALICE, BOB)).script(kind))
