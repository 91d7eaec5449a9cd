"""The simulator of whole members, on a run of seeds; and that these hold what the simulator is said to have."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.sim import run
from tests.sim.determinism import HASH_SEED
from tests.sim.disk import ENDS, Trap
from tests.sim.plan import FIRST_LONG, FORGETTING, WRITES, Kind, Plan

SHORT_SEEDS = range(1, 301)
LONG_SEEDS = (1001, 1006, 1007, 1019, 1021, 1026, 1032, 1033, 1043, 1059, 1061)
"""Chosen for what `test_seeds_have_every_family_of_faults` asks for, and payouts that are signed."""
ROOT = Path(__file__).parents[2]
KINDS_WALKED = {
    "journal vote", "journal certificate", "journal header",
    "database block", "database deposit_scripts", "database signed_payouts",
}  # fmt: skip
OF_EACH = 4


def simulate(*options: object) -> subprocess.CompletedProcess[str]:
    """The simulator in a process of its own, as `make sim` starts it."""
    command = [sys.executable, "-m", "tests.sim", *map(str, options)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_federation_bears_whatever_the_seeds_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that must never happen does, and after the healing the chain goes on and everything settles.

    And the processes that the plans end did end, in each way, and at each kind of write.
    """
    monkeypatch.setenv("PYTHONHASHSEED", HASH_SEED)
    planned = 0
    crashes: Counter[str] = Counter()
    for outcome in run.outcomes([*SHORT_SEEDS, *LONG_SEEDS], 1):
        assert outcome.violation is None, run.failure(outcome)
        planned += outcome.planned
        crashes.update(outcome.crashes)
    assert crashes.total() > 2 * planned / 3
    for phase, power in ENDS:
        assert any(crash.startswith(Trap(phase, power=power).end) for crash in crashes), crashes
    for kind in WRITES:
        assert kind is None or any(f" {kind}" in crash for crash in crashes), crashes


def test_seeds_have_every_family_of_faults() -> None:
    """What a change of the plan could take from them without a word."""
    short, long = map(Plan.of, SHORT_SEEDS), [Plan.of(seed) for seed in LONG_SEEDS]
    plans = [*short, *long]
    assert {kind for plan in plans for kind in Kind} == {item.kind for plan in plans for item in plan.disturbances}
    assert all(seed >= FIRST_LONG for seed in LONG_SEEDS)
    assert sum(plan.is_far for plan in long) >= 2
    assert sum(bool(plan.incurable) for plan in long) >= 2
    assert any(plan.is_far and plan.byzantine for plan in long)
    assert any(plan.incurable and plan.byzantine for plan in long)
    sizes = {plan.size for plan in long}
    assert 7 in sizes
    assert sizes & {10, 15}
    forgetting = [item.kind for plan in plans for item in plan.disturbances if item.kind in FORGETTING]
    assert min(Counter(forgetting).values()) >= 3


def test_member_bears_each_end_at_its_writes() -> None:
    """One short run, with each end at some writes of each kind that a member among honest ones has."""
    walked = simulate("--points", 1, "--of-each", OF_EACH)
    assert walked.returncode == 0, walked.stdout + walked.stderr
    *counts, last = walked.stdout.splitlines()
    ends = {Trap(phase, power=power).end for phase, power in ENDS}
    found = {line.split(maxsplit=1)[1] for line in counts}
    assert found == {f"{end} {kind}" for end in ends for kind in KINDS_WALKED}
    assert int(last.split(" of its ")[1].split()[0]) > 50, last


def test_long_run_goes_on_in_processes_that_start_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each seed once, in order, also where all processes of a pool end together."""
    monkeypatch.setenv("PYTHONHASHSEED", HASH_SEED)
    monkeypatch.setattr(run, "SEEDS_OF_A_POOL", 2)
    assert [outcome.seed for outcome in run.outcomes(range(1, 4), 2)] == [1, 2, 3]


def test_run_goes_on_where_its_file_left_off_and_keeps_it(tmp_path: Path) -> None:
    """Two seeds, then one more; then nothing is left to do, and the file has the whole sum."""
    file = tmp_path / "progress.json"
    assert simulate("--seeds", 2, "--first", 1, "--jobs", 1, "--resume", file).returncode == 0
    begun = json.loads(file.read_text())
    again = simulate("--seeds", 3, "--first", 1, "--jobs", 1, "--resume", file)
    kept = json.loads(file.read_text())
    assert (begun["seeds"], kept["seeds"], kept["next_seed"]) == (2, 3, 4)
    assert kept["planned"] >= begun["planned"]
    assert f"kept in {file}" in again.stdout
    assert "sim: 3 seeds, " in simulate("--seeds", 3, "--first", 1, "--resume", file).stdout


@pytest.mark.parametrize(
    ("change", "words"),
    [({"code": "0123456789abcdef"}, "is of another version of the code"), ({"first": 7}, "has the seeds from 7 on")],
    ids=["code", "first"],
)
def test_run_does_not_go_on_from_another_ones_file(tmp_path: Path, change: dict[str, object], words: str) -> None:
    """One line says why, and the file stays as it was."""
    file = tmp_path / "progress.json"
    run.Progress(run.code_digest(), 1, 5, seeds=4).save(file)
    kept = {**json.loads(file.read_text()), **change}
    file.write_text(json.dumps(kept))
    refused = simulate("--seeds", 9, "--first", 1, "--resume", file)
    assert (refused.returncode, refused.stderr) == (2, "")
    assert refused.stdout == f"sim: {file} {words}; remove it to begin anew\n"
    assert json.loads(file.read_text()) == kept


def test_digest_of_the_code_changes_with_any_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with changes that nobody has committed."""
    monkeypatch.setattr(run, "ROOT", tmp_path)
    source = tmp_path / "pegnode" / "deep" / "machine.py"
    source.parent.mkdir(parents=True)
    source.write_text("QUORUM = 3\n")
    before = run.code_digest()
    assert run.code_digest() == before
    source.write_text("QUORUM = 2\n")
    assert run.code_digest() != before


def test_one_seed_decides_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same seed in two fresh processes gives the same trace, byte by byte; another seed another one."""
    monkeypatch.setenv("PYTHONHASHSEED", "random")
    first, again = simulate("--seed", 2, "--trace"), simulate("--seed", 2, "--trace")
    assert first.returncode == 0, first.stdout
    assert len(first.stdout.splitlines()) > 100
    assert first.stdout.rpartition(" in ")[0] == again.stdout.rpartition(" in ")[0]
    assert first.stdout.rpartition("fingerprint")[2] == again.stdout.rpartition("fingerprint")[2]
    assert simulate("--seed", 3).stdout.rpartition("fingerprint")[2] != first.stdout.rpartition("fingerprint")[2]
