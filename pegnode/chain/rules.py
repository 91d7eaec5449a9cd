"""Validity: whether a block follows from its parent. A function of the two, the same for ever."""

from pegnode.chain.block import Block
from pegnode.chain.facts import L1Facts
from pegnode.chain.parameters import ChainRules
from pegnode.chain.state import ChainState, ChainView

__all__ = ["ChainRules", "apply_block"]


def apply_block(parent: ChainView, block: Block, facts: L1Facts, rules: ChainRules) -> ChainState:
    """The state after `block`. The parent is left as it was.

    Raises BlockRejected when the block is invalid; L1Waiting or L1Contradicted, which are no verdicts, when it speaks
    about L1 and one's own Bitcoin node does not confirm its anchor.
    """
    raise NotImplementedError
