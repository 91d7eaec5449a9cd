"""The table of peers: admission, places for guests, which of two connections stays, and the order of events."""

from collections.abc import Callable
from typing import cast

import pytest
import trio
from trio.testing import MockClock

from pegnode.net.connection import Connection, Departure
from pegnode.net.handshake import Hello
from pegnode.net.peers import (
    EVENTS_BUFFERED,
    GUEST_ADDRESSES,
    GUEST_PENALTY_S,
    MEMBER_PENALTY_S,
    PeerTable,
    Visit,
)
from pegnode.net.penalties import FORGOTTEN_AFTER_S
from pegnode.net.transport import (
    DropReason,
    FrameReceived,
    PeerConnected,
    PeerDisconnected,
    PeerId,
    PeerRefused,
    PeerRole,
    RemoteFault,
    TransportEvent,
)

US, LOW, HIGH, GUEST, OTHER_GUEST = (PeerId(name) for name in ("m", "a", "z", "guest", "other guest"))
MEMBERS = frozenset((US, LOW, HIGH))
HELLO = Hello(bytes(32), PeerRole.MEMBER, "test")


class FakeConnection:
    """Open until ended; then it tells its visit's departure, as a host would."""

    def __init__(self, table: PeerTable, visit: Visit, nursery: trio.Nursery) -> None:
        self._table = table
        self._visit = visit
        self._nursery = nursery
        self.is_open = True

    def end(self, departure: Departure) -> None:
        """End, and report that some time later."""
        self.is_open = False

        async def report() -> None:
            await trio.sleep(0.2)
            await self._table.report(self._visit, departure)

        self._nursery.start_soon(report)


class Desk:
    """A table, and visits to it."""

    def __init__(self, nursery: trio.Nursery, max_guests: int) -> None:
        self.table = PeerTable(US, MEMBERS, max_guests)
        self._nursery = nursery

    def visit(
        self,
        peer: PeerId | None,
        *,
        is_dialled: bool = False,
        settle: Callable[[], None] = lambda: None,
        address: str = "",
    ) -> Visit:
        """A visit that has a connection."""
        visit = Visit(self.table, is_dialled, peer, settle, address)
        visit.connection = cast(Connection, FakeConnection(self.table, visit, self._nursery))
        return visit

    async def admitted(self, peer: PeerId, *, is_dialled: bool = False, address: str = "") -> Visit:
        """One that is admitted and announced."""
        visit = self.visit(peer, is_dialled=is_dialled, address=address)
        await visit.admit(HELLO)
        await visit.announce(HELLO)
        return visit

    def events(self) -> list[TransportEvent]:
        """What was told since the last call."""
        told = []
        while True:
            try:
                told.append(self.table.events.receive_nowait())
            except trio.WouldBlock:
                return told


@pytest.fixture
def desk(nursery: trio.Nursery) -> Desk:
    """A table with one place for a guest."""
    return Desk(nursery, max_guests=1)


async def refusal_of(visit: Visit) -> DropReason:
    """Why a visit isn't admitted."""
    with pytest.raises(RemoteFault) as refusal:
        await visit.admit(HELLO)
    return refusal.value.reason


async def test_admitted_peer_is_connected_and_announced(desk: Desk) -> None:
    settled: list[bool] = []
    visit = desk.visit(LOW, settle=lambda: settled.append(True))
    await visit.admit(HELLO)
    assert settled == [True]
    assert desk.events() == []
    await visit.announce(HELLO)
    await visit.deliver(b"x")
    assert desk.table.connected() == {LOW}
    assert desk.events() == [PeerConnected(LOW, PeerRole.MEMBER, "test"), FrameReceived(LOW, b"x")]


@pytest.mark.parametrize(
    ("peer", "reason"),
    [(US, DropReason.DUPLICATE), (GUEST, DropReason.UNKNOWN_PEER)],
)
async def test_unwelcome_peer_is_refused_before_its_hello(
    peer: PeerId, reason: DropReason, nursery: trio.Nursery
) -> None:
    closed = Desk(nursery, max_guests=0)
    visit = closed.visit(peer)
    with pytest.raises(RemoteFault) as refusal:
        closed.table.require_welcome(visit)
    assert refusal.value.reason is reason


