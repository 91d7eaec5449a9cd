"""Plans on paper: one form, in which nothing can be told that is not signed, and the commands that need no node."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from bridge.bitcoin.hashes import sha256
from bridge.bitcoin.identifiers import BlockHash, OutPoint, Txid, hash_to_hex
from bridge.records import AbandonedBlock, Deficit, Finding, LostCoin, Rebase, Record, RecordReason, Resume
from bridge.state import Anchor
from federation.endorsement import EndorsementReason
from federation.record import SignedRecord
from pegnode.cli.commands import command_line
from pegnode.cli.resume import _write
from pegnode.resume.document import MAX_RECORDS, PlanReason, PlanRefused, parse_plan, render_plan
from pegnode.resume.words import describe
from pegnode.setup.errors import SetupReason
from tests.support.records import record_of, signed
from tests.support.statements import GENESIS

RUN = CliRunner()
RULES = GENESIS.rules()
ABANDONED = (AbandonedBlock(BlockHash(sha256(b"first")), 1), AbandonedBlock(BlockHash(sha256(b"second")), 3))
FORK, NEW = Anchor(100, BlockHash(sha256(b"fork"))), Anchor(103, BlockHash(sha256(b"new")))
REBASE = Rebase(FORK, ABANDONED, NEW)
COIN = OutPoint(Txid(sha256(b"deposit")), 1)
DEFICIT = record_of(RULES, Deficit.of([LostCoin(COIN, 1_234_567)]), serial=1)
FINDINGS = (Finding.anchor_left(REBASE.old_anchor), Finding.coin_gone(COIN), Finding.second_version(COIN.txid))
RESUME = record_of(RULES, Resume.of(FINDINGS, REBASE), serial=2, expires_at_anchor=1_111)


def plan(*members: int) -> tuple[SignedRecord, ...]:
    """A plan with these members' signatures."""
    return tuple(signed(record, *members) if members else SignedRecord(record, ()) for record in (DEFICIT, RESUME))


def refused(data: bytes) -> PlanReason:
    """The reason for which a file is refused."""
    with pytest.raises(PlanRefused) as caught:
        parse_plan(data)
    assert isinstance(caught.value.reason, PlanReason)
    return caught.value.reason


def test_words_name_blocks_coins_and_satoshis() -> None:
    title, *lines = describe(DEFICIT)
    assert title == "record 1: 1,234,567 sats of the reserve are lost, 1 coin"
    assert f"lost: {COIN}, 1,234,567 sats" in lines
    title, *lines = describe(RESUME)
    assert title.startswith("record 2: ")
    assert lines[-1].startswith("it can enter a block of this chain whose anchor is L1 block 1111 or lower")
    text = "\n".join(lines)
    for place in (REBASE.old_anchor, NEW, FORK):
        assert f"L1 block {place.height} {hash_to_hex(place.hash)}" in text
    assert f"abandoned: L1 block 101 {hash_to_hex(ABANDONED[0].hash)}, 1 transaction" in lines
    assert f"abandoned: L1 block 102 {hash_to_hex(ABANDONED[1].hash)}, 3 transactions" in lines
    assert [line.startswith("found: ") for line in lines].count(True) == len(FINDINGS)
    for subject in (hash_to_hex(REBASE.old_anchor.hash), str(COIN), hash_to_hex(COIN.txid)):
        assert any(subject in line for line in lines if line.startswith("found: "))


def test_plan_is_read_back_as_written() -> None:
    for records in (plan(), plan(1), plan(0, 2, 3)):
        assert parse_plan(render_plan(records)) == records


def test_white_space_alone_may_differ() -> None:
    data = render_plan(plan(0, 1))
    assert parse_plan(data.replace(b"\n", b"\r\n \t")) == plan(0, 1)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"1,234,567 sats of the reserve", b"1,234 sats of the reserve"),  # words that the bytes don't say
        (b'"record 2: ', b'"record 3: '),
        (b'"says"', b'"note": "all is well", "says"'),
        (b'"record": "', b'"record": "00", "record": "'),
        (b'"record": "', b'"record": "00'),
        (b'"record": "', b'"record": "zz'),
        (b'"member": 0', b'"member": 70000'),
        (b'"signature": "', b'"signature": "00'),
        (b'"records"', b'"record"'),
        (b"}", b""),
    ],
)
def test_plan_in_another_form_is_refused(old: bytes, new: bytes) -> None:
    data = render_plan(plan(0, 1))
    assert old in data
    assert refused(data.replace(old, new, 1)) is PlanReason.MALFORMED


