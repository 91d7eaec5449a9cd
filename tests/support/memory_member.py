"""Whole members in memory, and strangers that a test plays among them."""

import random
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

import trio

from bridge.l1.client import L1Client
from bridge.l1.mempool_watcher import MempoolWatcher
from bridge.l1.watcher import L1Watcher
from federation.certificate import Vote
from federation.journal import Journal
from federation.journal_header import JournalIdentity
from federation.signer import Signer
from pegnode.chain.parameters import ChainRules
from pegnode.consensus.machine import Simplex
from pegnode.genesis import Genesis
from pegnode.mempool.evidence_pool import EvidencePool, EvidencePoolLimits
from pegnode.mempool.pool import Mempool, PoolLimits
from pegnode.net.memory import MemoryNetwork, MemoryTransport
from pegnode.net.messages import (
    AnyMessage,
    Message,
    OwnVotesAnswer,
    OwnVotesRequest,
    decode_message,
    encode_message,
)
from pegnode.net.transport import DropReason, FrameReceived, PeerDisconnected, PeerId, PeerRole
from pegnode.service.auditor import Auditor
from pegnode.service.catch_up import CatchUp
from pegnode.service.closed_lineages import ClosedLineages
from pegnode.service.consensus_driver import ConsensusDriver
from pegnode.service.core import NodeCore
from pegnode.service.equivocations import Equivocations
from pegnode.service.evidence_maker import EvidenceMaker
from pegnode.service.judge import Judge
from pegnode.service.l1_monitor import L1Monitor
from pegnode.service.l1_questions import L1Questions
from pegnode.service.l1_reports import L1Reports
from pegnode.service.live_node import LiveNode
from pegnode.service.own_memory import OwnMemory
from pegnode.service.payouts import Payouts
from pegnode.service.peers import Peers
from pegnode.service.proposer import Proposer
from pegnode.service.records import RecordRelay
from pegnode.service.registry import DepositRegistry
from pegnode.service.relay import Relay
from pegnode.service.reserve_watch import ReserveWatch
from pegnode.service.resumption import Resumption
from pegnode.service.settled_payouts import SettledPayouts
from pegnode.service.unfinal import UnfinalBlocks
from pegnode.service.work import WorkWatch
from pegnode.signing.local import LocalSigner
from pegnode.signing.port import SignerPort
from tests.support.chain import START_MS
from tests.support.fake_l1_client import FakeL1Client
from tests.support.memory_disk import Disk

if TYPE_CHECKING:
    from trio_typing import TaskStatus

L1_POLL_S = 0.5
Task = Callable[[], Any]
M = TypeVar("M", bound=Message)


def now_ms() -> int:
    """The members' clock, in milliseconds."""
    return START_MS + 1_000 + int(trio.current_time() * 1000)


class Federation(Protocol):
    """What a member needs of those around it. has_quorum: whether a quorum has ever run together.

    byzantine: whose keys sign more than their members know.
    """

    genesis: Genesis
    rules: ChainRules
    has_quorum: bool
    byzantine: frozenset[int]

    @property
    def network(self) -> MemoryNetwork:
        """What lies between them."""

    def peer_id(self, index: int) -> PeerId:
        """A member's."""

    def signer(self, index: int) -> Signer:
        """A member's keys."""


