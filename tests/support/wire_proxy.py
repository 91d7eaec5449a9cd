"""A proxy in user space between hosts: it carries their TCP connections, as badly as it is told to.

    python -m tests.support.wire_proxy

is run by `tests.support.hosts`. Each line of standard input is a JSON document, the first one a `Layout`, each that
follows an `Order`; each is answered by a line. It ends with its input, and every connection and namespace with it.

A *wire* leads from a socket on which somebody at one host dials, to where somebody at another host listens. All wires
between two hosts share two links, one for each direction: see `tests.support.wire_link`. A wire without hosts is
perfect. A pair of hosts that is cut has its connections broken and refuses new ones.
"""

import os
import random
import socket
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial

import msgspec
import trio

from tests.support.net_namespaces import Namespace
from tests.support.wire_link import PERFECT, Link, Quality

BACKLOG = 64
BUFFER_BYTES = 64 * 1024
"""What the kernel takes for the proxy, as a router would: without a bound, megabytes wait where nobody sees them."""
Pair = tuple[int, int]
"""Two hosts, by number. As a direction: from the first to the second."""


class End(msgspec.Struct, frozen=True):
    """A TCP address. host: whose namespace it is in, if there are namespaces; None for the machine's own."""

    host: int | None
    address: str
    port: int


class Wire(msgspec.Struct, frozen=True):
    """Who dials `near` reaches `far`. hosts: the dialling one and the other; None for a perfect wire."""

    near: End
    far: End
    hosts: Pair | None = None


class Layout(msgspec.Struct, frozen=True):
    """The first line. namespaces: how many to make, for the hosts from 0 on; 0 for none.  seed: the jitter's."""

    namespaces: int
    wires: list[Wire]
    seed: int = 0


class Made(msgspec.Struct, frozen=True):
    """The answer to a layout: every wire listens. namespaces: the path of each."""

    namespaces: list[str]


class Order(msgspec.Struct, frozen=True):
    """What becomes of some directions, whatever became of them before.

    cut: both directions of each pair are; `quality` is what they are like when they are mended.
    flap_ms: (whole, cut) for how long a pair is whole, then cut, and so on; it begins with the cut. None: it doesn't.
    """

    directions: list[Pair]
    quality: Quality = PERFECT
    cut: bool = False
    flap_ms: Pair | None = None


class Network:
    """The links between hosts, and the connections over them. nursery: where flapping goes on."""

    def __init__(self, nursery: trio.Nursery, seed: int = 0) -> None:
        self._nursery = nursery
        self._seed = seed
        self._links: dict[Pair, Link] = {}
        self._cut: set[Pair] = set()
        self._connections: defaultdict[Pair, set[trio.CancelScope]] = defaultdict(set)
        self._flapping: dict[Pair, trio.CancelScope] = {}

    def link(self, direction: Pair) -> Link:
        """The link of a direction."""
        if direction not in self._links:
            self._links[direction] = Link(random.Random(f"{self._seed} {direction}"))
        return self._links[direction]

    def obey(self, order: Order) -> None:
        """Carry an order out."""
        for direction in order.directions:
            self.link(direction).become(order.quality)
        for pair in {_unordered(direction) for direction in order.directions}:
            if pair in self._flapping:
                self._flapping.pop(pair).cancel()
            if order.flap_ms is not None:
                self._flapping[pair] = trio.CancelScope()
                self._nursery.start_soon(self._flap, pair, self._flapping[pair], order.flap_ms)
            elif order.cut:
                self._sever(pair)
            else:
                self._cut.discard(pair)

    async def connect(
        self,
        hosts: Pair,
        near: trio.abc.HalfCloseableStream,
        dial: Callable[[], Awaitable[trio.abc.HalfCloseableStream]],
    ) -> None:
        """Carry one connection to its end, and close both its streams. near: what the dialling host has opened."""
        pair, scope = _unordered(hosts), trio.CancelScope()
        there, back = self.link(hosts), self.link((hosts[1], hosts[0]))
        self._connections[pair].add(scope)
        try:
            with scope, suppress(ConnectionError):
                if pair in self._cut:
                    return
                await there.pass_once()
                far = await dial()
                try:
                    await back.pass_once()
                    await _both_ways(near, far, there, back)
                finally:
                    await trio.aclose_forcefully(far)
        finally:
            self._connections[pair].discard(scope)
            await trio.aclose_forcefully(near)

    async def _flap(self, pair: Pair, scope: trio.CancelScope, flap_ms: Pair) -> None:
        with scope:
            await trio.lowlevel.checkpoint()  # another order may have come first
            while True:
                self._sever(pair)
                await trio.sleep(flap_ms[1] / 1000)
                self._cut.discard(pair)
                await trio.sleep(flap_ms[0] / 1000)

    def _sever(self, pair: Pair) -> None:
        self._cut.add(pair)
        for scope in self._connections[pair]:
            scope.cancel()


