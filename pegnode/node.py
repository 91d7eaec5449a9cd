"""The composition root of a node, and the full node without keys."""

import secrets
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Final

import structlog
import trio

from bridge.l1.client import L1Client
from bridge.l1.mempool_watcher import MempoolWatcher
from bridge.l1.watcher import L1Watcher
from pegnode import __version__
from pegnode.clock import now_ms
from pegnode.config import NodeConfig, ProcessConfig
from pegnode.folders import CHAIN_FOLDER
from pegnode.genesis import Genesis
from pegnode.mempool.evidence_pool import EvidencePool, EvidencePoolLimits
from pegnode.mempool.pool import Mempool, PoolLimits
from pegnode.net.libp2p_host import HostSettings, Libp2pHost
from pegnode.net.transport import PeerId
from pegnode.rpc.server import ServerConfig, serve
from pegnode.service.auditor import Auditor
from pegnode.service.catch_up import CatchUp
from pegnode.service.closed_lineages import ClosedLineages
from pegnode.service.core import NodeCore
from pegnode.service.equivocations import Equivocations
from pegnode.service.evidence_maker import EvidenceMaker
from pegnode.service.l1_monitor import L1Monitor
from pegnode.service.l1_questions import L1Questions
from pegnode.service.live_node import LiveNode
from pegnode.service.payouts import Payouts
from pegnode.service.peers import Peers
from pegnode.service.records import RecordRelay
from pegnode.service.registry import DepositRegistry
from pegnode.service.relay import Relay
from pegnode.service.reserve_watch import ReserveWatch
from pegnode.service.resumption import Resumption
from pegnode.service.settled_payouts import SettledPayouts
from pegnode.service.unfinal import UnfinalBlocks
from pegnode.storage.store import ChainStore

if TYPE_CHECKING:
    from trio_typing import TaskStatus  # as in pegnode.rpc.server

log = structlog.get_logger()

L1_POLL_S: Final = 0.5
"""How often the Bitcoin node is asked for new blocks."""
MAX_GUESTS: Final = 32
"""Full nodes that one member serves."""
TRANSPORT_SECRET_SIZE: Final = 32


@dataclass(slots=True)
class NodeParts:
    """What every node runs. Made by `assemble`, closed by `close`."""

    config: NodeConfig
    genesis: Genesis
    client: L1Client
    host: Libp2pHost
    core: NodeCore
    peers: Peers
    relay: Relay
    records: RecordRelay
    catch_up: CatchUp
    equivocations: Equivocations
    evidence_maker: EvidenceMaker
    pool_limits: PoolLimits
    l1_monitor: L1Monitor
    l1_mempool: MempoolWatcher
    reserve_watch: ReserveWatch
    settled_payouts: SettledPayouts
    resumption: Resumption
    stop: trio.Event

    async def close(self) -> None:
        """Give back the database and the connections."""
        self.core.store.close()
        with trio.CancelScope(shield=True):
            await self.client.aclose()


def assemble(config: NodeConfig, transport_secret: bytes, max_guests: int, own_member: int | None = None) -> NodeParts:
    """Open the store and join the parts; nothing runs yet. Raises what each part refuses with.

    own_member: the index of the member whose keys this node has, if any.
    """
    genesis = Genesis.load(config.genesis)
    rules = genesis.rules()
    client = L1Client(config.l1.url, config.l1.credentials())
    pool_limits = PoolLimits()
    host = Libp2pHost(transport_secret, _host_settings(config, rules.chain_id, genesis, max_guests), Random())
    core = open_core(config, genesis, client, pool_limits)
    peers = Peers(host, rules.membership)
    relay = Relay(core, peers)
    records = RecordRelay(core, peers)
    catch_up = CatchUp(core, peers, records)
    closed = ClosedLineages(core)
    return NodeParts(
        config=config,
        genesis=genesis,
        client=client,
        host=host,
        core=core,
        peers=peers,
        relay=relay,
        records=records,
        catch_up=catch_up,
        equivocations=Equivocations(core, peers, own_member),
        evidence_maker=EvidenceMaker(core, client, relay, lambda: catch_up.is_current),
        pool_limits=pool_limits,
        l1_monitor=L1Monitor(core, client, genesis.anchor),
        l1_mempool=MempoolWatcher(client, core.watcher, core.registry.is_deposit),
        reserve_watch=ReserveWatch(core, client, closed, lambda: catch_up.is_current),
        settled_payouts=SettledPayouts(core, client, closed),
        resumption=Resumption(core, client, lambda: catch_up.is_current),
        stop=trio.Event(),
    )


