"""The journal's entries on disk, over rocksdict."""

import itertools
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

from rocksdict import AccessType, Rdict, WriteBatch, WriteOptions

from federation.journal import Journal, JournalContents
from federation.journal_errors import RENEW, JournalReason, JournalRefused
from federation.journal_header import JournalIdentity, JournalState
from federation.rocks import (
    CATALOGUE_FILE,
    DiskError,
    DiskFault,
    Hold,
    close_quietly,
    common_options,
    disk_error,
    held_still,
    linked,
    only_maker,
    require_writable,
)

_ASKS_FIRST = (
    "It makes a journal that asks the others first, and deletes nothing. Put no older copy in its place: with one, "
    "this member could sign against its own earlier word"
)
_ADVICE = {
    DiskFault.LOCKED: "{path} is in use ({what}); a member runs once: stop its other process",
    DiskFault.DAMAGED: f"{{path}} is damaged ({{what}}); nothing in it was changed. Do: {RENEW}. {_ASKS_FIRST}",
    DiskFault.NO_SPACE: "no room for {path}: {what}. Make room and start again: nothing that was signed is forgotten",
    DiskFault.READ_ONLY: (
        "can't write {path}: {what}. Mount its disk for writing, or give the folder to the user that runs this process"
    ),
    DiskFault.UNUSABLE: "can't use {path}: {what}",
}


