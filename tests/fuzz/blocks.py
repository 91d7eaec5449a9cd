"""Blocks and certificates that begin as valid, changed in any field or byte, some sealed again so that all is reached.

What must hold:
    only `BlockRejected`, `L1Waiting` and `L1Contradicted` escape, twice the same;
    bytes that decode are given back;
    other bytes under the same header are never taken for the block, and another block has another hash;
    a valid block commits to its body and to the ledger after it, and keeps the ledger's equality;
    whatever waits, a leader's block of it is valid;
    a record in a valid block has the next serial, and no evidence or batch beside it;
    another certificate than the one that a quorum signed is refused.
"""

from dataclasses import replace
from typing import Any

from bridge.bitcoin.identifiers import Script
from bridge.bitcoin.transaction import Transaction, TxOut
from bridge.errors import MalformedError, Rejected
from bridge.ledger import advance_anchor, ledger_root
from bridge.state import Anchor
from federation.certificate import Certificate, VoteKind, VoteRejected, verify_certificate
from pegnode.chain.block import Block, Body
from pegnode.chain.builder import Candidates, build_block
from pegnode.chain.execution import (
    ScriptBudget,
    enter_batch,
    enter_evidence,
    enter_record,
    enter_refunds,
    enter_transfer,
)
from pegnode.chain.rules import apply_block
from pegnode.chain.state import ChainState
from pegnode.chain.transactions import parse_transaction
from pegnode.chain.verdicts import BlockRejected, L1Contradicted, L1Waiting
from tests.fuzz import evidence, records, transactions
from tests.fuzz.chooser import Chooser
from tests.fuzz.decoders import Finding
from tests.fuzz.scene import certificate, scene

NO_VERDICT_OR_REJECTED = (BlockRejected, L1Waiting, L1Contradicted)
MAX_CHANGES = 4
WIDTHS = {"version": 4, "epoch": 4, "height": 8, "view": 8, "leader": 2, "time_ms": 8}
HASHES = ("chain_id", "parent", "body_root", "ledger_root")
FREE_FIELDS = ("view", "leader", "time_ms")
"""What a header may say that nothing else fixes; the leader follows from the view."""


def check(data: bytes) -> bool:
    """Raise Finding unless all of it holds; whether the object was accepted."""
    choose = Chooser(data)
    match choose.below(4):
        case 0:
            return _check_bytes(choose)
        case 1 | 2:
            return _check_fields(choose)
        case _:
            return _check_certificate(choose) if choose.below(4) == 0 else _check_builder(choose)


def seeds() -> list[bytes]:
    """Nothing changed, and each kind of change."""
    plain = [bytes([way, 0, 0, 0, 0]) for way in range(4)]
    fields = [
        bytes([1, 1, kind, *values, again])
        for kind in range(14)
        for values in (b"\x00\x00\x00", b"\x01\x00\x01", b"\x02\x03\x04")
        for again in range(3)
    ]
    built = [
        bytes([3, 1, 2, first, second, 1, 0, first, 2, 1, kind])
        for first in range(3)
        for second in range(3)
        for kind in range(10)
    ]
    certificates = [bytes([3, 0, kind, 1, 2]) for kind in range(8)]
    decided = [
        bytes([*start, count, *content])
        for start in ((3, 1, 0, 0, 1), (1, 1, 9, 0))
        for count in range(3)
        for content in ((0,), (1, 0, 0), (1, 0, 1), (1, 0, 1, 0, 2), (0, 2, 2, 3), (0, 0, 0, 0, 0, 1), (1, 0, 0, 2))
    ]
    return [*plain, *fields, *built, *decided, *certificates]


def _outcome(block: Block) -> ChainState | Exception:
    chain = scene().chain
    try:
        return apply_block(chain.state, block, chain.facts(block), chain.rules)
    except NO_VERDICT_OR_REJECTED as refusal:
        return refusal


def _judge(block: Block) -> ChainState | None:
    """The state after the block, when it is valid; the properties of every block are checked here."""
    raw = _encoded(block)
    if raw is None:
        return None
    try:
        block = Block.decode(raw)
    except MalformedError:
        return None
    if block.encode() != raw:
        raise Finding(f"{raw.hex()} decodes, and encodes to {block.encode().hex()}")
    origin = scene().block
    if (block.hash == origin.hash) != (block.header == origin.header):
        raise Finding(f"{raw.hex()}: another header with the same hash")
    first, second = _outcome(block), _outcome(block)
    if _told(first) != _told(second):
        raise Finding(f"{raw.hex()}: {first!r}, then {second!r}")
    if not isinstance(first, ChainState):
        return None
    if block.header == origin.header and raw != origin.encode():
        raise Finding(f"{raw.hex()}: another body under the same header is valid")
    if block.header.body_root != block.body.root or block.header.ledger_root != ledger_root(first.ledger):
        raise Finding(f"{raw.hex()}: is valid, and commits to something else")
    first.ledger.totals.require_equality()
    _require_lone_records(block, first)
    return first


