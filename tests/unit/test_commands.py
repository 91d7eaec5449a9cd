"""`peg`: what its root imports, and offers."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from pegnode.cli.commands import COMMANDS, command_line

RUN = CliRunner()


@pytest.mark.parametrize("name", COMMANDS)
def test_command_explains_itself_alone(name: str) -> None:
    result = RUN.invoke(command_line([name, "--help"]), [name, "--help"], prog_name="peg")
    assert result.exit_code == 0
    assert f"Usage: peg {name}" in result.output


def test_help_names_every_command() -> None:
    result = RUN.invoke(command_line(["--help"]), ["--help"])
    assert result.exit_code == 0
    named = [line.split()[1] for line in result.output.splitlines() if line.startswith("│ ") and line[2] != " "]
    assert {*named} >= {*COMMANDS}


def test_unknown_command_is_refused() -> None:
    result = RUN.invoke(command_line(["stauts"]), ["stauts"])
    assert result.exit_code == 2
    assert "No such command 'stauts'" in result.output


def test_one_command_imports_nothing_of_another() -> None:
    program = "import sys; from pegnode.cli.commands import command_line; command_line(['doctor']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    imported = done.stdout.split()
    assert "pegnode.cli.doctor" in imported
    assert not {"bdkpython", "pegnode.cli.wallets", "pegnode.cli.recovery"} & {*imported}
