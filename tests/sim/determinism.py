"""One seed decides everything: what the interpreter, trio and the operating system would decide otherwise is replaced.

- trio runs what is ready in an order that it draws from a source of its own, which is seeded.
- Work in threads is done at once, in the one thread.
- Pieces of work that pause by the processor's clock pause by how often they asked.
- Hashes of strings are seeded by PYTHONHASHSEED, which the runner sets before the interpreter starts.

And what is the same for every member of every seed is computed once: signatures and their checks, the signer's
self-test, what bytes mean.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from itertools import count
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import structlog
import trio
from trio._core import _run as scheduler
from trio.testing import MockClock

from bridge.bitcoin import curve
from bridge.bitcoin.transaction import Transaction
from federation import self_test
from federation.certificate import Certificate, Vote
from pegnode.chain.header import Header
from pegnode.service import block_server, deposit_report, relay, slices

HASH_SEED = "0"
WORK_S = 0.000_2
"""What a piece of work between two looks at the processor's clock takes."""
REMEMBERED = 1 << 16
OWN_PACKAGES = ("bridge", "federation", "pegnode", "tests")


def is_hash_seeded() -> bool:
    """Whether this interpreter orders sets of strings as every other that replays a seed."""
    return os.environ.get("PYTHONHASHSEED") == HASH_SEED


def run_deterministic(seed: int, main: Callable[[], Any]) -> None:
    """Run an async function under virtual time, with every choice drawn from `seed`."""
    with _same_everywhere(seed):
        trio.run(main, clock=MockClock(autojump_threshold=0))


@contextmanager
def _same_everywhere(seed: int) -> Iterator[None]:
    ticks = count()
    with ExitStack() as stack:
        stack.enter_context(patch.object(scheduler, "_ALLOW_DETERMINISTIC_SCHEDULING", True))
        scheduler._r.seed(seed)
        stack.enter_context(patch.object(trio.to_thread, "run_sync", _at_once))
        clock = SimpleNamespace(perf_counter=lambda: next(ticks) * WORK_S)
        for module in (slices, relay, block_server, deposit_report):
            stack.enter_context(patch.object(module, "time", clock))
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
        yield


async def _at_once(function: Callable[..., Any], *arguments: Any, **_: Any) -> Any:
    await trio.lowlevel.checkpoint()
    return function(*arguments)


def remember_pure_functions() -> None:
    """From now on compute once what every member computes alike. For a process that only simulates."""
    for function in (curve.schnorr_verify, curve.schnorr_sign, curve.x_only, self_test.run_self_test):
        _replace_everywhere(function, lru_cache(maxsize=REMEMBERED)(function))
    for kind, name in ((Vote, "decode"), (Certificate, "decode"), (Header, "decode"), (Transaction, "parse")):
        setattr(kind, name, lru_cache(maxsize=REMEMBERED)(getattr(kind, name)))


def _replace_everywhere(function: Callable[..., Any], replacement: Callable[..., Any]) -> None:
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in OWN_PACKAGES:
            for attribute, value in list(vars(module).items()):
                if value is function:
                    setattr(module, attribute, replacement)