def _require_lone_records(block: Block, after: ChainState) -> None:
    """Raise Finding unless the records of a valid block follow those before it, and stand alone."""
    serials = [signed.record.serial for signed in block.body.records]
    before = scene().chain.state.ledger.totals.record_serial
    if serials != list(range(before + 1, before + 1 + len(serials))):
        raise Finding(f"{block.encode().hex()}: records {serials} after {before}")
    if after.ledger.totals.record_serial != before + len(serials):
        raise Finding(f"{block.encode().hex()}: {after.ledger.totals.record_serial} is final after records {serials}")
    if serials and (block.body.evidence or block.body.batches):
        raise Finding(f"{block.encode().hex()}: records beside evidence or a batch")


def _told(outcome: ChainState | Exception) -> str:
    return ledger_root(outcome.ledger).hex() if isinstance(outcome, ChainState) else repr(outcome)


def _encoded(block: Block) -> bytes | None:
    """None for fields that fit no block."""
    try:
        return block.encode()
    except MalformedError:
        return None


def _check_bytes(choose: Chooser) -> bool:
    """Bytes changed anywhere: what a peer sends must be the body that its header commits to."""
    raw = origin = scene().block.encode()
    for _ in range(choose.below(MAX_CHANGES)):
        place = choose.below(len(raw)) if raw else 0
        raw = raw[:place] + choose.edited(raw[place : place + 200]) + raw[place + 200 :]
    try:
        block = Block.decode_whole(raw)
    except MalformedError:
        return False
    if block.encode() != raw:
        raise Finding(f"{raw.hex()} decodes, and encodes to {block.encode().hex()}")
    if block.body != scene().block.body:
        raise Finding(f"{raw.hex()}: another body under the same root")
    free = {name: getattr(scene().block.header, name) for name in FREE_FIELDS}
    if _judge(block) is None:
        return False
    if raw != origin and replace(block.header, **free) != scene().block.header:
        raise Finding(f"{raw.hex()}: is valid under a header that nobody could have made")
    return True


def _check_fields(choose: Chooser) -> bool:
    """Any field of header or body changed, and sealed again: not, by the body's root, or by both roots."""
    block = scene().block
    for _ in range(choose.below(MAX_CHANGES)):
        block = _changed(block, choose)
    if seal := choose.below(3):
        block = Block(replace(block.header, body_root=block.body.root), block.body)
    if seal == 2:
        block = _with_true_root(block)
    return _judge(block) is not None


def _with_true_root(block: Block) -> Block:
    """The block with the root of the ledger after it, so that a wrong root is not what refuses it."""
    chain = scene().chain
    state = ChainState(chain.state, block.header)
    budget = ScriptBudget.of(chain.rules.chain)
    try:
        advance_anchor(state.ledger, block.header.anchor, chain.rules.params)
        for signed in block.body.records:
            enter_record(state, signed, chain.header.anchor, chain.rules)
        for item in block.body.evidence:
            fact = chain.l1.fact(item.l1_block_hash)
            if fact is not None:
                enter_evidence(state, item, fact, chain.rules)
        enter_refunds(state, chain.rules)
        for batch in block.body.batches:
            enter_batch(state, batch, chain.rules)
        for data in block.body.transactions:
            enter_transfer(state, parse_transaction(data), budget, chain.rules)
    except Rejected:
        return block
    return Block(replace(block.header, ledger_root=ledger_root(state.ledger)), block.body)


def _check_builder(choose: Chooser) -> bool:
    """What a leader makes of anything that waits is valid for everybody else."""
    chain = scene().chain
    waiting = [parsed for _ in range(choose.below(4)) if (parsed := _parsed(transactions.fuzzed(choose)))]
    shown = [evidence.fuzzed(choose) for _ in range(choose.below(4))]
    slot = chain.slot(include_l1=bool(choose.below(4)))
    decided = [found for serial in range(choose.below(4)) if (found := records.fuzzed(choose, serial + 1))]
    rebase = next((found.record.rebase for found in decided if found.record.rebase), None)
    if rebase is not None and choose.below(4):
        slot = replace(slot, anchor=rebase.new_anchor)
    facts = chain.l1.facts(slot.anchor, *shown)
    built = build_block(chain.state, slot, Candidates(shown, waiting, decided), facts, chain.rules)
    try:
        state = apply_block(
            chain.state, Block.decode_whole(built.block.encode()), chain.facts(built.block), chain.rules
        )
    except (*NO_VERDICT_OR_REJECTED, MalformedError) as refusal:
        raise Finding(f"{built.block.encode().hex()}: a leader makes it, and others refuse: {refusal}") from refusal
    if ledger_root(state.ledger) != ledger_root(built.state.ledger):
        raise Finding(f"{built.block.encode().hex()}: leader and others are in different states")
    return True


def _parsed(transaction: Transaction) -> Transaction | None:
    """What the pool would hold of it: nothing, if its bytes are no transaction."""
    try:
        return parse_transaction(transaction.serialize())
    except Rejected:
        return None


