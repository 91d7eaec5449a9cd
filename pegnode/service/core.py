"""What every node is made of, member or not: the final chain, the blocks above it, what waits, and who is told."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import structlog

from bridge.bitcoin.identifiers import BlockHash, hash_to_hex
from bridge.l1.states import NOT_ASKED, L1Health
from bridge.l1.watcher import L1Watcher
from bridge.records import MAX_FINDINGS, Finding
from bridge.state import Anchor
from pegnode.chain.parameters import ChainRules
from pegnode.halts import MAX_DETAIL_BYTES, LatchedFinding, active_findings, finding_name
from pegnode.mempool.evidence_pool import EvidencePool
from pegnode.mempool.pool import Mempool
from pegnode.mempool.record_pool import RecordPool
from pegnode.service.l1_questions import L1Questions
from pegnode.service.registry import DepositRegistry
from pegnode.service.unfinal import NO_CERTIFICATES, UnfinalBlock, UnfinalBlocks
from pegnode.storage.store import ChainStore

log = structlog.get_logger()

SUSPICION_MS: Final = 60_000
"""For how long one's own Bitcoin node has to contradict the final chain, without a pause, before this node halts."""
SUSPICION_GAP_MS: Final = 20_000
"""After a longer pause than this between two such findings the count starts anew; a slow node may answer so late."""


@dataclass(frozen=True, slots=True)
class Suspicion:
    """A finding that rests on one's own Bitcoin node alone. first_ms, last_ms: when it was made, Unix time."""

    detail: str
    first_ms: int
    last_ms: int


