"""Whose handshake gives way: never a member's to strangers, however many addresses they have."""

import socket

import trio
import trio.testing

from pegnode.net.doorway import MAX_PENDING_INBOUND, MAX_PENDING_STRANGERS, Doorway, Handshake
from pegnode.net.libp2p_host import LOOK_UP_AGAIN_S, follow_names

MEMBER = "192.0.2.1"


class Desk:
    """A doorway, and in which order handshakes were ended."""

    def __init__(self, *known: str) -> None:
        self.doorway = Doorway()
        self.ended: list[int] = []
        self.begun = 0
        for address in known:
            self.doorway.know(address, address)

    def knock(self, address: str) -> Handshake:
        """Begin the next handshake, from an address."""
        number, self.begun = self.begun, self.begun + 1
        handshake = Handshake(address, lambda: self.ended.append(number))
        self.doorway.enter(handshake)
        return handshake


def test_strangers_of_any_number_of_addresses_end_no_handshake_of_a_member() -> None:
    desk = Desk(MEMBER)
    desk.knock(MEMBER)
    for number in range(1_000):
        desk.knock(f"stranger {number}")
    assert desk.ended == list(range(1, 1_001 - MAX_PENDING_STRANGERS)), "the oldest stranger each time"


def test_members_may_have_every_place_that_strangers_leave() -> None:
    desk = Desk(MEMBER)
    for _ in range(MAX_PENDING_INBOUND):
        desk.knock(MEMBER)
    assert desk.ended == []
    desk.knock(MEMBER)
    assert desk.ended == [0]
    desk.knock("stranger")
    desk.knock(MEMBER)
    assert desk.ended == [0, 1], "a stranger still has a place"


def test_address_with_most_handshakes_gives_way_first() -> None:
    desk = Desk()
    for address in ("quiet", *["loud"] * MAX_PENDING_STRANGERS, "quiet"):
        desk.knock(address)
    assert desk.ended == [1, 2]


def test_handshake_that_is_over_leaves_its_place() -> None:
    desk = Desk()
    for number in range(10 * MAX_PENDING_STRANGERS):
        desk.doorway.leave(desk.knock(str(number)))
    assert desk.ended == []


def test_member_is_known_by_where_it_came_from_last() -> None:
    desk = Desk()
    for address in ("192.0.2.2", MEMBER):
        desk.doorway.know("its peer id", address)
    desk.knock("192.0.2.2")
    desk.knock(MEMBER)
    for number in range(MAX_PENDING_STRANGERS):
        desk.knock(f"stranger {number}")
    assert desk.ended == [0]


def test_address_that_is_not_known_is_nobodys() -> None:
    desk = Desk("")
    desk.knock("")
    for number in range(MAX_PENDING_STRANGERS):
        desk.knock(f"stranger {number}")
    assert desk.ended == [0]


class Names(trio.abc.HostnameResolver):
    """A resolver that knows one name, once the test has told it where that is."""

    def __init__(self) -> None:
        self.address = ""

    async def getaddrinfo(self, host, port, family=0, type=0, proto=0, flags=0):  # type: ignore[no-untyped-def] # noqa: A002
        """The address, or no such name."""
        if host != b"member.test" or not self.address:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (self.address, 0))]

    async def getnameinfo(self, sockaddr, flags):  # type: ignore[no-untyped-def]
        """Never asked for."""
        raise NotImplementedError


async def test_configured_name_is_followed_to_where_it_moves(autojump_clock: trio.testing.MockClock) -> None:
    desk, names = Desk(), Names()
    trio.socket.set_custom_hostname_resolver(names)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow_names, desk.doorway, ("no.such.name", "member.test"))
        await trio.sleep(1)
        for names.address in ("", "192.0.2.2", MEMBER):
            await trio.sleep(LOOK_UP_AGAIN_S)
        nursery.cancel_scope.cancel()
    desk.knock("192.0.2.2")
    desk.knock(MEMBER)
    for number in range(MAX_PENDING_STRANGERS):
        desk.knock(f"stranger {number}")
    assert desk.ended == [0]
