"""Why no block becomes final: from what one node knows to one sentence for its operator. (pure)

Theory of operation. A chain stands if a block is due, and none has become final for some timeouts; or if too few
members are connected to this one to make a block, for as long. An idle chain does not stand, however old its newest
block: none is due before the heartbeat. What is told is the first of these that holds:

    two certificates contradict each other             more members are faulty than consensus bears: nothing is signed
    this node reaches none of the others               it is this node that is cut off, or all others are off
    others have later final blocks, or later views     it is this node that lags behind
    fewer than a quorum are connected                  who is missing, and since when
    fewer than a quorum vote in the present view       who is connected and silent, since which view
    a quorum votes, but view after view is given up    what this member withholds its votes for; whose L1 lags

A node without keys hears no votes: it knows that a block is overdue, and whom it reaches.

Every time is Unix time in milliseconds, and told in UTC and as an age.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from federation.certificate import VoteKind
from pegnode.status import SeenVote, Stall
from pegnode.wording import listed, moment

STALL_TIMEOUTS: Final = 3
"""After so many timeouts a chain stands; or after f + 2, so that f absent leaders in a row are no stall."""
TOGETHER_MS: Final = 10_000
"""Members that went within so short a time are told together, with the moment from which all of them were away."""


@dataclass(frozen=True, slots=True)
class MemberSeen:
    """What this node sees of a member. connected: true for the node's own.

    missing_since_ms: while it is not connected; this node's start if it was not seen since.
    l1_buried_height: the highest L1 block that it says is at the peg's depth.
    """

    name: str
    connected: bool
    missing_since_ms: int | None = None
    last_vote: SeenVote | None = None
    l1_buried_height: int | None = None


@dataclass(frozen=True, slots=True)
class ChainFacts:
    """What a node knows of its chain. member: its own index, None without keys.

    due_since_ms: since when a block is due without one becoming final; None while none is.
    timeout_ms: of a view, when it became due.
    contradicted: certificates were seen that exclude each other.  obstacles: why this member casts no votes at all.
    withheld: why it does not vote for what is proposed.
    """

    now_ms: int
    started_ms: int
    member: int | None
    members: Sequence[MemberSeen]
    quorum: int
    view: int
    height: int
    best_known_height: int
    due_since_ms: int | None
    timeout_ms: int
    contradicted: bool = False
    obstacles: tuple[str, ...] = ()
    withheld: str | None = None

    @property
    def patience_ms(self) -> int:
        """For how long no block has to become final before the chain stands."""
        fault_tolerance = (len(self.members) - 1) // 3
        return max(STALL_TIMEOUTS, fault_tolerance + 2) * self.timeout_ms

    @property
    def others(self) -> list[MemberSeen]:
        """Every member but this one."""
        return [member for index, member in enumerate(self.members) if index != self.member]

    @property
    def reachable(self) -> int:
        """How many members could vote together, this one among them."""
        return sum(member.connected for member in self.members)


class DueWatch:
    """Since when a block is due and none becomes final. It reads no clock.

    timeout_ms: of a fresh view at that moment, before it doubled for the views that were given up since.
    """

    def __init__(self) -> None:
        self.timeout_ms = 0
        self._since_ms: int | None = None
        self._final_view = 0

    @property
    def since_ms(self) -> int | None:
        """Unix time; None while no block is due."""
        return self._since_ms

    def note(self, *, due: bool, final_view: int, timeout_ms: int, now_ms: int) -> None:
        """After each event: whether a block is due, the newest view that is final, and a fresh view's timeout."""
        if not due:
            self._since_ms = None
        elif self._since_ms is None or final_view != self._final_view:
            self._since_ms = now_ms
        if self._since_ms in (None, now_ms):
            self.timeout_ms = timeout_ms
        self._final_view = final_view


def stall(facts: ChainFacts) -> Stall | None:
    """Why the chain stands, as this node sees it; None while it goes on, or may."""
    since = [moment for moment in (facts.due_since_ms, _quorum_lost_ms(facts)) if moment is not None]
    if facts.contradicted:
        why = (
            "two certificates contradict each other, so this member signs nothing more and takes nothing for final: "
            "more members are faulty than consensus bears, or keys are used twice; keep this node's data and log"
        )
        return Stall(min(since, default=facts.now_ms), why)
    if not since or facts.now_ms - min(since) <= facts.patience_ms:
        return None
    return Stall(min(since), _cause(facts) if facts.member is not None else _seen_from_outside(facts))


def _quorum_lost_ms(facts: ChainFacts) -> int | None:
    """Since when fewer than a quorum are connected; None while enough are, and for a node that makes no blocks."""
    missing = sorted(member.missing_since_ms or 0 for member in facts.members if not member.connected)
    spare = len(facts.members) - facts.quorum
    return missing[spare] if facts.member is not None and len(missing) > spare else None


