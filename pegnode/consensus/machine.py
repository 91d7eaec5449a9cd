"""The Simplex consensus machine: events in, actions out.

Theory of operation
===================

n members, of whom at most f = (n-1)//3 are faulty in any way; a quorum is q = n - f, so two quorums share an honest
member. Time is cut into views 1, 2, 3, ...; view v has one leader, member v mod n. In a view members vote

    notarize (view, block)   the first valid proposal of the view's leader
    nullify  (view)          when the view's timer fires, even after notarize
    finalize (view, block)   when q notarize votes are seen, unless nullify was voted

and q equal votes make a certificate. A notarization or a nullification ends the view: whoever sees one of view v is in
view v+1 or later. q finalize votes make the block and all its ancestors final.

A block of view w stands on a parent of view v < w that is notarized while every view between is nullified; the
proposal carries these certificates. Members judge a proposal by that and by the rules of the chain, never by whether
another parent would have been better.

Safety. An honest member notarizes once in a view, so a view has at most one notarized block. It never votes both
finalize and nullify in a view, so a finalized view has no nullification. Hence every notarized block of a later view
descends from every final block. None of this depends on time, on the network, or on who restarts with its journal.

Liveness. Every certificate that a member forms goes to all, and votes and certificates since the last final view are
sent again on a timer. So once messages arrive, all honest members reach a common view; every run of f+1 leaders has an
honest one, whose block all honest members notarize before their timers fire, and then finalize: for the timers grow
until they do, whatever f leaders get done.

A block is due (and the view's timer runs) from the earliest of: includable work known here; f+1 nullify votes, of which
one is honest; a certified block that is not final; a proposal of this view; the heartbeat. An idle chain stays in one
view, silent, until the heartbeat.

How long a view may take is measured, and leaders who were not there are hardly waited for: see `patience`.

What the machine keeps is bounded: votes of known members, one for each kind and view within a window of views; one
proposal of each leader; certificates and certified blocks above the last final view, which only quorums can make.

The machine is deterministic and reads no clock. `handle` never raises for what peers sent: it answers Refuse with a
reason. It raises MachineMisused for what only the driver can get wrong.

Source: Chan and Pass, "Simplex Consensus: A Simple and Fast Consensus Protocol" (2023).
"""

from bridge.bitcoin.identifiers import BlockHash
from federation.certificate import Certificate, Vote, VoteKind
from federation.membership import Membership
from pegnode.consensus import intake
from pegnode.consensus.actions import Action, ConsensusReason
from pegnode.consensus.events import (
    BlockBuilt,
    BlockChecked,
    BlockReceived,
    BuildFailed,
    CertificateReceived,
    Event,
    FinalTip,
    ProposalReceived,
    Start,
    Synced,
    Tick,
    VoteReceived,
    WorkKnown,
)
from pegnode.consensus.parameters import ConsensusParams
from pegnode.consensus.progress import advance
from pegnode.consensus.state import ConsensusState
from pegnode.errors import PegnodeError


class MachineMisused(PegnodeError):  # noqa: N818 -- the driver's fault, never a peer's
    """The driver broke the machine's contract: a defect of this program."""


class Simplex:
    """One member's part in consensus. The first event is Start, and comes once."""

    def __init__(self, member: int, membership: Membership, params: ConsensusParams) -> None:
        membership.validate()
        params.validate()
        if not membership.contains(member):
            raise MachineMisused(f"member {member} of {membership.size}")
        self._member = member
        self._membership = membership
        self._params = params
        self._state: ConsensusState | None = None

    @property
    def is_started(self) -> bool:
        """Whether Start was handled: nothing else can be asked before."""
        return self._state is not None

    @property
    def view(self) -> int:
        """The view this member is in."""
        return self._started.view

    @property
    def final_tip(self) -> FinalTip:
        """The newest block that was declared final here."""
        return self._started.tree.tip

    @property
    def final_view(self) -> int:
        """The newest view known to be final; above the tip's while bodies are missing or unchecked here."""
        return self._started.certificates.final_view

    @property
    def is_due(self) -> bool:
        """Whether a block is due, so that the view's timer runs."""
        return self._started.pace.runs

    @property
    def stopped(self) -> bool:
        """Whether contradicting certificates made this member stop signing."""
        return self._started.stopped

    @property
    def timeout_ms(self) -> int:
        """What a view gets that is entered now, if its leader was not missed."""
        return self._started.patience.fresh_timeout_ms

    @property
    def missed_leaders(self) -> frozenset[int]:
        """Members who were not there for the last view that they led, and were not heard of since."""
        return self._started.patience.missed_leaders(self._started.view)

    def keeps(self, block_hash: BlockHash) -> bool:
        """Whether the machine still counts on this block's body; asked when Forget is carried out."""
        return self._started.tree.info(block_hash) is not None

    def unwanted(self, vote: Vote) -> ConsensusReason | None:
        """Why the block that comes with its leader's checked vote would be of no use now; None if it would be kept.

        So that its body is read only then. The vote itself is worth hearing either way.
        """
        return intake.unwanted(self._started, vote)

    def handle(self, event: Event, now_ms: int) -> list[Action]:
        """What to do after `event`, in order. now_ms: a clock that never goes back, of any origin.

        Raises MachineMisused, with nothing changed, for what only a defect of the driver can bring about.
        """
        if isinstance(event, Start):
            self._start(event, now_ms)
        state = self._started
        _check_use(event)
        state.now_ms = now_ms
        _dispatch(state, event)
        advance(state)
        actions, state.actions = state.actions, []
        return actions

    @property
    def _started(self) -> ConsensusState:
        if self._state is None:
            raise MachineMisused("the first event is Start")
        return self._state

    def _start(self, start: Start, now_ms: int) -> None:
        if self._state is not None:
            raise MachineMisused("started twice")
        if start.final.view > 0:
            _check_proof(start.final, start.certificate)
        if any(vote.member != self._member for vote in start.votes):
            raise MachineMisused("the journal holds another member's votes")
        self._state = ConsensusState(
            self._member, self._membership, self._params, start.final, start.certificate, start.floor_view, now_ms
        )
        self._state.stopped = start.stopped


def _check_use(event: Event) -> None:
    if isinstance(event, Synced):
        _check_proof(event.final, event.certificate)


def _check_proof(final: FinalTip, certificate: Certificate | None) -> None:
    if certificate is None or (certificate.kind, certificate.view, certificate.block_hash) != (
        VoteKind.FINALIZE,
        final.view,
        final.hash,
    ):
        raise MachineMisused("a final tip comes with its finalization")


def _dispatch(state: ConsensusState, event: Event) -> None:
    match event:
        case Start():
            intake.restore(state, event)
        case VoteReceived(vote):
            intake.receive_vote(state, vote)
        case CertificateReceived(certificate):
            intake.receive_certificate(state, certificate)
        case ProposalReceived():
            intake.receive_proposal(state, event)
        case BlockReceived():
            intake.receive_block(state, event)
        case BlockChecked(block_hash, verdict):
            state.tree.judge(block_hash, verdict)
        case BlockBuilt():
            intake.take_built(state, event)
        case BuildFailed(view):
            intake.take_build_failed(state, view)
        case WorkKnown(known):
            state.work_known = known
        case Synced():
            intake.take_synced(state, event)
        case Tick():
            pass
