"""Vote conditions: a member's own prudence about a valid block.

They are examined once, before notarize, and by a leader before it proposes: never for finalize, for a notarized parent
or on sync, and their verdict is never kept as if the block were invalid.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from bridge.bitcoin.identifiers import OutPoint
from bridge.errors import Reason
from pegnode.chain.block import Block
from pegnode.chain.header import Header
from pegnode.chain.rules import ChainRules
from pegnode.chain.state import ChainState
from pegnode.errors import Refusal

MAX_CLOCK_AHEAD_MS = 2_000


class WithheldReason(Reason):
    """Why a member does not vote for a valid block."""

    TIME_AHEAD = "vote-time-ahead"
    HALTED = "vote-halted"
    ANCHOR_SHALLOW = "vote-anchor-shallow"
    DEPOSIT_SPENT = "vote-deposit-spent"
    DEPOSIT_UNKNOWN = "vote-deposit-unknown"
    FEERATE_UNKNOWN = "vote-feerate-unknown"
    FEERATE_FAR = "vote-feerate-far"
    RESERVE_DISAGREES = "vote-reserve-disagrees"


class VoteWithheld(Refusal):
    """A valid block that this member does not vote for now. reason: WithheldReason."""


@dataclass(frozen=True, slots=True)
class VoteFacts:
    """What this member knows besides the chain.

    now_ms: its clock.  anchor_confirmations: of the block's anchor on its own node's active chain; None when unknown.
    unspent: for each outpoint of `claimed_deposits`, whether its own node holds it unspent.
    feerate_estimate_sat_kvb: None when its node has none.  halted: whether it has latched a halt.
    reserve_agrees: whether its own node holds every reserve coin of the ledger.
    """

    now_ms: int
    anchor_confirmations: int | None
    unspent: Mapping[OutPoint, bool] = field(default_factory=dict)
    feerate_estimate_sat_kvb: int | None = None
    halted: bool = False
    reserve_agrees: bool = True


def claimed_deposits(block: Block) -> tuple[OutPoint, ...]:
    """The L1 outpoints that `block` opens as new coins, for `VoteFacts.unspent`."""
    raise NotImplementedError


def check_vote_conditions(block: Block, parent: Header, state: ChainState, facts: VoteFacts, rules: ChainRules) -> None:
    """Raise VoteWithheld when this member should not vote for `block`, whose state is `state`."""
    raise NotImplementedError
