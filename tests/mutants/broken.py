"""Broken rules of consensus, each a patch that lasts as long as its context."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from unittest import mock

from bridge.bitcoin.hashes import tagged_hash
from bridge.bitcoin.identifiers import BlockHash
from bridge.codec import Writer
from federation import certificate as certificates
from federation.certificate import Certificate, Vote, VoteKind
from federation.journal import Journal
from federation.membership import Membership
from pegnode.consensus import intake, progress
from pegnode.consensus.actions import PruneJournal
from pegnode.consensus.certificates import CertificateBook
from pegnode.consensus.events import BlockInfo, FinalTip, Start
from pegnode.consensus.own_votes import OwnVotes
from pegnode.consensus.pace import Pace
from pegnode.consensus.patience import Patience
from pegnode.consensus.state import ConsensusState
from pegnode.consensus.votes import VoteBook

Patch = Callable[[], AbstractContextManager[Any]]


def quorum_one_lower() -> AbstractContextManager[Any]:
    """Two quorums need not share an honest member."""
    return mock.patch.object(Membership, "quorum", property(lambda self: self.size - self.fault_tolerance - 1))


def certificate_one_vote_early() -> AbstractContextManager[Any]:
    """A member takes one vote less than a quorum for a certificate."""
    real = VoteBook.__init__

    def init(self: VoteBook, epoch: int, quorum: int) -> None:
        real(self, epoch, quorum - 1)

    return mock.patch.object(VoteBook, "__init__", init)


def finalize_after_nullify() -> AbstractContextManager[Any]:
    """A member finalizes a block in a view that it gave up."""
    return _may_sign(VoteKind.FINALIZE)


def notarize_after_nullify() -> AbstractContextManager[Any]:
    """A member votes for a proposal in a view that it gave up."""
    return _may_sign(VoteKind.NOTARIZE)


@contextmanager
def nullify_after_finalize() -> Iterator[None]:
    """A member gives up a view in which it finalized; a restart brings it back there, its certificates forgotten."""
    real = intake.restore

    def restore(state: ConsensusState, start: Start) -> None:
        real(state, replace(start, certificates=()))

    with _may_sign(VoteKind.NULLIFY), mock.patch.object(intake, "restore", restore):
        yield


def nullify_forbidden_after_notarize() -> AbstractContextManager[Any]:
    """A member that voted for a block waits for it, for ever."""
    real = OwnVotes.may_sign

    def may_sign(self: OwnVotes, kind: VoteKind, view: int) -> bool:
        bound = kind is VoteKind.NULLIFY and self.signed(VoteKind.NOTARIZE, view)
        return real(self, kind, view) and not bound

    return mock.patch.object(OwnVotes, "may_sign", may_sign)


@contextmanager
def two_votes_in_one_view() -> Iterator[None]:
    """A member votes for every proposal of a view."""
    real = OwnVotes.may_sign

    def may_sign(self: OwnVotes, kind: VoteKind, view: int) -> bool:
        again = kind is VoteKind.NOTARIZE and self.signed(kind, view) and not self.signed(VoteKind.NULLIFY, view)
        return again or real(self, kind, view)

    def keep(state: ConsensusState, info: BlockInfo) -> None:
        state.proposals[info.view] = info
        state.tree.add(info, state.now_ms)

    def notarize(state: ConsensusState) -> None:
        info = state.proposals.get(state.view)
        if info is not None and state.own.notarized(state.view) != info.hash:
            real_notarize(state)

    real_notarize = progress.notarize
    with (
        mock.patch.object(OwnVotes, "may_sign", may_sign),
        mock.patch.object(intake, "_keep_proposal", keep),
        mock.patch.object(progress, "notarize", notarize),
    ):
        yield


def finalize_without_notarization() -> AbstractContextManager[Any]:
    """A member finalizes what it voted for, before it knows that others did."""
    real = progress.notarize

    def notarize(state: ConsensusState) -> None:
        before = state.own.notarized(state.view)
        real(state)
        block_hash = state.own.notarized(state.view)
        if block_hash and not before:
            state.cast(VoteKind.FINALIZE, state.view, BlockHash(block_hash))

    return mock.patch.object(progress, "notarize", notarize)


def notarized_is_final() -> AbstractContextManager[Any]:
    """A member takes a notarization for a finalization."""
    real = CertificateBook.add

    def add(self: CertificateBook, certificate: Certificate) -> bool:
        if certificate.kind is VoteKind.NOTARIZE and certificate.view > self.final_view:
            self._finalize(certificate)
            return True
        return real(self, certificate)

    return mock.patch.object(CertificateBook, "add", add)


def missing_nullification_accepted() -> AbstractContextManager[Any]:
    """A block may stand on any notarized block, whatever happened in the views between."""

    def justified(self: CertificateBook, parent_hash: BlockHash, view: int) -> bool:
        parent_view = self.certified_view(parent_hash)
        return parent_view is not None and parent_view < view

    return mock.patch.object(CertificateBook, "justified", justified)


def digest_without_kind() -> AbstractContextManager[Any]:
    """Votes of all kinds sign the same."""

    def digest(chain_id: bytes, epoch: int, kind: VoteKind, view: int, block_hash: bytes) -> bytes:
        return tagged_hash("pegnode/vote", Writer().u32(epoch).u64(view).variable(block_hash).finish())

    return mock.patch.object(certificates, "vote_digest", digest)


def signers_not_distinct() -> AbstractContextManager[Any]:
    """One member may sign a certificate more than once."""
    return mock.patch.object(certificates, "itertools", SimpleNamespace(pairwise=lambda members: ()))


def journal_not_synced() -> AbstractContextManager[Any]:
    """A vote leaves before it is on disk."""
    real = Journal.record_vote

    def record_vote(self: Journal, vote: Vote, body: bytes = b"") -> None:
        entries = self._entries
        lazy = SimpleNamespace(get=entries.get, write=lambda changes, sync: entries.write(changes, sync=False))
        with mock.patch.object(self, "_entries", lazy):
            real(self, vote, body)

    return mock.patch.object(Journal, "record_vote", record_vote)


def leader_proposes_anew() -> AbstractContextManager[Any]:
    """A restart forgets what it voted for, its own proposal too."""
    real = intake.restore

    def restore(state: ConsensusState, start: Start) -> None:
        kept = tuple(vote for vote in start.votes if vote.kind is not VoteKind.NOTARIZE)
        real(state, replace(start, votes=kept, blocks=()))

    return mock.patch.object(intake, "restore", restore)


def restart_forgets_floor() -> AbstractContextManager[Any]:
    """A restart takes the database's word for which views are over, and not the journal's."""
    real = OwnVotes.__init__

    def init(self: OwnVotes, floor_view: int) -> None:
        real(self, 0)

    return mock.patch.object(OwnVotes, "__init__", init)


def journal_pruned_too_early() -> AbstractContextManager[Any]:
    """The journal is closed up to the present view, as if all below were final."""
    real = ConsensusState.move_tip

    def move_tip(self: ConsensusState, tip: FinalTip) -> None:
        real(self, tip)
        self.emit(PruneJournal(self.view))

    return mock.patch.object(ConsensusState, "move_tip", move_tip)


def timer_without_heartbeat() -> AbstractContextManager[Any]:
    """Only work starts the timer: an idle chain waits for a dead leader for ever."""

    def run_timer(self: Pace, due: bool, now_ms: int) -> None:
        if not due:
            self._timer_from_ms = None
        elif self._timer_from_ms is None:
            self._timer_from_ms = now_ms

    return mock.patch.object(Pace, "run_timer", run_timer)


def any_notarization_ends_backing_off() -> AbstractContextManager[Any]:
    """Whoever has a block notarized makes the timeout short again, for leaders who need longer too."""
    real = Patience.note_notarized

    def note_notarized(self: Patience, view: int, took_ms: int) -> None:
        real(self, view, took_ms)
        self._failed_turns = [0] * len(self._failed_turns)
        self._stalled_views.clear()

    return mock.patch.object(Patience, "note_notarized", note_notarized)


def _may_sign(lax: VoteKind) -> AbstractContextManager[Any]:
    """Let votes of one kind ignore the votes that exclude them."""
    real = OwnVotes.may_sign

    def may_sign(self: OwnVotes, kind: VoteKind, view: int) -> bool:
        return real(self, kind, view) or (kind is lax and view > self._floor_view and not self.signed(kind, view))

    return mock.patch.object(OwnVotes, "may_sign", may_sign)
