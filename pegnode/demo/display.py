"""Where the story is shown: a terminal with a live panel, plain lines, or a picture."""

import io
import re
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Final

from rich import box
from rich.console import Console
from rich.live import Live
from rich.padding import Padding
from rich.panel import Panel
from rich.spinner import Spinner
from rich.text import Text

from pegnode.demo.dashboard import MAX_WIDTH, dashboard
from pegnode.demo.lines import INDENT, THEME, line, listing
from pegnode.demo.narration import Awaited, Chapter, Display, Event, Held, Listed, Told
from pegnode.demo.scene import MemberState, Scene

PICTURE_WIDTH: Final = MAX_WIDTH
PLAIN_WIDTH: Final = 120
REFRESHES_PER_SECOND: Final = 8
ECHOED_INTERRUPT: Final = "^C"
"""What terminals write where the cursor is, right of the panel. If that began a new line, the panel would be redrawn a
line too low, and its top would be left behind."""

_WEB_FONT = re.compile(r"\s*@font-face \{[^}]*\}")
_MATRIX: Final = '<g class="demo-matrix">'


def standard_display() -> Display:
    """Live on a terminal that can, plain anywhere else."""
    console = Console(highlight=False, theme=THEME)
    can_move = console.is_terminal and not console.is_dumb_terminal
    return LiveDisplay(console) if can_move and console.encoding.startswith("utf") else PlainDisplay()


class PlainDisplay:
    """Lines of plain ASCII, each at once: for pipes, files and terminals that can't do better."""

    def __init__(self, console: Console | None = None) -> None:
        """Print to standard output, or to another console."""
        self._console = console or Console(width=PLAIN_WIDTH, color_system=None)
        self._states: dict[str, MemberState] = {}

    def hear(self, event: Event, elapsed_s: float) -> None:
        """Print the event; nothing for what is only awaited."""
        match event:
            case Chapter(number, title):
                self._print(f"\n{number}. {title}")
            case Told(text):
                self._print(f"{elapsed_s:6.1f}     {text}")
            case Held(text):
                self._print(f"{elapsed_s:6.1f} ok  {text}")
            case Listed():
                self._console.print(Padding(listing(event, box.ASCII2), (0, 0, 0, INDENT + 2), expand=False))
            case Awaited():
                return

    def show(self, scene: Scene, elapsed_s: float) -> None:
        """Tell what became of a member that ran."""
        for member in scene.members:
            before = self._states.get(member.name)
            if before is not None and before is not member.state:
                self.hear(Told(f"{member.name}: {before.value} -> {member.state.value}"), elapsed_s)
            if before is not None or member.state is MemberState.RUNNING:
                self._states[member.name] = member.state

    def __enter__(self) -> None:
        return

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


class LiveDisplay:
    """The story scrolls above a panel that shows how things stand."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._scene: Scene | None = None
        self._title = "demo"
        self._awaited = ""
        self._spinner = Spinner("dots", style="cyan")
        self._elapsed_s = 0.0
        self._live = Live(console=console, get_renderable=self._panel, refresh_per_second=REFRESHES_PER_SECOND)

    def hear(self, event: Event, elapsed_s: float) -> None:
        """Print the event above the panel, or note in it what is awaited."""
        self._elapsed_s = elapsed_s
        if isinstance(event, Awaited):
            self._awaited = event.what
            return
        if isinstance(event, Chapter):
            self._title = event.title
        self._console.print(line(event, elapsed_s, self._console.width))

    def show(self, scene: Scene, elapsed_s: float) -> None:
        """Keep the scene for the next time the panel is drawn; terms that nobody told this time stay as they were."""
        if scene.terms is None and self._scene is not None:
            scene = replace(scene, terms=self._scene.terms)
        self._scene = scene
        self._elapsed_s = elapsed_s

    def __enter__(self) -> None:
        self._live.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def _panel(self) -> Panel:
        self._spinner.update(text=Text(self._awaited, "dim"))
        now = self._spinner if self._awaited else Text()
        return dashboard(self._scene, self._title, now, self._elapsed_s, self._console.width - len(ECHOED_INTERRUPT))


class Picture:
    """Draws what a terminal shows at the end as an SVG file, which loads nothing from elsewhere."""

    def __init__(self) -> None:
        self._console = Console(
            file=io.StringIO(),
            record=True,
            width=PICTURE_WIDTH,
            force_terminal=True,
            color_system="truecolor",
            highlight=False,
            theme=THEME,
        )
        self._scene: Scene | None = None
        self._elapsed_s = 0.0

    def hear(self, event: Event, elapsed_s: float) -> None:
        """Draw the event's line."""
        self._elapsed_s = elapsed_s
        drawn = line(event, elapsed_s, PICTURE_WIDTH)
        if drawn is not None:
            self._console.print(drawn)

    def show(self, scene: Scene, elapsed_s: float) -> None:
        """Keep the scene: the last one is drawn."""
        self._scene = scene
        self._elapsed_s = elapsed_s

    def __enter__(self) -> None:
        return

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return

    def save(self, path: Path) -> None:
        """Write the file, once the story has ended."""
        panel = dashboard(self._scene, "everything held", Text(), self._elapsed_s, PICTURE_WIDTH)
        self._console.print()
        self._console.print(panel)
        svg = _WEB_FONT.sub("", self._console.export_svg(title="peg demo", unique_id="demo"))
        svg = svg.replace(_MATRIX, f'{_MATRIX[:-1]} xml:space="preserve">')  # not every viewer keeps a leading blank
        path.write_text("\n".join(text.rstrip() for text in svg.splitlines()) + "\n", encoding="utf-8")
