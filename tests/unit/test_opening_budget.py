"""A leader's share of evidence: less after a block that came to nothing, more after one that became final."""

from typing import cast

from bridge.bitcoin.identifiers import BlockHash
from pegnode.service.opening_budget import FIRST_SHARE, OpeningBudget
from pegnode.storage.store import ChainStore

LOST, FINAL = BlockHash(bytes(32)), BlockHash(b"\x01" * 32)


class Store:
    """Knows one final block."""

    def height_of(self, block_hash: BlockHash) -> int | None:
        return 1 if block_hash == FINAL else None


def after(budget: OpeningBudget, *blocks: BlockHash) -> int:
    """The share after these proposals."""
    for block_hash in blocks:
        budget.proposed(block_hash)
        budget.judge(cast(ChainStore, Store()))
    return budget.openings


def test_share_halves_with_each_block_that_is_lost_and_doubles_with_each_final_one() -> None:
    budget = OpeningBudget(500)
    assert budget.openings == FIRST_SHARE
    assert after(budget, FINAL) == 2 * FIRST_SHARE
    assert after(budget, FINAL, FINAL) == 500
    assert after(budget, LOST) == 250
    assert after(budget, LOST, LOST) == 62


def test_share_is_never_more_than_the_rules_allow() -> None:
    assert OpeningBudget(7).openings == 7
    assert after(OpeningBudget(7), FINAL) == 7


def test_share_is_never_nothing() -> None:
    assert after(OpeningBudget(500), *[LOST] * 20) == 1


def test_each_block_is_judged_once() -> None:
    budget = OpeningBudget(500)
    share = after(budget, LOST)
    budget.judge(cast(ChainStore, Store()))
    assert budget.openings == share


def test_share_shrinks_when_the_bitcoin_node_is_too_slow() -> None:
    budget = OpeningBudget(500)
    budget.shrink()
    assert budget.openings == FIRST_SHARE // 2
