"""The exhaustive exploration, within bounds that continuous integration can afford: `make model` goes further."""

import pytest

from tests.model import local, member
from tests.model.explore import Explorer
from tests.model.result import SIGHTS, Bounds, missing_sights
from tests.model.universe import SIZE
from tests.mutants.broken import digest_without_kind

ONE_VIEW = [*range(SIZE), None]
Soup = frozenset[tuple[tuple[str, ...], ...]]


@pytest.mark.parametrize("byzantine", ONE_VIEW)
def test_one_view_keeps_every_rule(byzantine: int | None) -> None:
    result = Explorer(Bounds(1, byzantine)).run()
    assert result.complete
    assert result.violation is None, str(result.violation)
    assert not missing_sights(result)


def test_two_views_keep_every_rule() -> None:
    result = Explorer(Bounds(2, 0, crashes=False)).run()
    assert result.complete
    assert result.violation is None, str(result.violation)
    assert not missing_sights(result)


@pytest.mark.parametrize("byzantine", [1, 2])
def test_two_views_and_twins_keep_every_rule_as_far_as_time_allows(byzantine: int) -> None:
    result = Explorer(Bounds(2, byzantine, max_states=2500)).run()
    assert result.violation is None, str(result.violation)
    assert result.sights == SIGHTS


def soups(bounds: Bounds) -> Soup:
    """What the honest members can have said, by all the ways that were explored."""
    explorer = Explorer(bounds)
    result = explorer.run()
    assert result.complete
    assert result.violation is None, str(result.violation)
    universe = explorer.universe
    return frozenset(tuple(tuple(sorted(map(str, universe.said(word)))) for word in soup) for soup in explorer.soups)


@pytest.mark.parametrize("byzantine", [0, 1])
def test_fewer_steps_lead_to_all_that_plain_steps_lead_to(byzantine: int) -> None:
    assert soups(Bounds(1, byzantine, liveness=False)) == soups(Bounds(1, byzantine, liveness=False, plain=True))


@pytest.mark.parametrize("byzantine", [0, 1])
def test_silent_steps_need_not_be_interleaved(byzantine: int) -> None:
    assert soups(Bounds(1, byzantine, liveness=False)) == soups(Bounds(1, byzantine, liveness=False, interleaved=True))


def test_unknown_part_of_the_state_is_not_left_out_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "STATE_LEFT_OUT", member.STATE_LEFT_OUT - {"pace"})
    with pytest.raises(AssertionError, match="does not know"):
        Explorer(Bounds(1, 0))


def test_violation_is_told_step_by_step() -> None:
    with digest_without_kind():
        violation = Explorer(Bounds(1, 1, rules=frozenset({"final-and-nullified"}))).run().violation
    assert violation is not None
    assert str(violation).startswith("final-and-nullified: ")
    assert any("timer fire; votes nullify in view 1" in line for line in violation.path)
    assert any("hears the proposal" in line for line in violation.path)


def test_exploration_that_is_cut_short_says_so() -> None:
    result = Explorer(Bounds(1, 1, max_states=50)).run()
    assert not result.complete
    assert "NOT COMPLETE" in result.line()
