"""What members say to the consensus machine: checked, witnessed, and queued for it.

All is read at once but a proposal's block, the one thing that costs much to read: a member can sign as many of them as
its line has room for. It waits as it came, and is read when its turn comes, if the machine then wants it; by that time
the machine has heard of the certificates that came with it, and may be in that view by them.
"""

from bridge.errors import MalformedError
from federation.certificate import Certificate, Vote, VoteKind
from pegnode.chain.header import HEADER_SIZE, Header
from pegnode.consensus import events as ev
from pegnode.net.messages import CertificatesMessage, ProposalMessage, VotesMessage
from pegnode.net.transport import DropReason, PeerId
from pegnode.service.consensus_watch import ConsensusWatch
from pegnode.service.core import NodeCore
from pegnode.service.equivocations import Equivocations
from pegnode.service.event_queue import EventQueue, Proposal
from pegnode.service.own_memory import OwnMemory
from pegnode.service.peers import Peers
from pegnode.service.signature_checks import SignatureChecks


class Hearing:
    """One member's ear. queue: takes what the machine should hear, after those who remember votes."""

    def __init__(
        self,
        core: NodeCore,
        peers: Peers,
        queue: EventQueue,
        watch: ConsensusWatch,
        own_memory: OwnMemory,
        equivocations: Equivocations,
    ) -> None:
        self._peers = peers
        self._queue = queue
        self._watch = watch
        self._own_memory = own_memory
        self._equivocations = equivocations
        self._membership = core.rules.membership
        self._checks = SignatureChecks(core.rules, peers)
        peers.on_message(ProposalMessage, self._receive_proposal, from_guests=False)
        peers.on_message(VotesMessage, self._receive_votes, from_guests=False)
        peers.on_message(CertificatesMessage, self._receive_certificates, from_guests=False)

    def witness(self, vote: Vote) -> None:
        """A genuine vote, whatever the machine makes of it: one of a view that is over may still convict."""
        self._watch.note_vote(vote)
        self._own_memory.witness(vote)
        self._equivocations.hear(vote)

    def _receive_proposal(self, peer: PeerId, message: ProposalMessage) -> None:
        header = Header.decode(message.block[:HEADER_SIZE])
        vote = Vote.decode(message.vote)
        justification = [Certificate.decode(data) for data in message.justification]
        if (vote.kind, vote.block_hash) != (VoteKind.NOTARIZE, header.hash):
            raise MalformedError("a proposal comes with its leader's vote for it")
        if not self._checks.is_genuine(peer, vote):
            return
        self.witness(vote)
        # By themselves, since a proposal that is refused would take them with it.
        if not self._take_certificates(peer, justification):
            return
        if not vote.member == header.leader == self._membership.leader(header.view) or vote.view != header.view:
            block = f"a block of member {header.leader} in view {header.view}"
            detail = f"{block} with a vote of member {vote.member} in view {vote.view}"
            self._peers.drop(peer, DropReason.MISPLACED_MESSAGE, detail)
            return
        self._queue.put_from_peer(Proposal(peer, header, vote, message.block))

    def _receive_votes(self, peer: PeerId, message: VotesMessage) -> None:
        for data in message.votes:
            vote = Vote.decode(data)
            if not self._checks.is_genuine(peer, vote):
                return
            self.witness(vote)
            self._queue.put_from_peer(ev.VoteReceived(vote))

    def _receive_certificates(self, peer: PeerId, message: CertificatesMessage) -> None:
        self._take_certificates(peer, [Certificate.decode(data) for data in message.certificates])

    def _take_certificates(self, peer: PeerId, certificates: list[Certificate]) -> bool:
        """Tell the machine of what is news; False, and the sender dropped, when one is not genuine."""
        news = self._checks.news(peer, certificates)
        for certificate in news or ():
            self._queue.put(ev.CertificateReceived(certificate))  # lost, it would be no news again, for ever
            for vote in certificate.votes():
                self._own_memory.witness(vote)
            self._equivocations.hear_certificate(certificate)
        for vote in () if news is None else self._equivocations.suspects(certificates):
            if not self._checks.is_genuine(peer, vote):
                return False
            self._equivocations.hear(vote)
        return news is not None
