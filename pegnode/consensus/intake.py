"""What each event changes at once. What follows from the new state is the business of `progress`."""

from bridge.bitcoin.identifiers import BlockHash
from federation.certificate import Certificate, Vote, VoteKind
from pegnode.consensus.actions import (
    Broadcast,
    ConsensusReason,
    ReportEquivocation,
    ReportUnknownOwnVote,
    SaveCertificate,
)
from pegnode.consensus.events import BlockBuilt, BlockInfo, BlockReceived, ProposalReceived, Start, Synced, Verdict
from pegnode.consensus.state import VIEW_WINDOW, ConsensusState


def restore(state: ConsensusState, start: Start) -> None:
    """Take up what the journal holds: blocks and votes first, so that certificates meet every promise."""
    for info in start.blocks:
        if info.height > start.final.height:
            state.tree.add(info, state.now_ms)
    for vote in start.votes:
        if vote.view > start.final.view:
            state.own.promise(vote.kind, vote.view, vote.block_hash)
            state.own.keep(vote)
            state.votes.add(vote)
            proposal = state.tree.info(vote.block_hash)
            if vote.kind is VoteKind.NOTARIZE and proposal is not None:
                state.proposals[vote.view] = proposal
    for certificate in sorted(start.certificates, key=lambda c: (c.view, c.kind)):
        absorb(state, certificate, journaled=True)


def receive_vote(state: ConsensusState, vote: Vote) -> bool:
    """Count a checked vote; form the certificate that it completes. False if the vote was refused."""
    if vote.epoch != state.membership.epoch:
        state.refuse(ConsensusReason.WRONG_EPOCH, f"{vote.epoch}")
        return False
    if not state.membership.contains(vote.member):
        state.refuse(ConsensusReason.UNKNOWN_MEMBER, f"{vote.member}")
        return False
    if vote.view > state.view + VIEW_WINDOW:
        state.refuse(ConsensusReason.VIEW_TOO_FAR, f"view {vote.view}, now in {state.view}")
        return False
    state.patience.note_heard((vote.member,), vote.view)
    if vote.member == state.member and not state.own.keep(vote):
        state.emit(ReportUnknownOwnVote(vote))
    if vote.view < state.oldest_view_kept:
        state.refuse(ConsensusReason.VIEW_PASSED, f"view {vote.view}, now in {state.view}")
        state.help(vote.member, vote.view)
        return False
    rival = state.votes.conflict(vote)
    if rival is not None:
        _accuse(state, rival, vote)
        return False
    if state.votes.add(vote):
        certificate = state.votes.certificate(vote.kind, vote.view, vote.block_hash)
        if certificate is not None:
            absorb(state, certificate, formed=True)
    elif vote.view < state.view:
        state.help(vote.member, vote.view)
    return True


def absorb(state: ConsensusState, certificate: Certificate, *, formed: bool = False, journaled: bool = False) -> None:
    """Act on a certificate: keep it, pass it on if it was formed here, vote finalize, enter the next view."""
    rival = state.certificates.conflicting(certificate)
    if rival is not None:
        state.stop(rival, certificate)
        return
    if not state.certificates.add(certificate):
        return
    _learn(state, certificate, journaled=journaled)
    if not journaled:
        state.emit(SaveCertificate(certificate))
    if formed:
        state.emit(Broadcast(certificates=(certificate,)))
    if certificate.kind is VoteKind.NULLIFY:
        _note_nullified(state, certificate.view)
    else:
        _note_certified(state, certificate.block_hash)
    if certificate.kind is VoteKind.NOTARIZE:
        _vote_finalize(state, certificate)
    if certificate.kind is VoteKind.FINALIZE:
        state.settle()
    if certificate.view >= state.view:
        state.enter(certificate.view + 1)


def receive_certificate(state: ConsensusState, certificate: Certificate) -> None:
    """Take a checked certificate from another member."""
    if certificate.epoch != state.membership.epoch:
        state.refuse(ConsensusReason.WRONG_EPOCH, f"{certificate.epoch}")
        return
    absorb(state, certificate)


def receive_proposal(state: ConsensusState, event: ProposalReceived) -> None:
    """Keep the first proposal of its view, for now or for later; take its vote and its certificates."""
    _judge_proposal(state, event)
    _forget_unknown(state, event.info.hash)


def unwanted(state: ConsensusState, vote: Vote) -> ConsensusReason | None:
    """Why the block of a proposal with this checked vote of its leader's would not be kept; None if it would be."""
    if vote.member != state.membership.leader(vote.view):
        return ConsensusReason.NOT_LEADER
    if vote.block_hash in state.requested:
        return None
    if vote.view > state.view + min(state.membership.size, VIEW_WINDOW):
        return ConsensusReason.VIEW_TOO_FAR
    if vote.view < state.view:
        return ConsensusReason.VIEW_PASSED
    if state.votes.conflict(vote) is not None:
        return ConsensusReason.EQUIVOCATION
    first = state.proposals.get(vote.view)
    return None if first is None or first.hash == vote.block_hash else ConsensusReason.SECOND_PROPOSAL


def receive_block(state: ConsensusState, event: BlockReceived) -> None:
    """Take a body that was asked for."""
    if event.info.hash in state.requested:
        _take_block(state, event.info)
    elif state.tree.info(event.info.hash) is None:
        state.refuse(ConsensusReason.BLOCK_NOT_WANTED, f"height {event.info.height}")
        _forget_unknown(state, event.info.hash)


