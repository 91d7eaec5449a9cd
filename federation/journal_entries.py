"""The journal's entries on disk, over rocksdict."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rocksdict import Options, Rdict, WriteBatch, WriteOptions

from federation.journal import Journal, JournalIdentity, JournalReason, JournalRefused

_KEPT_LOGS = 2
_LOCK_TEXTS = ("lock hold by current process", "While lock file", "No locks available")


class RocksEntries:
    """JournalEntries in one directory. One process at a time may hold it."""

    def __init__(self, path: Path, *, create: bool) -> None:
        """Open the directory. Raises JournalRefused: MISSING unless `create`, EXISTS, LOCKED, UNUSABLE."""
        self._path = path
        self._closed = False
        begun = (path / "CURRENT").exists()
        if not begun and not create:
            raise JournalRefused(JournalReason.MISSING, f"no journal in {path}")
        if not begun and path.exists() and any(path.iterdir()):
            raise JournalRefused(JournalReason.EXISTS, f"{path} is not empty")
        options = Options(raw_mode=True)
        options.create_if_missing(create)
        options.set_keep_log_file_num(_KEPT_LOGS)
        with self._translating():
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._database = Rdict(str(path), options)

    def get(self, key: bytes) -> bytes | None:
        """The value of `key`. Raises JournalRefused (UNUSABLE)."""
        with self._translating():
            value: bytes | None = self._database.get(key)
        return value

    def scan(self, first: bytes, last: bytes) -> list[tuple[bytes, bytes]]:
        """The entries with first <= key <= last, in order of keys. Raises JournalRefused (UNUSABLE)."""
        found: list[tuple[bytes, bytes]] = []
        with self._translating():
            iterator = self._database.iter()
            iterator.seek(first)
            while iterator.valid() and iterator.key() <= last:
                found.append((iterator.key(), iterator.value()))
                iterator.next()
            iterator.status()  # raises if the scan ended at a damaged place and not at the end
        return found

    def write(self, changes: Mapping[bytes, bytes | None], *, sync: bool) -> None:
        """Put and delete in one batch. Raises JournalRefused (UNUSABLE), having written nothing."""
        batch = WriteBatch(raw_mode=True)
        for key, value in changes.items():
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        options = WriteOptions()
        options.sync = sync
        with self._translating():
            self._database.write(batch, options)

    def close(self) -> None:
        """Free the directory; later use raises JournalRefused (UNUSABLE), but closing again is allowed."""
        if not self._closed:
            self._closed = True
            self._database.close()

    @contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # rocksdict raises nothing narrower
            if any(mark in str(error) for mark in _LOCK_TEXTS):
                detail = f"another process uses {self._path}; stop it first"
                raise JournalRefused(JournalReason.LOCKED, detail) from error
            raise JournalRefused(JournalReason.UNUSABLE, f"{self._path}: {error}") from error


def create_journal(path: Path, identity: JournalIdentity, floor_view: int = 0) -> Journal:
    """Begin an empty journal in a new directory. Raises JournalRefused: EXISTS, UNUSABLE."""
    entries = RocksEntries(path, create=True)
    try:
        return Journal.create(entries, identity, floor_view)
    except JournalRefused:
        entries.close()
        raise


def open_journal(path: Path, identity: JournalIdentity) -> Journal:
    """Go on with the journal in this directory. Raises JournalRefused: MISSING, DAMAGED, FOREIGN, LOCKED, UNUSABLE."""
    entries = RocksEntries(path, create=False)
    try:
        return Journal.open(entries, identity)
    except JournalRefused:
        entries.close()
        raise
