"""The composition root of a functionary: a full node that holds a member's keys and takes part in consensus."""

import secrets

from federation.journal import JournalIdentity
from federation.journal_entries import open_journal
from federation.keystore import read_member_secrets
from federation.signer import Signer
from pegnode.config import FunctionaryConfig
from pegnode.consensus.machine import Simplex
from pegnode.folders import JOURNAL_FOLDER
from pegnode.genesis import Genesis
from pegnode.memory_guard import forbid_memory_dumps
from pegnode.node import MAX_GUESTS, assemble, run_parts
from pegnode.passphrase import find_passphrase
from pegnode.service.auditor import Auditor
from pegnode.service.consensus_driver import ConsensusDriver
from pegnode.service.judge import Judge
from pegnode.service.l1_reports import L1Reports
from pegnode.service.live_node import LiveNode
from pegnode.service.payouts import Payouts
from pegnode.service.proposer import Proposer
from pegnode.service.work import WorkWatch
from pegnode.signing.local import LocalSigner
from pegnode.storage.journal_check import require_memory


async def run_functionary(config: FunctionaryConfig) -> None:
    """Run a member until it is told to stop. Raises what keys, journal, store or configuration refuse with."""
    forbid_memory_dumps()
    genesis = Genesis.load(config.genesis)
    rules = genesis.rules()
    member = config.member(rules.membership)
    keys = read_member_secrets(config.keys_dir, find_passphrase(config.passphrase_file))
    signer = Signer(keys, rules.membership, member.index, rules.chain_id, secrets.token_bytes)
    journal = open_journal(
        config.data_dir / JOURNAL_FOLDER, JournalIdentity(rules.chain_id, rules.membership.epoch, member.index)
    )
    try:
        parts = assemble(config, signer.transport_secret, MAX_GUESTS)
    except BaseException:
        journal.close()
        raise
    core, peers = parts.core, parts.peers
    try:
        require_memory(journal, core.store)
        auditor = Auditor(core, parts.client, lambda: parts.catch_up.is_current)
        port = LocalSigner(signer, core, auditor, parts.resumption)
        payouts = Payouts(core, parts.client, peers, port, lambda: parts.catch_up.is_current)
        reports = L1Reports(core, peers, member.index)
        proposer = Proposer(core, reports.by_member, genesis.consensus.view_timeout_ms / 4_000)
        machine = Simplex(member.index, rules.membership, genesis.consensus)
        driver = ConsensusDriver(core, peers, machine, journal, port, proposer, Judge(core))
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
            signer=port,
            driver=driver,
        )
        await run_parts(parts, payouts, live, reports.announce, (driver.run, work.run))
    finally:
        journal.close()
        await parts.close()
