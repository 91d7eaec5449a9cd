"""What `peg doctor` says of the other members."""

import socket
from pathlib import Path
from typing import Any

import pytest
import trio

from federation.membership import Membership
from pegnode.config import FunctionaryConfig
from pegnode.doctor.findings import Check, Outcome
from pegnode.doctor.members import Reach, check_complete, check_peer, check_quorum, members
from pegnode.net.transport import DropReason
from pegnode.ports import free_ports
from tests.support.chain import local_genesis
from tests.support.configs import FUNCTIONARY
from tests.unit.test_genesis import ANCHOR

MEMBERSHIP = local_genesis(ANCHOR).rules().membership
NAMES = [member.name for member in MEMBERSHIP.members]
ADDRESS = "/ip4/203.0.113.7/tcp/9735"


@pytest.mark.parametrize(
    ("reach", "outcome", "word"),
    [
        (Reach("bob", ADDRESS, connected=True), Outcome.OK, "connected"),
        (Reach("bob", ADDRESS), Outcome.OK, "who it should be"),
        (Reach("bob", ADDRESS, trouble="no such host"), Outcome.WARNING, "no such host"),
        (Reach("bob", ADDRESS, refusal=DropReason.TOO_MANY_GUESTS), Outcome.OK, "no place for a guest"),
        (Reach("bob", ADDRESS, refusal=DropReason.BACKING_OFF), Outcome.OK, "no place for a guest"),
        (Reach("bob", ADDRESS, refusal=DropReason.WRONG_CHAIN), Outcome.PROBLEM, "another chain"),
        (Reach("bob", ADDRESS, refusal=DropReason.WRONG_VERSION), Outcome.PROBLEM, "another release"),
        (Reach("bob", ADDRESS, refusal=DropReason.HANDSHAKE_FAILED), Outcome.PROBLEM, "is not bob"),
    ],
)
def test_peer_is_judged_by_how_far_one_got(reach: Reach, outcome: Outcome, word: str) -> None:
    finding = check_peer(reach)
    assert (finding.check, finding.outcome) == (Check.PEER, outcome)
    assert word in finding.what
    assert f"bob at {ADDRESS}" in finding.what
    assert bool(finding.remedy) is (outcome is not Outcome.OK)


THERE = Reach("x", ADDRESS)
GONE = Reach("x", ADDRESS, trouble="nobody accepts a connection")
STRANGE = Reach("x", ADDRESS, refusal=DropReason.HANDSHAKE_FAILED)
FULL = Reach("x", ADDRESS, refusal=DropReason.TOO_MANY_GUESTS)


@pytest.mark.parametrize(
    ("reaches", "is_member", "outcome", "count"),
    [
        ([THERE, THERE, THERE], True, Outcome.OK, 4),
        ([THERE, FULL, GONE], True, Outcome.OK, 3),
        ([THERE, GONE, GONE], True, Outcome.PROBLEM, 2),
        ([THERE, THERE, GONE, GONE], False, Outcome.PROBLEM, 2),
        ([THERE, THERE, FULL, STRANGE], False, Outcome.OK, 3),
    ],
)
def test_quorum_is_counted(reaches: list[Reach], is_member: bool, outcome: Outcome, count: int) -> None:
    finding = check_quorum(reaches, MEMBERSHIP, is_member)
    assert (finding.check, finding.outcome) == (Check.QUORUM, outcome)
    assert finding.what.startswith(f"{count} of 4 members")


def test_members_without_an_address_are_named() -> None:
    assert check_complete(NAMES[1:], NAMES[0], MEMBERSHIP) == []
    [finding] = check_complete(NAMES[1:2], NAMES[0], MEMBERSHIP)
    assert (finding.check, finding.outcome) == (Check.PEER, Outcome.WARNING)
    assert finding.what == f"no address for {NAMES[2]}, {NAMES[3]}"


def _config(addresses: list[str]) -> FunctionaryConfig:
    """The first member's, with these addresses of the others."""
    head = FUNCTIONARY[: FUNCTIONARY.index("[[p2p.peers]]")].replace("alice", NAMES[0])
    peers = "".join(
        f'[[p2p.peers]]\nname = "{name}"\naddress = "{address}"\n'
        for name, address in zip(NAMES[1:], addresses, strict=False)
    )
    return FunctionaryConfig.parse(head + peers + '[rpc]\nbind = "127.0.0.1:1"\n', Path("/x"))


class NoNames(trio.abc.HostnameResolver):
    """Knows no host, and asks nobody."""

    async def getaddrinfo(self, *_: object, **__: object) -> list[Any]:
        """Of a name."""
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def getnameinfo(self, *_: object) -> tuple[str, str]:
        """Of an address."""
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


async def test_members_that_are_away_or_are_others_are_told_apart() -> None:
    """One is down, one has a name that nobody resolves, and at the third's address somebody else hangs up."""
    trio.socket.set_custom_hostname_resolver(NoNames())
    [port] = free_ports(1)
    listener = socket.create_server(("127.0.0.1", 0))
    stranger = trio.socket.from_stdlib_socket(listener)
    stranger_port = listener.getsockname()[1]

    async def hang_up() -> None:
        while True:
            connection, _ = await stranger.accept()
            connection.close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hang_up)
        addresses = [f"/ip4/127.0.0.1/tcp/{port}", "/dns/nowhere.invalid/tcp/1", f"/ip4/127.0.0.1/tcp/{stranger_port}"]
        found = await members(_config(addresses), MEMBERSHIP, bytes(32), None)
        nursery.cancel_scope.cancel()
    stranger.close()
    assert [(finding.check, finding.outcome) for finding in found] == [
        (Check.PEER, Outcome.WARNING),
        (Check.PEER, Outcome.WARNING),
        (Check.PEER, Outcome.PROBLEM),
        (Check.QUORUM, Outcome.PROBLEM),
    ]
    down, nowhere, strange, _ = found
    assert "nobody accepts a connection" in down.what
    assert "no such host" in nowhere.what
    assert f"what answers there is not {NAMES[3]}" in strange.what


async def test_name_that_is_no_members_is_left_to_the_check_of_the_genesis() -> None:
    lone = Membership(0, MEMBERSHIP.members[:1])
    found = await members(_config(["/dns/nowhere.invalid/tcp/1"]), lone, bytes(32), None)
    assert [(finding.check, finding.outcome) for finding in found] == [(Check.QUORUM, Outcome.OK)]
