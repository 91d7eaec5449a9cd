"""The demonstration's own judgement: each thing that may not hold ends it, by name."""

import io
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest
import trio
import trio.testing
from rich.console import Console

from bridge.bitcoin.addresses import encode_address, l1_network
from bridge.bitcoin.identifiers import BlockHash, OutPoint, Script, Txid
from bridge.bitcoin.script import ScriptType
from bridge.bitcoin.transaction import Transaction, TxIn, TxOut
from bridge.l1.answers import L1Header, L1TxOut, ScannedOutput, TxOutSetScan
from bridge.l1.client import L1Client
from bridge.l1.regtest import RegtestMiner
from pegnode.demo import story
from pegnode.demo.cast import Members, User, until
from pegnode.demo.dashboard import dashboard
from pegnode.demo.display import LiveDisplay, PlainDisplay
from pegnode.demo.errors import DemoFailed, DemoReason
from pegnode.demo.lines import THEME
from pegnode.demo.narration import Narrator
from pegnode.demo.play import Play
from pegnode.demo.proof import Burned, payout_on_l1, prove_payouts
from pegnode.demo.run import check_logs
from pegnode.demo.scene import MemberScene, MemberState, Scene, Terms, UserScene
from pegnode.demo.stage import Stage
from pegnode.rpc.results import AnchorReply, AuditReply, PegInfoReply, StatusReply, WithdrawalReply
from pegnode.wallet.wallet import Balance

REGTEST = l1_network("regtest")
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
    """Members that answer from what they were given: a reply by method, or by name and method."""

    replies: dict[str, Any] = field(default_factory=dict)
    names: tuple[str, ...] = NAMES

    async def ask(self, name: str, _: object, method: str, /, *params: object, **named: object) -> Any:
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


# The chapters' own checks


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


# The payouts on L1

SCRIPTS = {
    ScriptType.P2WPKH: Script(b"\x00\x14" + b"\x01" * 20),
    ScriptType.P2TR: Script(b"\x51\x20" + b"\x02" * 32),
}
COIN = Transaction(2, (TxIn(OutPoint(Txid(b"\x07" * 32), 0)),), (TxOut(100_000, Script(b"\x51\x20" + b"\x03" * 32)),))
SIGNED = (b"\x01" * 64, b"", b"\x02" * 64, b"\x03" * 64, b"script", b"\xc0" + b"\x04" * 32)
PAYOUT = Transaction(
    2,
    (TxIn(COIN.outpoint(0), witness=SIGNED),),
    (TxOut(29_900, SCRIPTS[ScriptType.P2WPKH]), TxOut(39_900, SCRIPTS[ScriptType.P2TR]), TxOut(30_000, Script(b"x"))),
)
BURNS = [
    Burned("ann", kind, encode_address(script, REGTEST), sats, 150, OutPoint(Txid(bytes([index]) * 32), 0))
    for index, (kind, script, sats) in enumerate(
        [(ScriptType.P2WPKH, SCRIPTS[ScriptType.P2WPKH], 30_000), (ScriptType.P2TR, SCRIPTS[ScriptType.P2TR], 40_000)]
    )
]
BLOCK = BlockHash(b"\x0b" * 32)


def withdrawal_reply(index: int, **changed: object) -> WithdrawalReply:
    """What the sidechain says of a burn."""
    named: dict[str, Any] = dict.fromkeys(WithdrawalReply.__struct_fields__, 0)
    told = {
        "burn": str(BURNS[index].burn),
        "status": "settled",
        "payout": str(PAYOUT.outpoint(index)),
        "paid_sats": PAYOUT.outputs[index].value_sats,
    }
    return WithdrawalReply(**named | told | changed)


@dataclass
class FakeNode:
    """A Bitcoin node that has the payout in a block, and its outputs unspent."""

    confirmations: int = 6
    txouts: dict[OutPoint, TxOut] = field(
        default_factory=lambda: {PAYOUT.outpoint(index): output for index, output in enumerate(PAYOUT.outputs[:2])}
    )
    extra: tuple[ScannedOutput, ...] = ()
    known: tuple[Transaction, ...] = (COIN, PAYOUT)

    async def raw_transaction(self, txid: Txid) -> bytes | None:
        return next((item.serialize() for item in self.known if item.txid == txid), None)

    async def transaction_block(self, _: Txid) -> BlockHash | None:
        return BLOCK if self.confirmations else None

    async def block_header(self, _: BlockHash) -> L1Header:
        return L1Header(BLOCK, 108, self.confirmations, 2, bytes(32), 0, None)

    async def txout(self, outpoint: OutPoint, include_mempool: bool) -> L1TxOut | None:
        assert include_mempool
        found = self.txouts.get(outpoint)
        return None if found is None else L1TxOut(found.value_sats, found.script, self.confirmations, False, BLOCK)

    async def scan_txoutset(self, _: Sequence[str]) -> TxOutSetScan:
        outputs = [
            ScannedOutput(outpoint, out.value_sats, out.script, 108, False) for outpoint, out in self.txouts.items()
        ]
        return TxOutSetScan(113, BLOCK, (*outputs, *self.extra))


