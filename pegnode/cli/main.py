"""`peg`: the command line's root."""

import typer

from pegnode import __version__
from pegnode.cli import processes
from pegnode.cli.terminal import out

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Pegnode: a two-way-peg sidechain of Bitcoin, run by a federation.",
)
app.add_typer(processes.functionary_app, name="functionary")
app.add_typer(processes.node_app, name="node")


@app.command()
def version() -> None:
    """Print the version."""
    out.print(__version__)


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
