"""One direction between two hosts, under virtual time."""

import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing

from tests.support.wire_link import CHUNK_BYTES, PACKET_BYTES, Link, Quality

DELAY = Quality(delay_ms=100, jitter_ms=20)
LOSING = Quality(delay_ms=100, stall_chance=0.25, stall_ms=400)


@dataclass
class Carried:
    """A stream over a link. arrived: what came, and when."""

    link: Link
    source: trio.abc.HalfCloseableStream
    sink: trio.abc.HalfCloseableStream
    arrived: list[tuple[float, bytes]] = field(default_factory=list)
    ended_s: float | None = None

    async def listen(self) -> None:
        """Note all that comes."""
        with suppress(trio.ClosedResourceError):
            async for data in self.sink:
                self.arrived.append((trio.current_time(), bytes(data)))
        self.ended_s = trio.current_time()

    @property
    def data(self) -> bytes:
        """All that came."""
        return b"".join(data for _, data in self.arrived)


@pytest.fixture
def carried(nursery: trio.Nursery) -> Carried:
    """A stream over a link that is perfect so far."""
    sender, near = trio.testing.memory_stream_pair()
    far, receiver = trio.testing.memory_stream_pair()
    carried = Carried(Link(random.Random(1)), sender, receiver)
    nursery.start_soon(carried.link.carry, near, far)
    nursery.start_soon(carried.listen)
    return carried


async def test_perfect_link_hands_over_at_once_and_tells_of_the_end(
    carried: Carried, autojump_clock: trio.abc.Clock
) -> None:
    began_s = trio.current_time()
    await carried.source.send_all(b"votes")
    await carried.source.send_eof()
    await trio.sleep(1)
    assert (carried.data, carried.ended_s) == (b"votes", began_s)


async def test_bytes_arrive_after_the_delay_give_or_take_the_jitter(
    carried: Carried, autojump_clock: trio.abc.Clock
) -> None:
    carried.link.become(DELAY)
    trips_s = []
    for number in range(40):
        began_s = trio.current_time()
        await carried.source.send_all(bytes([number]))
        await trio.sleep(1)
        trips_s.append(carried.arrived[-1][0] - began_s)
    assert 0.08 <= min(trips_s) < 0.09
    assert 0.11 < max(trips_s) <= 0.12


async def test_jitter_keeps_the_order(carried: Carried, autojump_clock: trio.abc.Clock) -> None:
    carried.link.become(Quality(delay_ms=100, jitter_ms=100))
    sent = [bytes([number]) for number in range(100)]
    for data in sent:
        await carried.source.send_all(data)
        await trio.sleep(0.001)
    await carried.source.send_eof()
    await trio.sleep(1)
    assert carried.data == b"".join(sent)
    times = [time_s for time_s, _ in carried.arrived]
    assert times == sorted(times)
    assert carried.ended_s is not None
    assert carried.ended_s >= times[-1]


async def test_bandwidth_bounds_what_arrives_in_a_second(carried: Carried, autojump_clock: trio.abc.Clock) -> None:
    carried.link.become(Quality(kbit_per_s=1_000))
    began_s = trio.current_time()
    await carried.source.send_all(bytes(250_000))
    await carried.source.send_eof()
    await trio.sleep(1)
    assert len(carried.data) == pytest.approx(125_000, abs=CHUNK_BYTES)
    await trio.sleep(10)
    assert carried.ended_s is not None
    assert carried.ended_s - began_s == pytest.approx(2.0)


async def test_streams_share_the_bandwidth_of_their_link(
    carried: Carried, nursery: trio.Nursery, autojump_clock: trio.abc.Clock
) -> None:
    carried.link.become(Quality(kbit_per_s=1_000))
    sender, near = trio.testing.memory_stream_pair()
    far, receiver = trio.testing.memory_stream_pair()
    other = Carried(carried.link, sender, receiver)
    nursery.start_soon(carried.link.carry, near, far)
    nursery.start_soon(other.listen)
    for one in (carried, other):
        await one.source.send_all(bytes(125_000))
    await trio.sleep(1)
    assert len(carried.data) + len(other.data) == pytest.approx(125_000, abs=2 * CHUNK_BYTES)


async def test_stalled_link_holds_everything_until_it_is_mended(
    carried: Carried, autojump_clock: trio.abc.Clock
) -> None:
    carried.link.become(Quality(stalled=True))
    await carried.source.send_all(b"one")
    await trio.sleep(20)
    await carried.source.send_all(b"two")
    await carried.source.send_eof()
    await trio.sleep(20)
    assert (carried.data, carried.ended_s) == (b"", None)
    carried.link.become(Quality())
    await trio.sleep(0.001)
    assert carried.data == b"onetwo"
    assert carried.ended_s is not None


