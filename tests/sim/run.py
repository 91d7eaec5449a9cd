"""Runs seeds, one after another or in several processes, and says in one line what came of them."""

import json
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from signal import ITIMER_VIRTUAL, SIG_IGN, SIGINT, SIGVTALRM, setitimer, signal
from typing import Final

from tests.sim.adversary import carried_out, kinds_done
from tests.sim.determinism import HASH_SEED, remember_pure_functions, run_deterministic
from tests.sim.outside import Everybody
from tests.sim.plan import Kind, Plan
from tests.sim.world import SimWorld

CPU_LIMIT_S: Final = 120.0
"""A run that takes longer is in a loop in which no time passes."""
SEEDS_OF_A_POOL: Final = 1_000
"""After so many the processes start anew, with empty memories of what is computed once."""
REPORT_EVERY_S: Final = 60.0
"""How often a run tells how far it is."""
ROOT: Final = Path(__file__).parents[2]
CODE: Final = ("bridge", "federation", "pegnode", "tests/sim", "tests/support")
"""All that decides what comes of a seed."""


class Endless(BaseException):
    """A run went over CPU_LIMIT_S. A BaseException: no member may take it for its own."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one seed.

    nullified: of the views.  ends: of members' processes, by crash, failure of power or a full disk.
    planned: crashes that the plan has.  crashes: how often those that happened did so, by how and at which write.
    evils: how often the Byzantine members did what, see `carried_out`.
    violation: None for a good one.  cpu_s: the processor's time, another each time.
    """

    seed: int
    size: int
    views: int
    nullified: int
    final_blocks: int
    ends: int
    planned: int
    crashes: dict[str, int]
    evils: dict[str, int]
    violation: str | None
    fingerprint: int
    virtual_s: float
    cpu_s: float


def run_plan(plan: Plan) -> tuple[SimWorld, Outcome]:
    """One run, in this process."""
    started_s = time.process_time()
    made: list[SimWorld] = []

    async def main() -> None:
        made.append(SimWorld(plan, Everybody()))
        await made[0].run()

    with suppress(Endless):
        run_deterministic(plan.seed, main)
    [world] = made
    violation = None if world.violation is None else str(world.violation)
    if time.process_time() - started_s > CPU_LIMIT_S:
        violation = f"endless: more than {CPU_LIMIT_S:.0f} s of the processor"
    outcome = Outcome(
        seed=plan.seed,
        size=plan.size,
        views=world.watch.highest_view,
        nullified=len(world.watch.nullified),
        final_blocks=len(world.watch.final),
        ends=world.ends,
        planned=sum(disturbance.kind is Kind.CRASH for disturbance in plan.disturbances),
        crashes=dict(world.crashes()),
        evils=dict(carried_out(world.network.adversaries.values())),
        violation=violation,
        fingerprint=world.trace.fingerprint,
        virtual_s=world.trace.entries[-1][0],
        cpu_s=time.process_time() - started_s,
    )
    return world, outcome


def prepare() -> None:
    """Make a process ready to run seeds, and nothing else."""
    remember_pure_functions()

    def end(*_: object) -> None:
        raise Endless

    signal(SIGVTALRM, end)


def prepare_worker() -> None:
    """The same in a process that leaves it to its parent to be interrupted."""
    prepare()
    signal(SIGINT, SIG_IGN)


def run_seed(seed: int) -> Outcome:
    """The plan of a seed, run within CPU_LIMIT_S."""
    setitimer(ITIMER_VIRTUAL, CPU_LIMIT_S)
    try:
        return run_plan(Plan.of(seed))[1]
    finally:
        setitimer(ITIMER_VIRTUAL, 0)


# many of them


def outcomes(seeds: Sequence[int], jobs: int) -> Iterator[Outcome]:
    """Of all seeds, in their order. Each process starts with hashes of strings as everywhere else."""
    os.environ["PYTHONHASHSEED"] = HASH_SEED
    spawn = multiprocessing.get_context("spawn")
    for first in range(0, len(seeds), SEEDS_OF_A_POOL):
        with ProcessPoolExecutor(jobs, mp_context=spawn, initializer=prepare_worker) as pool:
            try:
                yield from pool.map(run_seed, seeds[first : first + SEEDS_OF_A_POOL])
            finally:
                pool.shutdown(cancel_futures=True)


