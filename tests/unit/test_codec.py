"""The canonical encoding: one encoding for one value, and nothing left over."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.codec import Reader, Writer, decode_whole
from bridge.errors import MalformedError

WIDTHS = pytest.mark.parametrize("bits", [8, 16, 32, 64])
Record = tuple[int, int, int, int, bytes, bytes, tuple[int, ...]]
RECORDS = st.tuples(
    st.integers(0, 2**8 - 1),
    st.integers(0, 2**16 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**64 - 1),
    st.binary(min_size=4, max_size=4),
    st.binary(max_size=20),
    st.lists(st.integers(0, 255), max_size=5).map(tuple),
)


def _write(record: Record) -> bytes:
    a, b, c, d, fixed, variable, items = record
    writer = Writer().u8(a).u16(b).u32(c).u64(d).fixed(fixed, 4).variable(variable)
    return writer.sequence(items, Writer.u8).finish()


def _read(reader: Reader) -> Record:
    numbers = (reader.u8(), reader.u16(), reader.u32(), reader.u64())
    return (*numbers, reader.take(4), reader.variable(20), reader.sequence(5, Reader.u8))


@given(RECORDS)
def test_record_round_trips(record: Record) -> None:
    assert decode_whole(_write(record), _read) == record


@given(st.binary(max_size=60))
def test_bytes_that_decode_encode_to_themselves(data: bytes) -> None:
    try:
        record = decode_whole(data, _read)
    except MalformedError:
        return
    assert _write(record) == data


@given(RECORDS, st.data())
def test_record_is_refused_when_cut_or_extended(record: Record, data: st.DataObject) -> None:
    encoded = _write(record)
    cut = data.draw(st.integers(0, len(encoded) - 1))
    for wrong in (encoded[:cut], encoded + b"\x00"):
        with pytest.raises(MalformedError):
            decode_whole(wrong, _read)


@WIDTHS
def test_integer_is_little_endian(bits: int) -> None:
    write = getattr(Writer(), f"u{bits}")
    assert write(1).finish() == b"\x01" + bytes(bits // 8 - 1)


@WIDTHS
@pytest.mark.parametrize("excess", [-1, 0])
def test_integer_is_refused_when_it_does_not_fit(bits: int, excess: int) -> None:
    value = -1 if excess else 2**bits
    with pytest.raises(MalformedError, match="does not fit"):
        getattr(Writer(), f"u{bits}")(value)


def test_fixed_field_is_refused_with_another_size() -> None:
    with pytest.raises(MalformedError, match="3 bytes where 4 belong"):
        Writer().fixed(b"abc", 4)


def test_variable_field_is_refused_over_its_limit() -> None:
    data = Writer().variable(b"abcd").finish()
    assert decode_whole(data, lambda reader: reader.variable(4)) == b"abcd"
    with pytest.raises(MalformedError, match="over its limit"):
        decode_whole(data, lambda reader: reader.variable(3))


def test_sequence_is_refused_over_its_limit() -> None:
    data = Writer().sequence([1, 2], Writer.u8).finish()
    assert decode_whole(data, lambda reader: reader.sequence(2, Reader.u8)) == (1, 2)
    with pytest.raises(MalformedError, match="over its limit"):
        decode_whole(data, lambda reader: reader.sequence(1, Reader.u8))


def test_huge_length_is_refused_before_anything_is_taken() -> None:
    with pytest.raises(MalformedError, match="over its limit"):
        Reader(b"\xff\xff\xff\xff").variable(1_000_000)
    with pytest.raises(MalformedError, match="wanted"):
        Reader(b"\xff\xff\xff\x7f").variable(0xFFFFFFFF)