class Member:
    """One member, or with `index` None a full node without keys, from its disk to its tasks. clock: Unix time in ms."""

    def __init__(
        self,
        federation: Federation,
        index: int | None,
        disk: Disk,
        l1: FakeL1Client,
        clock: Callable[[], int] = now_ms,
    ) -> None:
        rules = federation.rules
        self.federation = federation
        self.index = index
        self.l1 = l1
        self.disk = disk
        self.scope = trio.CancelScope()
        self.stopped = trio.Event()
        role = PeerRole.GUEST if index is None else PeerRole.MEMBER
        peer_id = PeerId("a full node") if index is None else federation.peer_id(index)
        self.transport = federation.network.transport(peer_id, role)
        client = cast(L1Client, l1)
        watcher = L1Watcher(client, federation.genesis.anchor.height)
        self.store = disk.open_store(rules)
        self.core = NodeCore(
            rules=rules,
            store=self.store,
            unfinal=UnfinalBlocks(self.store),
            mempool=Mempool(PoolLimits()),
            evidence=EvidencePool(EvidencePoolLimits()),
            registry=DepositRegistry(self.store, rules.custody, clock),
            watcher=watcher,
            questions=L1Questions(client, watcher, rules.params),
            now_ms=clock,
        )
        self.peers = Peers(self.transport, rules.membership)
        self.relay = Relay(self.core, self.peers)
        self.records = RecordRelay(self.core, self.peers)
        self.catch_up = CatchUp(self.core, self.peers, self.records)
        self.equivocations = Equivocations(self.core, self.peers, index)
        self.evidence_maker = EvidenceMaker(self.core, client, self.relay, self.is_current)
        self.dropped: list[tuple[PeerId, DropReason]] = []
        self._note_drops()
        self.auditor = Auditor(self.core, client, self.is_current)
        self.resumption = Resumption(self.core, client, self.is_current)
        keys = None if index is None else federation.signer(index)
        self.signer = keys and LocalSigner(keys, self.core, self.auditor, self.resumption)
        self.payouts = Payouts(self.core, client, self.peers, self.signer, self.is_current)
        self.l1_monitor = L1Monitor(self.core, client, federation.genesis.anchor)
        self.l1_mempool = MempoolWatcher(client, watcher, self.core.registry.is_deposit)
        closed = ClosedLineages(self.core)
        self.reserve_watch = ReserveWatch(self.core, client, closed, self.is_current)
        self.settled_payouts = SettledPayouts(self.core, client, closed)
        self.driver: ConsensusDriver | None = None
        self.reports: L1Reports | None = None
        voting = () if index is None or self.signer is None else self._take_part(index, self.signer)
        self.live = self._live()
        self.tasks = (*self._tasks_of_every_node(), *voting)

    @property
    def height(self) -> int:
        """Of the newest final block."""
        return self.store.tip.header.height

    def is_current(self) -> bool:
        """Whether it has caught up; for a test of some members' part, whose quorum never runs, it always has."""
        return not self.federation.has_quorum or self.catch_up.is_current

    async def run(self, *, task_status: "TaskStatus[None]" = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled, as `pegnode.node` would."""
        try:
            with self.scope:
                async with trio.open_nursery() as nursery:
                    await nursery.start(self.transport.run)
                    for task in self.tasks:
                        nursery.start_soon(task)
                    task_status.started()
        finally:
            self.store.close()
            self.stopped.set()

    def _tasks_of_every_node(self) -> tuple[Task, ...]:
        """What runs with keys and without."""
        relaying = (self.peers.run, self.relay.run, self.records.run, self.catch_up.run)
        watches = (self.l1_mempool.run, self.reserve_watch.run, self.settled_payouts.run)
        l1_reader = partial(self.core.watcher.run, L1_POLL_S, self._l1_changed)
        watching = (*watches, partial(self.l1_monitor.run, self._l1_changed), l1_reader)
        return (*relaying, self.evidence_maker.run, self.payouts.run, *watching)

    def _take_part(self, index: int, signer: SignerPort) -> tuple[Task, ...]:
        """Join the parts that only a member has, and return what they run."""
        federation = self.federation
        self.reports = L1Reports(self.core, self.peers, index)
        patience_s = federation.genesis.consensus.view_timeout_ms / 4_000
        self.proposer = Proposer(self.core, self.reports.by_member, patience_s)
        self.machine = Simplex(index, federation.rules.membership, federation.genesis.consensus)
        self.journal = self._journal(index)
        self.judge = Judge(self.core)
        self.own_memory = MemberMemory(self, index)
        memories = self.own_memory, self.equivocations
        self.driver = ConsensusDriver(
            self.core, self.peers, self.machine, self.journal, signer, self.proposer, self.judge, *memories
        )
        self.work = WorkWatch(self.core, self.proposer, self.driver)
        return self.driver.run, self.work.run

    def _live(self) -> LiveNode:
        return LiveNode(
            core=self.core,
            peers=self.peers,
            relay=self.relay,
            catch_up=self.catch_up,
            evidence_maker=self.evidence_maker,
            payouts=self.payouts,
            auditor=self.auditor,
            resumption=self.resumption,
            records=self.records,
            l1=self.l1_monitor,
            l1_mempool=self.l1_mempool,
            stop=self.scope.cancel,
            l1_name="regtest",
            pool_limits=PoolLimits(),
            consensus=self.federation.genesis.consensus,
            signer=self.signer,
            watch=None if self.driver is None else self.driver.watch,
            journal_status=None if self.driver is None else self.own_memory.status,
        )

    def _journal(self, index: int) -> Journal:
        identity = JournalIdentity(self.federation.rules.chain_id, 0, index)
        fresh = self.disk.entries.get(b"h") is None
        return (Journal.create if fresh else Journal.open)(self.disk.entries, identity)

    async def _l1_changed(self) -> None:
        if self.reports is not None:
            self.reports.announce()
        self.evidence_maker.poke()
        self.core.work_changed()

    def _note_drops(self) -> None:
        drop = self.transport.drop

        def noted(peer: PeerId, reason: DropReason) -> None:
            self.dropped.append((peer, reason))
            drop(peer, reason)

        self.transport.drop = noted  # type: ignore[method-assign]


class MemberMemory(OwnMemory):
    """Asks the others, unless a quorum never runs: then nobody answers, and a test wants this member's part alone.

    A Byzantine member's other votes are its adversary's, and must not keep it from going on.
    """

    def __init__(self, member: Member, index: int) -> None:
        fresh = random.Random(f"{index} {trio.current_time()}")  # another at each start, the same when run again
        super().__init__(member.core, member.peers, member.journal, index, fresh.randbytes)
        self._federation = member.federation

    async def restored(self) -> None:
        if self._federation.has_quorum:
            await super().restored()
        self._is_restored = True

    def found(self, vote: Vote) -> None:
        if self._member not in self._federation.byzantine:
            super().found(vote)


class Stranger:
    """A node that a test plays: it says what the test wants, and remembers what it hears. It has seen no votes."""

    def __init__(self, transport: MemoryTransport) -> None:
        self.transport = transport
        self.heard: list[tuple[PeerId, AnyMessage]] = []
        self.left: list[PeerDisconnected] = []

    async def run(self, *, task_status: "TaskStatus[None]" = trio.TASK_STATUS_IGNORED) -> None:
        """Connect, and listen."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.transport.run)
            task_status.started()
            async for event in self.transport.events:
                if isinstance(event, FrameReceived):
                    message = decode_message(event.payload)
                    self.heard.append((event.peer, message))
                    if isinstance(message, OwnVotesRequest):
                        self.say(event.peer, OwnVotesAnswer(message.nonce, (), b"", vouches=True))
                elif isinstance(event, PeerDisconnected):
                    self.left.append(event)

    def say(self, peer: PeerId, message: Message) -> None:
        """Send a message."""
        assert self.transport.send(peer, encode_message(message))

    def say_all(self, message: Message) -> None:
        """Send a message to everybody there."""
        for peer in self.transport.connected():
            self.say(peer, message)

    def told(self, kind: type[M]) -> list[M]:
        """The messages of one kind that came."""
        return [message for _, message in self.heard if isinstance(message, kind)]
