"""`peg` as people and scripts run it: a process for each command."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pegnode.local_federation import LocalFederation
from tests.support.federation import FederationUnderTest

COMMAND_DEADLINE_S = 120.0


@dataclass(frozen=True)
class Peg:
    """The command line on one directory. said: everything it ever printed, but for the words of new wallets."""

    directory: Path
    said: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)

    @property
    def federation(self) -> FederationUnderTest:
        """What runs in the directory."""
        return FederationUnderTest(LocalFederation.open(self.directory))

    def run(self, *arguments: str, typed: str = "") -> "subprocess.CompletedProcess[str]":
        """One command, whatever comes of it."""
        done = subprocess.run(
            [sys.executable, "-m", "pegnode.cli.main", *arguments],
            input=typed,
            capture_output=True,
            text=True,
            timeout=COMMAND_DEADLINE_S,
            check=False,
            start_new_session=True,
            env={**os.environ, "PEGNODE_DIR": str(self.directory), "COLUMNS": "200"},
        )
        assert "Traceback" not in done.stderr + done.stdout, done.stderr
        if arguments[:2] not in (("wallet", "create"), ("wallet", "words")):
            self.said.append(done.stdout)
        self.said.append(done.stderr)
        return done

    def ok(self, *arguments: str, typed: str = "") -> str:
        """What a command prints that must succeed, without a word on standard error."""
        done = self.run(*arguments, typed=typed)
        assert (done.returncode, done.stderr) == (0, ""), arguments
        return done.stdout

    def json(self, *arguments: str) -> Any:
        """What it prints with --json."""
        return json.loads(self.ok(*arguments, "--json"))

    def refused(self, *arguments: str) -> str:
        """The one line that it says when it can't, with exit status 1."""
        done = self.run(*arguments)
        assert (done.returncode, done.stdout) == (1, ""), arguments
        [line] = done.stderr.splitlines()
        assert line.startswith("error: ")
        return line

    def misused(self, *arguments: str) -> str:
        """What it says when the command itself is wrong, with exit status 2."""
        done = self.run(*arguments)
        assert (done.returncode, done.stdout) == (2, ""), arguments
        return done.stderr

    def new_wallet(self, name: str) -> None:
        """Make a wallet."""
        self.words.append(self.json("wallet", "create", "-w", name)["words"])
