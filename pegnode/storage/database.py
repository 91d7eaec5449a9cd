"""The only user of rocksdict: bytes in named families, ordered scans, and changes that are written all or not at all.

RocksDB reports everything as a plain `Exception` with a text; this file turns the texts into reasons.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self, TypeVar

import rocksdict

from bridge.errors import MalformedError
from pegnode.storage.errors import StorageError, StorageReason

V = TypeVar("V")

SCAN_CHUNK = 256
"""Entries read by one iterator. None outlives its chunk, since a living one would keep the directory locked."""
WRITE_BUFFER_BYTES = 64 * 1024 * 1024
"""Memory for entries not yet in sorted files, shared by all families."""
KEPT_LOGS = 4

_LOCK_TEXTS = ("lock hold by current process", "While lock file", "No locks available")
_DAMAGE_TEXTS = ("Corruption", "MANIFEST", "checksum mismatch")


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

    def __init__(self, path: Path, database: rocksdict.Rdict, families: Sequence[str]) -> None:
        self._path = path
        self._database: rocksdict.Rdict | None = database
        self._families = {name: database.get_column_family(name) for name in families}
        self._handles = {name: database.get_column_family_handle(name) for name in families}

    @classmethod
    def open(cls, path: Path, families: Sequence[str]) -> Self:
        """Open `path`, creating it and any missing family.

        Raises StorageError: LOCKED, DAMAGED, UNUSABLE, or NEWER_SCHEMA when it holds a family that we don't know.
        """
        try:
            if path.is_dir() and any(path.iterdir()) and not (path / "CURRENT").exists():
                raise StorageError(StorageReason.DAMAGED, _damage_advice(path, "the file CURRENT is missing"))
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise StorageError(StorageReason.UNUSABLE, f"can't open {path}: {error.strerror}") from error
        with _translating(path):
            if (path / "CURRENT").exists():
                unknown = set(rocksdict.Rdict.list_cf(str(path))) - {"default", *families}
                if unknown:
                    raise StorageError(StorageReason.NEWER_SCHEMA, newer_advice(path, f"families {sorted(unknown)}"))
            opened = rocksdict.Rdict(
                str(path),
                _options(),
                column_families={name: rocksdict.Options(raw_mode=True) for name in ("default", *families)},
            )
            return cls(path, opened, families)

    def get(self, family: str, key: bytes) -> bytes | None:
        """The value of `key`, or None. Raises StorageError."""
        table = self._family(family)
        try:  # without `_translating`, which would cost more than the reading
            value: bytes | None = table.get(key)
        except Exception as error:
            raise _translated(self._path, error) from error
        return value

    def decoded(self, decode: Callable[[bytes], V], data: bytes) -> V:
        """What `decode` makes of bytes from here. Raises StorageError (DAMAGED): they are the disk's fault alone."""
        try:
            return decode(data)
        except (MalformedError, ValueError) as error:
            raise self.damaged(str(error)) from error

    def damaged(self, what: str) -> StorageError:
        """The error for contents that can't be trusted."""
        return StorageError(StorageReason.DAMAGED, _damage_advice(self._path, what))

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
        with _translating(self._path):
            iterator = self._family(family).iter()  # sees what is there when it is made
        return self._values(iterator)

    def _values(self, iterator: rocksdict.RdictIter) -> Iterator[bytes]:
        with _translating(self._path):
            iterator.seek_to_first()
            while iterator.valid():
                yield iterator.value()
                iterator.next()
            iterator.status()  # raises when the scan ended at a damaged place and not at the end

    def write(self, changes: Changes) -> None:
        """Write all changes, or none and raise StorageError; returns when the disk has them."""
        if self._database is None:
            raise StorageError(StorageReason.CLOSED, str(self._path))
        with _translating(self._path):
            batch = rocksdict.WriteBatch(raw_mode=True)
            for family, key, value in changes.entries:
                if value is None:
                    batch.delete(key, self._handles[family])
                else:
                    batch.put(key, value, self._handles[family])
            options = rocksdict.WriteOptions()
            options.sync = True
            self._database.write(batch, options)

    def close(self) -> None:
        """Free the directory. Later calls raise StorageError (CLOSED); closing twice is allowed."""
        if self._database is None:
            return
        self._handles.clear()
        for family in self._families.values():
            family.close()
        self._families.clear()
        self._database.close()
        self._database = None

    def _family(self, name: str) -> rocksdict.Rdict:
        if self._database is None:
            raise StorageError(StorageReason.CLOSED, str(self._path))
        return self._families[name]

    def _chunk(
        self, family: str, prefix: bytes, position: bytes | None, skip_equal: bool, backwards: bool
    ) -> list[tuple[bytes, bytes]]:
        chunk: list[tuple[bytes, bytes]] = []
        with _translating(self._path):
            iterator = self._family(family).iter()
            _seek(iterator, prefix, position, backwards)
            if skip_equal and iterator.valid() and iterator.key() == position:
                _step(iterator, backwards)
            while len(chunk) < SCAN_CHUNK and iterator.valid() and iterator.key().startswith(prefix):
                chunk.append((iterator.key(), iterator.value()))
                _step(iterator, backwards)
            iterator.status()  # raises when the scan ended at a damaged place and not at the end
        return chunk


def newer_advice(path: Path, what: str) -> str:
    """What to do about a directory that a later release wrote."""
    return f"{path} was written by a later release ({what}); run that release, or give another data directory"


def _options() -> rocksdict.Options:
    options = rocksdict.Options(raw_mode=True)
    options.create_if_missing(True)
    options.create_missing_column_families(True)
    options.set_db_write_buffer_size(WRITE_BUFFER_BYTES)
    options.set_keep_log_file_num(KEPT_LOGS)
    return options


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


def _damage_advice(path: Path, what: str) -> str:
    """What to do about a directory whose contents can't be trusted."""
    return f"{path} is damaged ({what}); move it away and start again: the chain is fetched anew from the peers"


@contextmanager
def _translating(path: Path) -> Iterator[None]:
    """Turn what rocksdict raises, which is never narrower than Exception, into StorageError."""
    try:
        yield
    except StorageError:
        raise
    except Exception as error:
        raise _translated(path, error) from error


def _translated(path: Path, error: Exception) -> StorageError:
    text = str(error)
    if any(mark in text for mark in _LOCK_TEXTS):
        return StorageError(StorageReason.LOCKED, f"another process uses {path}; stop it first")
    if any(mark in text for mark in _DAMAGE_TEXTS):
        return StorageError(StorageReason.DAMAGED, _damage_advice(path, text))
    return StorageError(StorageReason.UNUSABLE, f"can't use {path}: {text}")
