"""Who misbehaved lately, and for how long it is kept out. (pure)

The time doubles with each fault, up to a limit, and the faults are forgotten after a while without one. Nobody is kept
out for good: members are needed for the quorum, and an address may pass to somebody else.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from pegnode.net.transport import DropReason

H = TypeVar("H")

MAX_REMEMBERED: Final = 1_024
FORGOTTEN_AFTER_S: Final = 600.0

FAULTS: Final = frozenset(
    {
        DropReason.FRAME_TOO_LARGE,
        DropReason.GARBLED_FRAME,
        DropReason.PROTOCOL_VIOLATION,
        DropReason.GARBLED_MESSAGE,
        DropReason.MISPLACED_MESSAGE,
        DropReason.FALSE_SIGNATURE,
        DropReason.FALSE_BLOCKS,
        DropReason.FALSE_TRANSACTION,
        DropReason.FALSE_EVIDENCE,
        DropReason.NO_ANSWER,
        DropReason.FLOOD,
    }
)
"""What no honest peer does. Others are ended by, not kept out for, what bad luck brings about too."""


@dataclass(slots=True)
class _Record:
    faults: int
    until_s: float


class Penalties(Generic[H]):
    """first_s, longest_s: for how long the first fault keeps somebody out, and any. Times of any monotonic clock."""

    def __init__(self, first_s: float, longest_s: float) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._records: OrderedDict[H, _Record] = OrderedDict()

    def punish(self, holder: H, now_s: float) -> float:
        """Note a fault; for how many seconds it keeps its holder out."""
        record = self._records.pop(holder, None)
        known = record is not None and now_s < record.until_s + FORGOTTEN_AFTER_S
        faults = record.faults + 1 if known and record is not None else 1
        wait_s = min(self._longest_s, self._first_s * 2.0 ** min(faults - 1, 30))
        self._records[holder] = _Record(faults, now_s + wait_s)
        if len(self._records) > MAX_REMEMBERED:
            self._records.popitem(last=False)
        return wait_s

    def wait_s(self, holder: H, now_s: float) -> float:
        """For how many seconds more the holder is kept out; 0 when it isn't."""
        record = self._records.get(holder)
        return 0.0 if record is None else max(0.0, record.until_s - now_s)
