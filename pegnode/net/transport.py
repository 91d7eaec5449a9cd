"""What the node needs from a network: authenticated peers, whole messages, and a reason for every departure.

A transport keeps one duplex connection to each peer. Payloads arrive whole, unaltered, in the order sent, and none
is lost while the connection lasts: `PeerDisconnected` is the only sign of loss. Two implementations share this port:
`pegnode.net.libp2p_host` for real networks, `pegnode.net.memory` for tests and simulation.
"""

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, NewType, Protocol

import trio

from bridge.errors import Reason
from pegnode.errors import PegnodeError, Refusal

if TYPE_CHECKING:
    from trio_typing import TaskStatus  # a dependency of libp2p brings stubs of trio that lack trio.TaskStatus

PeerId = NewType("PeerId", str)
"""A libp2p peer id in base58. It is a function of the peer's transport key, which the connection proves."""


class PeerRole(enum.IntEnum):
    """What a peer is to this node. The number is also its form on the wire."""

    MEMBER = 1
    """On the allow-list: a member of the federation."""
    GUEST = 2
    """Anyone else: a full node without keys."""


class DropReason(Reason):
    """Why a connection ended or never began."""

    UNKNOWN_PEER = "unknown-peer"
    """Its peer id is not on the allow-list, and guests are not admitted."""
    TOO_MANY_GUESTS = "too-many-guests"
    """The places for guests are taken, or those for guests of its address."""
    TOO_MANY_CONNECTIONS = "too-many-connections"
    """Its address opens connections faster than anybody needs to."""
    BACKING_OFF = "backing-off"
    """It misbehaved lately, and is kept out for a while: longer each time, never for good."""
    HANDSHAKE_FAILED = "handshake-failed"
    """No authenticated, encrypted stream with a Hello came about in time."""
    WRONG_VERSION = "wrong-version"
    """It speaks another version of this protocol."""
    WRONG_CHAIN = "wrong-chain"
    """Its chain id is another: another genesis, or another value in it."""
    WRONG_ROLE = "wrong-role"
    """It claims to be a member and is not on the allow-list, or the reverse."""
    DUPLICATE = "duplicate"
    """A connection to this peer exists and takes precedence."""
    REPLACED = "replaced"
    """A newer connection from the same peer took its place."""
    FRAME_TOO_LARGE = "frame-too-large"
    """A frame announces more bytes than any may have; nothing of it is read."""
    GARBLED_FRAME = "garbled-frame"
    """Bytes that are no frame of the protocol."""
    PROTOCOL_VIOLATION = "protocol-violation"
    """A well-formed frame or message that has no place here."""
    GARBLED_MESSAGE = "garbled-message"
    """A frame's payload is no message, of a type that is not known, or carries what can't be decoded."""
    MISPLACED_MESSAGE = "misplaced-message"
    """A message that such a peer may not send, or an answer that nobody asked for."""
    FALSE_SIGNATURE = "false-signature"
    """A vote, a certificate, or what pays out, that its signers never signed."""
    FALSE_BLOCKS = "false-blocks"
    """What it calls final blocks is not what a quorum made final, or is not what it was asked for."""
    FALSE_TRANSACTION = "false-transaction"
    """It passed on a transaction that is invalid whatever the chain holds."""
    FALSE_EVIDENCE = "false-evidence"
    """It passed on evidence that is false whatever the chains hold."""
    NO_ANSWER = "no-answer"
    """It said that it has blocks, and did not answer a request for them in time."""
    SILENT = "silent"
    """Nothing heard for longer than the limit."""
    SLOW_CONSUMER = "slow-consumer"
    """It reads more slowly than messages for it accrue."""
    FLOOD = "flood"
    """It sends more than its due."""
    CLOSED = "closed"
    """The connection broke, or the peer stopped."""


class TransportError(PegnodeError):
    """*We* misused or misconfigured the transport."""


class RemoteFault(Refusal):
    """*The peer* broke a rule of the transport's protocol; the connection ends with `reason`."""

    reason: DropReason

    def __init__(self, reason: DropReason, detail: str = "") -> None:
        super().__init__(reason, detail)


@dataclass(frozen=True, slots=True)
class PeerAddress:
    """Where a peer listens. multiaddr: `/ip4|ip6|dns|dns4|dns6/<host>/tcp/<port>`, without the peer id."""

    peer_id: PeerId
    multiaddr: str

    @property
    def text(self) -> str:
        """The usual text form, which ends in `/p2p/<peer id>`."""
        return f"{self.multiaddr}/p2p/{self.peer_id}"


@dataclass(frozen=True, slots=True)
class PeerConnected:
    """A peer is authenticated, on our chain and at our version. software: what it calls itself, unverified ASCII.

    address: the network address it comes from, see `address_group`; empty where there is none.
    """

    peer: PeerId
    role: PeerRole
    software: str
    address: str = ""


@dataclass(frozen=True, slots=True)
class PeerDisconnected:
    """The peer is gone; follows `PeerConnected`. by_peer: the reason is the peer's own word, not our finding.

    detail: for people, may be empty.
    """

    peer: PeerId
    reason: DropReason
    by_peer: bool = False
    detail: str = ""


@dataclass(frozen=True, slots=True)
class PeerRefused:
    """A connection ended before `PeerConnected`; left out when the node is too busy to hear it.

    peer: whom we dialled, or who it proved to be; None if it dialled us and proved nothing. by_peer, detail: as above.
    address: as in `PeerConnected`.
    """

    peer: PeerId | None
    reason: DropReason
    by_peer: bool = False
    detail: str = ""
    address: str = ""


@dataclass(frozen=True, slots=True)
class FrameReceived:
    """One whole message of a connected peer."""

    peer: PeerId
    payload: bytes


TransportEvent = PeerConnected | PeerDisconnected | PeerRefused | FrameReceived


class Transport(Protocol):
    """The port. For one peer, events come in the order connected, frames, disconnected."""

    @property
    def peer_id(self) -> PeerId:
        """Our own id."""
        ...

    @property
    def listen_addresses(self) -> tuple[PeerAddress, ...]:
        """Where this node listens, with the ports actually bound; empty until `run` has started."""
        ...

    @property
    def events(self) -> trio.MemoryReceiveChannel[TransportEvent]:
        """What happens. Read it always: a reader that stops holds up every peer. It ends when `run` ends."""
        ...

    def connected(self) -> frozenset[PeerId]:
        """The peers that `send` can reach now."""
        ...

    def send(self, peer: PeerId, payload: bytes) -> bool:
        """Queue `payload` for `peer` and return at once. False: not connected, so it will not arrive.

        A peer whose queue is full is dropped as a SLOW_CONSUMER, since a message must not get lost in silence. A large
        payload whose like waits in the queue already may be sent once for both.
        Raises TransportError when the payload exceeds what one frame may hold.
        """
        ...

    def drop(self, peer: PeerId, reason: DropReason) -> None:
        """End the connection to `peer`, if there is one; `PeerDisconnected` follows.

        A peer that is dropped for a fault (see `pegnode.net.penalties`) is kept out for a while.
        """
        ...

    def round_trip_ms(self, peer: PeerId) -> float | None:
        """Smoothed round-trip time; None before the first answer, or when not connected."""
        ...

    async def run(self, *, task_status: "TaskStatus[None]" = trio.TASK_STATUS_IGNORED) -> None:
        """Listen, dial and serve until cancelled. `task_status` starts once the listening ports are bound."""
        ...
