"""What must never be said by all together, and what is worth having seen."""

from collections.abc import Iterator

from bridge.bitcoin.identifiers import BlockHash
from federation.certificate import VoteKind
from tests.machine.fake_chain import GENESIS
from tests.model.member import RuleBroken
from tests.model.universe import Statement, Universe


def check_soup(universe: Universe, words: tuple[int, ...]) -> Iterator[RuleBroken]:
    """The rules that what the honest members said breaks, the worst first."""
    certified = universe.said(universe.certified(words))
    notarized = [s for s in certified if s.kind is VoteKind.NOTARIZE]
    nullified = {s.view for s in certified if s.kind is VoteKind.NULLIFY}
    final = [s for s in certified if s.kind is VoteKind.FINALIZE]
    yield from _disagreement(universe, notarized, final)
    for statement in final:
        if statement.view in nullified:
            yield RuleBroken("final-and-nullified", f"view {statement.view}")
    blocks = {(s.view, s.block_hash) for s in notarized}
    for statement in universe.said(_any(words)):
        if statement.kind is VoteKind.FINALIZE and (statement.view, statement.block_hash) not in blocks:
            yield RuleBroken("finalize-without-notarization", universe.phrase(statement))
        if statement.kind is VoteKind.NOTARIZE and not _justified(universe, statement, blocks, nullified):
            yield RuleBroken("unjustified-vote", universe.phrase(statement))


def sights(universe: Universe, words: tuple[int, ...]) -> set[str]:
    """Which of the sights that an exploration must not lack this is."""
    certified = universe.said(universe.certified(words))
    notarized = {s.view for s in certified if s.kind is VoteKind.NOTARIZE}
    nullified = {s.view for s in certified if s.kind is VoteKind.NULLIFY}
    final = {s.view for s in certified if s.kind is VoteKind.FINALIZE}
    proposed = [s.view for s in universe.said(_any(words)) if s.kind is VoteKind.NOTARIZE]
    seen = {
        "two proposals in one view": len(proposed) > len(set(proposed)),
        "a nullified view": bool(nullified),
        "a view both notarized and nullified": bool(notarized & nullified),
        "a final block after a nullified view": any(low < high for low in nullified for high in final),
    }
    return {name for name, is_seen in seen.items() if is_seen}


def _disagreement(universe: Universe, notarized: list[Statement], final: list[Statement]) -> Iterator[RuleBroken]:
    for first in final:
        for second in final:
            if first.view <= second.view and not universe.descends(second.block_hash, first.block_hash):
                yield RuleBroken("fork", f"{universe.phrase(first)}, and {universe.phrase(second)}, are both final")
    for position, one in enumerate(notarized):
        if any(one.view == other.view for other in notarized[:position]):
            yield RuleBroken("two-notarizations", f"view {one.view}")
    for low in final:
        for high in notarized:
            if high.view > low.view and not universe.descends(high.block_hash, low.block_hash):
                yield RuleBroken("notarized-beside-final", universe.phrase(high))


def _justified(universe: Universe, vote: Statement, notarized: set[tuple[int, BlockHash]], nullified: set[int]) -> bool:
    """Whether a block's parent is notarized, and every view between nullified."""
    parent_hash = universe.blocks[vote.block_hash].parent_hash
    parent_view = 0 if parent_hash == GENESIS.hash else universe.blocks[parent_hash].view
    is_notarized = parent_view == 0 or (parent_view, parent_hash) in notarized
    return is_notarized and all(view in nullified for view in range(parent_view + 1, vote.view))


def _any(words: tuple[int, ...]) -> int:
    together = 0
    for word in words:
        together |= word
    return together
