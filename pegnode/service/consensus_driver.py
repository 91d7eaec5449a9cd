"""Carries out what the consensus machine asks for: signs, journals, sends, builds, judges and commits.

Theory of operation. One task feeds the machine, so events are handled one by one and their actions in order. What takes
time (building, judging) runs in tasks of its own and comes back as an event. A vote is signed, written to the journal
with a sync, and only then sent; the machine hears of its own votes like of any other's.

With the keys in this process nothing else happens while a vote is made: all that is queued is handled before the
network is read again, so the queue holds no more than one message of each peer brings. A signer in another process is
awaited, and the world goes on meanwhile: a block may become final, of which the machine hears after this vote; and
what peers send is queued up to a limit, beyond which it is dropped, for they send it again. No certificate is, since
none is told of twice, and quorums alone make them. A signer with a memory of its own may refuse a vote, after a crash
between its journal and this one: then this member is silent in that place.
"""

from typing import Final

import structlog
import trio

from bridge.bitcoin.identifiers import BlockHash
from bridge.errors import MalformedError
from federation.certificate import Certificate, Vote, VoteKind
from federation.journal import Journal
from pegnode.chain.block import Block
from pegnode.consensus import actions as act
from pegnode.consensus import events as ev
from pegnode.consensus.machine import Simplex
from pegnode.net.messages import CertificatesMessage, ProposalMessage, VotesMessage
from pegnode.net.transport import DropReason
from pegnode.service.block_requests import BlockRequests
from pegnode.service.certificate_messages import certificates_message, in_messages
from pegnode.service.consensus_reports import Report, report
from pegnode.service.consensus_watch import ConsensusWatch
from pegnode.service.core import NodeCore
from pegnode.service.equivocations import Equivocations
from pegnode.service.event_queue import Body, EventQueue, Proposal, Queued
from pegnode.service.hearing import Hearing
from pegnode.service.judge import Judge
from pegnode.service.own_memory import OwnMemory
from pegnode.service.peers import Peers
from pegnode.service.proposer import Proposer
from pegnode.service.unfinal import UnfinalBlock
from pegnode.signing.port import SignerPort, VoteRefused

log = structlog.get_logger()

JUDGE_AGAIN_S: Final = 0.25
MAX_JUDGE_AGAIN_S: Final = 1.0
"""How soon a block is judged again that waits for L1 or for this member's own prudence; each time later, up to this."""
MAX_WAITING: Final = 1_024
MAKE_ROOM_S: Final = 1.0
"""Events that may wait before this member takes part, and how often they are counted."""

TWO_CERTIFICATES: Final = "two certificates contradict each other"
"""Why nothing becomes final: they are in the journal, and are told of by `peg evidence list`."""

OfVotes = act.ReportEquivocation | act.ReportUnknownOwnVote
LocalAction = act.SaveCertificate | act.Finalized | act.PruneJournal | act.WakeAt | act.Forget | OfVotes | Report
"""What needs neither peers nor time."""
ActionAtOnce = act.Broadcast | act.SendTo | act.SendProposal | act.RequestBlock | act.Build | act.Validate | LocalAction
"""Every action but a vote, for which the signer is awaited."""


