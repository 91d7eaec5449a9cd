"""The store's first start: made whole or not at all, and by one process."""

from pathlib import Path

import pytest

from pegnode.storage.database import Database
from pegnode.storage.errors import StorageError, StorageReason
from tests.support.stores import HOLDING_SCRIPT, fill, open_store, other_process, said

SLOW_SCRIPT = (
    "import shutil, sys\n"
    "remove = shutil.rmtree\n"
    "def remove_when_told(*args, **options):\n"
    "    shutil.rmtree = remove\n"
    "    print('creating', flush=True)\n"
    "    sys.stdin.readline()\n"
    "    remove(*args, **options)\n"
    "shutil.rmtree = remove_when_told\n"
) + HOLDING_SCRIPT
"""Another process that waits to be told before it creates a store."""


def test_creation_that_was_cut_short_is_begun_anew(tmp_path: Path) -> None:
    beside = tmp_path / "chain.new"
    beside.mkdir()
    (beside / "CURRENT").write_text("half of a database")
    (tmp_path / "chain.lock").touch()
    open_store(tmp_path / "chain").close()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["chain"]


def test_creation_is_refused_while_another_process_creates(tmp_path: Path) -> None:
    path = tmp_path / "chain"
    with other_process(SLOW_SCRIPT, path) as other:
        try:
            assert said(other) == "creating"
            with pytest.raises(StorageError) as caught:
                open_store(path)
        finally:
            output, _ = other.communicate("go on\ndone\n", timeout=60)
    assert caught.value.reason is StorageReason.LOCKED
    assert (output, other.returncode) == ("open\n", 0)
    open_store(path).close()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["chain"]


def test_what_another_process_created_meanwhile_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exists = Database.exists
    created: list[Path] = []

    def create_first(path: Path) -> bool:
        if not created:
            created.append(path)
            store = open_store(path)
            fill(store)
            store.close()
            return False
        return exists(path)

    monkeypatch.setattr(Database, "exists", create_first)
    store = open_store(tmp_path / "chain")
    assert store.tip.header.height == 3
    store.close()