async def proven_on(node: FakeNode, replies: Sequence[WithdrawalReply] | None = None) -> list[int]:
    """The fee shares that are proven."""
    client = cast(L1Client, node)
    payout = await payout_on_l1(client, PAYOUT.txid)
    assert payout is not None
    replies = [withdrawal_reply(0), withdrawal_reply(1)] if replies is None else replies
    return [item.fee_share_sats for item in await prove_payouts(client, payout, BURNS, replies, 6)]


async def test_payout_is_read_from_the_bitcoin_node() -> None:
    payout = await payout_on_l1(cast(L1Client, FakeNode(confirmations=3)), PAYOUT.txid)
    assert payout is not None
    assert (payout.fee_sats, payout.confirmations, payout.signatures) == (200, 3, 3)
    waiting = await payout_on_l1(cast(L1Client, FakeNode(confirmations=0)), PAYOUT.txid)
    assert waiting is not None
    assert waiting.confirmations == 0
    assert await payout_on_l1(cast(L1Client, FakeNode(known=())), PAYOUT.txid) is None


async def test_payouts_are_proven_with_their_fee_shares() -> None:
    assert await proven_on(FakeNode()) == [100, 100]


def txouts(first: TxOut, second: TxOut = PAYOUT.outputs[1]) -> dict[OutPoint, TxOut]:
    """The payout's outputs, as a node that lies or errs has them."""
    return {PAYOUT.outpoint(0): first, PAYOUT.outpoint(1): second}


