"""RocksDB's directories: who holds one, what its errors mean, and how to look into one without changing it.

RocksDB moves files about before it finds out that it can't go on, so what may be refused is refused before it opens
anything for writing: another process (`Hold`), a full or read-only disk (`require_writable`), and whatever the contents
say, which are read through links in a directory elsewhere (`linked`).
"""

import contextlib
import enum
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from rocksdict import DBRecoveryMode, Options, Rdict

from federation.errors import FederationError

MIN_FREE_BYTES: Final = 64 * 1024 * 1024
"""Room for what RocksDB writes when it opens a directory and when it gives one back."""
LOCK_FILE: Final = "LOCK"
CATALOGUE_FILE: Final = "CURRENT"
"""Whether this exists tells whether a directory holds a database."""
_UNLINKED: Final = (LOCK_FILE, "rocksdict-config.json")
_KEPT_LOGS: Final = 4

_LOCK_TEXTS = ("lock hold by current process", "While lock file", "No locks available")
_SPACE_TEXTS = ("No space left", "File too large", "Disk quota exceeded")
_READ_ONLY_TEXTS = ("Read-only file system", "Permission denied", "Operation not permitted")
_DAMAGE_TEXTS = (
    "Corruption", "MANIFEST", "checksum mismatch", "truncated", "No such file", "Column family not found",
)  # fmt: skip

_held: set[Path] = set()
"""Directories that this process holds. The system's own lock does not tell one process from itself, and would be given
back if any other descriptor of the lock file were closed."""


class DiskFault(enum.Enum):
    """What is wrong with a directory. Whoever keeps one has a reason of the same name."""

    LOCKED = "in use"
    DAMAGED = "damaged"
    NO_SPACE = "no space"
    READ_ONLY = "read-only"
    UNUSABLE = "unusable"


class DiskError(FederationError):
    """A directory that can't be used. detail: for people: which one, and what the system says."""

    def __init__(self, fault: DiskFault, detail: str) -> None:
        super().__init__(detail)
        self.fault = fault
        self.detail = detail


def disk_error(path: Path, error: Exception) -> DiskError:
    """What an error of RocksDB, which is never narrower than Exception, or of the system says about `path`."""
    if isinstance(error, DiskError):
        return error
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return DiskError(DiskFault.NO_SPACE, text)
    for fault, marks in (
        (DiskFault.LOCKED, _LOCK_TEXTS),
        (DiskFault.NO_SPACE, _SPACE_TEXTS),
        (DiskFault.READ_ONLY, _READ_ONLY_TEXTS),
        (DiskFault.DAMAGED, _DAMAGE_TEXTS),
    ):
        if any(mark in text for mark in marks):
            return DiskError(fault, text)
    return DiskError(DiskFault.UNUSABLE, text)


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn what RocksDB and the system raise about `path` into DiskError."""
    try:
        yield
    except FederationError:
        raise
    except Exception as error:  # rocksdict raises nothing narrower
        raise disk_error(path, error) from error


class Hold:
    """A directory that this process, and no other part of it, works on. RocksDB's own lock keeps other processes out.

    A context manager, which gives it back; `give_back` may be called twice.
    """

    def __init__(self, path: Path) -> None:
        """Raises DiskError (LOCKED) when it is held already, here or by another process; nothing is changed."""
        self._path = path.resolve()
        if self._path in _held:
            raise DiskError(DiskFault.LOCKED, "this process has it open")
        with _locked(self._path):
            _held.add(self._path)

    def give_back(self) -> None:
        """Let others have it."""
        _held.discard(self._path)

    def __enter__(self) -> "Hold":
        return self

    def __exit__(self, *_: object) -> None:
        self.give_back()


@contextlib.contextmanager
def held_still(path: Path) -> Iterator[None]:
    """Keep every other process from opening the directory for as long as this lasts. Raises DiskError (LOCKED)."""
    with Hold(path), _locked(path):
        yield


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock file as RocksDB would, if there is one."""
    try:
        descriptor = os.open(path / LOCK_FILE, os.O_RDWR | os.O_CLOEXEC)
        kind = fcntl.LOCK_EX
    except FileNotFoundError:
        yield
        return
    except OSError:  # it can't be written: a shared lock still meets that of a process which could write it
        with translated(path):
            descriptor = os.open(path / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
        kind = fcntl.LOCK_SH
    try:
        _lock(descriptor, kind)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def only_maker(path: Path) -> Iterator[None]:
    """Keep other processes from making `path`, which need not exist yet, for as long as this lasts.

    The folder that it lies in is made, for this user alone, if it is not there. The lock is a file beside it, and goes
    afterwards; one that a killed process left hinders nobody. Raises DiskError.
    """
    lock = path.with_name(f"{path.name}.lock")
    with translated(lock):
        lock.parent.mkdir(parents=True, exist_ok=True, mode=0o700)  # `parents` gives those above the umask's mode
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        _lock(descriptor, fcntl.LOCK_EX)
        if not _is_open(descriptor, lock):  # its maker ended, and took it away, since we opened it
            raise DiskError(DiskFault.LOCKED, "another process made it just now")
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, kind: int) -> None:
    """Lock an open file against other processes. Raises DiskError (LOCKED) without waiting."""
    try:
        fcntl.lockf(descriptor, kind | fcntl.LOCK_NB)
    except OSError as error:
        raise DiskError(DiskFault.LOCKED, "another process has it open") from error


def _is_open(descriptor: int, path: Path) -> bool:
    """Whether this is the file at `path`."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def require_writable(path: Path) -> None:
    """Raise DiskError (NO_SPACE, READ_ONLY) unless the directory can be written and its disk has MIN_FREE_BYTES."""
    with translated(path):
        writable = os.access(path, os.W_OK | os.X_OK)
        free_bytes = shutil.disk_usage(path).free
    if not writable:
        raise DiskError(DiskFault.READ_ONLY, "it can't be written")
    if free_bytes < MIN_FREE_BYTES:
        free, needed = free_bytes >> 20, MIN_FREE_BYTES >> 20
        raise DiskError(DiskFault.NO_SPACE, f"{free} MiB are free on its disk, and {needed} MiB are needed")


@contextlib.contextmanager
def linked(path: Path) -> Iterator[Path]:
    """A directory of links to the files of another, to be opened read-only: what RocksDB writes lands elsewhere.

    Raises DiskError.
    """
    with contextlib.ExitStack() as stack:
        with translated(path):
            links = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pegnode-look-")))
            for file in path.resolve().iterdir():
                if file.name not in _UNLINKED:
                    (links / file.name).symlink_to(file)
        yield links


def close_quietly(databases: Iterable[Rdict]) -> None:
    """Close handles, whatever RocksDB says: it writes what is only in memory and in its log into sorted files, and
    where it can't, on a full disk say, the log still has all of it.
    """
    for database in databases:
        with contextlib.suppress(Exception):  # rocksdict raises nothing narrower
            database.close()


def common_options() -> Options:
    """Options of every database here.

    A log that is damaged anywhere but at its torn end is refused: by default RocksDB would silently drop all that
    follows the damage, votes among it.
    """
    options = Options(raw_mode=True)
    options.set_wal_recovery_mode(DBRecoveryMode.tolerate_corrupted_tail_records())
    options.set_keep_log_file_num(_KEPT_LOGS)
    return options
