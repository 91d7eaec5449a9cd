"""What each may ask for, and who is kept out: remembered beyond connections, and not without bound."""

import pytest

from pegnode.net import allowance as allowance_module
from pegnode.net import penalties as penalties_module
from pegnode.net.allowance import Allowance, Allowances, SharedAllowances
from pegnode.net.penalties import FORGOTTEN_AFTER_S, Penalties


def test_debt_is_paid_by_waiting() -> None:
    now = [0.0]
    allowance = Allowance(per_s=10, burst=100, now_s=lambda: now[0])
    assert allowance.owe(60) == 0
    assert allowance.owe(60) == 2
    assert not allowance.take(1)
    now[0] += 2
    assert allowance.owe(10) == 1
    now[0] += 1_000
    assert allowance.owe(100) == 0, "never more than the burst"


def test_each_holder_has_its_own_and_finds_it_as_it_left_it() -> None:
    held: Allowances[str] = Allowances(1, 10, lambda: 0.0)
    assert held.of("one").take(10)
    assert held.of("other").take(10)
    assert not held.of("one").take(1)


def test_holders_are_forgotten_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allowance_module, "MAX_HOLDERS", 3)
    held: Allowances[int] = Allowances(1, 10, lambda: 0.0)
    for holder in (1, 2, 3, 1, 4):
        held.of(holder).take(10)
    assert [held.of(holder).take(1) for holder in (1, 3, 4)] == [False] * 3
    assert held.of(2).take(1), "unused for longest"


def test_holders_share_what_all_have_together() -> None:
    now = [0.0]
    held: SharedAllowances[int] = SharedAllowances(1, 4, times=2, now_s=lambda: now[0])
    assert [held.take(1, 2) for _ in range(3)] == [True, True, False], "its own is used up"
    assert [held.take(holder, 2) for holder in (2, 3, 4)] == [True, True, False], "what all have is"
    now[0] += 1
    assert [held.take(holder, 1) for holder in (1, 2, 3)] == [True, True, False]


def test_penalty_doubles_up_to_its_limit_and_is_forgotten() -> None:
    penalties: Penalties[str] = Penalties(first_s=10, longest_s=60)
    assert penalties.wait_s("one", 0) == 0
    assert [penalties.punish("one", 0) for _ in range(5)] == [10, 20, 40, 60, 60]
    assert penalties.wait_s("one", 59) == 1
    assert penalties.wait_s("one", 61) == 0
    assert penalties.wait_s("other", 0) == 0
    assert penalties.punish("one", 60 + FORGOTTEN_AFTER_S - 1) == 60
    assert penalties.punish("one", 10_000) == 10


def test_penalties_are_forgotten_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(penalties_module, "MAX_REMEMBERED", 2)
    penalties: Penalties[int] = Penalties(first_s=10, longest_s=60)
    for holder in (1, 2, 1, 3):
        penalties.punish(holder, 0)
    assert [penalties.wait_s(holder, 0) for holder in (1, 2, 3)] == [20, 0, 10]