def test_plan_of_no_or_too_many_records_is_refused() -> None:
    assert refused(b'{"records": []}') is PlanReason.MALFORMED
    assert refused(b"\xff") is PlanReason.MALFORMED
    assert refused(b"[" * 100_000) is PlanReason.MALFORMED
    many = [record_of(RULES, DEFICIT.content, serial=serial) for serial in range(MAX_RECORDS + 1)]
    assert refused(render_plan(tuple(SignedRecord(record, ()) for record in many))) is PlanReason.MALFORMED
    assert len(parse_plan(render_plan(tuple(SignedRecord(record, ()) for record in many[1:])))) == MAX_RECORDS


def test_plan_with_a_gap_between_its_serials_is_refused() -> None:
    late = record_of(RULES, RESUME.content, serial=3)
    assert refused(render_plan((signed(DEFICIT), signed(late)))) is PlanReason.NOT_CONSECUTIVE
    assert refused(render_plan(tuple(reversed(plan())))) is PlanReason.NOT_CONSECUTIVE


class Folder:
    """A folder with a genesis and some plans."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.genesis = path / "genesis.json"
        self.genesis.write_bytes(GENESIS.document)

    def write(self, name: str, records: tuple[SignedRecord, ...]) -> str:
        (self.path / name).write_bytes(render_plan(records))
        return str(self.path / name)

    def run(self, *arguments: str, status: int = 0) -> str:
        result = RUN.invoke(command_line(), ["federation", "resume", *arguments, "--genesis", str(self.genesis)])
        assert result.exit_code == status, result.output
        return result.output


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_show_tells_what_is_signed_and_by_whom(folder: Folder) -> None:
    text = folder.run("show", folder.write("plan.json", plan(0, 2)))
    for words in (*describe(DEFICIT), *describe(RESUME), "signed by member-0, member-2: 1 more for a quorum"):
        assert words in text
    assert "signed by nobody: 3 more" in folder.run("show", folder.write("fresh.json", plan()))


def test_show_refuses_another_chain_and_false_signatures(folder: Folder) -> None:
    foreign = Record(bytes(32), 0, 1, 9, DEFICIT.content)
    file = folder.write("foreign.json", (SignedRecord(foreign, ()),))
    assert RecordReason.WRONG_CHAIN in folder.run("show", file, status=1)
    file = folder.write("false.json", (SignedRecord(DEFICIT, ((0, bytes(64)),)),))
    assert EndorsementReason.BAD_SIGNATURE in folder.run("show", file, status=1)


def test_combine_makes_a_quorum_of_copies(folder: Folder) -> None:
    files = [folder.write(f"{member}.json", plan(member)) for member in (3, 0, 2)]
    output = folder.path / "whole.json"
    text = folder.run("combine", *files, "--out", str(output))
    for serial in (1, 2):
        assert f"record {serial}: signed by member-0, member-2, member-3: a quorum is 3" in text
    assert parse_plan(output.read_bytes()) == plan(0, 2, 3)
    assert SetupReason.EXISTS in folder.run("combine", *files, "--out", str(output), status=1)


def test_combine_takes_nothing_that_does_not_belong(folder: Folder) -> None:
    first = folder.write("first.json", plan(0))
    output = folder.path / "whole.json"
    other = record_of(RULES, Deficit.of([LostCoin(COIN, 1)]), serial=1)
    for records in ((signed(other, 1), signed(RESUME, 1)), (signed(DEFICIT, 1),)):
        second = folder.write("second.json", records)
        assert EndorsementReason.DIFFERENT in folder.run("combine", first, second, "--out", str(output), status=1)
        assert not output.exists()


def test_resume_alone_says_what_there_is() -> None:
    result = RUN.invoke(command_line(), ["federation", "resume"])
    assert result.exit_code == 2
    for words in ("--plan", "sign", "combine", "submit", "show"):
        assert words in result.output


@pytest.mark.parametrize("path", [".", "/", "absent/plan.json", "x" * 300])
def test_plan_that_can_not_be_written_leaves_nothing(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PlanRefused) as caught:
        _write(Path(path), plan(0))
    assert caught.value.reason is PlanReason.UNWRITABLE
    assert list(tmp_path.iterdir()) == []
    _write(tmp_path / "plan.json", plan(0))
    assert parse_plan((tmp_path / "plan.json").read_bytes()) == plan(0)
