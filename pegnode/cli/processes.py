"""`peg functionary run` and `peg node run`: the long-running processes, in the foreground."""

from pathlib import Path
from typing import Annotated

import trio
import typer

from pegnode.cli.terminal import errors_as_one_line
from pegnode.config import FunctionaryConfig, NodeConfig
from pegnode.logs import start_logging

ConfigOption = Annotated[
    Path, typer.Option("--config", help="The process's TOML file.", exists=True, dir_okay=False, readable=True)
]

functionary_app = typer.Typer(
    no_args_is_help=True, help="A member of a federation: a full node with keys that votes and signs."
)
node_app = typer.Typer(no_args_is_help=True, help="A full node without keys: it checks everything and serves wallets.")


@functionary_app.command("run")
def functionary_run(config: ConfigOption) -> None:
    """Run a member until it is interrupted. The log goes to standard error."""
    from pegnode.functionary import run_functionary  # the network library takes a second to import

    with errors_as_one_line():
        loaded = FunctionaryConfig.load(config)
        start_logging(loaded.log_level)
        trio.run(run_functionary, loaded, strict_exception_groups=True)


@node_app.command("run")
def node_run(config: ConfigOption) -> None:
    """Run a full node until it is interrupted. The log goes to standard error."""
    from pegnode.node import run_node

    with errors_as_one_line():
        loaded = NodeConfig.load(config)
        start_logging(loaded.log_level)
        trio.run(run_node, loaded, strict_exception_groups=True)


@functionary_app.callback()
@node_app.callback()
def _group() -> None:
    """Keep `run` a subcommand."""
