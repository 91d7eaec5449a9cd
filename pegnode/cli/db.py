"""`peg db check`: whether everything that a process keeps on disk is what its blocks and its keys say."""

import time

import msgspec
import typer

from bridge.bitcoin.identifiers import hash_to_hex
from federation.journal_errors import RENEW
from federation.journal_header import JournalIdentity
from pegnode.cli.processes import ConfigOption
from pegnode.cli.progress import shown_progress
from pegnode.cli.terminal import JsonOption, errors_as_one_line, out, print_fields, print_json
from pegnode.config import FunctionaryConfig, ProcessConfig, SignerConfig, load_process_config
from pegnode.folders import CHAIN_FOLDER, JOURNAL_FOLDER
from pegnode.genesis import Genesis
from pegnode.rpc.render import halt_reply
from pegnode.rpc.results import HaltReply
from pegnode.storage.check import CheckReason, Progress, WrongRecord
from pegnode.storage.data_check import DataReport, check_data
from pegnode.wording import time_text

db_app = typer.Typer(
    no_args_is_help=True,
    help="What a process keeps on disk. The chain can always be fetched again from peers; the journal and keys can't.",
)


class CheckReply(msgspec.Struct, frozen=True):
    """What `peg db check --json` prints. reason, record, what, advice: of what is wrong; null when nothing is.

    journal_*: null for a process without keys.  halts: why this node is halted, if it is.
    """

    ok: bool
    seconds: float
    reason: str | None = None
    record: str | None = None
    what: str | None = None
    advice: str | None = None
    height: int | None = None
    block_hash: str | None = None
    ledger_root: str | None = None
    transactions: int | None = None
    certificates: int | None = None
    entries: int | None = None
    halts: list[HaltReply] = []
    journal_floor_view: int | None = None
    journal_votes: int | None = None
    journal_certificates: int | None = None


@db_app.callback()
def _group() -> None:
    """Keep `check` a subcommand."""


@db_app.command("check")
def check(config: ConfigOption, json: JsonOption = False) -> None:
    """Check everything on disk against the genesis, offline; nothing is changed. Exit status 1 names what is wrong.

    Every block is carried out again from the genesis, and its certificates are checked; the unspent outputs, the
    ledger and the indexes that follow are compared with what is stored, and so is the journal of a member, or of its
    signer, with the chain. The process must not run. What L1 says is not asked again: for that, see `peg audit`.
    """
    with errors_as_one_line():
        loaded = load_process_config(config)
        started_s = time.monotonic()
        try:
            with shown_progress() as report:
                found = _checked(loaded, report)
        except WrongRecord as wrong:
            reply = _wrong_reply(wrong, loaded, time.monotonic() - started_s)
        else:
            reply = _reply(found, time.monotonic() - started_s)
    if json:
        print_json(reply)
    else:
        _print(reply)
    if not reply.ok:
        raise typer.Exit(1)


def _checked(config: ProcessConfig, report: Progress) -> DataReport:
    rules = Genesis.load(config.genesis).rules()
    identity = None
    if isinstance(config, FunctionaryConfig | SignerConfig):
        member = config.member(rules.membership)
        identity = JournalIdentity(rules.chain_id, rules.membership.epoch, member.index)
    return check_data(config.data_dir, rules, identity, report, is_signer=isinstance(config, SignerConfig))


def _reply(found: DataReport, seconds: float) -> CheckReply:
    chain, journal = found.chain, found.journal
    return CheckReply(
        ok=True,
        seconds=round(seconds, 3),
        height=chain.height,
        block_hash=hash_to_hex(chain.block_hash),
        ledger_root=chain.ledger_root.hex(),
        transactions=chain.transactions,
        certificates=chain.certificates,
        entries=chain.entries,
        halts=[halt_reply(item) for item in chain.halts],
        journal_floor_view=journal.floor_view if journal else None,
        journal_votes=journal.votes if journal else None,
        journal_certificates=journal.certificates if journal else None,
    )


def _wrong_reply(wrong: WrongRecord, config: ProcessConfig, seconds: float) -> CheckReply:
    return CheckReply(
        ok=False,
        seconds=round(seconds, 3),
        reason=wrong.reason.value,
        record=wrong.record,
        what=wrong.what,
        advice=_advice(wrong, config),
    )


def _advice(wrong: WrongRecord, config: ProcessConfig) -> str:
    """What the operator does next."""
    chain, journal = config.data_dir / CHAIN_FOLDER, config.data_dir / JOURNAL_FOLDER
    if wrong.reason is CheckReason.JOURNAL:
        return (
            f"put no copy in the place of {journal}: with one, this member could sign against its own earlier word; "
            f"do: {RENEW}; see 'After a loss' in docs/operating.md"
        )
    own = [journal, config.keys_dir] if isinstance(config, FunctionaryConfig | SignerConfig) else []
    kept = " and ".join(str(path) for path in own if path is not None)
    kept = f"; leave {kept} where {'they are' if ' and ' in kept else 'it is'}" if kept else ""
    source = "shown anew by the member" if isinstance(config, SignerConfig) else "fetched anew from the peers"
    return f"move {chain} away and start again: the chain is {source}, and checked{kept}"


def _print(reply: CheckReply) -> None:
    if not reply.ok:
        out.print(f"wrong: {reply.record}: {reply.what}", markup=False, style="bold red" if out.is_terminal else "")
        out.print(f"what to do: {reply.advice}", markup=False)
        return
    height = reply.height or 0
    fields = {
        "chain": f"{height} blocks, {reply.transactions} transactions, {reply.certificates} certificates",
        "newest block": f"{reply.block_hash}",
        "state": f"{reply.entries} entries, ledger root {reply.ledger_root}",
    }
    if reply.journal_floor_view is not None:
        fields["journal"] = f"{reply.journal_votes} votes above view {reply.journal_floor_view}"
    fields["speed"] = f"{reply.seconds:.1f} s, {height / max(reply.seconds, 0.001):.0f} blocks a second"
    print_fields(fields)
    if reply.halts:
        out.print("this node is HALTED, and will be when it is started:", markup=False)
    for item in reply.halts:
        out.print(f"    {item.kind}, since {time_text(item.since_ms)}: {item.detail}", markup=False)
    for remedy in dict.fromkeys(item.remedy for item in reply.halts):
        out.print(f"    what to do: {remedy}", markup=False)
    out.print("everything is as the blocks say", markup=False)
