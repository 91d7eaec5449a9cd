"""The votes of the newest views, whoever told of them, and what each new one proves together with them.      (pure)

The consensus machine keeps what it still needs to count, and drops the votes of a view that is over; a member that
contradicts itself says the second thing late, or to others. So this remembers longer, and takes in certificates, which
bring the votes of members to whom nobody spoke.

What is kept is bounded: of each member one vote of each kind in each view of a window, which only quorums move.
"""

from collections.abc import Iterator

from federation.certificate import Certificate, Vote, VoteKind
from federation.equivocation import conflicting

VIEWS_REMEMBERED = 256
"""Below the newest view that a certificate ended."""
VIEWS_AHEAD = 64
"""Above it."""


class VoteMemory:
    """Genuine votes by view, member and kind; the first of each. view: the newest one that is known to be over."""

    def __init__(self, view: int = 0) -> None:
        self._view = view
        self._views: dict[int, dict[tuple[int, VoteKind], Vote]] = {}

    def rivals(self, vote: Vote) -> Iterator[Vote]:
        """The votes of the same member that no honest member signs besides this one."""
        votes = self._views.get(vote.view)
        if votes is not None:
            of_member = (votes.get((vote.member, kind)) for kind in VoteKind)
            yield from (rival for rival in of_member if rival is not None and conflicting(rival, vote))

    def contradicted(self, certificate: Certificate) -> Iterator[Vote]:
        """The votes within a certificate, checked or not, that have such a rival."""
        if certificate.view in self._views:
            yield from (vote for vote in certificate.votes() if any(True for _ in self.rivals(vote)))

    def add(self, vote: Vote) -> None:
        """Remember a genuine vote, if it is of the window and its member's first of this kind in its view."""
        if self._view - VIEWS_REMEMBERED <= vote.view <= self._view + VIEWS_AHEAD:
            self._views.setdefault(vote.view, {}).setdefault((vote.member, vote.kind), vote)

    def advance(self, view: int) -> None:
        """A quorum ended this view: forget what is far below it."""
        self._view = max(self._view, view)
        for old in [old for old in self._views if old < self._view - VIEWS_REMEMBERED]:
            del self._views[old]

    def __len__(self) -> int:
        return sum(map(len, self._views.values()))
