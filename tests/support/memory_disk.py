"""What a member in memory has for a disk: it survives the member, as disks do."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pegnode.storage import store as store_module
from pegnode.storage.database import Changes, Database
from pegnode.storage.store import ChainStore
from tests.support.memory_entries import MemoryEntries


class MemoryDatabase(Database):
    """The database's twin in memory. It survives `close`, as a disk does."""

    def __init__(self) -> None:
        self._path = Path("in memory")
        self.families_in_memory: dict[str, dict[bytes, bytes]] = {name: {} for name in store_module.FAMILIES}

    def get(self, family: str, key: bytes) -> bytes | None:
        return self.families_in_memory[family].get(key)

    def scan(
        self, family: str, prefix: bytes = b"", *, start: bytes | None = None, backwards: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        found = sorted(item for item in self.families_in_memory[family].items() if item[0].startswith(prefix))
        if backwards:
            return iter([item for item in reversed(found) if start is None or item[0] <= start])
        return iter([item for item in found if start is None or item[0] >= start])

    def frozen_values(self, family: str) -> Iterator[bytes]:
        return iter(list(self.families_in_memory[family].values()))

    def write(self, changes: Changes) -> None:
        for family, key, value in changes.entries:
            if value is None:
                self.families_in_memory[family].pop(key, None)
            else:
                self.families_in_memory[family][key] = value

    def close(self) -> None:
        pass

    def open_store(self, rules: Any) -> ChainStore:
        """The store of a chain over this database."""
        if not self.families_in_memory[store_module.META]:
            self.write(store_module._genesis(rules))
        return ChainStore._load(self._path, self, rules)


@dataclass
class Disk:
    """What survives a member's restart. folder: where its store is; None for one in memory."""

    folder: Path | None = None
    database: MemoryDatabase = field(default_factory=MemoryDatabase)
    entries: MemoryEntries = field(default_factory=MemoryEntries)

    def open_store(self, rules: Any) -> ChainStore:
        """The store on it."""
        return self.database.open_store(rules) if self.folder is None else ChainStore.open(self.folder, rules)
