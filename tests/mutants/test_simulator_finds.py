"""Each broken rule of whole members is found by the simulator's judge of final blocks, as the fault that it is."""

import pytest

from tests.mutants import simulated
from tests.mutants.broken import Patch

SEED = 0

MUTANTS: dict[str, tuple[Patch, str, str]] = {
    mutant.__name__: (mutant, evil, violation)
    for mutant, evil, violation in (
        (simulated.ledger_root_unchecked, "no ledger's root", "body-wrong-ledger-root"),
        (simulated.evidence_accepted_twice, "a deposit claimed again", "evidence-already-entered"),
        (simulated.equality_unchecked, "no ledger's root", "sats counted"),
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
