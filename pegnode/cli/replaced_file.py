"""Files that go from member to member: written in one step, so that nobody ever finds half of one."""

import os
from contextlib import suppress
from pathlib import Path


def replace_file(path: Path, content: bytes) -> None:
    """Write a file, in the place of one that is there. Raises OSError, and then leaves everything as it was."""
    new = path.parent / f".{path.name}.{os.getpid()}"
    try:
        new.write_bytes(content)
        new.replace(path)
    except OSError:
        with suppress(OSError):
            new.unlink()
        raise
