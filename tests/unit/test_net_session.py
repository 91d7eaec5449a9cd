"""The session's state table, line by line, its pings, and its idea of silence."""

from collections.abc import Callable

import pytest

from pegnode.net.framing import FrameKind, encode_frame
from pegnode.net.handshake import Hello, encode_hello
from pegnode.net.session import (
    MAX_UNANSWERED_PINGS,
    PINGS_BURST,
    PINGS_OF_INTERVAL,
    Answer,
    Delivered,
    Greeted,
    Left,
    LinkLimits,
    Session,
    SessionEvent,
)
from pegnode.net.transport import DropReason, PeerRole, RemoteFault

CHAIN = bytes(range(32))
OURS = Hello(CHAIN, PeerRole.MEMBER, "ours")
THEIRS = Hello(CHAIN, PeerRole.GUEST, "theirs")
HELLO = encode_frame(FrameKind.HELLO, encode_hello(THEIRS))
LIMITS = LinkLimits(max_payload_bytes=2000)


def new_session() -> Session:
    """A session with a guest, at time 0."""
    return Session(OURS, PeerRole.GUEST, LIMITS, now_s=0.0)


def open_session() -> Session:
    """One that has greeted."""
    session = new_session()
    assert list(session.receive(HELLO, 0.0)) == [Greeted(THEIRS)]
    return session


def events(session: Session, *frames: bytes, now_s: float = 0.0) -> list[SessionEvent]:
    """What frames bring about."""
    return list(session.receive(b"".join(frames), now_s))


def test_opening_is_our_hello() -> None:
    assert new_session().opening() == encode_frame(FrameKind.HELLO, encode_hello(OURS))


def test_frames_behind_the_hello_in_one_piece_are_delivered() -> None:
    payloads = [encode_frame(FrameKind.PAYLOAD, bytes((number,)) * 2000) for number in range(3)]
    assert events(new_session(), HELLO, *payloads) == [
        Greeted(THEIRS),
        *(Delivered(bytes((number,)) * 2000) for number in range(3)),
    ]


@pytest.mark.parametrize("kind", [FrameKind.PING, FrameKind.PONG, FrameKind.PAYLOAD])
def test_frame_before_the_hello_is_a_violation(kind: FrameKind) -> None:
    with pytest.raises(RemoteFault) as refusal:
        events(new_session(), encode_frame(kind, bytes(8)))
    assert refusal.value.reason is DropReason.PROTOCOL_VIOLATION


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (HELLO, DropReason.PROTOCOL_VIOLATION),
        (encode_frame(FrameKind.PONG, bytes(8)), DropReason.PROTOCOL_VIOLATION),
        (encode_frame(FrameKind.PING, bytes(7)), DropReason.GARBLED_FRAME),
        (encode_frame(FrameKind.GOODBYE, b"\xff"), DropReason.GARBLED_FRAME),
        (encode_frame(FrameKind.PAYLOAD, bytes(2001)), DropReason.FRAME_TOO_LARGE),
    ],
    ids=["second hello", "unasked pong", "short ping", "garbled goodbye", "oversized"],
)
def test_frame_out_of_place_is_refused_by_reason(frame: bytes, reason: DropReason) -> None:
    with pytest.raises(RemoteFault) as refusal:
        events(open_session(), frame)
    assert refusal.value.reason is reason


@pytest.mark.parametrize(
    ("hello", "reason"),
    [
        (Hello(bytes(32), PeerRole.GUEST, ""), DropReason.WRONG_CHAIN),
        (Hello(CHAIN, PeerRole.MEMBER, ""), DropReason.WRONG_ROLE),
        (Hello(CHAIN, PeerRole.GUEST, "", 2), DropReason.WRONG_VERSION),
    ],
)
def test_unwelcome_hello_is_refused_by_reason(hello: Hello, reason: DropReason) -> None:
    with pytest.raises(RemoteFault) as refusal:
        events(new_session(), encode_frame(FrameKind.HELLO, encode_hello(hello)))
    assert refusal.value.reason is reason


def test_large_frame_is_refused_before_the_hello() -> None:
    with pytest.raises(RemoteFault) as refusal:
        events(new_session(), encode_frame(FrameKind.HELLO, bytes(1025)))
    assert refusal.value.reason is DropReason.FRAME_TOO_LARGE


