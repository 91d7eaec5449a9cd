"""What a seed stands for: who takes part, who is evil, and what goes wrong when. All of it is decided up front.

Each seed has some families of faults and not others, so that rare combinations come about as often as common ones.
"""

import enum
from dataclasses import dataclass
from random import Random

from tests.sim.disk import ENDS, Trap
from tests.sim.network import FAIR, Weather

SIZES = (4, 5, 7, 10, 15)
SIZE_WEIGHTS = (78, 10, 9, 2, 1)
FIRST_LONG = 1_000
SHORT_SIZE_WEIGHTS = (94, 4, 2, 0, 0)
WRITES = (
    "journal vote", "journal vote", "journal certificate", "journal header", "journal", "database block",
    "database block", "database deposit_scripts", "database equivocations", "database signed_payouts", None,
)  # fmt: skip
"""Kinds of writes at which a process may end. Some are written often, some seldom, and all of them get their share."""
RARE_WRITES = ("database equivocations", "database signed_payouts")
"""Those of which a trap waits for the first, nearly as long as the bad time lasts."""

FAR_CHANCE = 0.15
DELAYS_S = ((0.001, 0.005), (0.001, 0.005), (0.005, 0.05), (0.005, 0.05), (0.02, 0.3), (0.1, 1.2))


class Kind(enum.Enum):
    """What goes wrong for a while."""

    CRASH = "crash"
    """One process ends, at a write to come, and is started again."""
    POWER = "power failure"
    """All processes end at once, and lose what was not synced."""
    CUT = "partition"
    """Nothing passes between some and the others, both ways."""
    ONE_WAY = "one-way partition"
    """Nothing passes from some to the others."""
    SLOW_DISK = "slow disk"
    """One process stands still after each write that it has to wait for."""
    SLOW = "slow links"
    """What some send takes much longer."""
    LOSE_JOURNAL = "lost journal"
    """One process ends, its journal is gone, and its operator renews it."""
    OLD_JOURNAL = "old journal"
    """A copy of one journal is made, and later put back in its place."""
    LOSE_BOTH = "lost disk"
    """One process ends, its journal and its database are gone: the one is renewed, the other fetched anew."""
    OLD_BOTH = "old disk"
    """A copy of both is made at one moment, and later put back in their place."""
    LOSE_DATABASE = "lost database"
    """One process ends, and its database alone is gone."""


FORGETTING = (Kind.LOSE_JOURNAL, Kind.OLD_JOURNAL, Kind.LOSE_BOTH, Kind.OLD_BOTH)
"""As many members as the federation can do without, the Byzantine ones among them, may forget what they signed.

Beside them as many may lose their databases: of any final block the last honest holder is not among so many.
"""


@dataclass(frozen=True, slots=True)
class Disturbance:
    """From at_s on for for_s seconds of virtual time. members: whom it strikes.  trap: of a crash, where."""

    at_s: float
    for_s: float
    kind: Kind
    members: tuple[int, ...]
    trap: Trap | None = None

    def __str__(self) -> str:
        return f"{self.kind.value} of {', '.join(map(str, self.members))} for {self.for_s:.1f} s"


@dataclass(frozen=True, slots=True)
class Clock:
    """A member's wall clock: ahead by this much at the start, and by so much more each second."""

    ahead_ms: int
    drift_ms_per_s: float


