"""`make sim`: run the federation of whole members through bad times, one for each seed."""

import argparse
import os
import sys
from collections import Counter
from pathlib import Path

from tests.sim.determinism import HASH_SEED, is_hash_seeded
from tests.sim.plan import FIRST_LONG, Plan
from tests.sim.points import spread, walk, writes_of
from tests.sim.run import NotResumable, command_again, failure, prepare, run_plan, run_seeds


def main() -> int:
    """Exit status 0 when nothing was found, 1 with violations, 2 when there is nothing to go on from."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1_000, help="how many")
    parser.add_argument("--first", type=int, default=FIRST_LONG, help="the first seed; those below are short")
    parser.add_argument("--seed", type=int, help="this one alone")
    parser.add_argument("--trace", action="store_true", help="with --seed: print all that happened")
    parser.add_argument("--resume", type=Path, metavar="FILE", help="keep the progress there, and go on from it")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at a time")
    parser.add_argument("--points", type=int, metavar="MEMBER", help="end this member at each write of a short run")
    parser.add_argument("--of-each", type=int, metavar="COUNT", help="with --points: so many writes of each kind")
    options = parser.parse_args()
    if options.seed is not None:
        return replay(options.seed, with_trace=options.trace)
    if options.points is not None:
        return walk_points(options.points, options.of_each)
    try:
        progress = run_seeds(options.first, options.seeds, options.jobs, options.resume, say)
    except KeyboardInterrupt:
        say("sim: stopped" + ("; the same command goes on from here" if options.resume else ""))
        return 130
    except NotResumable as error:
        say(f"sim: {error}; remove it to begin anew")
        return 2
    for seed, violation in progress.failed.items():
        say(f"sim: seed {seed}: {violation.splitlines()[0]}; again: {command_again(int(seed))}")
    say(progress.line())
    if options.resume is not None:
        say(f"sim: kept in {options.resume}; remove it to run these seeds again")
    return 1 if progress.failed else 0


def replay(seed: int, *, with_trace: bool) -> int:
    """One seed in this process."""
    seed_hashes()
    prepare()
    world, outcome = run_plan(Plan.of(seed))
    if with_trace:
        for line in world.trace.lines():
            say(line)
    if outcome.violation is not None:
        say(failure(outcome))
        return 1
    say(
        f"sim: seed {seed}: {outcome.size} members, {outcome.views} views, {outcome.final_blocks} final blocks, "
        f"{outcome.virtual_s:.0f} s of virtual time in {outcome.cpu_s:.2f} s; fingerprint {outcome.fingerprint:08x}"
    )
    return 0


def walk_points(member: int, of_each: int | None) -> int:
    """The writes of one member in one short run, each with each end."""
    seed_hashes()
    prepare()
    violations = 0
    writes = writes_of(member)
    numbers = spread(writes, of_each)
    walked: Counter[str] = Counter()
    for point, outcome in walk(member, numbers):
        walked[f"{point.end} {point.kind}"] += 1
        if outcome.violation is not None:
            violations += 1
            say(f"sim: {point}: {outcome.violation}")
    for end, count in sorted(walked.items()):
        say(f"  {count} {end}")
    say(
        f"sim: member {member} ended {walked.total()} times, at {len(numbers)} of its {len(writes)} writes, "
        f"{violations} violations"
    )
    return 1 if violations else 0


def seed_hashes() -> None:
    """Start this process anew where the hashes of strings are not those of every replay."""
    if not is_hash_seeded():
        os.environ["PYTHONHASHSEED"] = HASH_SEED
        os.execv(sys.executable, [sys.executable, "-m", "tests.sim", *sys.argv[1:]])


def say(line: str) -> None:
    """One line at once, whoever reads it."""
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
