"""Fuzzes each target for a time, one after the other: `make fuzz`, or `python -m tests.fuzz`.

An input that breaks a property is left under `.fuzz/TARGET/findings/`, and the exit status is 1. To see it again,
anywhere: `python -m tests.fuzz TARGET --input FILE`.
"""

import argparse
import os
import re
import resource
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.fuzz.minimise import minimised
from tests.fuzz.targets import NAMES, load

ROOT = Path(__file__).parents[2]
WORK = ROOT / ".fuzz"
PATIENCE_SECONDS = 60
POLL_SECONDS = 0.5
CORPUS_BYTES = 5_000
"""Of each target, in the repository; twice as many in hex."""

_STATUS = re.compile(r"cov: (\d+) ft: (\d+) corp: (\d+)/(\d+)([KM]?b)")
_EXECUTIONS = re.compile(r"stat::number_of_executed_units: (\d+)")


@dataclass(frozen=True)
class Outcome:
    """What a run of one target came to."""

    name: str
    executions: int
    coverage: str
    minutes: float
    cpu_minutes: float
    findings: tuple[Path, ...]

    def line(self) -> str:
        """For people."""
        found = "nothing found" if not self.findings else f"FOUND: {', '.join(map(_shown, self.findings))}"
        done = f"{self.executions:>11,} executions in {self.minutes:.1f} min ({self.cpu_minutes:.1f} of CPU)"
        return f"{self.name:<13}{done}, {self.coverage}; {found}"


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", help=f"which: {', '.join(NAMES)}; all without any")
    parser.add_argument("--minutes", type=float, default=20.0, help="of CPU time, for each target")
    parser.add_argument("--keep", action="store_true", help="put what was reached into the repository's corpus")
    parser.add_argument("--input", type=Path, help="give this file to the one target, and fuzz nothing")
    given = parser.parse_args()
    if unknown := set(given.targets) - set(NAMES):
        parser.error(f"no target {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    if given.input is not None:
        if len(given.targets) != 1:
            parser.error("--input takes one target")
        accepted = load(given.targets[0]).check(given.input.read_bytes())
        print("accepted, and every property holds" if accepted else "refused, and every property holds")
        return 0
    if find_spec("atheris") is None:
        print("fuzzing needs atheris, which exists for Linux on x86-64 alone; the properties themselves: make test")
        return 2
    outcomes = []
    for name in given.targets or NAMES:
        outcome = _run(name, given.minutes)
        outcomes.append(outcome)
        print(outcome.line(), flush=True)
        if given.keep:
            _keep(name)
    return 1 if any(outcome.findings for outcome in outcomes) else 0


def _run(name: str, minutes: float) -> Outcome:
    """Fuzz one target until its time is over, or found something."""
    corpus, findings, log = (WORK / name / part for part in ("corpus", "findings", "log"))
    corpus.mkdir(parents=True, exist_ok=True)
    findings.mkdir(exist_ok=True)
    before = set(findings.iterdir())
    with log.open("wb") as output, TemporaryDirectory() as scratch:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.engine", name, str(corpus), str(findings)],
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": scratch},
        )
        began = time.monotonic()
        cpu_minutes = _await(process, minutes)
        minutes = (time.monotonic() - began) / 60
    text = log.read_text(errors="replace")
    found = tuple(sorted(set(findings.iterdir()) - before))
    if process.returncode not in (0, -signal.SIGTERM, 72) and not found:  # 72: libFuzzer's own word for "told to end"
        found = (log,)
    executions = _EXECUTIONS.findall(text)
    return Outcome(name, int(executions[-1]) if executions else 0, _coverage(text), minutes, cpu_minutes, found)


def _await(process: subprocess.Popen[bytes], minutes: float) -> float:
    """End a process after so many minutes of CPU time, if it has not ended by then; those that it used."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        while process.poll() is None and _cpu_minutes(process.pid) < minutes:
            time.sleep(POLL_SECONDS)
        process.terminate()  # libFuzzer says its last words
        process.wait(timeout=PATIENCE_SECONDS)
    finally:
        process.kill()
        process.wait()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / 60


def _cpu_minutes(pid: int) -> float:
    """What a child that runs, or was not waited for yet, has used. Source: proc_pid_stat(5), fields 14 and 15."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") / 60


def _coverage(log: str) -> str:
    """In the engine's own numbers."""
    found = _STATUS.findall(log)
    if not found:
        return "which never began"
    branches, features, inputs, size, unit = found[-1]
    return f"{branches} branches and {features} features by {inputs} inputs of {size} {unit}"


def _keep(name: str) -> None:
    """Write the repository's corpus of a target: what a small part of the large one reaches."""
    target = load(name)
    inputs = [path.read_bytes() for path in (WORK / name / "corpus").iterdir()]
    kept = minimised(target, inputs, CORPUS_BYTES)
    target.corpus_path.parent.mkdir(exist_ok=True)
    target.corpus_path.write_text("".join(f"{data.hex()}\n" for data in kept), encoding="ascii")
    print(f"{name}: kept {len(kept)} of {len(inputs)} inputs, {sum(map(len, kept))} bytes", flush=True)


def _shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


if __name__ == "__main__":
    sys.exit(main())
