"""A peer that the test speaks for, over real sockets: it can shake hands in order, and then do as it likes."""

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

import pytest
import trio

from bridge.errors import MalformedError
from pegnode.net.address import parse_endpoint
from pegnode.net.framing import FrameDecoder, FrameKind, encode_frame
from pegnode.net.handshake import PROTOCOL_VERSION, Hello, decode_goodbye, decode_hello, encode_hello
from pegnode.net.libp2p_host import MEMBER_WINDOW_BYTES
from pegnode.net.libp2p_link import LinkUpgrader, MuxedStream, SocketConnection
from pegnode.net.messages import AnyMessage, Message, decode_message, encode_message
from pegnode.net.session import LinkLimits
from pegnode.net.transport import DropReason, PeerAddress, PeerRole, RemoteFault

if TYPE_CHECKING:
    from trio_typing import TaskStatus

PATIENCE_S = 60.0
KEPT_MESSAGES = 1_000

M = TypeVar("M", bound=Message)


class RawPeer:
    """One authenticated stream. `run` answers pings and keeps what is heard; nothing is sent of its own accord.

    role: what the other side says it is, once it has greeted.
    """

    def __init__(self, stream: MuxedStream) -> None:
        self.stream = stream
        self.heard: deque[AnyMessage] = deque(maxlen=KEPT_MESSAGES)
        self.goodbye: DropReason | None = None
        self.ended = trio.Event()
        self.greeted = trio.Event()
        self.role: PeerRole | None = None
        self._decoder = FrameDecoder(LinkLimits().max_payload_bytes)
        self._writing = trio.Lock()

    async def run(self) -> None:
        """Listen until the other side ends the connection."""
        with suppress(trio.BrokenResourceError, RemoteFault):
            while data := await self.stream.read(65536):
                for kind, payload in self._decoder.feed(data):
                    await self._take(kind, payload)
        self.ended.set()

    async def _take(self, kind: FrameKind, payload: bytes) -> None:
        match kind:
            case FrameKind.HELLO:
                self.role = decode_hello(payload).role
                self.greeted.set()
            case FrameKind.PING:
                await self.frame(FrameKind.PONG, payload)
            case FrameKind.GOODBYE:
                self.goodbye = decode_goodbye(payload)
                self.ended.set()
            case FrameKind.PAYLOAD:
                with suppress(MalformedError):
                    self.heard.append(decode_message(payload))
            case FrameKind.PONG:
                pass

    async def write(self, data: bytes) -> None:
        """Send bytes as they are. A connection that is gone takes them all the same."""
        with suppress(trio.BrokenResourceError, RemoteFault):
            async with self._writing:
                await self.stream.write(data)

    async def frame(self, kind: FrameKind, payload: bytes) -> None:
        """Send a frame."""
        await self.write(encode_frame(kind, payload))

    async def say(self, *messages: Message) -> None:
        """Send messages."""
        for message in messages:
            await self.frame(FrameKind.PAYLOAD, encode_message(message))

    async def hello(self, chain_id: bytes, role: PeerRole, version: int = PROTOCOL_VERSION) -> None:
        """Send a Hello."""
        await self.frame(FrameKind.HELLO, encode_hello(Hello(chain_id, role, "raw", version)))

    async def is_greeted(self) -> bool:
        """Wait until the other side greets; False when it ends the connection instead."""
        with trio.fail_after(PATIENCE_S):
            async with trio.open_nursery() as nursery:
                for event in (self.greeted, self.ended):
                    nursery.start_soon(_wait_and_cancel, event, nursery.cancel_scope)
        return self.greeted.is_set()

    async def dropped(self) -> DropReason | None:
        """Wait until the other side ends the connection; the reason it gives, if it gives one."""
        with trio.fail_after(PATIENCE_S):
            await self.ended.wait()
        return self.goodbye

    async def hears(self, kind: type[M], condition: Callable[[M], bool] = lambda message: True) -> M:
        """The oldest message of a kind for which a condition holds, waiting for it; it is taken off the list."""
        with trio.move_on_after(PATIENCE_S):
            while True:
                for message in self.heard:
                    if isinstance(message, kind) and condition(message):
                        self.heard.remove(message)
                        return message
                await trio.sleep(0.05)
        pytest.fail(f"no {kind.__name__} within {PATIENCE_S} s")


async def _wait_and_cancel(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


@asynccontextmanager
async def dial(address: PeerAddress, secret: bytes, source: str = "127.0.0.1") -> AsyncIterator[RawPeer]:
    """An authenticated stream to a node, before any Hello. source: the address to come from, of this machine."""
    endpoint = parse_endpoint(address.multiaddr)
    socket = trio.socket.socket()
    await socket.bind((source, 0))
    await socket.connect((endpoint.host, endpoint.port))
    wire = SocketConnection(trio.SocketStream(socket))
    try:
        link = await LinkUpgrader(secret).secure(wire, address.peer_id)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.run)
            peer = RawPeer(await link.open_stream(MEMBER_WINDOW_BYTES))
            nursery.start_soon(peer.run)
            yield peer
            nursery.cancel_scope.cancel()
    finally:
        await wire.close()


async def listen(
    multiaddr: str,
    secret: bytes,
    serve: Callable[[RawPeer], Awaitable[None]],
    *,
    task_status: "TaskStatus[None]" = trio.TASK_STATUS_IGNORED,
) -> None:
    """Take connections, and let `serve` speak for the peer in each, before any Hello; until cancelled."""
    upgrader = LinkUpgrader(secret)

    async def take(socket: trio.SocketStream) -> None:
        wire = SocketConnection(socket)
        with suppress(RemoteFault):
            link = await upgrader.secure(wire, None)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(link.run)
                peer = RawPeer(await link.open_stream(MEMBER_WINDOW_BYTES))
                nursery.start_soon(peer.run)
                await serve(peer)
                nursery.cancel_scope.cancel()
        await wire.close()

    endpoint = parse_endpoint(multiaddr)
    listeners = await trio.open_tcp_listeners(endpoint.port, host=endpoint.host)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, take, listeners)
        task_status.started()