@pytest.mark.parametrize("make", [new_session, open_session])
def test_nothing_is_read_behind_a_goodbye(make: Callable[[], Session]) -> None:
    session = make()
    goodbye = session.farewell(DropReason.FLOOD)
    assert events(session, goodbye, HELLO, HELLO) == [Left(DropReason.FLOOD)]


def test_ping_is_answered_with_its_own_bytes() -> None:
    ping = encode_frame(FrameKind.PING, b"12345678")
    assert events(open_session(), ping) == [Answer(encode_frame(FrameKind.PONG, b"12345678"))]


def ping_fault(session: Session, count: int, now_s: float) -> tuple[int, RemoteFault | None]:
    """How many of so many pings at once are answered, and why no more."""
    answered = 0
    try:
        for _ in session.receive(encode_frame(FrameKind.PING, bytes(8)) * count, now_s):
            answered += 1
    except RemoteFault as fault:
        return answered, fault
    return answered, None


def test_pings_beyond_the_allowance_are_a_flood() -> None:
    session = open_session()
    answered, fault = ping_fault(session, 1_000, now_s=1.0)
    assert fault is not None
    assert fault.reason is DropReason.FLOOD
    assert answered == PINGS_BURST


def test_pings_are_a_flood_however_evenly_they_come() -> None:
    session, answered, fault = open_session(), 0, None
    for tenth in range(6_000):
        more, fault = ping_fault(session, 1, tenth / 10)
        answered += more
        if fault is not None:
            break
    assert fault is not None
    assert fault.reason is DropReason.FLOOD
    assert answered < PINGS_BURST + PINGS_OF_INTERVAL * (tenth / 10 + 1)


def test_honest_pings_are_answered_for_hours_however_often_a_link_holds_them_up() -> None:
    """The link stands still until the sender has as many pings unanswered as it may have, and lets go all at once."""
    session, answered = open_session(), 0
    for second in range(0, 7_200, MAX_UNANSWERED_PINGS):
        answered += ping_fault(session, MAX_UNANSWERED_PINGS, second)[0]
    assert answered == 7_200
    for second in range(7_200, 10_800):
        assert ping_fault(session, 1, second) == (1, None)
    held_up = ping_fault(session, MAX_UNANSWERED_PINGS + 1, 10_800)
    assert held_up == (MAX_UNANSWERED_PINGS + 1, None)


def test_round_trip_is_measured_and_smoothed() -> None:
    session, mirror = open_session(), open_session()
    assert session.round_trip_ms is None
    for sent_s, heard_s, smoothed_ms in ((1.0, 1.080, 80.0), (2.0, 2.160, 90.0)):
        [answer] = events(mirror, session.ping(sent_s))
        assert isinstance(answer, Answer)
        assert events(session, answer.frame, now_s=heard_s) == []
        assert session.round_trip_ms == pytest.approx(smoothed_ms)


def test_pong_out_of_order_is_a_violation() -> None:
    session, mirror = open_session(), open_session()
    session.ping(1.0)
    [answer] = events(mirror, session.ping(2.0))
    assert isinstance(answer, Answer)
    with pytest.raises(RemoteFault) as refusal:
        events(session, answer.frame, now_s=2.0)
    assert refusal.value.reason is DropReason.PROTOCOL_VIOLATION


def test_peer_that_answers_no_ping_is_silent() -> None:
    session = open_session()
    for second in range(MAX_UNANSWERED_PINGS):
        session.ping(second)
    with pytest.raises(RemoteFault) as refusal:
        session.ping(MAX_UNANSWERED_PINGS)
    assert refusal.value.reason is DropReason.SILENT


def test_any_byte_puts_silence_off() -> None:
    session = open_session()
    assert session.silent_at_s == LIMITS.silence_limit_s
    assert events(session, b"\x05", now_s=2.0) == []
    assert session.silent_at_s == 2.0 + LIMITS.silence_limit_s


def test_forgiven_time_does_not_count_as_silence() -> None:
    session = open_session()
    session.forgive(10.0)
    assert session.silent_at_s == 10.0 + LIMITS.silence_limit_s
