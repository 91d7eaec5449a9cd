"""Stores and journals that can't be used, as people see it: one line, exit status 1, and nothing made worse.

The member of these tests has a small chain on disk and no Bitcoin node, which it waits for.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from federation.keystore import MemberSecrets, write_member_secrets
from federation.passphrase import Passphrase
from federation.sealed_box import LEAST_LOG_N
from pegnode.folders import CHAIN_FOLDER, JOURNAL_FOLDER
from pegnode.storage import store as store_module
from pegnode.storage.database import Changes, Database
from pegnode.storage.keys import height_key
from tests.support.chain import custody_secrets, secret, vote_secrets
from tests.support.final_chains import MEMBER, DataDirectory, grown_chain
from tests.support.stores import files

DEADLINE_S = 120.0
PASSPHRASE = "a passphrase of these tests"
CONFIG = """
name = "member-1"
genesis = "genesis.json"
data_dir = "data"
keys_dir = "keys"
passphrase_file = "passphrase"

[l1]
url = "http://127.0.0.1:1"
cookie_file = "cookie"

[p2p]
listen = "/ip4/127.0.0.1/tcp/0"

[rpc]
bind = "127.0.0.1:0"
"""


@dataclass(frozen=True)
class Member:
    """A member's folder."""

    path: Path
    data: DataDirectory

    @property
    def chain(self) -> Path:
        """Its store."""
        return self.data.path / CHAIN_FOLDER

    @property
    def journal(self) -> Path:
        """Its journal."""
        return self.data.path / JOURNAL_FOLDER

    def start(self) -> "subprocess.Popen[str]":
        """`peg functionary run`."""
        command = [sys.executable, "-m", "pegnode.cli.main", "functionary", "run", "--config"]
        return subprocess.Popen([*command, str(self.path / "functionary.toml")], stderr=subprocess.PIPE, text=True)

    def refused(self, folder: Path) -> str:
        """The one line with which it does not start; checked: that it changed no file of this folder."""
        before = _left_alone(folder)
        process = self.start()
        try:
            _, said = process.communicate(timeout=DEADLINE_S)
        finally:
            process.kill()
        assert process.returncode == 1
        [line] = said.splitlines()
        assert _left_alone(folder) == before
        return line.removeprefix("error: ")

    @contextmanager
    def running(self) -> Iterator["subprocess.Popen[str]"]:
        """It runs, and has said so."""
        process = self.start()
        try:
            assert process.stderr is not None
            for line in process.stderr:
                if "event=started" in line:
                    assert f"height={self.data.chain.header.height} " in line
                    break
            yield process
        finally:
            process.kill()
            process.communicate()

    def check(self, *options: str) -> "subprocess.CompletedProcess[str]":
        """`peg db check`."""
        command = [sys.executable, "-m", "pegnode.cli.main", "db", "check", "--config"]
        return subprocess.run(
            [*command, str(self.path / "functionary.toml"), *options],
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
            env={**os.environ, "COLUMNS": "300"},
        )


@pytest.fixture
def member(tmp_path: Path) -> Member:
    data = grown_chain(tmp_path / "data", empty_blocks=4)
    (tmp_path / "genesis.json").write_bytes(msgspec.json.encode(data.chain.genesis))
    (tmp_path / "functionary.toml").write_text(CONFIG)
    (tmp_path / "passphrase").write_text(PASSPHRASE + "\n")
    for name in ("genesis.json", "functionary.toml", "passphrase"):
        (tmp_path / name).chmod(0o600)
    keys = MemberSecrets(vote_secrets()[MEMBER], custody_secrets()[MEMBER], secret("transport", MEMBER))
    write_member_secrets(tmp_path / "keys", keys, Passphrase(PASSPHRASE), scrypt_log_n=LEAST_LOG_N)
    return Member(tmp_path, data)


def _left_alone(folder: Path) -> dict[str, bytes]:
    """A folder's files, without the content of logs: to these a process that runs may write at any time."""
    return {name: b"" if name == "LOG" or name.endswith(".log") else data for name, data in files(folder).items()}


def flip(folder: Path, pattern: str) -> None:
    """Change a byte in the middle of the largest of these files."""
    file = max(folder.glob(pattern), key=lambda each: each.stat().st_size)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0x41
    file.write_bytes(bytes(data))


def test_damaged_stores_are_refused_with_what_to_do(member: Member) -> None:
    flip(member.chain, "MANIFEST-*")
    said = member.refused(member.chain)
    assert said.startswith(f"storage-damaged: {member.chain} is damaged (")
    assert "Move this folder away and start again: the chain is fetched anew from the peers." in said
    flip(member.journal, "*.sst")
    said = member.refused(member.journal)  # it is opened first
    assert said.startswith(f"journal-damaged: {member.journal} is damaged (")
    assert "Put no older copy in its place" in said


def test_newer_store_is_refused(member: Member) -> None:
    database = Database.open(member.chain, store_module.FAMILIES)
    changes = Changes()
    changes.put(store_module.META, b"schema", height_key(store_module.SCHEMA_VERSION + 1))
    database.write(changes)
    database.close()
    assert member.refused(member.chain).startswith(
        f"storage-newer-schema: {member.chain} was written by a later release"
    )


def test_second_process_and_check_are_refused_while_one_runs(member: Member) -> None:
    with member.running():
        said = member.refused(member.journal)
        assert said.startswith(f"journal-locked: {member.journal} is in use (another process has it open)")
        done = member.check()
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(
            f"error: storage-locked: the process that uses {member.chain} runs; stop it first"
        )


def test_check_names_what_is_wrong_and_what_to_do(member: Member) -> None:
    done = member.check()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "everything is as the blocks say"
    database = Database.open(member.chain, store_module.FAMILIES)
    key = next(iter(database.scan("utxos")))[0]
    changes = Changes()
    changes.delete("utxos", key)
    database.write(changes)
    database.close()
    before = files(member.chain)
    done = member.check()
    assert (done.returncode, done.stderr) == (1, "")
    wrong, to_do = done.stdout.splitlines()
    assert wrong == f"wrong: utxos {key.hex()}: it is missing"
    assert to_do.startswith(f"what to do: move {member.chain} away and start again")
    assert str(member.journal) in to_do
    reply = json.loads(member.check("--json").stdout)
    assert (reply["ok"], reply["reason"], reply["record"]) == (False, "check-wrong-state", f"utxos {key.hex()}")
    assert files(member.chain) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only to root; the unit tests say so in its place")
def test_read_only_store_is_refused(member: Member) -> None:
    member.chain.chmod(0o500)
    try:
        assert member.refused(member.chain).startswith(f"storage-read-only: can't write {member.chain}: ")
    finally:
        member.chain.chmod(0o700)
