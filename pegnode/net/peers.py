"""Who is connected: roles, admission, which of two connections to one peer stays, and the events about it all."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import structlog
import trio

from pegnode.net.connection import Connection, Departure
from pegnode.net.handshake import Hello
from pegnode.net.penalties import FAULTS, Penalties
from pegnode.net.transport import (
    DropReason,
    FrameReceived,
    PeerConnected,
    PeerDisconnected,
    PeerId,
    PeerRefused,
    PeerRole,
    RemoteFault,
    TransportEvent,
)

EVENTS_BUFFERED = 16
"""Events that wait for the node; beyond them the peers' bytes wait. Few, since each may hold a frame of 4 MiB."""
GUEST_ADDRESSES = 4
"""One address gets at most this fraction of the places for guests, so that one machine can't take all of them."""
MEMBER_PENALTY_S = (1.0, 30.0)
GUEST_PENALTY_S = (10.0, 600.0)
"""For how long a first fault keeps a peer out, and any. A member is known by its key, a guest by its address."""

_log = structlog.get_logger(__name__)


@dataclass(eq=False, slots=True)
class Visit:
    """One connection, from the socket to the departure; the owner of its `Connection`.

    peer: whom we dialled, or who it proved to be.  settle: called once, when the peer is admitted.
    address: see `address_group`; empty if it is not known.
    announced_s: when `PeerConnected` was told.  gone: set when everything about the departure was told.
    """

    peers: "PeerTable"
    is_dialled: bool
    peer: PeerId | None
    settle: Callable[[], None]
    address: str = ""
    connection: Connection | None = None
    announced_s: float | None = None
    gone: trio.Event = field(default_factory=trio.Event)

    async def admit(self, hello: Hello) -> None:
        """See `Owner`."""
        await self.peers.admit(self)
        self.settle()

    async def announce(self, hello: Hello) -> None:
        """See `Owner`."""
        await self.peers.announce(self, hello)

    async def deliver(self, payload: bytes) -> None:
        """See `Owner`."""
        await self.peers.deliver(self, payload)


