"""Who was dropped or refused lately, why and when: bounded, for people."""

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Final

from pegnode.net.transport import DropReason, PeerId

MAX_DEPARTURES: Final = 100


@dataclass(frozen=True, slots=True)
class Departure:
    """One or more connections of one peer, or one address, that ended alike.

    peer: None if none was proved; else the newest one's.  member: its index; None for anybody else.
    address: of a peer that came to us, empty if it is not known.  by_peer: the reason is the peer's own word.
    detail: the newest one's, for people.  last_ms: Unix time in milliseconds.  count: how many.
    """

    peer: PeerId | None
    member: int | None
    address: str
    reason: DropReason
    by_peer: bool
    detail: str
    last_ms: int
    count: int = 1


class Departures:
    """The last MAX_DEPARTURES kinds of departure, newest last.

    Guests have as many ids as they like, so theirs are told apart by address. Nobody flushes the list by coming often.
    """

    def __init__(self) -> None:
        self._kinds: OrderedDict[tuple[object, ...], Departure] = OrderedDict()

    def note(self, departure: Departure) -> bool:
        """Add one; whether it is worth a line in the log: the first, second, fourth, ... of its kind."""
        who = (departure.member, departure.address or departure.peer if departure.member is None else None)
        kind = (*who, departure.reason, departure.by_peer)
        before = self._kinds.pop(kind, None)
        count = departure.count + (0 if before is None else before.count)
        self._kinds[kind] = replace(departure, count=count)
        if len(self._kinds) > MAX_DEPARTURES:
            self._kinds.popitem(last=False)
        return count & (count - 1) == 0

    def newest_first(self) -> tuple[Departure, ...]:
        """All that are remembered."""
        return tuple(reversed(self._kinds.values()))
