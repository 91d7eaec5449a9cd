"""Each broken rule of consensus is found by the exhaustive exploration, as the fault that it is."""

import pytest

from tests.model.explore import Explorer
from tests.model.result import Bounds, Violation
from tests.mutants import broken
from tests.mutants.broken import Patch

MAX_STATES = 400

MUTANTS: dict[str, tuple[Patch, Bounds, str]] = {
    mutant.__name__: (mutant, Bounds(views, byzantine, rules=frozenset({rule}), max_states=MAX_STATES), rule)
    for mutant, views, byzantine, rule in (
        (broken.quorum_one_lower, 1, 1, "fork"),
        (broken.certificate_one_vote_early, 1, 1, "false-certificate"),
        (broken.finalize_after_nullify, 1, 1, "finalize-after-nullify"),
        (broken.notarize_after_nullify, 1, 1, "notarize-after-nullify"),
        (broken.nullify_after_finalize, 1, 1, "nullify-after-finalize"),
        (broken.nullify_forbidden_after_notarize, 1, 1, "stuck"),
        (broken.two_votes_in_one_view, 1, 1, "two-notarize-votes"),
        (broken.finalize_without_notarization, 1, 1, "finalize-without-notarization"),
        (broken.notarized_is_final, 1, 1, "final-without-proof"),
        (broken.missing_nullification_accepted, 2, 2, "unjustified-vote"),
        (broken.digest_without_kind, 1, 1, "final-and-nullified"),
        (broken.signers_not_distinct, 1, 1, "fork"),
        (broken.journal_not_synced, 1, 1, "two-notarize-votes"),
        (broken.leader_proposes_anew, 1, 0, "two-proposals"),
        (broken.restart_forgets_floor, 1, 1, "nullify-after-finalize"),
        (broken.journal_pruned_too_early, 2, 1, "journal-refused"),
        (broken.timer_without_heartbeat, 1, 1, "stuck"),
    )
}


def violation_within(bounds: Bounds) -> Violation | None:
    """What an exploration finds."""
    return Explorer(bounds).run().violation


@pytest.mark.parametrize("name", MUTANTS)
def test_model_finds_broken_rule(name: str) -> None:
    patch, bounds, rule = MUTANTS[name]
    with patch():
        violation = violation_within(bounds)
    assert violation is not None
    assert violation.rule == rule
    assert violation.path or name == "timer_without_heartbeat"  # which stops a chain before anybody did anything


@pytest.mark.parametrize(
    ("views", "byzantine"), sorted({(b.views, b.byzantine) for _, b, _ in MUTANTS.values()}, key=str)
)
def test_model_finds_nothing_in_the_real_rules(views: int, byzantine: int) -> None:
    assert violation_within(Bounds(views, byzantine, max_states=MAX_STATES)) is None
