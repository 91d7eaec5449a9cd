"""The socket of a signer: a file that its owner alone can connect to, in a folder that its owner alone can enter."""

import os
import socket
import stat
from pathlib import Path
from typing import Final

from bridge.errors import Reason
from federation.errors import Refused

_FOLDER_MODE: Final = 0o700
_SOCKET_MODE: Final = 0o600
_BACKLOG: Final = 8


class SocketReason(Reason):
    """Why a signer can't listen at its socket."""

    TAKEN = "socket-taken"  # Somebody answers there: a signer runs already.
    NOT_A_SOCKET = "socket-not-a-socket"  # There is a file of another kind.
    TOO_OPEN = "socket-too-open"  # The folder is another user's, or others may enter it.
    UNUSABLE = "socket-unusable"  # The system refuses, for one because the path is too long.


class SocketRefused(Refused):
    """The signer can't listen there. reason: SocketReason."""


def bind_private(path: Path) -> socket.socket:
    """A listening socket at `path`, of mode 0600, in a folder of mode 0700, which is made if it is not there.

    A socket that an ended process left is removed, one where somebody answers never. Raises SocketRefused.
    """
    try:
        path.parent.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        _require_private(path.parent)
        _remove_stale(path)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            before = os.umask(0o777 & ~_SOCKET_MODE)
            try:
                listening.bind(str(path))
            finally:
                os.umask(before)
            listening.listen(_BACKLOG)
        except BaseException:
            listening.close()
            raise
    except OSError as error:
        raise SocketRefused(SocketReason.UNUSABLE, f"{path}: {error.strerror or error}") from error
    return listening


def _require_private(folder: Path) -> None:
    status = folder.stat()
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & ~_FOLDER_MODE:
        detail = f"{folder} must be this user's alone: give it to this user, and chmod 700 it"
        raise SocketRefused(SocketReason.TOO_OPEN, detail)


def _remove_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise SocketRefused(SocketReason.NOT_A_SOCKET, f"{path} is something else; move it away, or name another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
        try:
            trial.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise SocketRefused(SocketReason.TAKEN, f"a process answers at {path}; a signer runs once")
