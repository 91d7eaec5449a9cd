"""Validity: whether a block follows from its parent. A function of the two, the same for ever.

Theory of operation
    The header is judged first, from the parent's header alone; then the body's form; then, if the block says anything
    about L1, one's own Bitcoin node must hold its anchor. Only then is the body carried out, in this order: records,
    evidence, refunds, batches, transactions. Refunds follow from the ledger and the anchor; the body must hold exactly
    those. Records keep no company with evidence or batches, so that members who halted can vote for them. A batch
    stands last in the body but is carried out before the transactions, since none of their burns is eligible for it.
    The ledger's root is compared at the end.
"""

from collections.abc import Generator, Iterator, Sequence
from itertools import pairwise

from bridge.bitcoin.hashes import sha256d
from bridge.bitcoin.identifiers import BlockHash
from bridge.errors import Rejected
from bridge.evidence import Evidence, EvidenceReason, L1BlockFact
from bridge.ledger import advance_anchor, check_anchor, ledger_root
from pegnode.chain.block import Block, Body
from pegnode.chain.execution import (
    OVER_BUDGET,
    ScriptBudget,
    enter_batch,
    enter_evidence,
    enter_record,
    enter_refunds,
    enter_transfer,
)
from pegnode.chain.facts import AnchorStatus, L1Facts, needs_l1
from pegnode.chain.header import HEADER_VERSION, Header
from pegnode.chain.parameters import ChainRules
from pegnode.chain.state import ChainState, ChainView
from pegnode.chain.transactions import parse_transaction
from pegnode.chain.verdicts import BlockRejected, BodyReason, HeaderReason, L1Contradicted, L1Waiting

__all__ = ["ChainRules", "apply_block", "apply_in_steps", "check_body_form", "check_header"]


def apply_block(parent: ChainView, block: Block, facts: L1Facts, rules: ChainRules) -> ChainState:
    """The state after `block`. The parent is left as it was.

    Raises BlockRejected when the block is invalid; L1Waiting or L1Contradicted, which are no verdicts, when it speaks
    about L1 and one's own Bitcoin node does not confirm its anchor.
    """
    steps = apply_in_steps(parent, block, facts, rules)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            state: ChainState = done.value
            return state


def apply_in_steps(
    parent: ChainView, block: Block, facts: L1Facts, rules: ChainRules
) -> Generator[None, None, ChainState]:
    """The same as `apply_block`, which takes seconds for a full block, with a pause after each transaction.

    The parent's state must not change in a pause; if it did, what was done so far is worth nothing.
    """
    check_header(parent.tip.header, block.header, rules)
    check_body_form(block, rules)
    if needs_l1(parent.tip.header, block):
        _require_anchor(block.header, facts)
    state = ChainState(parent, block.header)
    advance_anchor(state.ledger, block.header.anchor, rules.params)
    _enter_records(state, block.body, parent.tip.header, rules)
    for index, evidence in enumerate(block.body.evidence):
        _enter_evidence(state, index, evidence, facts, rules)
    _require_refunds(block.body.refunds, enter_refunds(state, rules))
    for index, batch in enumerate(block.body.batches):
        try:
            enter_batch(state, batch, rules)
        except Rejected as error:
            raise BlockRejected(BodyReason.BAD_BATCH, f"batch {index}: {error}", error.reason) from error
    yield from _enter_transfers(state, block.body, rules)
    if ledger_root(state.ledger) != block.header.ledger_root:
        raise BlockRejected(BodyReason.WRONG_LEDGER_ROOT)
    return state


def check_header(parent: Header, header: Header, rules: ChainRules) -> None:
    """Raise BlockRejected (HeaderReason) unless a block under `header` may follow `parent`."""
    expected = {
        HeaderReason.VERSION: (header.version, HEADER_VERSION),
        HeaderReason.WRONG_CHAIN: (header.chain_id.hex(), rules.chain_id.hex()),
        HeaderReason.WRONG_EPOCH: (header.epoch, rules.membership.epoch),
        HeaderReason.WRONG_PARENT: (header.parent.hex(), parent.hash.hex()),
        HeaderReason.WRONG_HEIGHT: (header.height, parent.height + 1),
        HeaderReason.WRONG_LEADER: (header.leader, rules.membership.leader(header.view)),
    }
    for reason, (value, wanted) in expected.items():
        if value != wanted:
            raise BlockRejected(reason, f"{value}, not {wanted}")
    if header.view <= parent.view:
        raise BlockRejected(HeaderReason.VIEW_NOT_ABOVE_PARENT, f"{header.view} after {parent.view}")
    if header.time_ms <= parent.time_ms:
        raise BlockRejected(HeaderReason.TIME_NOT_ABOVE_PARENT, f"{header.time_ms} after {parent.time_ms}")
    try:
        check_anchor(parent.anchor, header.anchor, rules.params)
    except Rejected as error:
        raise BlockRejected(HeaderReason.BAD_ANCHOR, str(error), error.reason) from error


