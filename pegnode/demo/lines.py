"""How the story's events look on a console with colours."""

from typing import ClassVar, Final

from rich import box
from rich.console import Group, RenderableType
from rich.highlighter import RegexHighlighter
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text
from rich.theme import Theme

from pegnode.demo.dashboard import MAX_WIDTH
from pegnode.demo.narration import Awaited, Chapter, Event, Held, Listed, Told
from pegnode.folders import MEMBER_NAMES

THEME: Final = Theme(
    {
        "story.amount": "yellow",
        "story.count": "bold",
        "story.hash": "bright_black",
        "story.member": "bold blue",
        "story.seconds": "magenta",
        "story.user": "bold cyan",
    }
)
"""For the console on which the lines are printed."""
INDENT: Final = 9
"""Columns left of a line's text."""


class _Colours(RegexHighlighter):
    """Names, amounts, times and hashes, wherever they stand in a line."""

    base_style = "story."
    highlights: ClassVar[list[str]] = [
        r"(?P<user>\b(ann|ben|cho)\b)",
        rf"(?P<member>\b({'|'.join(MEMBER_NAMES)})\b)",
        r"(?P<amount>\b\d+\.\d{8}( L-BTC| BTC)?|\b\d+ sats\b)",
        r"(?P<seconds>\b\d+\.\d+ s\b)",
        r"(?P<count>\b\d+ of \d+\b)",
        r"(?P<hash>\b([0-9a-f]{16,64}|(bcrt1|pegrt1|[mn2])[0-9A-Za-z]{30,})(:\d+)?\b)",
    ]


_COLOURS = _Colours()


def line(event: Event, elapsed_s: float, width: int) -> RenderableType | None:
    """The event as it is printed; None for one that is not. width: of the console."""
    match event:
        case Chapter(number, title):
            heading = Text.assemble((f"{number}  ", "bold cyan"), (title, "bold"))
            rule = Rule(heading, style="blue", align="left")
            return Padding(rule, (1, max(0, width - MAX_WIDTH), 0, 0))
        case Told(text):
            return _timed(elapsed_s, Text("·", "dim"), text, width)
        case Held(text):
            return _timed(elapsed_s, Text("✓", "bold green"), text, width)
        case Listed():
            return Group("", Padding(listing(event, box.SIMPLE_HEAD), (0, 0, 0, INDENT - 1), expand=False))
        case Awaited():
            return None


def _timed(elapsed_s: float, mark: Text, text: str, width: int) -> Table:
    """A line with its time; what is too long goes on below the text's beginning."""
    grid = Table.grid(padding=(0, 1))
    grid.add_column(justify="right", width=INDENT - 4, style="dim")
    grid.add_column(width=1)
    grid.add_column(overflow="fold", max_width=min(width, MAX_WIDTH) - INDENT)
    grid.add_row(f"{elapsed_s:.1f}", mark, _COLOURS(text))
    return grid


def listing(event: Listed, borders: box.Box) -> Table:
    """The things listed, as a table."""
    table = Table(box=borders, pad_edge=False, header_style="dim", show_edge=False)
    for column in event.columns:
        table.add_column(column.rstrip(), justify="right" if column.endswith(" ") else "left", overflow="fold")
    for row in event.rows:
        table.add_row(*(_COLOURS(cell) for cell in row))
    return table
