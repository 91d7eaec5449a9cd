"""Explores every state of four machines, one of them Byzantine: `make model`, or `python -m tests.model`.

The exit status is 1 if anything was found; the shortest way to it is printed, step by step.
"""

import argparse
import sys

from tests.model.explore import Explorer
from tests.model.result import Bounds, Result, missing_sights
from tests.model.universe import SIZE

HOW_LONG = "of one view it takes a second or two of the processor, of two views 20 to 80 s"


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.model", description=__doc__)
    parser.add_argument("--views", type=int, default=2, help="in which anything can happen (2)")
    who = [*map(str, range(SIZE)), "each", "none"]
    parser.add_argument("--byzantine", default="each", choices=who, help="the Byzantine member (each, one by one)")
    parser.add_argument("--no-crashes", action="store_true", help="nobody crashes")
    parser.add_argument("--no-liveness", action="store_true", help="safety alone")
    parser.add_argument(
        "--plain", action="store_true", help="each message, body and verdict a step of its own; safety alone"
    )
    parser.add_argument("--max-states", type=int, help="stop there, and say so")
    given = parser.parse_args()
    if given.views < 1:
        parser.error("--views: at least one")
    positions: list[int | None] = list(range(SIZE))
    if given.byzantine != "each":
        positions = [None if given.byzantine == "none" else int(given.byzantine)]
    results = []
    explorations = "one exploration" if len(positions) == 1 else f"{len(positions)} explorations"
    print(f"model: {explorations}, each with a line when it is done; {HOW_LONG}", flush=True)
    for byzantine in positions:
        bounds = Bounds(
            views=given.views,
            byzantine=byzantine,
            crashes=not given.no_crashes,
            liveness=not (given.no_liveness or given.plain),
            plain=given.plain,
            max_states=given.max_states,
        )
        results.append(Explorer(bounds).run())
        _print(results[-1])
    total = sum(result.states for result in results)
    found = sum(result.violation is not None for result in results)
    seconds = sum(result.seconds for result in results)
    print(f"model: {total:,} states, {found} violations, {seconds:.0f} s of CPU")
    return int(found > 0 or any(map(missing_sights, results)))


def _print(result: Result) -> None:
    print(result.line(), flush=True)
    if missing := missing_sights(result):
        print(f"  it saw nothing of: {', '.join(sorted(missing))}")
    if result.violation is not None:
        print(result.violation)


if __name__ == "__main__":
    sys.exit(main())
