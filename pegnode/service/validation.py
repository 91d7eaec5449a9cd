"""From a block to the state after it, on a chain that moves on while the Bitcoin node is asked."""

from pegnode.chain.block import Block
from pegnode.chain.rules import apply_block, check_body_form, check_header
from pegnode.service.core import NodeCore
from pegnode.service.unfinal import UnfinalBlock


async def validate(core: NodeCore, block: Block, data: bytes) -> bool:
    """Judge a block, encoded as `data`, by all rules; whether it is among the unfinal ones now.

    False when its parent is not known here, or no longer, because another branch became final.
    Raises BlockRejected, which is for ever; L1Waiting, L1Contradicted or L1Error, which are not.
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
            core.unfinal.add(UnfinalBlock(block, data, apply_block(parent, block, facts, rules)))
    return True
