"""Long work on the one thread that also votes: in slices, between which others have their turn."""

import time
from collections.abc import Callable, Generator
from typing import Final, TypeVar, cast

import trio

T = TypeVar("T")
SLICE_S: Final = 0.02
"""For how long there is no pause, and one step more."""


async def in_slices(steps: Generator[None, None, T], is_current: Callable[[], bool]) -> T | None:
    """What the steps lead to; None when what they rest on was current no longer after a pause.

    Raises what a step raises.
    """
    pause_at_s = time.perf_counter() + SLICE_S
    while True:
        try:
            next(steps)
        except StopIteration as done:
            result: T = done.value
            return result
        if time.perf_counter() >= pause_at_s:
            await trio.lowlevel.checkpoint()
            if not is_current():
                return None
            pause_at_s = time.perf_counter() + SLICE_S


async def to_the_end(steps: Generator[None, None, T]) -> T:
    """What steps lead to that rest on nothing which could change. Raises what a step raises."""
    return cast(T, await in_slices(steps, lambda: True))
