"""One libp2p connection: TCP, then Noise, then Yamux, then a single stream of our protocol.

It is built from libp2p's parts, without its `Swarm` and `Host`, for reasons seen in libp2p 0.8.1: a swarm gives back
the slot of an inbound connection only when it stops, so that the 251st connection in a node's life is refused; it
binds its port with SO_REUSEPORT, so that two nodes can share one unnoticed; it dials peers of its own accord, runs
identify with everyone, and a stream handler that raises ends the process. Here every task of a connection lives in
one nursery and ends with it.

Noise is the only security protocol offered: libp2p's default would accept plaintext, with which anyone can claim any
peer id.

Below the frames of our protocol there is work that no message pays for: pings of Yamux, answers, window updates, data
of streams that nobody reads, Noise messages of one byte. Each costs this process some reads, of the socket, the secure
channel or the stream. So the reads are paced: who needs more of them than his due is read more slowly, and waits in
his own kernel. Nobody is dropped for it: what an honest peer has to say meanwhile, it says in fewer and larger frames.
"""

import math
import sys
from contextlib import suppress
from socket import IPPROTO_TCP
from typing import cast

import structlog
import trio
from libp2p.abc import ISecureConn
from libp2p.crypto.secp256k1 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_new_x25519_key_pair
from libp2p.custom_types import TProtocol
from libp2p.exceptions import BaseLibp2pError
from libp2p.io.abc import ReadWriteCloser
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.peer.id import ID
from libp2p.protocol_muxer.multiselect import Multiselect
from libp2p.protocol_muxer.multiselect_client import MultiselectClient
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from libp2p.security.noise.io import MAX_PLAINTEXT_LENGTH
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE_PROTOCOL
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.security.secure_session import SecureSession
from libp2p.stream_muxer.yamux.yamux import HEADER_SIZE, MAX_MESSAGE_SIZE, Yamux, YamuxStream
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX_PROTOCOL
from libp2p.transport.upgrader import TransportUpgrader
from typing_extensions import override

from pegnode.net.allowance import Allowance
from pegnode.net.transport import DropReason, PeerId, RemoteFault

STREAM_PROTOCOL = TProtocol("/pegnode/1")
BACKLOG_SLACK_BYTES = 512 * 1024
"""Above the stream's window: the window of a stream before it is widened, and what is under way."""
_RECEIVE_BYTES = 64 * 1024
_WRITE_BYTES = MAX_PLAINTEXT_LENGTH - HEADER_SIZE
"""One Yamux frame of this size fills one Noise message."""
UNSENT_BYTES = 64 * 1024
"""What may wait in the kernel beyond what is under way."""
READS_AT_ONCE = 250
"""Most reads find in a buffer what they want: after so many, some 2 ms, everybody else has a turn."""
_GIVE_BACK_BYTES = 64 * 1024
"""So much of the window is given back at once. Less would answer each small frame with one of its own; more could leave
a peer behind a narrow link without a window for longer than the 5 s for which Yamux waits."""
_MAX_HANDSHAKE_BYTES = 1024 * 1024
"""What a peer may send before its Hello has passed: a few kB, and what it sends on top without waiting."""

TCP_NOTSENT_LOWAT = 25
"""Source: Linux, include/uapi/linux/tcp.h; Python names it from 3.12 on."""

_log = structlog.get_logger(__name__)


