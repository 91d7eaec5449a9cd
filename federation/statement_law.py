"""The law for statements of solvency: what must hold before this member signs one.      (pure)

A signature under a statement vouches for the peg before people who can't look themselves, so a member gives it for what
it found itself, and for nothing else: its own recount of that block or of one above it, its own Bitcoin node, its own
final chain. A recount above vouches for the block below, for a block changes what is counted and what is written down
alike: a difference between the two that was there at the lower block would be there still. What the statement says must
then be, field by field, what this member had after that block.
"""

from dataclasses import dataclass
from typing import final

from bridge.bitcoin.identifiers import BlockHash
from bridge.errors import Reason
from bridge.state import Anchor
from federation.membership import Membership
from federation.statement import (
    CLOCK_TOLERANCE_MS,
    BlockTerms,
    SolvencyStatement,
    StatementRefused,
    check_age,
    check_statement,
    describe_block,
)

MAX_STATEMENT_AGE_MS = 86_400_000
"""A member signs no statement that was drawn up more than a day ago."""
MAX_RECOUNT_MS = 3_600_000
"""A statement is dated when its recount ends; so long ago another block may have come."""


class StatementLaw(Reason):
    """Why this member does not sign a statement."""

    HALTED = "statement-law-halted"  # This member has latched a halt.
    BLOCK_UNKNOWN = "statement-law-block-unknown"
    """The block is not final here yet, or too long ago for this process to know the terms after it."""
    OTHER_BLOCK = "statement-law-other-block"  # Another block is final here at that height.
    TERMS_DIFFER = "statement-law-terms-differ"  # A term, the anchor or the ledger root is not what this member had.
    TIME_DIFFERS = "statement-law-time-differs"
    """It is dated before its block was made, or more than an hour after the next one: old terms as if they were new."""
    FINDINGS = "statement-law-findings"  # This member's own audit found something.
    NOT_AUDITED = "statement-law-not-audited"  # This member's own recount is of a block below.
    L1_NOT_SEEN = "statement-law-l1-not-seen"  # The own Bitcoin node has not come as far as the statement says.
    L1_OTHER_BLOCK = "statement-law-l1-other-block"  # The own Bitcoin node has another block at that height.


@dataclass(frozen=True, slots=True)
class OwnAudit:
    """What this member found out itself.

    terms: after the statement's height on its own final chain, None if it doesn't know them (any more).
    made_ms, next_made_ms: the time of that block and of the one above it, None while there is none above.
    audited_height: the block of its own recount.  findings: of its own audit.  l1_height: of its own Bitcoin node's tip
    when it looked at the reserve.  l1_block: that node's active block at the height that the statement names.
    now_ms: its clock, Unix time.
    """

    halted: bool
    terms: BlockTerms | None
    made_ms: int | None
    next_made_ms: int | None
    audited_height: int
    findings: tuple[str, ...]
    l1_height: int
    l1_block: BlockHash | None
    now_ms: int


@final
class ApprovedStatement:
    """A statement that the law allows this member to sign. Only `approve_statement` makes one."""

    __slots__ = ("_statement",)

    def __init__(self, statement: SolvencyStatement, seal: object) -> None:
        if seal is not _SEAL:
            raise TypeError("approve_statement alone approves")
        self._statement = statement

    @property
    def statement(self) -> SolvencyStatement:
        """What to sign."""
        return self._statement


_SEAL = object()


def approve_statement(
    statement: SolvencyStatement, own: OwnAudit, membership: Membership, chain_id: bytes
) -> ApprovedStatement:
    """The statement, fit to be signed. Raises StatementRefused: StatementLaw, or StatementReason for its form."""
    if own.halted:
        raise StatementRefused(StatementLaw.HALTED, "what touches L1 has stopped here")
    check_statement(statement, membership, chain_id, own.now_ms)
    check_age(statement, own.now_ms, MAX_STATEMENT_AGE_MS)
    _check_terms(statement.terms, own.terms)
    _check_time(statement.time_ms, own)
    if own.findings:
        raise StatementRefused(StatementLaw.FINDINGS, "; ".join(own.findings))
    if own.audited_height < statement.terms.height:
        detail = f"the recount is of block {own.audited_height}, the statement of {statement.terms.height}"
        raise StatementRefused(StatementLaw.NOT_AUDITED, detail)
    _check_l1(statement.l1_tip, own)
    return ApprovedStatement(statement, _SEAL)


def _check_terms(stated: BlockTerms, own: BlockTerms | None) -> None:
    if own is None:
        raise StatementRefused(StatementLaw.BLOCK_UNKNOWN, f"{describe_block(stated)}: draw up a new statement")
    if stated.block_hash != own.block_hash:
        raise StatementRefused(StatementLaw.OTHER_BLOCK, f"{describe_block(stated)}; here it is {describe_block(own)}")
    for name in BlockTerms.__slots__:
        stated_value, own_value = getattr(stated, name), getattr(own, name)
        if stated_value != own_value:
            detail = f"{name}: {_shown(stated_value)} stated, {_shown(own_value)} here"
            raise StatementRefused(StatementLaw.TERMS_DIFFER, detail)


def _check_time(stated_ms: int, own: OwnAudit) -> None:
    """The block was there at the stated time, and the newest when its recount began."""
    if own.made_ms is None or stated_ms < own.made_ms - CLOCK_TOLERANCE_MS:
        raise StatementRefused(StatementLaw.TIME_DIFFERS, "it is dated before its block was made")
    if own.next_made_ms is not None and stated_ms > own.next_made_ms + MAX_RECOUNT_MS:
        late_s = (stated_ms - own.next_made_ms) // 1000
        raise StatementRefused(StatementLaw.TIME_DIFFERS, f"it is dated {late_s} s after the next block")


def _check_l1(stated: Anchor, own: OwnAudit) -> None:
    """The reserve was whole at or above the stated L1 block, and that block is still one of the active chain's."""
    if own.l1_height < stated.height:
        detail = f"L1 block {stated.height}; the Bitcoin node here is at {own.l1_height}"
        raise StatementRefused(StatementLaw.L1_NOT_SEEN, detail)
    if own.l1_block != stated.hash:
        raise StatementRefused(StatementLaw.L1_OTHER_BLOCK, f"at height {stated.height}")


def _shown(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)
