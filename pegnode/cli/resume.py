"""`peg federation resume`: the way back from a halt, in a plan that goes from member to member as a file."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from bridge.records import Record, RecordReason, Resume
from federation.endorsement import check_signatures
from federation.membership import Membership
from federation.record import RecordRefused, SignedRecord, verify_record
from pegnode.chain.parameters import ChainRules
from pegnode.cli.home import DirectoryOption, Home, NodeOption, command_on, rpc_url
from pegnode.cli.replaced_file import replace_file
from pegnode.cli.terminal import JsonOption, errors_as_one_line, fail, out, print_json
from pegnode.genesis import Genesis
from pegnode.input_file import read_input
from pegnode.resume.document import (
    MAX_DOCUMENT_BYTES,
    PlanReason,
    PlanRefused,
    joined_plans,
    parse_plan,
    render_plan,
)
from pegnode.resume.words import describe
from pegnode.rpc.client import RpcClient
from pegnode.rpc.results import ListedRecordReply, RecordViewReply, ResumePlanReply
from pegnode.setup.inputs import write_new

TIMEOUT_S: Final = 1_800.0
"""For reading every block of two branches of L1, which may be thousands."""
FINAL_WITHIN_S: Final = 60.0
"""How long to wait for the block that carries a plan out."""
POLL_S: Final = 0.5

Plan = tuple[SignedRecord, ...]

resume_app = typer.Typer(help="After a halt: draw up what ends it, have a quorum of members sign it, and hand it in.")

FileArgument = Annotated[Path, typer.Argument(help="The plan.")]
GenesisOption = Annotated[
    Path, typer.Option("--genesis", help="The chain's genesis.json, which names the members and their keys.")
]

ADVICE: Final = (
    "see for yourself on L1, with another Bitcoin node or a block explorer, that these blocks and coins are as told",
    "speak with the other members, and not by this file alone: what happened, and is it over?",
    "a record can't be taken back: while L1 may still change its mind, wait",
)


@resume_app.callback(invoke_without_command=True)
def resume(
    context: typer.Context,
    directory: DirectoryOption,
    plan: Annotated[
        Path | None, typer.Option("--plan", help="Draw up a plan by what this node found, and write it; a new file.")
    ] = None,
    others: Annotated[
        list[Path] | None,
        typer.Option("--with", metavar="FILE", help="Another member's plan, to end what it found, too. Repeat it."),
    ] = None,
    node: NodeOption = None,
    json: JsonOption = False,
) -> None:
    """After a halt: draw up what ends it (--plan FILE), then sign, combine and submit it."""
    if context.invoked_subcommand is not None:
        return
    if plan is None:
        out.print(context.get_help(), markup=False)
        raise typer.Exit(2)
    with errors_as_one_line():
        home = Home(directory, node)
        rules = home.genesis().rules()
        found = [finding for path in others or [] for finding in _findings(_read(path, rules))]
        with _patient_client(home) as client:
            reply = client.ask(ResumePlanReply, "planresume", found)
        if reply.records:
            write_new(plan, render_plan(tuple(_unsigned(view) for view in reply.records)))
    if json:
        print_json(reply)
    else:
        _print_plan(reply, plan, command_on(directory, f"federation resume sign {plan}"))
    if reply.waits:
        fail("there is no plan yet: something may still change by itself; nothing was written")


@resume_app.command("show")
def show(file: FileArgument, genesis: GenesisOption) -> None:
    """Say what a plan's records say and who has signed them, without a node."""
    with errors_as_one_line():
        rules = Genesis.load(genesis).rules()
        records = _read(file, rules)
    for signed in records:
        _print_lines(describe(signed.record))
        out.print(f"    {_signers_text(signed, rules.membership)}", markup=False)


@resume_app.command("sign")
def sign(
    file: FileArgument,
    directory: DirectoryOption,
    node: NodeOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Sign without asking.")] = False,
) -> None:
    """Have a running member judge a plan by its own node, show what that finds, and sign it in FILE."""
    with errors_as_one_line():
        home = Home(directory, node)
        rules = home.genesis().rules()
        records = _read(file, rules)
        encoded = [signed.record.encode().hex() for signed in records]
        with _patient_client(home) as client:
            views = client.ask(list[RecordViewReply], "judgerecords", encoded)
            _print_views(views)
            for view in views:
                if view.refusal is not None:
                    fail(f"record {view.serial} is not signed: {view.refusal}")
            _print_advice()
            if not yes and not typer.confirm("sign with this member's key?"):
                fail("nothing was signed")
            own = tuple(_sign(client, encoded, signed, rules) for signed in records)
        joined = joined_plans(records, own)
        _write(file, joined)
    for signed in joined:
        out.print(f"record {signed.record.serial}: {_signers_text(signed, rules.membership)}", markup=False)


@resume_app.command("combine")
def combine(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Copies of one plan.")],
    genesis: GenesisOption,
    output: Annotated[Path, typer.Option("--out", help="Where to write the plan with all signatures; a new file.")],
) -> None:
    """Bring the signatures in several copies of one plan together. Every signature is checked."""
    with errors_as_one_line():
        rules = Genesis.load(genesis).rules()
        joined, *others = (_read(path, rules) for path in files)
        for other in others:
            joined = joined_plans(joined, other)
        write_new(output, render_plan(joined))
    for signed in joined:
        out.print(f"record {signed.record.serial}: {_signers_text(signed, rules.membership)}", markup=False)


