"""One connection as a sans-IO state machine: bytes and clock readings in, events out.

Theory of operation. A session reads nothing but a Hello until one has passed. The dialler's side sends `opening()` at
once, the other side when it has received a Hello and admits the peer:

    state      on HELLO    on PING        on PONG             on PAYLOAD   on GOODBYE
    greeting   -> open     violation      violation           violation    -> left
    open       violation   answers PONG   measures the trip   delivers     -> left

A violation raises RemoteFault, after which the session is not used again. Each side sends a ping every interval,
whether or not there is other traffic: the pings tell the other side that this one is alive, and any bytes at all
count as life, since a pong may wait behind a large frame. A peer that sends but leaves many pings unanswered is as
good as silent. The limit applies to what the *peer* doesn't do: time in which this process itself stood still, or
held back the reader because the layer above was busy, is forgiven by `forgive`.

A ping is answered at once and asks nobody, so pings are rationed: else whoever sends nothing else is served for free.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from pegnode.net.allowance import Allowance
from pegnode.net.framing import FrameDecoder, FrameKind, encode_frame
from pegnode.net.handshake import (
    MAX_HELLO_BYTES,
    Hello,
    check_hello,
    decode_goodbye,
    decode_hello,
    encode_goodbye,
    encode_hello,
)
from pegnode.net.transport import DropReason, PeerRole, RemoteFault

PING_BYTES = 8
MAX_UNANSWERED_PINGS = 30
PINGS_OF_INTERVAL = 2
PINGS_BURST = 2 * MAX_UNANSWERED_PINGS
"""How many pings a peer may send in each interval, and at once. An honest one sends one in each, and none while 30 are
unanswered: whatever a link holds up and then lets go at once, in n intervals no more than n + 31 arrive."""
_RTT_GAIN = 1 / 8
"""The weight of a new round-trip time in the smoothed one. Source: RFC 6298, section 2."""


@dataclass(frozen=True, slots=True)
class LinkLimits:
    """The limits of one connection. All nodes of a network have the same `max_payload_bytes` and `ping_interval_s`.

    max_queued_bytes: what may wait for one peer, counting 128 bytes of overhead for each frame.
    farewell_limit_s: how long a peer gets to take in why it is dropped.
    """

    max_payload_bytes: int = 4 * 1024 * 1024
    max_queued_bytes: int = 16 * 1024 * 1024
    ping_interval_s: float = 1.0
    silence_limit_s: float = 3.0
    handshake_limit_s: float = 10.0
    farewell_limit_s: float = 0.5


@dataclass(frozen=True, slots=True)
class Greeted:
    """The peer's Hello has passed."""

    hello: Hello


@dataclass(frozen=True, slots=True)
class Delivered:
    """A message for the layer above."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """A frame to send."""

    frame: bytes


@dataclass(frozen=True, slots=True)
class Left:
    """The peer ends the connection; nothing follows."""

    reason: DropReason


SessionEvent = Greeted | Delivered | Answer | Left


class Session:
    """The protocol's state for one connection. Times are seconds of any one monotonic clock.

    hello: our own. expected_role: the only one in which the peer may come.
    """

    def __init__(self, hello: Hello, expected_role: PeerRole, limits: LinkLimits, now_s: float) -> None:
        self._hello = hello
        self._expected_role = expected_role
        self._limits = limits
        self._decoder = FrameDecoder(MAX_HELLO_BYTES)
        self._greeted = False
        self._heard_s = now_s
        self._pings = Allowance(PINGS_OF_INTERVAL / limits.ping_interval_s, PINGS_BURST, lambda: self._heard_s)
        self._ping_serial = 0
        self._unanswered: deque[tuple[bytes, float]] = deque()
        self._round_trip_s: float | None = None

    def opening(self) -> bytes:
        """Our Hello, the first bytes to send."""
        return encode_frame(FrameKind.HELLO, encode_hello(self._hello))

    def farewell(self, reason: DropReason) -> bytes:
        """Our Goodbye, the last bytes to send."""
        return encode_frame(FrameKind.GOODBYE, encode_goodbye(reason))

    def receive(self, data: bytes, now_s: float) -> Iterator[SessionEvent]:
        """What `data` brings about, in order; iterate to the end. Raises RemoteFault behind the last good event."""
        self._heard_s = now_s
        for kind, payload in self._decoder.feed(data):
            if kind is FrameKind.GOODBYE:
                yield Left(decode_goodbye(payload))
                return
            if not self._greeted:
                yield self._first(kind, payload)
            elif kind is FrameKind.PAYLOAD:
                yield Delivered(payload)
            elif kind is FrameKind.PING:
                yield self._pong(payload)
            elif kind is FrameKind.PONG:
                self._measure(payload, now_s)
            else:
                raise RemoteFault(DropReason.PROTOCOL_VIOLATION, "a second Hello")

    def ping(self, now_s: float) -> bytes:
        """The ping that is due now. Raises RemoteFault SILENT when too many were never answered."""
        if len(self._unanswered) >= MAX_UNANSWERED_PINGS:
            raise RemoteFault(DropReason.SILENT, f"{MAX_UNANSWERED_PINGS} pings unanswered")
        self._ping_serial += 1
        serial = self._ping_serial.to_bytes(PING_BYTES, "little")
        self._unanswered.append((serial, now_s))
        return encode_frame(FrameKind.PING, serial)

    @property
    def silent_at_s(self) -> float:
        """When the peer's silence will have lasted too long."""
        return self._heard_s + self._limits.silence_limit_s

    def forgive(self, now_s: float) -> None:
        """Count silence from now on: until now, it was we who didn't listen."""
        self._heard_s = now_s

    @property
    def round_trip_ms(self) -> float | None:
        """Smoothed; None before the first pong."""
        return None if self._round_trip_s is None else self._round_trip_s * 1000

    def _first(self, kind: FrameKind, payload: bytes) -> Greeted:
        if kind is not FrameKind.HELLO:
            raise RemoteFault(DropReason.PROTOCOL_VIOLATION, f"{kind.name} before the Hello")
        theirs = decode_hello(payload)
        check_hello(theirs, self._hello.chain_id, self._expected_role)
        self._greeted = True
        self._decoder.max_payload_bytes = self._limits.max_payload_bytes
        return Greeted(theirs)

    def _pong(self, payload: bytes) -> Answer:
        if len(payload) != PING_BYTES:
            raise RemoteFault(DropReason.GARBLED_FRAME, f"a ping of {len(payload)} bytes")
        if not self._pings.take(1):
            raise RemoteFault(DropReason.FLOOD, "more pings than its allowance")
        return Answer(encode_frame(FrameKind.PONG, payload))

    def _measure(self, payload: bytes, now_s: float) -> None:
        if not self._unanswered or self._unanswered[0][0] != payload:
            raise RemoteFault(DropReason.PROTOCOL_VIOLATION, "a pong to no ping of ours")
        _, sent_s = self._unanswered.popleft()
        trip_s = now_s - sent_s
        if self._round_trip_s is None:
            self._round_trip_s = trip_s
        else:
            self._round_trip_s += _RTT_GAIN * (trip_s - self._round_trip_s)