P2WPKH = SCRIPTS[ScriptType.P2WPKH]


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (FakeNode(confirmations=5), "the payout has 5 confirmations"),
        (FakeNode(known=(PAYOUT,)), "does not know what"),
        (FakeNode(txouts={PAYOUT.outpoint(1): PAYOUT.outputs[1]}), "is not unspent"),
        (FakeNode(txouts=txouts(TxOut(29_900, SCRIPTS[ScriptType.P2TR]))), "pays another script"),
        (FakeNode(txouts=txouts(TxOut(30_000, P2WPKH))), "pays 0 sats of fee"),
        (FakeNode(txouts=txouts(TxOut(29_849, P2WPKH))), "pays 151 sats of fee"),
        (FakeNode(txouts=txouts(TxOut(29_901, P2WPKH))), "the sidechain says 29900 sats"),
        (
            FakeNode(extra=(ScannedOutput(COIN.outpoint(0), 1, P2WPKH, 100, False),)),
            "a scan finds 3 outputs at the 2 addresses",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_proof_refuses_what_the_bitcoin_node_does_not_show(node: FakeNode, words: str) -> None:
    with pytest.raises(DemoFailed) as failure:
        await proven_on(node)
    assert failure.value.reason is DemoReason.PAYOUT
    assert words in failure.value.detail


@pytest.mark.parametrize(
    ("replies", "words"),
    [
        ([withdrawal_reply(0)], "p2tr withdrawal is not settled"),
        ([withdrawal_reply(0), withdrawal_reply(1, status="batched")], "p2tr withdrawal is not settled"),
        ([withdrawal_reply(0), withdrawal_reply(1, payout=None)], "p2tr withdrawal is not settled"),
        ([withdrawal_reply(0, payout=str(COIN.outpoint(0))), withdrawal_reply(1)], "is said to be paid by"),
        ([withdrawal_reply(0, paid_sats=1), withdrawal_reply(1)], "the sidechain says 1 sats"),
    ],
)
async def test_proof_refuses_what_the_sidechain_does_not_say(replies: list[WithdrawalReply], words: str) -> None:
    with pytest.raises(DemoFailed) as failure:
        await proven_on(FakeNode(), replies)
    assert failure.value.reason is DemoReason.PAYOUT
    assert words in failure.value.detail


async def test_proof_refuses_unequal_shares() -> None:
    uneven = txouts(TxOut(29_890, P2WPKH))
    with pytest.raises(DemoFailed) as failure:
        await proven_on(FakeNode(txouts=uneven), [withdrawal_reply(0, paid_sats=29_890), withdrawal_reply(1)])
    assert failure.value.detail == "shares of [100, 110] sats are not equal"


async def test_proof_refuses_shares_that_are_not_the_fee() -> None:
    node = FakeNode(txouts=txouts(TxOut(29_890, P2WPKH), TxOut(39_890, SCRIPTS[ScriptType.P2TR])))
    with pytest.raises(DemoFailed) as failure:
        await proven_on(node, [withdrawal_reply(0, paid_sats=29_890), withdrawal_reply(1, paid_sats=39_890)])
    assert failure.value.detail == "shares of 220 sats make a fee of 200"


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


# What is shown


def scene(state: MemberState = MemberState.RUNNING, terms: Terms | None = TERMS) -> Scene:
    """Four members, one of them in a state, and a user."""
    members = tuple(MemberScene(name, MemberState.RUNNING, 11, 14) for name in NAMES[:3])
    return Scene(107, 11, terms, (*members, MemberScene("dave", state)), (UserScene("ann", 123_456_789),))


def printed(value: object, width: int) -> str:
    """What a console without colours shows of it."""
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(value)
    return cast(io.StringIO, console.file).getvalue()


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("state", list(MemberState))
def test_dashboard_shows_everything_within_its_width(width: int, state: MemberState) -> None:
    text = printed(dashboard(scene(state), "Proofs", "waits", 12.3, width), width)
    assert max(map(len, text.splitlines())) <= width
    for word in (
        *NAMES,
        state.value,
        "107",
        "0.00001000",
        "0.00000700",
        "0.00000250",
        "1.23456789 L-BTC",
        "12 s",
        "waits",
    ):
        assert word in text
    assert "✓ equal" in text
    assert "deficit" not in text


def test_dashboard_shows_a_deficit_and_an_inequality() -> None:
    text = printed(dashboard(scene(terms=replace(TERMS, deficit_sats=5)), "Proofs", "", 0, 80), 80)
    assert "+ deficit" in text
    assert "NOT EQUAL" in text
    assert "Bitcoin block" in printed(dashboard(scene(terms=None), "Proofs", "", 0, 80), 80)
    assert "0 s" in printed(dashboard(None, "Proofs", "", 0, 80), 80)


@pytest.mark.parametrize("width", [80, 120])
def test_live_display_scrolls_the_story_above_the_panel(width: int) -> None:
    console = Console(file=io.StringIO(), width=width, height=50, force_terminal=True, color_system=None, theme=THEME)
    display = LiveDisplay(console)
    narrator = Narrator([display])
    with display:
        narrator.chapter(2, "Payments")
        narrator.show(scene(MemberState.KILLED))
        narrator.tell("ann pays ben 0.25000000 L-BTC: final in block 2 after 0.16 s")
        narrator.hold(f"dave has caught up: block 9 is {'ab' * 32} on all four")
        narrator.wait("the members see Bitcoin block 108")
        narrator.table(("step", "seconds "), [("Payments", "1.5")])
    text = cast(io.StringIO, console.file).getvalue()
    assert "2  Payments ─" in text
    assert "· ann pays ben 0.25000000 L-BTC: final in block 2 after 0.16 s" in text
    assert "ab" * 32 in text
    assert text.rindex("Payments       1.5") < text.rindex("the members see Bitcoin block 108")
    assert text.rindex("╰─") > text.rindex("✖ killed")


def test_plain_display_is_ascii_and_tells_what_became_of_members() -> None:
    words = io.StringIO()
    narrator = Narrator([PlainDisplay(Console(file=words, width=100))])
    narrator.chapter(1, "A federation")
    narrator.show(scene(MemberState.STARTING))
    narrator.show(scene(MemberState.RUNNING))
    narrator.show(scene(MemberState.KILLED))
    narrator.hold("it holds")
    narrator.wait("nothing to print")
    narrator.table(("step", "seconds "), [("Payments", "1.5")])
    text = words.getvalue()
    assert text.isascii()
    assert [line.strip() for line in text.splitlines()][:3] == [
        "",
        "1. A federation",
        "0.0     dave: running -> killed",
    ]
    assert "ok  it holds" in text
    assert "Payments |     1.5" in text
    assert "nothing to print" not in text
