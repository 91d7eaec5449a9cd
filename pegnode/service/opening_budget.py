"""How much evidence a leader puts into a block.

Each output that is opened costs every member a question to its Bitcoin node and a derived script. What the rules allow
may take a slow machine, or a slow Bitcoin node, longer than a view lasts; then nothing at all would enter. So a leader
begins with few, doubles its share after a block with openings that became final, and halves it after one that did not.
"""

from typing import Final

from bridge.bitcoin.identifiers import BlockHash
from pegnode.storage.store import ChainStore

FIRST_SHARE: Final = 100
"""Ordinary traffic never needs more."""


class OpeningBudget:
    """One leader's share. most: what the rules allow."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._proposed: BlockHash | None = None
        self.openings = min(most, FIRST_SHARE)

    def proposed(self, block_hash: BlockHash) -> None:
        """Note a block with openings that this leader is about to propose."""
        self._proposed = block_hash

    def judge(self, store: ChainStore) -> None:
        """See what became of the last one, before the next is built."""
        if self._proposed is None:
            return
        if store.height_of(self._proposed) is None:
            self.shrink()
        else:
            self.openings = min(self._most, 2 * self.openings)
        self._proposed = None

    def shrink(self) -> None:
        """Take half as many from now on."""
        self.openings = max(1, self.openings // 2)
