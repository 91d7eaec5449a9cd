"""What the story says, as values, and who hears it."""

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from pegnode.demo.scene import Scene


@dataclass(frozen=True, slots=True)
class Chapter:
    """A new part of the story begins. number: from 1."""

    number: int
    title: str


@dataclass(frozen=True, slots=True)
class Told:
    """Something happened."""

    text: str


@dataclass(frozen=True, slots=True)
class Held:
    """Something was checked, and holds."""

    text: str


@dataclass(frozen=True, slots=True)
class Listed:
    """Several things of one kind. Columns whose name ends in a blank are right-aligned."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Awaited:
    """Something is being waited for; nothing when empty."""

    what: str


Event = Chapter | Told | Held | Listed | Awaited


class Display(AbstractContextManager[None], Protocol):
    """Where the story is shown; entered before the first event, and left after the last."""

    def hear(self, event: Event, elapsed_s: float) -> None:
        """Show the next event. elapsed_s: since the story began."""

    def show(self, scene: Scene, elapsed_s: float) -> None:
        """How things stand now."""


class Narrator:
    """Tells the story to every display, with the time of each event."""

    def __init__(self, displays: Sequence[Display]) -> None:
        self._displays = displays
        self._began_s = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the story began."""
        return time.monotonic() - self._began_s

    def chapter(self, number: int, title: str) -> None:
        """A new part of the story begins."""
        self._say(Chapter(number, title))

    def tell(self, text: str) -> None:
        """Something happened."""
        self._say(Told(text))

    def hold(self, text: str) -> None:
        """Something was checked, and holds."""
        self._say(Held(text))

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Several things of one kind. Columns whose name ends in a blank are right-aligned."""
        self._say(Listed(tuple(columns), tuple(tuple(row) for row in rows)))

    def wait(self, what: str) -> None:
        """Something is being waited for; nothing when empty."""
        self._say(Awaited(what))

    def show(self, scene: Scene) -> None:
        """How things stand now."""
        for display in self._displays:
            display.show(scene, self.elapsed_s)

    def _say(self, event: Event) -> None:
        for display in self._displays:
            display.hear(event, self.elapsed_s)