async def test_lossy_link_loses_the_stream_for_good(carried: Carried, autojump_clock: trio.abc.Clock) -> None:
    await carried.source.send_all(b"one")
    await trio.sleep(1)
    carried.link.become(Quality(lossy=True))
    await carried.source.send_all(b"two")
    await trio.sleep(1)
    carried.link.become(Quality())
    await carried.source.send_all(b"three")
    await carried.source.send_eof()
    await trio.sleep(100)
    assert (carried.data, carried.ended_s) == (b"one", None)


async def test_lossy_link_loses_nothing_while_nothing_is_sent(carried: Carried, autojump_clock: trio.abc.Clock) -> None:
    carried.link.become(Quality(lossy=True))
    await trio.sleep(10)
    carried.link.become(Quality())
    await carried.source.send_all(b"one")
    await trio.sleep(1)
    assert carried.data == b"one"


async def test_sink_that_breaks_does_not_hold_up_the_source(carried: Carried, autojump_clock: trio.abc.Clock) -> None:
    await carried.sink.aclose()
    for _ in range(3):
        await carried.source.send_all(bytes(CHUNK_BYTES))
        await trio.sleep(1)
    await carried.source.send_eof()
    await trio.sleep(1)
    assert carried.arrived == []


async def test_lost_packet_comes_after_the_retransmission(carried: Carried, autojump_clock: trio.abc.Clock) -> None:
    carried.link.become(LOSING)
    trips_ms = []
    for number in range(400):
        began_s = trio.current_time()
        await carried.source.send_all(bytes([number % 256]))
        await trio.sleep(60)
        trips_ms.append(round(1000 * (carried.arrived[-1][0] - began_s)))
    assert len(carried.arrived) == 400
    assert set(trips_ms) >= {100, 500, 1300}, "not lost, lost, lost twice: after 400 ms, and after 800 more"
    assert sum(trip_ms > 100 for trip_ms in trips_ms) == pytest.approx(100, abs=30)
    assert sum(trip_ms > 500 for trip_ms in trips_ms) == pytest.approx(25, abs=15)


async def test_what_follows_a_lost_packet_waits_for_it_on_its_own_stream_alone(
    carried: Carried, nursery: trio.Nursery, autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    sender, near = trio.testing.memory_stream_pair()
    far, receiver = trio.testing.memory_stream_pair()
    other = Carried(carried.link, sender, receiver)
    nursery.start_soon(carried.link.carry, near, far)
    nursery.start_soon(other.listen)
    began_s = trio.current_time()
    carried.link.become(Quality(stall_chance=0.5, stall_ms=400))
    monkeypatch.setattr(carried.link.rng, "random", iter([0.5, 0.4, 0.6]).__next__)  # the jitter; lost; not again
    await carried.source.send_all(b"lost")
    await trio.sleep(0.001)
    monkeypatch.undo()
    carried.link.become(Quality())
    await carried.source.send_all(b" and found")
    await other.source.send_all(b"beside it")
    await trio.sleep(0.3)
    assert (carried.data, other.data) == (b"", b"beside it")
    await trio.sleep(0.3)
    assert carried.data == b"lost and found"
    assert {round(time_s - began_s, 6) for time_s, _ in carried.arrived} == {0.4}


async def test_more_bytes_are_more_packets_of_which_one_may_be_lost(
    carried: Carried, autojump_clock: trio.abc.Clock
) -> None:
    carried.link.become(LOSING)
    late = 0
    for _ in range(200):
        began_s = trio.current_time()
        await carried.source.send_all(bytes(2 * PACKET_BYTES + 1))
        await trio.sleep(60)
        late += carried.arrived[-1][0] - began_s > 0.2
    assert late / 200 == pytest.approx(1 - 0.75**3, abs=0.1)


async def test_same_seed_loses_the_same_packets(autojump_clock: trio.abc.Clock) -> None:
    async def trips_s(seed: int) -> list[float]:
        link = Link(random.Random(seed), LOSING)
        return [await _seconds(link.pass_once) for _ in range(100)]

    first = await trips_s(1)
    assert await trips_s(1) == pytest.approx(first)
    assert await trips_s(2) != pytest.approx(first)


@pytest.mark.parametrize(
    ("quality", "least_s", "most_s"), [(Quality(), 0.0, 0.0), (DELAY, 0.08, 0.12), (Quality(lossy=True), 0.0, 0.0)]
)
async def test_opening_packet_takes_the_delay(
    carried: Carried, quality: Quality, least_s: float, most_s: float, autojump_clock: trio.abc.Clock
) -> None:
    carried.link.become(quality)
    assert least_s <= await _seconds(carried.link.pass_once) <= most_s


async def test_opening_packet_waits_for_a_stalled_link(
    carried: Carried, nursery: trio.Nursery, autojump_clock: trio.abc.Clock
) -> None:
    carried.link.become(Quality(stalled=True))

    async def mend() -> None:
        await trio.sleep(20)
        carried.link.become(Quality())

    nursery.start_soon(mend)
    assert await _seconds(carried.link.pass_once) == pytest.approx(20)


async def _seconds(step: Callable[[], Awaitable[None]]) -> float:
    began_s = trio.current_time()
    await step()
    return trio.current_time() - began_s
