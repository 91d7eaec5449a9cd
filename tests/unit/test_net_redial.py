"""When a peer is dialled again."""

import random
from dataclasses import dataclass

import pytest

from pegnode.net.redial import LASTING_S, REDIAL_MAX_S, REDIAL_MIN_S, Redial


@dataclass
class Longest:
    """No spread: always the longest wait."""

    def uniform(self, a: float, b: float) -> float:
        """`b`."""
        return b


def test_waits_double_up_to_the_limit() -> None:
    redial = Redial(Longest())
    waits_s = [redial.wait_s(0.0) for _ in range(7)]
    assert waits_s == pytest.approx([0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0])


def test_links_that_come_and_go_are_used_at_once_each_time() -> None:
    """Whole for three seconds, cut for two: before, the waits grew until they were as long as the links were whole."""
    redial = Redial(Longest())
    for _ in range(10):
        waits_s = [redial.wait_s(lasted_s) for lasted_s in (3.0, 0.0, 0.0, 0.0)]
        assert waits_s[0] == REDIAL_MIN_S
        assert sum(waits_s) <= 3.0


def test_connection_that_ends_at_once_is_a_failure() -> None:
    redial = Redial(Longest())
    waits_s = [redial.wait_s(0.9 * LASTING_S) for _ in range(10)]
    assert waits_s[-1] == REDIAL_MAX_S


def test_waits_are_spread_over_half_of_the_longest() -> None:
    waits_s = [Redial(random.Random(seed)).wait_s(0.0) for seed in range(200)]
    assert REDIAL_MIN_S / 2 <= min(waits_s) < 0.6 * REDIAL_MIN_S
    assert 0.9 * REDIAL_MIN_S < max(waits_s) <= REDIAL_MIN_S
