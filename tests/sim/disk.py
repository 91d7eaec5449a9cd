"""A member's disk that may stop at every write, before it or after it; and what the power failure leaves.

The journal and the database are logs of batches. A process that is killed loses nothing that it has written. When power
fails, batches that were not synced are lost, from some point on. Of the batch that was being written nothing or all is
there, since RocksDB drops the torn end of its log: an end in the midst of a write is one before it or one after it.
"""

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Final

from federation.journal_errors import JournalReason, JournalRefused
from pegnode.storage.database import Changes
from pegnode.storage.errors import StorageError, StorageReason
from tests.support.memory_disk import Disk, MemoryDatabase
from tests.support.memory_entries import MemoryEntries

DOWN_S: Final = 0.1
"""How long a process is gone that nobody planned to be gone for longer."""


class Crashed(BaseException):
    """The process is gone. A BaseException: nothing in it may take notice."""


class Phase(enum.Enum):
    """Where in a write it happens."""

    BEFORE = "before"
    AFTER = "after"
    FULL = "at"
    """The disk is full from this write on. It is the program that ends its process."""


ENDS: Final = (
    (Phase.BEFORE, False), (Phase.BEFORE, True), (Phase.AFTER, False), (Phase.AFTER, True), (Phase.FULL, False),
)  # fmt: skip
"""All ways to end at a write, as the phase and the power of a trap."""


@dataclass(frozen=True, slots=True)
class Trap:
    """Where the process ends. kind: the beginning of the write's, see `SimDisk.written`; None for any.  nth: from 1 on.

    power: power fails, so that what was not synced is lost.
    """

    phase: Phase
    kind: str | None = None
    nth: int = 1
    power: bool = False

    def __str__(self) -> str:
        return f"{self.end} write {self.nth} of {self.kind or 'any kind'}"

    @property
    def end(self) -> str:
        """How the process ends."""
        if self.phase is Phase.FULL:
            return "disk full at"
        return f"{'power fails' if self.power else 'killed'} {self.phase.value}"


@dataclass(slots=True)
class Armed:
    """A trap that is set. left: writes of its kind up to the one that springs it.

    down_s: how long the process is gone then.  sprung_at: the kind of that write; None while it waits.
    """

    trap: Trap
    left: int
    down_s: float
    sprung_at: str | None = None

    def loosen(self) -> None:
        """Let any write spring it."""
        self.trap, self.left = replace(self.trap, kind=None), 1

    def steps(self, kind: str) -> bool:
        """Whether a write of this kind springs it."""
        if self.trap.kind is None or kind.startswith(self.trap.kind):
            self.left -= 1
            return self.left <= 0
        return False


class SimEntries(MemoryEntries):
    """The journal's entries."""

    def __init__(self, disk: "SimDisk") -> None:
        super().__init__()
        self._disk = disk
        self._unsynced: list[Mapping[bytes, bytes | None]] = []
        self.version = 0

    def write(self, changes: Mapping[bytes, bytes | None], *, sync: bool) -> None:
        """Put and delete, unless it is here that the process ends."""
        self._disk.write("journal", _journal_kind(changes), lambda: self._apply(changes, sync=sync), sync=sync)

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
        self._disk.write(
            "database", _database_kind(changes), lambda: super(SimDatabase, self).write(changes), sync=True
        )


class SimDisk(Disk):
    """Both, with numbered points of persistence.

    rng: decides what has luck when power fails.  on_crash: told at the very moment, before anything else can happen.
    on_sync: told of each write that the process has to wait for.
    written: the kind of each write until everything heals, over all lives.
    sprung: each trap that sprung, with the kind of the write.
    down_s: how long the process that ends next is gone.
    """

    def __init__(
        self, rng: Random, on_crash: Callable[[str], None], on_sync: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__(None, SimDatabase(self), SimEntries(self))
        self._rng = rng
        self._on_crash = on_crash
        self._on_sync = on_sync
        self._armed: list[Armed] = []
        self.written: list[str] = []
        self.sprung: list[tuple[Trap, str]] = []
        self.down_s = DOWN_S
        self.is_off = False
        self.is_full = False
        self._is_healed = False

    @property
    def journal_entries(self) -> SimEntries:
        """The journal's."""
        assert isinstance(self.entries, SimEntries)
        return self.entries

    def set_trap(self, trap: Trap, down_s: float = DOWN_S) -> Armed:
        """Let a process end at a write to come: this one or, if it ends before, a later one."""
        armed = Armed(trap, trap.nth, down_s)
        self._armed.append(armed)
        return armed

    def withdraw(self, armed: Armed) -> None:
        """Take back a trap that has not sprung."""
        self._armed.remove(armed)

    def heal(self) -> None:
        """Nothing ends here any more, and there is room."""
        self._armed.clear()
        self._is_healed, self.is_full = True, False
        self.down_s = DOWN_S

    def copied_tables(self) -> dict[str, dict[bytes, bytes]]:
        """What a copy of the database's files has now."""
        return {name: dict(table) for name, table in self.database.families_in_memory.items()}

    def replace_database(self, copy: Mapping[str, dict[bytes, bytes]]) -> None:
        """The database is gone, and in its place there is an older copy, or with an empty one nothing.

        A process that has it open, and is gone too, still reads the other.
        """
        self.database = SimDatabase(self)
        self.database.families_in_memory.update(copy)

    def turn_off(self, *, power: bool) -> None:
        """The process is gone, and whatever of it still runs writes nothing."""
        self.is_off = True
        if power:
            self.journal_entries.lose_power(self._rng)

    def turn_on(self) -> None:
        """A new process starts, and has room again."""
        self.is_off = self.is_full = False

    def write(self, where: str, what: str, apply: Callable[[], None], *, sync: bool) -> None:
        """One point of persistence. Raises Crashed, JournalRefused or StorageError."""
        if self.is_off:
            raise Crashed
        kind = f"{where} {what}"
        if not self._is_healed:
            self.written.append(kind)
        trap = None if self.is_full else self._sprung(kind)
        if self.is_full or (trap is not None and trap.phase is Phase.FULL):
            self.is_full = True
            raise _no_space(where)
        if trap is None:
            apply()
            if sync:
                self._on_sync()
            return
        if trap.phase is Phase.AFTER:
            apply()
        self.turn_off(power=trap.power)
        self._on_crash(f"{trap.end} a write: {kind}")
        raise Crashed

    def _sprung(self, kind: str) -> Trap | None:
        """What is set for this write. Of several traps the first springs, and the others at their next chance."""
        ready = [armed for armed in self._armed if armed.steps(kind)]
        if not ready:
            return None
        armed = ready[0]
        self._armed.remove(armed)
        armed.sprung_at = kind
        self.down_s = armed.down_s
        self.sprung.append((armed.trap, kind))
        return armed.trap


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
