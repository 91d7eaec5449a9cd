"""Files that go from member to member: written in one step, so that nobody ever finds half of one."""

import os
import secrets
from contextlib import suppress
from pathlib import Path


def replace_file(path: Path, content: bytes) -> None:
    """Write a file, in the place of one that is there. Raises OSError, and then leaves everything as it was.

    It is made beside, under a name that nobody could guess and put a link at, and is on the disk before it is renamed.
    """
    new = path.parent / f".{path.name}.{secrets.token_hex(8)}.new"
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        new.replace(path)
    except OSError:
        with suppress(OSError):
            new.unlink()
        raise
