"""All of `peg`'s commands."""

import typer

from pegnode import __version__
from pegnode.cli import (
    audit,
    bitcoind,
    db,
    demo,
    deposits,
    doctor,
    federation,
    fund,
    keys,
    l1,
    local,
    processes,
    recovery,
    status,
    wallets,
    withdrawals,
)
from pegnode.cli.terminal import out

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Pegnode: a two-way-peg sidechain of Bitcoin, run by a federation.",
)
app.command()(local.up)
app.command()(local.down)
app.command()(status.status)
app.command()(local.logs)
app.add_typer(l1.l1_app, name="l1")
app.add_typer(wallets.wallet_app, name="wallet")
app.add_typer(deposits.deposit_app, name="deposit")
app.command()(withdrawals.withdraw)
app.add_typer(fund.fund_app, name="fund")
app.add_typer(audit.audit_app, name="audit")
app.command()(demo.demo)
app.command()(doctor.doctor)
app.add_typer(db.db_app, name="db")
app.add_typer(federation.federation_app, name="federation")
app.add_typer(keys.keys_app, name="keys")
app.add_typer(recovery.recovery_app, name="recovery")
app.add_typer(bitcoind.bitcoind_app, name="bitcoind")
app.add_typer(processes.functionary_app, name="functionary")
app.add_typer(processes.node_app, name="node")


@app.command()
def version() -> None:
    """Print the version."""
    out.print(__version__)
