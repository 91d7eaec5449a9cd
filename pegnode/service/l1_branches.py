"""Reads the blocks of L1's branches, the abandoned and the active one, for what they show of reserve coins."""

from collections.abc import Collection

import trio

from bridge.bitcoin.block import parse_block_spends
from bridge.bitcoin.identifiers import OutPoint
from bridge.errors import Reason
from bridge.l1.client import L1Client
from bridge.l1.errors import L1RpcError, RpcCode
from bridge.state import Anchor
from pegnode.errors import Refusal
from pegnode.resume.traces import BlockSpends, Traces
from pegnode.resume.words import block_text
from pegnode.service.abandoned_branch import AbandonedBranch, abandoned_branch


class BranchReason(Reason):
    """Why one's own Bitcoin node can't tell what is needed. Another member's may."""

    UNKNOWN = "branch-unknown"
    """It never had all of it, for it was away or was set up since; or it is longer than a record may name."""
    BLOCK_ABSENT = "branch-block-absent"
    """It no longer has a block that is needed: it is pruned."""


async def known_branch(client: L1Client, anchor: Anchor) -> AbandonedBranch | None:
    """The branch that ends in `anchor`; None while that is on the active chain. Raises Refusal (UNKNOWN), L1Error."""
    if await client.block_hash(anchor.height) == anchor.hash:
        return None
    branch = await abandoned_branch(client, anchor)
    if branch is None:
        what = f"the Bitcoin node here can't tell of the branch of L1 that ended in block {block_text(anchor)}"
        todo = "a member whose Bitcoin node had all of it can draw up and sign a plan, and this one can't"
        raise Refusal(BranchReason.UNKNOWN, f"{what}; {todo}")
    return branch


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
