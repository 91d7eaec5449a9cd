"""The lock on a wallet's directory: one process at a time has it open."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pegnode.wallet.errors import WalletError, WalletReason

LOCK_FILE = "lock"


def lock_directory(directory: Path, *, create: bool) -> int:
    """The descriptor that holds the directory's lock, until it is closed. Raises WalletError (IN_USE, UNUSABLE)."""
    try:
        if create:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise WalletError(WalletReason.UNUSABLE, f"can't use {directory}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise WalletError(WalletReason.IN_USE, f"another process uses the wallet in {directory}") from error
    return descriptor


@contextmanager
def unlocking_on_error(lock: int) -> Iterator[None]:
    """Give the lock back if what is done under it fails."""
    try:
        yield
    except BaseException:
        os.close(lock)
        raise
