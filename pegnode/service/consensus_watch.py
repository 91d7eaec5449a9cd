"""What is to be seen of consensus from outside: who voted last, since when a block is due, and what stands against it.

It watches and changes nothing: the driver tells it what happens, the status report asks.
"""

from federation.certificate import Vote
from federation.journal import Journal
from pegnode.consensus.machine import Simplex
from pegnode.service.core import NodeCore
from pegnode.service.judge import Judge
from pegnode.service.stall import DueWatch
from pegnode.status import SeenVote


class ConsensusWatch:
    """One member's. vote_refused: why its signer refused the newest vote; None once it signs."""

    def __init__(self, core: NodeCore, machine: Simplex, judge: Judge, journal: Journal) -> None:
        self._core = core
        self._machine = machine
        self._judge = judge
        self._journal = journal
        self._due = DueWatch()
        self._last_votes: dict[int, SeenVote] = {}
        self.vote_refused: str | None = None

    @property
    def view(self) -> int:
        """The view this member is in; until it takes part, the one after the newest final block's."""
        return self._machine.view if self._machine.is_started else self._core.store.tip.header.view + 1

    @property
    def contradicted(self) -> bool:
        """Whether certificates were seen, in this life or another, that exclude each other: it signs nothing more."""
        return self._journal.contradiction is not None

    @property
    def due_since_ms(self) -> int | None:
        """Since when a block is due without one becoming final, Unix time in milliseconds; None while none is."""
        return self._due.since_ms

    @property
    def timeout_ms(self) -> int | None:
        """How long a view may take that is entered now; None until this member takes part."""
        return self._machine.timeout_ms if self._machine.is_started else None

    @property
    def due_timeout_ms(self) -> int:
        """The same when the block became due that is due now."""
        return self._due.timeout_ms

    @property
    def missed_leaders(self) -> frozenset[int]:
        """Members who proposed nothing when they last led, and were not heard of since."""
        return self._machine.missed_leaders if self._machine.is_started else frozenset()

    @property
    def withheld(self) -> str | None:
        """Why this member does not vote for the block that it judged last; None if it does."""
        return self._judge.withheld

    def last_vote(self, member: int) -> SeenVote | None:
        """A member's vote of the highest view in which one was seen since the start."""
        return self._last_votes.get(member)

    def note_vote(self, vote: Vote) -> None:
        """A genuine vote was heard, of this member or another; perhaps again."""
        before = self._last_votes.get(vote.member)
        if before is None or vote.view >= before.view:
            self._last_votes[vote.member] = SeenVote(vote.view, vote.kind, self._core.now_ms())

    def note_event(self) -> None:
        """The machine has handled an event."""
        machine, now_ms = self._machine, self._core.now_ms()
        self._due.note(due=machine.is_due, final_view=machine.final_view, timeout_ms=machine.timeout_ms, now_ms=now_ms)
