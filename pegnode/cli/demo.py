"""`peg demo`: the round trip, shown."""

import signal
from pathlib import Path
from typing import Annotated

import typer

from pegnode.cli.terminal import errors_as_one_line, fail, out


def demo(
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the temporary directory with the chains and logs behind.")
    ] = False,
    record: Annotated[
        Path | None, typer.Option("--record", metavar="FILE.svg", help="Also draw what is shown.", dir_okay=False)
    ] = None,
) -> None:
    """Run a whole round trip on this machine: deposits, payments, five withdrawals, and a member killed half-way.

    It starts a private Bitcoin node and four members in a temporary directory, checks every satoshi on the way, and
    leaves nothing behind. Exit status 0 means that everything held.
    """
    from pegnode.demo.display import Picture, standard_display  # rich's live parts, and every chapter
    from pegnode.demo.run import ENDING_SIGNALS, perform

    # Outside the performance, which receives them, a signal has nothing to end: nothing has begun, or all has ended and
    # only the status is left to tell. The interpreter's own farewell respects "ignored", and nothing else.
    for number in ENDING_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    with errors_as_one_line():
        picture = Picture()
        outcome = perform([standard_display(), picture], keep=keep)
        if outcome.complaint:
            fail(outcome.complaint)
        if outcome.status == 0 and record is not None:
            picture.save(record)
            out.print(f"drawn: {record}", markup=False)
    raise typer.Exit(outcome.status)