@dataclass(frozen=True, slots=True)
class Plan:
    """byzantine: at most f.  bad_time_s: until everything heals.  delay_s: of a frame, least and greatest.

    is_far: honest members stay far from each other when everything heals, and near to the Byzantine ones.
    incurable: honest members whose Bitcoin nodes stay ill even then; with the Byzantine ones at most f.
    """

    seed: int
    size: int
    byzantine: tuple[int, ...]
    bad_time_s: float
    delay_s: tuple[float, float]
    weather: Weather
    clocks: tuple[Clock, ...]
    disturbances: tuple[Disturbance, ...]
    is_far: bool = False
    incurable: tuple[int, ...] = ()

    @classmethod
    def of(cls, seed: int) -> "Plan":
        """The plan of a seed. Those below FIRST_LONG are short ones, for continuous integration."""
        rng = Random(f"plan {seed}")
        is_short = seed < FIRST_LONG
        [size] = rng.choices(SIZES, SHORT_SIZE_WEIGHTS if is_short else SIZE_WEIGHTS)
        tolerated = (size - 1) // 3
        evil = rng.randint(1, tolerated) if rng.random() < 0.6 else 0
        bad_time_s = _bad_time_s(rng, size, is_short=is_short)
        disturbances = [
            disturbance
            for kind in Kind
            if kind not in (*FORGETTING, Kind.LOSE_DATABASE) and rng.random() < 0.45
            for disturbance in _disturbances(kind, rng, size, bad_time_s)
        ]
        byzantine = tuple(sorted(rng.sample(range(size), evil)))
        honest = [index for index in range(size) if index not in byzantine]
        if rng.random() < 0.3:
            disturbances += [
                _disturbance(Kind.LOSE_DATABASE, rng, size, bad_time_s, index)
                for index in rng.sample(honest, rng.randint(1, tolerated))
            ]
        incurable: list[int] = []
        if rng.random() < 0.4:
            disturbances += [
                _disturbance(rng.choice(FORGETTING), rng, size, bad_time_s, index)
                for index in rng.sample(honest, tolerated - evil)
            ]
        elif not is_short:
            incurable = rng.sample(honest, rng.randint(0, tolerated - evil))
        return cls(
            seed=seed,
            size=size,
            byzantine=byzantine,
            bad_time_s=bad_time_s,
            delay_s=rng.choice(DELAYS_S),
            weather=_weather(rng),
            clocks=tuple(_clock(rng) for _ in range(size)) if rng.random() < 0.6 else (Clock(0, 0.0),) * size,
            disturbances=tuple(sorted(disturbances, key=lambda item: item.at_s)),
            is_far=not is_short and rng.random() < FAR_CHANCE,
            incurable=tuple(sorted(incurable)),
        )

    @classmethod
    def calm(cls, seed: int, size: int = 4, bad_time_s: float = 6.0) -> "Plan":
        """Nothing goes wrong."""
        return cls(seed, size, (), bad_time_s, (0.001, 0.005), FAIR, (Clock(0, 0.0),) * size, ())

    def __str__(self) -> str:
        evil = f", Byzantine: {', '.join(map(str, self.byzantine))}" if self.byzantine else ""
        weather = "" if self.weather is FAIR else f", {self.weather}"
        far = ", far from each other for good" if self.is_far else ""
        ill = f", ill for good: {', '.join(map(str, self.incurable))}" if self.incurable else ""
        return f"{self.size} members{evil}, {self.bad_time_s:.1f} s, delays {self.delay_s}{far}{ill}{weather}"


def _bad_time_s(rng: Random, size: int, *, is_short: bool) -> float:
    """The more members, the more the processor has to do in a second."""
    if is_short:
        return rng.uniform(2.5, 4.5)
    if size > 7:
        return rng.uniform(4, 8)
    return rng.uniform(20, 40) if rng.random() < 0.05 else rng.uniform(3, 10)


def _weather(rng: Random) -> Weather:
    if rng.random() < 0.4:
        return FAIR
    return Weather(
        loss=rng.choice((0.0, 0.02, 0.1, 0.3)),
        duplicate=rng.choice((0.0, 0.1, 0.3)),
        reorder=rng.choice((0.0, 0.1, 0.5)),
        reorder_s=rng.choice((0.1, 0.5, 3.0)),
    )


def _clock(rng: Random) -> Clock:
    """Mostly within the two seconds that a block may be ahead, sometimes far off."""
    ahead_ms = rng.choice((rng.randint(-300, 300), rng.randint(-1_900, 1_900), rng.randint(-20_000, 20_000)))
    return Clock(ahead_ms, rng.choice((0.0, 0.0, rng.uniform(-50, 50))))


def _disturbances(kind: Kind, rng: Random, size: int, bad_time_s: float) -> list[Disturbance]:
    """Some of one kind."""
    count = rng.choice((1, 2, 4)) if kind is not Kind.CRASH else rng.choice((2, 4, 8)) * max(1, size // 4)
    if kind is Kind.POWER:
        count = rng.choice((1, 1, 2))
    return [_disturbance(kind, rng, size, bad_time_s) for _ in range(count)]


def _disturbance(kind: Kind, rng: Random, size: int, bad_time_s: float, whom: int = 0) -> Disturbance:
    at_s, for_s = rng.uniform(0, 0.9 * bad_time_s), rng.choice((0.3, 1.0, 2.5, 5.0)) * rng.uniform(0.5, 1.5)
    everybody = tuple(range(size))
    match kind:
        case Kind.CRASH:
            phase, power = rng.choice(ENDS)
            write, nth = rng.choice(WRITES), rng.choice((1, 1, 2, 5))
            trap = Trap(phase, write, 1 if write in RARE_WRITES else nth, power)
            at_s = rng.uniform(0, 0.5 * bad_time_s)  # its write has to come yet, and those of the next crash
            return Disturbance(at_s, min(for_s, 0.1 * bad_time_s), kind, (rng.randrange(size),), trap)
        case Kind.POWER:
            return Disturbance(at_s, for_s, kind, everybody)
        case Kind.LOSE_JOURNAL | Kind.OLD_JOURNAL | Kind.LOSE_BOTH | Kind.OLD_BOTH | Kind.LOSE_DATABASE:
            return Disturbance(at_s, for_s, kind, (whom,))
        case Kind.SLOW_DISK:
            return Disturbance(at_s, for_s, kind, (rng.randrange(size),))
        case Kind.CUT | Kind.ONE_WAY | Kind.SLOW:
            return Disturbance(at_s, for_s, kind, tuple(sorted(rng.sample(everybody, rng.randint(1, size - 1)))))
