"""Each broken rule of whole members is found by the simulator: by its watch, its judge, or after the healing."""

import pytest

from tests.mutants import broken, members, simulated
from tests.mutants.broken import Patch
from tests.sim.plan import Plan

SEED = 0

MUTANTS: dict[str, tuple[Patch, str, str]] = {
    mutant.__name__: (mutant, evil, violation)
    for mutant, evil, violation in (
        (simulated.ledger_root_unchecked, "no ledger's root", "body-wrong-ledger-root"),
        (simulated.evidence_accepted_twice, "a deposit claimed again", "evidence-already-entered"),
        (simulated.equality_unchecked, "no ledger's root", "sats counted"),
    )
}
PLANNED: dict[str, tuple[Patch, Plan, str]] = {
    mutant.__name__: (mutant, plan, violation)
    for mutant, plan, violation in (
        (broken.journal_not_synced, members.CALM, "leaves, and a power failure would lose it"),
        (broken.leader_proposes_anew, members.POWER_FAILS, "died of JournalRefused: journal-conflict"),
        (members.disk_lies, members.POWER_FAILS, "cast two NOTARIZE votes in view 1"),
        (broken.quorum_one_lower, members.HALVES, "another final block at height 1"),
        (broken.nullify_forbidden_after_notarize, members.HALVES, "no block of a view above 1 within"),
        (members.nobody_proposes_for_long, members.CALM, "views after it, and 8 are due"),
        (members.batches_left_out, members.BURNS, "is refunded, though it offers enough"),
        (members.settlements_left_out, members.BURNS, "after the healing: 0 transactions, 0 deposits, "),
    )
}


@pytest.mark.parametrize("name", MUTANTS)
def test_simulator_finds_broken_rule(name: str) -> None:
    patch, evil, violation = MUTANTS[name]
    with patch():
        assert violation in simulated.violation_of(SEED, evil)


@pytest.mark.parametrize("evil", sorted({evil for _, evil, _ in MUTANTS.values()}))
def test_simulator_finds_nothing_under_the_real_rules(evil: str) -> None:
    assert not simulated.violation_of(SEED, evil)


@pytest.mark.parametrize("name", PLANNED)
def test_simulator_finds_broken_rule_where_nobody_is_evil(name: str) -> None:
    patch, plan, violation = PLANNED[name]
    with patch():
        assert violation in members.violation_of(plan)


@pytest.mark.parametrize("plan", dict.fromkeys(plan for _, plan, _ in PLANNED.values()), ids=str)
def test_simulator_finds_nothing_where_nobody_is_evil(plan: Plan) -> None:
    assert not members.violation_of(plan)
