"""Processes that stand still, as one does while it waits for its disk: nothing of them runs, and all that is due waits.

A real write that is slow blocks the one thread in which everything happens. Here a write costs no time, so the tasks of
its process are held instead: whatever would wake one of them, a timer, a frame, or the end of some work, takes effect
only afterwards, in the order in which it came. What the process sends meanwhile, as it does in the step that wrote,
waits too (`SimNetwork.hold`).

A task is its process's by a context variable that every task inherits from the one that started it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final
from unittest.mock import patch

from trio._core import _run as scheduler

_PROCESS: Final[ContextVar[int | None]] = ContextVar("process", default=None)
_NOTHING: Final = scheduler._NO_SEND


class Stalls:
    """Of one run, which `held` encloses."""

    def __init__(self) -> None:
        self._waiting: dict[int, list[scheduler.Task]] = {}

    def __contains__(self, process: int) -> bool:
        return process in self._waiting

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within this, tasks of processes that stand still do not run."""
        wake = scheduler.Runner.reschedule

        def reschedule(runner: scheduler.Runner, task: scheduler.Task, next_send: Any = _NOTHING) -> None:
            wake(runner, task, next_send)
            if self._waiting:
                process = task.context.get(_PROCESS)
                if process is not None and process in self._waiting:
                    self._waiting[process].append(runner.runq.pop())

        with patch.object(scheduler.Runner, "reschedule", reschedule):
            yield

    def join(self, process: int) -> None:
        """The running task, and all that it will start, are this process's."""
        _PROCESS.set(process)

    def begin(self, process: int) -> None:
        """It stands still once its running task has paused."""
        self._waiting.setdefault(process, [])

    def end(self, process: int) -> None:
        """It goes on, if it stood still."""
        scheduler.GLOBAL_RUN_CONTEXT.runner.runq.extend(self._waiting.pop(process, ()))
