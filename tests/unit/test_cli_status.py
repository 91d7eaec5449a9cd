"""What `peg status` says of a member in trouble."""

from types import SimpleNamespace
from typing import cast

import pytest
from msgspec.structs import replace

from bridge.l1.states import L1State
from pegnode.cli.halt_note import HALT_NOTE, print_halt_note
from pegnode.cli.status import HALT_HELP, HALT_MEANS, MOST_FINDINGS_TOLD, _print_halts, _print_troubles, _state
from pegnode.rpc.client import RpcClient
from pegnode.rpc.results import AnchorReply, HaltReply, L1Reply, MemberReply, PegInfoReply, StatusReply

NAMES = ["alice", "bob", "carol", "dave"]


def reply_in(state: L1State, *waiting_for: str) -> StatusReply:
    """A member's status, five minutes after its start; its Bitcoin node has been in `state` for 100 seconds."""
    l1 = L1Reply(state, 200_000, state.cause, "seen", state.remedy, state.answers, "/A node:1/", 7, "aa", 1_000)
    return StatusReply(
        version="1.2.3",
        member=3,
        started_ms=0,
        uptime_ms=300_000,
        height=5,
        block_hash="bb",
        block_time_ms=1,
        best_known_height=5,
        syncing=False,
        view=6,
        leader=1,
        anchor=AnchorReply(1, "cc"),
        l1=l1,
        members=[],
        mempool_transactions=0,
        mempool_bytes=0,
        halted=False,
        halt_findings=[],
        halts=[],
        waiting_for=list(waiting_for),
    )


@pytest.mark.parametrize("state", [state for state in L1State if state is not L1State.OK])
def test_trouble_is_shown_with_its_age_its_cause_and_what_to_do(
    state: L1State, capsys: pytest.CaptureFixture[str]
) -> None:
    reply = reply_in(state, "the Bitcoin node")
    _print_troubles("dave", reply, NAMES)
    assert capsys.readouterr().out.splitlines() == [
        "dave:",
        "    waits for the Bitcoin node",
        f"    its Bitcoin node is {state}, for 0:01:40: {state.cause}",
        f"    what to do: {state.remedy}",
        "",
    ]
    assert _state(reply) == "waiting"


def test_nothing_is_shown_of_a_member_without_trouble(capsys: pytest.CaptureFixture[str]) -> None:
    reply = reply_in(L1State.OK)
    _print_troubles("dave", reply, NAMES)
    assert capsys.readouterr().out == ""
    assert _state(reply) == "running"


def test_members_that_are_not_connected_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    seen = [MemberReply(index, index == 1, None) for index in range(4)]
    _print_troubles("dave", replace(reply_in(L1State.OK), members=seen), NAMES)
    assert capsys.readouterr().out.splitlines() == ["dave:", "    not connected to alice, carol", ""]


def halted(*halts: HaltReply) -> StatusReply:
    """A member that is halted by these findings."""
    return replace(reply_in(L1State.OK), halted=True, halt_findings=[item.detail for item in halts], halts=list(halts))


def halt(subject: str, since_ms: int = 1_700_000_000_000, kind: str = "coin-gone") -> HaltReply:
    return HaltReply(kind, subject, f"the coin {subject} was spent", since_ms, f"look into {kind}")


def test_halt_is_told_once_with_its_finders_and_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    later = halt("aa:0", 1_700_000_060_000)
    _print_halts({"alice": halted(later, halt("bb:1", kind="anchor-left")), "bob": halted(halt("aa:0"))})
    assert capsys.readouterr().out.splitlines() == [
        f"alice and bob HALTED: {HALT_MEANS}",
        "    the coin aa:0 was spent",
        "        coin-gone, found by alice and bob, at 2023-11-14 22:13:20 UTC",
        "    the coin bb:1 was spent",
        "        anchor-left, found by alice, at 2023-11-14 22:13:20 UTC",
        "    what to do: look into anchor-left",
        "    what to do: look into coin-gone",
        f"    {HALT_HELP}",
        "",
    ]
    assert _state(halted(later)) == "HALTED"


def test_many_findings_are_told_in_part(capsys: pytest.CaptureFixture[str]) -> None:
    _print_halts({"alice": halted(*(halt(f"aa:{index}") for index in range(MOST_FINDINGS_TOLD + 3)))})
    lines = capsys.readouterr().out.splitlines()
    assert "    and 3 more: see them with --json" in lines
    assert len([line for line in lines if "was spent" in line]) == MOST_FINDINGS_TOLD


def test_nothing_is_said_of_halts_while_there_are_none(capsys: pytest.CaptureFixture[str]) -> None:
    _print_halts({})
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("is_halted", [False, True])
def test_lists_of_a_halted_node_say_so(capsys: pytest.CaptureFixture[str], is_halted: bool) -> None:
    class Client:
        def ask(self, kind: type[object], method: str) -> object:
            assert (kind, method) == (PegInfoReply, "getpeginfo")
            return SimpleNamespace(halted=is_halted)

    print_halt_note(cast(RpcClient, Client()))
    assert capsys.readouterr().out == (f"{HALT_NOTE}\n" if is_halted else "")
