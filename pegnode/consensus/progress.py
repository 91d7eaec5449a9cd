"""What follows from the state after every event: each step does what has become possible or due."""

from typing import TypeVar

from bridge.bitcoin.identifiers import BlockHash
from federation.certificate import Certificate, Vote, VoteKind
from pegnode.consensus.actions import (
    Broadcast,
    Build,
    ConsensusReason,
    Finalized,
    ReportInvalidCertified,
    RequestBlock,
    Validate,
    WakeAt,
)
from pegnode.consensus.events import FinalTip, Verdict
from pegnode.consensus.state import CHUNK, ConsensusState

T = TypeVar("T")


def advance(state: ConsensusState) -> None:
    """Take every step once; a step never makes an earlier one possible without a further event."""
    commit(state)
    repeat(state)
    roots = wanted(state)
    fetch(state, roots)
    check(state, roots)
    notarize(state)
    propose(state)
    expire(state)
    schedule(state)


def commit(state: ConsensusState) -> None:
    """Declare the newest final block final here, once it and its ancestors were found valid."""
    block_hash = state.certificates.final_hash
    finalization = state.certificates.finalization
    info = state.tree.info(block_hash)
    if state.stopped or info is None or finalization is None or not state.tree.ready(block_hash):
        return
    if not state.tree.reaches_tip(block_hash):
        _report_invalid(state, block_hash, finalization)
        return
    state.emit(Finalized(info, finalization))
    state.move_tip(FinalTip(info.hash, info.height, info.view))


def repeat(state: ConsensusState) -> None:
    """On their timers: say again what others may have missed, ask again for what is missing here."""
    if state.now_ms >= state.retry_ms:
        state.retry_ms = state.now_ms + state.params.resend_ms
        state.requested.clear()
        state.tree.recheck_waiting()
    if state.now_ms >= state.resend_ms:
        state.resend_ms = state.now_ms + state.params.resend_ms
        _resend(state)


def wanted(state: ConsensusState) -> list[BlockHash]:
    """The blocks to have and to judge: the final one, the newest certified one, the proposal of this view."""
    roots = [state.certificates.final_hash, state.certificates.highest()[1]]
    proposal = state.proposals.get(state.view)
    if proposal is not None and state.certificates.justified(proposal.parent_hash, state.view):
        roots.append(proposal.hash)
    return roots


def fetch(state: ConsensusState, roots: list[BlockHash]) -> None:
    """Ask for the bodies that are missing on the way from the tip to these blocks."""
    for root in roots:
        missing = state.tree.missing(root, state.certificates.final_view)
        if missing is not None and missing not in state.requested:
            state.requested.add(missing)
            state.emit(RequestBlock(missing, _holders(state, root)))


def check(state: ConsensusState, roots: list[BlockHash]) -> None:
    """Have these blocks and their ancestors checked, parents first."""
    for root in roots:
        info = state.tree.next_to_check(root)
        if info is not None and state.tree.fits_parent(info):
            state.emit(Validate(info.hash))
        elif info is not None:
            state.tree.judge(info.hash, Verdict.INVALID)
            state.refuse(ConsensusReason.WRONG_HEIGHT, f"height {info.height} in view {info.view}")
        certificate = state.certificates.certificate_of(root)
        invalid = state.tree.invalid_ancestor(root)
        if certificate is not None and invalid is not None:
            _report_invalid(state, invalid, certificate)


def notarize(state: ConsensusState) -> None:
    """Vote for the proposal of the current view."""
    info = state.proposals.get(state.view)
    if info is None or not state.may_sign(VoteKind.NOTARIZE, state.view):
        return
    justified = state.certificates.justified(info.parent_hash, state.view)
    if justified and state.tree.verdict(info.hash) is Verdict.VOTABLE:
        state.cast(VoteKind.NOTARIZE, state.view, info.hash)


def propose(state: ConsensusState) -> None:
    """As the leader, have a block built once it is due, on the newest parent whose state is known here."""
    due_ms = _proposal_ms(state)
    if due_ms is None or state.now_ms < due_ms:
        return
    for parent_hash in state.certificates.parents(state.view):
        if state.tree.ready(parent_hash):
            state.building_view = state.view
            state.emit(Build(state.view, parent_hash, state.restraint.allows(state.view)))
            return


