"""One seed decides everything: what the interpreter, trio and the operating system would decide otherwise is replaced.

- Time stands while anybody can run, and the operating system is not asked whether anything came of it.
- trio runs what is ready in an order that it draws from a source of its own, which is seeded.
- Work in threads is done at once, in the one thread.
- Pieces of work that pause by the processor's clock pause by how often they asked.
- Hashes of strings are seeded by PYTHONHASHSEED, which the runner sets before the interpreter starts.

And what is the same for every member of every seed is computed once: signatures and their checks, the signer's
self-test, scripts, what bytes mean.
"""

import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from itertools import count
from types import SimpleNamespace
from typing import Any, Final
from unittest.mock import patch

import structlog
import trio
from trio._core import _run as scheduler

from bridge.bitcoin import block, curve
from bridge.bitcoin.transaction import Transaction
from federation import self_test
from federation.certificate import Certificate, Vote
from pegnode.chain import transactions
from pegnode.chain.header import Header
from pegnode.service import block_server, deposit_report, relay, slices

HASH_SEED = "0"
WORK_S = 0.000_2
"""What a piece of work between two looks at the processor's clock takes."""
REMEMBERED = 1 << 16
_System = scheduler.TheIOManager  # type: ignore[attr-defined]
_ask: Final = _System.get_events
OWN_PACKAGES = ("bridge", "federation", "pegnode", "tests")


class VirtualClock(trio.abc.Clock):
    """Time that passes only when nobody has anything to do; then it is the moment at which somebody has."""

    def __init__(self) -> None:
        self._now_s = 0.0

    def start_clock(self) -> None:
        """See `trio.abc.Clock`."""

    def current_time(self) -> float:
        """See `trio.abc.Clock`."""
        return self._now_s

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """See `trio.abc.Clock`; trio asks when no task can run, and is told that the next deadline is now."""
        if deadline == math.inf:
            return deadline
        self._now_s = max(self._now_s, deadline)
        return 0.0


def is_hash_seeded() -> bool:
    """Whether this interpreter orders sets of strings as every other that replays a seed."""
    return os.environ.get("PYTHONHASHSEED") == HASH_SEED


def run_deterministic(seed: int, main: Callable[[], Any]) -> None:
    """Run an async function under virtual time, with every choice drawn from `seed`."""
    with _same_everywhere(seed):
        trio.run(main, clock=VirtualClock())


@contextmanager
def _same_everywhere(seed: int) -> Iterator[None]:
    ticks = count()
    with ExitStack() as stack:
        stack.enter_context(patch.object(scheduler, "_ALLOW_DETERMINISTIC_SCHEDULING", True))
        scheduler._r.seed(seed)
        stack.enter_context(patch.object(_System, "get_events", _events))
        stack.enter_context(patch.object(trio.to_thread, "run_sync", _at_once))
        clock = SimpleNamespace(perf_counter=lambda: next(ticks) * WORK_S)
        for module in (slices, relay, block_server, deposit_report):
            stack.enter_context(patch.object(module, "time", clock))
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
        yield


def _events(system: Any, timeout_s: float) -> Any:
    """Nothing comes from the operating system but trio's own wake-ups, at a start and an end."""
    return _ask(system, timeout_s) if timeout_s else ()


async def _at_once(function: Callable[..., Any], *arguments: Any, **_: Any) -> Any:
    await trio.lowlevel.checkpoint()
    return function(*arguments)


def remember_pure_functions() -> None:
    """From now on compute once what every member computes alike. For a process that only simulates."""
    for function in _PURE:
        _replace_everywhere(function, lru_cache(maxsize=REMEMBERED)(function))
    for kind, name in ((Vote, "decode"), (Certificate, "decode"), (Header, "decode"), (Transaction, "parse")):
        setattr(kind, name, lru_cache(maxsize=REMEMBERED)(getattr(kind, name)))


_PURE: Final[tuple[Callable[..., Any], ...]] = (
    curve._private_key,
    curve.schnorr_verify,
    curve.schnorr_sign,
    curve.x_only,
    block.parse_block,
    block.parse_block_spends,
    self_test.run_self_test,
    transactions.check_scripts,
)


def _replace_everywhere(function: Callable[..., Any], replacement: Callable[..., Any]) -> None:
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in OWN_PACKAGES:
            for attribute, value in list(vars(module).items()):
                if value is function:
                    setattr(module, attribute, replacement)
