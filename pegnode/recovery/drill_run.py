"""A drill from its beginning to its end: whatever happens, no process and no directory is left of it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import trio

from pegnode.demo.narration import Narrator
from pegnode.demo.run import ENDING_SIGNALS, SIGNAL_STATUS
from pegnode.demo.stage import Stage
from pegnode.recovery.drill import DrillReport

Story = Callable[[Stage, Narrator], Awaitable[DrillReport]]


@dataclass(frozen=True, slots=True)
class Ending:
    """report: None when a signal ended it; status: of the process then, else 0."""

    report: DrillReport | None
    status: int = 0


def perform(narrator: Narrator, story: Story) -> Ending:
    """Tell the story on a stage of its own, and clear that. Raises DemoFailed for the stage, and what the story raises.

    The first signal ends it in order, a second at once.
    """
    return trio.run(_perform, narrator, story, strict_exception_groups=True)


async def _perform(narrator: Narrator, story: Story) -> Ending:
    received: list[int] = []
    reports: list[DrillReport] = []
    scope = trio.CancelScope()
    with trio.open_signal_receiver(*ENDING_SIGNALS) as signals:
        stage = Stage.open()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_obey, signals, received, scope, stage)
            try:
                with scope:
                    reports.append(await story(stage, narrator))
            finally:
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(_clear, stage)
            nursery.cancel_scope.cancel()
    if received:
        return Ending(None, SIGNAL_STATUS + received[0])
    return Ending(reports[0])


def _clear(stage: Stage) -> None:
    try:
        stage.end_processes()
    finally:
        stage.clear()


async def _obey(signals: AsyncIterator[int], received: list[int], scope: trio.CancelScope, stage: Stage) -> None:
    async for number in signals:
        received.append(number)
        if len(received) == 1:
            scope.cancel()
        else:
            await trio.to_thread.run_sync(stage.kill)
