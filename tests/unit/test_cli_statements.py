"""Statements in files: what only the commands decide."""

import os
from pathlib import Path

import pytest

from pegnode.audit.document import DocumentReason, DocumentRefused, parse_document
from pegnode.cli.statements import _write
from tests.support.statements import stated

SIGNED = stated()


def test_statement_is_written_in_one_step(tmp_path: Path) -> None:
    _write(tmp_path / "statement.json", SIGNED)
    assert parse_document((tmp_path / "statement.json").read_bytes()) == SIGNED
    assert os.listdir(tmp_path) == ["statement.json"]


@pytest.mark.parametrize("path", [".", "/", "absent/statement.json", "x" * 300])
def test_statement_that_can_not_be_written_leaves_nothing(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DocumentRefused) as caught:
        _write(Path(path), SIGNED)
    assert caught.value.reason is DocumentReason.UNWRITABLE
    assert os.listdir(tmp_path) == []
