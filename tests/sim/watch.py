"""What must never happen, checked as it leaves each honest member, over all its lives."""

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field

from bridge.bitcoin.identifiers import BlockHash
from federation.certificate import Vote, VoteKind
from federation.equivocation import Equivocation
from federation.journal import Journal
from federation.journal_header import JournalIdentity
from pegnode.chain.header import HEADER_SIZE, Header
from pegnode.consensus import actions as act
from pegnode.consensus.events import Event
from pegnode.net.messages import ProposalMessage, VotesMessage, decode_message, encode_message
from pegnode.net.transport import DropReason
from pegnode.service.unfinal import UnfinalBlock
from tests.sim.disk import SimEntries
from tests.sim.seams import Oracle, Violation
from tests.sim.trace import Trace, short
from tests.support.memory_member import Member

_VOTES = encode_message(VotesMessage(()))[1]
_PROPOSAL = encode_message(ProposalMessage(b"", b"", ()))[1]
BLAMELESS = frozenset({DropReason.SILENT, DropReason.CLOSED, DropReason.SLOW_CONSUMER, DropReason.NO_ANSWER})
"""Why a connection may end although nobody did wrong."""


@dataclass(slots=True)
class _Memory:
    """What a member's journal would still hold if power failed now, read again when a sync has changed it."""

    version: int = -1
    floor_view: int = 0
    votes: dict[tuple[int, VoteKind], BlockHash] = field(default_factory=dict)


