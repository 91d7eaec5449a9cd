"""Statements on paper: one form, and the commands that sign, combine and verify them."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from federation.endorsement import EndorsementReason
from federation.statement import SignedStatement, StatementReason
from pegnode.audit.document import (
    DocumentReason,
    DocumentRefused,
    StatementDocument,
    parse_document,
    render_document,
)
from pegnode.cli.commands import command_line
from pegnode.clock import now_ms
from pegnode.setup.errors import SetupReason
from tests.support.chain import local_genesis
from tests.support.statements import GENESIS, stated, statement

RUN = CliRunner()


def refused(data: bytes) -> DocumentReason:
    """The reason for which a file is refused."""
    with pytest.raises(DocumentRefused) as caught:
        parse_document(data)
    assert isinstance(caught.value.reason, DocumentReason)
    return caught.value.reason


def test_document_is_read_back_as_written() -> None:
    signed = stated(0, 2, 3)
    assert parse_document(render_document(signed)) == signed
    assert StatementDocument.of(signed).signed() == signed


def test_white_space_alone_may_differ() -> None:
    data = render_document(stated(0, 1))
    assert parse_document(b"".join(data.split())) == parse_document(data.replace(b"\n", b"\r\n \t"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"epoch"', b'"height": 1, "epoch"'),  # a field twice, of which readers may take either
        (b'"epoch"', b'"note": "all is well", "epoch"'),
        (b'"fund_sats": 30', b'"fund_sats": -30'),
        (b'"fund_sats": 30', b'"fund_sats": 30.0'),
        (b'"fund_sats": 30', b'"fund_sats": 18446744073709551616'),
        (b'"member": 0', b'"member": 70000'),
        (b'"chain_id": "', b'"chain_id": "zz'),
        (b'"chain_id": "', b'"chain_id": "00'),
        (b'"signature": "', b'"signature": "00'),
        (b'"chain_id"', b'"chain"'),
        (b"}", b""),
    ],
)
def test_document_in_another_form_is_refused(old: bytes, new: bytes) -> None:
    data = render_document(stated(0, 1))
    assert old in data
    assert refused(data.replace(old, new, 1)) is DocumentReason.MALFORMED


def test_upper_case_is_another_form() -> None:
    data = json.loads(render_document(stated(0)))
    data["chain_id"] = data["chain_id"].upper()
    assert refused(json.dumps(data).encode()) is DocumentReason.MALFORMED
    assert refused(b"\xff") is DocumentReason.MALFORMED
    assert refused(b"[" * 100_000) is DocumentReason.MALFORMED


class Folder:
    """A folder with a genesis and some statements."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.genesis = path / "genesis.json"
        self.genesis.write_bytes(GENESIS.document)

    def write(self, name: str, signed: SignedStatement) -> str:
        (self.path / name).write_bytes(render_document(signed))
        return str(self.path / name)

    def run(self, *arguments: str, status: int = 0) -> str:
        result = RUN.invoke(command_line(), ["audit", *arguments, "--genesis", str(self.genesis)])
        assert result.exit_code == status, result.output
        return result.output


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_verify_says_what_a_quorum_stated(folder: Folder) -> None:
    file = folder.write("whole.json", stated(0, 1, 3))
    text = folder.run("verify", file)
    for words in ("member-0, member-1, member-3: 3 of 4, 3 needed", "reserves     1,000 sats", "the equality holds"):
        assert words in text
    reply = json.loads(folder.run("verify", file, "--json"))
    assert (reply["signers"], reply["quorum"]) == (["member-0", "member-1", "member-3"], 3)
    assert reply["statement"]["reserves_sats"] == 1_000


def test_verify_refuses_what_is_short_and_what_is_old(folder: Folder) -> None:
    assert EndorsementReason.TOO_FEW in folder.run("verify", folder.write("short.json", stated(0, 1)), status=1)
    old = folder.write("old.json", stated(0, 1, 2, statement=statement(time_ms=now_ms() - 3_700_000)))
    assert "1 hours, 1 minutes" in folder.run("verify", old, "--max-age", "2")
    assert StatementReason.STALE in folder.run("verify", old, "--max-age", "1", status=1)


def test_verify_refuses_another_genesis(folder: Folder) -> None:
    file = folder.write("whole.json", stated(0, 1, 2))
    other = local_genesis(GENESIS.anchor, peg={"confirmations": GENESIS.peg.confirmations + 1})
    folder.genesis.write_bytes(other.document)
    assert StatementReason.WRONG_CHAIN in folder.run("verify", file, status=1)


def test_combine_makes_a_quorum_of_copies(folder: Folder) -> None:
    files = [folder.write(f"{member}.json", stated(member)) for member in (3, 0, 2)]
    output = str(folder.path / "whole.json")
    assert "signed by member-0, member-2, member-3: a quorum is 3" in folder.run("combine", *files, "--out", output)
    folder.run("verify", output)
    other = str(folder.path / "part.json")
    assert "1 more for a quorum" in folder.run("combine", *files[:2], "--out", other)


def test_combine_replaces_no_file(folder: Folder) -> None:
    first, second = (folder.write(f"{member}.json", stated(member)) for member in (0, 1))
    before = Path(first).read_bytes()
    assert SetupReason.EXISTS in folder.run("combine", first, second, "--out", first, status=1)
    assert Path(first).read_bytes() == before


def test_combine_takes_nothing_that_does_not_belong(folder: Folder) -> None:
    first = folder.write("first.json", stated(0))
    output = folder.path / "whole.json"
    for other, reason in (
        (stated(1, statement=statement(time_ms=1)), EndorsementReason.DIFFERENT),
        (SignedStatement(statement(), ((1, bytes(64)),)), EndorsementReason.BAD_SIGNATURE),
    ):
        second = folder.write("second.json", other)
        assert reason in folder.run("combine", first, second, "--out", str(output), status=1)
        assert not output.exists()
    nowhere = str(folder.path / "absent" / "whole.json")
    assert SetupReason.UNWRITABLE in folder.run("combine", first, "--out", nowhere, status=1)


def test_option_before_a_subcommand_is_refused(folder: Folder) -> None:
    file = folder.write("whole.json", stated(0, 1, 3))
    for option in (("--json",), ("--node", "bob"), ("--dir", str(folder.path))):
        result = RUN.invoke(command_line(), ["audit", *option, "verify", file, "--genesis", str(folder.genesis)])
        assert result.exit_code == 1
        assert "options of `verify` stand after it" in result.output
