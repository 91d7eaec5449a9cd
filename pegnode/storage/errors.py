"""Why the store refuses to open or to write."""

from bridge.errors import Reason
from pegnode.errors import ReasonedError


class StorageReason(Reason):
    """What is wrong with the store, or with what it was asked to write."""

    LOCKED = "storage-locked"
    """Another process holds the directory."""
    WRONG_CHAIN = "storage-wrong-chain"
    """The directory holds another chain."""
    NEWER_SCHEMA = "storage-newer-schema"
    """A later release wrote the directory."""
    DAMAGED = "storage-damaged"
    """The contents are not what a release of this program writes."""
    UNUSABLE = "storage-unusable"
    """The path can't be opened or written: permissions, a full disk, not a directory."""
    NOT_NEXT = "storage-not-next"
    """A block that does not follow the tip."""
    UNPROVEN = "storage-unproven"
    """Blocks of which the last has no certificate."""
    CLOSED = "storage-closed"
    """The store was closed."""


class StorageError(ReasonedError):
    """The store can't go on. The detail says what a person can do about it."""

    reason: StorageReason
