"""The database below the store: ordered scans, and changes in their order."""

from pathlib import Path

import pytest

from pegnode.storage.database import SCAN_CHUNK, Changes, Database


@pytest.mark.parametrize("count", [0, 1, SCAN_CHUNK - 1, SCAN_CHUNK, SCAN_CHUNK + 1, 3 * SCAN_CHUNK])
def test_scan_reads_every_key_of_a_prefix_once(tmp_path: Path, count: int) -> None:
    Database.create(tmp_path / "one", ["one"], Changes())
    database = Database.open(tmp_path / "one", ["one"])
    changes = Changes()
    keys = [b"m" + index.to_bytes(4, "big") for index in range(count)]
    for key in (*keys, b"l", b"n", b"l\xff\xff", b"\xff"):
        changes.put("one", key, key)
    database.write(changes)
    assert [key for key, _ in database.scan("one", b"m")] == keys
    assert [key for key, _ in database.scan("one", b"m", backwards=True)] == keys[::-1]
    assert [value for _, value in database.scan("one", b"m", start=b"m" + bytes(3) + b"\x01")] == keys[1:]
    assert [key for key, _ in database.scan("one", b"\xff", backwards=True)] == [b"\xff"]
    assert len(list(database.scan("one", backwards=True))) == count + 4
    database.close()


def test_write_of_a_deletion_and_a_put_keeps_their_order(tmp_path: Path) -> None:
    Database.create(tmp_path / "one", ["one"], Changes())
    database = Database.open(tmp_path / "one", ["one"])
    changes = Changes()
    changes.delete("one", b"a")
    changes.put("one", b"a", b"put last")
    changes.put("one", b"b", b"deleted last")
    changes.delete("one", b"b")
    database.write(changes)
    assert (database.get("one", b"a"), database.get("one", b"b")) == (b"put last", None)
    database.close()
