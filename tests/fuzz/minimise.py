"""A small corpus from a large one: inputs that reach, line after line, all that the large one reaches."""

import sys
from collections.abc import Iterable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from tests.fuzz.targets import Target

ROOT = Path(__file__).parents[2]
PACKAGES = tuple(str(ROOT / name) for name in ("bridge", "federation", "pegnode"))

Step = tuple[CodeType, int, int]
"""From a line of a function to the next one."""


def minimised(target: Target, inputs: Iterable[bytes], max_bytes: int) -> list[bytes]:
    """The shortest inputs that each reach something new, `max_bytes` of them at most in all."""
    reached: set[Step] = set()
    kept: list[bytes] = []
    room = max_bytes
    for data in sorted(set(inputs), key=lambda item: (len(item), item)):
        if len(data) > room:
            break
        steps = _steps(target, data)
        if not steps <= reached:
            reached |= steps
            kept.append(data)
            room -= len(data)
    return kept


def _steps(target: Target, data: bytes) -> set[Step]:
    """What one input reaches."""
    steps: set[Step] = set()

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(PACKAGES):
            return None
        previous = frame.f_lineno

        def step(inner: FrameType, _event: str, _argument: Any) -> Any:
            nonlocal previous
            steps.add((inner.f_code, previous, inner.f_lineno))
            previous = inner.f_lineno
            return step

        return step

    sys.settrace(trace)
    try:
        target.check(data)
    finally:
        sys.settrace(None)
    return steps
