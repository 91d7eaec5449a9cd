"""The journal's directory: what is refused, with its reason and what to do, and that the refusal changes nothing."""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from bridge.bitcoin.hashes import sha256
from federation import rocks
from federation.certificate import VoteKind
from federation.journal_entries import create_journal, look_into_journal, open_journal
from federation.journal_errors import JournalReason, JournalRefused
from tests.support.stores import files
from tests.unit.test_journal import BODY, IDENTITY, vote

VOTES = 20


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """What a killed process leaves: its votes, all of them in the log that RocksDB reads first."""
    journal = create_journal(tmp_path / "journal", IDENTITY)
    for view in range(1, VOTES + 1):
        journal.record_vote(vote(VoteKind.NOTARIZE, view), BODY)
    left = tmp_path / "left" / "journal"
    shutil.copytree(tmp_path / "journal", left, ignore=shutil.ignore_patterns("LOCK"))
    journal.close()
    return left


@pytest.fixture
def stopped(killed: Path) -> Path:
    """What a process that ended in order leaves: its votes in sorted files."""
    open_journal(killed, IDENTITY).close()
    return killed


def refusal(path: Path) -> JournalReason:
    """The reason for which the directory is not opened; checked: that nothing in it has changed, nor beside it."""
    before, beside = files(path), sorted(path.parent.iterdir())
    with pytest.raises(JournalRefused) as caught:
        open_journal(path, IDENTITY).close()
    assert files(path) == before
    assert sorted(path.parent.iterdir()) == beside
    assert isinstance(caught.value.reason, JournalReason)
    if caught.value.reason is JournalReason.DAMAGED:
        assert "Put no older copy in its place" in caught.value.detail
    return caught.value.reason


def flip(file: Path, part: float) -> None:
    """Change one byte of a file."""
    data = bytearray(file.read_bytes())
    data[int(part * len(data))] ^= 0x41
    file.write_bytes(bytes(data))


def test_killed_journal_keeps_every_vote(killed: Path) -> None:
    journal = open_journal(killed, IDENTITY)
    assert [one.view for one in journal.contents().votes] == list(range(1, VOTES + 1))
    journal.close()


@pytest.mark.parametrize("part", [0.0, 0.2, 0.5, 0.8, 0.999])
def test_log_with_a_flipped_byte_refused(killed: Path, part: float) -> None:
    # RocksDB's own default is to drop what follows the damage: the member would sign in those views again.
    [log] = [file for file in killed.glob("*.log") if file.stat().st_size]
    flip(log, part)
    assert refusal(killed) is JournalReason.DAMAGED


@pytest.mark.parametrize("pattern", ["*.sst", "MANIFEST-*", "CURRENT"])
@pytest.mark.parametrize("part", [0.0, 0.3, 0.6, 0.95])
def test_file_with_a_flipped_byte_refused(stopped: Path, pattern: str, part: float) -> None:
    for file in list(stopped.glob(pattern)):
        flip(file, part)
        assert refusal(stopped) is JournalReason.DAMAGED


@pytest.mark.parametrize("pattern", ["*.sst", "MANIFEST-*", "CURRENT"])
def test_missing_file_refused(stopped: Path, pattern: str) -> None:
    next(iter(stopped.glob(pattern))).unlink()
    assert refusal(stopped) is JournalReason.DAMAGED


@pytest.mark.parametrize("pattern", ["*.sst", "CURRENT"])
def test_truncated_file_refused(stopped: Path, pattern: str) -> None:
    file = next(iter(stopped.glob(pattern)))
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert refusal(stopped) is JournalReason.DAMAGED


def test_other_members_journal_refused(killed: Path) -> None:
    before = files(killed)
    for other in (replace(IDENTITY, member=1), replace(IDENTITY, chain_id=sha256(b"other"))):
        with pytest.raises(JournalRefused) as caught:
            open_journal(killed, other)
        assert caught.value.reason is JournalReason.FOREIGN
    assert files(killed) == before


@pytest.mark.parametrize("exists", [True, False])
def test_disk_without_room_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exists: bool) -> None:
    path = tmp_path / "journal"
    if exists:
        create_journal(path, IDENTITY).close()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=rocks.MIN_FREE_BYTES - 1))
    with pytest.raises(JournalRefused) as caught:
        (open_journal if exists else create_journal)(path, IDENTITY)
    assert caught.value.reason is JournalReason.NO_SPACE
    assert path.exists() is exists
    monkeypatch.undo()
    (open_journal if exists else create_journal)(path, IDENTITY).close()


def test_directory_that_cannot_be_written_refused(killed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert refusal(killed) is JournalReason.READ_ONLY


def test_look_changes_nothing_and_can_not_write(killed: Path) -> None:
    before = files(killed)
    journal = look_into_journal(killed, IDENTITY)
    assert len(journal.contents().votes) == VOTES
    with pytest.raises(JournalRefused):
        journal.record_vote(vote(VoteKind.NULLIFY, VOTES + 1))
    journal.close()
    assert files(killed) == before
