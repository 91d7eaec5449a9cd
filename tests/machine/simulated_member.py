"""A machine, and around it the least of what a node does: a disk that survives crashes, a pool of numbered
transactions, blocks fetched from others. Signatures are stand-ins."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from bridge.bitcoin.identifiers import BlockHash
from federation.certificate import Certificate, Vote, VoteKind
from federation.journal import Journal
from federation.journal_header import JournalIdentity
from pegnode.consensus import actions, events
from pegnode.consensus.machine import Simplex
from tests.machine.fake_chain import EPOCH, GENESIS, FakeBlock, fake_vote
from tests.machine.messages import BlockReply, BlockRequest, Message, Proposal, SyncReply, SyncRequest, Work
from tests.machine.watch import Violation
from tests.support.memory_entries import MemoryEntries

if TYPE_CHECKING:
    from tests.machine.world import World

SYNC_BLOCKS = 20
MAX_DISK_MS = 15
MAX_WORK_MS = 20


class SimulatedMember:
    """Journal and store survive a crash; the machine, bodies, and the pool do not."""

    def __init__(self, world: World, index: int) -> None:
        self.world = world
        self.index = index
        self.others = [other for other in range(world.membership.size) if other != index]
        self.identity = JournalIdentity(bytes(32), EPOCH, index)
        self.entries = MemoryEntries()
        Journal.create(self.entries, self.identity)
        self.store: list[FakeBlock] = []
        self.finalizations: dict[int, Certificate] = {}
        self.settled: set[int] = set()
        self.life = 0
        self.up = False
        self.machine: Simplex
        self.journal: Journal

    # life and death

    def start(self) -> None:
        """Begin, or go on with what the disk holds."""
        if self.up:
            return
        self.up = True
        self.life += 1
        self.journal = Journal.open(self.entries, self.identity)
        self.machine = Simplex(self.index, self.world.membership, self.world.params)
        self.pool: set[int] = set()
        self.wake_ms = -1
        self.todo: deque[actions.Action] = deque()
        self.busy = False
        contents = self.journal.contents()
        self.bodies = {block_hash: FakeBlock.decode(body) for block_hash, body in contents.bodies}
        tip = self.store[-1].info if self.store else None
        self.feed(
            events.Start(
                final=GENESIS if tip is None else events.FinalTip(tip.hash, tip.height, tip.view),
                certificate=None if tip is None else self.finalizations[tip.height],
                votes=contents.votes,
                certificates=contents.certificates,
                blocks=tuple(block.info for block in self.bodies.values()),
                floor_view=contents.floor_view,
            )
        )

    def crash(self, downtime_ms: int | None) -> None:
        """Lose everything but the disk; None: for good, until somebody starts it."""
        self.up = False
        self.life += 1
        self.entries.lose_unsynced()
        if downtime_ms is not None:
            self.world.after(downtime_ms, self.start)

    def _crashes_now(self) -> bool:
        world = self.world
        if world.random.random() >= world.faults.crash:
            return False
        self.crash(world.random.randint(1, world.faults.max_downtime_ms))
        return True

    def later(self, delay_ms: int, do: Callable[[], None]) -> None:
        """Do something in this life."""
        life = self.life
        self.world.after(delay_ms, lambda: do() if self.life == life and self.up else None)

    # the machine

    def feed(self, event: events.Event) -> None:
        """Tell the machine; carry out what it asks for, in order."""
        if self.up:
            self.todo.extend(self.machine.handle(event, self.world.now_ms))
            self._work_off()

    def _work_off(self) -> None:
        while self.up and self.todo and not self.busy:
            if self._crashes_now():
                return
            self.perform(self.todo.popleft())

    def perform(self, action: actions.Action) -> None:
        """Carry out one action."""
        match action:
            case actions.CastVote(kind, view, block_hash):
                self.world.watch.note_cast(action)
                self.cast(fake_vote(self.index, kind, view, block_hash))
            case actions.SendProposal(view, block_hash, certificates, members):
                self.propose(view, block_hash, certificates, members)
            case actions.Broadcast(votes, certificates):
                self.broadcast(*votes, *certificates)
            case actions.SendTo(member, certificates):
                self.send(member, *certificates)
            case actions.SaveCertificate(certificate):
                self.journal.record_certificate(certificate)
            case actions.WakeAt(at_ms):
                self.wake_ms = at_ms
                self.later(at_ms - self.world.now_ms, lambda: self._wake(at_ms))
            case actions.Build(view, parent_hash, include_l1):
                self.later(self._work_ms(), lambda: self._build(view, parent_hash, include_l1))
            case actions.Validate(block_hash):
                self.later(self._work_ms(), lambda: self._check(block_hash))
            case actions.Finalized(info, certificate):
                self._finalize(info.hash, certificate)
            case _:
                self._perform_rest(action)

    def _perform_rest(self, action: actions.Action) -> None:
        match action:
            case actions.PruneJournal(final_view):
                self.journal.prune(final_view)
            case actions.Forget(block_hashes):
                for block_hash in block_hashes:
                    if not self.machine.keeps(block_hash):
                        self.bodies.pop(block_hash, None)
            case actions.RequestBlock(block_hash):
                self.broadcast(BlockRequest(block_hash))
                self.send(self.world.random.choice(self.others), SyncRequest(len(self.store)))
            case actions.Refuse():
                pass
            case actions.ReportEquivocation(first, second):
                self.world.watch.note_accused(first, second)
            case _:
                raise Violation(f"member {self.index}: {action}")

    def cast(self, vote: Vote) -> None:
        """Journal, then send; the disk takes its time, and everything may end before and after."""
        self.busy = True

        def journaled() -> None:
            if self._crashes_now():
                return
            body = self.bodies[vote.block_hash].encoded if vote.kind is VoteKind.NOTARIZE else b""
            self.journal.record_vote(vote, body)
            if self._crashes_now():
                return
            self.world.watch.note_signed(vote)
            self.broadcast(vote)
            self.busy = False
            self.feed(events.VoteReceived(vote))
            self._work_off()

        self.later(self.world.random.randint(0, MAX_DISK_MS), journaled)

    def propose(
        self, view: int, block_hash: BlockHash, certificates: tuple[Certificate, ...], members: tuple[int, ...]
    ) -> None:
        """Send the own proposal."""
        self.world.watch.note_proposal(self.index, view, block_hash)
        vote = fake_vote(self.index, VoteKind.NOTARIZE, view, block_hash)
        for member in members:
            self.send(member, Proposal(self.bodies[block_hash], vote, certificates))

    def _wake(self, at_ms: int) -> None:
        if self.wake_ms == at_ms:
            self.feed(events.Tick())

    def _work_ms(self) -> int:
        return self.world.random.randint(1, MAX_WORK_MS)

    # the chain

    def _build(self, view: int, parent_hash: BlockHash, include_l1: bool) -> None:
        if self.world.random.random() < self.world.faults.build_fails:
            self.feed(events.BuildFailed(view))
            return
        height = self._height(parent_hash) + 1
        block = FakeBlock(
            view,
            height,
            parent_hash,
            self.index,
            tuple(sorted(self.pool - self._spent(parent_hash))),
            carries_l1=include_l1 and self.world.l1_news,
        )
        self.bodies[block.hash] = block
        self.feed(events.BlockBuilt(block.info))

    def _height(self, block_hash: BlockHash) -> int:
        block = self.bodies.get(block_hash)
        return len(self.store) if block is None else block.height

    def _spent(self, block_hash: BlockHash) -> set[int]:
        spent: set[int] = set()
        while (block := self.bodies.get(block_hash)) is not None:
            spent.update(block.transactions)
            block_hash = block.parent_hash
        return spent

    def _check(self, block_hash: BlockHash) -> None:
        if not self.machine.keeps(block_hash):
            return
        block = self.bodies[block_hash]
        verdict = events.Verdict.VOTABLE
        if block.invalid or self._spent(block.parent_hash) & set(block.transactions):
            verdict = events.Verdict.INVALID
        elif block.carries_l1 and self.world.random.random() < self.world.faults.wait_for_l1:
            verdict = events.Verdict.WAITING
        elif block.carries_l1 and self.world.random.random() < self.world.faults.withhold_l1:
            verdict = events.Verdict.WITHHELD
        self.feed(events.BlockChecked(block_hash, verdict))

    def _finalize(self, block_hash: BlockHash, certificate: Certificate) -> None:
        if any(block.hash == block_hash for block in self.store):
            return  # catching up was faster
        chain = [self.bodies[block_hash]]
        while chain[-1].height > len(self.store) + 1:
            chain.append(self.bodies[chain[-1].parent_hash])
        self._commit(list(reversed(chain)), certificate)

    def _commit(self, chain: list[FakeBlock], certificate: Certificate) -> None:
        for block in chain:
            self.world.watch.note_final(self.index, self.store, block)
            self.store.append(block)
            self.settled.update(block.transactions)
        self.finalizations[len(self.store)] = certificate
        self.pool -= self.settled
        self.later(0, self._tell_work)

    def _tell_work(self) -> None:
        self.feed(events.WorkKnown(bool(self.pool) or self.world.l1_news))

    # the network

    def send(self, target: int, *messages: Message) -> None:
        """Send to one member."""
        for message in messages:
            self.world.send(self.index, target, message)

    def broadcast(self, *messages: Message) -> None:
        """Send to every other member."""
        for other in self.others:
            self.send(other, *messages)

    def receive(self, message: Message, source: int) -> None:
        """A message has arrived."""
        if not self.up:
            return
        match message:
            case Vote():
                self.feed(events.VoteReceived(message))
            case Certificate():
                self._take_certificates(message)
            case Proposal(block, vote, certificates):
                self._take_certificates(*certificates)
                self.bodies.setdefault(block.hash, block)
                self.feed(events.ProposalReceived(block.info, vote, certificates))
            case BlockRequest(block_hash):
                self._answer_block(block_hash, source)
            case BlockReply(block):
                self.bodies.setdefault(block.hash, block)
                self.feed(events.BlockReceived(block.info))
            case SyncRequest(height):
                self._answer_sync(height, source)
            case SyncReply(blocks, certificate):
                self._take_sync(blocks, certificate)
            case Work(transaction):
                self._take_work(transaction)

    def _take_certificates(self, *certificates: Certificate) -> None:
        for certificate in certificates:
            self.world.watch.note_certificate(certificate)
            self.feed(events.CertificateReceived(certificate))

    def _answer_block(self, block_hash: BlockHash, source: int) -> None:
        stored = next((stored for stored in self.store if stored.hash == block_hash), None)
        block = self.bodies.get(block_hash, stored)
        if block is not None:
            self.send(source, BlockReply(block))

    def _answer_sync(self, height: int, source: int) -> None:
        ends = [end for end in self.finalizations if height < end <= height + SYNC_BLOCKS]
        if ends:
            end = max(ends)
            self.send(source, SyncReply(tuple(self.store[height:end]), self.finalizations[end]))

    def _take_sync(self, blocks: tuple[FakeBlock, ...], certificate: Certificate) -> None:
        fresh = [block for block in blocks if block.height > len(self.store)]
        if not fresh or fresh[0].height != len(self.store) + 1:
            return
        self._commit(fresh, certificate)
        tip = fresh[-1]
        self.feed(events.Synced(events.FinalTip(tip.hash, tip.height, tip.view), certificate))

    def _take_work(self, transaction: int) -> None:
        if transaction in self.settled or transaction in self.pool:
            return
        self.pool.add(transaction)
        self.broadcast(Work(transaction))
        self._tell_work()
