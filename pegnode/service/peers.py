"""Messages in and out: each is decoded once, attributed to a member or a guest, and handed to whom it concerns.

Members answer for what they say, guests for nothing: anybody can be one, and under a new name at any time. So guests
have allowances, each its own and all of them one together, far above what an honest full node needs. Who exceeds one
is dropped.
"""

from collections.abc import Callable
from typing import Final, TypeVar

import structlog
import trio

from bridge.errors import MalformedError
from federation.membership import Membership
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
from pegnode.service.allowance import Allowance

M = TypeVar("M", bound=Message)
log = structlog.get_logger()

MESSAGE_BYTES: Final = 1_000
"""What a message costs a guest beside its own bytes: a small one may ask for much."""
GUEST_BYTES_PER_S: Final = 256 * 1024
GUEST_BURST_BYTES: Final = 8 * 1024 * 1024
ALL_GUESTS_BYTES_PER_S: Final = 8 * GUEST_BYTES_PER_S
ALL_GUESTS_BURST_BYTES: Final = 8 * GUEST_BURST_BYTES


class Peers:
    """Who is connected, and what to do with what they say.

    A handler gets the sender and the message. A handler that raises MalformedError condemns the sender, as does a
    message of a type that no handler takes from such a peer. now_s: any monotonic clock, in seconds.
    """

    def __init__(
        self, transport: Transport, membership: Membership, now_s: Callable[[], float] = trio.current_time
    ) -> None:
        self._transport = transport
        self._now_s = now_s
        self._dropped: set[PeerId] = set()
        self._guests: dict[PeerId, Allowance] = {}
        self._all_guests = Allowance(ALL_GUESTS_BYTES_PER_S, ALL_GUESTS_BURST_BYTES, now_s)
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

        from_guests: also those of peers that are no members.  is_free: they cost a guest nothing unless the handler
        charges it, as for what this node asked for.
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

    def to_members(self, message: Message, except_peer: PeerId | None = None) -> None:
        """Queue a message for every connected member but one."""
        self._fan_out(message, lambda peer: peer in self._members and peer != except_peer)

    def to_all(self, message: Message, except_peer: PeerId | None = None) -> None:
        """Queue a message for every connected peer but one."""
        self._fan_out(message, lambda peer: peer != except_peer)

    def _fan_out(self, message: Message, wanted: Callable[[PeerId], bool]) -> None:
        payload = encode_message(message)
        for peer in self._transport.connected():
            if wanted(peer):
                self._transport.send(peer, payload)

    async def run(self) -> None:
        """Serve the transport's events until they end."""
        async for event in self._transport.events:
            match event:
                case FrameReceived(peer, payload):
                    self._dispatch(peer, payload)
                case PeerConnected(peer, role, software):
                    log.info(
                        "peer connected", peer=peer, member=self.member_of(peer), role=role.name, software=software
                    )
                    for greeting in self._greetings:
                        greeting(peer)
                case PeerDisconnected(peer, reason, by_peer):
                    log.info("peer gone", peer=peer, member=self.member_of(peer), reason=reason, by_peer=by_peer)
                    self._guests.pop(peer, None)
                    self._dropped.discard(peer)
                    for farewell in self._farewells:
                        farewell(peer)
                case PeerRefused(refused, reason, by_peer):
                    log.info("connection refused", peer=refused, reason=reason, by_peer=by_peer)

    def drop(self, peer: PeerId, reason: DropReason) -> None:
        """End the connection to a peer, if there is one. What it has sent already is not heard any more."""
        if peer in self._transport.connected():
            self._dropped.add(peer)
            self._transport.drop(peer, reason)

    def charge(self, peer: PeerId, size_bytes: int) -> bool:
        """Take the cost of a message out of a guest's allowance; a guest that has too little is dropped, and False."""
        if peer in self._members:
            return True
        own = self._guests.setdefault(peer, Allowance(GUEST_BYTES_PER_S, GUEST_BURST_BYTES, self._now_s))
        cost_bytes = size_bytes + MESSAGE_BYTES
        if own.take(cost_bytes) and self._all_guests.take(cost_bytes):
            return True
        log.warning("guest floods", peer=peer)
        self.drop(peer, DropReason.FLOOD)
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
                log.warning("message out of place", peer=peer, type=type(message).__name__)
                self.drop(peer, DropReason.PROTOCOL_VIOLATION)
                return
            handler(peer, message)
        except MalformedError as error:
            log.warning("garbled message", peer=peer, member=self.member_of(peer), detail=str(error))
            self.drop(peer, DropReason.GARBLED_FRAME)
