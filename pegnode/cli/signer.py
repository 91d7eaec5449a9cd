"""`peg signer`: a member's keys in a process of their own."""

from pathlib import Path
from typing import Annotated

import trio
import typer

from pegnode.cli.processes import ConfigOption
from pegnode.cli.terminal import errors_as_one_line, out
from pegnode.config import FunctionaryConfig, SignerConfig
from pegnode.logs import start_logging

signer_app = typer.Typer(
    no_args_is_help=True,
    help="A member's keys in a process of their own, which checks by itself whatever they are to sign.",
)


@signer_app.command("init")
def signer_init(
    config: ConfigOption,
    directory: Annotated[Path, typer.Option("--dir", help="The signer's own folder, absent or empty.")],
) -> None:
    """Make the signer of the member with this configuration; it must not run. Its keys stay where they are.

    The member's journal is copied, for it says what these keys have signed. Do this once: from now on, only the
    signer's own journal is up to date.
    """
    from pegnode.signing.setup import SIGNER_FILE, create_signer

    with errors_as_one_line():
        made = create_signer(FunctionaryConfig.load(config), directory)
    out.print(f"made a signer for {made.name} in {directory}", markup=False)
    out.print(f"1. in {config}, remove keys_dir and passphrase_file, and add at the end:", markup=False)
    out.print(f'\n       [signer]\n       socket = "{made.socket}"\n', markup=False)
    out.print(f"2. start it: peg signer run --config {directory / SIGNER_FILE}", markup=False)
    out.print(f"3. start the member: peg functionary run --config {config}", markup=False)


@signer_app.command("run")
def signer_run(config: ConfigOption) -> None:
    """Run a signer until it is interrupted. The log goes to standard error."""
    from pegnode.signing.process import run_signer

    with errors_as_one_line():
        loaded = SignerConfig.load(config)
        start_logging(loaded.log_level)
        trio.run(run_signer, loaded, strict_exception_groups=True)
