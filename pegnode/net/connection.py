"""The tasks of one connection: reader, writer, pings and the watch for silence, around a session."""

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Protocol

import trio

from pegnode.net.framing import FrameKind, encode_frame
from pegnode.net.handshake import Hello
from pegnode.net.outbox import Outbox
from pegnode.net.session import Answer, Delivered, Greeted, Left, LinkLimits, Session
from pegnode.net.transport import DropReason, RemoteFault, TransportError

READ_BYTES = 64 * 1024
"""Every read costs the muxer a window update, so reads are large."""
STALL_S = 0.5
"""A timer this late means that our own process stood still, which is no evidence of the peer's silence."""


class ByteStream(Protocol):
    """An authenticated, encrypted, ordered duplex of bytes."""

    async def read(self, limit_bytes: int) -> bytes:
        """Between 1 and `limit_bytes` bytes; empty at the end. Raises trio.BrokenResourceError or RemoteFault."""
        ...

    async def write(self, data: bytes) -> None:
        """Returns when `data` is on its way. Raises trio.BrokenResourceError or RemoteFault."""
        ...


@dataclass(frozen=True, slots=True)
class Departure:
    """How a connection ended. by_peer: the reason is the peer's own word."""

    reason: DropReason
    by_peer: bool = False
    detail: str = ""


class Owner(Protocol):
    """Whom a connection serves. Its steps may take their time: the peer isn't called silent meanwhile."""

    async def admit(self, hello: Hello) -> None:
        """Decide on a peer that is on our chain; raise RemoteFault to refuse it. Until then it gets no answer."""
        ...

    async def announce(self, hello: Hello) -> None:
        """The peer is admitted, and `send` works."""
        ...

    async def deliver(self, payload: bytes) -> None:
        """Take a message; the next one waits until this returns."""
        ...


class Connection:
    """One peer's stream from the Hello to the Goodbye.

    is_dialler: whether we dialled, and so greet first.
    """

    def __init__(
        self,
        stream: ByteStream,
        session: Session,
        owner: Owner,
        limits: LinkLimits,
        *,
        is_dialler: bool,
    ) -> None:
        self._stream = stream
        self._session = session
        self._owner = owner
        self._limits = limits
        self._is_dialler = is_dialler
        self._outbox = Outbox(limits.max_queued_bytes)
        self._departure: Departure | None = None
        self._open = trio.Event()
        self._ending = trio.Event()
        self._busy = False
        self._read_ended = trio.Event()
        self._write_ended = trio.Event()

    @property
    def is_open(self) -> bool:
        """Whether `send` works: from the peer's admission until the first call of `end`, by anyone."""
        return self._open.is_set() and self._departure is None

    @property
    def round_trip_ms(self) -> float | None:
        """Smoothed; None before the first answer to a ping."""
        return self._session.round_trip_ms

    def send(self, payload: bytes) -> bool:
        """Queue a message. False: the connection isn't open, perhaps just now closed on a SLOW_CONSUMER."""
        limit_bytes = self._limits.max_payload_bytes
        if len(payload) > limit_bytes:
            raise TransportError(f"a payload of {len(payload)} bytes, over the limit of {limit_bytes}")
        return self.is_open and self._queue(encode_frame(FrameKind.PAYLOAD, payload))

    def end(self, departure: Departure) -> None:
        """End the connection. The first call decides how; later ones change nothing."""
        if self._departure is None:
            self._departure = departure
            self._ending.set()

    async def run(self) -> Departure:
        """Serve until the connection ended; say goodbye where that makes sense. The caller closes the stream."""
        if self._is_dialler:
            self._queue(self._session.opening())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write_frames)
            nursery.start_soon(self._read_frames)
            nursery.start_soon(self._send_pings)
            nursery.start_soon(self._watch_silence)
            await self._ending.wait()
            departure = self._departure or Departure(DropReason.CLOSED)
            if not departure.by_peer and departure.reason is not DropReason.CLOSED:
                await self._say_goodbye(departure.reason)
            nursery.cancel_scope.cancel()
        return departure

    def _queue(self, frame: bytes) -> bool:
        if self._departure is not None:
            return False
        if not self._outbox.put(frame):
            self.end(Departure(DropReason.SLOW_CONSUMER))
            return False
        return True

    async def _say_goodbye(self, reason: DropReason) -> None:
        # The peer closes once it has read the Goodbye. Closing first could reset the connection under it.
        with trio.move_on_after(self._limits.farewell_limit_s):
            self._outbox.close(self._session.farewell(reason))
            await self._write_ended.wait()
            await self._read_ended.wait()

    async def _write_frames(self) -> None:
        try:
            while chunk := await self._outbox.take():
                await self._stream.write(chunk)
        except trio.BrokenResourceError as error:
            self.end(Departure(DropReason.CLOSED, detail=str(error)))
        except RemoteFault as fault:
            self.end(Departure(fault.reason, detail=fault.detail))
        finally:
            self._write_ended.set()

    async def _read_frames(self) -> None:
        try:
            while data := await self._stream.read(READ_BYTES):
                if self._departure is None:
                    await self._handle(data)
            self.end(Departure(DropReason.CLOSED))
        except trio.BrokenResourceError as error:
            self.end(Departure(DropReason.CLOSED, detail=str(error)))
        except RemoteFault as fault:
            self.end(Departure(fault.reason, detail=fault.detail))
        finally:
            self._read_ended.set()

    async def _handle(self, data: bytes) -> None:
        try:
            for event in self._session.receive(data, trio.current_time()):
                match event:
                    case Delivered(payload):
                        await self._hand_up(self._owner.deliver(payload))
                    case Answer(frame):
                        self._queue(frame)
                    case Greeted(hello):
                        await self._welcome(hello)
                    case Left(reason):
                        self.end(Departure(reason, by_peer=True))
                if self._departure is not None:
                    return
        except RemoteFault as fault:
            self.end(Departure(fault.reason, detail=fault.detail))

    async def _welcome(self, hello: Hello) -> None:
        await self._hand_up(self._owner.admit(hello))
        if not self._is_dialler:
            self._queue(self._session.opening())
        self._open.set()
        await self._hand_up(self._owner.announce(hello))

    async def _hand_up(self, step: Awaitable[None]) -> None:
        self._busy = True
        try:
            await step
        finally:
            self._busy = False
            self._session.forgive(trio.current_time())

    async def _send_pings(self) -> None:
        await self._open.wait()
        while True:
            await trio.sleep(self._limits.ping_interval_s)
            try:
                self._queue(self._session.ping(trio.current_time()))
            except RemoteFault as fault:
                self.end(Departure(fault.reason, detail=fault.detail))

    async def _watch_silence(self) -> None:
        await self._open.wait()
        while True:
            deadline_s = self._session.silent_at_s
            await trio.sleep_until(deadline_s)
            now_s = trio.current_time()
            if self._session.silent_at_s > deadline_s:
                continue
            if self._busy or now_s > deadline_s + STALL_S:
                self._session.forgive(now_s)
                continue
            self.end(Departure(DropReason.SILENT))
            return
