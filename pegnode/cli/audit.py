"""`peg audit`: the peg's solvency, proved from one's own nodes; and statements of it, signed by a quorum."""

import tempfile
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from pegnode.audit.replay import NodeBlocks, replay
from pegnode.cli.audit_view import print_audit
from pegnode.cli.home import DirectoryOption, Home, NodeOption
from pegnode.cli.progress import shown_progress
from pegnode.cli.statements import combine, patient_client, sign, verify
from pegnode.cli.terminal import JsonOption, errors_as_one_line, fail, print_json
from pegnode.rpc.audit_results import AuditReply
from pegnode.rpc.client import RpcClient

audit_app = typer.Typer(
    invoke_without_command=True,
    help="Prove the peg's solvency from a node and its Bitcoin node; sign and verify statements of it.",
)
audit_app.command("sign")(sign)
audit_app.command("combine")(combine)
audit_app.command("verify")(verify)


@audit_app.callback()
def audit(
    context: typer.Context,
    directory: DirectoryOption,
    node: NodeOption = None,
    no_scan: Annotated[
        bool,
        typer.Option(
            "--no-scan",
            help="Don't have the Bitcoin node go through its whole UTXO set, which takes minutes on the main chain: "
            "look up the ledger's coins one by one.",
        ),
    ] = False,
    with_replay: Annotated[
        bool,
        typer.Option(
            "--replay", help="Fetch every block too, and carry out the chain from the genesis in this process."
        ),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Recount every term of the equality, and explain the reserve on L1 row by row. Exit status 1 for any finding."""
    if context.invoked_subcommand is not None:
        _refuse_options(context, context.invoked_subcommand)
        return
    with errors_as_one_line():
        home = Home(directory, node)
        with patient_client(home) as client:
            reply = client.ask(AuditReply, "audit", not no_scan)
            if with_replay:
                reply = _replayed(reply, home, client)
    if json:
        print_json(reply)
    else:
        print_audit(reply)
    if not reply.ok:
        raise typer.Exit(1)


def _refuse_options(context: typer.Context, command: str) -> None:
    """Options before a subcommand would be dropped unsaid."""
    for name in context.params:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            fail(f"options of `{command}` stand after it: peg audit {command} ...")


def _replayed(reply: AuditReply, home: Home, client: RpcClient) -> AuditReply:
    """The reply, with what carrying out the chain adds to it."""
    with tempfile.TemporaryDirectory(prefix="pegnode-audit-") as scratch, shown_progress() as report:
        done = replay(NodeBlocks(client), reply, home.genesis().rules(), Path(scratch), report)
    findings = [*reply.findings, *done.findings]
    return msgspec.structs.replace(reply, ok=not findings, findings=findings, replay=done.reply)