def _cause(facts: ChainFacts) -> str:
    needed = f"{facts.quorum} of {len(facts.members)} needed"
    if facts.others and not any(member.connected for member in facts.others):
        return f"{needed}, and this node reaches none of the others; {_missing(facts)}; look at its own network first"
    if (behind := _behind(facts)) is not None:
        return behind
    if facts.reachable < facts.quorum:
        return f"{needed}, {facts.reachable} reachable; {_missing(facts)}"
    silent = _silent(facts)
    if len(facts.members) - len(silent) < facts.quorum:
        return "; ".join((f"{needed}, {facts.reachable} reachable, but only {_voting(facts, silent)}", *silent))
    return "; ".join(_divided(facts))


def _seen_from_outside(facts: ChainFacts) -> str:
    if not any(member.connected for member in facts.members):
        return f"this node reaches none of the members; {_missing(facts)}; look at its own network first"
    return _behind(facts) or "no block has come although one was due: a member's `peg status` says why"


def _behind(facts: ChainFacts) -> str | None:
    """Whether it is this node that lags behind; a single member's word on views does not count."""
    if facts.best_known_height > facts.height + 1:
        return (
            f"the chain goes on without this node: it stands at block {facts.height}, "
            f"and others have block {facts.best_known_height}"
        )
    ahead = [member for member in facts.others if member.last_vote is not None and member.last_vote.view > facts.view]
    if len(ahead) > (len(facts.members) - 1) // 3:
        view = max(member.last_vote.view for member in ahead if member.last_vote is not None)
        names = listed([member.name for member in ahead])
        return f"this node is still in view {facts.view}, while {names} vote in later ones up to {view}"
    return None


def _missing(facts: ChainFacts) -> str:
    """Who is not connected, and since when; those who went together are told together."""
    away = [(member.missing_since_ms or 0, member.name) for member in facts.members if not member.connected]
    groups: list[list[tuple[int, str]]] = []
    for since_ms, name in sorted(away, key=lambda item: item[0]):
        if groups and since_ms - groups[-1][0][0] <= TOGETHER_MS:
            groups[-1].append((since_ms, name))
        else:
            groups.append([(since_ms, name)])
    return ", ".join(_gone(facts, [name for _, name in group], group[-1][0]) for group in groups)


def _gone(facts: ChainFacts, names: Sequence[str], since_ms: int) -> str:
    when = moment(since_ms, facts.now_ms)
    if since_ms <= facts.started_ms:
        return f"{listed(names)} not seen since this node started at {when}"
    together = {1: "", 2: " both"}.get(len(names), " all")
    return f"{listed(names)}{together} missing since {when}"


def _silent(facts: ChainFacts) -> list[str]:
    """The members that don't vote in the view that all should vote in, each with what was heard last."""
    view = _view_to_vote_in(facts)
    told = []
    for index, member in enumerate(facts.members):
        vote = member.last_vote
        if vote is not None and vote.view >= view and not (index == facts.member and facts.obstacles):
            continue
        if index == facts.member:
            told.append(f"this member ({member.name}) does not vote: {'; '.join(facts.obstacles) or 'see its log'}")
        elif not member.connected:
            told.append(f"{member.name} is not connected since {moment(member.missing_since_ms or 0, facts.now_ms)}")
        elif vote is None:
            told.append(f"{member.name} is connected, but no vote of it was heard since this node started")
        else:
            told.append(f"{member.name} is connected, but silent since view {vote.view}")
    return told


def _view_to_vote_in(facts: ChainFacts) -> int:
    """The present view, once this member's own timer has fired in it for a timeout; until then the one before."""
    own = None if facts.member is None else facts.members[facts.member].last_vote
    fired = own is not None and own.view == facts.view and own.kind is VoteKind.NULLIFY
    late = own is not None and facts.now_ms - own.seen_ms > facts.timeout_ms
    return facts.view if (fired and late) or facts.obstacles else facts.view - 1


def _voting(facts: ChainFacts, silent: Sequence[str]) -> str:
    voting = len(facts.members) - len(silent)
    return f"{voting} vote{'s' if voting == 1 else ''} in view {_view_to_vote_in(facts)}"


def _divided(facts: ChainFacts) -> Iterable[str]:
    """A quorum votes, and for different things."""
    yield f"a quorum votes, but no block gets {facts.quorum} votes, and view after view is given up"
    if facts.withheld:
        yield f"this member votes for no block that it was shown: {facts.withheld}"
    heights = sorted((member.l1_buried_height or 0 for member in facts.members if member.connected), reverse=True)
    buried = heights[(len(facts.members) - 1) // 3]
    for member in facts.members:
        if member.connected and (member.l1_buried_height or 0) < buried:
            lag = buried - (member.l1_buried_height or 0)
            yield f"{member.name}'s Bitcoin node is {lag} {'block' if lag == 1 else 'blocks'} behind the others'"
    if not all(member.connected for member in facts.members):
        yield _missing(facts)
