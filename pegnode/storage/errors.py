"""Why the store refuses to open or to write."""

from bridge.errors import Reason
from pegnode.errors import ReasonedError


class StorageReason(Reason):
    """What is wrong with the store, or with what it was asked to write."""

    MISSING = "storage-missing"
    """There is no chain where one was to be read."""
    LOCKED = "storage-locked"
    """Another process holds the directory."""
    WRONG_CHAIN = "storage-wrong-chain"
    """The directory holds another chain."""
    NEWER_SCHEMA = "storage-newer-schema"
    """A later release wrote the directory."""
    DAMAGED = "storage-damaged"
    """The contents are not what a release of this program writes."""
    NO_SPACE = "storage-no-space"
    """The disk is full, or a quota or a limit on the size of files is reached."""
    READ_ONLY = "storage-read-only"
    """The disk or the directory can't be written."""
    UNUSABLE = "storage-unusable"
    """The path can't be used for another reason: it is not a directory, say."""
    NOT_NEXT = "storage-not-next"
    """A block that does not follow the tip."""
    UNPROVEN = "storage-unproven"
    """Blocks of which the last has no certificate."""
    CLOSED = "storage-closed"
    """The store was closed."""


class StorageError(ReasonedError):
    """The store can't go on. The detail says what a person can do about it."""

    reason: StorageReason