@resume_app.command("submit")
def submit(file: FileArgument, directory: DirectoryOption, node: NodeOption = None) -> None:
    """Hand a plan that a quorum signed to a node, and wait until final blocks have carried it out."""
    with errors_as_one_line():
        home = Home(directory, node)
        rules = home.genesis().rules()
        records = _read(file, rules)
        for signed in records:
            verify_record(signed, rules.membership, rules.chain_id)
        with _patient_client(home) as client:
            carried_out = _final_records(client, records)
            for signed in records:
                if signed.record.encode() not in carried_out:
                    client.ask(int, "submitrecord", signed.encode().hex())
            _await_final(client, records)
    for signed in records:
        out.print(
            f"record {signed.record.serial} is final: {describe(signed.record)[0].partition(': ')[2]}", markup=False
        )
    out.print("see `peg status` on each member: a halt that remains names what the plan did not", markup=False)


def _sign(client: RpcClient, encoded: list[str], signed: SignedRecord, rules: ChainRules) -> SignedRecord:
    """The member's signature under one record. Raises what the node refuses with."""
    reply = client.ask(str, "signrecord", encoded, signed.record.serial)
    own = SignedRecord.decode(bytes.fromhex(reply))
    check_signatures(own.signatures, signed.record.digest32, rules.membership)
    return own


def _await_final(client: RpcClient, records: Plan) -> None:
    """Wait for the blocks. Ends the command if they don't come: the records go on waiting in the nodes."""
    deadline = time.monotonic() + FINAL_WITHIN_S
    wanted = [signed.record.encode() for signed in records]
    while (final := _final_records(client, records)) != wanted:
        if any(record not in wanted for record in final):
            fail("another record with such a serial is final: draw up a new plan")
        if time.monotonic() > deadline:
            fail(
                "handed in, and no block has carried it out yet: it needs a quorum of members whose Bitcoin nodes agree"
            )
        time.sleep(POLL_S)


def _final_records(client: RpcClient, records: Plan) -> list[bytes]:
    """What blocks have carried out with the serials of a plan, without signatures."""
    listed = client.ask(list[ListedRecordReply], "listrecords", records[0].record.serial, len(records))
    return [SignedRecord.decode(bytes.fromhex(item.record)).record.encode() for item in listed if item.final]


def _patient_client(home: Home) -> RpcClient:
    config = home.config()
    return RpcClient(rpc_url(config), config.cookie_path, timeout_seconds=TIMEOUT_S)


def _unsigned(view: RecordViewReply) -> SignedRecord:
    return SignedRecord(Record.decode(bytes.fromhex(view.record)), ())


def _findings(plan: Plan) -> list[str]:
    """What a plan ends, in hex."""
    contents = [signed.record.content for signed in plan]
    return [
        finding.encode().hex() for content in contents if isinstance(content, Resume) for finding in content.findings
    ]


def _read(path: Path, rules: ChainRules) -> Plan:
    """A plan for this chain whose signatures are genuine, however few."""
    records = parse_plan(read_input(path, MAX_DOCUMENT_BYTES))
    for signed in records:
        if signed.record.chain_id != rules.chain_id:
            raise RecordRefused(RecordReason.WRONG_CHAIN, f"{path}: {signed.record.chain_id.hex()}")
        check_signatures(signed.signatures, signed.record.digest32, rules.membership)
    return records


def _write(path: Path, records: Plan) -> None:
    """Put the plan into the file in one step. Raises PlanRefused(UNWRITABLE)."""
    try:
        replace_file(path, render_plan(records))
    except OSError as error:
        raise PlanRefused(PlanReason.UNWRITABLE, f"{path}: {error.strerror}") from error


def _signers_text(signed: SignedRecord, membership: Membership) -> str:
    names = ", ".join(membership.members[member].name for member in signed.signers) or "nobody"
    missing = membership.quorum - len(signed.signers)
    more = f"{missing} more for a quorum" if missing > 0 else f"a quorum is {membership.quorum}"
    return f"signed by {names}: {more}"


def _print_plan(reply: ResumePlanReply, plan: Path, command: str) -> None:
    for wait in reply.waits:
        out.print(f"wait: {wait}", markup=False)
    if reply.records:
        _print_views(reply.records)
        _print_advice()
        todo = f"each member signs it, or a copy, on its own machine: {command} --node …"
        out.print(f"written: {plan}; {todo}", markup=False)


def _print_views(views: Sequence[RecordViewReply]) -> None:
    for view in views:
        _print_lines(view.says)
        for line in view.own_view:
            out.print(f"    here: {line}", markup=False)
        if view.refusal is not None:
            out.print(f"    here: NOT TO BE SIGNED: {view.refusal}", markup=False)


def _print_lines(lines: Sequence[str]) -> None:
    """A title, and below it what it stands for."""
    title, *rest = lines
    out.print(title, markup=False, style="bold" if out.is_terminal else "")
    for line in rest:
        out.print(f"    {line}", markup=False)


def _print_advice() -> None:
    out.print("before you sign:", markup=False)
    for line in ADVICE:
        out.print(f"    {line}", markup=False)
