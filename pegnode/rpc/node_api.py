"""What the RPC and REST edges need of the running node: its store and mempool, and what only a live node can answer.

`pegnode.node` implements it. Nothing here blocks: the methods marked async may wait for the node's own Bitcoin node.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from bridge.bitcoin.addresses import Network
from bridge.bitcoin.identifiers import BlockHash, OutPoint, Script, Txid
from bridge.errors import Reason
from bridge.records import Finding, Record
from federation.record import SignedRecord
from federation.statement import SignedStatement, SolvencyStatement
from pegnode.audit.report import Audit
from pegnode.chain.parameters import ChainRules
from pegnode.errors import ReasonedError
from pegnode.mempool.pool import Mempool, PoolLimits
from pegnode.rpc.deposit_states import DepositInfo
from pegnode.status import NodeStatus
from pegnode.storage.store import ChainStore


class UnavailableReason(Reason):
    """Why the node can't answer at the moment. Trying again later may help."""

    L1_UNREACHABLE = "l1-unavailable"
    """Its own Bitcoin node does not answer."""
    SYNCING = "syncing"
    """It has not yet caught up with the chain."""
    L1_BEHIND = "l1-behind"
    """Its own Bitcoin node has not come as far as the chain's anchor, or its newest blocks are not read yet."""
    L1_MOVED = "l1-moved"
    """L1 grew or was reorganised while it was looked at, again and again."""
    SCAN_BUSY = "l1-scan-busy"
    """Its own Bitcoin node makes one scan of its unspent outputs at a time, and another one takes long."""
    NO_KEYS = "no-keys"
    """Only a member can sign."""
    SIGNER_AWAY = "signer-away"
    """The process that holds this member's keys does not answer."""


class NodeUnavailable(ReasonedError):  # noqa: N818 -- a state of the node, not a fault of the request
    """The request may be good, but the node can't serve it now."""

    reason: UnavailableReason


@dataclass(frozen=True, slots=True)
class PeerInfo:
    """One connected peer."""

    peer_id: str
    member: int | None
    round_trip_ms: float | None
    """Smoothed; None before the first answer."""
    final_height: int | None
    """The highest final height it has shown."""
    address: str
    """Where it comes from: an IPv4 address, or the /64 of an IPv6 one; empty if it is not known."""
    software: str
    """What it calls itself, unverified."""
    connected_ms: int
    """Since when, Unix time in milliseconds."""


@dataclass(frozen=True, slots=True)
class DroppedPeer:
    """Connections of one peer, or for guests and strangers of one address, that ended alike."""

    peer_id: str | None
    """The newest one's; None if none was proved."""
    member: int | None
    address: str
    """As in PeerInfo."""
    reason: str
    """The stable name of a DropReason."""
    by_peer: bool
    """Whether the reason is the peer's own word; else it is this node's finding."""
    detail: str
    """For people."""
    last_ms: int
    """When the newest one ended, Unix time in milliseconds."""
    count: int
    """How many, since it was last forgotten."""


@dataclass(frozen=True, slots=True)
class ClaimReceipt:
    """Evidence of a deposit was accepted for one of the next blocks."""

    outpoint: OutPoint
    """On L1."""
    claim_txid: Txid
    credited_sats: int
    """The deposit's value less the claim fee."""


@dataclass(frozen=True, slots=True)
class PayoutProgress:
    """How far one version of a batch has come on L1. For display only: no rule depends on it."""

    signatures: int
    """Members whose signatures this node holds."""
    signed: bool
    """A quorum's signatures are combined."""
    broadcast: bool
    """This node's Bitcoin node has accepted it."""
    confirmations: int
    """On this node's active L1 chain; 0 while unconfirmed."""


@dataclass(frozen=True, slots=True)
class L1Reserve:
    """The ledger's reserve coins as one's own Bitcoin node has them.

    held_sats: unspent there.  paid_out_sats: spent by a recorded batch that the ledger has yet to settle.
    missing: neither.
    """

    held_sats: int
    paid_out_sats: int
    missing: tuple[OutPoint, ...]


@dataclass(frozen=True, slots=True)
class TransactionVerdict:
    """A transaction that the mempool would take."""

    txid: Txid
    vsize_vbytes: int
    fee_sats: int