class SocketConnection(ReadWriteCloser):
    """The socket below Noise. It reads in large pieces, and cuts off a peer that talks much before its Hello.

    silence_limit_s: it also cuts off one that says nothing for so long before that. A network that loses one direction
    may let a connection be opened and then swallow the handshake: the sooner that is given up, the better.
    reads: how many reads the peer may cost, here and above; None: any number. It may be exchanged at any time.
    """

    def __init__(
        self, socket: trio.SocketStream, silence_limit_s: float = math.inf, reads: Allowance | None = None
    ) -> None:
        self.reads = reads
        self._reads_at_once = 0
        self._socket = socket
        self._silence_limit_s = silence_limit_s
        self._receiving = trio.CancelScope()
        self._buffer = bytearray()
        self._budget_bytes: int | None = _MAX_HANDSHAKE_BYTES

    def lift_budget(self) -> None:
        """Let the peer send without limit, and be silent, from now on."""
        self._budget_bytes = None
        self._silence_limit_s = math.inf
        self._receiving.deadline = math.inf

    @override
    async def read(self, n: int | None = None) -> bytes:
        """Exactly `n` bytes, or what there is when None. Raises ConnectionClosedError at the end."""
        await self.pace()
        wanted_bytes = 1 if n is None else n
        while len(self._buffer) < wanted_bytes:
            self._buffer += await self._receive()
        taken_bytes = len(self._buffer) if n is None else n
        with memoryview(self._buffer) as view:
            data = bytes(view[:taken_bytes])
        del self._buffer[:taken_bytes]
        return data

    async def pace(self) -> None:
        """Wait until the peer may cost one more read, and now and then until others had their turn."""
        self._reads_at_once += 1
        wait_s = 0.0 if self.reads is None else self.reads.owe(1)
        if wait_s > 0 or self._reads_at_once >= READS_AT_ONCE:
            self._reads_at_once = 0
            await trio.sleep(wait_s)

    @override
    async def write(self, data: bytes) -> None:
        """Send all of `data`. Raises ConnectionClosedError."""
        try:
            await self._socket.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise ConnectionClosedError(f"connection lost: {error}") from error

    @override
    async def close(self) -> None:
        """Close without waiting for anything."""
        await trio.aclose_forcefully(self._socket)

    @override
    def get_remote_address(self) -> tuple[str, int] | None:
        """Not known here; no part of libp2p that we use needs it."""
        return None

    async def _receive(self) -> bytes:
        data: bytes | bytearray | None = None
        try:
            with trio.move_on_after(self._silence_limit_s) as self._receiving:
                data = await self._socket.receive_some(_RECEIVE_BYTES)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise ConnectionClosedError(f"connection lost: {error}") from error
        if data is None:
            raise ConnectionClosedError("silent before its Hello")
        if not data:
            raise ConnectionClosedError("closed by the peer")
        if self._budget_bytes is not None:
            self._budget_bytes -= len(data)
            if self._budget_bytes < 0:
                raise ConnectionClosedError("too much before the Hello")
        return bytes(data)


def bound_unsent(socket: trio.SocketStream) -> None:
    """Let little wait in the kernel, where the system knows how: what waits in our outbox is not queued twice."""
    if sys.platform == "linux":
        with suppress(OSError):  # it has gone already
            socket.setsockopt(IPPROTO_TCP, TCP_NOTSENT_LOWAT, UNSENT_BYTES)


class PacedSession(SecureSession):
    """A secure channel whose reads count: a muxer's each frame costs one or two. It takes the place of `session`."""

    def __init__(self, session: SecureSession, wire: SocketConnection) -> None:
        super().__init__(
            local_peer=session.local_peer,
            local_private_key=session.local_private_key,
            remote_peer=session.remote_peer,
            remote_permanent_pubkey=session.remote_permanent_pubkey,
            is_initiator=session.is_initiator,
            conn=session.conn,
        )
        self._wire = wire

    @override
    async def read(self, n: int | None = None) -> bytes:
        """As the base class reads."""
        await self._wire.pace()
        return await super().read(n)


class BoundedYamux(Yamux):
    """Yamux that ends a connection whose peer sends more than it may.

    Yamux 0.8.1 warns about a peer that exceeds its window, and buffers on, and takes frames of 16 MiB.
    max_backlog_bytes: what may wait here unread, over all streams.  overflowed: whether the peer exceeded it.
    """

    max_backlog_bytes = 2 * BACKLOG_SLACK_BYTES
    overflowed = False

    @override
    async def _read_data_body(self, length: int) -> bytes:
        backlog_bytes = sum(len(buffer) for buffer in self.stream_buffers.values())
        if length > MAX_MESSAGE_SIZE or backlog_bytes + length > self.max_backlog_bytes:
            self.overflowed = True
            raise trio.TooSlowError  # of what Yamux catches, the one that ends the connection without more ado
        return await super()._read_data_body(length)


