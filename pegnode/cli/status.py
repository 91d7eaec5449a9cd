"""`peg status`: what the members of a local federation, or one node anywhere, say of themselves and of the peg."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Final

import typer

from bridge.l1.states import L1State
from pegnode.cli.home import DirectoryOption, Home, command_on
from pegnode.cli.terminal import JsonOption, coins, errors_as_one_line, out, print_fields, print_json, print_table
from pegnode.config import NodeConfig
from pegnode.genesis import Genesis
from pegnode.local_federation import client_of
from pegnode.rpc.client import RpcClientError
from pegnode.rpc.results import HaltReply, PegInfoReply, StatusReply
from pegnode.setup.template import time_text

StatusNodeOption = Annotated[
    str | None,
    typer.Option(
        "--node",
        envvar="PEGNODE_NODE",
        help="A member's name, or the .toml file of a node or member.",
        show_default="every member of the local federation",
    ),
]

MOST_FINDINGS_TOLD: Final = 10
HALT_MEANS: Final = (
    "whoever is halted votes for no deposit and no withdrawal, and signs none. With less than a quorum of others left, "
    "no deposit is credited and no withdrawal paid. Transfers go on."
)
HALT_HELP: Final = "A halt does not clear itself, nor by a restart: see 'After a halt' in docs/operating.md"


@dataclass(frozen=True, slots=True)
class _Seen:
    """A node, and what it says; state: of one that says nothing."""

    config: NodeConfig
    reply: StatusReply | None
    state: str = ""


def status(directory: DirectoryOption, node: StatusNodeOption = None, json: JsonOption = False) -> None:
    """Show what each member of a local federation says of itself, or one node anywhere, and the peg's five terms.

    With --node, the exit status is 1 if it does not answer.
    """
    with errors_as_one_line():
        seen = _look(Home(directory, node))
        peg = _peg_info(seen)
        if json:
            print_json({"members": {name: item.reply for name, item in seen.items()}, "peg": peg})
            return
        _print(seen)
        if peg is None:
            out.print(f"no member answers; start them with: {command_on(directory, 'up')}", markup=False)
        else:
            _print_peg(peg)


def _look(home: Home) -> dict[str, _Seen]:
    """By name. Raises PegnodeError for a node that is not there."""
    if home.node is not None:
        config = home.config()
        with client_of(config) as client:
            return {config.name: _Seen(config, client.ask(StatusReply, "getstatus"))}
    federation = home.federation
    configs = {name: federation.member_config(name) for name in federation.member_names}
    replies = {name: federation.status(name) for name in configs}
    return {
        name: _Seen(config, replies[name], "starting" if federation.is_running(name) else "stopped")
        for name, config in configs.items()
    }


def _peg_info(seen: Mapping[str, _Seen]) -> PegInfoReply | None:
    """From the node that is furthest; None if none answers."""
    answering = [item for item in seen.values() if item.reply]
    if not answering:
        return None
    best = max(answering, key=lambda item: item.reply.height if item.reply else 0)
    try:
        with client_of(best.config) as client:
            return client.ask(PegInfoReply, "getpeginfo")
    except RpcClientError:
        return None


def _print(seen: Mapping[str, _Seen]) -> None:
    print_table(
        ("member", "state", "height ", "view ", "anchor ", "L1 ", "Bitcoin node", "peers ", "mempool "),
        [_row(name, item) for name, item in seen.items()],
        "no members",
    )
    out.print()
    _print_halts({name: item.reply for name, item in seen.items() if item.reply is not None and item.reply.halted})
    for name, item in seen.items():
        if item.reply is not None:
            _print_troubles(name, item.reply, _member_names(item.config))


def _member_names(config: NodeConfig) -> list[str]:
    return [member.name for member in Genesis.load(config.genesis).members]


def _row(name: str, seen: _Seen) -> tuple[str, ...]:
    reply = seen.reply
    if reply is None:
        return (name, seen.state, *("-",) * 7)
    return (
        name,
        _state(reply),
        str(reply.height),
        str(reply.view),
        str(reply.anchor.height),
        "-" if reply.l1.height is None else str(reply.l1.height),
        reply.l1.state,
        str(sum(member.connected for member in reply.members if member.member != reply.member)),
        str(reply.mempool_transactions),
    )


def _state(reply: StatusReply) -> str:
    if reply.halted:
        return "HALTED"
    if reply.waiting_for:
        return "waiting"
    return f"catching up to {reply.best_known_height}" if reply.syncing else "running"


def _print_halts(halted: Mapping[str, StatusReply]) -> None:
    """Why members are halted, each finding once with those who made it, what still works, and what to do."""
    if not halted:
        return
    out.print(f"{_listed(list(halted))} HALTED: {HALT_MEANS}", markup=False)
    findings: dict[tuple[str, str], dict[str, HaltReply]] = {}
    for name, reply in halted.items():
        for item in reply.halts:
            findings.setdefault((item.kind, item.subject), {})[name] = item
    for members in list(findings.values())[:MOST_FINDINGS_TOLD]:
        first = min(members.values(), key=lambda item: item.since_ms)
        out.print(f"    {first.detail}", markup=False)
        out.print(
            f"        {first.kind}, found by {_listed(list(members))}, at {time_text(first.since_ms)}", markup=False
        )
    if len(findings) > MOST_FINDINGS_TOLD:
        out.print(f"    and {len(findings) - MOST_FINDINGS_TOLD} more: see them with --json", markup=False)
    remedies = {item.remedy for members in findings.values() for item in members.values()}
    for remedy in sorted(remedies):
        out.print(f"    what to do: {remedy}", markup=False)
    out.print(f"    {HALT_HELP}", markup=False)
    out.print()


def _listed(names: list[str]) -> str:
    """Names as people list them."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def _print_troubles(name: str, reply: StatusReply, member_names: list[str]) -> None:
    """What is the matter with a node, since when its Bitcoin node is in its state, and what to do; or nothing."""
    absent = [member_names[it.member] for it in reply.members if not it.connected and it.member != reply.member]
    troubles = [
        *(f"waits for {missing}" for missing in reply.waiting_for),
        *([f"not connected to {', '.join(absent)}"] if absent else []),
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
