"""What the consensus machine is told.

Whoever drives the machine checks every signature before it passes a vote or a certificate on.
"""

import enum
from dataclasses import dataclass

from bridge.bitcoin.identifiers import BlockHash
from federation.certificate import Certificate, Vote


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
    carries_l1: it holds a record, evidence, a batch, or another anchor than its parent.
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


@dataclass(frozen=True, slots=True)
class Start:
    """The first event: what storage and journal hold.

    certificate: the finalization of the final tip, None for genesis.  votes: own votes of the journal.
    certificates: the journal's.  blocks: the bodies that the journal holds.
    floor_view: the journal was pruned up to here, so nothing at or below is ever signed again.
    stopped: certificates that contradict each other were seen in an earlier life.
    """

    final: FinalTip
    certificate: Certificate | None = None
    votes: tuple[Vote, ...] = ()
    certificates: tuple[Certificate, ...] = ()
    blocks: tuple[BlockInfo, ...] = ()
    floor_view: int = 0
    stopped: bool = False


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