def take_built(state: ConsensusState, event: BlockBuilt) -> None:
    """Propose the block that was built, unless its moment has passed."""
    info = event.info
    timely = info.view == state.view == state.building_view and state.may_sign(VoteKind.NOTARIZE, info.view)
    if not timely or not state.certificates.justified(info.parent_hash, info.view):
        state.forget((info.hash,))
        return
    state.tree.add(info, state.now_ms)
    state.tree.judge(info.hash, Verdict.VOTABLE)
    state.proposals[info.view] = info
    state.cast(VoteKind.NOTARIZE, info.view, info.hash)
    state.send_proposal(info, state.others)


def take_build_failed(state: ConsensusState, view: int) -> None:
    """Ask for a block again later."""
    if state.building_view == view:
        state.building_view = None
        state.pace.note_build_failed(state.now_ms)


def take_synced(state: ConsensusState, event: Synced) -> None:
    """Go on from a tip that storage reached by catching up."""
    if event.final.height > state.tree.tip.height:
        state.move_tip(event.final)
    absorb(state, event.certificate)


def _judge_proposal(state: ConsensusState, event: ProposalReceived) -> None:
    info, vote = event.info, event.vote
    named = (vote.kind, vote.view, vote.block_hash, vote.member)
    if named != (VoteKind.NOTARIZE, info.view, info.hash, info.leader):
        state.refuse(ConsensusReason.PROPOSAL_MISMATCH, f"view {info.view}")
        return
    if info.leader != state.membership.leader(info.view):
        state.refuse(ConsensusReason.NOT_LEADER, f"member {info.leader} in view {info.view}")
        return
    for certificate in event.certificates:
        receive_certificate(state, certificate)
    if info.view > state.view + state.membership.size:
        state.refuse(ConsensusReason.VIEW_TOO_FAR, f"view {info.view}, now in {state.view}")
        return
    if info.hash in state.requested:
        _take_block(state, info)
    elif info.view < state.view:
        state.refuse(ConsensusReason.VIEW_PASSED, f"view {info.view}, now in {state.view}")
    if receive_vote(state, vote) and info.view >= state.view:
        _keep_proposal(state, info)


def _forget_unknown(state: ConsensusState, block_hash: BlockHash) -> None:
    """Let the driver drop a body that the tree did not take."""
    if state.tree.info(block_hash) is None:
        state.forget((block_hash,))


def _take_block(state: ConsensusState, info: BlockInfo) -> None:
    state.requested.discard(info.hash)
    state.tree.add(info, state.now_ms)


def _keep_proposal(state: ConsensusState, info: BlockInfo) -> None:
    first = state.proposals.get(info.view)
    if first is not None:
        if first.hash != info.hash:
            state.refuse(ConsensusReason.SECOND_PROPOSAL, f"view {info.view}")
        return
    state.proposals[info.view] = info
    state.tree.add(info, state.now_ms)


def _accuse(state: ConsensusState, first: Vote, second: Vote) -> None:
    """Report a member's contradiction, once for each view."""
    state.refuse(ConsensusReason.EQUIVOCATION, f"member {second.member} in view {second.view}")
    if (second.member, second.view) not in state.accused:
        state.accused.add((second.member, second.view))
        state.emit(ReportEquivocation(first, second))


def _vote_finalize(state: ConsensusState, notarization: Certificate) -> None:
    """Vote to make a notarized block final, whatever this member thought of it, unless it is known to be invalid."""
    view, block_hash = notarization.view, notarization.block_hash
    if state.certificates.nullified(view) or state.tree.invalid_ancestor(block_hash) is not None:
        return
    if state.may_sign(VoteKind.FINALIZE, view):
        state.cast(VoteKind.FINALIZE, view, block_hash)


def _learn(state: ConsensusState, certificate: Certificate, *, journaled: bool) -> None:
    """Measure the current view, which this certificate ends; see whose votes it holds, and how the views go."""
    patience, view, is_current = state.patience, certificate.view, certificate.view == state.view and not journaled
    if not journaled:
        patience.note_heard((member for member, _ in certificate.signatures), view)
    if certificate.kind is VoteKind.NULLIFY:
        patience.note_nullified(view, waited=is_current and state.own.signed(VoteKind.NULLIFY, view))
    elif certificate.kind is VoteKind.FINALIZE:
        patience.note_final(view)
    elif is_current and state.pace.due_ms is not None and state.now_ms >= state.pace.due_ms:
        patience.note_notarized(view, state.now_ms - state.pace.due_ms)


def _note_nullified(state: ConsensusState, view: int) -> None:
    info = state.proposals.get(view)
    if info is not None and info.carries_l1 and state.certificates.notarized(view) is None:
        state.restraint.note_nullified(view)


def _note_certified(state: ConsensusState, block_hash: BlockHash) -> None:
    info = state.tree.info(block_hash)
    if info is not None and info.carries_l1:
        state.restraint.note_certified()
    if state.certificates.highest()[1] == block_hash:
        seen_ms = state.tree.seen_ms(block_hash)
        state.pace.note_block(state.now_ms if seen_ms is None else seen_ms)
