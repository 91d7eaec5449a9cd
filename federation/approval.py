"""A signer's laws: what must hold before this member signs an L1 transaction.      (pure)

A signature on L1 can't be taken back. So what consensus checked when the batch was recorded is checked once more, from
two sources only: the ledger of the last *final* block, and what this member's own Bitcoin node says. Nothing that a
peer says counts. Anything but an ApprovedBatch is a refusal, and each refusal has its reason.

In this order: this member has not halted, and its node has reached the anchor; the version is recorded in an open
lineage, in the one form of batches, and spends coins that this lineage alone locks (`federation.recorded_batch`); it
pays what is owed at an allowed cost, was due, and is what the ledger makes of it (`federation.batch_law`); the ledger's
sums and caps hold; and the own node holds every coin of the reserve, not only those about to be spent, unless a
recorded version has spent it (`federation.reserve_law`).
"""

from typing import final

from bridge.bitcoin.identifiers import Txid
from bridge.custody import Custody
from bridge.ledger import LedgerView
from bridge.params import PegParams
from federation.batch_law import check_batch
from federation.recorded_batch import plan_version, recorded_version, require_supersets
from federation.refusal import RefusalReason, SigningRefused
from federation.reserve_law import ReserveFacts, check_own_node, check_sums
from federation.signing_plan import SigningPlan


@final
class ApprovedBatch:
    """A recorded batch version that this member may sign. Only `approve_batch` makes one."""

    __slots__ = ("_plan",)

    def __init__(self, plan: SigningPlan, seal: object) -> None:
        if seal is not _SEAL:
            raise TypeError("approve_batch alone approves")
        self._plan = plan

    @property
    def plan(self) -> SigningPlan:
        """What to sign."""
        return self._plan

    @property
    def txid(self) -> Txid:
        """Of the transaction, 32 bytes."""
        return self._plan.txid


_SEAL = object()


def approve_batch(
    view: LedgerView, txid: Txid, facts: ReserveFacts, custody: Custody, params: PegParams
) -> ApprovedBatch:
    """The batch version `txid`, approved. view: the ledger of the last *final* block.

    Raises SigningRefused with the first law that does not hold, in the order above.
    """
    if facts.halted:
        raise SigningRefused(RefusalReason.HALTED)
    if facts.l1_height < view.totals.anchor.height:
        raise SigningRefused(
            RefusalReason.NODE_BEHIND, f"own node at {facts.l1_height}, anchor at {view.totals.anchor.height}"
        )
    lineage, version = recorded_version(view, txid)
    require_supersets(lineage)
    plan = plan_version(view, lineage, version, custody)
    payees = check_batch(view, lineage, version, plan, custody, params)
    check_sums(view, lineage, payees, params)
    check_own_node(view, lineage, facts, custody)
    return ApprovedBatch(plan, _SEAL)
