"""Branches of L1 that records abandoned: what lay below an anchor while it counted, for nodes that never saw it.

Theory of operation
    Blocks of the chain stay what they were when L1 abandons the blocks that they are anchored to. Whoever checks them
    later can't ask a Bitcoin node, which may never have heard of that branch. A rebase names each abandoned block, down
    to the fork. So below an abandoned anchor there are first the blocks of its rebase; below its fork, which a later
    reorg may have abandoned too, those of another rebase; and below the last fork, the *root*, the active chain. What
    of that lies above the root is no ancestor of the anchor.

    That a rebase is true a quorum has signed; nothing here looks at signatures. What two rebases both name is the same,
    for the hash of a block says what lies below it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bridge.bitcoin.identifiers import BlockHash
from bridge.evidence import L1BlockFact
from bridge.records import AbandonedBlock, Rebase
from bridge.state import Anchor


@dataclass(frozen=True, slots=True)
class Ancestry:
    """What lies below an anchor, itself included.

    root: the highest that no rebase abandons.  abandoned: the blocks above it.
    """

    root: Anchor
    abandoned: Mapping[BlockHash, L1BlockFact]

    def fact(self, block_hash: BlockHash, active: L1BlockFact | None) -> L1BlockFact | None:
        """What is to be known of a block below the anchor; None for one that does not lie there.

        active: what one's own Bitcoin node says of it, None unless its active chain holds it.
        """
        if active is not None and active.height <= self.root.height:
            return active
        return self.abandoned.get(block_hash)


class AbandonedBranches:
    """Every branch that a set of rebases abandons."""

    def __init__(self, rebases: Iterable[Rebase] = ()) -> None:
        self._below: dict[Anchor, tuple[Anchor, int]] = {}
        for rebase in rebases:
            self.add(rebase)

    def add(self, rebase: Rebase) -> None:
        """Learn of a rebase that a quorum signed."""
        self.add_branch(rebase.fork, rebase.abandoned)

    def add_branch(self, fork: Anchor, blocks: Iterable[AbandonedBlock]) -> None:
        """Learn of the blocks above `fork`, ascending, which a quorum named or one's own Bitcoin node knows."""
        below = fork
        for height, block in enumerate(blocks, fork.height + 1):
            self._below[Anchor(height, block.hash)] = (below, block.n_tx)
            below = Anchor(height, block.hash)

    def knows(self, anchor: Anchor) -> bool:
        """Whether a rebase abandons this block."""
        return anchor in self._below

    def ancestry(self, anchor: Anchor) -> Ancestry:
        """What lies below a block; of one that no rebase abandons, nothing but the active chain, with it as root."""
        abandoned: dict[BlockHash, L1BlockFact] = {}
        while anchor in self._below:
            below, n_tx = self._below[anchor]
            abandoned[anchor.hash] = L1BlockFact(anchor.height, n_tx)
            anchor = below
        return Ancestry(anchor, abandoned)
