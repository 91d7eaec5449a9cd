"""All that one member knows while it takes part in consensus, and the few steps that everything else is made of."""

from collections.abc import Iterable

from bridge.bitcoin.identifiers import BlockHash
from federation.certificate import NO_BLOCK, Certificate, VoteKind
from federation.membership import Membership
from pegnode.consensus.actions import (
    Action,
    CastVote,
    ConsensusReason,
    Forget,
    PruneJournal,
    Refuse,
    ReportConflictingCertificates,
    SendProposal,
    SendTo,
)
from pegnode.consensus.blocks import BlockTree
from pegnode.consensus.certificates import CertificateBook
from pegnode.consensus.events import BlockInfo, FinalTip
from pegnode.consensus.own_votes import OwnVotes
from pegnode.consensus.pace import Pace
from pegnode.consensus.parameters import ConsensusParams
from pegnode.consensus.patience import Patience
from pegnode.consensus.restraint import L1Restraint
from pegnode.consensus.votes import VoteBook

VIEW_WINDOW = 32
"""Votes are kept for this many views on either side of the current one. Who is further apart is helped by certificates,
which a quorum made and which therefore need no window."""
CHUNK = 64
"""The most votes, and the most certificates, of one message."""


class ConsensusState:
    """What the machine's steps read and change. `actions` collects what the current event leads to."""

    def __init__(
        self,
        member: int,
        membership: Membership,
        params: ConsensusParams,
        final: FinalTip,
        finalization: Certificate | None,
        floor_view: int,
        now_ms: int,
    ) -> None:
        self.member = member
        self.membership = membership
        self.params = params
        self.now_ms = now_ms
        self.actions: list[Action] = []

        self.view = final.view + 1
        self.work_known = False
        self.stopped = False
        self.building_view: int | None = None
        self.resend_ms = now_ms
        self.retry_ms = now_ms
        self.wake_ms: int | None = None
        self.resend_cursor = 0

        self.tree = BlockTree(final)
        self.certificates = CertificateBook(final.view, final.hash, finalization)
        self.votes = VoteBook(membership.epoch, membership.quorum)
        self.own = OwnVotes(max(floor_view, final.view))
        self.pace = Pace(params, now_ms)
        self.patience = Patience(params, membership, member)
        self.restraint = L1Restraint(membership)
        self.proposals: dict[int, BlockInfo] = {}
        self.requested: set[BlockHash] = set()
        self.helped_ms: dict[int, int] = {}
        self.accused: set[tuple[int, int]] = set()
        self.reported_invalid: set[BlockHash] = set()

    @property
    def leads(self) -> bool:
        """Whether this member is the leader of the current view."""
        return self.membership.leader(self.view) == self.member

    @property
    def unfinal(self) -> bool:
        """Whether the newest certified block is not final."""
        return self.certificates.highest()[0] > self.certificates.final_view

    @property
    def oldest_view_kept(self) -> int:
        """Votes of earlier views are not taken."""
        return max(self.certificates.final_view, self.view - VIEW_WINDOW)

    @property
    def others(self) -> tuple[int, ...]:
        """Every other member."""
        return tuple(member.index for member in self.membership.members if member.index != self.member)

    def emit(self, action: Action) -> None:
        """Ask the driver for this, after what was asked before."""
        self.actions.append(action)

    def refuse(self, reason: ConsensusReason, detail: str = "") -> None:
        """Say that what was received is not used."""
        self.emit(Refuse(reason, detail))

    def may_sign(self, kind: VoteKind, view: int) -> bool:
        """Whether this member may cast such a vote: no promise broken, and safety was not seen to be broken."""
        return not self.stopped and self.own.may_sign(kind, view)

    def cast(self, kind: VoteKind, view: int, block_hash: BlockHash = NO_BLOCK) -> None:
        """Vote, where `may_sign` allowed it."""
        self.own.promise(kind, view, block_hash)
        self.emit(CastVote(kind, view, block_hash, self.certificates.proof_for(kind, view)))

    def stop(self, first: Certificate, second: Certificate) -> None:
        """Two certificates contradict each other: from here on sign nothing, and declare nothing final."""
        if not self.stopped:
            self.stopped = True
            self.emit(ReportConflictingCertificates(first, second))

    def enter(self, view: int) -> None:
        """Go on to `view`; old proposals that nobody needs are forgotten."""
        self.view = view
        self.building_view = None
        self.pace.enter(self.now_ms)
        self.votes.prune(self.oldest_view_kept)
        self.accused = {accused for accused in self.accused if accused[1] >= self.oldest_view_kept}
        old = [past for past in self.proposals if past < view - self.membership.size]
        infos = [self.proposals.pop(past) for past in old]
        self.forget(self.tree.drop(info.hash for info in infos if not self._needed(info)))

    def settle(self) -> None:
        """The last final view moved up: what lies at or below it is decided."""
        final_view = self.certificates.final_view
        self.own.prune(final_view)
        self.votes.prune(self.oldest_view_kept)
        self.proposals = {view: info for view, info in self.proposals.items() if view >= final_view}
        self.forget(self.tree.drop_left_behind(self.certificates.final_hash, final_view))
        self.resend_ms = self.now_ms + self.params.resend_ms

    def move_tip(self, tip: FinalTip) -> None:
        """Storage holds this block, or will before it carries out what is asked for next."""
        self.emit(PruneJournal(tip.view))
        self.forget(self.tree.move_tip(tip))

    def forget(self, block_hashes: Iterable[BlockHash]) -> None:
        """Tell the driver which bodies it may drop."""
        hashes = tuple(block_hashes)
        self.reported_invalid.difference_update(hashes)
        if hashes:
            self.emit(Forget(hashes))

    def help(self, member: int, view: int) -> None:
        """Send a member that is still in `view` what ended it, not more often than twice in a resend interval."""
        last_ms = self.helped_ms.get(member)
        if member == self.member or (last_ms is not None and self.now_ms - last_ms < self.params.resend_ms // 2):
            return
        finalization = self.certificates.finalization
        certificates = tuple(self.certificates.from_view(view)[-CHUNK:])
        if finalization is not None and view <= finalization.view:
            certificates = (finalization, *certificates)
        if certificates:
            self.helped_ms[member] = self.now_ms
            self.emit(SendTo(member, certificates))

    def send_proposal(self, info: BlockInfo, members: tuple[int, ...]) -> None:
        """Send this member's own proposal with what justifies its parent."""
        if members and self.certificates.justified(info.parent_hash, info.view):
            certificates = self.certificates.justification(info.parent_hash, info.view)
            self.emit(SendProposal(info.view, info.hash, certificates, members))

    def _needed(self, info: BlockInfo) -> bool:
        """Whether a block of a past view may still be asked for: certified, or voted for by this member."""
        certified = self.certificates.certified_view(info.hash) is not None
        return certified or self.own.notarized(info.view) == info.hash
