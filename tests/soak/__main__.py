"""`make soak`: kill members of a local federation at random moments, by default 200 times, and say what came of it."""

import argparse
import secrets
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.soak.run import Soak
from tests.support.federation import running_federation


def main() -> int:
    """Exit status 0 when nothing was lost; 1 with what was, and where the federation's files are."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="moments at which processes are killed")
    parser.add_argument("--seed", type=int, default=None, help="of an earlier run, to have its strikes again")
    options = parser.parse_args()
    seed = secrets.randbelow(2**32) if options.seed is None else options.seed
    directory = Path(tempfile.mkdtemp(prefix="pegnode-soak-"))
    say(f"soak: seed {seed}, {options.kills} kills, in {directory}")
    started = time.monotonic()
    try:
        with running_federation(directory / "federation") as federation:
            summary = Soak(federation, seed, say).run(options.kills)
    except AssertionError as failure:
        traceback.print_exc()
        say(f"soak: FAILED with seed {seed}: {failure}")
        say(f"soak: logs and data are kept in {directory}")
        return 1
    shutil.rmtree(directory)
    say(f"soak: nothing lost, seed {seed}, {time.monotonic() - started:.0f} s")
    for line in summary.lines():
        say(f"  {line}")
    return 0


def say(line: str) -> None:
    """One line at once, whoever reads it."""
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
