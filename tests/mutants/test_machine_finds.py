"""A broken rule about time, which the model doesn't have, is found by bare machines under virtual time."""

from tests.machine.uneven import PassOver, require_honest_blocks, uneven
from tests.machine.watch import Violation
from tests.mutants import broken


def _starves() -> str:
    """What a federation with a quick leader who passes users over is found guilty of."""
    try:
        require_honest_blocks(uneven(4, (1,), PassOver))
    except Violation as violation:
        return str(violation)
    return ""


def test_machines_find_broken_rule() -> None:
    with broken.any_notarization_ends_backing_off():
        assert _starves().startswith("honest leaders starve")


def test_machines_find_nothing_in_the_real_rules() -> None:
    assert not _starves()
