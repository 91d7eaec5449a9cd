"""A member's journal against its chain: an older copy of the journal is noticed."""

from pathlib import Path

import pytest

from bridge.bitcoin.identifiers import BlockHash
from federation.certificate import Certificate, Vote, VoteKind
from federation.journal import Journal
from federation.journal_errors import JournalReason, JournalRefused
from federation.journal_header import JournalIdentity
from pegnode.storage.journal_check import require_memory
from pegnode.storage.store import ChainStore, FinalBlock
from tests.support.memory_entries import MemoryEntries
from tests.support.stores import RULES, next_block, open_store

OWN = 2


def chain_of(path: Path, *signers: tuple[int, ...]) -> ChainStore:
    """A chain with a block in each view from 1 on, finalized by these members; by a descendant where there are none."""
    store = open_store(path)
    blocks: list[FinalBlock] = []
    for members in signers:
        block = next_block(blocks[-1].state if blocks else store)
        header = block.state.tip.header
        certificate = Certificate(
            VoteKind.FINALIZE, 0, header.view, header.hash, tuple((member, bytes(64)) for member in members)
        )
        blocks.append(FinalBlock(block.state, block.block, certificate.encode() if members else None))
    store.commit(blocks)
    return store


def journal(store: ChainStore, floor_view: int, finalized: tuple[int, ...], *, other: int = 0) -> Journal:
    """A journal that remembers having finalized these views; in the view `other`, another block than the final one."""
    opened = Journal.create(MemoryEntries(), JournalIdentity(RULES.chain_id, 0, OWN), floor_view)
    for view in finalized:
        header = store.header_at(view)
        block_hash = BlockHash(b"\x07" * 32) if view == other or header is None else header.hash
        opened.record_vote(Vote(VoteKind.FINALIZE, 0, view, block_hash, OWN, bytes(64)))
    return opened


@pytest.mark.parametrize(("floor_view", "finalized"), [(3, ()), (2, (3,)), (0, (1, 2, 3)), (5, ())])
def test_journal_that_knows_every_own_vote_is_taken(
    tmp_path: Path, floor_view: int, finalized: tuple[int, ...]
) -> None:
    store = chain_of(tmp_path / "chain", (0, 1, 2), (0, 1, 2), (0, 1, 2))
    require_memory(journal(store, floor_view, finalized), store)
    store.close()


@pytest.mark.parametrize(("floor_view", "finalized"), [(0, ()), (2, ()), (0, (1,)), (0, (3,))])
def test_journal_that_lacks_an_own_vote_is_refused(tmp_path: Path, floor_view: int, finalized: tuple[int, ...]) -> None:
    store = chain_of(tmp_path / "chain", (0, 1, 2), (), (0, 1, 2), (0, 1, 3))
    with pytest.raises(JournalRefused) as caught:
        require_memory(journal(store, floor_view, finalized), store)
    assert caught.value.reason is JournalReason.BEHIND
    store.close()


def test_journal_that_remembers_another_block_is_refused(tmp_path: Path) -> None:
    store = chain_of(tmp_path / "chain", (0, 1, 2), (0, 1, 2), (0, 1, 2))
    with pytest.raises(JournalRefused) as caught:
        require_memory(journal(store, 0, (1, 2, 3), other=2), store)
    assert caught.value.reason is JournalReason.BEHIND
    store.close()


def test_journal_that_has_forgotten_is_not_asked(tmp_path: Path) -> None:
    store = chain_of(tmp_path / "chain", (0, 1, 2))
    forgotten = Journal.create(MemoryEntries(), JournalIdentity(RULES.chain_id, 0, OWN), forgotten=True)
    require_memory(forgotten, store)
    store.close()
