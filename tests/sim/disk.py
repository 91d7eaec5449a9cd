"""A member's disk that may stop at every write: before it, in it, after it; and what the power failure leaves.

The journal and the database are logs of batches. A process that is killed loses nothing that it has written. When power
fails, batches that were not synced are lost, from some point on; of the batch that was being written nothing or all is
there, since RocksDB drops the torn end of its log.
"""

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from federation.journal_errors import JournalReason, JournalRefused
from pegnode.storage.database import Changes
from pegnode.storage.errors import StorageError, StorageReason
from tests.support.memory_disk import Disk, MemoryDatabase
from tests.support.memory_entries import MemoryEntries


class Crashed(BaseException):
    """The process is gone. A BaseException: nothing in it may take notice."""


class Phase(enum.Enum):
    """Where in a write it happens."""

    BEFORE = "before"
    TORN = "in"
    AFTER = "after"
    FULL = "at a full disk,"


@dataclass(frozen=True, slots=True)
class Trap:
    """Where the process ends. kind: of the write, see `SimDisk.kinds`; None for any.  nth: 1 for the first.

    power: power fails, so that what was not synced is lost.
    """

    phase: Phase
    kind: str | None = None
    nth: int = 1
    power: bool = False


class SimEntries(MemoryEntries):
    """The journal's entries."""

    def __init__(self, disk: "SimDisk") -> None:
        super().__init__()
        self._disk = disk
        self._unsynced: list[Mapping[bytes, bytes | None]] = []
        self.version = 0

    def write(self, changes: Mapping[bytes, bytes | None], *, sync: bool) -> None:
        """Put and delete, unless it is here that the process ends."""
        self._disk.write("journal", _journal_kind(changes), lambda: self._apply(changes, sync=sync))

    def _apply(self, changes: Mapping[bytes, bytes | None], *, sync: bool) -> None:
        self._unsynced.append(changes)
        for key, value in changes.items():
            _put(self._values, key, value)
        if sync:
            self._sync(len(self._unsynced))

    def _sync(self, count: int) -> None:
        for changes in self._unsynced[:count]:
            for key, value in changes.items():
                _put(self._synced, key, value)
        self._unsynced.clear()
        self.version += 1

    def durable(self) -> MemoryEntries:
        """What would be left if power failed now and nothing unsynced had luck."""
        entries = MemoryEntries()
        entries.write(self._synced, sync=True)
        return entries

    def put_back(self, copy: Mapping[bytes, bytes]) -> None:
        """The journal is lost, and in its place there is an older copy, or with an empty one nothing."""
        self._values, self._synced = dict(copy), dict(copy)
        self._unsynced.clear()
        self.version += 1

    def copied(self) -> dict[bytes, bytes]:
        """What a copy of the files has now."""
        return dict(self._values)

    def lose_power(self, rng: Random) -> None:
        """A prefix of what was not synced has luck."""
        self._sync(rng.randint(0, len(self._unsynced)))
        self.lose_unsynced()


class SimDatabase(MemoryDatabase):
    """The chain's database: each write is synced."""

    def __init__(self, disk: "SimDisk") -> None:
        super().__init__()
        self._disk = disk

    def write(self, changes: Changes) -> None:
        """Put and delete, unless it is here that the process ends."""
        self._disk.write("database", _database_kind(changes), lambda: super(SimDatabase, self).write(changes))


class SimDisk(Disk):
    """Both, with numbered points of persistence.

    rng: decides what has luck when power fails.  on_crash: told at the very moment, before anything else can happen.
    kinds: how many writes of each kind there were, over all lives.  was_trapped: whether a trap has ever sprung.
    """

    def __init__(self, rng: Random, on_crash: Callable[[str], None]) -> None:
        super().__init__(None, SimDatabase(self), SimEntries(self))
        self._rng = rng
        self._on_crash = on_crash
        self.trap: Trap | None = None
        self.kinds: dict[str, int] = {}
        self._left = 0
        self.is_off = False
        self.is_full = False
        self.was_trapped = False

    @property
    def journal_entries(self) -> SimEntries:
        """The journal's."""
        assert isinstance(self.entries, SimEntries)
        return self.entries

    def set_trap(self, trap: Trap) -> None:
        """Let the process end at a write to come."""
        self.trap, self._left = trap, trap.nth

    def turn_off(self, *, power: bool) -> None:
        """The process is gone, and whatever of it still runs writes nothing."""
        self.is_off = True
        self.trap = None
        if power:
            self.journal_entries.lose_power(self._rng)

    def turn_on(self) -> None:
        """A new process starts."""
        self.is_off = False

    def write(self, where: str, what: str, apply: Callable[[], None]) -> None:
        """One point of persistence. Raises Crashed, JournalRefused or StorageError."""
        if self.is_off:
            raise Crashed
        kind = f"{where} {what}"
        self.kinds[kind] = self.kinds.get(kind, 0) + 1
        trap = self._sprung(kind)
        if self.is_full or (trap is not None and trap.phase is Phase.FULL):
            self.is_full = True
            raise _no_space(where)
        if trap is None:
            apply()
            return
        if trap.phase is Phase.AFTER or (trap.phase is Phase.TORN and trap.power and self._rng.random() < 0.5):
            apply()
        self.turn_off(power=trap.power)
        self._on_crash(f"{'power fails' if trap.power else 'killed'} {trap.phase.value} a write: {kind}")
        raise Crashed

    def _sprung(self, kind: str) -> Trap | None:
        trap = self.trap
        if trap is None or (trap.kind is not None and not kind.startswith(trap.kind)):
            return None
        self._left -= 1
        if self._left:
            return None
        self.trap = None
        self.was_trapped = True
        return trap


def _no_space(where: str) -> JournalRefused | StorageError:
    if where == "journal":
        return JournalRefused(JournalReason.NO_SPACE, "the disk is full")
    return StorageError(StorageReason.NO_SPACE, "the disk is full")


def _journal_kind(changes: Mapping[bytes, bytes | None]) -> str:
    """By the table of what is put: votes before the bodies that come with them."""
    tables = {key[:1] for key, value in changes.items() if value is not None}
    for table, name in ((b"v", "vote"), (b"c", "certificate"), (b"h", "header")):
        if table in tables:
            return name
    return "other"


def _database_kind(changes: Changes) -> str:
    families = {family for family, _, _ in changes.entries}
    return "block" if "blocks" in families else min(families, default="nothing")


def _put(values: dict[bytes, bytes], key: bytes, value: Any) -> None:
    if value is None:
        values.pop(key, None)
    else:
        values[key] = value
