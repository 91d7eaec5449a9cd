"""Blocks above the final tip: what is kept, what becomes final together, and on what the rest then stands."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from bridge.bitcoin.identifiers import BlockHash
from bridge.tables import OverlayTable
from pegnode.chain.state import ChainState
from pegnode.service.unfinal import UnfinalBlock
from pegnode.storage.database import Changes
from pegnode.storage.errors import StorageError, StorageReason
from tests.support.members import Member, MemoryFederation, memory_federation
from tests.support.mini_wallet import MiniWallet

ALICE = MiniWallet("alice")
BOB = MiniWallet("bob")


class Chain:
    """Member 0 alone, with a coin of Alice's."""

    def __init__(self, federation: MemoryFederation) -> None:
        self.federation = federation
        self.member: Member = federation.members[0]
        self.coin = federation.fund_by_hand(self.member, ALICE)
        self.unfinal = self.member.core.unfinal
        self.store = self.member.store

    def keep(self, parent: UnfinalBlock | None, pays: bool = False, **header_changes: object) -> UnfinalBlock:
        """A block on the tip or on another block, kept; one that pays moves Alice's coin to Bob."""
        transactions = [ALICE.pay(self.coin, BOB.script())] if pays else []
        block = self.federation.next_block(parent.state if parent else self.store, *transactions, **header_changes)
        self.unfinal.add(block)
        return block

    def finalize(self, block: UnfinalBlock) -> list[UnfinalBlock]:
        return self.unfinal.finalize(block.block.hash, self.federation.finalization(block))


@asynccontextmanager
async def lone_chain() -> AsyncIterator[Chain]:
    async with memory_federation(0) as federation:
        yield Chain(federation)


def depth(state: ChainState) -> int:
    """How many overlays lie above the store."""
    count = 0
    table: object = state.utxos
    while isinstance(table, OverlayTable):
        count, table = count + 1, table._base
    return count


async def test_block_is_seen_by_its_hash_until_it_is_forgotten(autojump_clock: trio.abc.Clock) -> None:
    async with lone_chain() as chain:
        block = chain.keep(None)
        block_hash = block.block.hash
        assert chain.unfinal.view(chain.store.tip.hash) is chain.store
        assert chain.unfinal.view(block_hash) is block.state
        assert (chain.unfinal.get(block_hash), list(chain.unfinal)) == (block, [block])
        assert chain.unfinal.view(BlockHash(bytes(32))) is None
        assert chain.unfinal.reaches_tip(block_hash)
        assert not chain.unfinal.reaches_tip(chain.store.tip.hash)
        chain.unfinal.forget(block_hash)
        chain.unfinal.forget(block_hash)
        assert (chain.unfinal.view(block_hash), len(chain.unfinal)) == (None, 0)


async def test_block_on_an_unknown_parent_is_not_kept(autojump_clock: trio.abc.Clock) -> None:
    async with lone_chain() as chain:
        parent = chain.federation.next_block(chain.store)
        child = chain.federation.next_block(parent.state)
        with pytest.raises(ValueError, match="stands on nothing"):
            chain.unfinal.add(child)
        assert len(chain.unfinal) == 0


async def test_ancestors_become_final_with_their_descendant_in_one_write(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lone_chain() as chain:
        first = chain.keep(None, pays=True)
        second = chain.keep(first)
        third = chain.keep(second)
        writes: list[Changes] = []
        database = chain.member.disk.database
        write = type(database).write

        def counting(self: object, changes: Changes) -> None:
            writes.append(changes)
            write(database, changes)

        monkeypatch.setattr(type(database), "write", counting)
        assert chain.finalize(second) == [first, second]
        assert len(writes) == 1
        height = second.block.header.height
        assert chain.store.tip.hash == second.block.hash
        assert chain.store.certificate_at(height) == chain.federation.finalization(second)
        assert chain.store.certificate_at(height - 1) is None
        assert chain.finalize(second) == chain.finalize(first) == []
        assert [block.block for block in chain.finalize(third)] == [third.block]


async def test_descendants_are_laid_on_the_store_and_other_branches_dropped(autojump_clock: trio.abc.Clock) -> None:
    async with lone_chain() as chain:
        first = chain.keep(None, pays=True)
        second = chain.keep(first)
        third = chain.keep(second)
        rival = chain.keep(None, time_ms=first.block.header.time_ms + 7)
        above_rival = chain.keep(rival)
        chain.finalize(first)
        assert {block.block.hash for block in chain.unfinal} == {second.block.hash, third.block.hash}
        assert chain.unfinal.view(rival.block.hash) is chain.unfinal.view(above_rival.block.hash) is None
        kept = chain.unfinal.get(third.block.hash)
        assert kept is not None
        assert depth(kept.state) == 2, "two overlays above the store: that of the final block is gone"
        assert depth(third.state) == 3
        assert kept.state.tip == third.state.tip
        assert kept.state.utxos.get(chain.coin[0]) is None
        assert list(kept.state.utxos.items()) == list(third.state.utxos.items())
        assert kept.state.ledger.totals == third.state.ledger.totals
        assert [block.block for block in chain.finalize(third)] == [second.block, third.block]
        assert chain.store.begin_recount().finish().findings == ()


async def test_block_whose_ancestor_was_forgotten_does_not_become_final(autojump_clock: trio.abc.Clock) -> None:
    async with lone_chain() as chain:
        first = chain.keep(None)
        second = chain.keep(first)
        chain.unfinal.forget(first.block.hash)
        assert not chain.unfinal.reaches_tip(second.block.hash)
        tip = chain.store.tip
        with pytest.raises(KeyError):
            chain.finalize(second)
        chain.member.core.finalize(second.block.hash, chain.federation.finalization(second))
        assert chain.store.tip == tip, "it is left to be caught up with"


async def test_write_that_fails_leaves_every_block_as_it_was(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lone_chain() as chain:
        first = chain.keep(None, pays=True)
        second = chain.keep(first)
        tip = chain.store.tip

        def failing(self: object, changes: Changes) -> None:
            raise StorageError(StorageReason.UNUSABLE, "the disk is full")

        monkeypatch.setattr(type(chain.member.disk.database), "write", failing)
        with pytest.raises(StorageError):
            chain.finalize(second)
        monkeypatch.undo()
        assert chain.store.tip == tip
        assert [block.block.hash for block in chain.unfinal] == [first.block.hash, second.block.hash]
        assert chain.finalize(second) == [first, second]
