"""Small files for their owner's eyes alone: read, written once, or replaced in one step.

Every refusal is a KeystoreRefused that names the path and what to do; none quotes the content.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from federation.keystore_errors import KeystoreReason, KeystoreRefused

_DIRECTORY_MODE = 0o700
_FILE_MODE = 0o600
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def read_private_file(path: Path, max_size: int) -> bytes:
    """All bytes of a regular file that only its owner may read.

    Judged on the open descriptor, so that the file can't be swapped between check and read. Raises KeystoreRefused:
    MISSING, NOT_A_FILE, TOO_OPEN, FOREIGN_OWNER, WRONG_SIZE, UNREADABLE.
    """
    return _read_file(path, max_size, private=True)


def read_small_file(path: Path, max_size: int) -> bytes:
    """All bytes of a regular file, whoever may read it: a backup on a medium that knows no owners.

    Raises KeystoreRefused: MISSING, NOT_A_FILE, WRONG_SIZE, UNREADABLE.
    """
    return _read_file(path, max_size, private=False)


def _read_file(path: Path, max_size: int, *, private: bool) -> bytes:
    with _refusing_os_errors(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise KeystoreRefused(KeystoreReason.NOT_A_FILE, f"{path} is not a regular file")
        if private:
            _require_private(path, status, _FILE_MODE)
        if not 0 < status.st_size <= max_size:
            raise KeystoreRefused(
                KeystoreReason.WRONG_SIZE, f"{path} has {status.st_size} bytes; restore it from your backup"
            )
        with _refusing_os_errors(path):
            return os.read(descriptor, max_size)
    finally:
        os.close(descriptor)


def write_private_file(path: Path, content: bytes) -> None:
    """All of `content` in a new file of mode 0600, synced to disk, or no file.

    Raises KeystoreRefused: EXISTS, MISSING, UNREADABLE.
    """
    if not path.parent.is_dir():
        detail = f"there is no folder {path.parent}: make it, or name a file elsewhere"
        raise KeystoreRefused(KeystoreReason.MISSING, detail)
    with _refusing_os_errors(path):
        _write_new_file(path, content)
        _sync_directory(path.parent)


def refuse_existing(path: Path) -> None:
    """Raise KeystoreRefused (EXISTS) if there is something: before people are asked for what would be in vain."""
    if path.exists() or path.is_symlink():
        raise _exists(path)


def replace_private_file(path: Path, content: bytes) -> None:
    """Put `content` in the place of the file at `path`: whatever happens meanwhile, one of both is there, whole.

    A copy that a crash left half-written beside it is overwritten the next time. Raises KeystoreRefused.
    """
    successor = path.with_name(f".{path.name}.new")
    with _refusing_os_errors(path):
        successor.unlink(missing_ok=True)
        _write_new_file(successor, content)
        try:
            successor.replace(path)
        except BaseException:
            successor.unlink(missing_ok=True)
            raise
        _sync_directory(path.parent)


def make_private_directory(directory: Path) -> None:
    """Make the directory with mode 0700, and what above it is absent. Raises KeystoreRefused as below."""
    with _refusing_os_errors(directory):
        directory.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
    require_private_directory(directory)


def require_private_directory(directory: Path) -> None:
    """Raise KeystoreRefused (MISSING, NOT_A_FILE, TOO_OPEN, FOREIGN_OWNER) unless it is a directory of the owner's."""
    with _refusing_os_errors(directory):
        status = directory.stat()
    if not stat.S_ISDIR(status.st_mode):
        raise KeystoreRefused(KeystoreReason.NOT_A_FILE, f"{directory} is not a directory")
    _require_private(directory, status, _DIRECTORY_MODE)


def _require_private(path: Path, status: os.stat_result, mode: int) -> None:
    if status.st_uid != os.geteuid():
        raise KeystoreRefused(
            KeystoreReason.FOREIGN_OWNER, f"{path} belongs to another user; run as its owner, or chown it"
        )
    if status.st_mode & _OTHERS:
        raise KeystoreRefused(
            KeystoreReason.TOO_OPEN,
            f"{path} is open to others (mode {stat.S_IMODE(status.st_mode):04o}); run: chmod {mode:o} {path}",
        )


def _write_new_file(path: Path, content: bytes) -> None:
    """All of `content`, synced, or no file."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, _FILE_MODE)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _refusing_os_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's errors about `path` into KeystoreRefused."""
    try:
        yield
    except FileExistsError as error:
        raise _exists(path) from error
    except FileNotFoundError as error:
        raise KeystoreRefused(
            KeystoreReason.MISSING, f"{path} does not exist; correct the path, or restore it from your backup"
        ) from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise KeystoreRefused(
                KeystoreReason.NOT_A_FILE, f"{path} is a symbolic link; put the file there"
            ) from error
        raise KeystoreRefused(KeystoreReason.UNREADABLE, f"{path}: {error.strerror}") from error


def _exists(path: Path) -> KeystoreRefused:
    return KeystoreRefused(KeystoreReason.EXISTS, f"{path} exists; a secret is never overwritten, move it away first")
