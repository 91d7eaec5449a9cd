"""`peg keys` as its owner uses it: every command, with the passphrase from each source, and what is never shown."""

import json
import os
import pty
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from federation.keystore import SecretKind, member_path, public_key, read_member_secrets, read_secret
from federation.passphrase import Passphrase
from pegnode.net.address import peer_id_from_secret
from pegnode.passphrase import VARIABLE

DEADLINE_S = 60.0
OLD, NEW = "correct horse battery staple", "staple battery horse correct"
COMMAND = (sys.executable, "-m", "pegnode.cli.main", "keys")


@dataclass(frozen=True)
class Keys:
    """The command line, in a directory of its own."""

    path: Path

    def run(self, *arguments: str, passphrase: str | None = OLD) -> "subprocess.CompletedProcess[str]":
        """One command with the passphrase in the environment; nothing that it says holds one."""
        environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
        done = subprocess.run(
            [*COMMAND, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
            env=environment if passphrase is None else environment | {VARIABLE: passphrase},
        )
        assert "Traceback" not in done.stderr
        assert OLD not in done.stdout + done.stderr
        assert NEW not in done.stdout + done.stderr
        return done

    def ok(self, *arguments: str, passphrase: str | None = OLD) -> str:
        done = self.run(*arguments, passphrase=passphrase)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def json(self, *arguments: str, passphrase: str | None = OLD) -> Any:
        return json.loads(self.ok(*arguments, "--json", passphrase=passphrase))

    def refused(self, *arguments: str, passphrase: str | None = OLD) -> str:
        done = self.run(*arguments, passphrase=passphrase)
        assert (done.returncode, done.stdout) == (1, "")
        [line] = done.stderr.splitlines()
        return line.removeprefix("error: ")

    def passphrase_file(self, text: str) -> str:
        path = self.path / "passphrase"
        path.unlink(missing_ok=True)
        path.touch(0o600)
        path.write_text(text + "\n")
        return str(path)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """A member's keys in `alice`, under OLD."""
    keys = Keys(tmp_path_factory.mktemp("cli"))
    keys.json("new", str(keys.path / "alice"))
    return keys


def typed(arguments: list[str], answers: list[str]) -> tuple[int, str]:
    """A command's exit status and what its terminal shows, when a person types these answers."""
    child, terminal = pty.fork()
    if child == 0:
        os.environ.pop(VARIABLE, None)
        os.execv(COMMAND[0], [*COMMAND, *arguments])
    shown = b""
    while True:
        try:
            read = os.read(terminal, 4096)
        except OSError:  # Linux's way to say that the other side was closed
            read = b""
        if not read:
            break
        shown += read
        if shown.endswith(b": ") and answers:
            os.write(terminal, answers.pop(0).encode() + b"\n")
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.close(terminal)
    return status, shown.decode()


def test_member_keys_are_made_and_shown(keys: Keys) -> None:
    secrets = read_member_secrets(keys.path / "alice", Passphrase(OLD))
    public = {
        "vote": public_key(SecretKind.VOTE, secrets.vote).hex(),
        "custody": public_key(SecretKind.CUSTODY, secrets.custody).hex(),
        "transport": peer_id_from_secret(secrets.transport),
    }
    expected = {"file": str(member_path(keys.path / "alice")), "kind": "member", "public": public}
    assert keys.json("show", str(keys.path / "alice"), passphrase=None) == expected
    shown = keys.ok("show", str(member_path(keys.path / "alice")), passphrase=None)
    assert all(value in shown for value in public.values())
    assert not any(secret.hex() in shown for secret in (secrets.vote, secrets.custody, secrets.transport))


def test_recovery_key_is_made_from_a_passphrase_file(keys: Keys) -> None:
    directory = keys.path / "vault"
    file = keys.passphrase_file(NEW)
    shown = keys.json("new", str(directory), "--kind", "recovery", "--passphrase-file", file, passphrase=None)
    secret = read_secret(directory, SecretKind.RECOVERY, Passphrase(NEW))
    assert shown["public"] == {"recovery": public_key(SecretKind.RECOVERY, secret).hex()}


def test_passphrase_is_changed(keys: Keys) -> None:
    keys.json("new", str(keys.path / "bob"))
    new = keys.passphrase_file(NEW)
    assert "keystore-wrong-passphrase" in keys.refused(
        "change-passphrase", str(keys.path / "bob"), "--new-passphrase-file", new, passphrase="not the right one"
    )
    said = keys.ok("change-passphrase", str(keys.path / "bob"), "--new-passphrase-file", new)
    assert "Backups open with the old one" in said
    read_member_secrets(keys.path / "bob", Passphrase(NEW))


def test_backup_is_restored_and_the_journal_is_spoken_of(keys: Keys) -> None:
    alice, backup, carol = str(keys.path / "alice"), str(keys.path / "backup"), str(keys.path / "carol")
    assert "backup" in keys.ok("backup", alice, backup)
    assert "keystore-exists" in keys.refused("backup", alice, backup)
    assert "keystore-exists" in keys.refused("restore", backup, alice)
    assert "keystore-wrong-passphrase" in keys.refused("restore", backup, carol, passphrase=NEW)
    assert not Path(carol).exists()
    assert "Its journal" in keys.ok("restore", backup, carol)
    restored = read_member_secrets(Path(carol), Passphrase(OLD))
    assert restored == read_member_secrets(keys.path / "alice", Passphrase(OLD))


def test_keys_are_never_overwritten(keys: Keys) -> None:
    assert "keystore-exists" in keys.refused("new", str(keys.path / "alice"), passphrase=None)


def test_without_a_passphrase_all_sources_are_named(keys: Keys) -> None:
    refused = keys.refused("new", str(keys.path / "none"), passphrase=None)
    assert all(source in refused for source in ("keystore-no-passphrase", "--passphrase-file", VARIABLE, "terminal"))
    assert not member_path(keys.path / "none").exists()


def test_person_at_a_terminal_types_a_new_passphrase_twice_and_unseen(keys: Keys) -> None:
    status, shown = typed(["new", str(keys.path / "dave")], [OLD, OLD])
    assert status == 0
    assert "new passphrase for the keys: " in shown
    assert "the same again: " in shown
    assert OLD not in shown
    read_member_secrets(keys.path / "dave", Passphrase(OLD))


def test_person_who_types_two_passphrases_is_told(keys: Keys) -> None:
    status, shown = typed(["new", str(keys.path / "erin")], [OLD, NEW])
    assert status == 1
    assert "the two passphrases differ" in shown
    assert not member_path(keys.path / "erin").exists()
