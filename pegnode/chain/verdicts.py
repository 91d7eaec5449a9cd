"""What can be said against a block or a transaction.

Three kinds of answer, which must never be taken for one another:
- a *rejection* follows from the block and its parent alone and is the same for ever, on every node;
- *waiting* and *contradicted* are about this node's view of L1 and say nothing about the block;
- a vote *withheld* is a member's prudence, and lives in `conditions`.
"""

from bridge.errors import Reason
from pegnode.errors import PegnodeError, Refusal


class HeaderReason(Reason):
    """Why a header is invalid, whatever its body."""

    VERSION = "header-version"  # The version is not 1.
    WRONG_CHAIN = "header-wrong-chain"  # The chain id is another's.
    WRONG_EPOCH = "header-wrong-epoch"  # The epoch is not the membership's.
    WRONG_PARENT = "header-wrong-parent"  # The parent's hash is another.
    WRONG_HEIGHT = "header-wrong-height"  # Not the parent's height + 1.
    VIEW_NOT_ABOVE_PARENT = "header-view-not-above-parent"  # The view is not above the parent's.
    WRONG_LEADER = "header-wrong-leader"  # The leader is not the view's.
    TIME_NOT_ABOVE_PARENT = "header-time-not-above-parent"  # The time is not above the parent's.
    BAD_ANCHOR = "header-bad-anchor"  # The anchor can't follow the parent's; the rule is named beside it.
    ANCHOR_WRONG_HEIGHT = "header-anchor-wrong-height"  # One's own Bitcoin node knows the anchor at another height.


class BodyReason(Reason):
    """Why a body is invalid under its header. None but the header's own reasons condemns the header."""

    WRONG_ROOT = "body-wrong-root"  # The body is not the one that the header commits to.
    TOO_LARGE = "body-too-large"  # Encoded, it is over `max_body_bytes`.
    TOO_MUCH_EVIDENCE = "body-too-much-evidence"  # Its evidence is over `max_evidence_bytes`.
    TOO_MANY_OPENINGS = "body-too-many-openings"  # Its evidence has more than `max_openings`.
    EVIDENCE_ORDER = "body-evidence-order"  # Its evidence does not ascend strictly by L1 height and txid.
    RECORD_NOT_ALONE = "body-record-not-alone"  # It holds a record beside evidence or a batch.
    BAD_RECORD = "body-bad-record"  # A record breaks a rule, which is named beside it.
    REFUND_MISSING = "body-refund-missing"  # It holds fewer refunds than are due.
    REFUND_NOT_DUE = "body-refund-not-due"  # It holds more refunds than are due.
    REFUND_ORDER = "body-refund-order"  # It holds the refunds that are due in another order.
    REFUND_DIFFERS = "body-refund-differs"  # It holds other bytes in place of a refund that is due.
    DUPLICATE_BATCH = "body-duplicate-batch"  # It holds two batches of one kind.
    TOO_MANY_INPUTS = "body-too-many-inputs"  # Its transactions have more than `max_inputs`.
    TOO_MANY_SIGOPS = "body-too-many-sigops"  # Its transactions cost more than `max_sigop_cost`.
    BAD_EVIDENCE = "body-bad-evidence"  # A piece of evidence breaks a rule, which is named beside it.
    BAD_TRANSACTION = "body-bad-transaction"  # A transaction breaks a rule, which is named beside it.
    BAD_BATCH = "body-bad-batch"  # A batch breaks a rule, which is named beside it.
    WRONG_LEDGER_ROOT = "body-wrong-ledger-root"  # The ledger after it has another root than the header says.


class BlockRejected(Refusal):
    """A block that breaks a rule of validity.

    reason: HeaderReason or BodyReason.
    cause: with BAD_ANCHOR, BAD_RECORD, BAD_EVIDENCE, BAD_TRANSACTION and BAD_BATCH, the rule that the item broke.
    """

    def __init__(self, reason: HeaderReason | BodyReason, detail: str = "", cause: Reason | None = None) -> None:
        super().__init__(reason, detail)
        self.cause = cause

    @property
    def condemns_header(self) -> bool:
        """Whether every block under this header is invalid. Otherwise only these very bytes of the block are."""
        return isinstance(self.reason, HeaderReason)


class L1Waiting(PegnodeError):  # noqa: N818 -- a state, no error of anybody
    """One's own Bitcoin node has not seen the block's anchor, or was not asked. Try again later."""


class L1Contradicted(PegnodeError):  # noqa: N818 -- a state, no error of the block
    """One's own Bitcoin node holds another block at the anchor's height.

    Of a final block that is a deep reorganisation of L1, and a reason to halt. Of a proposal it is only a reason not to
    vote: any leader can name a stale L1 block.
    """
