"""`peg recovery drill`: how it is shown."""

import signal
from functools import partial
from pathlib import Path
from types import TracebackType

import msgspec

from pegnode.cli.terminal import out, print_json
from pegnode.demo.display import PlainDisplay
from pegnode.demo.narration import Display, Event, Held, Narrator
from pegnode.demo.run import ENDING_SIGNALS
from pegnode.demo.scene import Scene
from pegnode.local_federation import LocalFederation
from pegnode.recovery.drill import drill_on_copy, drill_on_new
from pegnode.recovery.drill_run import perform


class HeldList:
    """Notes what held. texts: in order."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def hear(self, event: Event, elapsed_s: float) -> None:
        """Note what was checked."""
        if isinstance(event, Held):
            self.texts.append(event.text)

    def show(self, scene: Scene, elapsed_s: float) -> None:
        """Nothing of that is noted."""

    def __enter__(self) -> None:
        return

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return


def rehearse(directory: Path | None, members: int, *, json: bool) -> int:
    """Rehearse, and tell of it; the exit status. directory: of the local federation to copy, if any."""
    story = partial(drill_on_new, members=members)
    if directory is not None:
        story = partial(drill_on_copy, federation=LocalFederation.open(directory))
    # Outside the performance, which receives them, a signal has nothing to end.
    for number in ENDING_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    held = HeldList()
    displays: list[Display] = [held] if json else [held, PlainDisplay()]
    narrator = Narrator(displays)
    ending = perform(narrator, story)
    if ending.report is not None and json:
        print_json(msgspec.structs.replace(ending.report, held=held.texts))
    elif ending.report is not None:
        narrator.chapter(6, f"Everything held: a way out in {narrator.elapsed_s:.1f} s")
        narrator.hold("every process has ended; nothing is left of it")
    elif not json:
        out.print("interrupted; every process has ended", markup=False)
    return ending.status
