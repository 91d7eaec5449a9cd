"""Which processes are killed, and when: drawn from a seed, so that a run can be had again."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

MAX_PAUSE_S: Final = 3.0
"""The longest that everything runs before the next strike: a few blocks."""
MAX_START_UP_S: Final = 4.0
"""A process that was just started is killed again within this: in the midst of opening its files, or soon after."""


@dataclass(frozen=True, slots=True)
class Strike:
    """One moment at which processes are killed (SIGKILL).

    pause_s: how long all runs before.  victims: names of members.  bitcoind: whether the Bitcoin node dies too.
    again_after_s: each time that the victims, just started, are killed once more, seconds after their start.
    """

    pause_s: float
    victims: tuple[str, ...]
    bitcoind: bool
    again_after_s: tuple[float, ...]

    @property
    def kills(self) -> int:
        """How many moments of killing this holds."""
        return 1 + len(self.again_after_s)


def draw_strikes(random: Random, names: Sequence[str], kills: int) -> Iterator[Strike]:
    """Strikes with `kills` moments of killing together.

    Of ten, six hit one member, two hit two, one hits all; one in eight takes the Bitcoin node along, and one in five
    hits again during the start that follows.
    """
    while kills > 0:
        count = random.choices((1, 2, len(names)), (7, 2, 1))[0]
        again = random.choices((0, 1, 2), (8, 1, 1))[0]
        strike = Strike(
            pause_s=random.uniform(0, MAX_PAUSE_S),
            victims=tuple(random.sample(list(names), count)),
            bitcoind=random.random() < 1 / 8,
            again_after_s=tuple(random.uniform(0, MAX_START_UP_S) for _ in range(min(again, kills - 1))),
        )
        kills -= strike.kills
        yield strike
