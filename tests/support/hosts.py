"""A federation whose members are on hosts of their own, each with its own Bitcoin node, and a proxy in between.

Where the system permits it, a host is a network namespace: what runs in it reaches the proxy, and nothing else.
Elsewhere it is a loopback address, on which its member listens. The configurations are the same: a member finds every
other at an address of its own host, where the proxy listens for it. Bitcoin nodes find each other in the same way, each
one the others that come before it, so that what happens between two hosts happens to both.

The test itself stands outside, and reaches RPC over perfect wires.
"""

import json
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import combinations, permutations
from pathlib import Path
from typing import IO

import msgspec
import trio

from bridge.bitcoin.identifiers import BlockHash, hash_from_hex
from bridge.state import Anchor
from pegnode.bitcoind import BitcoindError, BitcoindProgram, RegtestBitcoind, find_bitcoind, start_regtest
from pegnode.clock import now_ms
from pegnode.config import FunctionaryConfig, L1Config, P2pConfig, PeerConfig, RpcConfig
from pegnode.folders import MEMBER_NAMES
from pegnode.genesis_rules import L1_GENESIS_HASHES_HEX
from pegnode.local_federation import LocalFederation
from pegnode.options.rendering import render
from pegnode.ports import LOOPBACK, free_ports
from pegnode.setup.local import create_local_federation
from tests.support.federation import FederationUnderTest, eventually, template_of
from tests.support.net_namespaces import NEW_USER, are_permitted, entering
from tests.support.wire_link import PERFECT, Quality
from tests.support.wire_proxy import End, Layout, Made, Order, Pair, Wire

PROXY_DEADLINE_S = 20.0
FIRST_BLOCKS = 101
FLAP_STEP_MS = 300
"""So that the pairs don't flap in step."""


@dataclass(frozen=True)
class Host:
    """One host. number: from 0.  entry: what a command is run by, to run there."""

    number: int
    name: str
    address: str
    entry: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HostedFederation(LocalFederation):
    """A local federation whose members run on their hosts."""

    hosts: Mapping[str, Host] = field(default_factory=dict)

    def member_command(self, name: str) -> list[str]:
        """See `LocalFederation`."""
        return [*self.hosts[name].entry, *LocalFederation.member_command(self, name)]


class Proxy:
    """The proxy's process, and orders to it."""

    def __init__(self, layout: Layout, stderr: IO[bytes]) -> None:
        command = [sys.executable, "-m", "tests.support.wire_proxy"]
        self._process = subprocess.Popen(
            [*NEW_USER, *command] if layout.namespaces else command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            cwd=Path(__file__).resolve().parents[2],
        )
        try:
            self.namespaces = msgspec.json.decode(self._tell(layout), type=Made).namespaces
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """Whose namespaces they are."""
        return self._process.pid

    def order(self, order: Order) -> None:
        """Returns when it is carried out."""
        assert json.loads(self._tell(order)) == "done"

    def close(self) -> None:
        """End it; its connections and namespaces go with it."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(PROXY_DEADLINE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _tell(self, what: msgspec.Struct) -> bytes:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(msgspec.json.encode(what) + b"\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the proxy has ended: see proxy.log"
        return answer


@dataclass(frozen=True)
class HostsApart:
    """The hosts. federation: as one would look at a local one."""

    federation: FederationUnderTest
    hosts: tuple[Host, ...]
    bitcoinds: tuple[RegtestBitcoind, ...]
    proxy: Proxy

    @property
    def how(self) -> str:
        """For people: what the hosts are."""
        if self.proxy.namespaces:
            return "each member in a network namespace of its own"
        return f"network namespaces not used: members on {', '.join(host.address for host in self.hosts)}"

    @property
    def names(self) -> tuple[str, ...]:
        """The members'."""
        return tuple(host.name for host in self.hosts)

    def links(self, quality: Quality, directions: Iterable[Pair] | None = None) -> None:
        """Make these directions, by default all, of this quality, mended if they were cut."""
        self.proxy.order(Order(self.all_directions() if directions is None else list(directions), quality))

    def part(self, *sides: Iterable[str], quality: Quality = PERFECT) -> None:
        """Let connections between members of different sides be broken and refused, until `links`."""
        self.proxy.order(Order(self.between(*sides), quality, cut=True))

    def flap(self, whole_ms: int, cut_ms: int, *, quality: Quality = PERFECT) -> None:
        """Let every pair be cut for so long, then whole, and so on, until `links`; each pair whole a little longer."""
        for number, pair in enumerate(combinations(range(len(self.hosts)), 2)):
            flap_ms = (whole_ms + number * FLAP_STEP_MS, cut_ms)
            self.proxy.order(Order([pair, pair[::-1]], quality, flap_ms=flap_ms))

    def between(self, *sides: Iterable[str]) -> list[Pair]:
        """All directions between members of different sides."""
        groups = [[self.names.index(name) for name in side] for side in sides]
        return [
            direction
            for one, other in permutations(groups, 2)
            for direction in ((source, destination) for source in one for destination in other)
        ]

    def all_directions(self) -> list[Pair]:
        """Between all hosts."""
        return list(permutations(range(len(self.hosts)), 2))

    def l1_heights(self) -> list[int]:
        """Of every Bitcoin node."""
        return [trio.run(_tip_height, node) for node in self.bitcoinds]

    def await_mesh(self, names: Iterable[str] | None = None, deadline_s: float = 60.0) -> None:
        """Wait until each of these members, by default all, is connected to the others of them."""
        chosen = self.names if names is None else tuple(names)
        indexes = {self.names.index(name) for name in chosen}
        eventually(
            lambda: all(
                indexes - {self.names.index(name)}
                <= {peer.member for peer in self.federation.status(name).members if peer.connected}
                for name in chosen
            ),
            f"{', '.join(chosen)} connected to each other",
            deadline_s,
        )


