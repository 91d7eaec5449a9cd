"""Seeds that found something once: continuous integration runs each of them again, first of all."""

REGRESSIONS: tuple[tuple[int, str], ...] = (
    (5000496, "a member that wrote a final block, and ended before anybody else had it, started with a tip unheard of"),
)
"""(seed, what it found)."""