class MuxedStream:
    """Our stream as a `ByteStream`. window_bytes: how much the peer may send that we have yet to read."""

    def __init__(self, stream: YamuxStream, muxer: BoundedYamux, wire: SocketConnection, window_bytes: int) -> None:
        self._stream = stream
        self._wire = wire
        self._window_bytes = window_bytes
        self._read_bytes = 0
        self.muxer = muxer

    async def widen(self) -> None:
        """Let the peer send a whole window at once, and no more: Yamux starts with 256 KiB."""
        extra_bytes = self._window_bytes - self._stream.target_recv_window
        self._stream.target_recv_window += extra_bytes
        await self._give_back(extra_bytes)

    async def read(self, limit_bytes: int) -> bytes:
        """Between 1 and `limit_bytes` bytes; empty at the end. Raises trio.BrokenResourceError; RemoteFault FLOOD."""
        await self._wire.pace()
        try:
            data = await self.muxer.read_stream(self._stream.stream_id, limit_bytes)
            self._read_bytes += len(data)
            if self._read_bytes >= _GIVE_BACK_BYTES:
                read_bytes, self._read_bytes = self._read_bytes, 0
                await self._give_back(read_bytes)
        except EOFError:
            self._require_no_flood()
            return b""
        except BaseLibp2pError as error:
            self._require_no_flood()
            raise trio.BrokenResourceError(str(error)) from error
        return data

    async def write(self, data: bytes) -> None:
        """Returns when `data` is on its way. Raises trio.BrokenResourceError; RemoteFault FLOOD."""
        try:
            for start in range(0, len(data), _WRITE_BYTES):
                await self._stream.write(data[start : start + _WRITE_BYTES])
        except BaseLibp2pError as error:
            self._require_no_flood()
            raise trio.BrokenResourceError(str(error)) from error

    async def _give_back(self, size_bytes: int) -> None:
        self._stream.recv_window += size_bytes
        await self._stream.send_window_update(size_bytes)

    def _require_no_flood(self) -> None:
        if self.muxer.overflowed:
            raise RemoteFault(DropReason.FLOOD, "it sends more than the stream's window allows")


class SecureLink:
    """An authenticated connection. `run` must run as long as the link is used; the caller closes the socket."""

    def __init__(self, wire: SocketConnection, secured: ISecureConn, muxer: BoundedYamux) -> None:
        self.peer = PeerId(secured.get_remote_peer().to_base58())
        self._wire = wire
        self._is_initiator = secured.is_initiator
        self._muxer = muxer

    async def run(self) -> None:
        """Serve the muxer until the connection ends."""
        try:
            await self._muxer.start()
        except Exception:  # noqa: BLE001 -- a supervisor: whatever a peer's bytes provoke ends this connection alone
            _log.debug("muxer failed", peer=self.peer, exc_info=True)
            await self._wire.close()

    async def open_stream(self, window_bytes: int) -> MuxedStream:
        """The link's one stream: the dialler opens it. Raises RemoteFault HANDSHAKE_FAILED.

        window_bytes: how much the peer may send that we have yet to read.
        """
        self._muxer.max_backlog_bytes = window_bytes + BACKLOG_SLACK_BYTES
        try:
            await self._muxer.event_started.wait()
            muxed = await (self._muxer.open_stream() if self._is_initiator else self._muxer.accept_stream())
            stream = MuxedStream(cast(YamuxStream, muxed), self._muxer, self._wire, window_bytes)
            await self._agree(MultiselectCommunicator(cast(ReadWriteCloser, stream)))
            await stream.widen()
        except Exception as error:
            raise RemoteFault(DropReason.HANDSHAKE_FAILED, _describe(error)) from error
        return stream

    async def _agree(self, communicator: MultiselectCommunicator) -> None:
        if self._is_initiator:
            await MultiselectClient().select_one_of([STREAM_PROTOCOL], communicator)
        else:
            await Multiselect({STREAM_PROTOCOL: None}).negotiate(communicator)


class LinkUpgrader:
    """Turns sockets into secure links. secret: the transport key, 32 bytes; it is the peer id's."""

    def __init__(self, secret: bytes) -> None:
        noise = NoiseTransport(create_new_key_pair(secret), noise_privkey=create_new_x25519_key_pair().private_key)
        self._upgrader = TransportUpgrader({NOISE_PROTOCOL: noise}, {TProtocol(YAMUX_PROTOCOL): BoundedYamux})

    async def secure(self, wire: SocketConnection, dialled: PeerId | None) -> SecureLink:
        """Authenticate the other end: as `dialled`, or as whoever it proves to be when it dialled us.

        Raises RemoteFault HANDSHAKE_FAILED.
        """
        expected = ID.from_base58(dialled) if dialled is not None else None
        try:
            raw = RawConnection(wire, initiator=dialled is not None)
            session = await self._upgrader.upgrade_security(raw, dialled is not None, expected)
            secured = PacedSession(cast(SecureSession, session), wire)
            # Not by `upgrade_connection`: that agrees on our class and then makes a plain Yamux.
            await self._upgrader.muxer_multistream.select_transport(secured)
            muxer = BoundedYamux(secured, secured.get_remote_peer(), is_initiator=secured.is_initiator)
        except Exception as error:
            raise RemoteFault(DropReason.HANDSHAKE_FAILED, _describe(error)) from error
        return SecureLink(wire, secured, muxer)


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error.__cause__ or error}"