@dataclass(frozen=True, slots=True)
class RecordView:
    """A record as one's own node sees it. own_view: for people.  refusal: why its member would not sign it, if so."""

    record: Record
    own_view: tuple[str, ...]
    refusal: str | None


@dataclass(frozen=True, slots=True)
class ResumePlan:
    """Records that end a halt, in order; none while there is something to wait for, which `waits` names for people."""

    waits: tuple[str, ...]
    records: tuple[RecordView, ...]


class NodeApi(Protocol):
    """The running node as the RPC sees it."""

    @property
    def store(self) -> ChainStore:
        """The final chain."""

    @property
    def mempool(self) -> Mempool:
        """The transactions that wait for a block."""

    @property
    def pool_limits(self) -> PoolLimits:
        """What the mempool takes."""

    @property
    def rules(self) -> ChainRules:
        """The genesis parameters."""

    @property
    def network(self) -> Network:
        """How the sidechain writes addresses."""

    @property
    def l1_network(self) -> Network:
        """How the parent chain writes addresses."""

    def status(self) -> NodeStatus:
        """The state of the node now."""

    def peers(self) -> tuple[PeerInfo, ...]:
        """The connected peers."""

    def dropped_peers(self) -> tuple[DroppedPeer, ...]:
        """Who was dropped or refused lately, newest first; bounded."""

    def try_transaction(self, transaction: bytes) -> TransactionVerdict:
        """What `submit_transaction` would do, without doing it. Raises Rejected or Refusal with its reason."""

    async def submit_transaction(self, transaction: bytes) -> Txid:
        """Put a transaction into the mempool and relay it; one that already waits is accepted again.

        Raises Rejected or Refusal, with the rule that it breaks as reason.
        """

    async def register_deposits(self, claim_scripts: Sequence[Script]) -> int:
        """Remember claim scripts, and tell the members, so that deposits to their addresses are claimed unasked.

        Returns how many were new to this node. Raises Refusal for a script that can't be claimed to; NodeUnavailable.
        """

    async def deposits(self, claim_scripts: tuple[Script, ...]) -> tuple[DepositInfo, ...]:
        """The deposits to the addresses of `claim_scripts`, oldest first. Raises NodeUnavailable."""

    async def claim_deposits(
        self, l1_txid: Txid, claim_script: Script, vout: int | None, l1_block: BlockHash | None
    ) -> tuple[ClaimReceipt, ...]:
        """Prove what an L1 transaction pays to the addresses, of any epoch, of a claim script, and offer it to leaders.

        vout: of this output only.  l1_block: where the transaction is, for a Bitcoin node that can't tell.
        Raises Rejected or Refusal, with the rule that it breaks as reason; NodeUnavailable.
        """

    def payout_progress(self, txid: Txid) -> PayoutProgress | None:
        """How far a batch version has come on L1; None when this node knows nothing of it."""

    async def audit(self, scan: bool) -> Audit:
        """A recount of everything, here and on one's own Bitcoin node. Raises NodeUnavailable."""

    async def sign_statement(self, statement: SolvencyStatement | None) -> SignedStatement:
        """A statement, given or new, with this member's signature. Raises Refused, or NodeUnavailable."""

    async def plan_resume(self, others: Sequence[Finding]) -> ResumePlan:
        """Records that end what this node found, and what others found. Raises Refusal, or NodeUnavailable."""

    async def judge_records(self, records: Sequence[Record]) -> tuple[RecordView, ...]:
        """What this node sees of what consecutive records say. Raises Refusal, or NodeUnavailable."""

    async def sign_record(self, records: Sequence[Record], index: int) -> SignedRecord:
        """One of these records with this member's signature. Raises Refused, Refusal, or NodeUnavailable."""

    def submit_record(self, signed: SignedRecord) -> None:
        """Offer a record that a quorum signed to leaders, and relay it. Raises Refused, Rejected or Refusal."""

    def waiting_records(self) -> tuple[SignedRecord, ...]:
        """The records that wait for a block, by rising serial."""

    def request_stop(self) -> None:
        """Begin an orderly shutdown; returns at once."""
