"""Tables: overlays read like one ordered map, and leave what is below them as it was."""

from hypothesis import given
from hypothesis import strategies as st

from bridge.bitcoin.identifiers import OutPoint, Txid
from bridge.tables import MemoryTable, OverlayTable, key_bytes

KEYS = st.integers(min_value=0, max_value=600)
WRITES = st.lists(st.tuples(KEYS, st.none() | st.integers()), max_size=20)


def _write(table: MemoryTable[int, int] | OverlayTable[int, int], writes: list[tuple[int, int | None]]) -> None:
    for key, value in writes:
        if value is None:
            table.delete(key)
        else:
            table.put(key, value)


def _model(*layers: list[tuple[int, int | None]]) -> dict[int, int]:
    merged: dict[int, int | None] = {}
    for layer in layers:
        merged.update(layer)
    return {key: value for key, value in sorted(merged.items()) if value is not None}


@given(below=WRITES, middle=WRITES, above=WRITES)
def test_overlays_read_like_one_map(
    below: list[tuple[int, int | None]], middle: list[tuple[int, int | None]], above: list[tuple[int, int | None]]
) -> None:
    base: MemoryTable[int, int] = MemoryTable()
    _write(base, below)
    overlay = OverlayTable(base)
    _write(overlay, middle)
    top = OverlayTable(overlay)
    _write(top, above)
    expected = _model(below, middle, above)
    assert list(top.items()) == list(expected.items())
    assert [top.get(key) for key in range(601)] == [expected.get(key) for key in range(601)]
    assert [key in top for key in range(601)] == [key in expected for key in range(601)]
    assert list(base.items()) == list(_model(below).items())


@given(below=WRITES, middle=WRITES, above=WRITES)
def test_absorb_takes_over_every_write(
    below: list[tuple[int, int | None]], middle: list[tuple[int, int | None]], above: list[tuple[int, int | None]]
) -> None:
    base: MemoryTable[int, int] = MemoryTable()
    _write(base, below)
    overlay = OverlayTable(base)
    _write(overlay, middle)
    top = OverlayTable(overlay)
    _write(top, above)
    overlay.absorb(top)
    assert list(overlay.items()) == list(_model(below, middle, above).items())
    assert list(base.items()) == list(_model(below).items())


def test_memory_table_deletes_an_absent_key() -> None:
    table: MemoryTable[int, int] = MemoryTable()
    table.delete(7)
    assert 7 not in table


def test_key_order_of_numbers_is_numeric() -> None:
    numbers = [0, 1, 255, 256, 65_536, 2**63]
    assert sorted(numbers, key=key_bytes) == numbers


def test_key_of_an_outpoint_is_its_encoding() -> None:
    outpoint = OutPoint(Txid(bytes(range(32))), 258)
    assert key_bytes(outpoint) == bytes(range(32)) + b"\x02\x01\x00\x00"


def test_key_of_a_hash_is_the_hash() -> None:
    assert key_bytes(Txid(bytes(range(32)))) == bytes(range(32))
