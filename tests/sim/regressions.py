"""Seeds that found something once: continuous integration runs each of them again, first of all."""

REGRESSIONS: tuple[tuple[int, str], ...] = ()
"""(seed, what it found)."""