def _unordered(direction: Pair) -> Pair:
    return (min(direction), max(direction))


async def _both_ways(
    near: trio.abc.HalfCloseableStream, far: trio.abc.HalfCloseableStream, there: Link, back: Link
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(there.carry, near, far)
        nursery.start_soon(back.carry, far, near)


class Sockets:
    """Where sockets are made: in the hosts' namespaces, if there are any."""

    def __init__(self, namespaces: Sequence[Namespace]) -> None:
        self._namespaces = namespaces

    def listener(self, end: End) -> trio.SocketListener:
        """Listen there. Raises OSError."""
        raw = self._socket(end.host)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        raw.bind((end.address, end.port))
        raw.listen(BACKLOG)
        return trio.SocketListener(trio.socket.from_stdlib_socket(raw))

    async def dial(self, end: End) -> trio.SocketStream:
        """Connect to what listens there. Raises OSError."""
        dialling = trio.socket.from_stdlib_socket(self._socket(end.host))
        try:
            await dialling.connect((end.address, end.port))
        except BaseException:
            dialling.close()
            raise
        return trio.SocketStream(dialling)

    def _socket(self, host: int | None) -> socket.socket:
        outside = host is None or not self._namespaces
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM) if outside else self._namespaces[host or 0].socket()
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        return made


async def serve(layout: Layout, namespaces: Sequence[Namespace]) -> None:
    """Carry until standard input ends."""
    sockets = Sockets(namespaces)
    async with trio.open_nursery() as nursery:
        network = Network(nursery, layout.seed)
        for number, wire in enumerate(layout.wires):
            hosts = wire.hosts or (-1 - number, -1 - number)  # nobody orders these, so they stay perfect
            dial = partial(sockets.dial, wire.far)
            nursery.start_soon(_serve_wire, network, hosts, sockets.listener(wire.near), dial)
        _answer(Made([namespace.path for namespace in namespaces]))
        async for line in _lines():
            network.obey(msgspec.json.decode(line, type=Order))
            _answer("done")
        nursery.cancel_scope.cancel()


async def _serve_wire(
    network: Network, hosts: Pair, listener: trio.SocketListener, dial: Callable[[], Awaitable[trio.SocketStream]]
) -> None:
    async def serve_one(near: trio.SocketStream) -> None:
        await network.connect(hosts, near, dial)

    await trio.serve_listeners(serve_one, [listener])


def _answer(what: object) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(what) + b"\n")
    sys.stdout.buffer.flush()


async def _lines() -> AsyncIterator[bytes]:
    """Of standard input."""
    stdin = trio.lowlevel.FdStream(os.dup(sys.stdin.fileno()))
    waiting = b""
    async for data in stdin:
        *whole, waiting = (waiting + data).split(b"\n")
        for line in whole:
            yield line


def main() -> None:
    """Run the proxy."""
    with open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as unbuffered:
        layout = msgspec.json.decode(unbuffered.readline(), type=Layout)
    namespaces = [Namespace() for _ in range(layout.namespaces)]
    trio.run(serve, layout, namespaces)


if __name__ == "__main__":
    main()
