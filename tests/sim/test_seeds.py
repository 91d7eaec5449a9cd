"""The simulator of whole members, on the seeds that once found something, and on a run of others."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.sim import run
from tests.sim.regressions import REGRESSIONS

SEEDS = 300
FIRST = 1
LEAST_WRITES = 10
ROOT = Path(__file__).parents[2]


def simulate(*options: object) -> subprocess.CompletedProcess[str]:
    """The simulator in a process of its own, as `make sim` starts it."""
    command = [sys.executable, "-m", "tests.sim", *map(str, options)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_federation_bears_whatever_the_seeds_hold() -> None:
    """Nothing that must never happen does, and after the healing the chain goes on and everything settles.

    First come the seeds that once found something.
    """
    for seed, found in REGRESSIONS:
        again = simulate("--seed", seed)
        assert again.returncode == 0, f"{found}: {again.stdout}{again.stderr}"
    others = simulate("--seeds", SEEDS, "--first", FIRST, "--jobs", 1)
    assert others.returncode == 0, others.stdout + others.stderr


def test_member_bears_an_end_at_every_write() -> None:
    """One short run, once for each write of a member's journal and database."""
    ended = simulate("--points", 1)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert int(ended.stdout.split(" writes,")[0].split()[-1]) > LEAST_WRITES, ended.stdout


def test_long_run_goes_on_in_processes_that_start_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each seed once, in order, also where all processes of a pool end together."""
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    monkeypatch.setattr(run, "SEEDS_OF_A_POOL", 2)
    assert [outcome.seed for outcome in run.outcomes(range(1, 4), 2)] == [1, 2, 3]


def test_one_seed_decides_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same seed in two fresh processes gives the same trace, byte by byte; another seed another one."""
    monkeypatch.setenv("PYTHONHASHSEED", "random")
    first, again = simulate("--seed", 2, "--trace"), simulate("--seed", 2, "--trace")
    assert first.returncode == 0, first.stdout
    assert len(first.stdout.splitlines()) > 100
    assert first.stdout.rpartition(" in ")[0] == again.stdout.rpartition(" in ")[0]
    assert first.stdout.rpartition("fingerprint")[2] == again.stdout.rpartition("fingerprint")[2]
    assert simulate("--seed", 3).stdout.rpartition("fingerprint")[2] != first.stdout.rpartition("fingerprint")[2]
