"""Random runs by seed. PEGNODE_MACHINE_SEED=17 runs that one again, PEGNODE_MACHINE_SEED=0:5000 a range."""

import os

import pytest

from tests.machine.scenario import Scenario, run

DEFAULT_SEEDS = range(100)


def seeds() -> range:
    """The seeds that the environment asks for."""
    first, colon, end = os.environ.get("PEGNODE_MACHINE_SEED", "").partition(":")
    if not first:
        return DEFAULT_SEEDS
    return range(int(first), int(end) if colon else int(first) + 1)


@pytest.mark.parametrize("seed", seeds())
def test_random_faults_break_no_promise_and_progress_resumes(seed: int) -> None:
    try:
        run(seed)
    except Exception as error:
        error.add_note(f"{Scenario.of(seed)}\nagain: PEGNODE_MACHINE_SEED={seed} pytest {__file__}")
        raise


def test_same_seed_gives_the_same_run() -> None:
    first, second = run(3), run(3)
    assert first.watch.final == second.watch.final
    assert first.now_ms == second.now_ms
