"""When a leader leaves L1 out of its block.

Members may withhold their votes from records, evidence, batches and new anchors, out of prudence. So that this never
stops transfers, a nullified view whose proposal carried any of them makes the next f+1 leaders leave all of them out:
one of these leaders is honest. Each failure in a row doubles the number of views; a certified block that carries them
ends it.

The number is raised until the step from one failure to the next shares no factor with the number of members: else few
leaders would have all the views in which L1 may be tried, and if all these were faulty, hold it out for ever.
"""

from math import gcd

from federation.membership import Membership

_MAX_DOUBLINGS = 6


class L1Restraint:
    """This member's view of the rule: it knows only the proposals that reached it, and forgets at a restart."""

    def __init__(self, membership: Membership) -> None:
        self._size = membership.size
        self._span_views = membership.fault_tolerance + 1
        self._failures = 0
        self._until_view = 0

    def allows(self, view: int) -> bool:
        """Whether the leader of `view` may include what depends on L1."""
        return view > self._until_view

    def note_nullified(self, view: int) -> None:
        """A proposal that carried L1 ended in a nullification of its view.

        One that came while leaders hold back doubles nothing, else a faulty leader could keep L1 out for long.
        """
        if self.allows(view):
            quiet_views = self._span_views << min(self._failures, _MAX_DOUBLINGS)
            while gcd(quiet_views + 1, self._size) > 1:
                quiet_views += 1
            self._until_view = view + quiet_views
            self._failures += 1

    def note_certified(self) -> None:
        """A block that carried L1 was certified."""
        self._failures = 0
        self._until_view = 0
