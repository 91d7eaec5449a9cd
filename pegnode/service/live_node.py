"""The running node as its RPC sees it: an implementation of `pegnode.rpc.node_api.NodeApi`."""

from collections.abc import Callable, Sequence

from bridge.bitcoin.addresses import Network, l1_network, sidechain_network
from bridge.bitcoin.identifiers import BlockHash, Script, Txid
from bridge.deposits import claim_transaction
from bridge.l1.errors import L1Error
from bridge.l1.mempool_watcher import MempoolWatcher
from bridge.records import Finding, Record
from federation.record import SignedRecord
from federation.statement import SignedStatement, SolvencyStatement
from pegnode.audit.report import Audit
from pegnode.chain.parameters import ChainRules
from pegnode.consensus.parameters import ConsensusParams
from pegnode.mempool.pool import Mempool, PoolLimits
from pegnode.net.transport import PeerId
from pegnode.rpc.deposit_states import DepositInfo
from pegnode.rpc.node_api import (
    ClaimReceipt,
    DroppedPeer,
    NodeUnavailable,
    PayoutProgress,
    PeerInfo,
    RecordView,
    ResumePlan,
    TransactionVerdict,
    UnavailableReason,
)
from pegnode.service.auditor import Auditor
from pegnode.service.catch_up import CatchUp
from pegnode.service.claims import Claims
from pegnode.service.consensus_watch import ConsensusWatch
from pegnode.service.core import NodeCore
from pegnode.service.deposit_report import DepositReport
from pegnode.service.evidence_maker import EvidenceMaker
from pegnode.service.l1_monitor import L1Monitor
from pegnode.service.node_status import StatusReport
from pegnode.service.payouts import Payouts
from pegnode.service.peers import Peers
from pegnode.service.records import RecordRelay
from pegnode.service.relay import Relay
from pegnode.service.resumption import Resumption
from pegnode.signing.port import SignerAway, SignerPort
from pegnode.status import JournalStatus, NodeStatus
from pegnode.storage.store import ChainStore


