"""How much somebody may ask of this node: a bucket that fills with time and empties with use."""

from collections.abc import Callable
from dataclasses import dataclass, field


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
        now_s = self.now_s()
        flowed_in = self.burst if self._at_s is None else (now_s - self._at_s) * self.per_s
        self._level = min(self.burst, self._level + flowed_in)
        self._at_s = now_s
        if amount > self._level:
            return False
        self._level -= amount
        return True
