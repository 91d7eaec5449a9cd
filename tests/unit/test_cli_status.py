"""What `peg status` says of a member in trouble."""

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from msgspec.structs import replace

from bridge.l1.states import L1State
from pegnode.cli.halt_note import HALT_NOTE, print_halt_note
from pegnode.cli.status import _ask, _Seen
from pegnode.cli.status_view import (
    EVIDENCE_HELP,
    GUILT_MEANS,
    HALT_HELP,
    HALT_MEANS,
    MOST_FINDINGS_TOLD,
    STALL_HELP,
    print_alarms,
    print_halts,
    print_links,
    print_members,
    print_more,
    print_peers,
    print_summary,
    print_troubles,
    state_of,
)
from pegnode.cli.terminal import out
from pegnode.config import NodeConfig
from pegnode.rpc.client import ClientReason, RpcClient, RpcClientError
from pegnode.rpc.results import (
    AnchorReply,
    HaltReply,
    JournalReply,
    L1Reply,
    MemberReply,
    PegInfoReply,
    StallReply,
    StatusReply,
)
from tests.support.configs import NODE

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
        final_age_ms=7_000,
        timeout_ms=2_000,
        journal=None,
        key_alarm=None,
        stall=None,
    )


def seen(member: int, name: str = "", connected: bool = True, **changes: object) -> MemberReply:
    """A member as dave sees it, five minutes after his start."""
    reply = MemberReply(
        member=member,
        name=name or NAMES[member],
        connected=connected,
        missing_since_ms=None if connected else 180_000,
        round_trip_ms=12.4 if connected else None,
        last_vote_view=6,
        last_vote_kind="notarize",
        last_vote_ms=299_000,
        software="pegnode/1.2.3",
        final_height=5 if connected else None,
        l1_buried_height=2,
        missed_turn=False,
        equivocations=0,
    )
    return replace(reply, **changes)


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What was printed."""
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("state", [state for state in L1State if state is not L1State.OK])
def test_trouble_is_shown_with_its_age_its_cause_and_what_to_do(
    state: L1State, capsys: pytest.CaptureFixture[str]
) -> None:
    reply = reply_in(state, "the Bitcoin node")
    print_troubles({"dave": reply})
    assert capsys.readouterr().out.splitlines() == [
        "dave:",
        "    waits for the Bitcoin node",
        f"    its Bitcoin node is {state}, for 0:01:40: {state.cause}",
        f"    what to do: {state.remedy}",
        "",
    ]
    assert state_of(reply) == "waiting"


def test_nothing_is_shown_of_a_member_without_trouble(capsys: pytest.CaptureFixture[str]) -> None:
    reply = reply_in(L1State.OK)
    print_troubles({"dave": reply})
    assert capsys.readouterr().out == ""
    assert state_of(reply) == "running"


def test_members_that_are_not_connected_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    reply = replace(reply_in(L1State.OK), members=[seen(index, connected=index == 1) for index in range(4)])
    print_troubles({"alice": reply, "dave": reply})
    assert capsys.readouterr().out.splitlines() == ["alice and dave:", "    not connected to alice and carol", ""]


def test_member_that_is_there_and_does_not_lead_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    members = [seen(0), seen(1, missed_turn=True), seen(2), seen(3)]
    print_troubles({"dave": replace(reply_in(L1State.OK), members=members)})
    assert lines(capsys) == ["dave:", "    bob let the last turn to lead pass, and said nothing since", ""]


@pytest.mark.parametrize(
    ("reason", "is_running", "state"),
    [
        (ClientReason.TIMEOUT, True, "no answer"),
        (ClientReason.BAD_REPLY, True, "other release"),
        (ClientReason.NODE_UNREACHABLE, True, "starting"),
        (ClientReason.NO_COOKIE, False, "stopped"),
        (ClientReason.TIMEOUT, False, "stopped"),
    ],
)
def test_member_that_gives_no_status_is_told_apart(
    reason: ClientReason, is_running: bool, state: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fails(client: RpcClient, *_: object) -> None:
        raise RpcClientError(reason, "")

    monkeypatch.setattr(RpcClient, "ask", fails)
    config = NodeConfig.parse(NODE, tmp_path)
    assert _ask(config, is_running) == _Seen(config, None, state)


def federation(size: int) -> dict[str, StatusReply | None]:
    """A federation of which the last does not answer, and misses nobody else."""
    names = [*NAMES, *(f"member-{index}" for index in range(4, size))]
    members = [seen(index, name, connected=index != size - 1, round_trip_ms=105.0) for index, name in enumerate(names)]
    answers = {name: replace(reply_in(L1State.OK), member=index, members=members) for index, name in enumerate(names)}
    return {**answers, names[-1]: None}


@pytest.mark.parametrize("size", [4, 15])
def test_tables_fit_eighty_columns(
    size: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(out, "width", 80)
    replies = federation(size)
    name, *_, absent = replies
    print_members(replies, {absent: "stopped"})
    head, _, *rows = lines(capsys)
    assert head == "block 5 became final 0:00:07 ago; bob leads view 6"
    assert [row.split()[:2] for row in rows[:1]] == [["alice", "running"]]
    assert rows[size - 1].split()[:3] == [absent, "stopped", "-"]
    reply = replies[name]
    assert reply is not None
    print_links(replies)
    print_peers(reply)
    links = lines(capsys)
    assert links[2].split() == ["alice", "0", *["105"] * (size - 2), "-"]
    assert all(len(line) <= 80 for line in (head, *rows, *links)), "no line is folded"
    assert len(rows) == size + 1, "nor any row"


def test_one_node_tells_what_it_sees_of_each_member(capsys: pytest.CaptureFixture[str]) -> None:
    members = [seen(0), seen(1), seen(2, connected=False), seen(3, round_trip_ms=None)]
    journal = JournalReply("kept", 3, 6, 0, 0, [])
    print_peers(replace(reply_in(L1State.OK), members=members, journal=journal))
    assert lines(capsys) == [
        "member       connection       ms  block  last vote     heard  L1  runs",
        "alice        connected        12      5  6 notarize  0:00:01   2  pegnode/1.2.3",
        "bob (leads)  connected        12      5  6 notarize  0:00:01   2  pegnode/1.2.3",
        "carol        missing 0:02:00   -      -  6 notarize  0:00:01   2  pegnode/1.2.3",
        "dave         this node         -      5  6 notarize  0:00:01   2  pegnode/1.2.3",
        "",
        "views    end after 2.0 s in which a block is due and none comes",
        "journal  kept; nothing at or below view 3 is signed; newest vote in view 6",
        "",
    ]


def test_member_below_the_floor_of_its_journal_says_from_when_on_it_votes(capsys: pytest.CaptureFixture[str]) -> None:
    reply = replace(reply_in(L1State.OK), journal=JournalReply("kept", 6, None, 0, 0, []))
    print_troubles({"dave": reply})
    assert lines(capsys) == ["dave:", "    this member is silent until view 7, now in 6", ""]
    print_troubles({"dave": replace(reply, view=7)})
    assert lines(capsys) == []


def test_journal_that_is_renewed_says_for_whom_it_waits(capsys: pytest.CaptureFixture[str]) -> None:
    print_peers(replace(reply_in(L1State.OK), journal=JournalReply("renewing", 0, None, 1, 3, [2])))
    assert (
        "journal  renewing; nothing at or below view 0 is signed; signs nothing before 3 others are heard, 1 were"
        in lines(capsys)
    )


KEPT = JournalReply("kept", 3, 6, 0, 0, [])


def test_two_lines_sum_up_what_all_vote_keep_reach_and_run(capsys: pytest.CaptureFixture[str]) -> None:
    members = [seen(0), seen(1, last_vote_view=4), seen(2), seen(3)]
    reply = replace(reply_in(L1State.OK), members=members, journal=KEPT)
    slower = replace(reply, members=[seen(0, round_trip_ms=30.2), seen(1), seen(2, last_vote_view=7), seen(3)])
    print_summary({"dave": reply, "alice": slower})
    assert lines(capsys) == [
        "votes  newest in views 6 to 7; journals kept; no proof of guilt",
        "links  round trips of 12 to 30 ms; all run pegnode/1.2.3",
        "",
    ]


def test_summary_names_journals_that_are_not_kept_and_who_was_never_heard(capsys: pytest.CaptureFixture[str]) -> None:
    members = [seen(0), seen(1, last_vote_view=None, equivocations=1), seen(2), seen(3, software="pegnode/2")]
    reply = replace(reply_in(L1State.OK), members=members, journal=KEPT)
    renewing, behind = (replace(reply, journal=replace(KEPT, state=state)) for state in ("renewing", "behind"))
    print_summary({"alice": reply, "bob": renewing, "carol": behind})
    assert lines(capsys) == [
        "votes  newest in view 6, none of bob; journals kept but bob's renewing and carol's behind; 1 proof of guilt",
        "links  round trips of 12 ms",
        "",
    ]


def test_summary_of_a_federation_that_just_started_claims_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    members = [seen(index, last_vote_view=None, round_trip_ms=None, software="") for index in range(4)]
    print_summary({"dave": replace(reply_in(L1State.OK), members=members)})
    assert lines(capsys) == ["votes  none heard yet; no proof of guilt", "links  no round trip measured yet", ""]
    print_summary({})
    assert lines(capsys) == [], "nobody answers"


@pytest.mark.parametrize("peers", [False, True])
def test_last_line_names_the_options_that_show_more(peers: bool, capsys: pytest.CaptureFixture[str]) -> None:
    print_more(peers=peers)
    said = lines(capsys)[-1]
    assert len(said) <= 80
    assert "--node NAME" in said
    assert ("--peers" in said) is not peers


def test_stall_is_told_once_for_all_who_say_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    def stalled(moment: str, since_ms: int = 60_000) -> StatusReply:
        why = f"3 of 4 needed, 2 reachable; carol and dave both missing since {moment}"
        return replace(reply_in(L1State.OK), stall=StallReply(since_ms, why))

    alice, bob = stalled("00:01:00 UTC (0:04:00)"), stalled("00:01:01 UTC (0:03:59)", 61_000)
    other = replace(alice, stall=StallReply(60_000, "another reason"))
    print_alarms({"alice": alice, "bob": bob, "carol": other})
    assert lines(capsys) == [
        "STALLED since 00:01:00 UTC (0:04:00), say alice and bob:",
        "    3 of 4 needed, 2 reachable",
        "    carol and dave both missing since 00:01:00 UTC (0:04:00)",
        "STALLED since 00:01:00 UTC (0:04:00), says carol:",
        "    another reason",
        f"    {STALL_HELP}",
        "",
    ]
    assert state_of(alice) == "STALLED"
    print_troubles({"alice": replace(alice, members=[seen(2, connected=False)])})
    assert lines(capsys) == [], "the stall says who is away"


def test_key_alarm_guilt_and_other_versions_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    members = [seen(0), seen(1, equivocations=2), seen(2, software="pegnode/2"), seen(3, software="")]
    reply = replace(reply_in(L1State.OK), members=members, key_alarm="a vote that it never gave")
    print_alarms({"dave": reply, "alice": replace(reply, key_alarm=None)})
    assert lines(capsys) == [
        "dave: KEY ALARM: a vote that it never gave",
        "",
        f"bob signed two votes of which no honest member signs both: 2 proofs are kept; {EVIDENCE_HELP}",
        GUILT_MEANS,
        "carol runs pegnode/2, most run pegnode/1.2.3",
        "",
    ]


def halted(*halts: HaltReply) -> StatusReply:
    """A member that is halted by these findings."""
    return replace(reply_in(L1State.OK), halted=True, halt_findings=[item.detail for item in halts], halts=list(halts))


def halt(subject: str, since_ms: int = 1_700_000_000_000, kind: str = "coin-gone") -> HaltReply:
    return HaltReply(kind, subject, f"the coin {subject} was spent", since_ms, f"look into {kind}")


def test_halt_is_told_once_with_its_finders_and_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    later = halt("aa:0", 1_700_000_060_000)
    print_halts({"alice": halted(later, halt("bb:1", kind="anchor-left")), "bob": halted(halt("aa:0"))})
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
    assert state_of(halted(later)) == "HALTED"


def test_many_findings_are_told_in_part(capsys: pytest.CaptureFixture[str]) -> None:
    print_halts({"alice": halted(*(halt(f"aa:{index}") for index in range(MOST_FINDINGS_TOLD + 3)))})
    lines = capsys.readouterr().out.splitlines()
    assert "    and 3 more: see them with --json" in lines
    assert len([line for line in lines if "was spent" in line]) == MOST_FINDINGS_TOLD


def test_trouble_of_all_in_a_large_federation_lists_no_names(capsys: pytest.CaptureFixture[str]) -> None:
    answers = {name: reply for name, reply in federation(15).items() if reply is not None}
    print_troubles(answers)
    assert lines(capsys) == ["all that answer:", "    not connected to member-14", ""]


def test_nothing_is_said_of_halts_while_there_are_none(capsys: pytest.CaptureFixture[str]) -> None:
    print_halts({})
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("is_halted", [False, True])
def test_lists_of_a_halted_node_say_so(capsys: pytest.CaptureFixture[str], is_halted: bool) -> None:
    class Client:
        def ask(self, kind: type[object], method: str) -> object:
            assert (kind, method) == (PegInfoReply, "getpeginfo")
            return SimpleNamespace(halted=is_halted)

    print_halt_note(cast(RpcClient, Client()))
    assert capsys.readouterr().out == (f"{HALT_NOTE}\n" if is_halted else "")
