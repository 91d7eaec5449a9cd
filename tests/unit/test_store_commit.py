"""The store: what becomes final is written whole or not at all, whatever happens."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bridge.ledger import ledger_root
from pegnode.storage.database import Changes, Database
from pegnode.storage.errors import StorageError, StorageReason
from pegnode.storage.store import ChainStore, FinalBlock
from tests.support.peg import ALICE, BOB, START_HEIGHT, outpoint
from tests.support.stores import (
    BURN,
    CLAIM,
    DEPOSIT,
    DEPOSIT_SATS,
    PAYMENT,
    anchored,
    burning,
    contents,
    deposit,
    extend,
    next_block,
    open_store,
    transfer,
)


def test_commit_refuses_a_block_that_does_not_follow(store: ChainStore) -> None:
    first = next_block(store)
    rival = next_block(store, deposit(DEPOSIT, DEPOSIT_SATS, ALICE))
    third = next_block(next_block(first.state).state)
    store.commit([first])
    before = contents(store)
    for wrong in (first, rival, third):
        with pytest.raises(StorageError) as caught:
            store.commit([wrong])
        assert caught.value.reason is StorageReason.NOT_NEXT
    assert contents(store) == before


def test_commit_refuses_bytes_of_another_block(store: ChainStore) -> None:
    final = next_block(store)
    rival = next_block(store, deposit(DEPOSIT, DEPOSIT_SATS, ALICE))
    with pytest.raises(StorageError) as caught:
        store.commit([FinalBlock(final.state, rival.block)])
    assert caught.value.reason is StorageReason.NOT_NEXT
    assert store.tip.header.height == 0


def test_commit_that_fails_leaves_the_store_as_it_was(store: ChainStore, monkeypatch: pytest.MonkeyPatch) -> None:
    first = next_block(store, deposit(DEPOSIT, DEPOSIT_SATS, ALICE))
    second = next_block(first.state, transfer(PAYMENT), burning(PAYMENT, 1, BURN))
    before = contents(store)

    def failing(database: Database, changes: Changes) -> None:
        raise StorageError(StorageReason.UNUSABLE, "the disk is full")

    monkeypatch.setattr(Database, "write", failing)
    with pytest.raises(StorageError) as caught:
        store.commit([first, second])
    assert caught.value.reason is StorageReason.UNUSABLE
    assert contents(store) == before
    monkeypatch.undo()
    store.commit([first, second])
    assert CLAIM not in store.utxos
    assert store.tip == second.state.tip


def test_blocks_that_become_final_together_are_written_at_once(
    store: ChainStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An ancestor without a certificate of its own must never be the tip on disk: a restart could not prove it final.
    first = next_block(store, deposit(DEPOSIT, DEPOSIT_SATS, ALICE))
    second = next_block(first.state, transfer(PAYMENT), burning(PAYMENT, 1, BURN))
    third = next_block(second.state, anchored(START_HEIGHT + 2), deposit(outpoint(2), 700_000, BOB))
    write, written = Database.write, []

    def counting(database: Database, changes: Changes) -> None:
        written.append(changes)
        write(database, changes)

    monkeypatch.setattr(Database, "write", counting)
    store.commit([FinalBlock(first.state, first.block), FinalBlock(second.state, second.block), third])
    assert len(written) == 1
    assert store.tip == third.state.tip
    assert ledger_root(store.ledger) == store.tip.header.ledger_root
    assert store.begin_recount().finish().findings == ()
    together = contents(store)
    store.close()
    reopened = open_store(store.path)
    assert contents(reopened) == together
    reopened.close()


def test_commit_refuses_blocks_that_nothing_proves_final(store: ChainStore) -> None:
    first = next_block(store, deposit(DEPOSIT, DEPOSIT_SATS, ALICE))
    before = contents(store)
    with pytest.raises(StorageError) as caught:
        store.commit([FinalBlock(first.state, first.block)])
    assert caught.value.reason is StorageReason.UNPROVEN
    assert contents(store) == before
    assert store.block_at(1) is None


def test_commit_refuses_all_blocks_when_one_does_not_follow(store: ChainStore) -> None:
    first = next_block(store)
    stranger = next_block(store, deposit(DEPOSIT, DEPOSIT_SATS, ALICE))
    before = contents(store)
    with pytest.raises(StorageError) as caught:
        store.commit([first, stranger])
    assert caught.value.reason is StorageReason.NOT_NEXT
    assert contents(store) == before


def test_process_killed_between_batches_leaves_the_last_whole_block(tmp_path: Path) -> None:
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from pegnode.storage.database import Database\n"
        "from tests.support.peg import ALICE, outpoint\n"
        "from tests.support.stores import deposit, next_block, open_store\n"
        "store = open_store(Path(sys.argv[1]))\n"
        "first = next_block(store, deposit(outpoint(1), 5_000_000, ALICE))\n"
        "second = next_block(first.state, deposit(outpoint(2), 5_000_000, ALICE))\n"
        "write, written = Database.write, []\n"
        "def dying(database, changes):\n"
        "    if written:\n"
        "        os._exit(9)\n"
        "    written.append(1)\n"
        "    write(database, changes)\n"
        "Database.write = dying\n"
        "store.commit([first])\n"
        "store.commit([second])\n"
    )
    root = Path(__file__).parents[2]
    died = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        check=False,
    )
    assert died.returncode == 9
    store = open_store(tmp_path)
    assert store.tip.header.height == 1
    assert [key for key, _ in store.ledger.coins.items()] == [outpoint(1)]
    assert store.begin_recount().finish().findings == ()
    extend(store, deposit(outpoint(2), 5_000_000, ALICE))
    assert store.tip.header.height == 2
    store.close()