@contextmanager
def hosts_apart(
    directory: Path, members: int = 4, *, parameters: Mapping[str, int] = {}, namespaces: bool | None = None
) -> Iterator[HostsApart]:
    """Members on hosts of their own, all running, over a perfect network, and L1 with coins to spend.

    parameters: those of configs/local.toml that differ.  namespaces: whether to use them; None where permitted.
    """
    use_namespaces = are_permitted() if namespaces is None else namespaces
    plan = _Plan.of(members, use_namespaces)
    with ExitStack() as stack:
        words = stack.enter_context((directory / "proxy.log").open("wb"))
        proxy = Proxy(plan.layout(use_namespaces), words)
        stack.callback(proxy.close)
        hosts = tuple(
            Host(number, name, plan.addresses[number], entering(proxy.pid, path) if path else ())
            for number, (name, path) in enumerate(
                zip(MEMBER_NAMES[:members], proxy.namespaces or [""] * members, strict=True)
            )
        )
        stack.callback(_stop_bitcoinds, directory)
        bitcoinds = _start_bitcoinds(directory, hosts, plan)
        local = _create_members(directory, hosts, plan, bitcoinds, parameters)
        stack.callback(_stop_members, local)
        apart = HostsApart(FederationUnderTest(local), hosts, bitcoinds, proxy)
        for host in hosts:
            local.start_member(host.name)
        apart.federation.mine(FIRST_BLOCKS)
        for host in hosts:
            local.wait_until_answering(host.name)
        apart.await_mesh()
        yield apart


@dataclass(frozen=True)
class _Plan:
    """Addresses and ports. Each of the tuples has one for each host; the last two have one for each wire."""

    addresses: tuple[str, ...]
    p2p: tuple[int, ...]
    rpc: tuple[int, ...]
    l1_p2p: tuple[int, ...]
    l1_rpc: tuple[int, ...]
    wires: Mapping[Pair, int]
    l1_wires: Mapping[Pair, int]

    @classmethod
    def of(cls, members: int, namespaces: bool) -> "_Plan":
        numbers = range(members)
        pairs, dialled = list(permutations(numbers, 2)), [(one, other) for other, one in combinations(numbers, 2)]
        ports = iter(free_ports(4 * members + len(pairs) + len(dialled)))
        p2p, rpc, l1_p2p, l1_rpc = (tuple(next(ports) for _ in numbers) for _ in range(4))
        addresses = tuple(LOOPBACK if namespaces else _loopback_address(number) for number in numbers)
        wires = {pair: next(ports) for pair in pairs}
        l1_wires = {pair: next(ports) for pair in dialled}
        return cls(addresses, p2p, rpc, l1_p2p, l1_rpc, wires, l1_wires)

    def layout(self, namespaces: bool) -> Layout:
        """The proxy's wires: between members, between Bitcoin nodes, and for the test's own RPC."""
        address = self.addresses
        members = [
            Wire(End(here, address[here], port), End(there, address[there], self.p2p[there]), (here, there))
            for (here, there), port in self.wires.items()
        ]
        l1 = [
            Wire(End(here, LOOPBACK, port), End(there, LOOPBACK, self.l1_p2p[there]), (here, there))
            for (here, there), port in self.l1_wires.items()
        ]
        outside = [
            Wire(End(None, LOOPBACK, port), End(number, LOOPBACK, port))
            for ports in (self.rpc, self.l1_rpc)
            for number, port in enumerate(ports)
        ]
        return Layout(len(self.addresses), members + l1 + outside) if namespaces else Layout(0, members + l1)


