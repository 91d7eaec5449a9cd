"""`peg up`, `down` and `logs`: a federation on this machine."""

import os
from pathlib import Path
from typing import Annotated

import typer

from pegnode.cli.home import DirectoryOption, command_on
from pegnode.cli.terminal import errors_as_one_line, fail, out, print_fields
from pegnode.errors import PegnodeError
from pegnode.local_federation import BITCOIND, LocalFederation

DEFAULT_MEMBERS = 4
MemberCountOption = Annotated[
    int | None,
    typer.Option(
        "--members", min=1, max=15, help="How many members a new federation has.", show_default=str(DEFAULT_MEMBERS)
    ),
]


def up(directory: DirectoryOption, members: MemberCountOption = None) -> None:
    """Start a local federation with its own regtest Bitcoin node; make one first if there is none."""
    with errors_as_one_line():
        fresh = not (directory / "federation").exists()
        if fresh:
            _make(directory, DEFAULT_MEMBERS if members is None else members)
        federation = LocalFederation.open(directory)
        if members not in (None, len(federation.member_names)):
            fail(f"the federation in {directory} has {len(federation.member_names)} members; use another --dir")
        everything = [BITCOIND, *federation.member_names]
        started = federation.up()
        if fresh:
            started = everything  # the Bitcoin node was started to make the federation with
        if started:
            out.print(f"started: {', '.join(started)}", markup=False)
        if started != everything:
            others = ", ".join(name for name in everything if name not in started)
            out.print(f"running already: {others}", markup=False)
        quorum = len(federation.member_names) - (len(federation.member_names) - 1) // 3
        out.print(
            f"{quorum} of {len(federation.member_names)} members are needed to make blocks and to sign", markup=False
        )
        out.print(f"stop it with: {command_on(directory, 'down')}", markup=False)


def _make(directory: Path, members: int) -> None:
    try:
        (directory / "bitcoind").mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        fail(f"can't write to {directory}: {error.strerror}")
    LocalFederation.create(directory, members)
    out.print(f"made a federation of {members} members in {directory}", markup=False)


def down(directory: DirectoryOption) -> None:
    """Stop the local federation and its Bitcoin node. What they have written stays."""
    with errors_as_one_line():
        stopped = LocalFederation.open(directory).down()
        said = f"stopped: {', '.join(stopped)}" if stopped else "nothing was running"
        out.print(f"{said}; go on with: {command_on(directory, 'up')}", markup=False)


def logs(
    directory: DirectoryOption,
    member: Annotated[str | None, typer.Argument(help="A member's name; without it, where the logs lie.")] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="How many of the last lines.")] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines come, until interrupted.")] = False,
) -> None:
    """Print a member's log."""
    with errors_as_one_line():
        federation = LocalFederation.open(directory)
        if member is None:
            print_fields({name: federation.log_path(name) for name in federation.member_names})
            return
        federation.member_config_path(member)
        path = federation.log_path(member)
        if not path.exists():
            fail(f"{member} has no log yet; start it with: {command_on(directory, 'up')}")
        _tail(path, lines, follow)


def _tail(path: Path, lines: int, follow: bool) -> None:
    """Become `tail`, which does this best."""
    arguments = ["tail", "-n", str(lines), *(["-F"] if follow else []), str(path)]
    try:
        os.execvp("tail", arguments)
    except OSError as error:
        raise PegnodeError(f"can't run tail: {error.strerror}; the log is {path}") from error
