"""How much somebody may ask of this node: a bucket that fills with time and empties with use. (pure)"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)

MAX_HOLDERS: Final = 1_024


@dataclass(slots=True)
class Allowance:
    """per_s: what flows in each second.  burst: what the bucket holds, and with what it begins.

    now_s: any monotonic clock, in seconds.
    """

    per_s: float
    burst: float
    now_s: Callable[[], float]
    _level: float = field(default=0.0, init=False)
    _at_s: float | None = field(default=None, init=False)

    def take(self, amount: float) -> bool:
        """Take `amount` out; False, and nothing taken, when there is less."""
        self._fill()
        if amount > self._level:
            return False
        self._level -= amount
        return True

    def owe(self, amount: float) -> float:
        """Take `amount` out even if there is less; for how many seconds nothing more should be taken."""
        self._fill()
        self._level -= amount
        return max(0.0, -self._level / self.per_s)

    def _fill(self) -> None:
        now_s = self.now_s()
        flowed_in = self.burst if self._at_s is None else (now_s - self._at_s) * self.per_s
        self._level = min(self.burst, self._level + flowed_in)
        self._at_s = now_s


class Allowances(Generic[K]):
    """An allowance of the same size for each holder. It outlasts the holder's connections.

    Of more than MAX_HOLDERS, those unused for longest are forgotten, and begin anew.
    """

    def __init__(self, per_s: float, burst: float, now_s: Callable[[], float]) -> None:
        self._per_s = per_s
        self._burst = burst
        self._now_s = now_s
        self._held: OrderedDict[K, Allowance] = OrderedDict()

    def of(self, holder: K) -> Allowance:
        """The holder's."""
        allowance = self._held.setdefault(holder, Allowance(self._per_s, self._burst, self._now_s))
        self._held.move_to_end(holder)
        if len(self._held) > MAX_HOLDERS:
            self._held.popitem(last=False)
        return allowance


class SharedAllowances(Generic[K]):
    """An allowance for each holder, and so many times as much for all together: more holders get no more in all."""

    def __init__(self, per_s: float, burst: float, times: float, now_s: Callable[[], float]) -> None:
        self._own: Allowances[K] = Allowances(per_s, burst, now_s)
        self._all = Allowance(times * per_s, times * burst, now_s)

    def take(self, holder: K, amount: float) -> bool:
        """Take `amount` out of the holder's, and out of what all have; False when there is less in either."""
        return self._own.of(holder).take(amount) and self._all.take(amount)
