"""The store: what it refuses to open, with its reason, and that the refusal changes nothing."""

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from bridge.bitcoin.hashes import sha256
from federation import rocks
from pegnode.storage import store as store_module
from pegnode.storage.database import Changes, Database
from pegnode.storage.errors import StorageError, StorageReason
from pegnode.storage.keys import Place, height_key
from pegnode.storage.store import FAMILIES, META, ChainStore
from tests.support.halts import latched
from tests.support.peg import ALICE
from tests.support.stores import (
    CLAIM,
    DEPOSIT,
    DEPOSIT_SATS,
    HOLDING_SCRIPT,
    RULES,
    contents,
    deposit,
    extend,
    files,
    fill,
    make_rules,
    next_block,
    open_store,
    other_process,
    said,
)


def refusal(path: Path, name: str = "a chain") -> StorageReason:
    """The reason for which the directory is not opened; checked: that nothing in it has changed, nor beside it."""
    before, beside = files(path), sorted(path.parent.iterdir())
    with pytest.raises(StorageError) as caught:
        ChainStore.open(path, make_rules(name)).close()
    assert str(path) in caught.value.detail
    assert files(path) == before
    assert sorted(path.parent.iterdir()) == beside
    return caught.value.reason


def flip(file: Path, position: int) -> None:
    """Change one byte of a file."""
    data = bytearray(file.read_bytes())
    data[position] ^= 0x41
    file.write_bytes(bytes(data))


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """What a killed process leaves: three blocks, all of them in the log that RocksDB reads first."""
    store = open_store(tmp_path / "chain")
    fill(store)
    left = tmp_path / "left" / "chain"
    shutil.copytree(tmp_path / "chain", left, ignore=shutil.ignore_patterns("LOCK"))
    store.close()
    return left


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """What a process that ended in order leaves: three blocks in sorted files."""
    store = open_store(tmp_path / "stopped" / "chain")
    fill(store)
    store.close()
    return store.path


