"""Messages in and out: each is decoded once, attributed to a member or a guest, and handed to whom it concerns.

Members answer for what they say, guests for nothing: anybody can be one, and under a new name at any time. So what a
guest may send is rationed by the address it comes from, and what a member may by its name, far above what an honest
one needs. Who exceeds it is dropped, and nobody is for what somebody else did. Allowances outlast connections.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import structlog
import trio

from bridge.errors import MalformedError
from federation.membership import Membership
from pegnode.clock import now_ms
from pegnode.net.allowance import Allowances
from pegnode.net.messages import AnyMessage, Message, decode_message, encode_message
from pegnode.net.transport import (
    DropReason,
    FrameReceived,
    PeerConnected,
    PeerDisconnected,
    PeerId,
    PeerRefused,
    Transport,
)
from pegnode.service.departures import Departure, Departures

M = TypeVar("M", bound=Message)
log = structlog.get_logger()

MESSAGE_BYTES: Final = 1_000
"""What a message costs its sender beside its own bytes: a small one may ask for much."""
GUEST_BYTES_PER_S: Final = 256 * 1024
GUEST_BURST_BYTES: Final = 8 * 1024 * 1024
MEMBER_BYTES_PER_S: Final = 8 * 1024 * 1024
MEMBER_BURST_BYTES: Final = 128 * 1024 * 1024
"""A largest block each second, and all that a member has to tell of when it comes back."""


@dataclass(frozen=True, slots=True)
class Presence:
    """A peer that is connected. address: see `PeerConnected`.  since_ms: Unix time in milliseconds."""

    software: str
    address: str
    since_ms: int


class Peers:
    """Who is connected, and what to do with what they say.

    A handler gets the sender and the message. A handler that raises MalformedError condemns the sender, as does a
    message of a type that no handler takes from such a peer. now_s: any monotonic clock, in seconds.
    """

    def __init__(
        self, transport: Transport, membership: Membership, now_s: Callable[[], float] = trio.current_time
    ) -> None:
        self._transport = transport
        self._dropped: dict[PeerId, str] = {}
        self._present: dict[PeerId, Presence] = {}
        self._departures = Departures()
        self._of_guests: Allowances[str] = Allowances(GUEST_BYTES_PER_S, GUEST_BURST_BYTES, now_s)
        self._of_members: Allowances[PeerId] = Allowances(MEMBER_BYTES_PER_S, MEMBER_BURST_BYTES, now_s)
        self._members = {PeerId(member.peer_id): member.index for member in membership.members}
        self._handlers: dict[type[Message], tuple[Callable[[PeerId, AnyMessage], None], bool]] = {}
        self._free: set[type[Message]] = set()
        self._greetings: list[Callable[[PeerId], None]] = []
        self._farewells: list[Callable[[PeerId], None]] = []

    @property
    def transport(self) -> Transport:
        """The transport below."""
        return self._transport

    def member_of(self, peer: PeerId) -> int | None:
        """The member's index behind a peer id, which its connection has proved; None for a guest."""
        return self._members.get(peer)

    def peer_of(self, member: int) -> PeerId:
        """The peer id of a member."""
        return next(peer for peer, index in self._members.items() if index == member)

    def is_connected(self, member: int) -> bool:
        """Whether a member can be reached now."""
        return self.peer_of(member) in self._transport.connected()

    def on_message(
        self, kind: type[M], handler: Callable[[PeerId, M], None], *, from_guests: bool, is_free: bool = False
    ) -> None:
        """Hand messages of `kind` to `handler`.

        from_guests: also those of peers that are no members.  is_free: they cost their sender nothing, as what this
        node asked for.
        """
        self._handlers[kind] = (handler, from_guests)  # type: ignore[assignment] # keyed by its own argument type
        if is_free:
            self._free.add(kind)

    def on_connected(self, greeting: Callable[[PeerId], None]) -> None:
        """Call `greeting` for each peer that connects."""
        self._greetings.append(greeting)

    def on_disconnected(self, farewell: Callable[[PeerId], None]) -> None:
        """Call `farewell` for each peer that leaves."""
        self._farewells.append(farewell)

    def send(self, peer: PeerId, message: Message) -> bool:
        """Queue a message for one peer; False when it is not connected."""
        return self._transport.send(peer, encode_message(message))

    def send_to_member(self, member: int, message: Message) -> bool:
        """Queue a message for a member; False when it is not connected."""
        return self.send(self.peer_of(member), message)

    def to_members(self, message: Message, except_peer: PeerId | None = None) -> list[PeerId]:
        """Queue a message for every connected member but one; for whom it is queued."""
        return self._fan_out(message, lambda peer: peer in self._members and peer != except_peer)

    def to_all(self, message: Message, except_peer: PeerId | None = None) -> None:
        """Queue a message for every connected peer but one."""
        self._fan_out(message, lambda peer: peer != except_peer)

    def _fan_out(self, message: Message, wanted: Callable[[PeerId], bool]) -> list[PeerId]:
        payload = encode_message(message)
        peers = filter(wanted, self._transport.connected())
        return [peer for peer in peers if self._transport.send(peer, payload)]

    async def run(self) -> None:
        """Serve the transport's events until they end."""
        async for event in self._transport.events:
            match event:
                case FrameReceived(peer, payload):
                    self._dispatch(peer, payload)
                case PeerConnected():
                    self._welcome(event)
                case PeerDisconnected(peer, reason, by_peer, detail):
                    self._bid_farewell(peer, reason, by_peer, detail)
                case PeerRefused(refused, reason, by_peer, detail, address):
                    self._note("connection refused", refused, address, reason, by_peer, detail)

    def drop(self, peer: PeerId, reason: DropReason, detail: str = "") -> None:
        """End the connection to a peer, if there is one. What it has sent already is not heard any more.

        detail: for people, beside the reason.
        """
        if peer in self._transport.connected():
            self._dropped[peer] = detail
            self._transport.drop(peer, reason)

    def presence_of(self, peer: PeerId) -> Presence | None:
        """What is known of a connected peer."""
        return self._present.get(peer)

    def holder_of(self, peer: PeerId) -> str:
        """By what a guest is rationed: its address, or itself if it has none that is known."""
        presence = self._present.get(peer)
        return presence.address if presence is not None and presence.address else peer

    def departures(self) -> tuple[Departure, ...]:
        """Who was dropped or refused lately, newest first."""
        return self._departures.newest_first()

    def _welcome(self, event: PeerConnected) -> None:
        peer, member = event.peer, self.member_of(event.peer)
        self._present[peer] = Presence(event.software, event.address, now_ms())
        log.info("peer connected", peer=peer, member=member, role=event.role.name, software=event.software)
        for greeting in self._greetings:
            greeting(peer)

    def _bid_farewell(self, peer: PeerId, reason: DropReason, by_peer: bool, detail: str) -> None:
        presence = self._present.pop(peer, None)
        told = self._dropped.pop(peer, "")
        self._note("peer gone", peer, presence.address if presence else "", reason, by_peer, detail or told)
        for farewell in self._farewells:
            farewell(peer)

    def _note(
        self, event: str, peer: PeerId | None, address: str, reason: DropReason, by_peer: bool, detail: str
    ) -> None:
        """Remember a departure, and log it unless its like was logged often: the log is not for strangers to fill."""
        member = None if peer is None else self.member_of(peer)
        departure = Departure(peer, member, address, reason, by_peer, detail, now_ms())
        write = log.info if self._departures.note(departure) else log.debug
        write(event, peer=peer, member=member, address=address, reason=reason, by_peer=by_peer, detail=detail)

    def charge(self, peer: PeerId, size_bytes: int) -> bool:
        """Take what a peer sends, or has sent to it, out of its allowance; who has too little is dropped, and False."""
        is_member = peer in self._members
        allowance = self._of_members.of(peer) if is_member else self._of_guests.of(self.holder_of(peer))
        if allowance.take(size_bytes + MESSAGE_BYTES):
            return True
        self.drop(peer, DropReason.FLOOD, "more bytes or messages than its allowance")
        return False

    def _dispatch(self, peer: PeerId, payload: bytes) -> None:
        if peer in self._dropped:
            return  # it was underway when its sender was dropped
        try:
            message = decode_message(payload)
            if type(message) not in self._free and not self.charge(peer, len(payload)):
                return
            handler, from_guests = self._handlers.get(type(message), (None, False))
            if handler is None or not (from_guests or peer in self._members):
                self.drop(peer, DropReason.MISPLACED_MESSAGE, f"{type(message).__name__} is not for such a peer")
                return
            handler(peer, message)
        except MalformedError as error:
            self.drop(peer, DropReason.GARBLED_MESSAGE, str(error))
