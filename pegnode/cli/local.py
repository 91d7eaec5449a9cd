"""`peg up`, `down`, `status` and `logs`: a federation on this machine."""

import os
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from bridge.l1.states import L1State
from pegnode.cli.home import DirectoryOption, command_on
from pegnode.cli.terminal import JsonOption, coins, errors_as_one_line, fail, out, print_fields, print_json, print_table
from pegnode.errors import PegnodeError
from pegnode.local_federation import BITCOIND, LocalFederation
from pegnode.rpc.client import RpcClientError
from pegnode.rpc.results import PegInfoReply, StatusReply

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


def status(directory: DirectoryOption, json: JsonOption = False) -> None:
    """Show what each member says of itself, and the peg's five terms."""
    with errors_as_one_line():
        federation = LocalFederation.open(directory)
        replies = {name: federation.status(name) for name in federation.member_names}
        peg = _peg_info(federation, replies)
        if json:
            print_json({"members": replies, "peg": peg})
            return
        print_table(
            ("member", "state", "height ", "view ", "anchor ", "L1 ", "Bitcoin node", "peers ", "mempool "),
            [_row(federation, name, reply) for name, reply in replies.items()],
            "no members",
        )
        out.print()
        for name, reply in replies.items():
            if reply is not None:
                _print_troubles(name, reply)
        if peg is None:
            out.print(f"no member answers; start them with: {command_on(directory, 'up')}", markup=False)
        else:
            _print_peg(peg)


def _row(federation: LocalFederation, name: str, reply: StatusReply | None) -> tuple[str, ...]:
    if reply is None:
        return (name, "starting" if federation.is_running(name) else "stopped", *("-",) * 7)
    peers = sum(member.connected for member in reply.members) - 1
    return (
        name,
        _state(reply),
        str(reply.height),
        str(reply.view),
        str(reply.anchor.height),
        "-" if reply.l1.height is None else str(reply.l1.height),
        reply.l1.state,
        str(peers),
        str(reply.mempool_transactions),
    )


def _state(reply: StatusReply) -> str:
    if reply.halted:
        return "HALTED"
    if reply.waiting_for:
        return "waiting"
    return f"catching up to {reply.best_known_height}" if reply.syncing else "running"


def _print_troubles(name: str, reply: StatusReply) -> None:
    """What is the matter with a member, since when its Bitcoin node is in its state, and what to do; or nothing."""
    troubles = [
        *(f"halted: {finding}" for finding in reply.halt_findings),
        *(f"waits for {missing}" for missing in reply.waiting_for),
    ]
    l1, now_ms = reply.l1, reply.started_ms + reply.uptime_ms
    if l1.state != L1State.OK:
        lasts = timedelta(milliseconds=max(0, now_ms - l1.since_ms))
        since = f", for {str(lasts).partition('.')[0]}" if l1.since_ms else ""
        troubles += [f"its Bitcoin node is {l1.state}{since}: {l1.cause}", f"what to do: {l1.remedy}"]
    if troubles:
        out.print(f"{name}:", markup=False)
        for trouble in troubles:
            out.print(f"    {trouble}", markup=False)
        out.print()


def _peg_info(federation: LocalFederation, replies: dict[str, StatusReply | None]) -> PegInfoReply | None:
    """From the member that is furthest."""
    best = max((reply.height, name) for name, reply in replies.items() if reply) if any(replies.values()) else None
    if best is None:
        return None
    try:
        with federation.client(best[1]) as client:
            return client.ask(PegInfoReply, "getpeginfo")
    except RpcClientError:
        return None


def _print_peg(peg: PegInfoReply) -> None:
    print_fields(
        {
            "reserves": coins(peg.reserves_sats),
            "deficit": coins(peg.deficit_sats),
            "supply": coins(peg.supply_sats),
            "unsettled": coins(peg.unsettled_sats),
            "fund": coins(peg.fund_sats),
        }
    )
    sign = "=" if peg.equality else "IS NOT"
    out.print(f"reserves + deficit {sign} supply + unsettled + fund", markup=False)


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