def test_open_store_locks_its_directory_and_close_frees_it(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    extend(store, deposit(DEPOSIT, DEPOSIT_SATS, ALICE))
    next(store.index.script_history(sha256(ALICE)))
    next(store.utxos.items())
    assert refusal(tmp_path) is StorageReason.LOCKED
    store.close()
    store.close()
    open_store(tmp_path).close()


def test_store_of_another_process_is_locked(tmp_path: Path) -> None:
    path = tmp_path / "chain"
    with other_process(HOLDING_SCRIPT, path) as other:
        assert said(other) == "open"
        assert refusal(path) is StorageReason.LOCKED
        other.communicate("done\n", timeout=20)
    open_store(path).close()


def test_refused_store_frees_its_directory(tmp_path: Path) -> None:
    open_store(tmp_path).close()
    assert refusal(tmp_path, "another chain") is StorageReason.WRONG_CHAIN
    open_store(tmp_path).close()


def test_closed_store_says_so(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    final = next_block(store)
    store.close()
    for use in (lambda: store.block_at(0), lambda: list(store.utxos.items()), lambda: store.commit([final])):
        with pytest.raises(StorageError) as caught:
            use()
        assert caught.value.reason is StorageReason.CLOSED


def test_open_refuses_a_newer_schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "SCHEMA_VERSION", store_module.SCHEMA_VERSION + 1)
    open_store(tmp_path).close()
    monkeypatch.undo()
    assert refusal(tmp_path) is StorageReason.NEWER_SCHEMA


def test_open_refuses_a_family_of_a_later_release(tmp_path: Path) -> None:
    Database.create(tmp_path / "chain", (*FAMILIES, "what_we_will_invent"), Changes())
    assert refusal(tmp_path / "chain") is StorageReason.NEWER_SCHEMA


@pytest.mark.parametrize(
    ("family", "key", "value"),
    [
        (META, b"schema", height_key(0)),
        (META, b"schema", height_key(store_module.SCHEMA_VERSION - 1)),
        (META, b"tip", b"no header"),
        (META, b"totals", b"no totals"),
        (META, b"schema", None),
        ("coins", DEPOSIT.encode(), b"no coin"),
        ("coins", DEPOSIT.encode(), None),
        ("blocks", height_key(0), None),
        ("blocks", height_key(3), None),
        ("blocks", height_key(3), b"no block"),
    ],
)
def test_open_refuses_damaged_contents(tmp_path: Path, family: str, key: bytes, value: bytes | None) -> None:
    store = open_store(tmp_path)
    fill(store)
    store.close()
    database = Database.open(tmp_path, FAMILIES)
    changes = Changes()
    if value is None:
        changes.delete(family, key)
    else:
        changes.put(family, key, value)
    database.write(changes)
    database.close()
    assert refusal(tmp_path) is StorageReason.DAMAGED


def test_damaged_entry_is_the_disks_fault(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    fill(store)
    store.close()
    database = Database.open(tmp_path, FAMILIES)
    changes = Changes()
    changes.put("entered", DEPOSIT.encode(), b"odd")
    changes.put("utxos", CLAIM.encode(), b"odd")
    changes.put("transactions", Place(1, 0).encode(), b"odd")
    database.write(changes)
    database.close()
    store = open_store(tmp_path)
    for read in (
        lambda: store.ledger.entered.get(DEPOSIT),
        lambda: list(store.utxos.items()),
        lambda: store.index.transaction(CLAIM.txid),
        lambda: store.begin_recount().finish(),
    ):
        with pytest.raises(StorageError) as caught:
            read()
        assert caught.value.reason is StorageReason.DAMAGED
    store.close()


@pytest.mark.parametrize("part", [0.0, 0.25, 0.5, 0.75, 0.999])
def test_open_refuses_a_log_with_a_flipped_byte(killed: Path, part: float) -> None:
    # RocksDB's own default is to drop what follows the damage, and to go on as if it had never been.
    [log] = [file for file in killed.glob("*.log") if file.stat().st_size]
    flip(log, int(part * log.stat().st_size))
    assert refusal(killed) is StorageReason.DAMAGED


def read_everything(path: Path) -> None:
    """Every entry of every family."""
    database = Database.look(path, FAMILIES)
    try:
        for family in FAMILIES:
            list(database.scan(family))
    finally:
        database.close()


@pytest.mark.parametrize("part", [0.0, 0.3, 0.6, 0.95])
def test_reading_refuses_sorted_files_with_a_flipped_byte(stopped: Path, part: float) -> None:
    for file in sorted(stopped.glob("*.sst")):
        original = file.read_bytes()
        flip(file, int(part * len(original)))
        before = files(stopped)
        with pytest.raises(StorageError) as caught:
            read_everything(stopped)
        assert caught.value.reason is StorageReason.DAMAGED, file.name
        assert files(stopped) == before
        file.write_bytes(original)
    open_store(stopped).close()


@pytest.mark.parametrize("pattern", ["CURRENT", "MANIFEST-*"])
@pytest.mark.parametrize("part", [0.0, 0.3, 0.6, 0.999])
def test_open_refuses_a_catalogue_with_a_flipped_byte(stopped: Path, pattern: str, part: float) -> None:
    [file] = stopped.glob(pattern)
    flip(file, int(part * file.stat().st_size))
    assert refusal(stopped) is StorageReason.DAMAGED


@pytest.mark.parametrize("pattern", ["CURRENT", "MANIFEST-*", "*.sst"])
def test_open_refuses_a_directory_without_a_file(stopped: Path, pattern: str) -> None:
    next(iter(stopped.glob(pattern))).unlink()
    assert refusal(stopped) is StorageReason.DAMAGED


@pytest.mark.parametrize("pattern", ["CURRENT", "MANIFEST-*", "*.sst"])
@pytest.mark.parametrize("part", [0.0, 0.3, 0.9])
def test_open_refuses_truncated_files(stopped: Path, pattern: str, part: float) -> None:
    file = max(stopped.glob(pattern), key=lambda each: each.stat().st_size)
    file.write_bytes(file.read_bytes()[: int(part * file.stat().st_size)])
    assert refusal(stopped) is StorageReason.DAMAGED


def test_catalogue_cut_anywhere_is_refused_or_of_one_moment(stopped: Path) -> None:
    # RocksDB takes a catalogue that lost its end for a shorter one, in which some families miss their newest entries.
    [catalogue] = stopped.glob("MANIFEST-*")
    whole, outcomes = catalogue.read_bytes(), set()
    for size in range(0, len(whole), 97):
        catalogue.write_bytes(whole[:size])
        before = files(stopped)
        outcomes.add(outcome(stopped))
        assert files(stopped) == before
    assert outcomes <= {StorageReason.DAMAGED, 0, 3}
    assert StorageReason.DAMAGED in outcomes


@pytest.mark.parametrize("part", [0.0, 0.3, 0.6, 0.9, 0.999])
def test_log_torn_at_its_end_leaves_the_last_whole_block(killed: Path, part: float) -> None:
    # A power failure may tear what was never synced. Where it tears can't be told from an older copy of the whole.
    [log] = [file for file in killed.glob("*.log") if file.stat().st_size]
    log.write_bytes(log.read_bytes()[: int(part * log.stat().st_size)])
    assert outcome(killed) in (0, 1, 2, StorageReason.DAMAGED)


def outcome(path: Path) -> int | StorageReason:
    """The height of a store that opens, or why it does not."""
    try:
        store = ChainStore.look(path, RULES)
    except StorageError as error:
        return error.reason
    try:
        assert store.begin_recount().finish().findings == ()
        return store.tip.header.height
    finally:
        store.close()


def test_open_refuses_a_path_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(StorageError) as caught:
        open_store(tmp_path / "file")
    assert caught.value.reason is StorageReason.UNUSABLE
    assert (tmp_path / "file").read_text() == "not a directory"


def test_open_refuses_a_directory_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "chain").mkdir()
    (tmp_path / "chain" / "letters").write_bytes(b"of somebody")
    assert refusal(tmp_path / "chain") is StorageReason.DAMAGED


@pytest.mark.parametrize("exists", [True, False])
def test_open_refuses_a_disk_without_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exists: bool) -> None:
    path = tmp_path / "chain"
    if exists:
        open_store(path).close()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=rocks.MIN_FREE_BYTES - 1))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(StorageError) as caught:
        open_store(path)
    assert caught.value.reason is StorageReason.NO_SPACE
    assert "63 MiB are free" in caught.value.detail
    assert sorted(tmp_path.rglob("*")) == before
    monkeypatch.undo()
    open_store(path).close()