class Watch:
    """Remembers every vote and final block of the honest members. Each method raises Violation.

    excused: whose operator put an older journal in the place of the newest. Such a member may contradict itself where
    nobody who answers has seen its word; what it does harms nobody, as long as there are few enough of its kind.
    said: the votes that left, by member, view and kind.  final, final_views: the final blocks, and the view of each.
    reached_views: the highest view in which anybody was when the first honest member held it.
    """

    def __init__(
        self, trace: Trace, byzantine: Container[int], journals: Mapping[int, SimEntries], chain_id: bytes
    ) -> None:
        self._trace = trace
        self._byzantine = byzantine
        self._journals = journals
        self._chain_id = chain_id
        self._memories = {index: _Memory() for index in journals}
        self.said: dict[tuple[int, int, VoteKind], BlockHash] = {}
        self.oracle: Oracle | None = None
        self.excused: set[int] = set()
        self.final: list[BlockHash] = []
        self.final_views: list[int] = []
        self.reached_views: list[int] = []
        self.highest_view = 0
        self.nullified: set[int] = set()

    # votes

    def frame_leaves(self, member: int, payload: bytes) -> None:
        """An honest member's process hands a frame to the network."""
        if payload[1] == _VOTES:
            message = decode_message(payload)
            assert isinstance(message, VotesMessage)
            for data in message.votes:
                self._vote_leaves(member, Vote.decode(data))
        elif payload[1] == _PROPOSAL:
            proposal = decode_message(payload)
            assert isinstance(proposal, ProposalMessage)
            vote = Vote.decode(proposal.vote)
            self._vote_leaves(member, vote)
            if Header.decode(proposal.block[:HEADER_SIZE]).hash != vote.block_hash:
                raise Violation(f"member {member} proposes one block and votes for another in view {vote.view}")

    def _vote_leaves(self, member: int, vote: Vote) -> None:
        if vote.member != member or member in self.excused:
            return
        key = (member, vote.view, vote.kind)
        if self.said.setdefault(key, vote.block_hash) != vote.block_hash:
            raise Violation(f"member {member} cast two {vote.kind.name} votes in view {vote.view}")
        if {(member, vote.view, VoteKind.FINALIZE), (member, vote.view, VoteKind.NULLIFY)} <= self.said.keys():
            raise Violation(f"member {member} finalized and nullified view {vote.view}")
        memory = self._memory(member)
        if vote.view > memory.floor_view and memory.votes.get((vote.view, vote.kind)) != vote.block_hash:
            raise Violation(
                f"member {member}'s {vote.kind.name} in view {vote.view} leaves, and a power failure would lose it"
            )

    def _memory(self, member: int) -> _Memory:
        entries, memory = self._journals[member], self._memories[member]
        if memory.version != entries.version:
            contents = Journal.open(entries.durable(), JournalIdentity(self._chain_id, 0, member)).contents()
            memory.version = entries.version
            memory.floor_view = contents.floor_view
            memory.votes = {(vote.view, vote.kind): vote.block_hash for vote in contents.votes}
        return memory

    # members

    def attach(self, member: Member, violated: Callable[[Violation], None]) -> None:
        """Look at everything that a member does from now on. violated: told of what is wrong."""
        index = member.index
        assert index is not None
        handle = member.machine.handle

        def watched(event: Event, now_ms: int) -> list[act.Action]:
            actions = handle(event, now_ms)
            try:
                for action in actions:
                    self._look_at(index, action)
                self.highest_view = max(self.highest_view, member.machine.view)
            except Violation as violation:
                violated(violation)
            return actions

        def on_final(unfinal: UnfinalBlock) -> None:
            try:
                self._note_final(index, member, unfinal)
            except Violation as violation:
                violated(violation)

        keep = member.store.keep_equivocation

        def kept(equivocation: Equivocation) -> None:
            if self._is_bound(equivocation.member):
                violated(Violation(f"member {index} keeps a proof against honest member {equivocation.member}"))
            keep(equivocation)

        member.machine.handle = watched  # type: ignore[method-assign]
        member.store.keep_equivocation = kept  # type: ignore[method-assign]
        if index not in self._byzantine:
            member.core.on_final(on_final)

    def _is_bound(self, member: int) -> bool:
        """Whether nothing excuses a member that contradicts itself."""
        return member not in self._byzantine and member not in self.excused

    def _look_at(self, index: int, action: act.Action) -> None:
        who = f"member {index}"
        match action:
            case act.CastVote(kind, view, block_hash):
                self._trace.note(who, f"view {view}: votes {kind.name} {short(block_hash) if any(block_hash) else ''}")
            case act.SendProposal(view, block_hash, _, members):
                self._trace.note(who, f"view {view}: proposes {short(block_hash)} to {len(members)}")
            case act.SaveCertificate(certificate):
                if certificate.kind is VoteKind.NULLIFY:
                    self.nullified.add(certificate.view)
                self._trace.note(who, f"view {certificate.view}: holds a {certificate.kind.name} certificate")
            case act.Build(view, parent_hash):
                self._trace.note(who, f"view {view}: builds on {short(parent_hash)}")
            case act.Finalized(info):
                self._trace.note(who, f"view {info.view}: block {info.height} {short(info.hash)} is final")
            case act.ReportEquivocation(first):
                self._trace.note(who, f"view {first.view}: sees member {first.member} contradict itself")
                if self._is_bound(first.member):
                    raise Violation(f"member {index} accuses honest member {first.member}")
            case act.ReportConflictingCertificates() | act.ReportInvalidCertified():
                raise Violation(f"member {index} reports {type(action).__name__}: {action}")
            case act.ReportUnknownOwnVote(vote):
                if self._is_bound(index):
                    raise Violation(f"member {index} does not know its own vote: view {vote.view}, {vote.kind.name}")

    def _note_final(self, index: int, member: Member, unfinal: UnfinalBlock) -> None:
        header = unfinal.block.header
        known = len(self.final)
        if header.height > known + 1:
            raise Violation(f"member {index} has block {header.height} and nobody block {known + 1}")
        if header.height <= known:
            if self.final[header.height - 1] != header.hash:
                raise Violation(f"member {index} has another final block at height {header.height}")
            return
        self._take(header, unfinal.data, member.store.certificate_at(header.height))

    def _take(self, header: Header, block: bytes, certificate: bytes | None) -> None:
        """The first honest member holds the next final block."""
        self.final.append(header.hash)
        self.final_views.append(header.view)
        self.reached_views.append(self.highest_view)
        self._trace.note("the chain", f"block {header.height} {short(header.hash)} of view {header.view}")
        if self.oracle is not None:
            self.oracle.judge(block, certificate)

    def check_tip(self, index: int, member: Member) -> None:
        """A member that starts holds blocks that were final before.

        Or, with a certificate, such as it wrote in the moment before its process ended, when nobody else had them yet.
        """
        store, tip = member.store, member.store.tip.header
        if tip.height > len(self.final) and store.certificate_at(tip.height) is None:
            raise Violation(f"member {index} starts with a tip at height {tip.height} that was never final")
        for height in range(len(self.final) + 1, tip.height + 1):
            block = store.block_at(height)
            assert block is not None
            self._take(Header.decode(block[:HEADER_SIZE]), block, store.certificate_at(height))
        if tip.height and self.final[tip.height - 1] != tip.hash:
            raise Violation(f"member {index} starts with another final block at height {tip.height}")

    def check_drop(self, index: int, other: int | None, reason: DropReason) -> None:
        """An honest member ended a connection: never for the fault of another honest one."""
        if other is not None and other not in self._byzantine and reason not in BLAMELESS:
            raise Violation(f"member {index} drops honest member {other}: {reason.value}")
