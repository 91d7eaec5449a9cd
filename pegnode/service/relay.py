"""Passing on what users hand in: transactions, evidence and registered claim scripts."""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

import structlog
import trio

from bridge.bitcoin.identifiers import Script, Txid, hash_to_hex
from bridge.bitcoin.transaction import Transaction
from bridge.errors import Rejected
from bridge.evidence import Evidence, EvidenceReason
from bridge.l1.errors import L1Error
from pegnode.chain.transactions import TransactionRule
from pegnode.mempool.evidence_pool import EvidencePoolReason
from pegnode.mempool.pool import PoolReason
from pegnode.net.messages import MAX_ITEMS, EvidenceMessage, RegistrationsMessage, TransactionsMessage
from pegnode.net.transport import PeerId
from pegnode.service.core import NodeCore
from pegnode.service.peers import Peers
from pegnode.service.registry import RegistrationRefused
from pegnode.service.unfinal import UnfinalBlock

log = structlog.get_logger()

MAX_ORPHANS: Final = 100
"""Transactions kept whose inputs are not known yet: a peer may be a block ahead."""
MAX_EVIDENCE_INBOX: Final = 256
"""Pieces that wait for the Bitcoin node's word on their block; those beyond are dropped, and come again."""
RELAY_AGAIN_S: Final = 3.0
RELAY_AGAIN_BYTES: Final = 500_000
"""What still waits is sent again this often, oldest first and up to so much: a peer may have been away."""


