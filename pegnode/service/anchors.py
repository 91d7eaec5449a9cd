"""Which L1 block a leader anchors to: the deepest agreement that a quorum of members reports."""

from collections.abc import Awaitable, Callable, Mapping

from bridge.bitcoin.identifiers import BlockHash
from bridge.state import Anchor


async def choose_anchor(
    parent: Anchor,
    reports: Mapping[int, Anchor],
    quorum: int,
    max_step: int,
    active_block: Callable[[int], Awaitable[BlockHash | None]],
) -> Anchor:
    """The highest L1 block that `quorum` members report buried, within `max_step` above the parent's anchor.

    reports: by member, the highest block that its node has at the peg's depth, this member's own among them.
    active_block: the hash at a height of one's own active chain, None above the tip. A report that one's own chain does
    not hold counts for nothing, and an own chain that does not hold the parent's anchor moves nothing. Nothing is asked
    while too few members report anything new.
    """
    newer = [report for report in reports.values() if report.height > parent.height]
    if len(newer) < quorum:
        return parent
    held = {report for report in set(newer) if await active_block(report.height) == report.hash}
    heights = sorted((report.height for report in newer if report in held), reverse=True)
    if len(heights) < quorum or await active_block(parent.height) != parent.hash:
        return parent
    height = min(heights[quorum - 1], parent.height + max_step)
    block_hash = await active_block(height)
    return parent if block_hash is None else Anchor(height, block_hash)
