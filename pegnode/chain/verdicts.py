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

    VERSION = "header-version"
    WRONG_CHAIN = "header-wrong-chain"
    WRONG_EPOCH = "header-wrong-epoch"
    WRONG_PARENT = "header-wrong-parent"
    WRONG_HEIGHT = "header-wrong-height"
    VIEW_NOT_ABOVE_PARENT = "header-view-not-above-parent"
    WRONG_LEADER = "header-wrong-leader"
    TIME_NOT_ABOVE_PARENT = "header-time-not-above-parent"
    ANCHOR_BELOW_PARENT = "header-anchor-below-parent"
    ANCHOR_STEP = "header-anchor-step"
    ANCHOR_FORK = "header-anchor-fork"
    ANCHOR_WRONG_HEIGHT = "header-anchor-wrong-height"


class BodyReason(Reason):
    """Why a body is invalid under its header. None but the header's own reasons condemns the header."""

    WRONG_ROOT = "body-wrong-root"
    TOO_LARGE = "body-too-large"
    TOO_MUCH_EVIDENCE = "body-too-much-evidence"
    TOO_MANY_OPENINGS = "body-too-many-openings"
    EVIDENCE_ORDER = "body-evidence-order"
    RECORD_UNKNOWN = "body-record-unknown"
    REFUND_NOT_DUE = "body-refund-not-due"
    DUPLICATE_BATCH = "body-duplicate-batch"
    TOO_MANY_INPUTS = "body-too-many-inputs"
    TOO_MANY_SIGOPS = "body-too-many-sigops"
    BAD_EVIDENCE = "body-bad-evidence"
    BAD_TRANSACTION = "body-bad-transaction"
    BAD_BATCH = "body-bad-batch"
    WRONG_LEDGER_ROOT = "body-wrong-ledger-root"


class BlockRejected(Refusal):
    """A block that breaks a rule of validity.

    reason: HeaderReason or BodyReason.
    cause: with BAD_EVIDENCE, BAD_TRANSACTION and BAD_BATCH, the rule that the item broke.
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
