"""All that one member can come to: its states numbered, its steps taken by the real machine once each.

A state is a member that is up, or the disk of one that is down. Two members in one state say the same from here on,
whatever they are told. That is why these are left out of it:

  - time: whatever depends on it can happen in any state, for any time may pass;
  - votes of others, and who signed a certificate: the soup brings a quorum's votes again, or their certificate;
  - bodies asked for: a moment later they are asked for anew;
  - whether a block is unjudged or waits for L1: it is judged anew as well.

In the *merged* alphabet a proposal is heard only to be voted for, with all the bodies and verdicts that this takes. One
that is heard earlier waits in the machine and changes nothing until then; one that is never voted for changes nothing
at all; a withheld verdict is a vote that is not cast. In the *plain* alphabet all of these are steps of their own.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from bridge.bitcoin.identifiers import BlockHash
from bridge.codec import decode_whole
from federation.certificate import Certificate, VoteKind
from pegnode.consensus.events import Verdict
from pegnode.consensus.state import ConsensusState
from tests.model.member import STATE_KEPT, STATE_LEFT_OUT, Disk, Member, RuleBroken, copy_of
from tests.model.universe import Offer, Statement, Universe

Key = tuple[object, ...]
Step = Offer | str
"""An offer that is taken, or what a member does of its own accord: timer, lead, fetch, crash, restart, judge …"""


@dataclass(frozen=True, slots=True)
class Way:
    """Where a step leads. crashed: the member went down on the way."""

    target: int
    crashed: bool = False


@dataclass(slots=True)
class State:
    """One state. held: a member in it; a Disk if it is down.  known: the statements of the certificates it holds."""

    word: int
    view: int
    held: Member | Disk
    tip_height: int
    known: int = 0
    final_view: int = 0


class LocalGraph:
    """The states of one member, found as they are asked for."""

    def __init__(self, universe: Universe, index: int, *, plain: bool = False, crashes: bool = True) -> None:
        self.universe = universe
        self.index = index
        self.states: list[State] = []
        self.broken: dict[tuple[int, Step], RuleBroken] = {}
        self.restarts_in_mid_view = 0
        self.steps_taken = 0
        self._plain = plain
        self._crashes = crashes
        self._numbers: dict[Key, int] = {}
        self._ways: dict[tuple[int, Step], tuple[Way, ...]] = {}
        disk = Member.new_disk(index)
        self.initial = self.ways(self._enter_disk(disk), "restart")[0].target

    def possible(self, number: int, offered: int) -> Iterator[Step]:
        """The steps that are open to a member in this state."""
        yield from self._own_steps(number)
        if not self.is_down(number):
            yield from (offer for offer in self.universe.offers_of(offered) if self.is_news(number, offer))

    def _own_steps(self, number: int) -> tuple[Step, ...]:
        """What it may do of its own accord."""
        state = self.states[number]
        if isinstance(state.held, Disk):
            return ("restart",)
        within = state.view <= self.universe.views
        leads = self.universe.membership.leader(state.view) == self.index
        steps: tuple[Step, ...] = (*(("lead",) if leads else ()), "timer") if within else ()
        if not self._plain:
            return (*steps, "fetch") if self._has_to_lead(state.view) else steps
        rest = self._judgements(number)
        return (*steps, *rest, "crash") if self._crashes else (*steps, *rest)

    def _has_to_lead(self, view: int) -> bool:
        """Whether it can still propose, on a parent that depends on the bodies at hand.

        Nobody else's votes depend on bodies, other than those that come with a proposal: they come at once then.
        """
        leader = self.universe.membership.leader
        return any(leader(later) == self.index for later in range(view, self.universe.views + 1))

    def is_news(self, number: int, offer: Offer) -> bool:
        """Whether a member in this state would do anything at all with an offer; in the plain alphabet it is asked."""
        state, statement = self.states[number], offer.statement
        if self._plain:
            return True
        if offer.what == "proposal":
            return statement.view == state.view
        return not state.known & self.universe.bit(statement) and statement.view > state.final_view

    def ways(self, number: int, step: Step) -> tuple[Way, ...]:
        """Where a step leads from a state; nowhere if nothing comes of it."""
        key = (number, step)
        if key not in self._ways:
            self._ways[key] = self._take(number, step)
        return self._ways[key]

    def is_down(self, number: int) -> bool:
        """Whether a member in this state has to restart first."""
        return isinstance(self.states[number].held, Disk)

    def after(self, number: int, step: Step) -> int:
        """The state after a step without a crash; the same if nothing comes of it."""
        return next((way.target for way in self.ways(number, step) if not way.crashed), number)

    def after_power_loss(self, number: int) -> int:
        """The state after what was not synced is lost, and a restart; the same if there is none."""
        down = next((way.target for way in self.ways(number, "crash")), number)  # the first is what is lost at rest
        return self.after(down, "restart") if self.is_down(down) else number

    def _take(self, number: int, step: Step) -> tuple[Way, ...]:
        self.steps_taken += 1
        held = self.states[number].held
        if isinstance(held, Disk):
            member = Member.restart(self.universe, self.index, held)
            if member.broken is None:
                member.guarded(lambda: self._catch_up(member), member.disks)
            self._note_restart(member)
        else:
            member = copy_of(held)
            member.guarded(lambda: self._act(member, step))
        if member.broken is not None:
            self.broken[number, step] = member.broken
            return ()
        member.forget_votes()
        if self._is_idle_proposal(step) and member.word == self.states[number].word:
            return ()
        if not self._plain:
            member.sync()
        target = self._enter(member)
        ways = [] if target == number or step == "crash" else [Way(target)]
        if step == "crash" or (self._crashes and self._is_worth_a_crash(number, member)):
            ways.extend(Way(down, crashed=True) for down in dict.fromkeys(self._downs(member)) if down != number)
        return tuple(ways)

    def _is_worth_a_crash(self, number: int, member: Member) -> bool:
        """Whether a crash during this step leaves what an earlier one doesn't, followed by hearing the same again."""
        first, last = member.disks[0], member.disks[-1]
        return self._plain or (first.word, first.tip) != (last.word, last.tip)

    def _act(self, member: Member, step: Step) -> None:
        if self._plain or not isinstance(step, Offer) or step.what == "proposal":
            member.moment()
        if isinstance(step, Offer):
            if step.what == "certificate" and not self._plain:
                member.take(Offer("votes", step.statement))
            member.supplies = step.what == "proposal" and not self._plain
            member.take(step)
        elif step == "timer":
            member.timer()
        elif step == "lead":
            member.lead()
        elif step == "fetch":
            member.supplies = True
        elif step.startswith("judge"):
            _, verdict, block_hash_hex = step.split()
            member.judge(BlockHash(bytes.fromhex(block_hash_hex)), Verdict[verdict])
        self._catch_up(member, needed=member.supplies)

    def _catch_up(self, member: Member, *, needed: bool = False) -> None:
        if not self._plain and (needed or not self._has_to_lead(member.machine.view)):
            member.supplies = True
            member.moment()

    def _is_idle_proposal(self, step: Step) -> bool:
        return not self._plain and isinstance(step, Offer) and step.what == "proposal"

    def _judgements(self, number: int) -> tuple[Step, ...]:
        """The bodies and verdicts that a member in this state waits for, one by one."""
        held = self.states[number].held
        assert isinstance(held, Member)
        member = copy_of(held)
        member.guarded(member.moment)
        state = _state(member)
        steps: list[Step] = []
        for block_hash in sorted(state.requested):
            view = self.universe.blocks[block_hash].view
            steps.append(Offer("body", Statement(view, VoteKind.NOTARIZE, block_hash)))
        for block_hash, record in sorted(state.tree._records.items()):
            if record.verdict is Verdict.WAITING:
                steps.extend((f"judge VOTABLE {block_hash.hex()}", f"judge WITHHELD {block_hash.hex()}"))
            elif record.verdict is Verdict.WITHHELD:
                steps.append(f"judge VOTABLE {block_hash.hex()}")
        return tuple(steps)

    def _downs(self, member: Member) -> Iterator[int]:
        for disk in member.disks:
            yield self._enter_disk(disk.after_power_loss())
            yield self._enter_disk(disk.after_process_death())
            yield self._enter_disk(disk.without_database())

    def _note_restart(self, member: Member) -> None:
        view = member.machine.view
        said = [statement for statement in self.universe.said(member.word) if statement.view == view]
        if said and member.broken is None:
            self.restarts_in_mid_view += 1

    # numbers

    def _enter(self, member: Member) -> int:
        key = ("up", member.word, member.tip, machine_key(member), *self._disk_key(member.disk))
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self.states)
            height = len(self.universe.chain(member.tip))
            known, final_view = self._known(member), member.machine.final_view
            self.states.append(State(member.word, member.machine.view, member, height, known, final_view))
        return number

    def _enter_disk(self, disk: Disk) -> int:
        key = ("down", disk.word, disk.tip, *self._disk_key(disk))
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self.states)
            self.states.append(State(disk.word, 0, disk, len(self.universe.chain(disk.tip))))
        return number

    def _disk_key(self, disk: Disk) -> Key:
        """What the journal holds."""
        return tuple(frozenset(map(_entry, table.items())) for table in (disk.values, disk.synced))

    def _known(self, member: Member) -> int:
        book = _state(member).certificates
        certificates = [*book.from_view(0), *([] if book.finalization is None else [book.finalization])]
        word = 0
        for held in certificates:
            word |= self.universe.bit(Statement(held.view, held.kind, held.block_hash))
        return word