def test_open_refuses_a_directory_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_store(tmp_path / "chain").close()
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert refusal(tmp_path / "chain") is StorageReason.READ_ONLY


def test_look_refuses_what_is_not_there_and_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(StorageError) as caught:
        ChainStore.look(tmp_path / "chain", RULES)
    assert caught.value.reason is StorageReason.MISSING
    assert list(tmp_path.iterdir()) == []


def test_look_changes_nothing_and_can_not_write(killed: Path) -> None:
    before = files(killed)
    store = ChainStore.look(killed, RULES)
    assert store.tip.header.height == 3
    with pytest.raises(StorageError):
        store.keep_halt(latched())
    store.close()
    assert files(killed) == before


def test_new_store_is_private(tmp_path: Path) -> None:
    open_store(tmp_path / "chain").close()
    assert (tmp_path / "chain").stat().st_mode & 0o077 == 0


def test_copy_of_a_closed_store_opens(tmp_path: Path) -> None:
    store = open_store(tmp_path / "chain")
    fill(store)
    before, size = contents(store), store.size_on_disk_bytes()
    store.close()
    assert size > 0
    shutil.copytree(tmp_path / "chain", tmp_path / "copy")
    copy = open_store(tmp_path / "copy")
    assert contents(copy) == before
    copy.close()
