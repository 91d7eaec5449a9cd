"""Batches: how a block spends the reserve, by one unsigned L1 transaction that every node builds to the same bytes.

Theory of operation
    A batch is valid if `build_batch`, given the same ledger and feerate, makes exactly its transaction. What it is
    depends on what it says of itself: `bridge.payout` and `bridge.maintenance` make first versions of their kind, and
    `bridge.replacement` makes the versions that follow one of either. At most one lineage of each kind is open, and a
    first version opens one.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Self

from bridge.batch_form import BatchReason
from bridge.bitcoin.identifiers import HASH_SIZE, Txid
from bridge.codec import Encoded, Reader, Writer
from bridge.custody import Custody
from bridge.errors import MalformedError, Rejected
from bridge.ledger import Ledger, LedgerView
from bridge.lineages import PlannedBatch, open_lineage, record_batch
from bridge.maintenance import maintenance_due, plan_maintenance, refresh_urgent
from bridge.params import PegParams
from bridge.payout import payout_due, plan_payout
from bridge.replacement import plan_replacement, propose_replacement, replacement_due
from bridge.state import MAX_BATCH_TRANSACTION_BYTES, BatchKind


@dataclass(frozen=True, slots=True)
class Batch(Encoded):
    """A batch as a block contains it. replaces: the version it supersedes, if any; transaction: unsigned."""

    kind: BatchKind
    replaces: Txid | None
    feerate_sat_kvb: int
    transaction: bytes

    @classmethod
    def of(cls, planned: PlannedBatch) -> "Batch":
        """What a block says of a batch that was worked out."""
        return cls(planned.kind, planned.replaces, planned.version.feerate_sat_kvb, planned.version.transaction)

    def write(self, writer: Writer) -> None:
        """Append kind u8, replaced txid (variable, 0 or 32 bytes), feerate u64, transaction (variable)."""
        writer.u8(self.kind).variable(self.replaces or b"").u64(self.feerate_sat_kvb).variable(self.transaction)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        kind, replaces = reader.enumeration(BatchKind), reader.variable(HASH_SIZE)
        if len(replaces) not in (0, HASH_SIZE):
            raise MalformedError(f"a txid of {len(replaces)} bytes")
        feerate_sat_kvb, transaction = reader.u64(), reader.variable(MAX_BATCH_TRANSACTION_BYTES)
        return cls(kind, Txid(replaces) if replaces else None, feerate_sat_kvb, transaction)


def batch_due(view: LedgerView, kind: BatchKind, params: PegParams) -> bool:
    """Whether a batch of this kind, first version or replacement, may be due at some feerate."""
    if open_lineage(view, kind) is not None:
        return replacement_due(view, kind, params)
    return payout_due(view, params) if kind is BatchKind.PAYOUT else maintenance_due(view, params)


def any_batch_due(view: LedgerView, params: PegParams) -> bool:
    """Whether a batch of any kind may be due."""
    return any(batch_due(view, kind, params) for kind in BatchKind)


def build_batch(
    view: LedgerView,
    kind: BatchKind,
    replaces: Txid | None,
    feerate_sat_kvb: int,
    custody: Custody,
    params: PegParams,
) -> PlannedBatch | None:
    """The batch that is valid on top of `view` at this feerate, or None when no first version is due.

    None is due while a lineage of its kind is open. Raises Rejected(BatchReason): the feerate out of its range; for a
    replacement, what `plan_replacement` raises.
    """
    if feerate_sat_kvb < params.feerate_floor_sat_kvb:
        raise Rejected(BatchReason.FEERATE_BELOW_FLOOR, f"{feerate_sat_kvb} sat/kvB")
    if feerate_sat_kvb > params.feerate_ceiling_sat_kvb:
        raise Rejected(BatchReason.FEERATE_ABOVE_CEILING, f"{feerate_sat_kvb} sat/kvB")
    if replaces is not None:
        return plan_replacement(view, kind, replaces, feerate_sat_kvb, custody, params)
    if open_lineage(view, kind) is not None:
        return None
    plan = plan_payout if kind is BatchKind.PAYOUT else plan_maintenance
    return plan(view, feerate_sat_kvb, custody, params)


def propose_batches(
    view: LedgerView, estimate_sat_kvb: int, confirmed: Collection[Txid], custody: Custody, params: PegParams
) -> list[PlannedBatch]:
    """The batches that a leader proposes on top of `view`, in order: payouts come first, unless a coin is too old.

    estimate_sat_kvb: its own, which is moved into floor and ceiling.  confirmed: the versions that its own Bitcoin node
    sees confirmed; what has confirmed is not replaced.
    """
    feerate_sat_kvb = min(max(estimate_sat_kvb, params.feerate_floor_sat_kvb), params.feerate_ceiling_sat_kvb)
    trial, batches = Ledger(view), []
    kinds = (BatchKind.PAYOUT, BatchKind.MAINTENANCE)
    for kind in reversed(kinds) if refresh_urgent(view, params) else kinds:
        planned = _propose_batch(trial, kind, feerate_sat_kvb, confirmed, custody, params)
        if planned is not None:
            record_batch(trial, planned)
            batches.append(planned)
    return batches


def check_batch(view: LedgerView, batch: Batch, custody: Custody, params: PegParams) -> PlannedBatch:
    """What recording `batch` on top of `view` means: the ledger after the block's records, evidence and refunds.

    Raises Rejected(BatchReason).
    """
    planned = build_batch(view, batch.kind, batch.replaces, batch.feerate_sat_kvb, custody, params)
    if planned is None and open_lineage(view, batch.kind) is not None:
        raise Rejected(BatchReason.LINEAGE_OPEN, f"a {batch.kind.name} has not settled")
    if planned is None:
        raise Rejected(BatchReason.NOT_DUE, f"nothing asks for a {batch.kind.name}")
    if planned.version.transaction != batch.transaction:
        raise Rejected(BatchReason.TRANSACTION_DIFFERS, "the ledger and this feerate make another transaction")
    return planned


def _propose_batch(
    view: LedgerView,
    kind: BatchKind,
    feerate_sat_kvb: int,
    confirmed: Collection[Txid],
    custody: Custody,
    params: PegParams,
) -> PlannedBatch | None:
    """The batch of this kind that a leader proposes, or None."""
    lineage = open_lineage(view, kind)
    if lineage is None:
        return build_batch(view, kind, None, feerate_sat_kvb, custody, params)
    if any(version.txid in confirmed for version in lineage.versions):
        return None
    return propose_replacement(view, kind, feerate_sat_kvb, custody, params)
