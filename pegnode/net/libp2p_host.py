"""The transport over real networks: libp2p connections, one for each peer.

Theory of operation. Members form a full mesh in which the lower peer id dials; anyone else dials the members. A
dialler never gives up: see `pegnode.net.redial`. An inbound connection that authenticates as no member is refused,
unless guests are admitted and there is room. When a second connection to the same peer appears, the one dialled by the
lower peer id stays, and of two with the same dialler the newer: a restarted peer need not wait until its old connection
is found dead.

Nothing that a peer does ends the process, and a socket that says nothing holds no place that another needs: only so
many connections may be on the way to their Hello, and one more ends another (see `pegnode.net.doorway`). Members are
known to come from where they are configured to listen, and from where they came last. An address that opens
connections too fast is not answered, since a handshake takes milliseconds. Who commits a fault is kept out for a
while, and isn't dialled either.
"""

import logging
import math
import random
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import structlog
import trio

from pegnode.net.address import Endpoint, address_group, multiaddr_of, parse_endpoint, peer_id_from_secret
from pegnode.net.allowance import Allowances
from pegnode.net.connection import Connection, Departure
from pegnode.net.doorway import Doorway, Handshake
from pegnode.net.handshake import Hello
from pegnode.net.libp2p_link import LinkUpgrader, SecureLink, SocketConnection, bound_unsent
from pegnode.net.peers import PeerTable, Visit
from pegnode.net.redial import Redial
from pegnode.net.session import LinkLimits, Session
from pegnode.net.transport import (
    DropReason,
    PeerAddress,
    PeerId,
    PeerRole,
    RemoteFault,
    TransportError,
    TransportEvent,
)

if TYPE_CHECKING:
    from trio_typing import TaskStatus