class NotResumable(Exception):  # noqa: N818 -- a refusal, which says why
    """The progress in a file is of another run."""


def code_digest() -> str:
    """What tells the simulator and the program that it runs apart from all others, by their sources."""
    digest = sha256()
    for folder in CODE:
        for file in sorted((ROOT / folder).rglob("*.py")):
            digest.update(f"{file.relative_to(ROOT)}\0{file.stat().st_size}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


@dataclass(slots=True)
class Progress:
    """What a long run has come to, kept in a file after each seed, so that it can be stopped at any moment.

    code: of `code_digest`.  first: the first seed.  planned, crashes, evils: see `Outcome`.
    """

    code: str
    first: int
    next_seed: int
    seeds: int = 0
    views: int = 0
    nullified: int = 0
    ends: int = 0
    planned: int = 0
    crashes: dict[str, int] = field(default_factory=dict)
    evils: dict[str, int] = field(default_factory=dict)
    final_blocks: int = 0
    virtual_s: float = 0.0
    elapsed_s: float = 0.0
    failed: dict[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, file: Path | None, first: int) -> "Progress":
        """Where the file left off; without one, at the beginning. Raises NotResumable."""
        code = code_digest()
        if file is None or not file.exists():
            return cls(code, first, first)
        kept = json.loads(file.read_text())
        if kept.get("code") != code:
            raise NotResumable(f"{file} is of another version of the code")
        if kept["first"] != first:
            raise NotResumable(f"{file} has the seeds from {kept['first']} on")
        return cls(**kept)

    def add(self, outcome: Outcome, elapsed_s: float) -> None:
        """Count one seed."""
        self.next_seed = outcome.seed + 1
        self.seeds += 1
        self.views += outcome.views
        self.nullified += outcome.nullified
        self.ends += outcome.ends
        self.planned += outcome.planned
        self.crashes = dict(Counter(self.crashes) + Counter(outcome.crashes))
        self.evils = dict(Counter(self.evils) + Counter(outcome.evils))
        self.final_blocks += outcome.final_blocks
        self.virtual_s += outcome.virtual_s
        self.elapsed_s += elapsed_s
        if outcome.violation is not None:
            self.failed[str(outcome.seed)] = outcome.violation

    def save(self, file: Path) -> None:
        """The file is there whole, or as it was."""
        file.parent.mkdir(parents=True, exist_ok=True)
        beside = file.with_name(f"{file.name}.new")
        beside.write_text(json.dumps(asdict(self)))
        beside.replace(file)

    def line(self) -> str:
        """All of it in one line."""
        pace = self.seeds / self.elapsed_s * 60 if self.elapsed_s else 0
        return (
            f"sim: {self.seeds} seeds, {self.views} views, {self.nullified} of them nullified, "
            f"{self.final_blocks} final blocks, {self.ends} ends of processes, "
            f"{sum(self.crashes.values())} of {self.planned} planned crashes, "
            f"{kinds_done(self.evils)}, "
            f"{self.virtual_s / 3600:.1f} hours of virtual time; "
            f"{len(self.failed)} violations, {pace:.0f} seeds a minute"
        )


def run_seeds(first: int, count: int, jobs: int, file: Path | None, say: Callable[[str], None]) -> Progress:
    """Run the seeds from `first` on, or go on where `file` left off. say: is told of violations at once.

    Raises NotResumable.
    """
    progress = Progress.load(file, first)
    last_s = told_s = time.monotonic()
    for outcome in outcomes(range(progress.next_seed, first + count), jobs):
        now_s = time.monotonic()
        progress.add(outcome, now_s - last_s)
        last_s = now_s
        if outcome.violation is not None:
            say(failure(outcome))
        if file is not None:
            progress.save(file)
        if now_s - told_s >= REPORT_EVERY_S:
            told_s = now_s
            say(f"  {first + count - progress.next_seed} to go; {progress.line()}")
    return progress


def command_again(seed: int) -> str:
    """What replays one seed alone."""
    return f"python -m tests.sim --seed {seed} --trace"


def failure(outcome: Outcome) -> str:
    """What was found."""
    found = f"sim: seed {outcome.seed} ({outcome.size} members): {outcome.violation}"
    return f"{found}\n     again: {command_again(outcome.seed)}"
