"""Whatever f leaders do, honest leaders' views get as long as they need: also if the f are quick."""

import pytest

from tests.machine.pace import LOCAL, Silent
from tests.machine.uneven import (
    SUBMIT_EVERY_MS,
    BlindWorld,
    PassOver,
    Staller,
    Withholder,
    require_blocks,
    require_honest_blocks,
    uneven,
)


@pytest.mark.parametrize(("size", "byzantine"), [(4, (1,)), (7, (0, 3))])
def test_quick_leaders_take_the_patience_from_nobody(size: int, byzantine: tuple[int, ...]) -> None:
    require_honest_blocks(uneven(size, byzantine, PassOver))


def test_quick_leaders_who_withhold_what_makes_final_stop_nothing() -> None:
    require_blocks(uneven(10, (0, 3, 6), Staller))


def test_members_who_each_give_up_another_leader_get_something_final() -> None:
    """No view is nullified but the silent leader's, and none has all the votes that it needs."""
    require_blocks(uneven(4, (0,), Withholder, BlindWorld))


def test_silent_leaders_keep_no_timeout_long_once_links_are_quick_again() -> None:
    world = uneven(7, (0, 3), Silent)
    require_blocks(world)
    assert min(member.machine.timeout_ms for member in world.honest) > LOCAL.view_timeout_ms
    world.far = False
    longest_ms = 120 * SUBMIT_EVERY_MS
    assert world.run_for(
        longest_ms, lambda: all(one.machine.timeout_ms < LOCAL.view_timeout_ms for one in world.honest)
    )
