"""`peg doctor`: looks at everything around a process, and says what to do about what it finds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import trio
import typer
from rich.table import Table
from rich.text import Text

from pegnode.cli.terminal import JsonOption, errors_as_one_line, out, print_json
from pegnode.config import LogLevel
from pegnode.doctor.findings import Finding, Outcome
from pegnode.logs import start_logging

_COLOURS = {Outcome.OK: "green", Outcome.WARNING: "yellow", Outcome.PROBLEM: "bold red"}


def doctor(
    config: Annotated[Path, typer.Option("--config", help="The TOML file of a member, a full node or a signer.")],
    json: JsonOption = False,
) -> None:
    """Check configuration, genesis, clock, disk, ports, keys, Bitcoin node and members; change nothing.

    The process may run or not. The exit status is 1 if there is a problem, 0 if there are warnings at most.
    """
    from pegnode.doctor.examination import examine  # storage and network libraries take a second to import

    start_logging(LogLevel.ERROR)  # what the network says of strangers is a finding, and no news
    with errors_as_one_line():
        findings = trio.run(examine, config, strict_exception_groups=True)
    if json:
        print_json({"findings": findings})
    else:
        _print(findings)
    if any(finding.outcome is Outcome.PROBLEM for finding in findings):
        raise typer.Exit(1)


def _print(findings: Sequence[Finding]) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        words = Text(finding.what)
        if finding.remedy:
            words.append(f"\n→ {finding.remedy}", style="bold")
        table.add_row(Text(finding.outcome, style=_COLOURS[finding.outcome]), finding.check, words)
    out.print(table)
    count = {outcome: sum(finding.outcome is outcome for finding in findings) for outcome in Outcome}
    out.print(
        f"{_counted(count[Outcome.PROBLEM], 'problem')}, {_counted(count[Outcome.WARNING], 'warning')}, "
        f"{_counted(count[Outcome.OK], 'check')} passed",
        markup=False,
    )


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
