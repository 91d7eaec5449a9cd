"""What is explored, and what it came to."""

from dataclasses import dataclass, field

SIGHTS = {
    "two proposals in one view",
    "a nullified view",
    "a view both notarized and nullified",
    "a final block after a nullified view",
    "a restart in mid-view",
}
"""What an exploration has to see to mean anything."""


@dataclass(frozen=True)
class Bounds:
    """What is explored.

    plain: each thing heard, and each verdict, is a step of its own.  interleaved: so is each step without a word.
    rules: look for these alone; None: for all.
    """

    views: int = 2
    byzantine: int | None = 1
    crashes: bool = True
    liveness: bool = True
    plain: bool = False
    interleaved: bool = False
    rules: frozenset[str] | None = None
    max_states: int | None = None


@dataclass
class Violation:
    """What must never happen, and the shortest way to it. detail: begins with the rule."""

    rule: str
    detail: str
    path: list[str]

    def __str__(self) -> str:
        steps = "\n".join(f"  {number:>2}. {line}" for number, line in enumerate(self.path, 1))
        return f"{self.detail}\n  (B1a is the first block proposed in view 1, B1b another one there)\n{steps}"


@dataclass
class Result:
    """What an exploration came to."""

    bounds: Bounds
    states: int = 0
    transitions: int = 0
    depth: int = 0
    soups: int = 0
    local_states: int = 0
    machine_steps: int = 0
    symmetry: int = 1
    seconds: float = 0.0
    complete: bool = True
    fair_states: int = 0
    sights: set[str] = field(default_factory=set)
    violation: Violation | None = None

    def line(self) -> str:
        """For people."""
        found = "0 violations" if self.violation is None else f"VIOLATION {self.violation.rule}"
        byzantine = "nobody" if self.bounds.byzantine is None else f"member {self.bounds.byzantine}"
        end = "" if self.complete else ", NOT COMPLETE"
        return (
            f"Byzantine {byzantine}, {self.bounds.views} views: {self.states:,} states, "
            f"{self.transitions:,} transitions, depth {self.depth}, {self.soups:,} soups, symmetry {self.symmetry}, "
            f"{self.local_states:,} states and {self.machine_steps:,} steps of one machine, "
            f"{self.fair_states:,} states of fair runs, {self.seconds:.1f} s{end}: {found}"
        )


def missing_sights(result: Result) -> set[str]:
    """What an exploration should have seen within its bounds, and did not."""
    bounds, expected = result.bounds, set(SIGHTS)
    if result.violation is not None or not result.complete:
        return set()
    if bounds.byzantine is None or not 1 <= bounds.byzantine <= bounds.views:
        expected.remove("two proposals in one view")
    if bounds.views < 2:
        expected.remove("a final block after a nullified view")
    if not bounds.crashes:
        expected.remove("a restart in mid-view")
    return expected - result.sights
