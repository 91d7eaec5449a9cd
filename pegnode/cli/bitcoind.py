"""`peg bitcoind`: the Bitcoin node's program."""

import typer

from pegnode.bitcoind import find_bitcoind, install_bitcoind
from pegnode.cli.terminal import JsonOption, errors_as_one_line, out, print_json

bitcoind_app = typer.Typer(no_args_is_help=True, help="The Bitcoin node's program: find it, or fetch a private one.")


@bitcoind_app.command("install")
def install() -> None:
    """Fetch a bitcoind from the Debian archive into a private folder, unless one that is new enough is there."""
    with errors_as_one_line():
        program = install_bitcoind()
        out.print(f"{program.version}: {program.path}", markup=False)


@bitcoind_app.command("show")
def show(json: JsonOption = False) -> None:
    """Say which bitcoind is used."""
    with errors_as_one_line():
        program = find_bitcoind()
        if json:
            print_json({"path": str(program.path), "version": program.version})
        else:
            out.print(f"{program.version}: {program.path}", markup=False)
