"""A federation in one process: whole members over a network, Bitcoin nodes and stores in memory.

Everything between the edges is real: rules, pools, consensus, journals, signatures. Under trio's autojump clock a test
takes as long as its arithmetic. The wall clock of the members is trio's.
"""

import random
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import trio

from bridge.bitcoin.curve import schnorr_sign
from bridge.bitcoin.identifiers import BlockHash, OutPoint, Script, Txid
from bridge.bitcoin.transaction import Transaction, TxOut
from bridge.custody import CoinKind, reserve_script
from bridge.evidence import Opening
from bridge.l1.client import L1Client
from bridge.l1.watcher import L1Watcher
from bridge.withdrawals import Burn, encode_burn
from federation.certificate import NO_BLOCK, Certificate, Vote, VoteKind, vote_digest
from federation.journal import Journal, JournalIdentity, MemoryEntries
from federation.keystore import MemberSecrets
from federation.signer import Signer
from pegnode.chain.block import Block
from pegnode.chain.builder import Candidates, Slot, build_block
from pegnode.chain.facts import NO_FACTS
from pegnode.chain.state import ChainView, Tip
from pegnode.consensus.machine import Simplex
from pegnode.mempool.evidence_pool import EvidencePool, EvidencePoolLimits
from pegnode.mempool.pool import Mempool, PoolLimits
from pegnode.net.memory import MemoryNetwork, MemoryTransport
from pegnode.net.messages import AnyMessage, Message, decode_message, encode_message
from pegnode.net.transport import DropReason, FrameReceived, PeerDisconnected, PeerId, PeerRole
from pegnode.service.catch_up import CatchUp
from pegnode.service.consensus_driver import ConsensusDriver
from pegnode.service.core import NodeCore
from pegnode.service.evidence_maker import EvidenceMaker
from pegnode.service.judge import Judge
from pegnode.service.l1_monitor import L1Monitor
from pegnode.service.l1_questions import L1Questions
from pegnode.service.l1_reports import L1Reports
from pegnode.service.live_node import LiveNode
from pegnode.service.payouts import Payouts
from pegnode.service.peers import Peers
from pegnode.service.proposer import Proposer
from pegnode.service.registry import DepositRegistry
from pegnode.service.relay import Relay
from pegnode.service.unfinal import UnfinalBlock, UnfinalBlocks
from pegnode.service.work import WorkWatch
from pegnode.storage import store as store_module
from pegnode.storage.database import Changes, Database
from pegnode.storage.store import ChainStore, FinalBlock
from tests.support.chain import L1_START, START_MS, custody_secrets, local_genesis, secret, vote_secrets
from tests.support.fake_l1_client import FakeL1Client, L1World
from tests.support.mini_wallet import Coin, MiniWallet

if TYPE_CHECKING:
    from trio_typing import TaskStatus

L1_POLL_S = 0.5
M = TypeVar("M", bound=Message)


