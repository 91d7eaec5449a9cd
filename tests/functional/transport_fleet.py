"""Hosts in processes of their own, and clients that speak the protocol by hand, for the transport's tests."""

import json
import secrets
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio

from pegnode.net.address import Endpoint, parse_endpoint, parse_peer_address, peer_id_from_secret
from pegnode.net.framing import FrameDecoder, FrameKind, encode_frame
from pegnode.net.handshake import Hello, encode_hello
from pegnode.net.libp2p_host import MEMBER_WINDOW_BYTES
from pegnode.net.libp2p_link import LinkUpgrader, MuxedStream, SocketConnection
from pegnode.net.transport import PeerRole, RemoteFault

ROOT = Path(__file__).resolve().parents[2]
CHAIN_ID = bytes(range(32))
PATIENCE_S = 60
HEARD = {"farewell_limit_s": PATIENCE_S}
"""For hosts whose goodbye is waited for: half a second may be too short for a peer whose machine is busy."""
ANY_PORT = "/ip4/127.0.0.1/tcp/0"


class Node:
    """A host's process, its key, and what it reported and the test hasn't asked for yet."""

    def __init__(self, secret: bytes | None = None) -> None:
        self.secret = secret or secrets.token_bytes(32)
        self.peer = peer_id_from_secret(self.secret)
        self.address = ""
        self.listen = ANY_PORT
        self.events: list[dict[str, Any]] = []
        self._reported = trio.Condition()
        self.process: trio.Process | None = None

    @property
    def endpoint(self) -> Endpoint:
        """Where it listens."""
        return parse_endpoint(parse_peer_address(self.address).multiaddr)

    async def start(
        self,
        nursery: trio.Nursery,
        members: Collection["Node"],
        *,
        dial: Collection["Node"] = (),
        max_guests: int = 0,
        chain_id: bytes = CHAIN_ID,
        **limits: float,
    ) -> None:
        """Run the host, and wait until it listens: on the port it had, if it had one."""
        config = {
            "secret": self.secret.hex(),
            "chain_id": chain_id.hex(),
            "members": [node.peer for node in members],
            "dial": [node.address for node in dial],
            "listen": self.listen,
            "max_guests": max_guests,
            "limits": limits,
        }
        self.events.clear()
        command = [sys.executable, "-m", "tests.functional.transport_process"]
        pipe = subprocess.PIPE
        self.process = await trio.lowlevel.open_process(command, stdin=pipe, stdout=pipe, cwd=ROOT)
        nursery.start_soon(self._read, self.process)
        await self._write(config)
        self.address = (await self.expect("listening"))["address"]
        self.listen = parse_peer_address(self.address).multiaddr

    async def expect(self, event: str, **fields: Any) -> dict[str, Any]:
        """The oldest report of this kind with these fields, waiting for it if need be; it is taken off the list."""
        return await self.expect_one_of({"event": event, **fields})

    async def expect_one_of(self, *wanted: dict[str, Any]) -> dict[str, Any]:
        """The oldest report with the fields of one of these, as `expect` does it."""
        with trio.move_on_after(PATIENCE_S):
            async with self._reported:
                while True:
                    for report in self.events:
                        if any(fields.items() <= report.items() for fields in wanted):
                            self.events.remove(report)
                            return report
                    await self._reported.wait()
        pytest.fail(f"none of {wanted} within {PATIENCE_S} s, but {self.events[-5:]}")

    async def send(self, *to: "Node", text: str, size: int = 0) -> list[bool]:
        """Have the host send to others, and return its answers."""
        await self._write({"do": "send", "to": [node.peer for node in to], "text": text, "size": size})
        return list((await self.expect("sent"))["ok"])

    async def drop(self, other: "Node", reason: str) -> None:
        """Have the host drop a peer."""
        await self._write({"do": "drop", "peer": other.peer, "reason": reason})

    async def round_trips_ms(self) -> dict[str, float | None]:
        """The host's round-trip times by peer."""
        await self._write({"do": "round_trips"})
        return dict((await self.expect("round_trips"))["ms"])

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        self._running().send_signal(number)

    async def is_well(self) -> bool:
        """Whether the process still runs and obeys."""
        await self.round_trips_ms()
        return self._running().poll() is None

    def _running(self) -> trio.Process:
        assert self.process is not None
        return self.process

    async def _write(self, command: dict[str, Any]) -> None:
        stdin = self._running().stdin
        assert stdin is not None
        await stdin.send_all(json.dumps(command).encode() + b"\n")

    async def _read(self, process: trio.Process) -> None:
        assert process.stdout is not None
        rest = b""
        async for piece in process.stdout:
            *lines, rest = (rest + piece).split(b"\n")
            async with self._reported:
                self.events += [json.loads(line) for line in lines if line.startswith(b"{")]
                self._reported.notify_all()


