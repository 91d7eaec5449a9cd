"""What an audit found, as one value: the recount after one block of the sidechain, and the reserve at one of L1."""

from collections.abc import Sequence
from dataclasses import dataclass

from bridge.state import Anchor
from pegnode.audit.ages import Ages, ages
from pegnode.audit.reserve import Row
from pegnode.storage.audit import AuditReport


@dataclass(frozen=True, slots=True)
class Audit:
    """The recount after block `recount.tip`, and the reserve as one's own Bitcoin node has it at `l1_tip`.

    anchor_on_chain: whether that node's active chain holds the block's anchor.  scripts: how many reserve scripts were
    looked for.  scanned: whether the node went through its whole UTXO set; else only the ledger's coins, and payments
    in its latest blocks, were looked at.  time_ms: Unix time at the end.  halt_findings: why this node has halted.
    """

    recount: AuditReport
    l1_tip: Anchor
    anchor_on_chain: bool
    scripts: int
    scanned: bool
    rows: tuple[Row, ...]
    time_ms: int
    halt_findings: tuple[str, ...]

    @property
    def findings(self) -> tuple[str, ...]:
        """Whatever does not add up, for people; empty when every satoshi is explained."""
        found = list(self.recount.findings)
        if not self.anchor_on_chain:
            anchor = self.recount.totals.anchor
            found.append(f"the Bitcoin node's active chain does not hold the anchor, L1 block {anchor.height}")
        found += [f"{row.status}: {row.value_sats} sats at {row.outpoint}: {row.cause}" for row in self.finding_rows]
        return tuple(found)

    @property
    def finding_rows(self) -> Sequence[Row]:
        """The rows that are findings."""
        return [row for row in self.rows if row.is_finding]

    @property
    def ages(self) -> Ages:
        """How long the coins have lain still."""
        return ages(self.rows)
