"""What becomes of the connections between hosts, under virtual time; and one trip over real sockets."""

import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field

import msgspec
import pytest
import trio
import trio.lowlevel
import trio.testing

from pegnode.ports import LOOPBACK, free_ports
from tests.support.wire_link import Quality
from tests.support.wire_proxy import End, Layout, Made, Network, Order, Pair, Wire

BOTH: list[Pair] = [(0, 1), (1, 0)]
PROCESS_DEADLINE_S = 30.0


@dataclass
class Ends:
    """A network, and a host 1 that takes every connection. taken: its ends of them."""

    network: Network
    nursery: trio.Nursery
    taken: list[trio.abc.HalfCloseableStream] = field(default_factory=list)

    async def _dial(self) -> trio.abc.HalfCloseableStream:
        ours, theirs = trio.testing.memory_stream_pair()
        self.taken.append(theirs)
        return ours

    def connect(self) -> trio.abc.HalfCloseableStream:
        """Host 0's end of a new connection."""
        ours, theirs = trio.testing.memory_stream_pair()
        self.nursery.start_soon(self.network.connect, (0, 1), theirs, self._dial)
        return ours


@pytest.fixture
def ends(nursery: trio.Nursery) -> Ends:
    return Ends(Network(nursery), nursery)


async def heard(stream: trio.abc.ReceiveStream, within_s: float = 5.0) -> bytes | None:
    """The next bytes; none when the stream has ended, None when it is silent."""
    said = b""
    with trio.move_on_after(within_s) as scope, suppress(trio.BrokenResourceError):
        said = bytes(await stream.receive_some())
    return None if scope.cancelled_caught else said


async def test_connection_carries_both_ways(ends: Ends, autojump_clock: trio.abc.Clock) -> None:
    near = ends.connect()
    await near.send_all(b"there")
    await trio.lowlevel.checkpoint()
    await trio.testing.wait_all_tasks_blocked()
    [far] = ends.taken
    await far.send_all(b"back")
    assert await heard(far) == b"there"
    assert await heard(near) == b"back"


async def test_connecting_takes_a_round_trip(ends: Ends, autojump_clock: trio.abc.Clock) -> None:
    ends.network.obey(Order(BOTH, Quality(delay_ms=100)))
    near = ends.connect()
    await near.send_all(b"there")
    began_s = trio.current_time()
    await trio.sleep(0.15)
    [far] = ends.taken
    assert await heard(far) == b"there"
    assert trio.current_time() - began_s == pytest.approx(0.3)


async def test_one_way_loss_leaves_the_other_way_whole(ends: Ends, autojump_clock: trio.abc.Clock) -> None:
    near = ends.connect()
    await trio.testing.wait_all_tasks_blocked()
    [far] = ends.taken
    ends.network.obey(Order([(0, 1)], Quality(lossy=True)))
    await near.send_all(b"there")
    await far.send_all(b"back")
    assert await heard(near) == b"back"
    assert await heard(far) is None
    await near.aclose()
    assert await heard(far) is None  # nor is it told that the other end has gone


async def test_cut_breaks_connections_and_refuses_new_ones_until_mended(
    ends: Ends, autojump_clock: trio.abc.Clock
) -> None:
    near = ends.connect()
    await trio.testing.wait_all_tasks_blocked()
    [far] = ends.taken
    ends.network.obey(Order([(0, 1)], cut=True))
    assert await heard(near) == b""
    assert await heard(far) == b""
    assert await heard(ends.connect()) == b""
    assert len(ends.taken) == 1
    ends.network.obey(Order(BOTH))
    again = ends.connect()
    await again.send_all(b"again")
    await trio.testing.wait_all_tasks_blocked()
    assert await heard(ends.taken[1]) == b"again"


async def test_cut_leaves_other_pairs_alone(ends: Ends, autojump_clock: trio.abc.Clock) -> None:
    near = ends.connect()
    await trio.testing.wait_all_tasks_blocked()
    ends.network.obey(Order([(0, 2), (1, 2)], cut=True))
    await ends.taken[0].send_all(b"back")
    assert await heard(near) == b"back"


async def test_flapping_pair_is_cut_then_whole_then_cut(ends: Ends, autojump_clock: trio.abc.Clock) -> None:
    ends.network.obey(Order(BOTH, flap_ms=(3_000, 2_000)))
    await trio.sleep(1)
    assert await heard(ends.connect(), 0.5) == b""
    await trio.sleep(1)
    near = ends.connect()
    assert await heard(near, 2.0) is None
    assert await heard(near, 1.5) == b""


@pytest.mark.parametrize("wait_s", [0.0, 1.0, 3.0])
async def test_any_order_ends_the_flapping(ends: Ends, wait_s: float, autojump_clock: trio.abc.Clock) -> None:
    ends.network.obey(Order(BOTH, flap_ms=(3_000, 2_000)))
    if wait_s:
        await trio.sleep(wait_s)
    ends.network.obey(Order(BOTH))
    near = ends.connect()
    assert await heard(near, 60.0) is None


async def test_nobody_listening_refuses_the_connection(
    ends: Ends, nursery: trio.Nursery, autojump_clock: trio.abc.Clock
) -> None:
    async def refused() -> trio.abc.HalfCloseableStream:
        raise ConnectionRefusedError

    ours, theirs = trio.testing.memory_stream_pair()
    nursery.start_soon(ends.network.connect, (0, 1), theirs, refused)
    assert await heard(ours) == b""


def test_process_carries_real_sockets_and_ends_with_its_input() -> None:
    near_port, far_port = free_ports(2)
    wire = Wire(End(0, LOOPBACK, near_port), End(1, LOOPBACK, far_port), (0, 1))
    with (
        socket.create_server((LOOPBACK, far_port)) as server,
        subprocess.Popen(
            [sys.executable, "-m", "tests.support.wire_proxy"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(msgspec.json.encode(Layout(0, [wire])) + b"\n")
            process.stdin.flush()
            assert msgspec.json.decode(process.stdout.readline(), type=Made).namespaces == []
            with socket.create_connection((LOOPBACK, near_port), PROCESS_DEADLINE_S) as near:
                near.sendall(b"there")
                far, _ = server.accept()
                with far:
                    assert far.recv(16) == b"there"
                    process.stdin.write(msgspec.json.encode(Order(BOTH, cut=True)) + b"\n")
                    process.stdin.flush()
                    assert msgspec.json.decode(process.stdout.readline()) == "done"
                    assert near.recv(16) == b""
            process.stdin.close()
            assert process.wait(PROCESS_DEADLINE_S) == 0
        finally:
            process.kill()
