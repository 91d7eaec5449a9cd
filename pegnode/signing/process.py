"""The composition root of a signer: a member's keys, a chain and a journal of its own, and a socket. No network."""

import secrets
from functools import partial

import structlog
import trio

from bridge.l1.client import L1Client
from federation.journal_entries import open_journal
from federation.journal_header import JournalIdentity
from federation.keystore import read_member_secrets
from federation.membership import Member
from federation.signer import Signer
from pegnode import __version__
from pegnode.chain.parameters import ChainRules
from pegnode.config import FunctionaryConfig, SignerConfig
from pegnode.folders import JOURNAL_FOLDER
from pegnode.genesis import Genesis
from pegnode.memory_guard import forbid_memory_dumps
from pegnode.mempool.pool import PoolLimits
from pegnode.node import L1_POLL_S, open_core, stop_on_signal
from pegnode.options.errors import ConfigReason, ConfigRefused
from pegnode.passphrase import find_passphrase
from pegnode.service.auditor import Auditor
from pegnode.service.core import NodeCore
from pegnode.service.l1_monitor import L1Monitor
from pegnode.service.resumption import Resumption
from pegnode.signing.follower import Follower
from pegnode.signing.local import LocalSigner
from pegnode.signing.server import SignerServer
from pegnode.storage.journal_check import require_chain

log = structlog.get_logger()


def open_signer(config: FunctionaryConfig | SignerConfig, rules: ChainRules, member: Member) -> Signer:
    """The keys that a configuration names, opened. Raises KeystoreRefused, SignerRefused, SelfTestFailed."""
    if config.keys_dir is None:
        raise ConfigRefused(ConfigReason.MISSING_OPTION, "missing", (("keys_dir",),))
    keys = read_member_secrets(config.keys_dir, find_passphrase(config.passphrase_file))
    return Signer(keys, rules.membership, member.index, rules.chain_id, secrets.token_bytes)


async def run_signer(config: SignerConfig) -> None:
    """Run a signer until it is told to stop. Raises what keys, journal, store, socket or configuration refuse with."""
    forbid_memory_dumps()
    genesis = Genesis.load(config.genesis)
    rules = genesis.rules()
    member = config.member(rules.membership)
    signer = open_signer(config, rules, member)
    identity = JournalIdentity(rules.chain_id, rules.membership.epoch, member.index)
    journal = open_journal(config.data_dir / JOURNAL_FOLDER, identity)
    client = L1Client(config.l1.url, config.l1.credentials())
    try:
        journal.require_keys_here()  # a functionary's journal, copied by hand, may lack votes
        core = open_core(config, genesis, client, PoolLimits())
        try:
            require_chain(journal, core.store)
            journal.prune(core.store.tip.header.view)  # the last time may have been lost with the power
            follower = Follower(core, journal)
            auditor = Auditor(core, client, lambda: follower.is_current)
            local = LocalSigner(signer, core, auditor, Resumption(core, client, lambda: follower.is_current))
            server = SignerServer(local, signer.transport_secret, journal, follower, rules.chain_id)
            await _run(config, core, server, L1Monitor(core, client, genesis.anchor))
        finally:
            core.store.close()
    finally:
        journal.close()
        with trio.CancelScope(shield=True):
            await client.aclose()


async def _run(config: SignerConfig, core: NodeCore, server: SignerServer, monitor: L1Monitor) -> None:
    stop = trio.Event()

    async def l1_changed() -> None:
        """Nothing waits for L1 here: whoever asks looks by itself."""

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stop_on_signal, stop)
        nursery.start_soon(monitor.run, l1_changed)
        nursery.start_soon(core.watcher.run, L1_POLL_S, l1_changed)
        await nursery.start(partial(server.run, config.socket))
        log.info(
            "started", version=__version__, chain_id=core.rules.chain_id.hex(), height=core.store.tip.header.height
        )
        await stop.wait()
        log.info("stopping")
        nursery.cancel_scope.cancel()
