"""The demonstration's own judgement: each thing that may not hold ends it, by name."""

import io
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
import trio.testing
from rich.console import Console

from bridge.l1.client import L1Client
from bridge.l1.regtest import RegtestMiner
from pegnode.demo import story
from pegnode.demo.cast import Members, User, until
from pegnode.demo.display import PlainDisplay
from pegnode.demo.errors import DemoFailed, DemoReason
from pegnode.demo.narration import Narrator
from pegnode.demo.play import Play
from pegnode.demo.run import check_logs
from pegnode.demo.scene import Terms
from pegnode.demo.stage import Stage
from pegnode.local_federation import LocalFederation
from pegnode.rpc.audit_results import AuditReply
from pegnode.rpc.client import RpcRefused
from pegnode.rpc.errors import RpcCode
from pegnode.rpc.results import AnchorReply, PegInfoReply, StatusReply
from pegnode.wallet.wallet import Balance

TERMS = Terms(reserves_sats=1_000, deficit_sats=0, supply_sats=700, unsettled_sats=250, fund_sats=50)
NAMES = ("alice", "bob", "carol", "dave")


# The equality


@pytest.mark.parametrize(
    ("changed", "holds"),
    [
        ({}, True),
        ({"deficit_sats": 10, "supply_sats": 710}, True),
        ({"reserves_sats": 1_001}, False),
        ({"supply_sats": 699}, False),
        ({"fund_sats": -50, "supply_sats": 800}, False),
        ({"reserves_sats": -1, "deficit_sats": 1_001}, False),
    ],
)
def test_terms_hold_when_equal_and_none_is_negative(changed: dict[str, int], holds: bool) -> None:
    assert replace(TERMS, **changed).hold is holds


def peg_reply(terms: Terms, *, equality: bool = True) -> PegInfoReply:
    """getpeginfo with these terms."""
    named: dict[str, Any] = dict.fromkeys(PegInfoReply.__struct_fields__, 0)
    for name in ("reserves", "deficit", "supply", "unsettled", "fund"):
        named[f"{name}_sats"] = getattr(terms, f"{name}_sats")
    return PegInfoReply(**named | {"height": 7, "equality": equality, "claim_fee_sats": 1_000, "confirmations": 6})


@dataclass
class FakeMembers:
    """Members that answer from what they were given: a reply by method, or by name and method.

    refusals: what they refuse with before they answer, the first first.
    """

    replies: dict[str, Any] = field(default_factory=dict)
    names: tuple[str, ...] = NAMES
    refusals: list[RpcRefused] = field(default_factory=list)

    async def ask(self, name: str, _: object, method: str, /, *params: object, **named: object) -> Any:
        if self.refusals:
            raise self.refusals.pop(0)
        return self.replies.get(f"{name} {method}", self.replies.get(method))

    async def peg(self, name: str) -> PegInfoReply:
        return cast(PegInfoReply, await self.ask(name, None, "getpeginfo"))

    async def status(self, name: str) -> StatusReply:
        return cast(StatusReply, await self.ask(name, None, "getstatus"))

    async def start(self, name: str) -> None:
        return

    def running(self) -> list[str]:
        return list(self.names)

    def next_running(self) -> str:
        return self.names[0]


@dataclass
class FakeUser:
    """A user whose wallet has what it is told."""

    name: str
    balance_sats: int
    member: str = "alice"

    async def sync(self) -> Balance:
        return Balance(self.balance_sats, 0)


def play_of(members: FakeMembers, *users: FakeUser) -> tuple[Play, io.StringIO]:
    """A play with these, and where its words go."""
    words = io.StringIO()
    narrator = Narrator([PlainDisplay(Console(file=words, width=200))])
    nobody = cast(L1Client, None), cast(RegtestMiner, None)
    play = Play(narrator, cast(Members, members), cast(tuple[User, ...], users), *nobody, 6, 1_000)
    return play, words


@pytest.mark.parametrize(
    "reply", [peg_reply(replace(TERMS, fund_sats=51)), peg_reply(TERMS, equality=False)], ids=["arithmetic", "own-word"]
)
async def test_equality_refuses_terms_that_do_not_add_up(reply: PegInfoReply) -> None:
    play, words = play_of(FakeMembers({"getpeginfo": reply}))
    with pytest.raises(DemoFailed) as failure:
        await play.check_equality()
    assert failure.value.reason is DemoReason.EQUALITY
    assert "alice at block 7: reserves 0.00001000 != supply" in failure.value.detail
    assert words.getvalue() == ""


async def test_equality_is_told_with_its_terms() -> None:
    play, words = play_of(FakeMembers({"getpeginfo": peg_reply(replace(TERMS, deficit_sats=1, supply_sats=701))}))
    await play.check_equality()
    assert (
        "ok  reserves 0.00001000 + deficit 0.00000001 ="
        " supply 0.00000701 + unsettled 0.00000250 + fund 0.00000050  (alice, block 7)"
    ) in words.getvalue()


