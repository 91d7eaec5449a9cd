"""Settings that every test shares."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Two profiles' worth of patience in one: few examples, no deadline (the machines are small and shared), and the same
# examples on every run, so that a failure is reproduced by running the test again.
settings.register_profile(
    "pegnode", max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("pegnode")

pytest_plugins = ["tests.support.bitcoind", "tests.support.far_world"]

FUNCTIONAL = Path(__file__).parent / "functional"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything under tests/functional: `-m "not functional"` leaves the tests that start no process."""
    for item in items:
        if item.path.is_relative_to(FUNCTIONAL):
            item.add_marker(pytest.mark.functional)
