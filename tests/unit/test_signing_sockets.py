"""Where a signer listens: for its own user alone, and never in the place of another signer."""

import os
import socket
import stat
from pathlib import Path

import pytest

from pegnode.doctor.findings import Check, Outcome
from pegnode.doctor.keys import signer
from pegnode.signing.sockets import SocketReason, SocketRefused, bind_private


def refusal(path: Path) -> SocketReason:
    """Why nobody can listen there."""
    with pytest.raises(SocketRefused) as caught:
        bind_private(path)
    assert isinstance(caught.value.reason, SocketReason)
    return caught.value.reason


@pytest.mark.parametrize("umask", [0, 0o077, 0o777 & ~0o700])
def test_socket_is_its_owners_alone_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "run" / "signer.sock"
    before = os.umask(umask)
    try:
        with bind_private(path):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
            assert os.umask(umask) == umask
    finally:
        os.umask(before)


def test_socket_in_a_folder_that_others_enter_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o750)
    assert refusal(tmp_path / "run" / "signer.sock") is SocketReason.TOO_OPEN
    assert list((tmp_path / "run").iterdir()) == []


def test_socket_where_somebody_answers_is_refused_and_left(tmp_path: Path) -> None:
    path = tmp_path / "run" / "signer.sock"
    with bind_private(path):
        assert refusal(path) is SocketReason.TAKEN
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
            caller.connect(str(path))


def test_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "run" / "signer.sock"
    bind_private(path).close()
    assert path.exists(), "closing alone leaves the file"
    with bind_private(path), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.connect(str(path))


def test_file_that_is_no_socket_is_refused_and_left(tmp_path: Path) -> None:
    path = tmp_path / "run" / "signer.sock"
    path.parent.mkdir(mode=0o700)
    path.write_text("mine")
    assert refusal(path) is SocketReason.NOT_A_SOCKET
    assert path.read_text() == "mine"
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    assert refusal(path) is SocketReason.NOT_A_SOCKET


def test_path_that_the_system_refuses_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30)
    folder.mkdir(mode=0o700)
    assert refusal(folder / "signer.sock") is SocketReason.UNUSABLE


def test_doctor_calls_the_signer(tmp_path: Path) -> None:
    path = tmp_path / "run" / "signer.sock"
    absent = signer(path)
    with bind_private(path):
        present = signer(path)
    silent = signer(path)
    assert [(item.check, item.outcome) for item in (absent, present, silent)] == [
        (Check.SIGNER, Outcome.PROBLEM),
        (Check.SIGNER, Outcome.OK),
        (Check.SIGNER, Outcome.PROBLEM),
    ]
    assert "peg signer run" in silent.remedy
