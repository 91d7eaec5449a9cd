"""`peg status`: what the members of a local federation, or one node anywhere, say of themselves and of the peg."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Final

import typer

from pegnode.cli import status_view as view
from pegnode.cli.home import NODE_VARIABLE, DirectoryOption, Home, command_on
from pegnode.cli.terminal import JsonOption, errors_as_one_line, out, print_json
from pegnode.config import NodeConfig
from pegnode.local_federation import client_of
from pegnode.rpc.client import ClientReason, RpcClientError
from pegnode.rpc.results import PegInfoReply, StatusReply

StatusNodeOption = Annotated[
    str | None,
    typer.Option(
        "--node",
        envvar=NODE_VARIABLE,
        help="A member's name, or the .toml file of a node or member.",
        show_default="every member of the local federation",
    ),
]

PeersOption = Annotated[
    bool, typer.Option("--peers", help="Show too who reaches whom, and how fast; with --node it is always shown.")
]


ANSWER_S: Final = 5.0
"""How long a member of a local federation has to answer: one that is up does so at once."""
_STATES: Final = {ClientReason.TIMEOUT: "no answer", ClientReason.BAD_REPLY: "other release"}
"""What is said of a member whose process runs and gives no status."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """A node, and what it says; state: of one that says nothing."""

    config: NodeConfig
    reply: StatusReply | None
    state: str = ""


def status(
    directory: DirectoryOption, node: StatusNodeOption = None, peers: PeersOption = False, json: JsonOption = False
) -> None:
    """Show what each member of a local federation says of itself, or one node anywhere, and the peg's five terms.

    When the chain stands, it says why. With --node, also what that node sees of each member: connection, delay, last
    vote and version, and its journal; and the exit status is 1 if it does not answer.
    """
    with errors_as_one_line():
        seen = _look(Home(directory, node))
        peg = _peg_info(seen)
        if json:
            print_json({"members": {name: item.reply for name, item in seen.items()}, "peg": peg})
            return
        _print(seen, one=node is not None, peers=peers)
        if peg is None:
            out.print(f"no member answers; start them with: {command_on(directory, 'up')}", markup=False)
        else:
            view.print_peg(peg)
            if node is None:
                view.print_more(peers=peers)


def _look(home: Home) -> dict[str, _Seen]:
    """By name. Raises PegnodeError for a node that is not there."""
    if home.node is not None:
        config = home.config()
        with home.client() as client:
            return {config.name: _Seen(config, client.ask(StatusReply, "getstatus"))}
    federation = home.federation
    configs = {name: federation.member_config(name) for name in federation.member_names}
    with ThreadPoolExecutor(max_workers=len(configs)) as pool:  # one that hangs costs no more time than all of them
        seen = pool.map(lambda name: _ask(configs[name], federation.is_running(name)), configs)
        return dict(zip(configs, seen, strict=True))


def _ask(config: NodeConfig, is_running: bool) -> _Seen:
    """What a member says of itself, or what is to be said of one that does not."""
    try:
        with client_of(config, ANSWER_S) as client:
            return _Seen(config, client.ask(StatusReply, "getstatus"))
    except RpcClientError as error:
        return _Seen(config, None, _STATES.get(error.reason, "starting") if is_running else "stopped")


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


def _print(seen: Mapping[str, _Seen], *, one: bool, peers: bool) -> None:
    replies = {name: item.reply for name, item in seen.items()}
    view.print_members(replies, {name: item.state for name, item in seen.items()})
    answers = {name: reply for name, reply in replies.items() if reply is not None}
    if one:
        for reply in answers.values():
            view.print_peers(reply)
    else:
        view.print_summary(answers)
        if peers:
            view.print_links(replies)
    view.print_alarms(answers)
    view.print_halts({name: reply for name, reply in answers.items() if reply.halted})
    view.print_troubles(answers)
