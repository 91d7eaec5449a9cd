"""Methods about the node itself."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from bridge.bitcoin.identifiers import hash_to_hex
from pegnode.halts import remedy, subject_text
from pegnode.rpc.methods.control import version_number
from pegnode.rpc.results import HaltReply, JournalReply, MemberReply, StallReply, StatusReply
from pegnode.rpc.server import method_table
from pegnode.status import JournalStatus, Stall
from tests.support.chain import START_MS
from tests.support.halts import latched
from tests.support.rpc_node import FakeNode


@pytest.fixture
def node(tmp_path: Path) -> Iterator[FakeNode]:
    fake = FakeNode(tmp_path / "chain")
    fake.make_block()
    yield fake
    fake.close()


async def test_getnetworkinfo(node: FakeNode) -> None:
    info = (await node.ask("getnetworkinfo")).result
    assert (info["version"], info["subversion"], info["connections"]) == (10203, "/Pegnode:1.2.3/", 2)
    assert str(info["relayfee"]) == "0.00000100"


async def test_getpeerinfo(node: FakeNode) -> None:
    member, guest = (await node.ask("getpeerinfo")).result
    assert (member["peer_id"], member["member"], member["synced_blocks"]) == ("a member", 1, 7)
    assert (guest["id"], guest["member"], guest["pingtime_ms"]) == (1, None, None)


async def test_getpeerinfo_tells_where_a_peer_comes_from(node: FakeNode) -> None:
    member, guest = (await node.ask("getpeerinfo")).result
    assert (member["address"], member["software"], member["connected_ms"]) == ("192.0.2.1", "pegnode/1", START_MS)
    assert guest["address"] == ""


async def test_listdroppedpeers_tells_who_why_and_how_often(node: FakeNode) -> None:
    member, stranger = (await node.ask("listdroppedpeers")).result
    assert member == {
        "peer_id": "a member",
        "member": 1,
        "address": "192.0.2.1",
        "reason": "false-signature",
        "by_peer": False,
        "detail": "of member 2",
        "count": 2,
        "last_ms": START_MS + 5,
    }
    assert (stranger["peer_id"], stranger["reason"], stranger["count"]) == (None, "handshake-failed", 40)


async def test_uptime_and_stop(node: FakeNode) -> None:
    assert (await node.ask("uptime")).result == 61
    assert not node.stopped
    assert (await node.ask("stop")).result == "Pegnode stopping"
    assert node.stopped


async def test_getstatus_tells_what_the_node_does(node: FakeNode) -> None:
    status = msgspec.convert((await node.ask("getstatus")).result, StatusReply)
    assert (status.height, status.best_known_height, status.syncing, status.view) == (1, 1, False, 12)
    assert status.block_hash == hash_to_hex(node.store.tip.hash)
    assert (status.l1.reachable, status.l1.height, status.l1.feerate_sat_kvb) == (True, 120, 3_000)
    assert [(item.member, item.connected, item.last_vote_view) for item in status.members] == [
        (0, True, 11),
        (1, False, None),
    ]
    assert (status.halted, status.halt_findings, status.waiting_for) == (False, [], [])
    assert (status.final_age_ms, status.timeout_ms) == (7_000, 2_000)
    assert (status.journal, status.key_alarm, status.stall) == (None, None, None)


async def test_getstatus_tells_what_it_sees_of_each_member(node: FakeNode) -> None:
    at_hand, away = msgspec.convert((await node.ask("getstatus")).result, StatusReply).members
    assert at_hand == MemberReply(
        member=0,
        name="member-0",
        connected=True,
        missing_since_ms=None,
        round_trip_ms=12.5,
        last_vote_view=11,
        last_vote_kind="notarize",
        last_vote_ms=START_MS + 1,
        software="pegnode/1",
        final_height=7,
        l1_buried_height=114,
        missed_turn=False,
        equivocations=0,
    )
    assert (away.missing_since_ms, away.last_vote_view, away.last_vote_kind) == (START_MS + 2, None, None)
    assert (away.missed_turn, away.equivocations) == (True, 1)


async def test_getstatus_tells_why_the_chain_stands_and_how_the_journal_is(node: FakeNode) -> None:
    journal = JournalStatus("renewing", 3, None, 1, 3, (1,))
    node.current = replace(node.current, stall=Stall(START_MS, "nobody is there"), journal=journal, key_alarm="stolen")
    status = msgspec.convert((await node.ask("getstatus")).result, StatusReply)
    assert status.stall == StallReply(START_MS, "nobody is there")
    assert status.journal == JournalReply("renewing", 3, None, 1, 3, [1])
    assert status.key_alarm == "stolen"


async def test_halt_shows_wherever_people_look(node: FakeNode) -> None:
    found = latched(detail="a coin is missing")
    node.current = replace(node.current, halts=(found,), waiting_for=("L1",))
    status = msgspec.convert((await node.ask("getstatus")).result, StatusReply)
    assert (status.halted, status.halt_findings, status.waiting_for) == (True, ["a coin is missing"], ["L1"])
    subject, what_to_do = subject_text(found.finding), remedy(found.finding.kind)
    assert status.halts == [HaltReply("coin-gone", subject, "a coin is missing", found.since_ms, what_to_do)]
    assert (await node.ask("getpeginfo")).result["halted"] is True
    assert (await node.ask("getblockchaininfo")).result["warnings"] == ["a coin is missing"]
    assert (await node.ask("getnetworkinfo")).result["warnings"] == ["a coin is missing"]


async def test_every_method_explains_itself(node: FakeNode) -> None:
    listing = (await node.ask("help")).result
    for method in method_table():
        assert method.usage in listing
        explained = (await node.ask("help", method.name)).result
        assert explained.startswith(method.usage)
        assert len(method.help_text.splitlines()[0]) > 10
        assert all(f"\n{parameter.name}: " in explained for parameter in method.parameters)


@pytest.mark.parametrize(("text", "number"), [("0.1.0", 100), ("1.2.3", 10203), ("2", 20000), ("1.x.3.4", 10003)])
def test_version_number(text: str, number: int) -> None:
    assert version_number(text) == number
