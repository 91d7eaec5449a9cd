"""`peg evidence verify` and `export`, as people run them: what they print, and what they refuse."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pegnode.cli.commands import command_line
from pegnode.cli.evidence import ProofReason
from pegnode.folders import GENESIS_FILE, NODE_NAME
from pegnode.guilt.document import Accusation, AccusationDocument, GuiltReason, parse_accusation, render_accusation
from pegnode.input_file import FileReason
from pegnode.rpc.client import RpcClient
from pegnode.setup.errors import SetupReason
from tests.support.equivocations import CONFLICTS, equivocation
from tests.support.statements import GENESIS

RUN = CliRunner()
RULES = GENESIS.rules()
GUILTY = 2
ACCUSATIONS = [
    Accusation.of(equivocation(RULES, member, view, kinds), RULES)
    for member, view, kinds in ((GUILTY, 9, CONFLICTS[0]), (GUILTY, 12, CONFLICTS[1]), (3, 7, CONFLICTS[2]))
]


@pytest.fixture
def proof(tmp_path: Path) -> Path:
    path = tmp_path / "proof.json"
    path.write_bytes(render_accusation(ACCUSATIONS[0]))
    return path


@pytest.fixture
def genesis(tmp_path: Path) -> Path:
    path = tmp_path / GENESIS_FILE
    path.write_bytes(GENESIS.document)
    return path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory without a federation, which the commands look at unless told otherwise."""
    monkeypatch.setenv("PEGNODE_DIR", str(tmp_path / "home"))
    return tmp_path / "home"


def peg(*words: object) -> tuple[int, str]:
    """Exit status and all that is printed."""
    done = RUN.invoke(command_line(), ["evidence", *map(str, words)])
    return done.exit_code, " ".join(done.output.split())


def test_proof_is_verified_with_the_genesis_and_says_what_it_proves(home: Path, proof: Path, genesis: Path) -> None:
    status, said = peg("verify", proof, "--genesis", genesis)
    assert status == 0
    assert f"whose key member 2, member-2, as {genesis} says" in said
    assert "proved one key signed two votes that no honest member signs both" in said
    assert "not proved why: its holder cheats, or it runs twice, or was stolen" in said


def test_proof_without_a_genesis_is_verified_for_its_key_alone(home: Path, proof: Path) -> None:
    status, said = peg("verify", proof)
    assert status == 0
    assert "whose key not checked: the file says member 2, member-2; give the chain's genesis with --genesis" in said
    assert json.loads(RUN.invoke(command_line(), ["evidence", "verify", str(proof), "--json"]).output)["is_member"] is (
        False
    )


def test_genesis_of_the_local_federation_is_used_without_being_named(home: Path, proof: Path) -> None:
    node = home / "federation" / NODE_NAME
    node.mkdir(parents=True)
    (node / GENESIS_FILE).write_bytes(GENESIS.document)
    status, said = peg("verify", proof, "--json")
    assert (status, json.loads(said)["is_member"]) == (0, True)
    elsewhere = replace(ACCUSATIONS[0], chain_id=bytes(32))
    elsewhere = replace(elsewhere, equivocation=equivocation(RULES, GUILTY, chain_id=bytes(32)))
    proof.write_bytes(render_accusation(elsewhere))
    status, said = peg("verify", proof)
    assert status == 1
    assert said.startswith(f"error: {GuiltReason.WRONG_CHAIN}: ")


def test_file_that_proves_nothing_refused_with_its_reason(home: Path, proof: Path, genesis: Path) -> None:
    proof.write_bytes(proof.read_bytes().replace(b"member-2", b"member-1"))
    status, said = peg("verify", proof, "--genesis", genesis)
    assert (status, said.startswith(f"error: {GuiltReason.OTHER_NAME}: ")) == (1, True)
    proof.write_bytes(b"{}")
    assert peg("verify", proof)[1].startswith(f"error: {GuiltReason.MALFORMED}: ")
    proof.unlink()
    status, said = peg("verify", proof)
    assert (status, FileReason.ABSENT in said) == (1, True)


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[AccusationDocument]:
    """What the node answers; which node that is, is another's test."""
    documents = [AccusationDocument.of(item) for item in ACCUSATIONS]

    def ask(self: RpcClient, reply: object, method: str) -> list[AccusationDocument]:
        assert method == "listequivocations"
        return documents

    monkeypatch.setattr(RpcClient, "ask", ask)
    monkeypatch.setattr(
        "pegnode.cli.evidence.Home.client", lambda home: RpcClient("http://127.0.0.1:1", tmp_path / "cookie")
    )
    return documents


def test_list_tells_who_signed_what(home: Path, listed: list[AccusationDocument]) -> None:
    status, said = peg("list")
    assert status == 0
    for item in ("member-2, member 2, in view 9 of epoch 0", "signed nullify view 12 and finalize block"):
        assert item in said
    listed.clear()
    assert peg("list")[1] == "this node knows of no member that signed two votes which exclude each other"


def test_export_writes_the_first_proof_or_that_of_a_view(
    home: Path, listed: list[AccusationDocument], tmp_path: Path, genesis: Path
) -> None:
    for options, expected in (((), ACCUSATIONS[0]), (("--view", 12), ACCUSATIONS[1])):
        path = tmp_path / f"{expected.equivocation.view}.json"
        assert peg("export", "member-2", path, *options)[0] == 0
        assert parse_accusation(path.read_bytes()) == expected
        assert peg("verify", path, "--genesis", genesis)[0] == 0
        assert SetupReason.EXISTS in peg("export", "member-2", path)[1], "nothing is replaced"


@pytest.mark.parametrize("words", [("member-1",), ("member-2", "--view", 10), ("nobody",)])
def test_export_of_what_is_not_there_refused(
    home: Path, listed: list[AccusationDocument], tmp_path: Path, words: tuple[object, ...]
) -> None:
    member, *options = words
    status, said = peg("export", member, tmp_path / "proof.json", *options)
    assert (status, said.startswith(f"error: {ProofReason.NONE}: ")) == (1, True)
    assert not (tmp_path / "proof.json").exists()


def test_export_of_what_a_node_made_up_refused(home: Path, listed: list[AccusationDocument], tmp_path: Path) -> None:
    pair = ACCUSATIONS[0].equivocation
    forged = replace(pair, second=replace(pair.second, signature64=pair.first.signature64))
    listed[0] = AccusationDocument.of(replace(ACCUSATIONS[0], equivocation=forged))
    status, _ = peg("export", "member-2", tmp_path / "proof.json")
    assert status == 1
    assert not (tmp_path / "proof.json").exists()