async def test_members_dialled_nodes_and_guests_with_a_place_are_welcome(desk: Desk, nursery: trio.Nursery) -> None:
    desk.table.require_welcome(desk.visit(GUEST))
    closed = Desk(nursery, max_guests=0)
    closed.table.require_welcome(closed.visit(LOW))
    closed.table.require_welcome(closed.visit(GUEST, is_dialled=True))


async def test_guest_beyond_the_places_is_refused_until_one_is_free(desk: Desk) -> None:
    first = await desk.admitted(GUEST)
    assert await refusal_of(desk.visit(OTHER_GUEST)) is DropReason.TOO_MANY_GUESTS
    await desk.table.report(first, Departure(DropReason.CLOSED))
    await desk.admitted(OTHER_GUEST)


async def test_one_address_gets_a_part_of_the_places_for_guests(nursery: trio.Nursery) -> None:
    desk = Desk(nursery, max_guests=3 * GUEST_ADDRESSES)
    for number in range(3):
        await desk.admitted(PeerId(f"guest {number}"), address="192.0.2.1")
    assert await refusal_of(desk.visit(GUEST, address="192.0.2.1")) is DropReason.TOO_MANY_GUESTS
    await desk.admitted(OTHER_GUEST, address="192.0.2.2")
    await desk.admitted(LOW, address="192.0.2.1")


# Penalties


def keeps_out(desk: Desk, peer: PeerId, address: str = "") -> bool:
    """Whether a peer is refused for what it did before."""
    reason = None
    try:
        desk.table.require_welcome(desk.visit(peer, address=address))
    except RemoteFault as refusal:
        reason = refusal.reason
    assert reason in (None, DropReason.BACKING_OFF)
    return reason is not None


async def test_member_that_misbehaved_is_kept_out_for_longer_each_time_and_never_for_good(
    desk: Desk, autojump_clock: MockClock
) -> None:
    first_s, longest_s = MEMBER_PENALTY_S
    for number in range(12):
        await desk.table.report(await desk.admitted(LOW, address="192.0.2.1"), Departure(DropReason.FALSE_SIGNATURE))
        assert keeps_out(desk, LOW, "192.0.2.9"), "wherever it comes from"
        assert not keeps_out(desk, HIGH, "192.0.2.1"), "another member of that address has done nothing"
        wait_s = desk.table.penalty_s(LOW)
        assert wait_s == min(longest_s, first_s * 2**number)
        await trio.sleep(wait_s)
        assert not keeps_out(desk, LOW)
        desk.events()
    await trio.sleep(FORGOTTEN_AFTER_S)
    await desk.table.report(await desk.admitted(LOW), Departure(DropReason.FLOOD))
    assert desk.table.penalty_s(LOW) == first_s


async def test_guest_that_misbehaved_is_kept_out_under_whatever_name(desk: Desk, autojump_clock: MockClock) -> None:
    await desk.table.report(await desk.admitted(GUEST, address="192.0.2.1"), Departure(DropReason.FLOOD))
    assert keeps_out(desk, OTHER_GUEST, "192.0.2.1")
    assert not keeps_out(desk, OTHER_GUEST, "192.0.2.2")
    assert not keeps_out(desk, LOW, "192.0.2.1")
    await trio.sleep(GUEST_PENALTY_S[0])
    assert not keeps_out(desk, GUEST, "192.0.2.1")


@pytest.mark.parametrize(
    "departure",
    [
        Departure(DropReason.CLOSED),
        Departure(DropReason.SILENT),
        Departure(DropReason.SLOW_CONSUMER),
        Departure(DropReason.REPLACED),
        Departure(DropReason.FLOOD, by_peer=True),
    ],
)
async def test_bad_luck_and_what_the_peer_says_of_us_keep_nobody_out(desk: Desk, departure: Departure) -> None:
    await desk.table.report(await desk.admitted(LOW), departure)
    assert not keeps_out(desk, LOW)