CONNECTIONS_PER_S = 16.0
CONNECTIONS_BURST = 128.0
"""How fast one address may open connections: enough for a federation of 19 on one machine that starts anew."""
LOOK_UP_AGAIN_S = 600.0
"""The names of configured peers are looked up so often: their addresses may change."""
GUEST_READS_PER_S = 1_500.0
GUEST_READS_BURST = 10_000.0
MEMBER_READS_PER_S = 10_000.0
MEMBER_READS_BURST = 100_000.0
"""How much the guests of one address, or a member, may make this node read before it reads them more slowly: see
`pegnode.net.libp2p_link`. An honest frame costs five reads, so a guest's messages use up their own allowance first."""
MEMBER_WINDOW_BYTES = 4 * 1024 * 1024
GUEST_WINDOW_BYTES = 512 * 1024
"""How much a peer may send that this node has yet to read: from a member a largest frame at once."""
GUEST_QUEUED_BYTES = 5 * 1024 * 1024
"""What may wait for one guest, of which there may be many: a largest frame, and something beside it."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class HostSettings:
    """What a host is told. Raises TransportError on a malformed address, chain id or software name.

    chain_id: 32 bytes. software: see `Hello`.
    members: the allow-list. We are a member exactly if it holds our own id.
    dial: where members listen, or other nodes that admit us as a guest; the host decides which of them it dials.
    listen: multiaddrs with an IP address; port 0 takes any free port. A guest need not listen.
    max_guests: how many peers that are no members may be connected to us at once; 0 refuses them all.
    """

    chain_id: bytes
    software: str
    members: frozenset[PeerId]
    dial: tuple[PeerAddress, ...] = ()
    listen: tuple[str, ...] = ()
    max_guests: int = 0
    limits: LinkLimits = field(default_factory=LinkLimits)


class Libp2pHost:
    """A `Transport` over TCP. secret: the transport key, 32 bytes. rng: spreads redials in time, nothing secret."""

    def __init__(self, secret: bytes, settings: HostSettings, rng: random.Random) -> None:
        self._peer_id = peer_id_from_secret(secret)
        limits = settings.limits
        self._limits = limits
        guest_queued_bytes = min(limits.max_queued_bytes, GUEST_QUEUED_BYTES)
        self._limits_of = {
            PeerRole.MEMBER: limits,
            PeerRole.GUEST: replace(limits, max_queued_bytes=guest_queued_bytes),
        }
        self._openings: Allowances[str] = Allowances(CONNECTIONS_PER_S, CONNECTIONS_BURST, trio.current_time)
        self._guest_reads: Allowances[str] = Allowances(GUEST_READS_PER_S, GUEST_READS_BURST, trio.current_time)
        self._member_reads: Allowances[PeerId] = Allowances(MEMBER_READS_PER_S, MEMBER_READS_BURST, trio.current_time)
        self._rng = rng
        self._peers = PeerTable(self._peer_id, settings.members, settings.max_guests)
        self._endpoints = [parse_endpoint(multiaddr) for multiaddr in settings.listen]
        self._targets = [
            (address.peer_id, parse_endpoint(address.multiaddr))
            for address in settings.dial
            if self._is_ours_to_dial(address.peer_id)
        ]
        self._hello = Hello(settings.chain_id, self._peers.role_of(self._peer_id), settings.software)
        self._upgrader = LinkUpgrader(secret)
        self._listen_addresses: tuple[PeerAddress, ...] = ()
        self._doorway = Doorway()
        self._peer_hosts = {
            parse_endpoint(address.multiaddr).host for address in settings.dial if address.peer_id != self._peer_id
        }

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
        return self._peers.events

    def connected(self) -> frozenset[PeerId]:
        """See `Transport`."""
        return self._peers.connected()

    def send(self, peer: PeerId, payload: bytes) -> bool:
        """See `Transport`."""
        connection = self._peers.connection(peer)
        return connection is not None and connection.send(payload)

    def drop(self, peer: PeerId, reason: DropReason) -> None:
        """See `Transport`."""
        if (connection := self._peers.connection(peer)) is not None:
            connection.end(Departure(reason))

    def round_trip_ms(self, peer: PeerId) -> float | None:
        """See `Transport`."""
        connection = self._peers.connection(peer)
        return None if connection is None else connection.round_trip_ms

    async def run(self, *, task_status: "TaskStatus[None]" = trio.TASK_STATUS_IGNORED) -> None:
        """See `Transport`. Raises TransportError when a port can't be bound."""
        _silence_library()
        listeners: list[trio.SocketListener] = []
        try:
            for endpoint in self._endpoints:
                listeners += await _listen(endpoint)
            self._listen_addresses = tuple(PeerAddress(self._peer_id, _multiaddr(listener)) for listener in listeners)
            async with trio.open_nursery() as nursery:
                for peer, endpoint in self._targets:
                    nursery.start_soon(self._keep_dialled, peer, endpoint)
                if listeners:
                    nursery.start_soon(follow_names, self._doorway, self._peer_hosts)
                    nursery.start_soon(trio.serve_listeners, self._accept, listeners)
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._peers.close()
            for listener in listeners:
                listener.socket.close()

    def _is_ours_to_dial(self, peer: PeerId) -> bool:
        if peer == self._peer_id:
            return False
        roles = {self._peers.role_of(peer), self._peers.role_of(self._peer_id)}
        return self._peer_id < peer or roles != {PeerRole.MEMBER}

    async def _keep_dialled(self, peer: PeerId, endpoint: Endpoint) -> None:
        redial = Redial(self._rng)
        while True:
            if (visit := self._peers.visit(peer)) is not None:
                await visit.gone.wait()
                continue
            if (penalty_s := self._peers.penalty_s(peer)) > 0:
                await trio.sleep(penalty_s)
                continue
            await trio.sleep(redial.wait_s(await self._dial(peer, endpoint)))

    async def _dial(self, peer: PeerId, endpoint: Endpoint) -> float:
        """Connect once and serve to the end. How many seconds the connection lasted; 0 when it never came about."""
        try:
            with trio.fail_after(self._limits.handshake_limit_s):
                socket = await trio.open_tcp_stream(endpoint.host, endpoint.port)
        except (OSError, trio.TooSlowError) as error:
            _log.debug("dial failed", peer=peer, host=endpoint.host, port=endpoint.port, error=str(error))
            return 0.0
        visit = await self._serve(socket, peer)
        return 0.0 if visit.announced_s is None else trio.current_time() - visit.announced_s

    async def _accept(self, socket: trio.SocketStream) -> None:
        address = _remote_address(socket)
        if not self._openings.of(address).take(1):
            await trio.aclose_forcefully(socket)
            visit = Visit(self._peers, False, None, lambda: None, address)
            await self._peers.report(visit, Departure(DropReason.TOO_MANY_CONNECTIONS))
            return
        await self._serve(socket, None, address)

    async def _serve(self, socket: trio.SocketStream, dialled: PeerId | None, address: str = "") -> Visit:
        """From the socket to the departure, which is reported. Nothing but cancellation gets out."""
        bound_unsent(socket)
        address = address or _remote_address(socket)
        wire = SocketConnection(socket, self._limits.silence_limit_s, self._guest_reads.of(address))
        scope = trio.CancelScope(deadline=trio.current_time() + self._limits.handshake_limit_s)
        handshake = Handshake(address, scope.cancel)

        def settle() -> None:
            self._doorway.leave(handshake)
            scope.deadline = math.inf
            wire.lift_budget()
            if visit.peer is not None and self._peers.role_of(visit.peer) is PeerRole.MEMBER:
                self._doorway.know(visit.peer, visit.address)

        visit = Visit(self._peers, dialled is not None, dialled, settle, address)
        if dialled is None:
            self._doorway.enter(handshake)
        departure = Departure(DropReason.HANDSHAKE_FAILED, detail="no Hello in time")
        try:
            with scope:
                departure = await self._converse(wire, visit)
        except RemoteFault as fault:
            departure = Departure(fault.reason, detail=fault.detail)
        except Exception:  # noqa: BLE001 -- a supervisor: no peer may end the process
            _log.exception("connection failed", peer=visit.peer)
            departure = Departure(DropReason.CLOSED)
        finally:
            self._doorway.leave(handshake)
            await wire.close()
        await self._peers.report(visit, departure)
        return visit

    async def _converse(self, wire: SocketConnection, visit: Visit) -> Departure:
        link = await self._upgrader.secure(wire, visit.peer)
        visit.peer = link.peer
        if self._peers.role_of(link.peer) is PeerRole.MEMBER:
            wire.reads = self._member_reads.of(link.peer)
        self._peers.require_welcome(visit)
        departure = Departure(DropReason.CLOSED)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.run)
            departure = await self._talk(link, visit)
            nursery.cancel_scope.cancel()
        return departure

    async def _talk(self, link: SecureLink, visit: Visit) -> Departure:
        role = self._peers.role_of(link.peer)
        limits = self._limits_of[role]
        try:
            stream = await link.open_stream(MEMBER_WINDOW_BYTES if role is PeerRole.MEMBER else GUEST_WINDOW_BYTES)
        except RemoteFault as fault:
            return Departure(fault.reason, detail=fault.detail)
        session = Session(self._hello, role, limits, trio.current_time())
        visit.connection = Connection(stream, session, visit, limits, is_dialler=visit.is_dialled)
        return await visit.connection.run()