class Relay:
    """Takes transactions, evidence and claim scripts from users and peers, keeps what is good and passes it on."""

    def __init__(self, core: NodeCore, peers: Peers) -> None:
        self._core = core
        self._peers = peers
        self._orphans: OrderedDict[bytes, None] = OrderedDict()
        self._inbox_in, self._inbox = trio.open_memory_channel[tuple[PeerId, Evidence]](MAX_EVIDENCE_INBOX)
        peers.on_message(TransactionsMessage, self._receive_transactions, from_guests=True)
        peers.on_message(EvidenceMessage, self._receive_evidence, from_guests=True)
        peers.on_message(RegistrationsMessage, self._receive_registrations, from_guests=True)
        peers.on_connected(self._greet)
        core.on_final(self._retry_orphans)

    def submit_transaction(self, data: bytes) -> Txid:
        """Take a user's transaction; one that waits already is passed on again. Raises Rejected."""
        txid = self._take_transaction(data, None)
        self._core.work_changed()
        return txid

    async def submit_evidence(self, evidence: Evidence) -> Txid:
        """Take evidence, once one's own Bitcoin node has confirmed its block; raises Rejected or L1Unavailable."""
        return await self._take_evidence(evidence, None)

    async def _take_evidence(self, evidence: Evidence, sender: PeerId | None) -> Txid:
        core = self._core
        fact = await core.questions.block_fact(evidence.l1_block_hash)
        if fact is None:
            raise Rejected(EvidenceReason.WRONG_BLOCK, "one's own Bitcoin node does not hold its block")
        txid = core.evidence.add(evidence, fact, core.store, core.rules, core.now_ms())
        self._peers.to_all(EvidenceMessage((evidence.encode(),)), sender)
        core.work_changed()
        return txid

    def register(self, claim_script: Script) -> None:
        """Register a claim script everywhere; raises RegistrationRefused."""
        if self._core.registry.add(claim_script):
            self._peers.to_all(RegistrationsMessage((claim_script,)))
            self._core.work_changed()

    async def run(self) -> None:
        """Judge what comes in, and send again, from time to time, what still waits."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._judge_inbox)
            nursery.start_soon(self._send_again)

    async def _send_again(self) -> None:
        while True:
            await trio.sleep(RELAY_AGAIN_S)
            before_ms = self._core.now_ms() - int(RELAY_AGAIN_S * 1000)
            waiting = [
                entry.transaction.serialize() for entry in self._core.mempool.entries() if entry.arrived_ms <= before_ms
            ]
            for part in _in_messages(waiting):
                self._peers.to_members(TransactionsMessage(part))

    def _take_transaction(self, data: bytes, sender: PeerId | None) -> Txid:
        try:
            txid = self._core.mempool.add(data, self._core.store, self._core.rules, self._core.now_ms())
        except Rejected as rejected:
            if rejected.reason is not PoolReason.ALREADY_WAITING or sender is not None:
                raise
            txid = Transaction.parse(data).txid
        self._peers.to_all(TransactionsMessage((data,)), sender)
        return txid

    def _receive_transactions(self, peer: PeerId, message: TransactionsMessage) -> None:
        for data in message.transactions:
            try:
                self._take_transaction(data, peer)
            except Rejected as rejected:
                self._after_rejection(data, rejected)
        self._core.work_changed()

    def _after_rejection(self, data: bytes, rejected: Rejected) -> None:
        if rejected.reason is TransactionRule.MISSING_INPUT:
            self._orphans[data] = None
            while len(self._orphans) > MAX_ORPHANS:
                self._orphans.popitem(last=False)
        elif rejected.reason is not PoolReason.ALREADY_WAITING:
            log.debug("relayed transaction rejected", reason=rejected.reason, detail=rejected.detail)

    def _retry_orphans(self, _: UnfinalBlock) -> None:
        orphans, self._orphans = self._orphans, OrderedDict()
        for data in orphans:
            try:
                self._take_transaction(data, None)
            except Rejected as rejected:
                log.debug("orphan rejected", reason=rejected.reason, detail=rejected.detail)

    def _receive_evidence(self, peer: PeerId, message: EvidenceMessage) -> None:
        for data in message.evidence:
            try:
                self._inbox_in.send_nowait((peer, Evidence.decode(data)))
            except trio.WouldBlock:
                log.warning("evidence inbox is full", peer=peer)
                return

    async def _judge_inbox(self) -> None:
        async for peer, evidence in self._inbox:
            try:
                txid = await self._take_evidence(evidence, peer)
                log.debug("evidence waits", l1_txid=hash_to_hex(txid))
            except Rejected as refused:
                if refused.reason is not EvidencePoolReason.ALREADY_WAITING:
                    log.debug("relayed evidence refused", reason=refused.reason, detail=refused.detail)
            except L1Error as outage:
                log.info("evidence not taken: L1 can't be asked", detail=str(outage))

    def _receive_registrations(self, peer: PeerId, message: RegistrationsMessage) -> None:
        new = []
        for data in message.claim_scripts:
            try:
                if self._core.registry.add(Script(data)):
                    new.append(data)
            except RegistrationRefused as refused:
                log.warning("registration refused", peer=peer, reason=refused.reason)
        if new:
            self._peers.to_all(RegistrationsMessage(tuple(new)), peer)
            self._core.work_changed()

    def _greet(self, peer: PeerId) -> None:
        """Tell a new peer what waits and what is registered: it may have been away."""
        for part in _in_messages([entry.transaction.serialize() for entry in self._core.mempool.entries()]):
            self._peers.send(peer, TransactionsMessage(part))
        scripts = self._core.registry.claim_scripts()
        for first in range(0, len(scripts), MAX_ITEMS):
            self._peers.send(peer, RegistrationsMessage(scripts[first : first + MAX_ITEMS]))


def _in_messages(items: list[bytes]) -> Iterator[tuple[bytes, ...]]:
    """The oldest items up to RELAY_AGAIN_BYTES together, in parts that fit one message."""
    part: list[bytes] = []
    size = total = 0
    for item in items:
        total += len(item)
        if total > RELAY_AGAIN_BYTES:
            break
        if len(part) >= MAX_ITEMS:
            yield tuple(part)
            part, size = [], 0
        part.append(item)
        size += len(item)
    if part:
        yield tuple(part)