def check_body_form(block: Block, rules: ChainRules) -> None:
    """Raise BlockRejected (BodyReason) unless the body is the header's, within its caps, and in order."""
    body = block.body
    if body.root != block.header.body_root:
        raise BlockRejected(BodyReason.WRONG_ROOT)
    if body.records and (body.evidence or body.batches):
        raise BlockRejected(BodyReason.RECORD_NOT_ALONE)
    openings = sum(len(evidence.openings) for evidence in body.evidence)
    caps = {
        BodyReason.TOO_LARGE: (body.size_bytes, rules.chain.max_body_bytes),
        BodyReason.TOO_MUCH_EVIDENCE: (body.evidence_bytes, rules.params.max_evidence_bytes),
        BodyReason.TOO_MANY_OPENINGS: (openings, rules.params.max_openings),
    }
    for reason, (value, cap) in caps.items():
        if value > cap:
            raise BlockRejected(reason, f"{value}, at most {cap}")
    if any(first >= second for first, second in pairwise(map(evidence_order, body.evidence))):
        raise BlockRejected(BodyReason.EVIDENCE_ORDER)
    kinds = [batch.kind for batch in body.batches]
    if len(set(kinds)) != len(kinds):
        raise BlockRejected(BodyReason.DUPLICATE_BATCH)


def evidence_order(evidence: Evidence) -> tuple[int, bytes]:
    """What evidence in a block ascends by, strictly: the height and the id of its L1 transaction."""
    return evidence.l1_height, sha256d(evidence.transaction)


def _require_anchor(header: Header, facts: L1Facts) -> None:
    match facts.anchor:
        case AnchorStatus.UNKNOWN:
            raise L1Waiting(f"L1 block {header.anchor.height} is not known yet")
        case AnchorStatus.CONTRADICTED:
            raise L1Contradicted(f"another L1 block is active at {header.anchor.height}")
        case AnchorStatus.WRONG_HEIGHT:
            raise BlockRejected(HeaderReason.ANCHOR_WRONG_HEIGHT, f"not at {header.anchor.height}")


def _fact_about(l1_block: BlockHash, facts: L1Facts) -> L1BlockFact:
    """What one's own node says of a block below an anchor that it holds. Raises Rejected, or L1Waiting if not asked."""
    if l1_block not in facts.blocks:
        raise L1Waiting("one's own Bitcoin node was not asked about a block in the evidence")
    fact = facts.blocks[l1_block]
    if fact is None:
        raise Rejected(EvidenceReason.WRONG_BLOCK, "not below the anchor")
    return fact


def _enter_records(state: ChainState, body: Body, parent: Header, rules: ChainRules) -> None:
    for index, signed in enumerate(body.records):
        try:
            enter_record(state, signed, parent.anchor, rules)
        except Rejected as error:
            raise BlockRejected(BodyReason.BAD_RECORD, f"record {index}: {error}", error.reason) from error


def _enter_evidence(state: ChainState, index: int, evidence: Evidence, facts: L1Facts, rules: ChainRules) -> None:
    try:
        enter_evidence(state, evidence, _fact_about(evidence.l1_block_hash, facts), rules)
    except Rejected as error:
        raise BlockRejected(BodyReason.BAD_EVIDENCE, f"evidence {index}: {error}", error.reason) from error


def _require_refunds(refunds: Sequence[bytes], due: Sequence[bytes]) -> None:
    """Raise BlockRejected unless the body holds the refunds that are due: all of them, no other, in their order."""
    if len(refunds) < len(due):
        raise BlockRejected(BodyReason.REFUND_MISSING, f"{len(refunds)}, and {len(due)} are due")
    if len(refunds) > len(due):
        raise BlockRejected(BodyReason.REFUND_NOT_DUE, f"{len(refunds)}, and {len(due)} are due")
    if refunds == due:
        return
    if sorted(refunds) == sorted(due):
        raise BlockRejected(BodyReason.REFUND_ORDER, "the oldest burn comes first")
    index = next(index for index, pair in enumerate(zip(refunds, due, strict=True)) if pair[0] != pair[1])
    raise BlockRejected(BodyReason.REFUND_DIFFERS, f"refund {index}: the ledger gives {due[index].hex()}")


def _enter_transfers(state: ChainState, body: Body, rules: ChainRules) -> Iterator[None]:
    budget = ScriptBudget.of(rules.chain)
    for index, data in enumerate(body.transactions):
        try:
            enter_transfer(state, parse_transaction(data), budget, rules)
        except Rejected as error:
            over = next((reason for reason in OVER_BUDGET if reason is error.reason), None)
            reason = over or BodyReason.BAD_TRANSACTION
            raise BlockRejected(reason, f"transaction {index}: {error}", error.reason) from error
        yield
