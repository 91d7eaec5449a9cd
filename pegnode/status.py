"""The state of a running node, as values: its service finds them, the RPC and `peg status` show them. (pure)"""

from dataclasses import dataclass
from typing import Literal

from bridge.bitcoin.identifiers import BlockHash
from bridge.l1.states import L1Health
from federation.certificate import VoteKind
from pegnode.halts import LatchedFinding


@dataclass(frozen=True, slots=True)
class SeenVote:
    """A member's vote of its highest view. seen_ms: when it was heard, the last time."""

    view: int
    kind: VoteKind
    seen_ms: int


@dataclass(frozen=True, slots=True)
class Stall:
    """Why the chain stands, or this node behind it. since_ms: since when it does.  why: for people, in one line."""

    since_ms: int
    why: str


@dataclass(frozen=True, slots=True)
class L1Status:
    """The node's view of its own Bitcoin node."""

    health: L1Health
    version: str
    """The subversion string, e.g. "/Satoshi:29.1.0/"; empty until it was reached once."""
    height: int | None
    block_hash: BlockHash | None
    feerate_sat_kvb: int | None
    """The present estimate within the peg's floor and ceiling; None while there is none."""


@dataclass(frozen=True, slots=True)
class MemberStatus:
    """What this node sees of one member of the federation."""

    member: int
    connected: bool
    """True for the node itself."""
    missing_since_ms: int | None
    """Since when it is not connected, at the earliest since this node's start, Unix time; None while it is."""
    round_trip_ms: float | None
    """Smoothed; None for the node itself, while it is not connected, and before the first answer."""
    last_vote: SeenVote | None
    """Of its highest view, since the start; None on a node without keys, which hears no votes."""
    software: str
    """What it calls itself, unverified, or called itself when it was last connected; empty if that is not known."""
    final_height: int | None
    """The highest final height it has shown; None while it is not connected."""
    l1_buried_height: int | None
    """The highest L1 block that its Bitcoin node, it says, has at the peg's depth."""
    missed_turn: bool
    """It was to propose and did not, when last it led; nothing was heard of it since."""
    equivocations: int
    """How many pairs of votes that exclude each other are kept: proofs that it is faulty."""

    @property
    def last_vote_view(self) -> int | None:
        """The highest view in which a vote of this member was seen since the start."""
        return None if self.last_vote is None else self.last_vote.view


@dataclass(frozen=True, slots=True)
class JournalStatus:
    """A member's memory of what it signed.

    state: "renewing" while it signs nothing, for its journal was lost; "behind" when it signs nothing more, for a vote
    of its own was found that the journal lacks.
    floor_view: nothing at or below is ever signed again.  newest_vote_view: None before the first vote above it.
    heard_from: of the `needed` other members that have to tell how far views have come, while it is renewed.
    """

    state: Literal["kept", "renewing", "behind"]
    floor_view: int
    newest_vote_view: int | None
    heard_from: int
    needed: int
    waits_for: tuple[int, ...] = ()
    """The members whose answer could end the wait before it votes, as it does after each start; none once it votes."""


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """The state of the running node."""

    version: str
    member: int | None
    """This node's index in the federation; None for an observer."""
    started_ms: int
    """Unix time in milliseconds."""
    uptime_ms: int
    view: int
    leader: int
    """The member that leads `view`."""
    best_known_height: int
    """The highest final height that any peer has shown; at least our own."""
    syncing: bool
    l1: L1Status
    members: tuple[MemberStatus, ...]
    halts: tuple[LatchedFinding, ...]
    """Why the node is halted; empty when it is not."""
    waiting_for: tuple[str, ...]
    """What the node waits for at present, for people; empty when nothing is missing."""
    final_age_ms: int
    """How old the newest final block is, by its own time and this node's clock."""
    timeout_ms: int
    """How long a fresh view may take once a block is due, by what this node measured; of the genesis without keys."""
    journal: JournalStatus | None
    """None on a node without keys."""
    key_alarm: str | None
    """Why this member's own vote key must be taken for stolen, or for running twice, for people; None if not."""
    stall: Stall | None
    """Why no block becomes final although one is due, as far as this node can tell; None while the chain goes on."""

    @property
    def halt_findings(self) -> tuple[str, ...]:
        """Why the node is halted, for people."""
        return tuple(item.detail for item in self.halts)
