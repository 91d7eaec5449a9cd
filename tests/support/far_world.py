"""Four members far apart, a wallet that goes on sending, and what both are asked."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.federation import eventually
from tests.support.hosts import HostsApart, hosts_apart
from tests.support.traffic import Traffic
from tests.support.wire_link import Quality

FAR = Quality(delay_ms=100, jitter_ms=20)
"""One way, as between continents."""
STALLED = Quality(stalled=True)
MENDED_DEADLINE_S = 60.0
"""From the moment that the network is whole again, to find each other and to catch up, on a busy machine."""


@dataclass(frozen=True)
class FarWorld:
    """The hosts, who goes on sending, and where to say what was seen."""

    apart: HostsApart
    traffic: Traffic
    say: Callable[[str], None]

    @property
    def names(self) -> tuple[str, ...]:
        """The members'."""
        return self.apart.names

    def await_final(self, txid_hex: str, names: tuple[str, ...], deadline_s: float = MENDED_DEADLINE_S) -> float:
        """Wait until a transfer is final with all of these; after how many seconds."""
        began = time.monotonic()
        federation = self.apart.federation
        eventually(lambda: all(federation.is_final(txid_hex, name) for name in names), f"{txid_hex} final", deadline_s)
        return time.monotonic() - began

    def heights(self) -> dict[str, int]:
        """Each member's final height."""
        return {name: self.apart.federation.height(name) for name in self.names}

    def peers_of(self, name: str) -> set[str]:
        """To whom a member is connected."""
        members = self.apart.federation.status(name).members
        return {self.names[peer.member] for peer in members if peer.connected} - {name}

    def assert_one_chain(self) -> None:
        """All have the same final block at the lowest of their heights, and so the same below."""
        height = min(self.heights().values())
        assert len({self.apart.federation.block_hash(height, name) for name in self.names}) == 1


@contextmanager
def far_world(directory: Path, request: pytest.FixtureRequest, *, namespaces: bool | None = None) -> Iterator[FarWorld]:
    """Four members at a distance, and a wallet with coins."""
    plugins = request.config.pluginmanager

    def say(what: str) -> None:
        with plugins.getplugin("capturemanager").global_and_fixture_disabled():
            plugins.getplugin("terminalreporter").write_line(f"\nhosts apart: {what}")

    with hosts_apart(directory, namespaces=namespaces) as apart:
        say(apart.how)
        traffic = Traffic.start(apart.federation)
        apart.links(FAR)
        yield FarWorld(apart, traffic, say)


@contextmanager
def at_a_distance(world: FarWorld) -> Iterator[FarWorld]:
    """For one test: all connected, far apart, at first, and of one mind in the end."""
    world.apart.links(FAR)
    world.apart.await_mesh(deadline_s=MENDED_DEADLINE_S)
    yield world
    world.assert_one_chain()


@pytest.fixture(scope="module")
def lasting_far_world(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[FarWorld]:
    """One for all tests of a module."""
    with far_world(tmp_path_factory.mktemp("hosts"), request) as made:
        yield made


@pytest.fixture
def world(lasting_far_world: FarWorld) -> Iterator[FarWorld]:
    """The same for one test."""
    with at_a_distance(lasting_far_world) as far_apart:
        yield far_apart