class RocksEntries:
    """JournalEntries in one directory. One process at a time may hold it."""

    def __init__(self, path: Path, database: Rdict, held: ExitStack) -> None:
        """For `create`, `open` and `look` only. held: what `close` gives back."""
        self._path = path
        self._database = database
        self._held = held
        self._closed = False

    @classmethod
    def create(cls, path: Path) -> Self:
        """Begin a directory. Raises JournalRefused: EXISTS, LOCKED, NO_SPACE, READ_ONLY, UNUSABLE."""
        with _advising(path), ExitStack() as held:
            if path.exists() and any(path.iterdir()):
                raise JournalRefused(JournalReason.EXISTS, f"{path} is not empty")
            path.mkdir(exist_ok=True, mode=0o700)
            return cls._write_to(path, held, create=True)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open what `create` began. Raises JournalRefused: MISSING, DAMAGED, LOCKED, NO_SPACE, READ_ONLY, UNUSABLE."""
        with _advising(path), ExitStack() as held:
            _require_present(path)
            return cls._write_to(path, held, create=False)

    @classmethod
    def _write_to(cls, path: Path, held: ExitStack, *, create: bool) -> Self:
        """The database in a directory that nobody else has open."""
        held.enter_context(Hold(path))
        require_writable(path)
        options = common_options()
        options.create_if_missing(create)
        return cls(path, Rdict(str(path), options), held.pop_all())

    @classmethod
    def look(cls, path: Path) -> Self:
        """Open what `create` began to read only, and without changing any file. Raises JournalRefused, as `open`."""
        with _advising(path), ExitStack() as held:
            _require_present(path)
            place = held.enter_context(linked(path))
            database = Rdict(str(place), common_options(), access_type=AccessType.read_only())
            return cls(path, database, held.pop_all())

    def get(self, key: bytes) -> bytes | None:
        """The value of `key`. Raises JournalRefused."""
        with _advising(self._path):
            value: bytes | None = self._database.get(key)
        return value

    def scan(self, first: bytes, last: bytes) -> list[tuple[bytes, bytes]]:
        """The entries with first <= key <= last, in order of keys. Raises JournalRefused."""
        found: list[tuple[bytes, bytes]] = []
        with _advising(self._path):
            iterator = self._database.iter()
            iterator.seek(first)
            while iterator.valid() and iterator.key() <= last:
                found.append((iterator.key(), iterator.value()))
                iterator.next()
            iterator.status()  # raises if the scan ended at a damaged place and not at the end
        return found

    def write(self, changes: Mapping[bytes, bytes | None], *, sync: bool) -> None:
        """Put and delete in one batch. Raises JournalRefused, having written nothing."""
        batch = WriteBatch(raw_mode=True)
        for key, value in changes.items():
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        options = WriteOptions()
        options.sync = sync
        with _advising(self._path):
            self._database.write(batch, options)

    def close(self) -> None:
        """Free the directory; later use raises JournalRefused (UNUSABLE), but closing again is allowed."""
        if not self._closed:
            self._closed = True
            with self._held:
                close_quietly([self._database])


def create_journal(path: Path, identity: JournalIdentity, floor_view: int = 0) -> Journal:
    """Make an empty journal in a new directory, whole or not at all: beside its place, and then moved there.

    Raises JournalRefused: EXISTS, LOCKED, NO_SPACE, READ_ONLY, UNUSABLE.
    """
    with _advising(path), only_maker(path):
        if path.exists() and any(path.iterdir()):
            raise JournalRefused(JournalReason.EXISTS, f"{path} is not empty")
        _made_beside(path, identity, floor_view, forgotten=False).rename(path)
    return open_journal(path, identity)


def renew_journal(path: Path, identity: JournalIdentity) -> Path | None:
    """Put a journal that has forgotten in the place of what is there; where that lies now, None if there was nothing.

    Nothing is deleted. An attempt that was cut short is made good by another. Raises JournalRefused: LOCKED, NO_SPACE,
    READ_ONLY, UNUSABLE.
    """
    with _advising(path), only_maker(path), held_still(path):
        beside = _made_beside(path, identity, 0, forgotten=True)
        aside = None
        if path.exists() and any(path.iterdir()):
            aside = _free_name(path)
            path.rename(aside)
        beside.rename(path)
        return aside


def _made_beside(path: Path, identity: JournalIdentity, floor_view: int, *, forgotten: bool) -> Path:
    """A whole journal next to its place, to be moved there; for the only maker."""
    beside = path.with_name(f"{path.name}.new")
    shutil.rmtree(beside, ignore_errors=True)  # of an attempt that was cut short
    Journal.create(RocksEntries.create(beside), identity, floor_view, forgotten=forgotten).close()
    return beside


def _free_name(path: Path) -> Path:
    """Where what lies at `path` is kept: nothing has this name."""
    numbers = itertools.count(1)
    return next(name for number in numbers if not (name := path.with_name(f"{path.name}.old-{number}")).exists())


def open_journal(path: Path, identity: JournalIdentity) -> Journal:
    """Go on with the journal in this directory; what is refused is left as it was.

    Raises JournalRefused: MISSING, DAMAGED, NEWER, FOREIGN, LOCKED, NO_SPACE, READ_ONLY, UNUSABLE.
    """
    _require_present(path)
    with _advising(path), Hold(path):
        look_into_journal(path, identity).close()  # RocksDB would move files about even in a directory that is refused
    return _opened(RocksEntries.open(path), identity, path)


def look_into_journal(path: Path, identity: JournalIdentity) -> Journal:
    """The journal in this directory, to read only; no file is changed. Raises JournalRefused, as `open_journal`.

    Whoever must not be disturbed by a process that writes holds the directory meanwhile.
    """
    return _opened(RocksEntries.look(path), identity, path)


def read_journal(path: Path, identity: JournalIdentity) -> tuple[JournalState, JournalContents]:
    """What a journal that nobody has open holds; no file is changed. Raises JournalRefused, as `open_journal`."""
    _require_present(path)
    with _advising(path), Hold(path):
        journal = look_into_journal(path, identity)
        try:
            return journal.state, journal.contents()
        finally:
            journal.close()


def _opened(entries: RocksEntries, identity: JournalIdentity, path: Path) -> Journal:
    try:
        return Journal.open(entries, identity)
    except JournalRefused as refused:
        entries.close()
        if refused.reason is JournalReason.DAMAGED:
            raise _advised(path, DiskError(DiskFault.DAMAGED, refused.detail)) from refused
        raise


def _require_present(path: Path) -> None:
    """Raise JournalRefused (MISSING) when there is nothing, and DAMAGED when there is something else."""
    with _advising(path):
        if (path / CATALOGUE_FILE).exists():
            return
        if path.exists() and any(path.iterdir()):
            raise DiskError(DiskFault.DAMAGED, f"the file {CATALOGUE_FILE} is missing")
    raise JournalRefused(JournalReason.MISSING, f"there is no journal in {path}; if it is lost: {RENEW}. {_ASKS_FIRST}")


def _advised(path: Path, error: DiskError) -> JournalRefused:
    """The same with what a person can do about it."""
    return JournalRefused(JournalReason[error.fault.name], _ADVICE[error.fault].format(path=path, what=error.detail))


@contextmanager
def _advising(path: Path) -> Iterator[None]:
    """Turn what RocksDB and the system raise about `path` into JournalRefused."""
    try:
        yield
    except JournalRefused:
        raise
    except Exception as error:  # rocksdict raises nothing narrower
        raise _advised(path, disk_error(path, error)) from error
