"""The transport over real networks: libp2p connections, one for each peer.

Theory of operation. Members form a full mesh in which the lower peer id dials; anyone else dials the members. A
dialler never gives up: it waits longer after each failure, up to a limit, and starts over after a connection that
lasted. An inbound connection that authenticates as no member is refused, unless guests are admitted and there is
room. When a second connection to the same peer appears, the one dialled by the lower peer id stays, and of two with
the same dialler the newer: a restarted peer need not wait until its old connection is found dead.

Nothing that a peer does ends the process, and a socket that says nothing holds no place that another needs: only so
many connections may be on the way to their Hello, and one more ends the oldest of them.
"""

import logging
import math
import random
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog
import trio

from pegnode.net.address import Endpoint, multiaddr_of, parse_endpoint, peer_id_from_secret
from pegnode.net.connection import Connection, Departure
from pegnode.net.handshake import Hello
from pegnode.net.libp2p_link import MAX_BACKLOG_BYTES, LinkUpgrader, SecureLink
from pegnode.net.session import LinkLimits
from pegnode.net.transport import (
    DropReason,
    FrameReceived,
    PeerAddress,
    PeerConnected,
    PeerDisconnected,
    PeerId,
    PeerRefused,
    PeerRole,
    RemoteFault,
    TransportEvent,
)

if TYPE_CHECKING:
    from trio_typing import TaskStatus

