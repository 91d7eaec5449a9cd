"""From a block to the state after it, on a chain that moves on while the Bitcoin node is asked."""

from typing import Final

from bridge.evidence import EvidenceReason
from pegnode.chain.block import Block
from pegnode.chain.facts import L1Facts
from pegnode.chain.parameters import ChainRules
from pegnode.chain.rules import apply_block, check_body_form, check_header
from pegnode.chain.state import ChainState, ChainView
from pegnode.chain.verdicts import BlockRejected, HeaderReason, L1Contradicted
from pegnode.service.core import NodeCore
from pegnode.service.unfinal import UnfinalBlock

RESTS_ON_L1: Final = frozenset(
    {
        HeaderReason.ANCHOR_WRONG_HEIGHT,
        EvidenceReason.WRONG_BLOCK,
        EvidenceReason.WRONG_HEIGHT,
        EvidenceReason.PROOF_COUNT_MISMATCH,
    }
)
"""Rules whose breach follows from an answer of one's own Bitcoin node, which may be another one a moment later."""


async def validate(core: NodeCore, block: Block, data: bytes) -> bool:
    """Judge a block, encoded as `data`, by all rules; whether it is among the unfinal ones now.

    False when its parent is not known here, or no longer, because another branch became final.
    Raises BlockRejected, which is for ever; L1Waiting, L1Contradicted or L1Error, which are not. What this node's
    Bitcoin node alone speaks against is contradicted, never rejected: its answers are no part of the block.
    """
    block_hash, rules = block.header.hash, core.rules
    parent = core.unfinal.view(block.header.parent)
    if parent is None:
        return False
    if core.unfinal.get(block_hash) is None:
        # What needs no Bitcoin node first: nobody makes it answer questions about a block that breaks these.
        check_header(parent.tip.header, block.header, rules)
        check_body_form(block, rules)
        facts = await core.questions.facts(parent.tip.header, block)
        # The views of before the questions may be of a state that has changed under them.
        parent = core.unfinal.view(block.header.parent)
        if parent is None:
            return False
        if core.unfinal.get(block_hash) is None:
            core.unfinal.add(UnfinalBlock(block, data, _apply(parent, block, facts, rules)))
    return True


def _apply(parent: ChainView, block: Block, facts: L1Facts, rules: ChainRules) -> ChainState:
    try:
        return apply_block(parent, block, facts, rules)
    except BlockRejected as rejected:
        if rejected.reason in RESTS_ON_L1 or rejected.cause in RESTS_ON_L1:
            raise L1Contradicted(f"one's own Bitcoin node says otherwise: {rejected}") from rejected
        raise
