"""Reads the blocks of L1's branches, the abandoned and the active one, for what they show of reserve coins."""

from collections.abc import Collection
from typing import NamedTuple

import trio

from bridge.bitcoin.block import parse_block_spends
from bridge.bitcoin.identifiers import OutPoint
from bridge.errors import Reason
from bridge.l1.client import L1Client
from bridge.l1.errors import L1RpcError, RpcCode
from bridge.records import MAX_ABANDONED_BLOCKS, AbandonedBlock
from bridge.state import Anchor
from pegnode.errors import Refusal
from pegnode.resume.traces import BlockSpends, Traces
from pegnode.resume.words import block_text


class BranchReason(Reason):
    """Why one's own Bitcoin node can't tell what is needed. Another member's may."""

    UNKNOWN = "branch-unknown"
    """It never had all of it, for it was away or was set up since; or it is longer than a record may name."""
    BLOCK_ABSENT = "branch-block-absent"
    """It no longer has a block that is needed: it is pruned."""


class AbandonedBranch(NamedTuple):
    """fork: the last block of it and of the active chain.  blocks: those above, ascending."""

    fork: Anchor
    blocks: tuple[AbandonedBlock, ...]


async def known_branch(client: L1Client, anchor: Anchor) -> AbandonedBranch | None:
    """The branch that ends in `anchor`; None while that is on the active chain. Raises Refusal (UNKNOWN), L1Error."""
    if await client.block_hash(anchor.height) == anchor.hash:
        return None
    return await abandoned_branch(client, anchor)


async def abandoned_branch(client: L1Client, tip: Anchor) -> AbandonedBranch:
    """The branch that ends in `tip`, which is not on the active chain. Raises Refusal (UNKNOWN), L1Error."""
    blocks: list[AbandonedBlock] = []
    block_hash = tip.hash
    while len(blocks) <= MAX_ABANDONED_BLOCKS:
        header = await client.block_header(block_hash)
        if header is None or header.height != tip.height - len(blocks):
            break
        if header.confirmations > 0 and blocks:
            return AbandonedBranch(Anchor(header.height, block_hash), tuple(reversed(blocks)))
        if header.confirmations > 0 or header.previous_hash is None or header.n_tx < 1:
            break
        blocks.append(AbandonedBlock(block_hash, header.n_tx))
        block_hash = header.previous_hash
    what = f"the Bitcoin node here can't tell of the branch of L1 that ended in block {block_text(tip)}"
    todo = "a member whose Bitcoin node had all of it can draw up and sign a plan, and this one can't"
    raise Refusal(BranchReason.UNKNOWN, f"{what}; {todo}")


async def trace_coins(
    client: L1Client, coins: Collection[OutPoint], branch: AbandonedBranch | None, first_height: int, last_height: int
) -> Traces:
    """What the blocks of a branch, and the active chain's from one height to another, show of some coins.

    Raises Refusal (BLOCK_ABSENT), L1Error.
    """
    traces = Traces(coins)
    if not coins:
        return traces
    if branch is not None:
        for height, block in reversed(tuple(enumerate(branch.blocks, branch.fork.height + 1))):
            traces.read_abandoned(height, await _spends(client, Anchor(height, block.hash)))
    for height in range(first_height, last_height + 1):
        block_hash = await client.block_hash(height)
        if block_hash is not None:
            place = Anchor(height, block_hash)
            traces.read_active(place, await _spends(client, place))
    return traces


async def _spends(client: L1Client, block: Anchor) -> BlockSpends:
    """What the transactions of a block spend. Raises Refusal (BLOCK_ABSENT), L1Error."""
    try:
        data = await client.block(block.hash)
    except L1RpcError as error:
        if error.code not in (RpcCode.BLOCK_ABSENT, RpcCode.NOT_FOUND):
            raise
        raise Refusal(BranchReason.BLOCK_ABSENT, f"L1 block {block_text(block)}") from error
    return await trio.to_thread.run_sync(parse_block_spends, data)
