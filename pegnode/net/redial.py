"""When to dial a peer again that isn't connected. (pure)

The wait doubles with each attempt that led to nothing, so that a peer that is down costs little, up to a limit that
keeps two honest peers apart for no longer than a view of consensus takes. A connection that lasted for a moment was no
failure, though it may have been short: over links that come and go, every second of them counts.
"""

from typing import Final, Protocol

REDIAL_MIN_S: Final = 0.2
REDIAL_MAX_S: Final = 2.0
LASTING_S: Final = 1.0
"""A connection that lasted this long was no failure: it cost a handshake of some milliseconds at most once a second."""


class Spread(Protocol):
    """A source of randomness, such as `random.Random`."""

    def uniform(self, a: float, b: float) -> float:
        """Between `a` and `b`."""
        ...


class Redial:
    """The waits of one peer. rng: spreads them, so that many nodes that lost one peer don't come back at one moment."""

    def __init__(self, rng: Spread) -> None:
        self._rng = rng
        self._longest_s = REDIAL_MIN_S

    def wait_s(self, lasted_s: float) -> float:
        """For how many seconds to wait after a connection that lasted so long; 0 for one that never came about."""
        if lasted_s >= LASTING_S:
            self._longest_s = REDIAL_MIN_S
        waited_s = self._longest_s * self._rng.uniform(0.5, 1.0)
        self._longest_s = min(2 * self._longest_s, REDIAL_MAX_S)
        return waited_s
