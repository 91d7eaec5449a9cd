"""Runs the story from its first process to the last one's end, whatever happens in between.

Theory of operation. The signals that end a program are received from before the first process is started until after
the last one has ended. The first signal cancels the story; then the processes are ended in order, which no signal
cancels. A further one kills those that are left. Only then goes on what the story raised.
"""

import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from bridge.errors import BridgeError
from federation.errors import FederationError
from pegnode.demo.errors import DemoFailed, DemoReason
from pegnode.demo.narration import Display, Narrator
from pegnode.demo.stage import Stage
from pegnode.demo.story import CHAPTERS, tell
from pegnode.errors import PegnodeError

ENDING_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SIGNAL_STATUS: Final = 128
"""Added to the number of the signal that ended a program. Source: POSIX, Shell Command Language, 2.8.2."""
ERROR_MARKS: Final = ("level=error", "level=critical", "Traceback (most recent call last)")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it ended. status: of the process.  complaint: what did not hold, in one line; empty if nothing is amiss."""

    status: int
    complaint: str = ""


def perform(displays: Sequence[Display], *, keep: bool) -> Outcome:
    """Tell the story on `displays`; afterwards no process is left, and no directory unless `keep`.

    On a failure, what the processes wrote is copied to a directory that the complaint names. A defect of this program
    is raised as it is, after that.
    """
    performance = _Performance(displays, keep=keep)
    complaint = ""
    try:
        trio.run(performance.run, strict_exception_groups=True)
    except* (BridgeError, FederationError, PegnodeError) as group:
        complaint = "; ".join([str(_first(group)), *performance.where_logs_are])
    except* SystemExit:
        complaint = "nobody reads the output any more"  # rich's answer to a closed pipe
    if performance.signal is not None:
        return Outcome(SIGNAL_STATUS + performance.signal)
    return Outcome(1, complaint) if complaint else Outcome(0)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


class _Performance:
    """One telling. signal: the number of the first one received."""

    def __init__(self, displays: Sequence[Display], *, keep: bool) -> None:
        self._displays = displays
        self._keep = keep
        self._logs: Path | None = None
        self.signal: int | None = None

    @property
    def where_logs_are(self) -> list[str]:
        """For people; empty when there are none."""
        return [f"logs: {self._logs}"] if self._logs else []

    async def run(self) -> None:
        """Tell the story and clear up."""
        with trio.open_signal_receiver(*ENDING_SIGNALS) as signals, ExitStack() as shown:
            for display in self._displays:
                shown.enter_context(display)
            narrator, stage = Narrator(self._displays), Stage.open()
            async with trio.open_nursery() as nursery:
                story = trio.CancelScope()
                nursery.start_soon(self._obey, signals, story, stage)
                await self._tell(narrator, stage, story)
                nursery.cancel_scope.cancel()

    async def _tell(self, narrator: Narrator, stage: Stage, story: trio.CancelScope) -> None:
        """Tell the story until it ends or is cancelled, and end what it started."""
        seconds: list[tuple[str, float]] = []
        try:
            with story:
                seconds = await tell(stage, narrator)
        except BaseException as error:
            await self._end(narrator, stage, held=False)
            if self.signal is None:
                for note in self.where_logs_are:
                    error.add_note(note)
                raise
        else:
            await self._end(narrator, stage, held=not story.cancelled_caught)
        if self.signal is None:
            self._say_that_all_held(narrator, seconds)
        else:
            narrator.tell("interrupted; every process has ended")

    async def _end(self, narrator: Narrator, stage: Stage, *, held: bool) -> None:
        try:
            narrator.wait("the processes end")
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._clear, stage, held)
        narrator.wait("")

    def _clear(self, stage: Stage, held: bool) -> None:
        """End the processes, look through what they wrote, and remove it. Raises DemoFailed."""
        try:
            stage.end_processes()
            if held:
                check_logs(stage)
        except DemoFailed:
            held = False
            raise
        finally:
            if self._keep:
                self._logs = stage.directory
            else:
                if not held and self.signal is None:
                    self._logs = stage.save_logs()
                stage.clear()

    def _say_that_all_held(self, narrator: Narrator, seconds: Sequence[tuple[str, float]]) -> None:
        narrator.chapter(len(CHAPTERS) + 2, f"Everything held: a round trip in {narrator.elapsed_s:.1f} s")
        left = f"kept: {self._logs}" if self._keep else "nothing is left of it"
        narrator.hold(f"no member has logged an error; every process has ended; {left}")
        narrator.table(("chapter", "seconds "), [(title, f"{spent:.1f}") for title, spent in seconds])

    async def _obey(self, signals: AsyncIterator[int], story: trio.CancelScope, stage: Stage) -> None:
        async for number in signals:
            if self.signal is None:
                self.signal = number
                story.cancel()
            else:
                await trio.to_thread.run_sync(stage.kill)


def check_logs(stage: Stage) -> None:
    """No member may have logged an error, the killed one included. Raises DemoFailed (LOGGED_ERROR)."""
    for log in stage.member_logs():
        for number, text in enumerate(log.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
            if any(mark in text for mark in ERROR_MARKS):
                raise DemoFailed(DemoReason.LOGGED_ERROR, f"line {number} of {log.name}: {text[:200]}")
