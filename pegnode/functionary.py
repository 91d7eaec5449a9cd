"""The composition root of a functionary: a full node that takes part in consensus with a member's keys.

They are in this process, or at a signer in a process of its own.
"""

import secrets
from functools import partial

import trio

from federation.journal_entries import open_journal
from federation.journal_header import JournalIdentity
from federation.membership import Member
from federation.signer import Signer
from pegnode.config import FunctionaryConfig
from pegnode.consensus.machine import Simplex
from pegnode.folders import JOURNAL_FOLDER
from pegnode.genesis import Genesis
from pegnode.memory_guard import forbid_memory_dumps
from pegnode.node import MAX_GUESTS, assemble, run_parts
from pegnode.service.auditor import Auditor
from pegnode.service.consensus_driver import ConsensusDriver
from pegnode.service.judge import Judge
from pegnode.service.l1_reports import L1Reports
from pegnode.service.live_node import LiveNode
from pegnode.service.own_memory import OwnMemory
from pegnode.service.payouts import Payouts
from pegnode.service.proposer import Proposer
from pegnode.service.work import WorkWatch
from pegnode.signing.local import LocalSigner
from pegnode.signing.process import open_signer
from pegnode.signing.remote import RemoteSigner
from pegnode.storage.journal_check import require_chain


async def run_functionary(config: FunctionaryConfig) -> None:
    """Run a member until it is told to stop. Raises what keys, signer, journal, store or configuration refuse with."""
    forbid_memory_dumps()
    genesis = Genesis.load(config.genesis)
    rules = genesis.rules()
    member = config.member(rules.membership)
    if config.signer is not None:
        place = str(config.signer.socket)
        dial = partial(trio.open_unix_socket, place)
        remote = await RemoteSigner.open(place, dial, rules.membership, member.index, rules.chain_id)
        await _run_member(config, genesis, member, remote)
    else:
        await _run_member(config, genesis, member, open_signer(config, rules, member))


async def _run_member(config: FunctionaryConfig, genesis: Genesis, member: Member, keys: Signer | RemoteSigner) -> None:
    """Run a member whose keys are here, or at a signer that is connected."""
    identity = JournalIdentity(genesis.chain_id, genesis.rules().membership.epoch, member.index)
    journal = open_journal(config.data_dir / JOURNAL_FOLDER, identity)
    try:
        if isinstance(keys, Signer):
            journal.require_keys_here()
        else:
            journal.leave_keys_to_signer()
        parts = assemble(config, keys.transport_secret, MAX_GUESTS, member.index)
    except BaseException:
        journal.close()
        raise
    core, peers = parts.core, parts.peers
    try:
        require_chain(journal, core.store)
        auditor = Auditor(core, parts.client, lambda: parts.catch_up.is_current)
        signer = LocalSigner(keys, core, auditor, parts.resumption) if isinstance(keys, Signer) else keys
        payouts = Payouts(core, parts.client, peers, signer, lambda: parts.catch_up.is_current)
        reports = L1Reports(core, peers, member.index)
        proposer = Proposer(core, reports.by_member, genesis.consensus.view_timeout_ms / 4_000)
        machine = Simplex(member.index, core.rules.membership, genesis.consensus)
        memory = OwnMemory(core, peers, journal, member.index, secrets.token_bytes)
        judge, guilt = Judge(core), parts.equivocations
        driver = ConsensusDriver(core, peers, machine, journal, signer, proposer, judge, memory, guilt)
        work = WorkWatch(core, proposer, driver)
        live = LiveNode(
            core=core,
            peers=peers,
            relay=parts.relay,
            catch_up=parts.catch_up,
            evidence_maker=parts.evidence_maker,
            payouts=payouts,
            auditor=auditor,
            resumption=parts.resumption,
            records=parts.records,
            l1=parts.l1_monitor,
            l1_mempool=parts.l1_mempool,
            stop=parts.stop.set,
            l1_name=genesis.l1.network,
            pool_limits=parts.pool_limits,
            consensus=genesis.consensus,
            signer=signer,
            watch=driver.watch,
            journal_status=memory.status,
        )
        linked = (partial(signer.run, core),) if isinstance(signer, RemoteSigner) else ()
        await run_parts(parts, payouts, live, reports.announce, (driver.run, work.run, *linked))
    finally:
        journal.close()
        await parts.close()
