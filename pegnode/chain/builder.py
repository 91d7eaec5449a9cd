"""A leader's block: what of the waiting work fits and is valid, under one header."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from bridge.evidence import Evidence
from bridge.state import Anchor
from pegnode.chain.block import Block
from pegnode.chain.facts import L1Facts
from pegnode.chain.rules import ChainRules
from pegnode.chain.state import ChainState, ChainView
from pegnode.errors import Refusal


@dataclass(frozen=True, slots=True)
class Slot:
    """What a proposal is for.

    view: the leader's.  time_ms: the leader's clock; the block's time is raised above the parent's where necessary.
    anchor: the L1 block that the leader would anchor to.
    feerate_sat_kvb: the leader's estimate, for batches; None when it has none.
    include_l1: whether the block may say anything about L1; without it the anchor stays the parent's.
    """

    view: int
    time_ms: int
    anchor: Anchor
    feerate_sat_kvb: int | None
    include_l1: bool


@dataclass(frozen=True, slots=True)
class Candidates:
    """What waits, in order of preference; a transaction after those it spends from. transactions: with witness."""

    evidence: Sequence[Evidence] = ()
    transactions: Sequence[bytes] = ()


@dataclass(frozen=True, slots=True)
class BuiltBlock:
    """A valid block, its state, and the candidates that no block on this parent could hold, with the reason of each."""

    block: Block
    state: ChainState
    rejected_evidence: list[tuple[Evidence, Refusal]] = field(default_factory=list)
    rejected_transactions: list[tuple[bytes, Refusal]] = field(default_factory=list)


def build_block(parent: ChainView, slot: Slot, candidates: Candidates, facts: L1Facts, rules: ChainRules) -> BuiltBlock:
    """The block that the leader of `slot.view` proposes on `parent`."""
    raise NotImplementedError