class PeerTable:
    """The admitted visits, at most one for each peer. max_guests: how many non-members may visit us at once."""

    def __init__(self, own_id: PeerId, members: frozenset[PeerId], max_guests: int) -> None:
        self._own_id = own_id
        self._members = members
        self._max_guests = max_guests
        self._max_guests_of_address = max(1, max_guests // GUEST_ADDRESSES)
        self._penalties: dict[PeerRole, Penalties[str]] = {
            PeerRole.MEMBER: Penalties(*MEMBER_PENALTY_S),
            PeerRole.GUEST: Penalties(*GUEST_PENALTY_S),
        }
        self._visits: dict[PeerId, Visit] = {}
        self._events_in, self.events = trio.open_memory_channel[TransportEvent](EVENTS_BUFFERED)

    def role_of(self, peer: PeerId) -> PeerRole:
        """MEMBER if on the allow-list."""
        return PeerRole.MEMBER if peer in self._members else PeerRole.GUEST

    def visit(self, peer: PeerId) -> Visit | None:
        """The admitted visit of a peer, which may be about to end."""
        return self._visits.get(peer)

    def connection(self, peer: PeerId) -> Connection | None:
        """The open connection to a peer."""
        visit = self._visits.get(peer)
        return visit.connection if visit and visit.connection and visit.connection.is_open else None

    def connected(self) -> frozenset[PeerId]:
        """The peers with an open connection."""
        return frozenset(peer for peer in self._visits if self.connection(peer) is not None)

    def penalty_s(self, peer: PeerId, address: str = "") -> float:
        """For how many seconds more a peer is kept out; 0 when it isn't."""
        role, holder = self._answerable(peer, address)
        return self._penalties[role].wait_s(holder, trio.current_time())

    def require_welcome(self, visit: Visit) -> None:
        """Raise RemoteFault unless this proven peer may go on to its Hello."""
        peer, is_dialled = _proven(visit), visit.is_dialled
        if peer == self._own_id:
            _log.warning("a peer has our own key: does a second node run with it?")
            raise RemoteFault(DropReason.DUPLICATE, "our own peer id")
        if not is_dialled and self.role_of(peer) is PeerRole.GUEST and self._max_guests == 0:
            raise RemoteFault(DropReason.UNKNOWN_PEER)
        if (wait_s := self.penalty_s(peer, visit.address)) > 0:
            raise RemoteFault(DropReason.BACKING_OFF, f"for {wait_s:.0f} s more")

    async def admit(self, visit: Visit) -> None:
        """Enter a visit in the table, in place of an older one if need be. Raises RemoteFault."""
        peer = _proven(visit)
        while (other := self._visits.get(peer)) is not None:
            if not self._supersedes(visit, other):
                raise RemoteFault(DropReason.DUPLICATE)
            if other.connection is not None:
                other.connection.end(Departure(DropReason.REPLACED))
            await other.gone.wait()
        if self._is_inbound_guest(visit):
            guests = [other for other in self._visits.values() if self._is_inbound_guest(other)]
            if len(guests) >= self._max_guests:
                raise RemoteFault(DropReason.TOO_MANY_GUESTS, f"{len(guests)} are here")
            alike = sum(other.address == visit.address for other in guests)
            if alike >= self._max_guests_of_address:
                raise RemoteFault(DropReason.TOO_MANY_GUESTS, f"{alike} of {visit.address} are here")
        self._visits[peer] = visit

    async def announce(self, visit: Visit, hello: Hello) -> None:
        """Tell of an admitted peer, waiting for the node to have room."""
        peer = _proven(visit)
        await self._tell(PeerConnected(peer, self.role_of(peer), hello.software, visit.address))
        visit.announced_s = trio.current_time()

    async def deliver(self, visit: Visit, payload: bytes) -> None:
        """Tell of a message, waiting for the node to have room."""
        await self._tell(FrameReceived(_proven(visit), payload))

    async def report(self, visit: Visit, departure: Departure) -> None:
        """Tell how a visit ended, and forget it. Of a refusal, only if the node has room."""
        peer, reason, by_peer, detail = visit.peer, departure.reason, departure.by_peer, departure.detail
        _log.debug("connection ended", peer=peer, reason=reason.value, by_peer=by_peer, detail=detail)
        if peer is not None and self._visits.get(peer) is visit:
            del self._visits[peer]
        if peer is not None and reason in FAULTS and not by_peer:
            role, holder = self._answerable(peer, visit.address)
            self._penalties[role].punish(holder, trio.current_time())
        if peer is not None and visit.announced_s is not None:
            await self._tell(PeerDisconnected(peer, reason, by_peer, detail))
        else:
            with suppress(trio.WouldBlock, trio.BrokenResourceError):
                self._events_in.send_nowait(PeerRefused(peer, reason, by_peer, detail, visit.address))
        visit.gone.set()

    def _answerable(self, peer: PeerId, address: str) -> tuple[PeerRole, str]:
        """Who bears a peer's faults: a member itself, and for a guest, which has as many ids as it likes, its address.

        Without an address it is the guest itself.
        """
        role = self.role_of(peer)
        return role, peer if role is PeerRole.MEMBER or not address else address

    def close(self) -> None:
        """Forget everyone, and end the events."""
        self._visits.clear()
        self._events_in.close()

    def _supersedes(self, visit: Visit, other: Visit) -> bool:
        if visit.is_dialled == other.is_dialled:
            return True
        return visit.is_dialled == (self._own_id < _proven(visit))

    def _is_inbound_guest(self, visit: Visit) -> bool:
        return not visit.is_dialled and self.role_of(_proven(visit)) is PeerRole.GUEST

    async def _tell(self, event: TransportEvent) -> None:
        with suppress(trio.BrokenResourceError):  # the node has stopped reading, and is about to cancel us
            await self._events_in.send(event)


def _proven(visit: Visit) -> PeerId:
    """The peer of a visit that has got as far as a Hello."""
    if visit.peer is None:
        raise RemoteFault(DropReason.PROTOCOL_VIOLATION, "a Hello from nobody")
    return visit.peer
