"""A new directory that appears whole or not at all."""

import errno
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pegnode.setup.errors import SetupReason, SetupRefused


@contextmanager
def staged(directory: Path) -> Iterator[Path]:
    """A private folder beside `directory`, which takes its place in one step when the body has completed.

    `directory` must be absent or empty. If anything fails, the folder is removed with all that it holds.
    Raises SetupRefused: NOT_EMPTY, UNWRITABLE.
    """
    directory = directory.absolute()
    _require_absent_or_empty(directory)
    stage: Path | None = None
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", suffix=".new", dir=directory.parent))
        yield stage
        stage.rename(directory)
    except OSError as error:
        if error.errno == errno.ENOTEMPTY:
            raise SetupRefused(SetupReason.NOT_EMPTY, f"{directory} was filled meanwhile") from error
        raise SetupRefused(SetupReason.UNWRITABLE, f"{directory}: {error.strerror}") from error
    finally:
        if stage is not None:
            shutil.rmtree(stage, ignore_errors=True)


def _require_absent_or_empty(directory: Path) -> None:
    try:
        occupied = any(directory.iterdir())
    except FileNotFoundError:
        return
    except OSError as error:
        raise SetupRefused(SetupReason.UNWRITABLE, f"{directory}: {error.strerror}") from error
    if occupied:
        raise SetupRefused(SetupReason.NOT_EMPTY, f"{directory} holds files; name a new directory")