def open_core(config: ProcessConfig, genesis: Genesis, client: L1Client, pool_limits: PoolLimits) -> NodeCore:
    """Open the store, and join to it what every process with a chain of its own shares. Raises StorageError."""
    rules = genesis.rules()
    watcher = L1Watcher(client, genesis.anchor.height)
    store = ChainStore.open(config.data_dir / CHAIN_FOLDER, rules)
    return NodeCore(
        rules=rules,
        store=store,
        unfinal=UnfinalBlocks(store),
        mempool=Mempool(pool_limits),
        evidence=EvidencePool(EvidencePoolLimits()),
        registry=DepositRegistry(store, rules.custody, now_ms),
        watcher=watcher,
        questions=L1Questions(client, watcher, rules.params),
        now_ms=now_ms,
    )


def _host_settings(config: NodeConfig, chain_id: bytes, genesis: Genesis, max_guests: int) -> HostSettings:
    membership = genesis.rules().membership
    return HostSettings(
        chain_id=chain_id,
        software=f"pegnode/{__version__}",
        members=frozenset(PeerId(member.peer_id) for member in membership.members),
        dial=config.peer_addresses(membership),
        listen=(config.p2p.listen,),
        max_guests=max_guests,
    )


Task = Callable[[], Awaitable[None]]


async def run_parts(
    parts: NodeParts, payouts: Payouts, live: LiveNode, on_l1_change: Callable[[], None], tasks: tuple[Task, ...]
) -> None:
    """Run a node until it is told to stop, by signal or by RPC. tasks: what this kind of node runs besides."""

    async def l1_changed() -> None:
        on_l1_change()
        parts.evidence_maker.poke()
        parts.core.work_changed()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stop_on_signal, parts.stop)
        await nursery.start(partial(parts.host.run))
        nursery.start_soon(parts.peers.run)
        server_ended = trio.Event()
        address = await nursery.start(partial(_serve, _server_config(parts.config), live, parts.stop, server_ended))
        log.info(
            "started",
            version=__version__,
            chain_id=parts.core.rules.chain_id.hex(),
            height=parts.core.store.tip.header.height,
            rpc=address,
            p2p=[item.text for item in parts.host.listen_addresses],
        )
        nursery.start_soon(parts.l1_monitor.run, l1_changed)
        nursery.start_soon(parts.core.watcher.run, L1_POLL_S, l1_changed)
        relaying = (parts.relay.run, parts.records.run, parts.catch_up.run)
        own_tasks = (*relaying, parts.evidence_maker.run, parts.l1_mempool.run, payouts.run)
        watches = (parts.reserve_watch.run, parts.settled_payouts.run)
        for task in (*own_tasks, *watches, *tasks):
            nursery.start_soon(task)
        await parts.stop.wait()
        log.info("stopping")
        await server_ended.wait()
        nursery.cancel_scope.cancel()


async def _serve(
    config: ServerConfig,
    live: LiveNode,
    stop: trio.Event,
    ended: trio.Event,
    *,
    task_status: "TaskStatus[str]" = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until `stop`, and set `ended` when what was under way has been answered, the call to stop among it."""
    try:
        await serve(config, live, stop, task_status=task_status)
    finally:
        ended.set()


async def stop_on_signal(stop: trio.Event) -> None:
    """Set `stop` when somebody interrupts or ends this process."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for number in signals:
            log.info("signal received", signal=signal.Signals(number).name)
            stop.set()


def _server_config(config: NodeConfig) -> ServerConfig:
    return ServerConfig(cookie_path=config.cookie_path, host=config.rpc.host, port=config.rpc.port)


async def run_node(config: NodeConfig) -> None:
    """Run a full node without keys: it checks everything, serves wallets, and passes on what they hand in."""
    parts = assemble(config, secrets.token_bytes(TRANSPORT_SECRET_SIZE), max_guests=0)
    try:
        payouts = Payouts(parts.core, parts.client, parts.peers, None, lambda: parts.catch_up.is_current)
        live = LiveNode(
            core=parts.core,
            peers=parts.peers,
            relay=parts.relay,
            catch_up=parts.catch_up,
            evidence_maker=parts.evidence_maker,
            payouts=payouts,
            auditor=Auditor(parts.core, parts.client, lambda: parts.catch_up.is_current),
            resumption=parts.resumption,
            records=parts.records,
            l1=parts.l1_monitor,
            l1_mempool=parts.l1_mempool,
            stop=parts.stop.set,
            l1_name=parts.genesis.l1.network,
            pool_limits=parts.pool_limits,
            consensus=parts.genesis.consensus,
        )
        await run_parts(parts, payouts, live, lambda: None, ())
    finally:
        await parts.close()
