"""`python -m bench.floods`: what floods cost a member and its users, in latency of transfers and in memory."""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import trio

from bench.report import milliseconds, print_machine, print_table
from tests.functional.p2p_hostile import FLOODS, Flood
from tests.support.federation import fresh_address
from tests.support.hostile import Stage, hostile_stage

TRANSFERS = 5
POLL_S = 0.01
MEBIBYTE = 1 << 20


def run(rounds: int = 1) -> None:
    """Measure and print. rounds: how often all of the floods come, to see whether memory stays as it is."""
    with (
        tempfile.TemporaryDirectory(prefix="pegnode-bench-") as directory,
        hostile_stage(Path(directory) / "federation") as stage,
    ):
        rows = [_row(stage, "none", _latencies_seconds(stage))]
        for _ in range(rounds):
            rows += [_row(stage, flood.__name__, trio.run(_under, stage, flood)) for flood in FLOODS]
    columns = ("", "median", "longest", "memory since start")
    print_table(f"{TRANSFERS} transfers, submitted to final, three of four members, during floods", columns, rows)


async def _under(stage: Stage, flood: Flood) -> list[float]:
    """Transfers while an address floods, over and over again, in spite of being kept out."""
    async with trio.open_nursery() as nursery:

        async def flood_on() -> None:
            while True:
                await flood(stage, next(stage.sources))

        nursery.start_soon(flood_on)
        latencies = await trio.to_thread.run_sync(_latencies_seconds, stage)
        nursery.cancel_scope.cancel()
    return latencies


def _latencies_seconds(stage: Stage) -> list[float]:
    latencies = []
    for _ in range(TRANSFERS):
        stage.user.wallet.sync(stage.user.url)
        txid_hex = stage.user.send(fresh_address(), 1_000)
        began = time.perf_counter()
        while not stage.federation.is_final(txid_hex):
            time.sleep(POLL_S)
        latencies.append(time.perf_counter() - began)
    return latencies


def _row(stage: Stage, name: str, latencies: list[float]) -> tuple[str, ...]:
    grown = f"{stage.grown_bytes('alice') / MEBIBYTE:+.0f} MiB"
    return name, milliseconds(statistics.median(latencies)), milliseconds(max(latencies)), grown


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.floods", description=__doc__)
    parser.add_argument("--rounds", type=int, default=1, help="how often all of the floods come")
    chosen = parser.parse_args()
    print_machine()
    run(chosen.rounds)