class ConsensusDriver:
    """One member's part in consensus. watch: what is to be seen of it."""

    def __init__(
        self,
        core: NodeCore,
        peers: Peers,
        machine: Simplex,
        journal: Journal,
        signer: SignerPort,
        proposer: Proposer,
        judge: Judge,
        own_memory: OwnMemory,
        equivocations: Equivocations,
    ) -> None:
        self._core = core
        self._peers = peers
        self._machine = machine
        self._journal = journal
        self._signer = signer
        self._proposer = proposer
        self._judge = judge
        self._own_memory = own_memory
        self._equivocations = equivocations
        self._bodies: dict[BlockHash, Body] = {}
        self.watch = ConsensusWatch(core, machine, judge, journal)
        self._own_notarize: dict[int, Vote] = {}
        self._judging: dict[BlockHash, ev.Verdict | None] = {}
        self._wake_at_ms: int | None = None
        self._queue = EventQueue()
        self._hearing = Hearing(core, peers, self._queue, self.watch, own_memory, equivocations)
        tolerance = core.rules.membership.fault_tolerance
        self._block_requests = BlockRequests(core.store, peers, tolerance, self._bodies, self._take_asked_for)
        core.on_final(self._after_final)
        equivocations.on_own_guilt(own_memory.found)
        if journal.contradiction is not None:
            core.contradict(TWO_CERTIFICATES)

    def work_known(self, known: bool) -> None:
        """Tell the machine whether there is anything that a block could include."""
        self._queue.put(ev.WorkKnown(known))

    def _take_asked_for(self, body: Body) -> None:
        self._queue.put_from_peer(ev.BlockReceived(self._info(body[0])), body)

    def _info(self, block: Block) -> ev.BlockInfo:
        header = block.header
        parent = self._core.unfinal.view(header.parent)
        moves_anchor = parent is None or parent.tip.header.anchor != header.anchor
        return ev.BlockInfo(
            hash=header.hash,
            view=header.view,
            height=header.height,
            parent_hash=header.parent,
            leader=header.leader,
            carries_l1=moves_anchor or bool(block.body.records or block.body.evidence or block.body.batches),
        )

    def _after_final(self, unfinal: UnfinalBlock) -> None:
        """Tell the machine of what catching up, and not itself, made final."""
        header = unfinal.block.header
        certificate = self._core.store.certificate_at(header.height)
        is_news = self._machine.is_started and header.hash != self._machine.final_tip.hash
        if certificate is not None and is_news:
            final = ev.FinalTip(header.hash, header.height, header.view)
            self._queue.put(ev.Synced(final, Certificate.decode(certificate)))

    # The loop

    async def run(self) -> None:
        """Take part in consensus until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._make_room)
            await self._own_memory.restored()
            await self._handle(self._restored(), None, nursery)
            for block_hash in list(self._bodies):
                self._drop_unless_kept(block_hash)
            while True:
                event, body = await self._next_event()
                await self._handle(event, body, nursery)
                while len(self._queue):
                    await self._handle(*self._queue.take_nowait(), nursery)

    async def _make_room(self) -> None:
        """Let what peers say pile up no further than may be, until this member takes part: that may take days."""
        while not self._machine.is_started:
            if len(self._queue) >= MAX_WAITING:
                self._journal.prune(self._core.store.tip.header.view)  # else certificates of days pile up in it
                for certificate in self._queue.shed():
                    self._journal.record_certificate(certificate)
            await trio.sleep(MAKE_ROOM_S)

    def _restored(self) -> ev.Start:
        store = self._core.store
        tip, certificate = store.tip.header, store.certificate_at(store.tip.header.height)
        content = self._journal.contents()
        self._equivocations.recall((*content.votes, *content.witnessed), content.certificates)
        blocks = [(Block.decode(data), data) for _, data in content.bodies]
        self._bodies.update({block.header.hash: (block, data) for block, data in blocks})
        self._own_notarize.update({vote.view: vote for vote in content.votes if vote.kind is VoteKind.NOTARIZE})
        return ev.Start(
            final=ev.FinalTip(tip.hash, tip.height, tip.view),
            certificate=None if certificate is None else Certificate.decode(certificate),
            votes=content.votes,
            certificates=content.certificates,
            blocks=tuple(self._info(block) for block, _ in blocks),
            floor_view=content.floor_view,
            stopped=self._journal.contradiction is not None,
        )

    async def _next_event(self) -> Queued:
        if self._wake_at_ms is None:
            return await self._queue.take()
        delay_s = max(0.0, (self._wake_at_ms - _monotonic_ms()) / 1000)
        with trio.move_on_after(delay_s) as waiting:
            queued = await self._queue.take()
        return (ev.Tick(), None) if waiting.cancelled_caught else queued

    async def _handle(self, event: ev.Event | Proposal, body: Body | None, nursery: trio.Nursery) -> None:
        if isinstance(event, Proposal):
            event, body = self._opened(event)
        if body is not None:
            self._bodies.setdefault(body[0].header.hash, body)
        for action in self._machine.handle(event, _monotonic_ms()):
            if isinstance(action, act.CastVote):
                await self._cast(action)
            else:
                self._perform(action, nursery)
        self.watch.note_event()
        if body is not None:
            self._drop_unless_kept(body[0].header.hash)

    def _opened(self, proposal: Proposal) -> tuple[ev.Event, Body | None]:
        """A proposal with its body read, if the machine has a use for it; else the leader's vote alone.

        What a leader signs without end costs a reading for each of its turns: the first block is kept, and no other is
        wanted. Should another one get the quorum, it is asked for.
        """
        block_hash, vote = proposal.header.hash, proposal.vote
        unwanted = self._machine.unwanted(vote)
        if unwanted is not None:
            report(act.Refuse(unwanted, f"view {vote.view}, unread"))
            return ev.VoteReceived(vote), None
        known = self._bodies.get(block_hash)
        if known is None or known[1] != proposal.data:
            try:
                known = Block.decode_whole(proposal.data), proposal.data
            except MalformedError as fault:
                self._peers.drop(proposal.sender, DropReason.GARBLED_MESSAGE, str(fault))
                return ev.VoteReceived(vote), None
        return ev.ProposalReceived(self._info(known[0]), vote), known

    def _drop_unless_kept(self, block_hash: BlockHash) -> None:
        """Forget a block that the machine does not count on."""
        if not self._machine.keeps(block_hash):
            self._bodies.pop(block_hash, None)
            self._core.unfinal.forget(block_hash)

    def _perform(self, action: ActionAtOnce, nursery: trio.Nursery) -> None:
        match action:
            case act.Broadcast(votes, certificates):
                self._broadcast(votes, certificates)
            case act.SendTo(member, certificates):
                self._peers.send_to_member(member, certificates_message(certificates))
            case act.SendProposal():
                self._send_proposal(action)
            case act.RequestBlock(block_hash, holders):
                self._block_requests.ask(block_hash, holders)
            case act.Build():
                nursery.start_soon(self._build, action)
            case act.Validate(block_hash):
                self._start_judging(block_hash, nursery)
            case _:
                self._perform_here(action)

    def _perform_here(self, action: LocalAction) -> None:
        match action:
            case act.SaveCertificate(certificate):
                self._journal.record_certificate(certificate)
            case act.Finalized(info, certificate):
                self._core.finalize(info.hash, certificate.encode())
            case act.PruneJournal(final_view) if self._core.contradiction is None:
                self._journal.prune(final_view)
                self._own_notarize = {view: vote for view, vote in self._own_notarize.items() if view > final_view}
            case act.PruneJournal():
                pass  # that block did not become final here
            case act.WakeAt(at_ms):
                self._wake_at_ms = at_ms
            case act.Forget(block_hashes):
                for block_hash in block_hashes:
                    self._drop_unless_kept(block_hash)
            case act.ReportUnknownOwnVote(vote):
                self._equivocations.note_unknown_own_vote(vote)
                self._own_memory.found(vote)
            case act.ReportEquivocation(first, second):
                self._equivocations.note(first, second)
            case act.ReportConflictingCertificates(one, other):
                self._journal.note_contradiction(one, other)
                self._core.contradict(TWO_CERTIFICATES)
                report(action)
                self._equivocations.note_certificates(one, other)
            case _:
                report(action)

    async def _cast(self, action: act.CastVote) -> None:
        """Sign, write, send: in this order. Raises SignerAway, which ends this process: it is no member without."""
        if not self._own_memory.may_sign or self._core.contradiction is not None:
            return
        epoch = self._core.rules.membership.epoch
        try:
            vote = await self._signer.sign_vote(action.kind, epoch, action.view, action.block_hash, action.proof)
        except VoteRefused as refused:
            log.warning("vote refused by the signer", view=action.view, kind=action.kind.name, detail=str(refused))
            self.watch.vote_refused = str(refused)
            return
        self.watch.vote_refused = None
        if action.kind is VoteKind.NOTARIZE:
            self._journal.record_vote(vote, self._bodies[action.block_hash][1])
            self._own_notarize[vote.view] = vote
        else:
            self._journal.record_vote(vote)
        self._hearing.witness(vote)
        self._peers.to_members(VotesMessage((vote.encode(),)))
        self._queue.put(ev.VoteReceived(vote))

    def _broadcast(self, votes: tuple[Vote, ...], certificates: tuple[Certificate, ...]) -> None:
        if votes:
            self._peers.to_members(VotesMessage(tuple(vote.encode() for vote in votes)))
        if certificates:
            self._peers.to_members(certificates_message(certificates))

    def _send_proposal(self, action: act.SendProposal) -> None:
        vote = self._own_notarize.get(action.view)
        if vote is None:
            return  # a vote under our key that our journal lacks: it was reported, and is not ours to send
        *ahead, last = in_messages([item.encode() for item in action.certificates])
        proposal = ProposalMessage(self._bodies[action.block_hash][1], vote.encode(), last)
        for member in action.members:
            for part in ahead:
                self._peers.send_to_member(member, CertificatesMessage(part))
            self._peers.send_to_member(member, proposal)

    async def _build(self, action: act.Build) -> None:
        unfinal = await self._proposer.build(action.view, action.parent_hash, include_l1=action.include_l1)
        if unfinal is None:
            self._queue.put(ev.BuildFailed(action.view))
            return
        self._queue.put(ev.BlockBuilt(self._info(unfinal.block)), (unfinal.block, unfinal.data))

    def _start_judging(self, block_hash: BlockHash, nursery: trio.Nursery) -> None:
        if block_hash not in self._judging:
            nursery.start_soon(self._judge_until_settled, block_hash)
        self._judging[block_hash] = None  # what was told before, the machine may have forgotten with the block

    async def _judge_until_settled(self, block_hash: BlockHash) -> None:
        """Judge a block, and again while the verdict may change and anybody needs it; each is told once when asked."""
        try:
            again_s = JUDGE_AGAIN_S
            while block_hash in self._bodies:
                block, data = self._bodies[block_hash]
                verdict = await self._judge.judge(block, data)
                if verdict is not self._judging[block_hash]:
                    self._judging[block_hash] = verdict
                    self._queue.put(ev.BlockChecked(block_hash, verdict))
                if verdict in (ev.Verdict.VOTABLE, ev.Verdict.INVALID):
                    return
                await trio.sleep(again_s)
                again_s = min(2 * again_s, MAX_JUDGE_AGAIN_S)
        finally:
            del self._judging[block_hash]
            if block_hash not in self._bodies:
                self._core.unfinal.forget(block_hash)


def _monotonic_ms() -> int:
    """The machine's clock: it never goes back, unlike the wall's."""
    return int(trio.current_time() * 1000)
