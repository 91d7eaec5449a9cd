"""A leader's block: what of the waiting work fits and is valid, under one header."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace

from bridge.batch import Batch, propose_batches
from bridge.bitcoin.identifiers import Txid
from bridge.bitcoin.transaction import Transaction
from bridge.errors import Reason, Rejected
from bridge.evidence import Evidence, EvidenceReason
from bridge.ledger import advance_anchor, check_anchor, ledger_root
from bridge.state import Anchor, LedgerReason
from bridge.withdrawals import BurnReason
from federation.record import SignedRecord
from pegnode.chain.block import EMPTY_BODY, ITEM_OVERHEAD_BYTES, MAX_RECORDS, MAX_TRANSACTION_BYTES, Block, Body
from pegnode.chain.execution import (
    OVER_BUDGET,
    ScriptBudget,
    enter_batch,
    enter_evidence,
    enter_record,
    enter_refunds,
    enter_transfer,
)
from pegnode.chain.facts import AnchorStatus, L1Facts
from pegnode.chain.header import HEADER_VERSION, Header
from pegnode.chain.parameters import ChainRules
from pegnode.chain.rules import check_header, evidence_order
from pegnode.chain.state import ChainState, ChainView, Tip
from pegnode.chain.transactions import TransactionRule

MAX_RECORDS_BYTES = 2 * MAX_TRANSACTION_BYTES
"""What a leader takes of records: every genesis leaves so much room beside the refunds that may be due."""
POSTPONING_REASONS: frozenset[Reason] = frozenset(
    {
        TransactionRule.NOT_FINAL,
        TransactionRule.RELATIVE_LOCK,
        *OVER_BUDGET,
        BurnReason.OVER_WINDOW,
        EvidenceReason.ABOVE_ANCHOR,
        EvidenceReason.IMMATURE_COINBASE,
        EvidenceReason.OVER_CAP,
        EvidenceReason.ALREADY_ENTERED,
        LedgerReason.ALREADY_SETTLED,
    }
)
"""Grounds that a later block, or the failure of an unfinal parent, may remove: such a candidate goes on waiting."""


@dataclass(frozen=True, slots=True)
class Slot:
    """What a proposal is for.

    view: the leader's.  time_ms: the leader's clock; the block's time is raised above the parent's where necessary.
    anchor: the L1 block that the leader would anchor to; at or below the parent's, the parent's is kept. Records say
    themselves what a block with them is anchored to.
    feerate_sat_kvb: the leader's estimate, for batches; None when it has none.
    include_l1: whether the block may say anything about L1; without it the anchor stays the parent's.
    confirmed: the recorded batch versions that the leader's Bitcoin node sees confirmed.
    """

    view: int
    time_ms: int
    anchor: Anchor
    feerate_sat_kvb: int | None
    include_l1: bool
    confirmed: frozenset[Txid] = frozenset()


@dataclass(frozen=True, slots=True)
class Candidates:
    """What waits, in order of preference; a transaction after those it spends from.

    records: in the order of their serials, from the next one on. A block that holds one holds neither evidence nor a
    batch.
    """

    evidence: Sequence[Evidence] = ()
    transactions: Sequence[Transaction] = ()
    records: Sequence[SignedRecord] = ()


@dataclass(frozen=True, slots=True)
class BuiltBlock:
    """A valid block, its state, and the candidates that no later block could hold either, with the reason of each.

    batch_obstacle: why batches that are due could not be worked out, and the block has none.
    rejected_record: the record that keeps out those behind it.
    """

    block: Block
    state: ChainState
    rejected_evidence: list[tuple[Evidence, Rejected]]
    rejected_transactions: list[tuple[Txid, Rejected]]
    batch_obstacle: Rejected | None = None
    rejected_record: tuple[SignedRecord, Rejected] | None = None


def build_block(parent: ChainView, slot: Slot, candidates: Candidates, facts: L1Facts, rules: ChainRules) -> BuiltBlock:
    """The block that the leader of `slot.view` proposes on `parent`.

    Candidates that don't fit, or can't enter yet, are left out in silence. The block says nothing about L1 unless one's
    own Bitcoin node holds `slot.anchor`. Raises BlockRejected (HeaderReason) for a slot that no block on `parent` has.
    """
    steps = build_in_steps(parent, slot, candidates, facts, rules)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            built: BuiltBlock = done.value
            return built


def build_in_steps(
    parent: ChainView, slot: Slot, candidates: Candidates, facts: L1Facts, rules: ChainRules
) -> Generator[None, None, BuiltBlock]:
    """The same as `build_block`, which takes seconds for a full block, with a pause after each transaction.

    The parent's state must not change in a pause; if it did, what was done so far is worth nothing.
    """
    if candidates.records:
        assembly = _begin_with_records(parent, slot, candidates.records, facts, rules)
    else:
        assembly = _begin(parent, slot, _anchor(parent.tip.header.anchor, slot, facts), rules)
    speaks_about_l1 = _speaks_about_l1(slot, facts) and not candidates.records
    if speaks_about_l1:
        assembly.add_evidence(candidates.evidence, facts)
    assembly.add_refunds()
    if speaks_about_l1 and slot.feerate_sat_kvb is not None:
        assembly.add_batches(slot.feerate_sat_kvb, slot.confirmed)
    yield from assembly.add_transactions(candidates.transactions)
    return assembly.finish()


def _speaks_about_l1(slot: Slot, facts: L1Facts) -> bool:
    return slot.include_l1 and facts.anchor is AnchorStatus.ON_CHAIN


def _anchor(parent: Anchor, slot: Slot, facts: L1Facts) -> Anchor:
    """What a block without records is anchored to."""
    return slot.anchor if _speaks_about_l1(slot, facts) and slot.anchor.height > parent.height else parent


def _begin(parent: ChainView, slot: Slot, anchor: Anchor, rules: ChainRules) -> "_Assembly":
    """An empty body under a header with this anchor. Raises BlockRejected (HeaderReason)."""
    draft = _draft_header(parent.tip.header, slot, anchor, rules)
    check_header(parent.tip.header, draft, rules)
    assembly = _Assembly(ChainState(parent, draft), rules)
    advance_anchor(assembly.state.ledger, anchor, rules.params)
    return assembly


def _begin_with_records(
    parent: ChainView, slot: Slot, records: Sequence[SignedRecord], facts: L1Facts, rules: ChainRules
) -> "_Assembly":
    """A body of the records before the first that fails, under a header with the anchor that they say."""
    parent_anchor = parent.tip.header.anchor
    records, rejected = _enterable(records, parent_anchor, slot, facts, rules)
    while True:
        rebase = Body(records=tuple(records)).rebase
        assembly = _begin(parent, slot, rebase.new_anchor if rebase else parent_anchor, rules)
        failed = assembly.add_records(records, parent_anchor)
        if failed is None:
            assembly.rejected_record = rejected
            return assembly
        # Anew, for what it, or one behind it, says of the anchor must not count for those before it.
        rejected = (records[len(assembly.records)], failed)
        records = records[: len(assembly.records)]


def _enterable(
    records: Sequence[SignedRecord], parent_anchor: Anchor, slot: Slot, facts: L1Facts, rules: ChainRules
) -> tuple[Sequence[SignedRecord], tuple[SignedRecord, Rejected] | None]:
    """The records before the first of which the header alone would be wrong; that one, if it always will be."""
    size = 0
    for index, signed in enumerate(records):
        size += ITEM_OVERHEAD_BYTES + len(signed.encode())
        rebase = signed.record.rebase
        if index == MAX_RECORDS or size > MAX_RECORDS_BYTES:
            return records[:index], None
        if rebase is not None and not (_speaks_about_l1(slot, facts) and rebase.new_anchor == slot.anchor):
            return records[:index], None
        if rebase is not None:
            try:
                check_anchor(parent_anchor, rebase.new_anchor, rules.params)
            except Rejected as error:
                return records[:index], (signed, error)
    return records, None


def _draft_header(parent: Header, slot: Slot, anchor: Anchor, rules: ChainRules) -> Header:
    """Everything of the header but the roots."""
    return Header(
        version=HEADER_VERSION,
        chain_id=rules.chain_id,
        epoch=rules.membership.epoch,
        height=parent.height + 1,
        view=slot.view,
        parent=parent.hash,
        leader=rules.membership.leader(slot.view),
        time_ms=max(slot.time_ms, parent.time_ms + 1),
        anchor=anchor,
        body_root=EMPTY_BODY.root,
        ledger_root=parent.ledger_root,
    )


@dataclass(slots=True)
class _Assembly:
    """A body under construction; `state` is always the one after what it holds."""

    state: ChainState
    rules: ChainRules
    records: list[SignedRecord] = field(default_factory=list)
    evidence: list[Evidence] = field(default_factory=list)
    refunds: tuple[bytes, ...] = ()
    transactions: list[bytes] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)
    body_bytes: int = EMPTY_BODY.size_bytes
    rejected_evidence: list[tuple[Evidence, Rejected]] = field(default_factory=list)
    rejected_transactions: list[tuple[Txid, Rejected]] = field(default_factory=list)
    batch_obstacle: Rejected | None = None
    rejected_record: tuple[SignedRecord, Rejected] | None = None

    def add_records(self, records: Sequence[SignedRecord], parent_anchor: Anchor) -> Rejected | None:
        """Each of the records; why one fails, and it and those behind it are left out."""
        for signed in records:
            try:
                enter_record(self.state, signed, parent_anchor, self.rules)
            except Rejected as error:
                return error
            self._take(len(signed.encode()))
            self.records.append(signed)
        return None

    def add_evidence(self, candidates: Sequence[Evidence], facts: L1Facts) -> None:
        """What fits of the evidence, in the order that a body has it in."""
        bytes_left, openings_left = self.rules.params.max_evidence_bytes, self.rules.params.max_openings
        for evidence in sorted(candidates, key=evidence_order):
            fact = facts.blocks.get(evidence.l1_block_hash)
            size = len(evidence.encode())
            if fact is None or size > bytes_left or len(evidence.openings) > openings_left or not self._fits(size):
                continue
            try:
                enter_evidence(self.state, evidence, fact, self.rules)
            except Rejected as error:
                if error.reason not in POSTPONING_REASONS:
                    self.rejected_evidence.append((evidence, error))
                continue
            bytes_left -= size
            openings_left -= len(evidence.openings)
            self._take(size)
            self.evidence.append(evidence)

    def add_refunds(self) -> None:
        """Those that are due. The cap on evidence leaves room for them: a rule of the genesis."""
        self.refunds = enter_refunds(self.state, self.rules)
        for refund in self.refunds:
            self._take(len(refund))

    def add_batches(self, feerate_sat_kvb: int, confirmed: frozenset[Txid]) -> None:
        """What a leader with this estimate proposes: first versions, and replacements of what has not confirmed.

        A ledger from which none can be worked out must not stop all that needs no batch: the block goes without.
        """
        custody, params = self.rules.custody, self.rules.params
        try:
            for planned in propose_batches(self.state.ledger, feerate_sat_kvb, confirmed, custody, params):
                batch = Batch.of(planned)
                size = len(batch.encode())
                if not self._fits(size):
                    return
                enter_batch(self.state, batch, self.rules)
                self._take(size)
                self.batches.append(batch)
        except Rejected as obstacle:
            self.batch_obstacle = obstacle

    def add_transactions(self, candidates: Sequence[Transaction]) -> Generator[None, None, None]:
        """What fits of the transactions, with a pause after each; what spends from one left out is left out too."""
        budget = ScriptBudget.of(self.rules.chain)
        left_out: set[Txid] = set()
        for transaction in candidates:
            yield
            size = len(transaction.serialize())
            if not self._fits(size) or any(txin.outpoint.txid in left_out for txin in transaction.inputs):
                left_out.add(transaction.txid)
                continue
            try:
                enter_transfer(self.state, transaction, budget, self.rules)
            except Rejected as error:
                left_out.add(transaction.txid)
                if error.reason not in POSTPONING_REASONS:
                    self.rejected_transactions.append((transaction.txid, error))
                continue
            self._take(size)
            self.transactions.append(transaction.serialize())

    def finish(self) -> BuiltBlock:
        """The block, its roots filled in."""
        body = Body(
            records=tuple(self.records),
            evidence=tuple(self.evidence),
            refunds=self.refunds,
            transactions=tuple(self.transactions),
            batches=tuple(self.batches),
        )
        header = replace(self.state.tip.header, body_root=body.root, ledger_root=ledger_root(self.state.ledger))
        self.state.tip = Tip(header)
        return BuiltBlock(
            Block(header, body),
            self.state,
            self.rejected_evidence,
            self.rejected_transactions,
            self.batch_obstacle,
            self.rejected_record,
        )

    def _fits(self, size: int) -> bool:
        return self.body_bytes + ITEM_OVERHEAD_BYTES + size <= self.rules.chain.max_body_bytes

    def _take(self, size: int) -> None:
        self.body_bytes += ITEM_OVERHEAD_BYTES + size
