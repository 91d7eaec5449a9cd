"""One honest member: the real machine over the real journal, on a disk that can lose what was not synced.

An event is handled whole: the machine's actions are carried out in order, own votes come back. After every action that
writes, the disk is noted as a crash at that moment would leave it. Time is no part of a member's state: `tick` lets a
moment pass, in which things are asked for again; `timer` and `lead` let as much pass as it takes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from enum import Enum
from functools import cache
from types import FunctionType
from typing import Any

from bridge.bitcoin.identifiers import BlockHash
from federation.certificate import Certificate, Vote, VoteKind
from federation.journal import Journal
from federation.journal_errors import JournalRefused
from federation.journal_header import JournalIdentity
from pegnode.consensus import actions, events
from pegnode.consensus.machine import Simplex
from pegnode.consensus.parameters import ConsensusParams
from tests.machine.fake_chain import EPOCH, GENESIS, FakeBlock
from tests.model.universe import CHAIN_ID, Offer, Statement, Universe
from tests.support.memory_entries import MemoryEntries

LONG_MS = 3_600_000
PARAMS = ConsensusParams(
    block_interval_ms=1,
    min_view_timeout_ms=LONG_MS,
    view_timeout_ms=LONG_MS,
    max_view_timeout_ms=LONG_MS,
    heartbeat_ms=1000,
    resend_ms=1,
)
MOMENT_MS = 2
HEARTBEAT_MS = 1001
TIMER_MS = 3 * LONG_MS

STATE_KEPT = {"view", "stopped", "tree", "certificates", "own", "proposals"}
"""The parts of the machine's state that decide what it may say."""
STATE_LEFT_OUT = {
    "member", "membership", "params", "actions",  # never change
    "now_ms", "pace", "patience",  # when things may happen
    "resend_ms", "retry_ms", "wake_ms", "resend_cursor", "helped_ms",  # when things are said again
    "work_known", "restraint", "building_view",  # what a block holds, and when it is built
    "votes", "requested",  # come again from the soup
    "accused", "reported_invalid",  # reported once
}  # fmt: skip
"""The parts that don't, each for the reason beside it. A part in neither list fails the model: somebody must decide."""


class RuleBroken(AssertionError):  # noqa: N818 -- what the model looks for
    """One member did what it never may. rule: a stable name."""

    def __init__(self, rule: str, detail: str = "") -> None:
        super().__init__(f"{rule}: {detail}" if detail else rule)
        self.rule = rule


@dataclass(frozen=True)
class Disk:
    """What outlives a crash. values, synced: the journal, as written and as on disk.  tip: the newest stored block.

    word: all that its member ever said, which others remember.
    """

    values: Mapping[bytes, bytes]
    synced: Mapping[bytes, bytes]
    tip: BlockHash
    word: int

    def after_power_loss(self) -> "Disk":
        """Only what was synced."""
        return Disk(self.synced, self.synced, self.tip, self.word)

    def after_process_death(self) -> "Disk":
        """All that was written."""
        return Disk(self.values, self.values, self.tip, self.word)

    def without_database(self) -> "Disk":
        """The journal alone is left: the blocks come again from others."""
        return Disk(self.values, self.values, GENESIS.hash, self.word)


class Entries(MemoryEntries):
    """The journal's entries, which can be looked at and begun anew."""

    def holding(self, disk: Disk) -> "Entries":
        """These, as a restart finds them."""
        self._values, self._synced = dict(disk.values), dict(disk.synced)
        return self

    def sync(self) -> None:
        """Have all on disk that was written."""
        self._synced = dict(self._values)

    @property
    def values(self) -> dict[bytes, bytes]:
        """As written."""
        return dict(self._values)

    @property
    def synced(self) -> dict[bytes, bytes]:
        """As on disk."""
        return dict(self._synced)


