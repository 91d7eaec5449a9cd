"""Why a signer across a socket does not answer with a signature, and how the reasons cross it.

A refusal travels as the stable text of its reason. Whoever asked gets the same error that a signer in its own process
would have raised.
"""

from collections.abc import Mapping
from typing import Final

from bridge.errors import Reason
from bridge.l1.errors import L1Error, L1Reason, L1Unavailable
from bridge.records import RecordReason
from federation.errors import Refused
from federation.journal_errors import JournalReason
from federation.record import RecordRefused
from federation.record_law import RecordLaw
from federation.refusal import RefusalReason, SigningRefused
from federation.signer import SignerReason, SignerRefused
from federation.statement import StatementReason, StatementRefused
from federation.statement_law import StatementLaw
from pegnode.errors import ReasonedError, Refusal
from pegnode.rpc.node_api import NodeUnavailable, UnavailableReason
from pegnode.service.l1_branches import BranchReason
from pegnode.service.resumption import ResumptionReason
from pegnode.signing.port import SignerAway, VoteRefused


class LinkReason(Reason):
    """Why a signer refuses a connection, a question, or a block."""

    WRONG_VERSION = "link-wrong-version"  # The other side speaks another version of these messages.
    WRONG_CHAIN = "link-wrong-chain"  # The functionary is of another chain.
    WRONG_MEMBER = "link-wrong-member"  # The functionary is another member than the keys.
    OCCUPIED = "link-occupied"  # Another functionary is connected: a member runs once.
    GARBLED = "link-garbled"  # What came is no message, or not one that belongs here. The connection ends.
    TOO_LARGE = "link-too-large"  # A frame is longer than any message. The connection ends.
    SLOW = "link-slow"  # A frame was begun and not ended, or nobody takes the answers. The connection ends.
    BUSY = "link-busy"  # As many questions as are looked into at a time are open already.
    BLOCK_UNPROVEN = "link-block-unproven"  # No certificate of this chain's members makes the block final.
    RECORD_UNPROVEN = "link-record-unproven"  # No quorum of the members signed the record.
    BLOCK_NOT_NEXT = "link-block-not-next"  # The block does not follow the newest one known here.
    BLOCK_WAITS = "link-block-waits"  # The signer's own Bitcoin node does not show yet what the block rests on.
    BLOCK_BREAKS_RULE = "link-block-breaks-rule"  # A quorum made final what is invalid here: the signer has halted.
    VOTE_UNPROVEN = "link-vote-unproven"
    """No certificate shows that the vote's view was reached, or for a vote to finalize, that its block is notarized."""
    CONTRADICTED = "link-contradicted"
    """Two certificates were shown that can't both be: more members are faulty than the chain bears. It has halted."""
    STALE = "link-stale"
    """The newest final block that it was shown is too old to sign anything on L1: later ones may be withheld."""


class LinkRefused(Refused):
    """A connection, a question or a block that the signer refuses. reason: LinkReason."""


_ERRORS: Final[tuple[tuple[type[Reason], type[Exception]], ...]] = (
    (RefusalReason, SigningRefused),
    (SignerReason, SignerRefused),
    (StatementReason, StatementRefused),
    (StatementLaw, StatementRefused),
    (JournalReason, VoteRefused),
    (RecordReason, RecordRefused),
    (RecordLaw, RecordRefused),
    (ResumptionReason, Refusal),
    (BranchReason, Refusal),
    (UnavailableReason, NodeUnavailable),
    (L1Reason, L1Unavailable),
    (LinkReason, LinkRefused),
)
_KNOWN: Final[Mapping[str, tuple[Reason, type[Exception]]]] = {
    **{reason.value: (reason, error) for kind, error in _ERRORS for reason in kind},
    LinkReason.STALE.value: (LinkReason.STALE, SigningRefused),
    LinkReason.VOTE_UNPROVEN.value: (LinkReason.VOTE_UNPROVEN, VoteRefused),
}

Telling = Refused | ReasonedError | L1Error
"""The errors that are told to whoever asked. Any other is a defect of the signer."""


def told(error: Telling) -> tuple[str, str]:
    """The reason and the detail that cross the socket."""
    if isinstance(error, Refused | ReasonedError | L1Unavailable):
        return error.reason.value, error.detail
    return L1Reason.FAILING.value, str(error)


def heard(reason: str, detail: str) -> Exception:
    """The error that whoever asked gets. A reason that is unknown here is as good as no answer."""
    known = _KNOWN.get(reason)
    if known is None:
        return SignerAway(f"the signer refuses for a reason that is unknown here, {reason}: {detail}")
    return known[1](known[0], detail)