EVENTS_BUFFERED = 16
"""Events that wait for the node; beyond them the peers' bytes wait. Few, since each may hold a frame of 4 MiB."""
MAX_PENDING_INBOUND = 32
REDIAL_MIN_S = 0.2
REDIAL_MAX_S = 5.0
LASTING_S = 10.0
"""A connection that lasted this long was no failure."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class HostSettings:
    """What a host is told. Raises TransportError on a malformed address, chain id or software name.

    chain_id: 32 bytes. software: see `Hello`.
    members: the allow-list. We are a member exactly if it holds our own id.
    dial: where members listen, or other nodes that admit us as a guest; the host decides which of them it dials.
    listen: multiaddrs with an IP address; port 0 takes any free port.
    max_guests: how many peers that are no members may be connected to us at once; 0 refuses them all.
    """

    chain_id: bytes
    software: str
    members: frozenset[PeerId]
    dial: tuple[PeerAddress, ...] = ()
    listen: tuple[str, ...] = ()
    max_guests: int = 0
    limits: LinkLimits = field(default_factory=LinkLimits)


@dataclass(eq=False, slots=True)
class _Visit:
    """One connection, from the socket to the departure. peer: whom we dialled, or who it proved to be."""

    dialled: bool
    peer: PeerId | None
    handshake: trio.CancelScope
    connection: Connection | None = None
    announced_s: float | None = None
    gone: trio.Event = field(default_factory=trio.Event)


class Libp2pHost:
    """A `Transport` over TCP. secret: the transport key, 32 bytes. rng: spreads redials in time, nothing secret."""

    def __init__(self, secret: bytes, settings: HostSettings, rng: random.Random) -> None:
        self._peer_id = peer_id_from_secret(secret)
        self._settings = settings
        self._rng = rng
        self._endpoints = [parse_endpoint(multiaddr) for multiaddr in settings.listen]
        self._targets = [
            (address.peer_id, parse_endpoint(address.multiaddr))
            for address in settings.dial
            if self._is_ours_to_dial(address.peer_id)
        ]
        self._hello = Hello(settings.chain_id, self._role_of(self._peer_id), settings.software)
        self._upgrader = LinkUpgrader(secret)
        self._listen_addresses: tuple[PeerAddress, ...] = ()
        self._peers: dict[PeerId, _Visit] = {}
        self._pending: dict[_Visit, None] = {}
        self._events_in, self._events = trio.open_memory_channel[TransportEvent](EVENTS_BUFFERED)

    @property
    def peer_id(self) -> PeerId:
        """See `Transport`."""
        return self._peer_id

    @property
    def listen_addresses(self) -> tuple[PeerAddress, ...]:
        """See `Transport`."""
        return self._listen_addresses

    @property
    def events(self) -> trio.MemoryReceiveChannel[TransportEvent]:
        """See `Transport`."""
        return self._events

    def connected(self) -> frozenset[PeerId]:
        """See `Transport`."""
        return frozenset(peer for peer in self._peers if self._connection(peer) is not None)

    def send(self, peer: PeerId, payload: bytes) -> bool:
        """See `Transport`."""
        connection = self._connection(peer)
        return connection is not None and connection.send(payload)

    def drop(self, peer: PeerId, reason: DropReason) -> None:
        """See `Transport`."""
        if (connection := self._connection(peer)) is not None:
            connection.end(Departure(reason))

    def round_trip_ms(self, peer: PeerId) -> float | None:
        """See `Transport`."""
        connection = self._connection(peer)
        return None if connection is None else connection.round_trip_ms

    async def run(self, *, task_status: "TaskStatus[None]" = trio.TASK_STATUS_IGNORED) -> None:
        """See `Transport`. Raises OSError when a port can't be bound."""
        _silence_library()
        listeners: list[trio.SocketListener] = []
        try:
            for endpoint in self._endpoints:
                listeners += await trio.open_tcp_listeners(endpoint.port, host=endpoint.host)
            self._listen_addresses = tuple(PeerAddress(self._peer_id, _multiaddr(listener)) for listener in listeners)
            async with trio.open_nursery() as nursery:
                for peer, endpoint in self._targets:
                    nursery.start_soon(self._keep_dialled, peer, endpoint)
                nursery.start_soon(trio.serve_listeners, self._accept, listeners)
                task_status.started()
        finally:
            self._peers.clear()
            self._events_in.close()
            for listener in listeners:
                listener.socket.close()

    def _connection(self, peer: PeerId) -> Connection | None:
        visit = self._peers.get(peer)
        if visit is None or visit.connection is None or visit.connection.is_ending:
            return None
        return visit.connection

    def _role_of(self, peer: PeerId) -> PeerRole:
        return PeerRole.MEMBER if peer in self._settings.members else PeerRole.GUEST

    def _is_ours_to_dial(self, peer: PeerId) -> bool:
        if peer == self._peer_id:
            return False
        among_members = {self._role_of(peer), self._role_of(self._peer_id)} == {PeerRole.MEMBER}
        return self._peer_id < peer or not among_members

    async def _keep_dialled(self, peer: PeerId, endpoint: Endpoint) -> None:
        delay_s = REDIAL_MIN_S
        while True:
            if (visit := self._peers.get(peer)) is not None:
                await visit.gone.wait()
                continue
            if await self._dial(peer, endpoint):
                delay_s = REDIAL_MIN_S
            await trio.sleep(delay_s * self._rng.uniform(0.5, 1.0))
            delay_s = min(2 * delay_s, REDIAL_MAX_S)

    async def _dial(self, peer: PeerId, endpoint: Endpoint) -> bool:
        """Connect once and serve to the end. True: the connection lasted."""
        try:
            with trio.fail_after(self._settings.limits.handshake_limit_s):
                socket = await trio.open_tcp_stream(endpoint.host, endpoint.port)
        except (OSError, trio.TooSlowError) as error:
            _log.debug("dial failed", peer=peer, endpoint=endpoint, error=str(error))
            return False
        visit = _Visit(True, peer, trio.CancelScope())
        await self._serve(socket, visit)
        return visit.announced_s is not None and trio.current_time() - visit.announced_s >= LASTING_S

    async def _accept(self, socket: trio.SocketStream) -> None:
        if len(self._pending) >= MAX_PENDING_INBOUND:
            oldest = next(iter(self._pending))
            del self._pending[oldest]
            oldest.handshake.cancel()
        visit = _Visit(False, None, trio.CancelScope())
        self._pending[visit] = None
        await self._serve(socket, visit)

    async def _serve(self, socket: trio.SocketStream, visit: _Visit) -> None:
        """From the socket to the departure, which is reported. Only cancellation gets out."""
        visit.handshake.deadline = trio.current_time() + self._settings.limits.handshake_limit_s
        departure = Departure(DropReason.HANDSHAKE_FAILED, detail="no Hello in time")
        try:
            with visit.handshake:
                departure = await self._converse(socket, visit)
        except RemoteFault as fault:
            departure = Departure(fault.reason, detail=fault.detail)
        except Exception:  # noqa: BLE001 -- a supervisor: no peer may end the process
            _log.exception("connection failed", peer=visit.peer)
            departure = Departure(DropReason.CLOSED)
        finally:
            self._pending.pop(visit, None)
            await trio.aclose_forcefully(socket)
        await self._report(visit, departure)

    async def _converse(self, socket: trio.SocketStream, visit: _Visit) -> Departure:
        link = await self._upgrader.secure(socket, visit.peer if visit.dialled else None)
        visit.peer = link.peer
        self._require_admission(link.peer, visit.dialled)
        departure = Departure(DropReason.CLOSED)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.run)
            departure = await self._talk(link, visit)
            nursery.cancel_scope.cancel()
        return departure

    async def _talk(self, link: SecureLink, visit: _Visit) -> Departure:
        try:
            stream = await link.open_stream()
        except RemoteFault as fault:
            return Departure(fault.reason, detail=fault.detail)

        async def greet(hello: Hello) -> None:
            stream.lift_budget()
            await self._register(link.peer, visit, hello)

        async def deliver(payload: bytes) -> None:
            await self._emit(FrameReceived(link.peer, payload))

        role, limits = self._role_of(link.peer), self._settings.limits
        visit.connection = Connection(stream, self._hello, role, limits, MAX_BACKLOG_BYTES, greet, deliver)
        return await visit.connection.run()

    def _require_admission(self, peer: PeerId, dialled: bool) -> None:
        if peer == self._peer_id:
            _log.warning("a peer has our own key: is a second node running with it?")
            raise RemoteFault(DropReason.DUPLICATE, "our own peer id")
        if not dialled and self._role_of(peer) is PeerRole.GUEST and self._settings.max_guests == 0:
            raise RemoteFault(DropReason.UNKNOWN_PEER)

    async def _register(self, peer: PeerId, visit: _Visit, hello: Hello) -> None:
        while (other := self._peers.get(peer)) is not None:
            if not (visit.dialled == other.dialled or visit.dialled == (self._peer_id < peer)):
                raise RemoteFault(DropReason.DUPLICATE)
            if other.connection is not None:
                other.connection.end(Departure(DropReason.REPLACED))
            await other.gone.wait()
        if self._role_of(peer) is PeerRole.GUEST and not visit.dialled:
            guests = sum(self._role_of(one) is PeerRole.GUEST and not at.dialled for one, at in self._peers.items())
            if guests >= self._settings.max_guests:
                raise RemoteFault(DropReason.TOO_MANY_GUESTS)
        self._peers[peer] = visit
        self._pending.pop(visit, None)
        visit.handshake.deadline = math.inf
        await self._emit(PeerConnected(peer, self._role_of(peer), hello.software))
        visit.announced_s = trio.current_time()

    async def _report(self, visit: _Visit, departure: Departure) -> None:
        peer, reason, by_peer = visit.peer, departure.reason, departure.by_peer
        log = _log.debug if peer is None else _log.info
        log("connection ended", peer=peer, reason=reason.value, by_peer=by_peer, detail=departure.detail)
        if peer is not None and self._peers.get(peer) is visit:
            del self._peers[peer]
        if peer is not None and visit.announced_s is not None:
            await self._emit(PeerDisconnected(peer, reason, by_peer))
        else:
            with suppress(trio.WouldBlock, trio.BrokenResourceError):
                self._events_in.send_nowait(PeerRefused(peer, reason, by_peer))
        visit.gone.set()

    async def _emit(self, event: TransportEvent) -> None:
        with suppress(trio.BrokenResourceError):  # the node stopped reading, and is about to cancel us
            await self._events_in.send(event)


def _multiaddr(listener: trio.SocketListener) -> str:
    host, port, *_ = listener.socket.getsockname()
    return multiaddr_of(Endpoint(host, port))


def _silence_library() -> None:
    """libp2p logs what every closed connection looks like from each of its layers; our events say it once.

    A level that was set on its logger before is left alone.
    """
    logger = logging.getLogger("libp2p")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.CRITICAL)
