"""Bytes in named families, ordered scans, and changes that are written all or not at all.

RocksDB reports everything as a plain `Exception` with a text; `federation.rocks` turns the texts into faults, and this
file the faults into reasons, each with what to do about it.

RocksDB brings each family to disk by itself, and a catalogue that lost its end may still open, with some families as of
today and others as of yesterday. So every write leaves its number, the mark, in each family that it changes, and notes
it in the default family too; families that do not agree with those notes are refused.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self, TypeVar

import rocksdict

from bridge.errors import MalformedError
from federation.rocks import (
    CATALOGUE_FILE,
    DiskError,
    DiskFault,
    Hold,
    close_quietly,
    common_options,
    disk_error,
    linked,
    only_maker,
    require_writable,
)
from pegnode.storage.errors import StorageError, StorageReason

V = TypeVar("V")

SCAN_CHUNK = 256
"""Entries read by one iterator. None outlives its chunk, since a living one would keep the directory locked."""
WRITE_BUFFER_BYTES = 64 * 1024 * 1024
"""Memory for entries not yet in sorted files, shared by all families."""

_NOTES = "default"
"""The family that RocksDB always has: the mark of every other family, by name."""
_MARK_KEY = b""
"""Under this key every family has its mark. No other entry has an empty key, and it stands before all of them."""
_MARK_SIZE = 8


class Changes:
    """Puts and deletions that belong together, in the order in which they were asked for."""

    __slots__ = ("entries",)

    def __init__(self) -> None:
        self.entries: list[tuple[str, bytes, bytes | None]] = []

    def put(self, family: str, key: bytes, value: bytes) -> None:
        """Set `key` to `value`."""
        self.entries.append((family, key, value))

    def delete(self, family: str, key: bytes) -> None:
        """Remove `key`; it need not exist."""
        self.entries.append((family, key, None))


class Database:
    """An open directory of families. One process at a time may hold it; `close` frees it."""

    def __init__(self, path: Path, database: rocksdict.Rdict, families: Sequence[str], held: ExitStack) -> None:
        """For `open`, `create` and `look` only. held: what `close` gives back."""
        self._path = path
        self._held = held
        self._database: rocksdict.Rdict | None = database
        self._families = {name: database.get_column_family(name) for name in (_NOTES, *families)}
        self._handles = {name: database.get_column_family_handle(name) for name in (_NOTES, *families)}
        self._writes = self._checked_marks()

    @staticmethod
    def exists(path: Path) -> bool:
        """Whether a database is at `path`. Raises StorageError (DAMAGED, UNUSABLE) for anything else that is there."""
        try:
            if (path / CATALOGUE_FILE).exists():
                return True
            if path.exists() and any(path.iterdir()):
                raise _advised(path, DiskError(DiskFault.DAMAGED, f"the file {CATALOGUE_FILE} is missing"))
        except OSError as error:
            raise _advised(path, disk_error(path, error)) from error
        return False

    @classmethod
    def create(cls, path: Path, families: Sequence[str], first: "Changes") -> None:
        """Make a database that holds `first`, whole or not at all: it is made beside `path` and then moved there.

        What an earlier attempt left beside is removed, what another process made meanwhile is left alone. Raises
        StorageError; LOCKED while another process makes it.
        """
        beside = path.with_name(f"{path.name}.new")
        with _advising(path), only_maker(path):
            require_writable(path.parent)
            if cls.exists(path):
                return
            shutil.rmtree(beside, ignore_errors=True)
            beside.mkdir(mode=0o700)
            database = cls._opened(beside, beside, families, ExitStack(), read_only=False)
            database.write(first)
            database.close()
            beside.rename(path)

    @staticmethod
    def require_free(path: Path) -> None:
        """Raise StorageError (LOCKED) when anybody has the database open."""
        with _advising(path), Hold(path):
            pass

    @classmethod
    def open(cls, path: Path, families: Sequence[str]) -> Self:
        """Open what `create` made.

        Raises StorageError: LOCKED, NO_SPACE, READ_ONLY, DAMAGED, NEWER_SCHEMA, UNUSABLE.
        """
        with _advising(path), ExitStack() as held:
            held.enter_context(Hold(path))
            require_writable(path)
            _require_known(path, families)
            return cls._opened(path, path, families, held, read_only=False)

    @classmethod
    def look(cls, path: Path, families: Sequence[str]) -> Self:
        """Open what `create` made to read only, and without changing any file. Raises StorageError, as `open`.

        Whoever must not be disturbed by a process that writes holds the directory meanwhile.
        """
        with _advising(path), ExitStack() as held:
            _require_known(path, families)
            return cls._opened(path, held.enter_context(linked(path)), families, held, read_only=True)

    @classmethod
    def _opened(cls, path: Path, place: Path, families: Sequence[str], held: ExitStack, *, read_only: bool) -> Self:
        """The database at `path`, by way of `place`."""
        options = common_options()
        options.create_if_missing(not read_only)
        options.create_missing_column_families(not read_only)
        options.set_db_write_buffer_size(WRITE_BUFFER_BYTES)
        access = rocksdict.AccessType.read_only() if read_only else rocksdict.AccessType.read_write()
        named = {name: rocksdict.Options(raw_mode=True) for name in (_NOTES, *families)}
        with _advising(path):
            opened = rocksdict.Rdict(str(place), options, column_families=named, access_type=access)
            return cls(path, opened, families, held.pop_all())

    def _checked_marks(self) -> int:
        """The number of the newest write. Raises StorageError (DAMAGED) unless all families are of one moment."""
        notes, marks = self._families[_NOTES], []
        for name, family in self._families.items():
            if name != _NOTES:
                mark, noted = family.get(_MARK_KEY), notes.get(name.encode())
                if mark != noted:
                    raise self.damaged(f"the family {name} is of another moment than the rest")
                marks.append(int.from_bytes(mark or b"", "big"))
        return max(marks, default=0)

    def get(self, family: str, key: bytes) -> bytes | None:
        """The value of `key`, or None. Raises StorageError."""
        table = self._family(family)
        try:  # without `_advising`, which would cost more than the reading
            value: bytes | None = table.get(key)
        except Exception as error:
            raise _advised(self._path, disk_error(self._path, error)) from error
        return value

    def decoded(self, decode: Callable[[bytes], V], data: bytes) -> V:
        """What `decode` makes of bytes from here. Raises StorageError (DAMAGED): they are the disk's fault alone."""
        try:
            return decode(data)
        except (MalformedError, ValueError) as error:
            raise self.damaged(str(error)) from error

    def damaged(self, what: str) -> StorageError:
        """The error for contents that can't be trusted."""
        return _advised(self._path, DiskError(DiskFault.DAMAGED, what))

    def scan(
        self, family: str, prefix: bytes = b"", *, start: bytes | None = None, backwards: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """The entries whose key begins with `prefix`, in ascending or descending order of bytes.

        start: the first key to consider, inclusive; without it, the first or last one of the prefix.
        A write between two entries may or may not be seen. Raises StorageError.
        """
        position, skip_equal = start, False
        while True:
            chunk = self._chunk(family, prefix, position, skip_equal, backwards)
            yield from chunk
            if len(chunk) < SCAN_CHUNK:
                return
            position, skip_equal = chunk[-1][0], True

    def frozen_values(self, family: str) -> Iterator[bytes]:
        """Every value of a family as it is now, whatever is written later; may be read in another thread.

        To be read to its end, or dropped: it keeps the directory locked. Raises StorageError.
        """
        with _advising(self._path):
            iterator = self._family(family).iter()  # sees what is there when it is made
        return self._values(iterator)

    def _values(self, iterator: rocksdict.RdictIter) -> Iterator[bytes]:
        with _advising(self._path):
            iterator.seek_to_first()
            while iterator.valid():
                if iterator.key() != _MARK_KEY:
                    yield iterator.value()
                iterator.next()
            iterator.status()  # raises when the scan ended at a damaged place and not at the end

    def write(self, changes: Changes) -> None:
        """Write all changes, or none and raise StorageError; returns when the disk has them."""
        if self._database is None:
            raise StorageError(StorageReason.CLOSED, str(self._path))
        with _advising(self._path):
            batch = rocksdict.WriteBatch(raw_mode=True)
            for family, key, value in changes.entries:
                if value is None:
                    batch.delete(key, self._handles[family])
                else:
                    batch.put(key, value, self._handles[family])
            mark = (self._writes + 1).to_bytes(_MARK_SIZE, "big")
            for family in {family for family, _, _ in changes.entries}:
                batch.put(_MARK_KEY, mark, self._handles[family])
                batch.put(family.encode(), mark, self._handles[_NOTES])
            options = rocksdict.WriteOptions()
            options.sync = True
            self._database.write(batch, options)
        self._writes += 1

    def close(self) -> None:
        """Free the directory. Later calls raise StorageError (CLOSED); closing twice is allowed."""
        if self._database is None:
            return
        databases = [*self._families.values(), self._database]
        self._handles.clear()
        self._families.clear()
        self._database = None
        with self._held:
            close_quietly(databases)

    def _family(self, name: str) -> rocksdict.Rdict:
        if self._database is None:
            raise StorageError(StorageReason.CLOSED, str(self._path))
        return self._families[name]

    def _chunk(
        self, family: str, prefix: bytes, position: bytes | None, skip_equal: bool, backwards: bool
    ) -> list[tuple[bytes, bytes]]:
        chunk: list[tuple[bytes, bytes]] = []
        with _advising(self._path):
            iterator = self._family(family).iter()
            _seek(iterator, prefix, position, backwards)
            if skip_equal and iterator.valid() and iterator.key() == position:
                _step(iterator, backwards)
            while len(chunk) < SCAN_CHUNK and iterator.valid() and iterator.key().startswith(prefix):
                if iterator.key() != _MARK_KEY:
                    chunk.append((iterator.key(), iterator.value()))
                _step(iterator, backwards)
            iterator.status()  # raises when the scan ended at a damaged place and not at the end
        return chunk


def newer_advice(path: Path, what: str) -> str:
    """What to do about a directory that a later release wrote."""
    return f"{path} was written by a later release ({what}); run that release, or give another data directory"


def _seek(iterator: rocksdict.RdictIter, prefix: bytes, position: bytes | None, backwards: bool) -> None:
    if not backwards:
        iterator.seek(prefix if position is None else position)
        return
    if position is not None:
        iterator.seek_for_prev(position)
        return
    after = _successor(prefix)
    if after is None:
        iterator.seek_to_last()
        return
    iterator.seek_for_prev(after)
    if iterator.valid() and iterator.key() == after:
        iterator.prev()


def _step(iterator: rocksdict.RdictIter, backwards: bool) -> None:
    if backwards:
        iterator.prev()
    else:
        iterator.next()


def _successor(prefix: bytes) -> bytes | None:
    """The least key above every key that begins with `prefix`; None when there is none."""
    trimmed = prefix.rstrip(b"\xff")
    return trimmed[:-1] + bytes([trimmed[-1] + 1]) if trimmed else None


_ADVICE = {
    DiskFault.LOCKED: "{path} is in use ({what}); stop the process that uses it, or give this one another data_dir",
    DiskFault.DAMAGED: (
        "{path} is damaged ({what}); nothing in it was changed. Move this folder away and start again: the chain is "
        "fetched anew from the peers. Leave the journal and the keys where they are"
    ),
    DiskFault.NO_SPACE: "no room for {path}: {what}. Make room and start again: nothing that was final is lost",
    DiskFault.READ_ONLY: (
        "can't write {path}: {what}. Mount its disk for writing, or give the folder to the user that runs this process"
    ),
    DiskFault.UNUSABLE: "can't use {path}: {what}",
}


def _advised(path: Path, error: DiskError) -> StorageError:
    """The same with what a person can do about it."""
    return StorageError(StorageReason[error.fault.name], _ADVICE[error.fault].format(path=path, what=error.detail))


@contextmanager
def _advising(path: Path) -> Iterator[None]:
    """Turn what RocksDB and the system raise about `path` into StorageError."""
    try:
        yield
    except StorageError:
        raise
    except Exception as error:  # rocksdict raises nothing narrower
        raise _advised(path, disk_error(path, error)) from error


def _require_known(path: Path, families: Sequence[str]) -> None:
    """Raise StorageError unless the directory holds exactly these families."""
    with _advising(path):
        found = set(rocksdict.Rdict.list_cf(str(path))) - {_NOTES}
    unknown, missing = found - set(families), set(families) - found
    if unknown:
        raise StorageError(StorageReason.NEWER_SCHEMA, newer_advice(path, f"families {sorted(unknown)}"))
    if missing:
        raise _advised(path, DiskError(DiskFault.DAMAGED, f"families {sorted(missing)} are missing"))
