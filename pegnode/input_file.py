"""Files that people write and programs read whole: what is no such file is refused before a byte of it is used."""

import os
import stat
from pathlib import Path

from bridge.errors import Reason
from pegnode.errors import ReasonedError


class FileReason(Reason):
    """Why a file is not read."""

    ABSENT = "file-absent"
    """There is nothing at the path."""
    FORBIDDEN = "file-forbidden"
    """This user may not read it."""
    NOT_A_FILE = "file-not-a-file"
    """A directory, a pipe or a device."""
    TOO_OPEN = "file-too-open"
    """Every user of the machine may change it."""
    TOO_LARGE = "file-too-large"
    """More bytes than such a file ever has."""
    NOT_UTF8 = "file-not-utf8"
    """Bytes that are no UTF-8 text."""
    UNREADABLE = "file-unreadable"
    """The system fails to read it."""


class FileRefused(ReasonedError):  # noqa: N818 -- a verdict, as in bridge.errors
    """A file that is not read. reason: FileReason; the detail names the file and says what to do."""


def read_input(path: Path, max_bytes: int) -> bytes:
    """The content of a regular file. Judged on the open file, so that it can't be swapped. Raises FileRefused."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise FileRefused(FileReason.ABSENT, f"{path}: there is no such file; correct the path") from error
    except PermissionError as error:
        raise FileRefused(FileReason.FORBIDDEN, f"{path}: this user may not read it; run as its owner") from error
    except (OSError, ValueError) as error:
        raise FileRefused(FileReason.UNREADABLE, f"{path}: {_words(error)}") from error
    try:
        return _read_all(path, descriptor, max_bytes)
    except OSError as error:
        raise FileRefused(FileReason.UNREADABLE, f"{path}: {_words(error)}") from error
    finally:
        os.close(descriptor)


def read_input_text(path: Path, max_bytes: int) -> str:
    """The same as text. Raises FileRefused, for bytes that are no UTF-8 with the line that they stand on."""
    content = read_input(path, max_bytes)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise FileRefused(FileReason.NOT_UTF8, f"{path}:{line}: not UTF-8; save the file as UTF-8 text") from error


def _read_all(path: Path, descriptor: int, max_bytes: int) -> bytes:
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        raise FileRefused(FileReason.NOT_A_FILE, f"{path}: not a regular file; name the file itself")
    if mode & stat.S_IWOTH:
        raise FileRefused(FileReason.TOO_OPEN, f"{path}: every user may change it; run: chmod o-w {path}")
    with open(descriptor, "rb", closefd=False) as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise FileRefused(FileReason.TOO_LARGE, f"{path}: more than {max_bytes} bytes; is this the right file?")
    return content


def _words(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