def _loopback_address(number: int) -> str:
    """Another one for each host, where the system has them: Linux does."""
    address = f"127.0.0.{number + 2}"
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return LOOPBACK
    return address


def _start_bitcoinds(directory: Path, hosts: tuple[Host, ...], plan: _Plan) -> tuple[RegtestBitcoind, ...]:
    """The first one in the folder where a local federation has its only one."""
    program = find_bitcoind()

    def start(host: Host) -> RegtestBitcoind:
        settings = {
            "rpcport": str(plan.l1_rpc[host.number]),
            "bind": f"{LOOPBACK}:{plan.l1_p2p[host.number]}",
            "dns": "0",
        }
        nodes = [f"{LOOPBACK}:{port}" for (here, _), port in plan.l1_wires.items() if here == host.number]
        if nodes:
            settings["connect"] = "\nconnect=".join(nodes)
        datadir = directory / ("bitcoind" if host.number == 0 else f"bitcoind-{host.name}")
        return start_regtest(datadir, _on_host(program, host, directory), listen=True, settings=settings)

    with ThreadPoolExecutor(len(hosts)) as pool:
        return tuple(pool.map(start, hosts))


def _on_host(program: BitcoindProgram, host: Host, directory: Path) -> BitcoindProgram:
    """The program, run there."""
    if not host.entry:
        return program
    script = directory / f"bitcoind-on-{host.name}.sh"
    script.write_text(f'#!/bin/sh\nexec {" ".join(host.entry)} "{program.path}" "$@"\n')
    script.chmod(0o700)
    return BitcoindProgram(script, program.version, program.major)


def _stop_bitcoinds(directory: Path) -> None:
    for datadir in directory.glob("bitcoind*/"):
        with suppress(BitcoindError):  # NOT_SET_UP: it never ran
            RegtestBitcoind.attach(datadir).stop()


def _create_members(
    directory: Path,
    hosts: tuple[Host, ...],
    plan: _Plan,
    bitcoinds: tuple[RegtestBitcoind, ...],
    parameters: Mapping[str, int],
) -> HostedFederation:
    create_local_federation(
        directory / "federation",
        template_of({"member_count": len(hosts), **parameters}),
        l1=_l1_of(bitcoinds[0]),
        anchor=Anchor(0, BlockHash(hash_from_hex(L1_GENESIS_HASHES_HEX["regtest"]))),
        time_ms=now_ms(),
        random_bytes=secrets.token_bytes,
    )
    local = HostedFederation(directory, tuple(host.name for host in hosts), {host.name: host for host in hosts})
    for host in hosts:
        path = local.member_config_path(host.name)
        peers = tuple(
            PeerConfig(name=other.name, address=f"/ip4/{host.address}/tcp/{plan.wires[host.number, other.number]}")
            for other in hosts
            if other is not host
        )
        config = msgspec.structs.replace(
            FunctionaryConfig.load(path),
            l1=_l1_of(bitcoinds[host.number]),
            p2p=P2pConfig(listen=f"/ip4/{host.address}/tcp/{plan.p2p[host.number]}", peers=peers),
            rpc=RpcConfig(bind=f"{LOOPBACK}:{plan.rpc[host.number]}"),
        )
        config.validate()
        path.write_text(render(config, path.parent))
    return local


def _l1_of(node: RegtestBitcoind) -> L1Config:
    return L1Config(url=node.url, cookie_file=node.cookie_path)


def _stop_members(local: LocalFederation) -> None:
    with ThreadPoolExecutor(len(local.member_names)) as pool:
        list(pool.map(local.stop_member, local.member_names))


async def _tip_height(node: RegtestBitcoind) -> int:
    async with node.client() as client:
        return (await client.tip())[0]
