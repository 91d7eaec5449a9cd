"""From a block to the state after it, on a chain that moves on while the Bitcoin node is asked.

Theory of operation. A block at all caps takes seconds to check, on the one thread that also votes. So it is checked in
slices, between which others have their turn. Nothing is judged by a state that has moved on meanwhile: after each
pause the view of the parent must be the same object as before, which it is exactly as long as nothing that it lies
over became final; otherwise the block is checked anew, from the view that there is then.
"""

from typing import Final

from bridge.evidence import EvidenceReason
from pegnode.chain.block import Block
from pegnode.chain.facts import L1Facts
from pegnode.chain.rules import apply_in_steps, check_body_form, check_header
from pegnode.chain.state import ChainState, ChainView
from pegnode.chain.verdicts import BlockRejected, HeaderReason, L1Contradicted
from pegnode.service.core import NodeCore
from pegnode.service.slices import in_slices
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
    known = core.unfinal.get(block_hash)
    if known is None or known.data != data:  # a verdict is of all of the bytes: another body is not the header's
        # What needs no Bitcoin node first: nobody makes it answer questions about a block that breaks these.
        check_header(parent.tip.header, block.header, rules)
        check_body_form(block, rules)
        facts = await core.questions.facts(parent.tip.header, block, core.records.branches)
        # The views of before the questions may be of a state that has changed under them.
        while (parent := core.unfinal.view(block.header.parent)) is not None:
            state = await _apply(core, parent, block, facts)
            if state is None:
                continue
            if core.unfinal.get(block_hash) is None:
                core.unfinal.add(UnfinalBlock(block, data, state))
            return True
        return False
    return True


async def validate_final(core: NodeCore, block: Block, data: bytes) -> bool:
    """As `validate`, for a block that is certified to be final.

    If L1 left its anchor since, and no record says what lay below, one's own Bitcoin node may know that branch: it
    serves as well. Else who was away when L1 left could neither follow nor sign the record that the others wait for.
    """
    try:
        return await validate(core, block, data)
    except L1Contradicted:
        branch = await core.questions.left_branch(block.header.anchor)
        if branch is None or core.records.branches.knows(block.header.anchor):
            raise
        core.records.branches.add_branch(branch.fork, branch.blocks)
    return await validate(core, block, data)


async def _apply(core: NodeCore, parent: ChainView, block: Block, facts: L1Facts) -> ChainState | None:
    """The state after a block; None when the parent's state changed meanwhile."""
    try:
        steps = apply_in_steps(parent, block, facts, core.rules)
        return await in_slices(steps, lambda: core.unfinal.view(block.header.parent) is parent)
    except BlockRejected as rejected:
        if rejected.reason in RESTS_ON_L1 or rejected.cause in RESTS_ON_L1:
            raise L1Contradicted(f"one's own Bitcoin node says otherwise: {rejected}") from rejected
        raise