def expire(state: ConsensusState) -> None:
    """Run the view's timer while a block is due; when it fires, vote to nullify."""
    nullify_votes = state.votes.count(VoteKind.NULLIFY, state.view)
    due = (
        state.work_known
        or state.unfinal
        or state.view in state.proposals
        or nullify_votes > state.membership.fault_tolerance
    )
    state.pace.run_timer(due, state.now_ms)
    deadline_ms = _deadline_ms(state)
    if deadline_ms is not None and state.now_ms >= deadline_ms:
        if not _leader_gave_up(state):
            proposal = state.proposals.get(state.view)
            state.patience.note_given_up(
                state.view,
                prudence=proposal is not None and proposal.carries_l1,
                proposed=proposal is not None or not state.leads,
            )
        state.cast(VoteKind.NULLIFY, state.view)


def schedule(state: ConsensusState) -> None:
    """Ask to be woken at the next moment that matters."""
    moments = (_deadline_ms(state), _proposal_ms(state), state.pace.heartbeat_ms, state.resend_ms, state.retry_ms)
    wake_ms = min(moment for moment in moments if moment is not None and moment > state.now_ms)
    if wake_ms != state.wake_ms:
        state.wake_ms = wake_ms
        state.emit(WakeAt(wake_ms))


def _holders(state: ConsensusState, root: BlockHash) -> tuple[int, ...]:
    """Who signed the certificate of this wanted block; of a proposal, which has none yet, that of its parent."""
    info = state.tree.info(root)
    certificate = state.certificates.certificate_of(root)
    if certificate is None and info is not None:
        certificate = state.certificates.certificate_of(info.parent_hash)
    return () if certificate is None else tuple(member for member, _ in certificate.signatures)


def _proposal_ms(state: ConsensusState) -> int | None:
    """When this member proposes in the current view; None if it does not."""
    proposes = state.leads and state.building_view is None and state.may_sign(VoteKind.NOTARIZE, state.view)
    return state.pace.proposal_ms(state.work_known, state.unfinal, state.patience.timeout_ms) if proposes else None


def _deadline_ms(state: ConsensusState) -> int | None:
    """When this member nullifies the current view; None while the timer stands or if it may not."""
    due_ms = state.pace.due_ms
    if due_ms is None or not state.may_sign(VoteKind.NULLIFY, state.view):
        return None
    if _leader_gave_up(state):
        return due_ms
    return due_ms + state.patience.view_timeout_ms(state.view)


def _leader_gave_up(state: ConsensusState) -> bool:
    """Whether waiting for a proposal is in vain: the leader has nullified, or is this member, who is far behind.

    Who nullified a view never proposes in it.
    """
    if state.leads:
        return state.tree.is_far_below(state.certificates.final_hash)
    leader = state.membership.leader(state.view)
    return state.view not in state.proposals and state.votes.nullified(state.view, leader)


def _resend(state: ConsensusState) -> None:
    votes = [vote for vote in state.own.all_signed() if not _superseded(state, vote)]
    certificates = state.certificates.from_view(state.certificates.final_view + 1)
    if votes or certificates:
        turn = state.resend_cursor
        state.resend_cursor += CHUNK
        finalization = state.certificates.finalization
        proof = () if finalization is None else (finalization,)
        chunk = (*proof, *_turn_of(certificates, turn))
        state.emit(Broadcast(tuple(_turn_of(votes, turn)), chunk))
    proposal = state.proposals.get(state.view)
    if state.leads and proposal is not None and state.own.notarized(state.view) == proposal.hash:
        silent = set(state.others) - state.votes.voters(state.view)
        state.send_proposal(proposal, tuple(sorted(silent)))


def _superseded(state: ConsensusState, vote: Vote) -> bool:
    """Whether a certificate says all that this vote could still bring about."""
    if vote.kind is VoteKind.FINALIZE:
        return state.certificates.nullified(vote.view)
    return state.certificates.decided(vote.view)


def _turn_of(items: list[T], turn: int) -> list[T]:
    """At most CHUNK items, others at each turn."""
    start = turn % len(items) if len(items) > CHUNK else 0
    return (items[start:] + items[:start])[:CHUNK]


def _report_invalid(state: ConsensusState, block_hash: BlockHash, certificate: Certificate) -> None:
    if block_hash not in state.reported_invalid:
        state.reported_invalid.add(block_hash)
        state.emit(ReportInvalidCertified(block_hash, certificate))
