"""Finding a bitcoind and reading a node's directory, with programs and files made up here."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pegnode import bitcoind
from pegnode.bitcoind import (
    BitcoindError,
    BitcoindNotFound,
    BitcoindProgram,
    BitcoindReason,
    RegtestBitcoind,
    default_prefix,
    find_bitcoind,
    install_bitcoind,
    start_regtest,
)


def _program(folder: Path, body: str) -> Path:
    folder.mkdir(parents=True)
    path = folder / "bitcoind"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def _says(version: str) -> str:
    return f"echo 'Bitcoin Core daemon version {version}'"


@pytest.fixture
def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that PATH begins with, and in which nothing is."""
    folder = tmp_path / "path"
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def test_bitcoind_on_path_comes_before_the_private_one(on_path: Path, tmp_path: Path) -> None:
    path = _program(on_path, _says("v30.1.0"))
    _program(tmp_path / "prefix" / "bin", _says("v29.0.0"))
    found = find_bitcoind(tmp_path / "prefix")
    assert (found.path, found.major) == (path, 30)


@pytest.mark.parametrize("body", [_says("v24.2.0"), "exit 1", "echo nonsense", f"{_says('v30.0.0')}; exit 1"])
def test_bitcoind_that_is_old_or_broken_is_passed_over(on_path: Path, tmp_path: Path, body: str) -> None:
    _program(on_path, body)
    private = _program(tmp_path / "prefix" / "bin", _says("v25.0.0"))
    assert find_bitcoind(tmp_path / "prefix").path == private


def test_bitcoind_nowhere_says_how_to_get_one(on_path: Path, tmp_path: Path) -> None:
    with pytest.raises(BitcoindNotFound, match="peg bitcoind install") as caught:
        find_bitcoind(tmp_path / "prefix")
    assert caught.value.reason == BitcoindReason.NOT_FOUND
    assert not on_path.exists()


def test_default_prefix_follows_the_data_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_prefix() == tmp_path / "pegnode" / "bitcoind"
    monkeypatch.setenv("XDG_DATA_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_prefix() == tmp_path / ".local" / "share" / "pegnode" / "bitcoind"


def test_program_that_ends_at_once_is_a_failed_start_with_its_last_words(tmp_path: Path) -> None:
    path = _program(tmp_path / "bin", "echo starting; echo 'Error: disk full' >&2; echo; exit 1")
    with pytest.raises(BitcoindError, match="Error: disk full") as caught:
        start_regtest(tmp_path / "node", BitcoindProgram(path, "", 30))
    assert caught.value.reason == BitcoindReason.START_FAILED


def test_program_that_never_answers_is_a_failed_start_and_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[bytes]] = []

    class Noted(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Noted)
    path = _program(tmp_path / "bin", "exec sleep 60")
    with pytest.raises(BitcoindError) as caught:
        start_regtest(tmp_path / "node", BitcoindProgram(path, "", 30), deadline_s=0.3)
    assert caught.value.reason == BitcoindReason.START_FAILED
    [process] = started
    assert process.returncode == -signal.SIGTERM


def test_directory_without_a_node_is_not_attached_to(tmp_path: Path) -> None:
    with pytest.raises(BitcoindError) as caught:
        RegtestBitcoind.attach(tmp_path)
    assert caught.value.reason == BitcoindReason.NOT_SET_UP
    (tmp_path / "bitcoin.conf").write_text("regtest=1\n")
    with pytest.raises(BitcoindError) as caught:
        RegtestBitcoind.attach(tmp_path)
    assert caught.value.reason == BitcoindReason.NOT_SET_UP


@pytest.mark.parametrize("pid", ["", "garbage", "999999999", str(os.getpid())])
def test_stale_pid_file_names_no_running_node(tmp_path: Path, pid: str) -> None:
    (tmp_path / "bitcoin.conf").write_text("[regtest]\nrpcport=1\nlisten=0\n")
    (tmp_path / "regtest").mkdir()
    (tmp_path / "regtest" / "bitcoind.pid").write_text(pid)
    node = RegtestBitcoind.attach(tmp_path)
    assert node.pid is None
    node.stop()


@pytest.mark.parametrize("script", [None, "exit 3"], ids=["no script", "script that fails"])
def test_bitcoind_that_can_not_be_fetched_is_said(
    on_path: Path, tmp_path: Path, script: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "fetch.sh"
    if script is not None:
        path.write_text(script)
    monkeypatch.setattr(bitcoind, "_SCRIPT", path)
    with pytest.raises(BitcoindError) as caught:
        install_bitcoind(tmp_path / "prefix")
    assert caught.value.reason is BitcoindReason.INSTALL_FAILED


def test_bitcoind_that_does_not_end_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is stuck in the kernel outlives even SIGKILL."""
    signals: list[signal.Signals] = []
    monkeypatch.setattr(RegtestBitcoind, "pid", 12345)
    monkeypatch.setattr(RegtestBitcoind, "_has_ended", lambda *_: False)
    monkeypatch.setattr(RegtestBitcoind, "_signal", lambda _, __, number: signals.append(number))
    node = RegtestBitcoind(tmp_path, 1, None, None)
    with pytest.raises(BitcoindError) as caught:
        node.stop(deadline_s=0)
    assert caught.value.reason is BitcoindReason.STOP_FAILED
    assert signals == [signal.SIGTERM, signal.SIGKILL]