async def test_members_and_dialled_nodes_take_no_guests_place(desk: Desk) -> None:
    await desk.admitted(LOW)
    await desk.admitted(OTHER_GUEST, is_dialled=True)
    await desk.admitted(GUEST)
    assert desk.table.connected() == {LOW, GUEST, OTHER_GUEST}


@pytest.mark.parametrize("peer", [LOW, HIGH])
@pytest.mark.parametrize("is_dialled", [True, False])
async def test_newer_connection_with_the_same_dialler_replaces_the_older(
    desk: Desk, peer: PeerId, is_dialled: bool, autojump_clock: MockClock
) -> None:
    await desk.admitted(peer, is_dialled=is_dialled)
    newer = await desk.admitted(peer, is_dialled=is_dialled)
    assert desk.table.visit(peer) is newer
    connected = PeerConnected(peer, PeerRole.MEMBER, "test")
    assert desk.events() == [connected, PeerDisconnected(peer, DropReason.REPLACED), connected]


async def test_guest_that_reconnects_keeps_its_place(desk: Desk, autojump_clock: MockClock) -> None:
    await desk.admitted(GUEST)
    await desk.admitted(GUEST)
    assert desk.table.connected() == {GUEST}


@pytest.mark.parametrize(("peer", "dialled_stays"), [(LOW, False), (HIGH, True)])
async def test_connection_dialled_by_the_lower_id_stays(
    desk: Desk, peer: PeerId, dialled_stays: bool, autojump_clock: MockClock
) -> None:
    loser = await desk.admitted(peer, is_dialled=not dialled_stays)
    winner = await desk.admitted(peer, is_dialled=dialled_stays)
    assert desk.table.visit(peer) is winner
    assert loser.gone.is_set()
    assert await refusal_of(desk.visit(peer, is_dialled=not dialled_stays)) is DropReason.DUPLICATE
    assert desk.table.visit(peer) is winner


async def test_departure_of_a_connected_peer_is_told(desk: Desk) -> None:
    visit = await desk.admitted(LOW)
    desk.events()
    await desk.table.report(visit, Departure(DropReason.FLOOD, by_peer=True, detail="as it says"))
    assert desk.events() == [PeerDisconnected(LOW, DropReason.FLOOD, by_peer=True, detail="as it says")]
    assert desk.table.connected() == frozenset()
    assert visit.gone.is_set()


@pytest.mark.parametrize("peer", [LOW, None])
async def test_departure_before_the_announcement_is_a_refusal(desk: Desk, peer: PeerId | None) -> None:
    visit = desk.visit(peer)
    if peer is not None:
        await visit.admit(HELLO)
    await desk.table.report(visit, Departure(DropReason.CLOSED))
    assert desk.events() == [PeerRefused(peer, DropReason.CLOSED)]
    assert desk.table.connected() == frozenset()


async def test_refusals_are_left_out_when_the_node_is_busy(desk: Desk) -> None:
    for _ in range(EVENTS_BUFFERED + 5):
        await desk.table.report(desk.visit(None), Departure(DropReason.HANDSHAKE_FAILED))
    assert desk.events() == [PeerRefused(None, DropReason.HANDSHAKE_FAILED)] * EVENTS_BUFFERED


async def test_messages_wait_for_the_node(desk: Desk, nursery: trio.Nursery) -> None:
    visit = await desk.admitted(LOW)
    for number in range(EVENTS_BUFFERED):
        nursery.start_soon(visit.deliver, bytes((number,)))
    await trio.testing.wait_all_tasks_blocked()
    assert desk.table.events.statistics().tasks_waiting_send == 1
    assert len(desk.events()) == 1 + EVENTS_BUFFERED


async def test_closed_table_ends_the_events_and_bothers_nobody(desk: Desk) -> None:
    visit = await desk.admitted(LOW)
    desk.events()
    desk.table.events.close()
    await visit.deliver(b"unread")
    desk.table.close()
    assert desk.table.connected() == frozenset()
