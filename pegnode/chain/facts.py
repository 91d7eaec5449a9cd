"""What a node's own Bitcoin node says about a block: the only input of validity that is local."""

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from bridge.bitcoin.identifiers import BlockHash
from bridge.evidence import Evidence, L1BlockFact
from pegnode.chain.block import Block
from pegnode.chain.header import Header


class AnchorStatus(enum.Enum):
    """Where the anchor's (height, hash) stands on the active chain of one's own Bitcoin node."""

    ON_CHAIN = "on-chain"
    """The active chain holds this hash at this height, or did until a record abandoned it."""
    UNKNOWN = "unknown"
    """The node has not seen the block, or can't be asked. Nothing follows but waiting."""
    CONTRADICTED = "contradicted"
    """The node knows the block, and its active chain holds another one at that height."""
    WRONG_HEIGHT = "wrong-height"
    """The node knows the block at another height. A block's height never changes: the header is false."""


@dataclass(frozen=True, slots=True)
class L1Facts:
    """Answers about one block.

    anchor: where the block's own anchor stands, if the parent's lies below it. A block that holds a rebase leaves its
    parent's branch of L1, so there the parent's anchor is not asked about.
    blocks: for each hash of `required_facts`, the block's height and transaction count below that anchor; None when it
    does not lie below it, which, below an anchor that is on the chain, is final.

    What lies on a branch that L1 abandoned, and a quorum's record names block by block, was on the chain while it
    counted: it is judged by that record.
    """

    anchor: AnchorStatus
    blocks: Mapping[BlockHash, L1BlockFact | None] = field(default_factory=dict)


NO_FACTS = L1Facts(AnchorStatus.UNKNOWN)
"""Enough for a block that says nothing about L1."""


def required_facts(block: Block) -> tuple[BlockHash, ...]:
    """The L1 blocks that the evidence of `block` speaks about."""
    return blocks_of(block.body.evidence)


def blocks_of(evidence: Iterable[Evidence]) -> tuple[BlockHash, ...]:
    """The L1 blocks that `evidence` speaks about, each once, in order of appearance."""
    return tuple(dict.fromkeys(item.l1_block_hash for item in evidence))


def needs_l1(parent: Header, block: Block) -> bool:
    """Whether the validity of `block` depends on L1: it moves the anchor or holds evidence."""
    return block.header.anchor != parent.anchor or bool(block.body.evidence)