async def test_supply_is_what_the_wallets_hold(autojump_clock: trio.testing.MockClock) -> None:
    play, words = play_of(FakeMembers({"getpeginfo": peg_reply(TERMS)}), FakeUser("ann", 300), FakeUser("ben", 400))
    await play.check_supply()
    assert "ann 0.00000300 + ben 0.00000400 = 0.00000700 L-BTC, the whole supply" in words.getvalue()
    play.user("ben").balance_sats = 399
    with pytest.raises(DemoFailed) as failure:
        await play.check_supply()
    assert failure.value.reason is DemoReason.TOO_SLOW


async def test_waiting_ends_at_the_deadline(autojump_clock: trio.testing.MockClock) -> None:
    answers = iter([None, None, 3])

    async def third_time() -> int | None:
        return next(answers)

    async def never() -> None:
        return None

    assert await until(third_time, "the third answer") == 3
    began = trio.current_time()
    with pytest.raises(DemoFailed) as failure:
        await until(never, "the impossible", deadline_s=5)
    assert (failure.value.reason, failure.value.detail) == (DemoReason.TOO_SLOW, "not within 5 s: the impossible")
    assert trio.current_time() - began == pytest.approx(5)


@dataclass
class FakeFederation:
    """Members' processes that run or not, and a Bitcoin node's."""

    alive: set[str]
    bitcoind_pid: int | None = 1
    member_names: tuple[str, ...] = NAMES

    @property
    def bitcoind(self) -> SimpleNamespace:
        return SimpleNamespace(pid=self.bitcoind_pid)

    def client(self, _: str) -> SimpleNamespace:
        return SimpleNamespace(ask=lambda *_: status_reply(0, ""))

    def is_running(self, name: str) -> bool:
        return name in self.alive

    def start_member(self, name: str) -> None:
        self.alive.add(name)

    def kill_member(self, name: str) -> None:
        self.alive.discard(name)

    def wait_until_answering(self, _: str) -> None:
        return


async def test_watch_refuses_a_process_that_ended_unasked() -> None:
    federation = FakeFederation(set())
    members = Members(cast(LocalFederation, federation))
    members.check_alive()
    for name in NAMES:
        await members.start(name)
    await members.kill("dave")
    members.check_alive()
    federation.alive.discard("carol")
    with pytest.raises(DemoFailed) as failure:
        members.check_alive()
    assert (failure.value.reason, failure.value.detail) == (DemoReason.ENDED, "carol ended unasked")
    federation.alive.add("carol")
    federation.bitcoind_pid = None
    with pytest.raises(DemoFailed) as failure:
        members.check_alive()
    assert failure.value.detail == "the Bitcoin node ended unasked"


# The chapters' own checks


class _NoClient:
    """A Bitcoin node's client that nobody asks."""

    async def __aenter__(self) -> "_NoClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("fails", [False, True])
async def test_nothing_is_closed_while_the_last_look_is_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, autojump_clock: trio.testing.MockClock, fails: bool
) -> None:
    """A look asks in threads, which go on when they are cancelled until they are answered."""
    closed: list[str] = []
    looks: list[list[str]] = []

    async def watch(*_: object) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)  # its answer comes late
            looks.append(list(closed))

    async def set_up(*_: object) -> Play:
        await trio.sleep(1)
        if fails:
            raise DemoFailed(DemoReason.TOO_SLOW)
        return cast(Play, None)

    async def look(*_: object) -> None:
        pass

    federation = SimpleNamespace(bitcoind=SimpleNamespace(client=_NoClient))
    members = SimpleNamespace(close=lambda: closed.append("members"))
    monkeypatch.setattr(LocalFederation, "create", lambda *_: federation)
    monkeypatch.setattr(story, "Members", lambda _: members)
    for name, replacement in (("watch", watch), ("set_up", set_up), ("look", look), ("CHAPTERS", ())):
        monkeypatch.setattr(story, name, replacement)
    narrator = SimpleNamespace(chapter=lambda *_: None, show=lambda _: None, elapsed_s=0.0)
    try:
        await story.tell(Stage(tmp_path), cast(Narrator, narrator))
    except* DemoFailed:
        assert fails
    assert (looks, closed) == ([[]], ["members"])


async def test_credit_refuses_more_than_was_paid() -> None:
    play, _ = play_of(FakeMembers(), FakeUser("cho", 70_000_000 - 2 * 1_000 + 1))
    with pytest.raises(DemoFailed) as failure:
        await story.check_credited(play, play.user("cho"))
    assert failure.value.reason is DemoReason.CREDIT


