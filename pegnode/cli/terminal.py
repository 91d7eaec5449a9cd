"""What every command prints by: tables and JSON on standard output, one line of error on standard error.

What is printed may be another's words: a file's, a node's, the Bitcoin node's. On a terminal a control character among
them could erase or forge lines, and one that turns the direction of writing show a text in another order; so each is
shown as its escape, and brackets are never markup.
"""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Final, NoReturn

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bridge.bitcoin.amounts import format_btc
from bridge.errors import BridgeError
from federation.errors import FederationError
from pegnode.errors import PegnodeError
from pegnode.input_file import FileReason, FileRefused

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for machines: amounts in satoshis.")]

PIPED_WIDTH: Final = 1_000
"""Columns of what is no terminal: a program reads it, or an editor that folds by itself."""

_UNSAFE: Final = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Control characters but for the end of a line, and what turns the direction of writing. Source: Unicode, UAX #9."""


class _Terminal(Console):
    """A console on which text is what it looks like."""

    def print(self, *objects: Any, **options: Any) -> None:
        """The same, with every unsafe character of plain text shown as its escape."""
        super().print(*(visible(item) if isinstance(item, str) else item for item in objects), **options)


def visible(text: str) -> str:
    """`text` with its unsafe characters as escapes, such as \\x1b."""
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


out = _Terminal(highlight=False, soft_wrap=True)
if not out.is_terminal:
    out.width = PIPED_WIDTH
_err = _Terminal(stderr=True, highlight=False, soft_wrap=True)


def fail(message: str) -> NoReturn:
    """End the command with one line on standard error and exit status 1."""
    _err.print(f"error: {' '.join(message.split())}", markup=False, style="red" if _err.is_terminal else "")
    raise typer.Exit(1)


@contextmanager
def errors_as_one_line() -> Iterator[None]:
    """Turn what this program refuses with into `fail`, and what the system refuses about a path: one that is too long,
    or that this user may not look at. Anything else is a defect and keeps its traceback.
    """
    try:
        try:
            yield
        except OSError as refused:
            if refused.filename is None:
                raise
            raise FileRefused(FileReason.UNREADABLE, f"{refused.filename}: {refused.strerror}") from refused
    except* (BridgeError, FederationError, PegnodeError) as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        message = str(error)
    else:
        return
    fail(message)


def print_json(value: object) -> None:
    """`value` (builtins, msgspec structs, dataclasses) as indented JSON."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], empty: str) -> None:
    """Rows under a heading; `empty` when there are none. Columns whose name ends in a blank are right-aligned."""
    if not rows:
        out.print(empty, markup=False)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.rstrip(), justify="right" if column.endswith(" ") else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(visible(cell)) for cell in row))
    out.print(table)


def print_items(items: Sequence[tuple[str, Mapping[str, str]]], empty: str) -> None:
    """A headline for each item, and below it, indented, its long values, whole: for what is copied from a terminal."""
    if not items:
        out.print(empty, markup=False)
    for headline, values in items:
        out.print(headline, markup=False, style="bold" if out.is_terminal else "")
        width = max(len(name) for name in values)
        for name, value in values.items():
            out.print(f"    {name:<{width}}  {value}", markup=False)


def print_fields(fields: Mapping[str, Any]) -> None:
    """One `name  value` line for each field."""
    width = max(len(name) for name in fields)
    for name, value in fields.items():
        out.print(f"{name:<{width}}  {value}", markup=False)


def coins(sats: int) -> str:
    """An amount for people: bitcoin with eight decimals."""
    return format_btc(sats)
