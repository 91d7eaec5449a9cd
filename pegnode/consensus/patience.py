"""How long a view may take: learned from what views took, within the bounds of the genesis.

Of each leader this member keeps what its views lately took, from the moment a block was due here to its notarization. A
longer time counts at once, and fades by a quarter with each turn that is notarized. A fresh view gets three times what
the slowest of the q fastest leaders took, so f leaders who dawdle can't stretch it, and f who hurry can't shrink it
below what the other quick ones need.

A view that ended in a nullification tells nothing about how long it would have taken. One that was notarized though
this member had voted to nullify it does: who is far away from the others learns so that it must wait longer.

All of that may be too short, so the timeout doubles as often as the greatest of these says:

    views above the last final one that this member, or a quorum, gave up, divided by f+1     so nothing becomes final
    each leader's turns that this member waited for in vain: of n numbers the (f+1)-th most   one leader is honest
    own turns that this member gave up before it could propose                                it trusts itself

The second leaves out turns whose proposal held what members may withhold votes from. The last two count from that
leader's last final block: what others get done takes nothing away from them. So f quick leaders can't keep the timeout
short for all, nor can f silent ones make it long. What a view took under a doubled timeout is held to be true of every
leader.

A leader was missed if this member waited for its last view in vain, and has since seen no sign of its life. It gets the
least timeout. Any vote of it, of that view or a later one, ends this.

Local to each member, and lost at a restart: it only moves the moment of a nullify vote, of which a quorum is needed.

Source: RFC 6298 (three times the first sample; exponential back-off), Karn's rule (no sample from what was given up).
"""

from collections.abc import Iterable

from federation.membership import Membership
from pegnode.consensus.parameters import ConsensusParams

MARGIN = 3
"""A view gets this many times what was measured."""
FADE = 4
"""What a leader once needed loses this part with each of its later turns that is notarized."""


class Patience:
    """What this member has measured of each leader. Every time is in milliseconds."""

    def __init__(self, params: ConsensusParams, membership: Membership, member: int) -> None:
        self._params = params
        self._membership = membership
        self._member = member
        self._allowed_ms = [params.view_timeout_ms] * membership.size
        self._heard_views = [0] * membership.size
        self._missed_views = [0] * membership.size
        self._timeout_ms = params.view_timeout_ms
        self._failed_turns = [0] * membership.size
        self._unproposed_turns = 0
        self._stalled_views: set[int] = set()

    @property
    def timeout_ms(self) -> int:
        """What a view gets whose leader was not missed, before any doubling."""
        return self._timeout_ms

    def note_notarized(self, view: int, took_ms: int) -> None:
        """A block of `view` was notarized so long after it was due."""
        allowed_ms = min(MARGIN * took_ms, self._params.max_view_timeout_ms)
        leader = self._membership.leader(view)
        faded_ms = self._allowed_ms[leader] - self._allowed_ms[leader] // FADE
        self._allowed_ms[leader] = max(allowed_ms, faded_ms)
        if self._doublings:
            self._allowed_ms = [max(allowed_ms, former_ms) for former_ms in self._allowed_ms]
        slowest_ms = sorted(self._allowed_ms)[self._membership.quorum - 1]
        self._timeout_ms = max(self._params.min_view_timeout_ms, slowest_ms)

    def note_given_up(self, view: int, *, prudence: bool, proposed: bool) -> None:
        """This member's timer fired, and it nullifies `view`.

        prudence: what was proposed may lack votes for other reasons than time.  proposed: unless it leads the view, and
        has not yet.
        """
        self._stalled_views.add(view)
        self._failed_turns[self._membership.leader(view)] += not prudence
        self._unproposed_turns += not proposed

    def note_nullified(self, view: int, *, waited: bool) -> None:
        """A quorum gave up `view`. waited: while this member was in it, and with this member's vote."""
        self._stalled_views.add(view)
        if waited:
            self._missed_views[self._membership.leader(view)] = view

    def note_final(self, view: int) -> None:
        """The block of `view` is final."""
        leader = self._membership.leader(view)
        self._failed_turns[leader] = 0
        if leader == self._member:
            self._unproposed_turns = 0
        self._stalled_views = {stalled for stalled in self._stalled_views if stalled > view}

    def note_heard(self, members: Iterable[int], view: int) -> None:
        """These members voted in `view`."""
        for member in members:
            self._heard_views[member] = max(self._heard_views[member], view)

    def missed_leaders(self, view: int) -> frozenset[int]:
        """Who, as seen from `view`, was not there for its last turn, and was not heard of since."""
        turns = zip(self._missed_views, self._heard_views, strict=True)
        oldest_view = max(view - self._membership.size, 1)
        return frozenset(
            leader for leader, (missed, heard) in enumerate(turns) if missed >= oldest_view and heard < missed
        )

    def view_timeout_ms(self, view: int) -> int:
        """What `view` may take."""
        missed = self._membership.leader(view) in self.missed_leaders(view)
        return self._doubled_ms(self._params.min_view_timeout_ms if missed else self._timeout_ms)

    @property
    def fresh_timeout_ms(self) -> int:
        """What a view gets now whose leader was not missed."""
        return self._doubled_ms(self._timeout_ms)

    @property
    def _doublings(self) -> int:
        one_honest = self._membership.fault_tolerance + 1
        failed_turns = sorted(self._failed_turns)[-one_honest]
        return max(len(self._stalled_views) // one_honest, failed_turns, self._unproposed_turns)

    def _doubled_ms(self, timeout_ms: int) -> int:
        for _ in range(self._doublings):
            if timeout_ms >= self._params.max_view_timeout_ms:
                break
            timeout_ms *= 2
        return min(timeout_ms, self._params.max_view_timeout_ms)
