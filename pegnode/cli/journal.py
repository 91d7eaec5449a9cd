"""`peg journal`: a member's memory of what it signed, and what to do when that is lost."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from federation.journal_entries import read_journal, renew_journal
from federation.journal_header import JournalIdentity
from pegnode.cli.processes import ConfigOption
from pegnode.cli.terminal import JsonOption, errors_as_one_line, fail, out, print_fields, print_json
from pegnode.config import FunctionaryConfig, SignerConfig, load_process_config
from pegnode.folders import CHAIN_FOLDER, JOURNAL_FOLDER
from pegnode.genesis import Genesis
from pegnode.options.errors import ConfigReason, ConfigRefused
from pegnode.storage.database import Database

journal_app = typer.Typer(
    no_args_is_help=True,
    help="A member's memory of what it signed. Never put back an older copy: a lost one is renewed.",
)

YesOption = Annotated[bool, typer.Option("--yes", help="Renew without asking.")]


class JournalReply(msgspec.Struct, frozen=True):
    """What `peg journal show --json` prints. newest_vote_view: null without a vote above the last final view."""

    name: str
    path: str
    state: str
    floor_view: int
    votes: int
    newest_vote_view: int | None
    certificates: int
    newest_certificate_view: int | None
    witnessed: dict[str, int]
    """By member, the newest view in which a vote of it was seen."""


@journal_app.command("show")
def show(config: ConfigOption, json: JsonOption = False) -> None:
    """Show what the journal of a member, or of its signer, holds. It must not run; nothing is changed."""
    with errors_as_one_line():
        member, path, identity, names = _opened(config)
        state, contents = read_journal(path, identity)
        newest: dict[str, int] = {}
        for vote in contents.witnessed:
            name = names[vote.member] if vote.member < len(names) else str(vote.member)
            newest[name] = max(vote.view, newest.get(name, 0))
        reply = JournalReply(
            name=member.name,
            path=str(path),
            state=state.name.lower(),
            floor_view=contents.floor_view,
            votes=len(contents.votes),
            newest_vote_view=max((vote.view for vote in contents.votes), default=None),
            certificates=len(contents.certificates),
            newest_certificate_view=max((item.view for item in contents.certificates), default=None),
            witnessed=newest,
        )
    if json:
        print_json(reply)
    else:
        _print(reply)


@journal_app.command("renew")
def renew(config: ConfigOption, yes: YesOption = False) -> None:
    """Begin a new journal in place of one that is lost, damaged or behind. The member, or signer, must not run.

    Nothing is deleted: what is there is kept under another name. At its next start the member follows the chain and
    asks every other member how far it may have signed; it votes again once enough of them have told. A signer waits,
    for the same, until a block becomes final that is newer than its start.
    """
    with errors_as_one_line():
        member, path, identity, _ = _opened(config)
        chain = member.data_dir / CHAIN_FOLDER
        if chain.is_dir():
            Database.require_free(chain)  # a process that runs on has it open, even if its journal was deleted
        out.print(
            f"{member.name} will not know what it signed, and ask the others before it signs again.", markup=False
        )
        out.print("Do this only if the journal is lost, damaged, or an older copy.", markup=False)
        out.print("Nothing else may be running with these keys, and no other may be started.", markup=False)
        if not yes and not typer.confirm(f"renew the journal in {path}?"):
            fail("nothing was changed")
        aside = renew_journal(path, identity)
    if aside is not None:
        out.print(f"what was there is kept as {aside}; never put it back", markup=False)
    out.print(f"made a journal that has forgotten, in {path}", markup=False)
    if isinstance(member, SignerConfig):
        out.print(f"next: peg signer run --config {config}; then start its member", markup=False)
    else:
        then = f"then peg status --node {config} tells how far it is"
        out.print(f"next: peg functionary run --config {config}; {then}", markup=False)


def _opened(config: Path) -> tuple[FunctionaryConfig | SignerConfig, Path, JournalIdentity, tuple[str, ...]]:
    """The configuration, where its journal is, whose it is, and the members' names."""
    loaded = load_process_config(config)
    if not isinstance(loaded, FunctionaryConfig | SignerConfig):
        what = "missing: a node without keys signs nothing, and has no journal"
        raise ConfigRefused(ConfigReason.MISSING_OPTION, what, (("keys_dir",),))
    rules = Genesis.load(loaded.genesis).rules()
    identity = JournalIdentity(rules.chain_id, rules.membership.epoch, loaded.member(rules.membership).index)
    names = tuple(member.name for member in rules.membership.members)
    return loaded, loaded.data_dir / JOURNAL_FOLDER, identity, names


def _print(reply: JournalReply) -> None:
    state = {
        "kept": "kept: it votes by it",
        "forgotten": "forgotten: it signs nothing until the others have told how far it may have signed",
    }
    fields = {
        "journal": f"{reply.name}, {reply.path}",
        "state": state.get(reply.state, reply.state),
        "floor": f"view {reply.floor_view}: nothing at or below is signed again",
        "own votes": f"{reply.votes}{_newest(reply.newest_vote_view)}",
        "certificates": f"{reply.certificates}{_newest(reply.newest_certificate_view)}",
    }
    for name, view in reply.witnessed.items():
        fields[f"seen of {name}"] = f"a vote in view {view}"
    print_fields(fields)


def _newest(view: int | None) -> str:
    return "" if view is None else f", the newest in view {view}"
