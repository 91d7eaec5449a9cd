"""What the consensus machine is told, and what it asks for.

Whoever drives the machine checks every signature before it passes a vote or a certificate on, carries the actions out
in the order given, and reports what came of them as further events.
"""

import enum
from dataclasses import dataclass

from bridge.bitcoin.identifiers import BlockHash
from bridge.errors import Reason
from federation.certificate import Certificate, Vote, VoteKind


class Verdict(enum.Enum):
    """What this member found out about a block."""

    VOTABLE = "votable"
    """Valid, and the vote conditions hold."""
    WITHHELD = "withheld"
    """Valid, but this member's own prudence withholds its vote. Good as a parent once others notarized it."""
    WAITING = "waiting"
    """Not known yet: L1 must say more. Any other verdict may follow."""
    INVALID = "invalid"
    """Breaks a rule of validity, for ever."""


@dataclass(frozen=True, slots=True)
class BlockInfo:
    """What consensus needs of a block.

    view: u64, from 1.  height: u64.  leader: the member who proposed it.
    carries_l1: it holds evidence, a batch, or another anchor than its parent.
    """

    hash: BlockHash
    view: int
    height: int
    parent_hash: BlockHash
    leader: int
    carries_l1: bool = False


@dataclass(frozen=True, slots=True)
class FinalTip:
    """The newest final block that is stored. Genesis is height 0 in view 0."""

    hash: BlockHash
    height: int
    view: int


# Events


@dataclass(frozen=True, slots=True)
class Start:
    """The first event: what storage and journal hold.

    certificate: the finalization of the final tip, None for genesis.  votes: own votes of the journal.
    certificates: the journal's.  blocks: the bodies that the journal holds.
    floor_view: the journal was pruned up to here, so nothing at or below is ever signed again.
    """

    final: FinalTip
    certificate: Certificate | None = None
    votes: tuple[Vote, ...] = ()
    certificates: tuple[Certificate, ...] = ()
    blocks: tuple[BlockInfo, ...] = ()
    floor_view: int = 0


@dataclass(frozen=True, slots=True)
class ProposalReceived:
    """A leader's proposal: its block, its own notarize vote on it, and the certificates that justify its parent."""

    info: BlockInfo
    vote: Vote
    certificates: tuple[Certificate, ...] = ()


@dataclass(frozen=True, slots=True)
class BlockReceived:
    """The answer to RequestBlock: a block whose hash is the one asked for."""

    info: BlockInfo


@dataclass(frozen=True, slots=True)
class BlockBuilt:
    """The answer to Build: a block that is valid and that this member would itself vote for."""

    info: BlockInfo


@dataclass(frozen=True, slots=True)
class BuildFailed:
    """The answer to Build when no block could be built now; the machine asks again after a block interval."""

    view: int


@dataclass(frozen=True, slots=True)
class BlockChecked:
    """The answer to Validate. After WAITING or WITHHELD another verdict on the same block may follow."""

    block_hash: BlockHash
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class VoteReceived:
    """A vote whose signature was checked; this member's own votes come back this way too, once journaled."""

    vote: Vote


@dataclass(frozen=True, slots=True)
class CertificateReceived:
    """A certificate whose signatures were checked."""

    certificate: Certificate


@dataclass(frozen=True, slots=True)
class WorkKnown:
    """Whether this member knows of anything that a block could include."""

    known: bool


@dataclass(frozen=True, slots=True)
class Synced:
    """Storage moved ahead by catching up: this tip is stored, with its finalization."""

    final: FinalTip
    certificate: Certificate


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed: the moment named by WakeAt has come, or any other."""


Event = (
    Start
    | ProposalReceived
    | BlockReceived
    | BlockBuilt
    | BuildFailed
    | BlockChecked
    | VoteReceived
    | CertificateReceived
    | WorkKnown
    | Synced
    | Tick
)


# Actions


@dataclass(frozen=True, slots=True)
class Build:
    """Build a block on `parent_hash` (empty if there is nothing to include); answer BlockBuilt or BuildFailed.

    include_l1: False leaves out evidence, batches and a new anchor.
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
    vote back as VoteReceived. Nothing may leave before the write is synced."""

    kind: VoteKind
    view: int
    block_hash: BlockHash


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
    """This block and its ancestors are final: commit them to storage, then prune the journal to the block's view.

    Every one of them was found valid before.
    """

    info: BlockInfo
    certificate: Certificate


@dataclass(frozen=True, slots=True)
class WakeAt:
    """Feed a Tick at this time; replaces the wake-up asked for before. at_ms None: none is needed."""

    at_ms: int | None


@dataclass(frozen=True, slots=True)
class RequestBlock:
    """Fetch the body of a certified block from any member; answer BlockReceived. May be asked again."""

    block_hash: BlockHash


@dataclass(frozen=True, slots=True)
class Forget:
    """These bodies are needed no longer: stored as final, or dead."""

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


class ConsensusReason(Reason):
    """Why the machine did not use what it was sent."""

    WRONG_EPOCH = "consensus-wrong-epoch"
    UNKNOWN_MEMBER = "consensus-unknown-member"
    VIEW_TOO_FAR = "consensus-view-too-far"
    VIEW_PASSED = "consensus-view-passed"
    NOT_LEADER = "consensus-not-leader"
    PROPOSAL_MISMATCH = "consensus-proposal-mismatch"
    SECOND_PROPOSAL = "consensus-second-proposal"
    EQUIVOCATION = "consensus-equivocation"
    BLOCK_NOT_WANTED = "consensus-block-not-wanted"
    WRONG_HEIGHT = "consensus-wrong-height"
    PARENT_NOT_CERTIFIED = "consensus-parent-not-certified"


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
    | WakeAt
    | RequestBlock
    | Forget
    | ReportEquivocation
    | ReportUnknownOwnVote
    | ReportInvalidCertified
    | Refuse
)