@dataclass(slots=True)
class NodeCore:
    """State shared by the parts of one node. Only trio's one thread touches it, and nothing awaits while it changes.

    now_ms: Unix time in milliseconds.
    waiting_for: what the node can't go on without at present, for people; None when nothing is missing.
    contradiction: why nothing becomes final here any more, for people: what quorums said excludes itself; None if not.
    key_alarm: why this member's own vote key must be taken for stolen, or for running twice, for people; None if not.
    l1: how one's own Bitcoin node is.  l1_reports: by member, the highest L1 block that it says is at the peg's depth.
    """

    rules: ChainRules
    store: ChainStore
    unfinal: UnfinalBlocks
    mempool: Mempool
    evidence: EvidencePool
    registry: DepositRegistry
    watcher: L1Watcher
    questions: L1Questions
    now_ms: Callable[[], int]
    waiting_for: str | None = None
    contradiction: str | None = None
    key_alarm: str | None = None
    l1: L1Health = NOT_ASKED
    l1_reports: dict[int, Anchor] = field(default_factory=dict)
    records: RecordPool = field(init=False)
    _suspicions: dict[Finding, Suspicion] = field(default_factory=dict)
    _latched: list[LatchedFinding] = field(init=False)
    _active: tuple[LatchedFinding, ...] = field(init=False)
    _on_final: list[Callable[[UnfinalBlock], None]] = field(default_factory=list)
    _on_work: list[Callable[[], None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Take up what records abandoned, and the halt that an earlier run latched: a restart clears none."""
        self.records = RecordPool(self.store.records())
        self._latched = self.store.halts()
        self._active = self._derive()
        for item in self._active:
            log.error("halted", finding=item.detail, kind=finding_name(item.finding.kind), since="before this start")

    @property
    def halted(self) -> bool:
        """Whether this node does nothing about L1: it is halted, or may have to be."""
        now_ms = self.now_ms()
        return bool(self._active) or any(_is_fresh(suspicion, now_ms) for suspicion in self._suspicions.values())

    @property
    def halt_findings(self) -> list[str]:
        """Why this node is halted, for people; empty while it is not."""
        return [item.detail for item in self._active]

    def active_findings(self) -> tuple[LatchedFinding, ...]:
        """Why this node is halted, oldest first; empty while it is not. At most MAX_FINDINGS."""
        return self._active

    def halt(self, finding: Finding, detail: str) -> None:
        """Latch a halt: it is on disk before this returns, and only a record ends it. Again, it changes nothing.

        A node with as many findings as one record may name latches no more; what it suspects stays suspected.
        Raises StorageError, and the halt is latched all the same for as long as this process runs.
        """
        if any(item.finding == finding for item in self._active) or len(self._active) >= MAX_FINDINGS:
            return
        latched = LatchedFinding(finding, shortened(detail), self.store.ledger.totals.record_serial, self.now_ms())
        self._latched.append(latched)
        self._active = (*self._active, latched)
        log.error("halted", finding=detail, kind=finding_name(finding.kind))
        self.store.keep_halt(latched)

    def suspect(self, finding: Finding, detail: str, for_ms: int = SUSPICION_MS) -> None:
        """Note a finding that rests on one's own Bitcoin node alone, and halt when it was made for `for_ms` on end.

        A node that is catching up, or a connection to another one, may say for a moment what is no longer said later.
        """
        now_ms = self.now_ms()
        before = self._suspicions.get(finding)
        first_ms = before.first_ms if before is not None and _is_fresh(before, now_ms) else now_ms
        self._suspicions[finding] = Suspicion(detail, first_ms, now_ms)
        if now_ms - first_ms >= for_ms:
            self.halt(finding, detail)

    def unsuspect(self, finding: Finding) -> None:
        """Forget a suspicion, for the Bitcoin node says otherwise now. A halt stays."""
        self._suspicions.pop(finding, None)

    def suspicions(self) -> tuple[str, ...]:
        """For people, the findings that may become a halt, and have not been taken back."""
        return tuple(self._suspicions[finding].detail for finding in self.suspected())

    def suspected(self) -> tuple[Finding, ...]:
        """The findings that `suspicions` tells of."""
        now_ms = self.now_ms()
        known = {item.finding for item in self._active}
        return tuple(
            finding
            for finding, suspicion in self._suspicions.items()
            if _is_fresh(suspicion, now_ms) and finding not in known
        )

    def _derive(self) -> tuple[LatchedFinding, ...]:
        """What of the latched findings still counts, by the final chain."""
        if not self._latched:
            return ()
        records = (signed.record for signed in self.records.final())
        return active_findings(self._latched, records, lambda block_hash: self.store.height_of(block_hash) is not None)

    def on_final(self, listener: Callable[[UnfinalBlock], None]) -> None:
        """Call `listener` after each block that became final here, in order."""
        self._on_final.append(listener)

    def on_work(self, listener: Callable[[], None]) -> None:
        """Call `listener` when what a block could include may have changed."""
        self._on_work.append(listener)

    def work_changed(self) -> None:
        """Tell the listeners of `on_work`."""
        for listener in self._on_work:
            listener()

    def contradict(self, detail: str) -> None:
        """Make nothing final any more, as long as this process runs: no rule says which of two branches is right."""
        if self.contradiction is None:
            self.contradiction = detail
            log.error("nothing becomes final here any more", because=detail)

    def finalize(
        self, block_hash: BlockHash, certificate: bytes, certificates: Mapping[BlockHash, bytes] = NO_CERTIFICATES
    ) -> None:
        """Commit a valid block and its ancestors, clear the pools of what they hold, and tell the listeners.

        certificates: finalizations of ancestors, as far as they have their own.
        A block that does not lead down to the tip by blocks kept here is left to be caught up with. After a
        contradiction nothing is done.
        """
        if self.contradiction is not None:
            return
        if self.store.height_of(block_hash) is None and not self.unfinal.reaches_tip(block_hash):
            log.error("a final block stands on none that is kept here", hash=hash_to_hex(block_hash))
            return
        for unfinal in self.unfinal.finalize(block_hash, certificate, certificates):
            header = unfinal.block.header
            dropped = self.mempool.remove_applied(unfinal.state.transactions)
            self.records.learn(unfinal.state.records)
            log.info(
                "block final",
                height=header.height,
                view=header.view,
                hash=hash_to_hex(header.hash),
                transactions=len(unfinal.state.transactions),
                records=len(unfinal.block.body.records),
                evidence=len(unfinal.block.body.evidence),
                refunds=len(unfinal.block.body.refunds),
                batches=len(unfinal.block.body.batches),
                conflicts_dropped=len(dropped),
            )
            for listener in self._on_final:
                listener(unfinal)
        self._end_halts()
        self.records.recheck(self.store)
        crowded_out = self.mempool.recheck(self.store, self.rules)
        if crowded_out:
            log.info("burns dropped: no room in the window", count=len(crowded_out))
        self.evidence.recheck(self.store, self.rules)
        self.mempool.expire(self.now_ms())
        self.evidence.expire(self.now_ms())
        self.work_changed()

    def _end_halts(self) -> None:
        """Take note of what the final chain ended, and forget what nobody suspects any longer."""
        now_ms = self.now_ms()
        self._suspicions = {finding: item for finding, item in self._suspicions.items() if _is_fresh(item, now_ms)}
        before = self._active
        self._active = self._derive() if before else ()
        for item in before:
            if item not in self._active:
                self._suspicions.pop(item.finding, None)
                log.warning("halt ended", finding=item.detail, kind=finding_name(item.finding.kind))


def shortened(detail: str) -> str:
    """`detail`, cut where it would be longer than may be kept."""
    data = detail.encode()
    return detail if len(data) <= MAX_DETAIL_BYTES else data[: MAX_DETAIL_BYTES - 3].decode(errors="ignore") + "…"


def _is_fresh(suspicion: Suspicion, now_ms: int) -> bool:
    return 0 <= now_ms - suspicion.last_ms <= SUSPICION_GAP_MS
