"""`peg doctor` on a real federation: whole, with a member away, with everything wrong. It never changes anything."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pegnode.doctor.findings import Check, Outcome
from tests.support.federation import FederationUnderTest, eventually, running_federation

pytestmark = pytest.mark.functional
COMMAND_DEADLINE_S = 120.0
MEMBERS_CHECKS = set(Check) - {Check.PEER, Check.SIGNER}
NODES_CHECKS = MEMBERS_CHECKS - {Check.KEYS, Check.PASSPHRASE, Check.JOURNAL}

Line = dict[str, str]


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FederationUnderTest]:
    with running_federation(tmp_path_factory.mktemp("doctor") / "federation") as running:
        yield running


def _run(config: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(
        [sys.executable, "-m", "pegnode.cli.main", "doctor", "--config", str(config), *arguments],
        capture_output=True,
        text=True,
        timeout=COMMAND_DEADLINE_S,
        check=False,
        env={name: value for name, value in os.environ.items() if name != "PEGNODE_PASSPHRASE"} | {"COLUMNS": "200"},
    )
    assert done.stderr == ""
    return done


def _examine(config: Path) -> tuple[int, list[Line]]:
    """The exit status, and the findings; the one follows from the others."""
    done = _run(config, "--json")
    findings: list[Line] = json.loads(done.stdout)["findings"]
    problems = [line for line in findings if line["outcome"] == Outcome.PROBLEM]
    assert (done.returncode == 1) is bool(problems), findings
    return done.returncode, findings


def _of(findings: list[Line], check: Check) -> list[Line]:
    return [line for line in findings if line["check"] == check]


def _one(findings: list[Line], check: Check) -> Line:
    [line] = _of(findings, check)
    return line


def _tree(folder: Path) -> dict[str, Any]:
    """Every file and folder: its mode, its time of change, its content."""
    return {
        str(path.relative_to(folder)): (
            path.lstat().st_mode,
            path.lstat().st_mtime_ns,
            path.read_bytes() if path.is_file() else None,
        )
        for path in folder.rglob("*")
    }


def test_members_of_a_healthy_federation_have_no_problem(federation: FederationUnderTest) -> None:
    config = federation.local.member_config_path("alice")
    eventually(lambda: _connections(federation) == 3, "alice is connected to all")
    status, findings = _examine(config)
    assert status == 0
    assert {line["check"] for line in findings} == MEMBERS_CHECKS | {Check.PEER}
    assert "runs, at block" in _one(findings, Check.PROCESS)["what"]
    assert "by the running process" in _one(findings, Check.P2P_PORT)["what"]
    assert _one(findings, Check.BITCOIN_NODE)["outcome"] == Outcome.OK
    assert [line["what"].rpartition(": ")[2] for line in _of(findings, Check.PEER)] == ["connected"] * 3
    assert _one(findings, Check.QUORUM)["what"].startswith("4 of 4 members")


def _connections(federation: FederationUnderTest) -> int:
    """How many other members alice is connected to."""
    status = federation.local.status("alice")
    return sum(member.connected and member.member != status.member for member in status.members) if status else 0


def test_full_node_that_was_never_started_has_no_problem(federation: FederationUnderTest) -> None:
    """It proves, without keys of its own, that each member is who it should be."""
    status, findings = _examine(federation.local.node_config_path)
    assert status == 0
    assert {line["check"] for line in findings} == NODES_CHECKS | {Check.PEER}
    assert [line["what"].rpartition(": ")[2] for line in _of(findings, Check.PEER)] == [
        "there, and who it should be"
    ] * 4
    assert not (federation.local.node_config_path.parent / "data").exists()


def test_member_that_is_stopped_is_examined_and_left_as_it_is(federation: FederationUnderTest) -> None:
    federation.local.stop_member("bob")
    config = federation.local.member_config_path("bob")
    before = _tree(config.parent)
    status, findings = _examine(config)
    assert status == 0
    assert _one(findings, Check.PROCESS)["what"] == "does not run"
    assert "this member's, with its votes up to view" in _one(findings, Check.JOURNAL)["what"]
    assert "this chain's, whole, up to block" in _one(findings, Check.DATABASE)["what"]
    assert _one(findings, Check.PASSPHRASE)["outcome"] == Outcome.OK
    assert _one(findings, Check.QUORUM)["outcome"] == Outcome.OK
    assert _tree(config.parent) == before
    _, seen_by_alice = _examine(federation.local.member_config_path("alice"))
    [bob] = [line for line in _of(seen_by_alice, Check.PEER) if line["outcome"] == Outcome.WARNING]
    assert bob["what"].startswith("bob at ")
    federation.local.start_member("bob")
    federation.local.wait_until_answering("bob")


def test_everything_wrong_is_found_at_once(federation: FederationUnderTest, tmp_path: Path) -> None:
    """A copy of bob's folder with alice's ports, two addresses swapped, open keys, and a Bitcoin node that is away."""
    original = federation.local.member_config("bob")
    alice = federation.local.member_config("alice")
    folder = tmp_path / "bob"
    databases = shutil.ignore_patterns("chain", "journal")
    shutil.copytree(federation.local.member_config_path("bob").parent, folder, ignore=databases)
    carol, dave = (next(peer for peer in original.p2p.peers if peer.name == name) for name in ("carol", "dave"))
    path = folder / "functionary.toml"
    text = path.read_text()
    text = text.replace(carol.address, "CAROL").replace(dave.address, carol.address).replace("CAROL", dave.address)
    text = text.replace(original.rpc.bind, alice.rpc.bind).replace(original.l1.url, "http://127.0.0.1:1")
    assert original.passphrase_file is not None
    text = text.replace('"../passphrase"', f'"{original.passphrase_file}"')
    path.write_text(text)
    (folder / "keys" / "member.key").chmod(0o644)
    (folder / "data").chmod(0o755)
    (folder / "data" / ".cookie").unlink(missing_ok=True)
    before = _tree(folder)
    status, findings = _examine(path)
    assert status == 1
    expected = {
        Check.RPC_PORT: "in use by ",
        Check.KEYS: "open to others",
        Check.JOURNAL: "there is no journal",
        Check.BITCOIN_NODE: "down: ",
    }
    for check, word in expected.items():
        line = _one(findings, check)
        assert line["outcome"] == Outcome.PROBLEM, line
        assert word in line["what"], line
        assert line["remedy"], line
    strangers = [line["what"] for line in _of(findings, Check.PEER) if line["outcome"] == Outcome.PROBLEM]
    assert [what.partition(" at ")[0] for what in strangers] == ["carol", "dave"]
    assert _one(findings, Check.DATA_FOLDER)["outcome"] == Outcome.WARNING
    assert _tree(folder) == before


def test_people_get_a_line_for_each_check_and_what_to_do(federation: FederationUnderTest, tmp_path: Path) -> None:
    path = tmp_path / "node.toml"
    path.write_text(federation.local.node_config_path.read_text().replace("data_dir", "data_dri", 1))
    done = _run(path)
    assert done.returncode == 1
    line = next(line for line in done.stdout.splitlines() if line.startswith("problem"))
    assert f"configuration  {path}:" in line
    assert "data_dri: unknown option; did you mean data_dir?" in line
    assert "→ correct the file" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("1 problem, ")
