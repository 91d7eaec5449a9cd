"""The law for records: what must hold before this member signs one.      (pure)

A record ends a halt, writes off coins and moves the chain to another branch of L1, so a member signs only what its own
Bitcoin node shows, by the ledger of its own last final block. Records of a plan follow one another: those before the
one to sign are given too, and count as carried out.

    any       of this chain and epoch, the next in line, for not too long; the ledger can carry it out.
    deficit   each coin is gone for good by the own node: not unspent, its transaction in no mempool, and what stands
              in its way as deep as an anchor. Else it might come back, and with it a payout that spends it; one that no
              batch spends is given up after a day of blocks that don't hold it (`pegnode.resume.outlook`). No version
              of an open batch that spends it is in the chain or in the mempool: that one would settle.
    resume    every own finding is ended by it, or a deficit before it booked the coin. No coin of the ledger is missing
              here, but for those booked. If L1 left the anchor, it leads to a block of the own active chain that is as
              deep as any anchor, away from exactly the blocks that the own node knows as abandoned; if not, it leads
              nowhere. What others found and this member did not may be named: here it is not so, or it is booked.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from bridge.bitcoin.identifiers import OutPoint, Txid
from bridge.bitcoin.transaction import Transaction
from bridge.errors import Reason, Rejected
from bridge.ledger import Ledger, LedgerView, check_anchor
from bridge.losses import book_losses
from bridge.params import PegParams
from bridge.records import AbandonedBlock, Deficit, Finding, FindingKind, Rebase, Record, Resume, check_record
from bridge.state import Anchor
from federation.membership import Membership
from federation.record import RecordRefused

MAX_RECORD_LIFE_ANCHORS = 2016
"""Two weeks: what was true when a member signed may not be for ever, and a record waits for nobody to use it."""


class RecordLaw(Reason):
    """Why this member does not sign a record."""

    LASTS_TOO_LONG = "record-law-lasts-too-long"  # It could be carried out more than 2,016 L1 blocks from now.
    COIN_NOT_LOST = "record-law-coin-not-lost"
    """The own Bitcoin node has a coin that it names, or sees nothing, or nothing deep enough, that keeps it away."""
    VERSION_LIVES = "record-law-version-lives"
    """A version of an open batch that spends a coin that it names is in the own node's chain or mempool."""
    FINDING_NOT_COVERED = "record-law-finding-not-covered"  # It does not end something that this member found.
    COIN_MISSING = "record-law-coin-missing"
    """The own node lacks a coin that no record booked as lost, or has it again, after a reorg, not deep enough yet."""
    REBASE_MISSING = "record-law-rebase-missing"  # L1 left the chain's anchor, and it does not lead away from there.
    ANCHOR_NOT_LEFT = "record-law-anchor-not-left"  # It leads away from an anchor that is on the own active chain.
    BRANCH_DIFFERS = "record-law-branch-differs"
    """The abandoned blocks or the fork are not those that the own Bitcoin node knows from the anchor down."""
    NEW_ANCHOR_ELSEWHERE = "record-law-new-anchor-elsewhere"  # It leads to a block that is not on the own active chain.
    NEW_ANCHOR_SHALLOW = "record-law-new-anchor-shallow"  # It leads to a block with less than `confirmations`.


@dataclass(frozen=True, slots=True)
class OwnFindings:
    """What this member found itself, of the ledger of its last final block and at one tip of its own Bitcoin node.

    findings: why it is halted.  missing: coins of the ledger that are not unspent, in the chain or with the mempool,
    but for those that a version of an open lineage spends there; and those of abandoned blocks that the active chain
    holds again, in fewer than `confirmations`.  lost: coins of the ledger that are gone for good.
    versions_seen: versions of open lineages in the chain or in the mempool.
    fork, abandoned: of the branch that ends in the chain's anchor; None and empty while that is on the active chain.
    new_anchor_depth: of the block that the record leads to: 1 at the tip, 0 if it is not on the active chain.
    """

    findings: tuple[Finding, ...]
    missing: frozenset[OutPoint]
    lost: frozenset[OutPoint]
    versions_seen: frozenset[Txid]
    fork: Anchor | None
    abandoned: tuple[AbandonedBlock, ...]
    new_anchor_depth: int


@final
class ApprovedRecord:
    """A record that the law allows this member to sign. Only `approve_record` makes one."""

    __slots__ = ("_record",)

    def __init__(self, record: Record, seal: object) -> None:
        if seal is not _SEAL:
            raise TypeError("approve_record alone approves")
        self._record = record

    @property
    def record(self) -> Record:
        """What to sign."""
        return self._record


_SEAL = object()


