"""Files that people write: what is none is refused with its reason."""

import os
from pathlib import Path

import pytest

from pegnode.input_file import FileReason, FileRefused, read_input, read_input_text


def _reason(path: Path, max_bytes: int = 10) -> FileReason:
    with pytest.raises(FileRefused) as caught:
        read_input_text(path, max_bytes)
    reason = caught.value.reason
    assert isinstance(reason, FileReason)
    assert str(path) in caught.value.detail
    return reason


def test_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    assert read_input(path, 10) == b"0123456789"
    assert read_input_text(path, 10) == "0123456789"
    assert _reason(path, 9) is FileReason.TOO_LARGE


def test_absent_file_is_refused(tmp_path: Path) -> None:
    assert _reason(tmp_path / "absent") is FileReason.ABSENT


def test_directory_is_refused(tmp_path: Path) -> None:
    assert _reason(tmp_path) is FileReason.NOT_A_FILE


def test_pipe_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert _reason(tmp_path / "pipe") is FileReason.NOT_A_FILE


def test_file_that_everyone_may_change_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("x")
    path.chmod(0o646)
    assert _reason(path) is FileReason.TOO_OPEN
    path.chmod(0o664)
    assert read_input(path, 10) == b"x"


def test_file_that_may_not_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the system's word: whoever runs the tests may be allowed to read everything."""

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    assert _reason(tmp_path / "file") is FileReason.FORBIDDEN


def test_path_through_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert _reason(tmp_path / "file" / "inner") is FileReason.UNREADABLE


def test_path_that_is_none_is_refused() -> None:
    assert _reason(Path("a\0b")) is FileReason.UNREADABLE


def test_bytes_that_are_no_text_are_refused_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"a\nb\n\xff\n")
    with pytest.raises(FileRefused, match=r"file:3: not UTF-8") as caught:
        read_input_text(path, 10)
    assert caught.value.reason is FileReason.NOT_UTF8