def _check_certificate(choose: Chooser) -> bool:
    """Only the one that a quorum signed, or a part of the same statement by other signers, is valid."""
    rules = scene().chain.rules
    origin = certificate(choose.pick((VoteKind.FINALIZE, VoteKind.NOTARIZE)), 5, scene().block.hash)
    raw = origin.encode()
    for _ in range(choose.below(3)):
        raw = choose.edited(raw)
    try:
        decoded = Certificate.decode(raw)
        verify_certificate(decoded, rules.membership, rules.chain_id)
    except (MalformedError, VoteRejected):
        return False
    if decoded != origin:
        raise Finding(f"{raw.hex()}: a certificate that nobody signed")
    return True


# Changes


def _changed(block: Block, choose: Chooser) -> Block:
    header, body = block.header, block.body
    match choose.below(14):
        case 0 | 1:
            name, width = choose.pick(tuple(WIDTHS.items()))
            changes: dict[str, Any] = {name: choose.number(getattr(header, name), width)}
            return Block(replace(header, **changes), body)
        case 2:
            name = choose.pick(HASHES)
            changes = {name: choose.edited(getattr(header, name))[:32].ljust(32, b"\x00")}
            return Block(replace(header, **changes), body)
        case 3:
            height = choose.number(header.anchor.height, 4)
            known = min(height, scene().chain.l1.height)
            anchor_hash = scene().chain.l1.anchor(known).hash if choose.below(2) else header.anchor.hash
            return Block(replace(header, anchor=Anchor(height, anchor_hash)), body)
        case 4:
            view = header.view + choose.below(9)
            leader = scene().chain.rules.membership.leader(view)
            return Block(replace(header, view=view, leader=leader, time_ms=header.time_ms + choose.below(256)), body)
        case 5 | 6:
            return Block(header, replace(body, transactions=_reordered(body.transactions, choose)))
        case 7:
            return Block(header, replace(body, evidence=_reordered(body.evidence, choose)))
        case 8:
            return Block(header, replace(body, batches=_reordered(body.batches, choose)[:2]))
        case 9:
            return Block(header, _derived_changed(body, choose))
        case 10:
            return Block(header, _batch_changed(body, choose))
        case 11:
            return Block(header, replace(body, evidence=(*body.evidence[choose.below(4) :], evidence.fuzzed(choose))))
        case 12:
            raw = transactions.fuzzed(choose).serialize()
            return Block(header, replace(body, transactions=(*body.transactions[choose.below(6) :], raw)))
        case _:
            return Block(header, _raw_transaction_changed(body, choose))


def _reordered(items: tuple[Any, ...], choose: Chooser) -> tuple[Any, ...]:
    """Without one, with one twice, or with two exchanged."""
    if not items:
        return items
    place = choose.below(len(items))
    match choose.below(3):
        case 0:
            return items[:place] + items[place + 1 :]
        case 1:
            return (*items, items[place])
        case _:
            return (*items[place:], *items[:place])


def _derived_changed(body: Body, choose: Chooser) -> Body:
    """Another refund, refunds in another order or number, or a record."""
    match choose.below(4):
        case 0:
            return _decided(body, choose)
        case 1:
            return replace(body, refunds=(choose.edited(body.refunds[0]), *body.refunds[1:]))
        case 2:
            return replace(body, refunds=(*body.refunds, choose.take(60 + choose.below(20))))
        case _:
            return replace(body, refunds=_reordered(body.refunds, choose))


def _decided(body: Body, choose: Chooser) -> Body:
    """With records, and mostly without what may not stand beside them."""
    found = [records.fuzzed(choose, serial + 1) for serial in range(1 + choose.below(2))]
    body = replace(body, records=tuple(signed for signed in found if signed is not None))
    return replace(body, evidence=(), batches=()) if choose.below(4) else body


def _batch_changed(body: Body, choose: Chooser) -> Body:
    if not body.batches:
        return body
    batch = body.batches[0]
    match choose.below(3):
        case 0:
            batch = replace(batch, feerate_sat_kvb=choose.number(batch.feerate_sat_kvb, 8))
        case 1:
            batch = replace(batch, transaction=choose.edited(batch.transaction))
        case _:
            batch = replace(batch, transaction=_paying_more(batch.transaction, choose))
    return replace(body, batches=(batch, *body.batches[1:]))


def _paying_more(raw: bytes, choose: Chooser) -> bytes:
    try:
        transaction = Transaction.parse(raw)
        outputs = list(transaction.outputs)
        place = choose.below(len(outputs))
        value_sats = outputs[place].value_sats + choose.below(5) - 2
        outputs[place] = TxOut(max(0, value_sats), Script(outputs[place].script))
        return replace(transaction, outputs=tuple(outputs)).serialize()
    except Rejected:
        return raw


def _raw_transaction_changed(body: Body, choose: Chooser) -> Body:
    if not body.transactions:
        return body
    items = list(body.transactions)
    place = choose.below(len(items))
    items[place] = choose.edited(items[place])
    return replace(body, transactions=tuple(items))