def approve_record(
    record: Record,
    earlier: Sequence[Record],
    view: LedgerView,
    own: OwnFindings,
    membership: Membership,
    chain_id: bytes,
    params: PegParams,
) -> ApprovedRecord:
    """The record, fit to be signed.

    earlier: those of its plan that come before it.  view: the ledger of the last *final* block.
    Raises RecordRefused: RecordLaw, or RecordReason and LedgerReason for what no block could carry out.
    """
    ledger = Ledger(view)
    try:
        for number, item in enumerate((*earlier, record)):
            _carry_out(ledger, item, view.totals.record_serial + number, membership, chain_id)
        if record.rebase is not None:
            check_anchor(record.rebase.old_anchor, record.rebase.new_anchor, params)
    except Rejected as rejected:
        raise RecordRefused(rejected.reason, rejected.detail) from rejected
    _check_life(record, view.totals.anchor)
    for item in (*earlier, record):  # nothing is built on a loss that this member does not see
        if isinstance(item.content, Deficit):
            _check_deficit(item.content, view, own)
    if isinstance(record.content, Resume):
        _check_resume(record.content, ledger, own, params)
    return ApprovedRecord(record, _SEAL)


def _carry_out(ledger: Ledger, record: Record, serial: int, membership: Membership, chain_id: bytes) -> None:
    """As the block that holds it will. Raises Rejected."""
    anchor = ledger.totals.anchor if record.rebase is None else record.rebase.new_anchor
    check_record(record, chain_id=chain_id, epoch=membership.epoch, serial=serial, anchor_height=anchor.height)
    if isinstance(record.content, Deficit):
        book_losses(ledger, record.content)


def _check_life(record: Record, anchor: Anchor) -> None:
    last_height = anchor.height + MAX_RECORD_LIFE_ANCHORS
    if record.expires_at_anchor > last_height:
        detail = f"until L1 block {record.expires_at_anchor}, at most {last_height}"
        raise RecordRefused(RecordLaw.LASTS_TOO_LONG, detail)


def _check_deficit(deficit: Deficit, view: LedgerView, own: OwnFindings) -> None:
    named = {coin.outpoint for coin in deficit.lost}
    there = sorted(named - own.lost)
    if there:
        raise RecordRefused(RecordLaw.COIN_NOT_LOST, ", ".join(map(str, there)))
    for _, lineage in view.open_lineages.items():
        for version in lineage.versions:
            spent = {txin.outpoint for txin in Transaction.parse(version.transaction).inputs}
            if version.txid in own.versions_seen and spent & named:
                raise RecordRefused(RecordLaw.VERSION_LIVES, f"one of lineage {lineage.number}")


def _check_resume(resume: Resume, ledger: Ledger, own: OwnFindings, params: PegParams) -> None:
    """ledger: after the records before this one."""
    for finding in own.findings:
        booked = finding.kind is FindingKind.COIN_GONE and finding.outpoint in ledger.lost
        if not booked and not resume.covers(finding):
            detail = f"{finding.kind.name} {finding.subject.hex()}"
            raise RecordRefused(RecordLaw.FINDING_NOT_COVERED, detail)
    missing = sorted(outpoint for outpoint in own.missing if outpoint in ledger.coins)
    if missing:
        raise RecordRefused(RecordLaw.COIN_MISSING, ", ".join(map(str, missing)))
    if resume.rebase is not None:
        _check_rebase(resume.rebase, ledger.totals.anchor, own, params)
    elif own.fork is not None:
        detail = f"L1 block {ledger.totals.anchor.height} is not on the active chain"
        raise RecordRefused(RecordLaw.REBASE_MISSING, detail)


def _check_rebase(rebase: Rebase, anchor: Anchor, own: OwnFindings, params: PegParams) -> None:
    if own.fork is None:
        raise RecordRefused(RecordLaw.ANCHOR_NOT_LEFT, f"L1 block {anchor.height} is on the active chain")
    if (rebase.old_anchor, rebase.fork, rebase.abandoned) != (anchor, own.fork, own.abandoned):
        here = f"here {len(own.abandoned)} blocks up to {anchor.height}"
        detail = f"{len(rebase.abandoned)} blocks up to {rebase.old_anchor.height}; {here}"
        raise RecordRefused(RecordLaw.BRANCH_DIFFERS, detail)
    if own.new_anchor_depth == 0:
        raise RecordRefused(RecordLaw.NEW_ANCHOR_ELSEWHERE, f"L1 block {rebase.new_anchor.height}")
    if own.new_anchor_depth < params.confirmations:
        detail = f"{own.new_anchor_depth} of {params.confirmations} confirmations"
        raise RecordRefused(RecordLaw.NEW_ANCHOR_SHALLOW, detail)