class Fleet:
    """The processes of one test."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.nodes: list[Node] = []

    async def start(self, node: Node, members: Collection[Node], **options: Any) -> None:
        """Start a host; options as of `Node.start`."""
        self.nodes.append(node)
        await node.start(self.nursery, members, **options)

    async def mesh(self, size: int, **options: Any) -> list[Node]:
        """Members in the order of their ids, each connected to all others."""
        members = sorted((Node() for _ in range(size)), key=lambda node: node.peer)
        for node in reversed(members):
            await self.start(node, members, dial=[other for other in members if other.address], **options)
        for node in members:
            for other in members:
                if other is not node:
                    await node.expect("connected", peer=other.peer, role="MEMBER")
        return members


@asynccontextmanager
async def fleet() -> AsyncIterator[Fleet]:
    """A fleet whose processes end with the test."""
    async with trio.open_nursery() as nursery:
        the_fleet = Fleet(nursery)
        try:
            yield the_fleet
        finally:
            processes = [node.process for node in the_fleet.nodes if node.process is not None]
            for process in processes:
                process.kill()
            with trio.CancelScope(shield=True):
                for process in processes:
                    await process.wait()
            nursery.cancel_scope.cancel()


class Client:
    """A peer that the test speaks for, frame by frame."""

    def __init__(self, stream: MuxedStream) -> None:
        self.stream = stream
        self._decoder = FrameDecoder(1024 * 1024)

    async def greet(self, role: PeerRole, chain_id: bytes = CHAIN_ID) -> None:
        """Send a Hello."""
        await self.send(FrameKind.HELLO, encode_hello(Hello(chain_id, role, "client")))

    async def send(self, kind: FrameKind, payload: bytes) -> None:
        """Send a frame."""
        await self.stream.write(encode_frame(kind, payload))

    async def goodbye(self) -> str:
        """The reason with which the host ends the connection."""
        with trio.fail_after(PATIENCE_S):
            while data := await self.stream.read(65536):
                for kind, payload in self._decoder.feed(data):
                    if kind is FrameKind.GOODBYE:
                        return payload.decode("ascii")
        pytest.fail("closed without a goodbye")


@asynccontextmanager
async def client(node: Node, secret: bytes) -> AsyncIterator[Client]:
    """An authenticated stream to a node, before any Hello."""
    socket = await trio.open_tcp_stream(node.endpoint.host, node.endpoint.port)
    link = await LinkUpgrader(secret).secure(SocketConnection(socket), node.peer)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.run)
        yield Client(await link.open_stream(MEMBER_WINDOW_BYTES))
        nursery.cancel_scope.cancel()
    await trio.aclose_forcefully(socket)


async def try_to_visit(node: Node, secret: bytes, role: PeerRole) -> str:
    """Connect, greet, and leave again when the node has answered: "connected", or the reason for being refused."""
    with suppress(RemoteFault, ExceptionGroup):  # how far it gets before the node hangs up depends on timing
        async with client(node, secret) as visitor:
            await visitor.greet(role)
            await visitor.stream.read(65536)
    told = await node.expect_one_of({"event": "connected", "peer": peer_id_from_secret(secret)}, {"event": "refused"})
    return str(told.get("reason", "connected"))


async def visit(node: Node, secret: bytes, role: PeerRole) -> None:
    """Try until the node admits the peer."""
    with trio.fail_after(PATIENCE_S):
        while await try_to_visit(node, secret, role) != "connected":
            await trio.sleep(0.1)
