"""Blocks that are valid but not final yet, each as an overlay above its parent's state."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from bridge.bitcoin.identifiers import BlockHash
from pegnode.chain.block import Block
from pegnode.chain.state import ChainState, ChainView
from pegnode.storage.store import ChainStore, FinalBlock

NO_CERTIFICATES: Final[Mapping[BlockHash, bytes]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class UnfinalBlock:
    """A valid block above the final tip. data: its encoding."""

    block: Block
    data: bytes
    state: ChainState


class UnfinalBlocks:
    """The valid blocks above the store's tip, and how the best of them become final."""

    def __init__(self, store: ChainStore) -> None:
        self._store = store
        self._blocks: dict[BlockHash, UnfinalBlock] = {}

    def view(self, block_hash: BlockHash) -> ChainView | None:
        """The state after a block: the final tip or a valid block above it; None for any other.

        For use at once: when more becomes final, the view of an earlier moment is of no state that ever was.
        """
        if block_hash == self._store.tip.hash:
            return self._store
        known = self._blocks.get(block_hash)
        return known.state if known else None

    def get(self, block_hash: BlockHash) -> UnfinalBlock | None:
        """A valid block that is not final; None when it isn't known here."""
        return self._blocks.get(block_hash)

    def add(self, unfinal: UnfinalBlock) -> None:
        """Keep a block that was found valid on a parent that `view` knows. Raises ValueError for any other."""
        if self.view(unfinal.block.header.parent) is None:
            raise ValueError(f"block {unfinal.block.header.height} stands on nothing")
        self._blocks[unfinal.state.tip.hash] = unfinal

    def forget(self, block_hash: BlockHash) -> None:
        """Drop a block that nobody needs; it need not be known. What stands on it stays, but can't become final."""
        self._blocks.pop(block_hash, None)

    def reaches_tip(self, block_hash: BlockHash) -> bool:
        """Whether a block is kept, and so is every one between it and the final tip."""
        while (unfinal := self._blocks.get(block_hash)) is not None:
            block_hash = unfinal.block.header.parent
            if block_hash == self._store.tip.hash:
                return True
        return False

    def __len__(self) -> int:
        return len(self._blocks)

    def __iter__(self) -> Iterator[UnfinalBlock]:
        return iter(self._blocks.values())

    def finalize(
        self, block_hash: BlockHash, certificate: bytes, certificates: Mapping[BlockHash, bytes] = NO_CERTIFICATES
    ) -> list[UnfinalBlock]:
        """Commit a block and its ancestors, oldest first; returns those committed, none when it was final already.

        certificates: finalizations of ancestors, as far as they have their own.
        What does not descend from the new tip is forgotten. Raises StorageError, and KeyError unless `reaches_tip`: a
        caller finalizes only what it found valid.
        """
        path = self._path_to(block_hash)
        if path:
            ancestors = [
                FinalBlock(unfinal.state, unfinal.data, certificates.get(unfinal.block.header.hash))
                for unfinal in path[:-1]
            ]
            self._store.commit([*ancestors, FinalBlock(path[-1].state, path[-1].data, certificate)])
            self._keep_descendants()
        return path

    def _path_to(self, block_hash: BlockHash) -> list[UnfinalBlock]:
        path: list[UnfinalBlock] = []
        if self._store.height_of(block_hash) is not None:
            return path
        while block_hash != self._store.tip.hash:
            unfinal = self._blocks[block_hash]
            path.append(unfinal)
            block_hash = unfinal.block.header.parent
        path.reverse()
        return path

    def _keep_descendants(self) -> None:
        """Drop dead branches, and lay the blocks on the new tip over the store, so that final overlays can go."""
        kept: dict[BlockHash, UnfinalBlock] = {}
        for block_hash, unfinal in sorted(self._blocks.items(), key=lambda item: item[1].block.header.height):
            parent = unfinal.block.header.parent
            if parent == self._store.tip.hash:
                kept[block_hash] = replace(unfinal, state=unfinal.state.rebased(self._store))
            elif parent in kept:
                kept[block_hash] = replace(unfinal, state=unfinal.state.rebased(kept[parent].state))
        self._blocks = kept