class MemoryDatabase(Database):
    """The database's twin in memory. It survives `close`, as a disk does."""

    def __init__(self) -> None:
        self._path = Path("in memory")
        self.families_in_memory: dict[str, dict[bytes, bytes]] = {name: {} for name in store_module.FAMILIES}

    def get(self, family: str, key: bytes) -> bytes | None:
        return self.families_in_memory[family].get(key)

    def scan(
        self, family: str, prefix: bytes = b"", *, start: bytes | None = None, backwards: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        found = sorted(item for item in self.families_in_memory[family].items() if item[0].startswith(prefix))
        if backwards:
            return iter([item for item in reversed(found) if start is None or item[0] <= start])
        return iter([item for item in found if start is None or item[0] >= start])

    def frozen_values(self, family: str) -> Iterator[bytes]:
        return iter(list(self.families_in_memory[family].values()))

    def write(self, changes: Changes) -> None:
        for family, key, value in changes.entries:
            if value is None:
                self.families_in_memory[family].pop(key, None)
            else:
                self.families_in_memory[family][key] = value

    def close(self) -> None:
        pass

    def open_store(self, rules: Any) -> ChainStore:
        """The store of a chain over this database."""
        if not self.families_in_memory[store_module.META]:
            self.write(store_module._genesis(rules))
        return ChainStore._load(self._path, self, rules)


@dataclass
class Disk:
    """What survives a member's restart. folder: where its store is; None for one in memory."""

    folder: Path | None = None
    database: MemoryDatabase = field(default_factory=MemoryDatabase)
    entries: MemoryEntries = field(default_factory=MemoryEntries)

    def open_store(self, rules: Any) -> ChainStore:
        """The store on it."""
        return self.database.open_store(rules) if self.folder is None else ChainStore.open(self.folder, rules)


class Member:
    """One member, or with `index` None a full node without keys, from its disk to its tasks."""

    def __init__(self, federation: "MemoryFederation", index: int | None, disk: Disk, l1: FakeL1Client) -> None:
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
            registry=DepositRegistry(self.store, rules.custody, rules.membership.epoch, now_ms),
            watcher=watcher,
            questions=L1Questions(client, watcher, rules.params),
            now_ms=now_ms,
        )
        self.peers = Peers(self.transport, rules.membership)
        self.relay = Relay(self.core, self.peers)
        self.catch_up = CatchUp(self.core, self.peers)
        self.evidence_maker = EvidenceMaker(self.core, client, self.relay, self.is_current)
        self.dropped: list[tuple[PeerId, DropReason]] = []
        self._note_drops()
        self.driver: ConsensusDriver | None = None
        self.reports: L1Reports | None = None
        tasks: list[Callable[[], Any]] = []
        signer = None if index is None else federation.signer(index)
        self.payouts = Payouts(self.core, client, self.peers, signer, self.is_current)
        self.l1_monitor = L1Monitor(self.core, client, federation.genesis.anchor)
        if index is not None and signer is not None:
            self.reports = L1Reports(self.core, self.peers, index)
            patience_s = federation.genesis.consensus.view_timeout_ms / 4_000
            self.proposer = Proposer(self.core, self.reports.by_member, patience_s)
            self.machine = Simplex(index, rules.membership, federation.genesis.consensus)
            self.journal = self._journal(index)
            self.judge = Judge(self.core)
            self.driver = ConsensusDriver(
                self.core, self.peers, self.machine, self.journal, signer, self.proposer, self.judge
            )
            self.work = WorkWatch(self.core, self.proposer, self.driver)
            tasks = [self.driver.run, self.work.run]
        self.live = LiveNode(
            core=self.core,
            peers=self.peers,
            relay=self.relay,
            catch_up=self.catch_up,
            evidence_maker=self.evidence_maker,
            payouts=self.payouts,
            l1=self.l1_monitor,
            stop=self.scope.cancel,
            l1_name="regtest",
            pool_limits=PoolLimits(),
            member=index,
            driver=self.driver,
        )
        parts = (self.peers.run, self.relay.run, self.catch_up.run, self.evidence_maker.run, self.payouts.run)
        watching = (partial(self.l1_monitor.run, self._l1_changed), partial(watcher.run, L1_POLL_S, self._l1_changed))
        self.tasks: tuple[Callable[[], Any], ...] = (*parts, *watching, *tasks)

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


class Stranger:
    """A node that a test plays: it says what the test wants, and remembers what it hears."""

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
                    self.heard.append((event.peer, decode_message(event.payload)))
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


