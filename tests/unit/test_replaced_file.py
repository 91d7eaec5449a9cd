"""A file that takes another one's place: whole or not at all, and never through a link."""

import os
import secrets
from pathlib import Path

import pytest

from pegnode.cli.replaced_file import replace_file


def listing(folder: Path) -> dict[str, bytes]:
    """What is in a folder."""
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_new_file_and_its_replacement_are_all_that_is_left(tmp_path: Path) -> None:
    for content in (b"first", b"second"):
        replace_file(tmp_path / "plan.json", content)
        assert listing(tmp_path) == {"plan.json": content}


def test_file_can_be_read_by_whom_the_mask_lets(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        replace_file(tmp_path / "plan.json", b"content")
    finally:
        os.umask(before)
    assert (tmp_path / "plan.json").stat().st_mode & 0o777 == 0o640


def test_link_under_the_name_beside_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, victim = tmp_path / "shared", tmp_path / "victim"
    folder.mkdir()
    victim.write_bytes(b"precious")
    monkeypatch.setattr(secrets, "token_hex", lambda _size: "guessed")
    for name in (f".plan.json.{os.getpid()}", ".plan.json.guessed.new"):
        (folder / name).symlink_to(victim)
    with pytest.raises(FileExistsError):
        replace_file(folder / "plan.json", b"content")
    assert (folder / ".plan.json.guessed.new").is_symlink()
    monkeypatch.undo()
    replace_file(folder / "plan.json", b"content")
    assert not (folder / "plan.json").is_symlink()
    assert victim.read_bytes() == b"precious"


def test_content_is_on_the_disk_before_the_name_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plan.json").write_bytes(b"old")
    synced: list[tuple[int, bytes]] = []
    monkeypatch.setattr(
        os, "fsync", lambda number: synced.append((os.fstat(number).st_size, (tmp_path / "plan.json").read_bytes()))
    )
    replace_file(tmp_path / "plan.json", b"content")
    assert synced == [(len(b"content"), b"old")]


def test_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plan.json").write_bytes(b"old")

    def fail(_number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        replace_file(tmp_path / "plan.json", b"content")
    assert listing(tmp_path) == {"plan.json": b"old"}
