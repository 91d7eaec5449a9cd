"""All of `peg`'s commands. Only those that are asked for are imported, since all together take a second of CPU."""

from collections.abc import Sequence
from importlib import import_module
from typing import Final

import typer

from pegnode import __version__
from pegnode.cli.terminal import out

COMMANDS: Final = {
    "up": "local.up",
    "down": "local.down",
    "status": "status.status",
    "logs": "local.logs",
    "withdraw": "withdrawals.withdraw",
    "demo": "demo.demo",
    "doctor": "doctor.doctor",
    "version": "commands.version",
    "l1": "l1.l1_app",
    "wallet": "wallets.wallet_app",
    "deposit": "deposits.deposit_app",
    "fund": "fund.fund_app",
    "audit": "audit.audit_app",
    "evidence": "evidence.evidence_app",
    "db": "db.db_app",
    "federation": "federation.federation_app",
    "keys": "keys.keys_app",
    "recovery": "recovery.recovery_app",
    "bitcoind": "bitcoind.bitcoind_app",
    "functionary": "processes.functionary_app",
    "node": "processes.node_app",
    "signer": "signer.signer_app",
    "journal": "journal.journal_app",
}
"""Where each command, or group of commands, is: a module of `pegnode.cli`, and its name there."""


def command_line(words: Sequence[str] = ()) -> typer.Typer:
    """`peg` with the command that the first word names, or with all of them if it names none, as for help."""
    app = typer.Typer(
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        help="Pegnode: a two-way-peg sidechain of Bitcoin, run by a federation.",
    )
    app.callback()(_peg)
    for name in words[:1] if words and words[0] in COMMANDS else COMMANDS:
        module, _, attribute = COMMANDS[name].partition(".")
        command = getattr(import_module(f"pegnode.cli.{module}"), attribute)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name)(command)
    return app


def version() -> None:
    """Print the version."""
    out.print(__version__)


def _peg() -> None:
    """Keep a command a subcommand, also where it is alone."""