async def follow_names(doorway: Doorway, hosts: Iterable[str]) -> None:
    """Let the doorway know where these hosts come from, again and again, until cancelled."""
    while True:
        for host in hosts:
            try:
                found = await trio.socket.getaddrinfo(host, None)
            except OSError as error:
                _log.debug("no address of a configured peer", host=host, error=str(error))
                continue
            doorway.know(host, *(address_group(str(sockaddr[0])) for *_, sockaddr in found))
        await trio.sleep(LOOK_UP_AGAIN_S)


async def _listen(endpoint: Endpoint) -> list[trio.SocketListener]:
    """The listeners of an endpoint. Raises TransportError."""
    try:
        return list(await trio.open_tcp_listeners(endpoint.port, host=endpoint.host))
    except OSError as error:
        what = f"can't listen on port {endpoint.port} of {endpoint.host}: {error.strerror or error}"
        raise TransportError(f"{what}; stop what uses it, or correct p2p.listen") from error


def _multiaddr(listener: trio.SocketListener) -> str:
    host, port, *_ = listener.socket.getsockname()
    return multiaddr_of(Endpoint(host, port))


def _remote_address(socket: trio.SocketStream) -> str:
    """Where a connection comes from; empty when it has gone already."""
    try:
        return address_group(socket.socket.getpeername()[0])
    except OSError:
        return ""


def _silence_library() -> None:
    """libp2p logs what every closed connection looks like from each of its layers; our events say it once.

    A level that was set on its logger before is left alone.
    """
    logger = logging.getLogger("libp2p")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.CRITICAL)