class LiveNode:
    """Answers from the node's parts. signer, watch, journal_status: None on a node without keys."""

    def __init__(
        self,
        core: NodeCore,
        peers: Peers,
        relay: Relay,
        catch_up: CatchUp,
        evidence_maker: EvidenceMaker,
        payouts: Payouts,
        auditor: Auditor,
        resumption: Resumption,
        records: RecordRelay,
        l1: L1Monitor,
        l1_mempool: MempoolWatcher,
        stop: Callable[[], None],
        l1_name: str,
        pool_limits: PoolLimits,
        consensus: ConsensusParams,
        signer: SignerPort | None = None,
        watch: ConsensusWatch | None = None,
        journal_status: Callable[[], JournalStatus] | None = None,
    ) -> None:
        self._core = core
        self._peers = peers
        self._relay = relay
        self._catch_up = catch_up
        self._claims = Claims(core, relay, evidence_maker)
        self._deposit_report = DepositReport(core, l1_mempool, evidence_maker.failure)
        self._payouts = payouts
        self._auditor = auditor
        self._resumption = resumption
        self._records = records
        self._stop = stop
        self._l1_name = l1_name
        self._pool_limits = pool_limits
        self._signer = signer
        self._report = StatusReport(core, peers, catch_up, l1, consensus, signer, watch, journal_status)

    @property
    def store(self) -> ChainStore:
        """The final chain."""
        return self._core.store

    @property
    def mempool(self) -> Mempool:
        """The transactions that wait for a block."""
        return self._core.mempool

    @property
    def pool_limits(self) -> PoolLimits:
        """What the mempool takes."""
        return self._pool_limits

    @property
    def rules(self) -> ChainRules:
        """The genesis parameters."""
        return self._core.rules

    @property
    def network(self) -> Network:
        """How the sidechain writes addresses."""
        return sidechain_network(self._l1_name)

    @property
    def l1_network(self) -> Network:
        """How the parent chain writes addresses."""
        return l1_network(self._l1_name)

    def status(self) -> NodeStatus:
        """The state of the node now."""
        return self._report.status()

    def peers(self) -> tuple[PeerInfo, ...]:
        """The connected peers."""
        return tuple(self._peer_info(peer) for peer in sorted(self._peers.transport.connected()))

    def _peer_info(self, peer: PeerId) -> PeerInfo:
        presence = self._peers.presence_of(peer)
        return PeerInfo(
            peer_id=peer,
            member=self._peers.member_of(peer),
            round_trip_ms=self._peers.transport.round_trip_ms(peer),
            final_height=self._catch_up.height_of(peer),
            address="" if presence is None else presence.address,
            software="" if presence is None else presence.software,
            connected_ms=self._core.now_ms() if presence is None else presence.since_ms,
        )

    def dropped_peers(self) -> tuple[DroppedPeer, ...]:
        """Who was dropped or refused lately, newest first; bounded."""
        return tuple(
            DroppedPeer(
                peer_id=departure.peer,
                member=departure.member,
                address=departure.address,
                reason=departure.reason.value,
                by_peer=departure.by_peer,
                detail=departure.detail,
                last_ms=departure.last_ms,
                count=departure.count,
            )
            for departure in self._peers.departures()
        )

    def try_transaction(self, transaction: bytes) -> TransactionVerdict:
        """What `submit_transaction` would do, without doing it. Raises Rejected."""
        core = self._core
        entry = core.mempool.check(transaction, core.store, core.rules, core.now_ms())
        return TransactionVerdict(entry.transaction.txid, entry.transaction.vsize_vbytes, entry.fee_sats)

    async def submit_transaction(self, transaction: bytes) -> Txid:
        """Put a transaction into the mempool and relay it; one that waits already is accepted. Raises Rejected."""
        return self._relay.submit_transaction(transaction)

    async def register_deposits(self, claim_scripts: Sequence[Script]) -> int:
        """Remember claim scripts, and tell the members; how many were new. Raises RegistrationRefused."""
        return len(self._relay.register(*claim_scripts))

    async def deposits(self, claim_scripts: tuple[Script, ...]) -> tuple[DepositInfo, ...]:
        """The deposits to the addresses of `claim_scripts`, oldest first."""
        return await self._deposit_report.list(claim_scripts)

    async def claim_deposits(
        self, l1_txid: Txid, claim_script: Script, vout: int | None, l1_block: BlockHash | None
    ) -> tuple[ClaimReceipt, ...]:
        """Prove what an L1 transaction pays to the addresses of a claim script, and offer it to the leaders.

        Raises ClaimRefused, RegistrationRefused, Rejected or NodeUnavailable.
        """
        try:
            claimed = await self._claims.claim(l1_txid, claim_script, vout, l1_block)
        except L1Error as outage:
            raise NodeUnavailable(UnavailableReason.L1_UNREACHABLE, str(outage)) from outage
        params = self._core.rules.params
        return tuple(
            ClaimReceipt(
                item.outpoint,
                claim_transaction(item.outpoint, item.value_sats, claim_script, params).txid,
                item.value_sats - params.claim_fee_sats,
            )
            for item in claimed
        )

    def payout_progress(self, txid: Txid) -> PayoutProgress | None:
        """How far a batch version has come on L1; None when no final block recorded it."""
        core = self._core
        if txid not in core.store.ledger.versions:
            return None
        block = core.watcher.block_of(txid)
        signed = core.store.signed_payout(txid) is not None
        return PayoutProgress(
            signatures=self._payouts.signatures(txid),
            signed=signed or block is not None,
            broadcast=self._payouts.is_broadcast(txid) or block is not None,
            confirmations=core.watcher.confirmations(block.height) if block else 0,
        )

    async def audit(self, scan: bool) -> Audit:
        """A recount of everything, here and on one's own Bitcoin node. Raises NodeUnavailable."""
        return await self._auditor.audit(scan)

    async def sign_statement(self, statement: SolvencyStatement | None) -> SignedStatement:
        """A statement, given or new, with this member's signature. Raises Refused, or NodeUnavailable."""
        if self._signer is None:
            raise NodeUnavailable(UnavailableReason.NO_KEYS, "this node has no keys; ask a member")
        try:
            return await self._signer.sign_statement(statement)
        except SignerAway as away:
            raise NodeUnavailable(UnavailableReason.SIGNER_AWAY, str(away)) from away

    async def plan_resume(self, others: Sequence[Finding]) -> ResumePlan:
        """Records that end what this node found, and what others found. Raises Refusal, or NodeUnavailable."""
        return await self._resumption.plan(others)

    async def judge_records(self, records: Sequence[Record]) -> tuple[RecordView, ...]:
        """What this node sees of what consecutive records say. Raises Refusal, or NodeUnavailable."""
        return await self._resumption.judge(records)

    async def sign_record(self, records: Sequence[Record], index: int) -> SignedRecord:
        """One of these records with this member's signature. Raises Refused, Refusal, or NodeUnavailable."""
        if self._signer is None:
            raise NodeUnavailable(UnavailableReason.NO_KEYS, "this node has no keys; ask a member")
        try:
            return await self._signer.sign_record(records, index)
        except SignerAway as away:
            raise NodeUnavailable(UnavailableReason.SIGNER_AWAY, str(away)) from away

    def submit_record(self, signed: SignedRecord) -> None:
        """Offer a record that a quorum signed to leaders, and relay it. Raises Refused, or Rejected."""
        self._records.submit(signed)

    def waiting_records(self) -> tuple[SignedRecord, ...]:
        """The records that wait for a block, by rising serial."""
        return self._core.records.waiting()

    def request_stop(self) -> None:
        """Begin an orderly shutdown; returns at once."""
        self._stop()
