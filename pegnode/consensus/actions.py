"""What the consensus machine asks for.

Whoever drives the machine carries the actions out in the order given, and reports what came of them as events.
"""

from dataclasses import dataclass, field

from bridge.bitcoin.identifiers import BlockHash
from bridge.errors import Reason
from federation.certificate import Certificate, Vote, VoteKind
from pegnode.consensus.events import BlockInfo


@dataclass(frozen=True, slots=True)
class Build:
    """Build a block on `parent_hash` (empty if there is nothing to include); answer BlockBuilt or BuildFailed.

    include_l1: False leaves out records, evidence, batches and a new anchor.
    """

    view: int
    parent_hash: BlockHash
    include_l1: bool


@dataclass(frozen=True, slots=True)
class Validate:
    """Check a block whose parent is final or was found valid; answer BlockChecked. May be asked again."""

    block_hash: BlockHash


@dataclass(frozen=True, slots=True)
class CastVote:
    """Sign, journal with a synced write (for NOTARIZE the block's body in the same write), then broadcast, and feed the
    vote back as VoteReceived. Nothing may leave before the write is synced.

    proof: for a signer that believes nothing: FINALIZE's notarization; else what ended the view before, None in view 1.
    """

    kind: VoteKind
    view: int
    block_hash: BlockHash
    proof: Certificate | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class SendProposal:
    """Send this member's own, journaled proposal and its notarize vote to `members`, with these certificates."""

    view: int
    block_hash: BlockHash
    certificates: tuple[Certificate, ...]
    members: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Broadcast:
    """Send to every other member."""

    votes: tuple[Vote, ...] = ()
    certificates: tuple[Certificate, ...] = ()


@dataclass(frozen=True, slots=True)
class SendTo:
    """Send to one member, who is behind."""

    member: int
    certificates: tuple[Certificate, ...]


@dataclass(frozen=True, slots=True)
class SaveCertificate:
    """Write to the journal. No sync is needed: the next vote's synced write carries it along."""

    certificate: Certificate


@dataclass(frozen=True, slots=True)
class Finalized:
    """This block and its ancestors are final: commit to storage those that are not stored yet.

    Every one of them was found valid before.
    """

    info: BlockInfo
    certificate: Certificate


@dataclass(frozen=True, slots=True)
class PruneJournal:
    """Storage holds the final block of this view: drop from the journal what lies at or below.

    An action, so that no vote asked for earlier meets a journal that is closed to its view.
    """

    final_view: int


@dataclass(frozen=True, slots=True)
class WakeAt:
    """Feed a Tick at this time; replaces the wake-up asked for before."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class RequestBlock:
    """Fetch the body of a certified block, or of its ancestor; answer BlockReceived. May be asked again.

    holders: who signed the certificate. Who notarized a block has it, and its ancestors; of who voted to finalize it,
    one honest member at least.
    """

    block_hash: BlockHash
    holders: tuple[int, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class Forget:
    """These bodies are needed no longer: stored as final, dead, or refused.

    One of them may have come again since; drop those that `Simplex.keeps` denies.
    """

    block_hashes: tuple[BlockHash, ...]


@dataclass(frozen=True, slots=True)
class ReportEquivocation:
    """Two votes of one member that no honest member signs both: proof of a fault."""

    first: Vote
    second: Vote


@dataclass(frozen=True, slots=True)
class ReportUnknownOwnVote:
    """A vote under this member's own key that its journal doesn't hold: the journal was lost, or the key runs twice."""

    vote: Vote


@dataclass(frozen=True, slots=True)
class ReportInvalidCertified:
    """A quorum certified what this member finds invalid: more than f members are faulty, or the rules differ."""

    block_hash: BlockHash
    certificate: Certificate


@dataclass(frozen=True, slots=True)
class ReportConflictingCertificates:
    """Two certificates that can't both be while at most f members are faulty.

    From here on the machine signs nothing and declares nothing final.
    """

    first: Certificate
    second: Certificate


class ConsensusReason(Reason):
    """Why the machine did not use what it was sent."""

    WRONG_EPOCH = "consensus-wrong-epoch"  # A vote or certificate of another epoch.
    UNKNOWN_MEMBER = "consensus-unknown-member"  # A vote of nobody in the membership.
    VIEW_TOO_FAR = "consensus-view-too-far"  # A view further above one's own than votes are kept for.
    VIEW_PASSED = "consensus-view-passed"  # A view that is over, or further below one's own than votes are kept for.
    NOT_LEADER = "consensus-not-leader"  # A proposal whose leader is not the view's.
    PROPOSAL_MISMATCH = "consensus-proposal-mismatch"  # A proposal whose vote is not its leader's vote for it.
    SECOND_PROPOSAL = "consensus-second-proposal"  # Another proposal of one view by its leader.
    EQUIVOCATION = "consensus-equivocation"  # A member's second, different vote of one kind in one view.
    BLOCK_NOT_WANTED = "consensus-block-not-wanted"  # A block that nothing names and nobody asked for.
    WRONG_HEIGHT = "consensus-wrong-height"  # A certified block whose height is not its parent's + 1.


@dataclass(frozen=True, slots=True)
class Refuse:
    """What was received is not used, for this reason. It is no proof of a fault, except where the reason says so."""

    reason: ConsensusReason
    detail: str = ""


Action = (
    Build
    | Validate
    | CastVote
    | SendProposal
    | Broadcast
    | SendTo
    | SaveCertificate
    | Finalized
    | PruneJournal
    | WakeAt
    | RequestBlock
    | Forget
    | ReportEquivocation
    | ReportUnknownOwnVote
    | ReportInvalidCertified
    | ReportConflictingCertificates
    | Refuse
)
