"""Frames come out of the decoder as they went in, however the stream was cut; malformed ones by reason."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pegnode.net.framing import FrameDecoder, FrameKind, encode_frame
from pegnode.net.transport import DropReason, RemoteFault

FRAMES = st.lists(st.tuples(st.sampled_from(FrameKind), st.binary(max_size=50)), max_size=20)


def pieces_of(data: bytes, cuts: list[int]) -> list[bytes]:
    """`data`, cut at the given places."""
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(places)]


@given(FRAMES, st.lists(st.integers(min_value=0), max_size=30))
def test_frames_survive_any_split(frames: list[tuple[FrameKind, bytes]], cuts: list[int]) -> None:
    stream = b"".join(encode_frame(kind, payload) for kind, payload in frames)
    decoder = FrameDecoder(50)
    assert [frame for piece in pieces_of(stream, cuts) for frame in decoder.feed(piece)] == frames


def test_frame_layout_is_length_kind_payload() -> None:
    assert encode_frame(FrameKind.PAYLOAD, b"abc") == bytes.fromhex("0400000005") + b"abc"


def test_frame_at_the_limit_passes() -> None:
    assert list(FrameDecoder(3).feed(encode_frame(FrameKind.PAYLOAD, b"abc"))) == [(FrameKind.PAYLOAD, b"abc")]


def test_frame_over_the_limit_is_refused_on_its_length_alone() -> None:
    with pytest.raises(RemoteFault) as refusal:
        list(FrameDecoder(3).feed(encode_frame(FrameKind.PAYLOAD, b"abcd")[:4]))
    assert refusal.value.reason is DropReason.FRAME_TOO_LARGE


def test_limit_may_change_between_frames() -> None:
    decoder = FrameDecoder(1)
    stream = encode_frame(FrameKind.HELLO, b"a") + encode_frame(FrameKind.PAYLOAD, b"long")
    received = []
    for kind, payload in decoder.feed(stream):
        received.append((kind, payload))
        decoder.max_payload_bytes = 4
    assert received == [(FrameKind.HELLO, b"a"), (FrameKind.PAYLOAD, b"long")]


@pytest.mark.parametrize("stream", [bytes(4), b"\x01\0\0\0\x00", b"\x01\0\0\0\x63"], ids=["empty", "kind 0", "kind 99"])
def test_frame_without_a_known_kind_is_garbled(stream: bytes) -> None:
    with pytest.raises(RemoteFault) as refusal:
        list(FrameDecoder(3).feed(stream))
    assert refusal.value.reason is DropReason.GARBLED_FRAME


def test_good_frames_before_a_bad_one_are_delivered() -> None:
    frames = FrameDecoder(3).feed(encode_frame(FrameKind.PING, b"x") + bytes(4))
    assert next(frames) == (FrameKind.PING, b"x")
    with pytest.raises(RemoteFault):
        next(frames)


@given(st.binary(max_size=200))
def test_garbage_gives_frames_or_a_fault_and_nothing_else(garbage: bytes) -> None:
    encoded = b""
    try:
        for kind, payload in FrameDecoder(100).feed(garbage):
            encoded += encode_frame(kind, payload)
    except RemoteFault as fault:
        reasons = {fault.reason}
    else:
        reasons = set()
    assert garbage.startswith(encoded)
    assert reasons <= {DropReason.FRAME_TOO_LARGE, DropReason.GARBLED_FRAME}