class MemoryFederation:
    """Four members, their network, and L1. Members run between `start` and `stop`."""

    def __init__(
        self, nursery: trio.Nursery, *, peg: Mapping[str, int] = {}, chain: Mapping[str, int] = {}, seed: int = 1
    ) -> None:
        self.nursery = nursery
        self.l1 = L1World()
        self.l1.mine(L1_START + 1)
        self.genesis = local_genesis(self.l1.chain.anchor(L1_START), peg=peg, chain=chain)
        self.rules = self.genesis.rules()
        self.network = MemoryNetwork(random.Random(seed))
        self.members: dict[int, Member] = {}
        self.has_quorum = False
        self.disks = {index: Disk() for index in range(self.rules.membership.size)}
        self.nodes = {index: FakeL1Client(self.l1) for index in self.disks}

    def peer_id(self, index: int) -> PeerId:
        """A member's."""
        return PeerId(self.rules.membership.members[index].peer_id)

    def signer(self, index: int) -> Signer:
        """A member's keys."""
        keys = MemberSecrets(vote_secrets()[index], custody_secrets()[index], secret("transport", index))
        return Signer(keys, self.rules.membership, index, self.rules.chain_id, bytes)

    # life

    async def start(self, *indexes: int) -> None:
        """Start these members, or go on with what their disks hold."""
        for index in indexes:
            member = Member(self, index, self.disks[index], self.nodes[index])
            self.members[index] = member
            self.has_quorum |= len(self.members) >= self.rules.membership.quorum
            await self.nursery.start(member.run)

    async def stop(self, index: int) -> None:
        """End a member."""
        member = self.members.pop(index)
        member.scope.cancel()
        await member.stopped.wait()

    async def start_full_node(self) -> Member:
        """A node without keys."""
        node = Member(self, None, Disk(), FakeL1Client(self.l1))
        await self.nursery.start(node.run)
        return node

    async def join(self, peer: PeerId, role: PeerRole = PeerRole.GUEST) -> Stranger:
        """A node that the test plays; a member's if it has its id."""
        stranger = Stranger(self.network.transport(peer, role))
        await self.nursery.start(stranger.run)
        return stranger

    def isolate(self, index: int) -> None:
        """Cut a member off from every other."""
        for other in self.disks:
            if other != index:
                self.network.cut(self.peer_id(index), self.peer_id(other))

    # time

    async def until(self, condition: Callable[[], object], seconds: float = 60.0) -> None:
        """Let time pass until the condition holds; fail the test when it does not within `seconds`."""
        deadline_s = trio.current_time() + seconds
        while not condition():
            assert trio.current_time() < deadline_s, "not within the time given"
            await trio.sleep(0.05)

    async def all_at(self, height: int, seconds: float = 60.0) -> None:
        """Wait until every running member has this height, and see that they agree about it."""
        await self.until(lambda: all(member.height >= height for member in self.members.values()), seconds)
        assert len({member.store.block_at(height) for member in self.members.values()}) == 1

    @property
    def height(self) -> int:
        """The highest final height."""
        return max(member.height for member in self.members.values())

    # votes

    def vote(self, index: int, kind: VoteKind, view: int, block_hash: BlockHash = NO_BLOCK) -> Vote:
        """A member's signed vote, whatever that member has said before."""
        digest = vote_digest(self.rules.chain_id, 0, kind, view, block_hash)
        return Vote(kind, 0, view, block_hash, index, schnorr_sign(vote_secrets()[index], digest, bytes(32)))

    def certificate(
        self, kind: VoteKind, view: int, block_hash: BlockHash = NO_BLOCK, signers: Sequence[int] = (0, 1, 2)
    ) -> Certificate:
        """A certificate of these signers."""
        votes = [self.vote(index, kind, view, block_hash) for index in signers]
        return Certificate(kind, 0, view, block_hash, tuple((vote.member, vote.signature64) for vote in votes))

    # blocks made by hand

    def next_block(self, parent: ChainView, *transactions: Transaction, **header_changes: object) -> UnfinalBlock:
        """A block by the leader of the next view; valid unless its header is changed."""
        header = parent.tip.header
        slot = Slot(header.view + 1, max(header.time_ms + 1, now_ms()), header.anchor, None, include_l1=False)
        built = build_block(parent, slot, Candidates((), transactions), NO_FACTS, self.rules)
        block = Block(replace(built.block.header, **header_changes), built.block.body)  # type: ignore[arg-type]
        built.state.tip = Tip(block.header)
        return UnfinalBlock(block, block.encode(), built.state)

    def run_of_blocks(self, parent: ChainView, count: int) -> list[UnfinalBlock]:
        """Empty blocks, each on the one before."""
        blocks: list[UnfinalBlock] = []
        for _ in range(count):
            blocks.append(self.next_block(blocks[-1].state if blocks else parent))
        return blocks

    def finalization(self, unfinal: UnfinalBlock, signers: Sequence[int] = (0, 1, 2)) -> bytes:
        """What makes a block final."""
        header = unfinal.block.header
        return self.certificate(VoteKind.FINALIZE, header.view, header.hash, signers).encode()

    def commit(self, store: ChainStore, blocks: Sequence[UnfinalBlock]) -> None:
        """Make blocks final in a store; only the last one has a finalization."""
        *ancestors, last = blocks
        finals = [FinalBlock(unfinal.state, unfinal.data) for unfinal in ancestors]
        store.commit([*finals, FinalBlock(last.state, last.data, self.finalization(last))])

    def commit_block(self, member: Member, *transactions: Transaction) -> None:
        """Make a block with these transactions final at one member."""
        unfinal = self.next_block(member.store, *transactions)
        assert len(unfinal.block.body.transactions) == len(transactions)
        member.core.unfinal.add(unfinal)
        member.core.finalize(unfinal.block.hash, self.finalization(unfinal))

    def fund_by_hand(self, member: Member, wallet: MiniWallet, value_sats: int = 10_000_000) -> Coin:
        """A deposit, claimed in a block that is made final at one member; the coin that the claim made."""
        script, chain = wallet.script(), self.l1.chain
        self.pay_deposit(script, value_sats)
        evidence = chain.evidence(chain.blocks[-1].transactions[1], Opening(0, CoinKind.DEPOSIT, 0, script))
        self.bury()
        header = member.store.tip.header
        anchor = chain.anchor(evidence.l1_height)
        slot = Slot(header.view + 1, header.time_ms + 1_000, anchor, None, include_l1=True)
        built = build_block(member.store, slot, Candidates((evidence,)), chain.facts(anchor, evidence), self.rules)
        unfinal = UnfinalBlock(built.block, built.block.encode(), built.state)
        member.core.unfinal.add(unfinal)
        member.core.finalize(unfinal.block.hash, self.finalization(unfinal))
        [claim] = built.state.transactions
        return claim.transaction.outpoint(0), claim.transaction.outputs[0]

    # money

    def deposit_script(self, claim_script: Script) -> Script:
        """What a deposit pays on L1."""
        return reserve_script(self.rules.custody.newest, CoinKind.DEPOSIT, claim_script).script

    def pay_deposit(self, claim_script: Script, value_sats: int) -> OutPoint:
        """A deposit in a new L1 block."""
        payment = self.l1.chain.payment(TxOut(value_sats, self.deposit_script(claim_script)))
        self.l1.chain.mine(payment)
        return payment.outpoint(0)

    def bury(self) -> None:
        """Enough L1 blocks for the newest to become an anchor."""
        self.l1.mine(self.rules.params.confirmations)

    async def fund(self, wallet: MiniWallet, value_sats: int = 10_000_000) -> Coin:
        """A deposit, claimed by whoever runs; the coin that the claim made."""
        script = wallet.script()
        for member in self.members.values():
            member.relay.register(script)
        deposit = self.pay_deposit(script, value_sats)
        self.bury()
        await self.until(lambda: all(deposit in member.store.ledger.entered for member in self.members.values()))
        member = next(iter(self.members.values()))
        [(outpoint, utxo)] = [
            (outpoint, utxo)
            for outpoint, utxo in member.store.utxos.items()
            if utxo.script == script and utxo.value_sats == value_sats - self.rules.params.claim_fee_sats
        ]
        return outpoint, TxOut(utxo.value_sats, utxo.script)

    def burn_output(self, value_sats: int, l1_script: Script, refund_script: Script) -> TxOut:
        """An output that burns, for a payout to `l1_script`."""
        return TxOut(value_sats, encode_burn(self.rules.l1_genesis_hash, Burn(l1_script, 5_000, refund_script)))

    async def settled(self, *transactions: Transaction | Txid) -> None:
        """Wait until these are final with every running member."""
        txids = [item.txid if isinstance(item, Transaction) else item for item in transactions]
        stores = [member.store for member in self.members.values()]
        await self.until(lambda: all(store.index.transaction(txid) for store in stores for txid in txids))


def now_ms() -> int:
    """The members' clock, in milliseconds."""
    return START_MS + 1_000 + int(trio.current_time() * 1000)


@asynccontextmanager
async def memory_federation(
    *running: int, peg: Mapping[str, int] = {}, chain: Mapping[str, int] = {}, seed: int = 1
) -> AsyncIterator[MemoryFederation]:
    """A federation whose members `running` run, all connected."""
    async with trio.open_nursery() as nursery:
        federation = MemoryFederation(nursery, peg=peg, chain=chain, seed=seed)
        nursery.start_soon(federation.network.run)
        await federation.start(*running)
        await trio.sleep(0.5)
        yield federation
        nursery.cancel_scope.cancel()