@dataclass
class Member:
    """A member that is up. word: all that it ever said.  tip: the newest block of its database."""

    universe: Universe
    index: int
    machine: Simplex
    entries: Entries
    journal: Journal
    tip: BlockHash
    word: int
    now_ms: int = 0
    supplies: bool = False
    builds: bool = False
    disks: list[Disk] = field(default_factory=list)
    broken: RuleBroken | None = None

    @staticmethod
    def new_disk(index: int) -> Disk:
        """As `init` leaves it."""
        entries = Entries()
        Journal.create(entries, JournalIdentity(CHAIN_ID, EPOCH, index))
        return Disk(entries.values, entries.synced, GENESIS.hash, 0)

    @classmethod
    def restart(cls, universe: Universe, index: int, disk: Disk) -> "Member":
        """Begin, or go on with what the disk holds."""
        entries = Entries().holding(disk)
        journal = Journal.open(entries, JournalIdentity(CHAIN_ID, EPOCH, index))
        machine = Simplex(index, universe.membership, PARAMS)
        member = cls(universe, index, machine, entries, journal, disk.tip, disk.word)
        contents = journal.contents()
        tip = universe.blocks.get(disk.tip)
        start = events.Start(
            final=GENESIS if tip is None else events.FinalTip(tip.hash, tip.height, tip.view),
            certificate=None if tip is None else member._finalization(tip),
            votes=contents.votes,
            certificates=contents.certificates,
            blocks=tuple(FakeBlock.decode(body).info for _, body in contents.bodies),
            floor_view=contents.floor_view,
        )
        member.guarded(lambda: member._feed(start))
        return member

    # events

    def guarded(self, do: Callable[[], None], disks: Sequence[Disk] = ()) -> None:
        """Do it; what goes against a rule is kept for the explorer, who knows the way here.

        disks: as they were in what came before, and belongs to the same step.
        """
        self.disks = [*disks, self.disk]
        try:
            do()
        except RuleBroken as broken:
            self.broken = broken
        except JournalRefused as refused:
            self.broken = RuleBroken("journal-refused", str(refused))

    def take(self, offer: Offer) -> None:
        """Hear something of the network."""
        statement = offer.statement
        match offer.what:
            case "certificate":
                self._feed(events.CertificateReceived(self.universe.certificate(statement)))
            case "votes":
                for voter in self._voters(statement):
                    self._feed(events.VoteReceived(self.universe.vote(voter, statement)))
            case "proposal":
                block = self.universe.blocks[statement.block_hash]
                self._feed(events.ProposalReceived(block.info, self.universe.vote(block.leader, statement)))
            case "body":
                self._feed(events.BlockReceived(self.universe.blocks[statement.block_hash].info))
            case "sync":
                self._sync(self.universe.blocks[statement.block_hash])

    def judge(self, block_hash: BlockHash, verdict: events.Verdict) -> None:
        """Come to a verdict on a block."""
        self._feed(events.BlockChecked(block_hash, verdict))

    def moment(self) -> None:
        """A moment passes: what is missing is asked for again."""
        self._pass(MOMENT_MS)

    def lead(self) -> None:
        """The time for a proposal comes."""
        self.builds = True
        self._pass(HEARTBEAT_MS)
        self.builds = False

    def timer(self) -> None:
        """The timer of this view fires, if it runs and if the view may still be nullified."""
        view, before = self.machine.view, self.word
        for _ in range(3):
            if self.machine.view == view and self.word == before:
                self._pass(TIMER_MS)

    def forget_votes(self) -> None:
        """Lose the votes of others: any that matter can be heard again."""
        state = self.machine._started
        state.votes.prune(2**64)
        for vote in state.own.all_signed():
            state.votes.add(vote)

    def sync(self) -> None:
        """Have all on disk: what a crash could lose later, one at the last vote has lost as well."""
        self.entries.sync()

    # the driver

    def _pass(self, span_ms: int) -> None:
        self.now_ms += span_ms
        self._feed(events.Tick())

    def _feed(self, event: events.Event) -> None:
        queue: list[events.Event] = [event]
        while queue:
            for action in self.machine.handle(queue.pop(0), self.now_ms):
                queue.extend(self._perform(action))

    def _perform(self, action: actions.Action) -> list[events.Event]:
        """Carry out an action; what comes of it at once."""
        match action:
            case actions.CastVote(kind, view, block_hash, proof):
                statement = Statement(view, kind, block_hash)
                self._check_proof(statement, proof)
                return [events.VoteReceived(self._cast(statement))]
            case actions.Build(view, parent_hash):
                return [self._build(view, parent_hash)]
            case actions.Validate(block_hash):
                return [events.BlockChecked(block_hash, self._verdict())]
            case actions.RequestBlock(block_hash):
                return [events.BlockReceived(self.universe.blocks[block_hash].info)] if self.supplies else []
            case actions.SaveCertificate() | actions.Finalized() | actions.PruneJournal():
                self._write(action)
            case _:
                self._check_action(action)
        return []

    def _write(self, action: actions.SaveCertificate | actions.Finalized | actions.PruneJournal) -> None:
        """Change the disk, and note how."""
        match action:
            case actions.SaveCertificate(certificate):
                self.journal.record_certificate(certificate)
            case actions.Finalized(info, certificate):
                self._finalize(info, certificate)
            case actions.PruneJournal(final_view):
                self.journal.prune(final_view)
        self.disks.append(self.disk)

    def _check_action(self, action: actions.Action) -> None:
        """Look at what is sent or reported: the network itself is no part of the model."""
        match action:
            case actions.Broadcast(_, certificates):
                for formed in certificates:
                    self._check_formed(formed)
            case actions.ReportEquivocation(first):
                if first.member != self.universe.byzantine:
                    raise RuleBroken("honest-accused", f"member {first.member}")
            case actions.ReportConflictingCertificates(first, second):
                raise RuleBroken("alarm", f"{first.kind.name} beside {second.kind.name} in view {first.view}")
            case actions.ReportInvalidCertified() | actions.ReportUnknownOwnVote():
                raise RuleBroken("alarm", type(action).__name__)

    def _cast(self, statement: Statement) -> Vote:
        """Journal the vote and say it: as one, since a restart would say it anyway."""
        self._check_word(statement)
        vote = self.universe.vote(self.index, statement)
        block = self.universe.blocks.get(statement.block_hash)
        body = block.encoded if block is not None and statement.kind is VoteKind.NOTARIZE else b""
        self.journal.record_vote(vote, body)
        self.word |= self.universe.bit(statement)
        self.disks.append(self.disk)
        return vote

    def _check_word(self, statement: Statement) -> None:
        """Hold a new vote against all that this member said in any life."""
        earlier = [said for said in self.universe.said(self.word) if said.view == statement.view]
        kinds = {said.kind for said in earlier}
        if any(said.kind is statement.kind and said != statement for said in earlier):
            if statement.kind is VoteKind.NOTARIZE and self.universe.membership.leader(statement.view) == self.index:
                raise RuleBroken("two-proposals", f"view {statement.view}")
            raise RuleBroken(f"two-{statement.kind.name.lower()}-votes", f"view {statement.view}")
        if statement.kind is not VoteKind.NULLIFY and VoteKind.NULLIFY in kinds:
            raise RuleBroken(f"{statement.kind.name.lower()}-after-nullify", f"view {statement.view}")
        if statement.kind is VoteKind.NULLIFY and VoteKind.FINALIZE in kinds:
            raise RuleBroken("nullify-after-finalize", f"view {statement.view}")

    def _check_formed(self, certificate: Certificate) -> None:
        """What it passes on has a quorum of distinct signers."""
        signers = {member for member, _ in certificate.signatures}
        if len(signers) != self.universe.membership.quorum:
            raise RuleBroken("false-certificate", f"{certificate.kind.name.lower()} in view {certificate.view}")

    def _check_proof(self, statement: Statement, proof: Certificate | None) -> None:
        """A signer that believes nothing would sign this."""
        shown = None if proof is None else (proof.kind, proof.view, proof.block_hash)
        if statement.kind is VoteKind.FINALIZE:
            if shown != (VoteKind.NOTARIZE, statement.view, statement.block_hash):
                raise RuleBroken("finalize-without-notarization", self.universe.phrase(statement))
        elif statement.view != 1 + (0 if proof is None else proof.view):
            raise RuleBroken("vote-without-proof", self.universe.phrase(statement))

    def _build(self, view: int, parent_hash: BlockHash) -> events.Event:
        """Another block than any that it proposed before: a leader that forgot would not build the same again."""
        if not self.builds:
            return events.BuildFailed(view)
        said = self.universe.said(self.word)
        before = sum(said.view == view and said.kind is VoteKind.NOTARIZE for said in said)
        return events.BlockBuilt(self.universe.block(view, parent_hash, before).info)

    def _verdict(self) -> events.Verdict:
        return events.Verdict.VOTABLE if self.supplies else events.Verdict.WAITING

    def _finalize(self, info: events.BlockInfo, certificate: Certificate) -> None:
        if certificate.kind is not VoteKind.FINALIZE or certificate.block_hash != info.hash:
            raise RuleBroken("final-without-proof", self.universe.name(info.hash))
        self._store(info.hash)

    def _store(self, block_hash: BlockHash) -> None:
        if not self.universe.descends(block_hash, self.tip):
            raise RuleBroken("final-block-replaced", f"{self.universe.name(self.tip)} before")
        self.tip = block_hash

    def _sync(self, block: FakeBlock) -> None:
        """Catch up: the database moves first, the machine hears of it."""
        if self.universe.descends(self.tip, block.hash):
            return
        self._store(block.hash)
        self.disks.append(self.disk)
        self._feed(events.Synced(events.FinalTip(block.hash, block.height, block.view), self._finalization(block)))

    def _finalization(self, block: FakeBlock) -> Certificate:
        return self.universe.certificate(Statement(block.view, VoteKind.FINALIZE, block.hash))

    def _voters(self, statement: Statement) -> list[int]:
        """A quorum that may have said this: itself if it did, then the Byzantine member, then others.

        Which others makes no difference to the machine.
        """
        universe = self.universe
        said = bool(self.word & universe.bit(statement))
        byzantine = [] if universe.byzantine is None else [universe.byzantine]
        others = [index for index in universe.honest if index != self.index]
        return [*([self.index] if said else []), *byzantine, *others][: universe.membership.quorum]

    @property
    def disk(self) -> Disk:
        """As a crash would leave it now."""
        return Disk(self.entries.values, self.entries.synced, self.tip, self.word)


def copy_of(member: Member) -> Member:
    """An equal member that goes its own way: what can't change is shared."""
    copy = Member(
        member.universe,
        member.index,
        _copied(member.machine),
        _copied(member.entries),
        member.journal,
        member.tip,
        member.word,
        member.now_ms,
    )
    copy.journal = _copied(member.journal)
    copy.journal._entries = copy.entries
    return copy


@cache
def _is_constant(kind: type) -> bool:
    """Whether values of this type never change."""
    if kind in (int, str, bytes, bool, tuple, frozenset, type(None), FunctionType) or issubclass(kind, Enum):
        return True
    return is_dataclass(kind) and bool(kind.__dataclass_params__.frozen)  # type: ignore[attr-defined]


def _copied(value: Any) -> Any:
    kind = type(value)
    if _is_constant(kind):  # type: ignore[arg-type]
        return value
    if kind is dict:
        return {key: _copied(held) for key, held in value.items()}
    if kind in (set, list):
        return kind(value)
    copy = object.__new__(kind)
    for name in getattr(kind, "__slots__", None) or vars(value):
        object.__setattr__(copy, name, _copied(getattr(value, name)))
    return copy