async def test_credit_is_each_deposit_less_its_claim_fee() -> None:
    play, words = play_of(FakeMembers(), FakeUser("cho", 70_000_000 - 2 * 1_000))
    await story.check_credited(play, play.user("cho"))
    assert "cho has 0.69998000 L-BTC without doing anything more" in words.getvalue()


def status_reply(height: int, block_hash: str) -> StatusReply:
    """getstatus of a member at a block."""
    named: dict[str, Any] = dict.fromkeys(StatusReply.__struct_fields__, 0)
    return StatusReply(**named | {"height": height, "block_hash": block_hash, "anchor": AnchorReply(0, "")})


async def test_return_refuses_another_block_at_the_same_height() -> None:
    replies = {
        "getstatus": status_reply(9, "aa"),
        "getblockhash": "aa",
        "bob getblockhash": "bb",
        "getpeginfo": peg_reply(TERMS),
    }
    play, _ = play_of(FakeMembers(replies))
    with pytest.raises(DemoFailed) as failure:
        await story.return_lost_member(play)
    assert failure.value.reason is DemoReason.DIVERGED
    assert "bob has bb" in failure.value.detail


async def test_return_waits_for_the_same_tip(autojump_clock: trio.testing.MockClock) -> None:
    play, _ = play_of(FakeMembers({"getstatus": status_reply(9, "aa"), "dave getstatus": status_reply(8, "cc")}))
    with pytest.raises(DemoFailed) as failure:
        await story.return_lost_member(play)
    assert failure.value.reason is DemoReason.TOO_SLOW
    assert "dave catches up" in failure.value.detail


async def test_proofs_refuse_a_finding_of_an_audit() -> None:
    named: dict[str, Any] = dict.fromkeys(AuditReply.__struct_fields__, 0)
    clean = AuditReply(**named | {"ok": True, "findings": []})
    bad = AuditReply(**named | {"ok": False, "findings": ["supply: counted 1, recorded 2"]})
    play, _ = play_of(FakeMembers({"audit": clean, "carol audit": bad}))
    with pytest.raises(DemoFailed) as failure:
        await story.prove(play)
    assert failure.value.reason is DemoReason.AUDIT
    assert failure.value.detail == "carol: supply: counted 1, recorded 2"


async def test_proofs_ask_again_a_member_that_can_not_recount_yet(autojump_clock: trio.testing.MockClock) -> None:
    named: dict[str, Any] = dict.fromkeys(AuditReply.__struct_fields__, 0)
    bad = AuditReply(**named | {"ok": False, "findings": ["a finding"]})
    not_yet = [RpcRefused(RpcCode.NOT_CONNECTED, "not yet", reason) for reason in ("l1-behind", "syncing")]
    play, _ = play_of(FakeMembers({"audit": bad}, refusals=not_yet))
    with pytest.raises(DemoFailed) as failure:
        await story.prove(play)
    assert failure.value.detail == "alice: a finding"
    play, _ = play_of(FakeMembers({"audit": bad}, refusals=[RpcRefused(RpcCode.MISC_ERROR, "never", "another")]))
    with pytest.raises(RpcRefused):
        await story.prove(play)


# The stage


@pytest.mark.parametrize(
    "line", ["level=error event=x", "level=critical event=x", "Traceback (most recent call last):"]
)
def test_logs_refuse_an_error(tmp_path: Path, line: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "bob.log").write_text("level=info event=started\nlevel=warning event=y\n")
    check_logs(Stage(tmp_path))
    (tmp_path / "run" / "carol.log").write_text(f"level=info event=started\n{line}\n")
    with pytest.raises(DemoFailed) as failure:
        check_logs(Stage(tmp_path))
    assert failure.value.reason is DemoReason.LOGGED_ERROR
    assert failure.value.detail.startswith("line 2 of carol.log: ")


def test_stage_refuses_to_open_without_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: str) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "mkdtemp", full)
    with pytest.raises(DemoFailed) as failure:
        Stage.open()
    assert failure.value.reason is DemoReason.NO_DIRECTORY


def test_stage_refuses_to_leave_a_directory_unremoved(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "stage")
    with pytest.raises(DemoFailed) as failure:
        stage.clear()
    assert failure.value.reason is DemoReason.NOT_CLEARED
    stage.directory.mkdir()
    stage.clear()
    assert not stage.directory.exists()


def test_stage_saves_logs_only_when_there_are_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    stage = Stage.open()
    assert stage.save_logs() is None
    (stage.directory / "run").mkdir()
    (stage.directory / "run" / "bob.log").write_text("words\n")
    saved = stage.save_logs()
    assert saved is not None
    assert [(log.name, log.read_text()) for log in saved.iterdir()] == [("bob.log", "words\n")]
