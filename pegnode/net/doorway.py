"""The places for handshakes under way: who has one until its Hello has passed, and who gives way. (pure)

Anyone may knock, from as many addresses as he can get. So strangers have one half of the places, whoever they are and
however many; the other half is for addresses that members are known to come from. A newcomer that finds no place takes
that of the oldest handshake of the address that has most of them, among its own kind.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

MAX_PENDING_INBOUND: Final = 32
MAX_PENDING_STRANGERS: Final = MAX_PENDING_INBOUND // 2


@dataclass(eq=False, frozen=True, slots=True)
class Handshake:
    """One that is under way. address: see `address_group`.  end: called when it has to give way."""

    address: str
    end: Callable[[], None]


class Doorway:
    """Handshakes in the order in which they began."""

    def __init__(self) -> None:
        self._pending: dict[Handshake, None] = {}
        self._known: dict[str, frozenset[str]] = {}

    def know(self, origin: str, *addresses: str) -> None:
        """From now on `origin`, a host's name or a member's peer id, comes from these addresses and no others."""
        self._known[origin] = frozenset(address for address in addresses if address)

    def enter(self, handshake: Handshake) -> None:
        """Give a handshake a place, another's if need be."""
        known = frozenset().union(*self._known.values())
        is_known = handshake.address in known
        alike = [other for other in self._pending if (other.address in known) == is_known]
        is_full = len(self._pending) >= MAX_PENDING_INBOUND if is_known else len(alike) >= MAX_PENDING_STRANGERS
        if is_full and alike:
            crowd, _ = Counter(other.address for other in alike).most_common(1)[0]
            oldest = next(other for other in alike if other.address == crowd)
            self.leave(oldest)
            oldest.end()
        self._pending[handshake] = None

    def leave(self, handshake: Handshake) -> None:
        """Free the place of a handshake that is over, if it still has one."""
        self._pending.pop(handshake, None)
