"""`python -m bench.dead_member`: what one dead member of four costs, with the timeout fixed and with it learned."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from bench.federation import latencies_seconds
from bench.report import milliseconds, percentile, print_machine, print_table
from pegnode.genesis import Genesis
from tests.support.federation import running_federation

TRANSFERS: Final = 40
FIXED: Final = {"min_view_timeout_ms": 2_000, "max_view_timeout_ms": 2_000}
DEAD: Final = "dave"


def run() -> None:
    """Measure and print."""
    rows = []
    for name, parameters in (("timeout fixed at 2 s", FIXED), ("timeout learned", {})):
        latencies_s = _latencies_seconds(parameters)
        times = [percentile(latencies_s, percent) for percent in (50, 90, 100)]
        rows.append((name, *map(milliseconds, times)))
    print_table(
        f"{TRANSFERS} transfers, submitted to final, one of four members dead", ("", "p50", "p90", "p100"), rows
    )


def _latencies_seconds(parameters: Mapping[str, int]) -> list[float]:
    with (
        tempfile.TemporaryDirectory(prefix="pegnode-bench-") as directory,
        running_federation(Path(directory) / "federation", parameters=parameters) as federation,
    ):
        federation.local.stop_member(DEAD)
        interval_s = Genesis.load(federation.local.genesis_path).consensus.block_interval_ms / 1000
        return latencies_seconds(federation, interval_s, TRANSFERS)


if __name__ == "__main__":
    print_machine()
    run()
