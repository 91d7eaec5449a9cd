"""What every node is made of, member or not: the final chain, the blocks above it, what waits, and who is told."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import structlog

from bridge.bitcoin.identifiers import BlockHash, hash_to_hex
from bridge.l1.states import NOT_ASKED, L1Health
from bridge.l1.watcher import L1Watcher
from bridge.state import Anchor
from pegnode.chain.parameters import ChainRules
from pegnode.mempool.evidence_pool import EvidencePool
from pegnode.mempool.pool import Mempool
from pegnode.service.l1_questions import L1Questions
from pegnode.service.registry import DepositRegistry
from pegnode.service.unfinal import NO_CERTIFICATES, UnfinalBlock, UnfinalBlocks
from pegnode.storage.store import ChainStore

log = structlog.get_logger()

SUSPICION_MS: Final = 60_000
"""For how long one's own Bitcoin node has to contradict the final chain, without a pause, before this node halts."""
SUSPICION_GAP_MS: Final = 20_000
"""After a longer pause than this between two such findings the count starts anew; a slow node may answer so late."""


@dataclass(slots=True)
class NodeCore:
    """State shared by the parts of one node. Only trio's one thread touches it, and nothing awaits while it changes.

    now_ms: Unix time in milliseconds.  halt_findings: why this node halted, latched; empty while it has not.
    waiting_for: what the node can't go on without at present, for people; None when nothing is missing.
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
    halt_findings: list[str] = field(init=False)
    waiting_for: str | None = None
    l1: L1Health = NOT_ASKED
    l1_reports: dict[int, Anchor] = field(default_factory=dict)
    _suspicions: dict[str, tuple[int, int]] = field(default_factory=dict)
    _on_final: list[Callable[[UnfinalBlock], None]] = field(default_factory=list)
    _on_work: list[Callable[[], None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Take up the halt that an earlier run latched: a restart clears none."""
        self.halt_findings = self.store.halt_findings()
        for finding in self.halt_findings:
            log.error("halted", finding=finding, since="before this start")

    @property
    def halted(self) -> bool:
        """Whether this node does nothing about L1: it has latched a halt, or may have to."""
        return bool(self.halt_findings or self.suspicions())

    def halt(self, finding: str) -> None:
        """Latch a halt, for good: it is on disk before this returns. Naming the same finding again changes nothing.

        Raises StorageError, and the halt is latched all the same for as long as this process runs.
        """
        if finding not in self.halt_findings:
            self.halt_findings.append(finding)
            log.error("halted", finding=finding)
            self.store.keep_halt(finding)

    def suspect(self, finding: str) -> None:
        """Note a finding that rests on one's own Bitcoin node alone, and halt when it was made for SUSPICION_MS on end.

        A node that is catching up, or a connection to another one, may say for a moment what is no longer said later.
        """
        now_ms = self.now_ms()
        first_ms, last_ms = self._suspicions.get(finding, (now_ms, now_ms))
        if not 0 <= now_ms - last_ms <= SUSPICION_GAP_MS:
            first_ms = now_ms
        self._suspicions[finding] = (first_ms, now_ms)
        if now_ms - first_ms >= SUSPICION_MS:
            self.halt(finding)

    def unsuspect(self, finding: str) -> None:
        """Forget a suspicion, for the Bitcoin node says otherwise now. A halt stays."""
        self._suspicions.pop(finding, None)

    def suspicions(self) -> tuple[str, ...]:
        """The findings that may become a halt, and have not been taken back."""
        now_ms = self.now_ms()
        return tuple(
            finding
            for finding, (_, last_ms) in self._suspicions.items()
            if 0 <= now_ms - last_ms <= SUSPICION_GAP_MS and finding not in self.halt_findings
        )

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

    def finalize(
        self, block_hash: BlockHash, certificate: bytes, certificates: Mapping[BlockHash, bytes] = NO_CERTIFICATES
    ) -> None:
        """Commit a valid block and its ancestors, clear the pools of what they hold, and tell the listeners.

        certificates: finalizations of ancestors, as far as they have their own.
        A block that does not lead down to the tip by blocks kept here is left to be caught up with.
        """
        if self.store.height_of(block_hash) is None and not self.unfinal.reaches_tip(block_hash):
            log.error("a final block stands on none that is kept here", hash=hash_to_hex(block_hash))
            return
        for unfinal in self.unfinal.finalize(block_hash, certificate, certificates):
            header = unfinal.block.header
            dropped = self.mempool.remove_applied(unfinal.state.transactions)
            log.info(
                "block final",
                height=header.height,
                view=header.view,
                hash=hash_to_hex(header.hash),
                transactions=len(unfinal.state.transactions),
                evidence=len(unfinal.block.body.evidence),
                refunds=len(unfinal.block.body.refunds),
                batches=len(unfinal.block.body.batches),
                conflicts_dropped=len(dropped),
            )
            for listener in self._on_final:
                listener(unfinal)
        self.mempool.recheck(self.store)
        self.evidence.recheck(self.store)
        self.mempool.expire(self.now_ms())
        self.evidence.expire(self.now_ms())
        self.work_changed()
