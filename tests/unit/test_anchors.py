"""The anchor that a leader may choose."""

import pytest

from bridge.bitcoin.identifiers import BlockHash
from bridge.state import Anchor
from pegnode.service.anchors import choose_anchor

QUORUM = 3
MAX_STEP = 10


def block(height: int, fork: int = 0) -> Anchor:
    return Anchor(height, BlockHash(bytes([height, fork]) * 16))


async def chosen(parent: Anchor, *reports: Anchor, tip: int = 50) -> Anchor:
    async def active_block(height: int) -> BlockHash | None:
        return block(height).hash if height <= tip else None

    return await choose_anchor(parent, dict(enumerate(reports)), QUORUM, MAX_STEP, active_block)


@pytest.mark.parametrize(
    ("heights", "expected"),
    [((20, 21, 22, 23), 21), ((20, 20, 20), 20), ((18, 25, 25, 25), 25), ((15, 15, 15, 15), 15)],
)
async def test_anchor_is_the_highest_that_a_quorum_reports(heights: tuple[int, ...], expected: int) -> None:
    assert await chosen(block(15), *(block(height) for height in heights)) == block(expected)


async def test_anchor_stays_without_a_quorum_of_reports() -> None:
    assert await chosen(block(15), block(20), block(20)) == block(15)


async def test_report_from_another_branch_counts_for_nothing() -> None:
    assert await chosen(block(15), block(20), block(20), block(20, fork=1)) == block(15)
    assert await chosen(block(15), block(20), block(20), block(30, fork=1), block(17)) == block(17)


async def test_report_above_the_own_tip_counts_for_nothing() -> None:
    assert await chosen(block(15), block(20), block(20), block(40), tip=30) == block(15)


async def test_anchor_never_goes_back() -> None:
    assert await chosen(block(25), block(20), block(21), block(22)) == block(25)


async def test_anchor_moves_by_at_most_the_step() -> None:
    assert await chosen(block(15), block(40), block(40), block(40)) == block(15 + MAX_STEP)


async def test_anchor_stays_when_the_own_chain_does_not_hold_the_parents() -> None:
    assert await chosen(block(15, fork=1), block(20), block(20), block(20)) == block(15, fork=1)


@pytest.mark.parametrize("reports", [(), (20, 20), (15, 15, 15, 15), (14, 15, 20, 20)])
async def test_nothing_is_asked_while_too_few_report_news(reports: tuple[int, ...]) -> None:
    async def active_block(height: int) -> BlockHash | None:
        raise AssertionError(f"asked for block {height}")

    told = {member: block(height) for member, height in enumerate(reports)}
    assert await choose_anchor(block(15), told, QUORUM, MAX_STEP, active_block) == block(15)
