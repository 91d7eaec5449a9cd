"""Records on disk: those that final blocks carried out, in their order, and checked with the rest."""

from pathlib import Path

import pytest

from federation.record import SignedRecord
from pegnode.storage.check import CheckReason, WrongRecord, check_chain
from pegnode.storage.database import Changes, Database
from pegnode.storage.keys import height_key
from pegnode.storage.store import FAMILIES, RECORDS, ChainStore, FinalBlock
from tests.support.chain import MemoryChain
from tests.support.final_chains import certificate
from tests.support.records import carried_out, changed, resume


class Directory:
    """A store of two blocks, of two records and of one."""

    def __init__(self, path: Path) -> None:
        self.path = path / "chain"
        self.scratch = path / "scratch"
        self.scratch.mkdir()
        chain = MemoryChain()
        self.rules = chain.rules
        self.records = [resume(self.rules, serial) for serial in (1, 2, 3)]
        store = ChainStore.open(self.path, self.rules)
        for records in (self.records[:2], self.records[2:]):
            built = carried_out(chain, *records)
            proof = certificate(self.rules, built.block).encode()
            store.commit([FinalBlock(built.state, built.block.encode(), proof)])
        store.close()

    def stored(self, from_serial: int = 1) -> list[SignedRecord]:
        """What a process that starts on it finds."""
        store = ChainStore.look(self.path, self.rules)
        try:
            return list(store.records(from_serial))
        finally:
            store.close()

    def check(self) -> None:
        """As `peg db check` does."""
        check_chain(self.path, self.rules, self.scratch, lambda *_: None)


@pytest.fixture
def directory(tmp_path: Path) -> Directory:
    return Directory(tmp_path)


def test_records_are_kept_by_serial_and_read_back_from_any_on(directory: Directory) -> None:
    assert directory.stored() == directory.records
    assert directory.stored(from_serial=3) == directory.records[2:]
    assert directory.stored(from_serial=4) == []
    directory.check()


@pytest.mark.parametrize("fault", ["missing", "another", "one too many"])
def test_record_that_is_not_the_one_in_its_block_is_found(directory: Directory, fault: str) -> None:
    serial = 4 if fault == "one too many" else 2
    changes = Changes()
    if fault == "missing":
        changes.delete(RECORDS, height_key(serial))
    else:
        false = changed(directory.records[1], serial=serial, expires_at_anchor=999)
        changes.put(RECORDS, height_key(serial), false.encode())
    database = Database.open(directory.path, FAMILIES)
    database.write(changes)
    database.close()
    with pytest.raises(WrongRecord) as caught:
        directory.check()
    assert caught.value.reason is CheckReason.STATE
    assert caught.value.record == f"records {height_key(serial).hex()}"