def machine_key(member: Member) -> Key:
    """What decides what the machine may say, without time and without whoever signed."""
    state = _state(member)
    parts = set(vars(state))
    if parts != STATE_KEPT | STATE_LEFT_OUT:
        raise AssertionError(f"parts of the machine's state that the model does not know: {parts}")
    book, tree, own = state.certificates, state.tree, state.own
    held = {(certificate.kind, certificate.block_hash, certificate.view) for certificate in book.from_view(0)}
    records = {(block_hash, _settled(record.verdict)) for block_hash, record in tree._records.items()}
    return (
        state.view,
        state.stopped,
        (tree.tip.hash, frozenset(records)),
        (book.final_view, book.final_hash, frozenset(held)),
        (own._floor_view, frozenset(own._statements.items()), frozenset(own._signed)),
        frozenset((view, info.hash) for view, info in state.proposals.items()),
    )


def _settled(verdict: Verdict | None) -> Verdict | None:
    """A block that waits for L1 is asked about again like one that nobody judged yet."""
    return None if verdict is Verdict.WAITING else verdict


def _state(member: Member) -> ConsensusState:
    return member.machine._started


@cache
def _entry(item: tuple[bytes, bytes]) -> object:
    """A journal entry; of a certificate only what it says."""
    key, value = item
    if key[:1] != b"c":
        return item
    certificate = decode_whole(value, Certificate.read)
    return certificate.kind, certificate.view, certificate.block_hash
