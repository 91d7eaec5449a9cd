"""Messages in and out: each is decoded once, attributed to a member or a guest, and handed to whom it concerns."""

from collections.abc import Callable
from typing import TypeVar

import structlog

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

M = TypeVar("M", bound=Message)
log = structlog.get_logger()


class Peers:
    """Who is connected, and what to do with what they say.

    A handler gets the sender and the message. A handler that raises MalformedError condemns the sender, as does a
    message of a type that no handler takes from such a peer.
    """

    def __init__(self, transport: Transport, membership: Membership) -> None:
        self._transport = transport
        self._members = {PeerId(member.peer_id): member.index for member in membership.members}
        self._handlers: dict[type[Message], tuple[Callable[[PeerId, AnyMessage], None], bool]] = {}
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

    def on_message(self, kind: type[M], handler: Callable[[PeerId, M], None], *, from_guests: bool) -> None:
        """Hand messages of `kind` to `handler`; from_guests: also those of peers that are no members."""
        self._handlers[kind] = (handler, from_guests)  # type: ignore[assignment] # keyed by its own argument type

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

    def to_members(self, message: Message) -> None:
        """Queue a message for every connected member."""
        self._fan_out(message, lambda peer: peer in self._members)

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
                    for farewell in self._farewells:
                        farewell(peer)
                case PeerRefused(refused, reason, by_peer):
                    log.info("connection refused", peer=refused, reason=reason, by_peer=by_peer)

    def _dispatch(self, peer: PeerId, payload: bytes) -> None:
        try:
            message = decode_message(payload)
            handler, from_guests = self._handlers.get(type(message), (None, False))
            if handler is None or not (from_guests or peer in self._members):
                log.warning("message out of place", peer=peer, type=type(message).__name__)
                self._transport.drop(peer, DropReason.PROTOCOL_VIOLATION)
                return
            handler(peer, message)
        except MalformedError as error:
            log.warning("garbled message", peer=peer, member=self.member_of(peer), detail=str(error))
            self._transport.drop(peer, DropReason.GARBLED_FRAME)
