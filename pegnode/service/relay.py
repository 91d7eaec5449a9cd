"""Passing on what users hand in: transactions, evidence and registered claim scripts.

Theory of operation. What peers send waits in inboxes, one for each kind of thing, bounded for each peer; a task takes
one item of each peer in turn. Judging rests as long as it works, so however much is handed in, consensus has the other
half of the time. What is good goes on to the others. What can be wrong at no honest node, such as a failing script,
drops its sender.
"""

import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import structlog
import trio

from bridge.bitcoin.hashes import sha256, sha256d
from bridge.bitcoin.identifiers import Script, Txid, hash_to_hex
from bridge.bitcoin.script import ScriptReason
from bridge.bitcoin.transaction import Transaction, TransactionReason
from bridge.errors import Rejected
from bridge.evidence import Evidence, EvidenceReason
from bridge.l1.errors import L1Error
from pegnode.chain.transactions import TransactionRule
from pegnode.mempool.evidence_pool import EvidencePoolReason
from pegnode.mempool.pool import PoolReason
from pegnode.net.allowance import Allowances, SharedAllowances
from pegnode.net.messages import MAX_ITEMS, EvidenceMessage, RegistrationsMessage, TransactionsMessage
from pegnode.net.transport import DropReason, PeerId
from pegnode.service.core import NodeCore
from pegnode.service.inbox import Inbox
from pegnode.service.peers import Peers
from pegnode.service.registry import MAX_REGISTERED, RegistrationRefused
from pegnode.service.unfinal import UnfinalBlock

log = structlog.get_logger()

INBOX_TRANSACTIONS: Final = 4_096
INBOX_TRANSACTION_BYTES: Final = 2_000_000
INBOX_EVIDENCE: Final = 64
INBOX_EVIDENCE_BYTES: Final = 2_500_000
"""Of one peer. What does not fit is not taken, and comes again: transactions are sent again, evidence each makes."""
REGISTRATIONS_AT_ONCE: Final = 64
"""Claim scripts that are registered without a rest, in some 10 ms."""
INBOX_REGISTRATIONS: Final = 2 * MAX_REGISTERED // REGISTRATIONS_AT_ONCE
INBOX_REGISTRATION_BYTES: Final = 2_000_000
"""Of one peer: as many as a member tells of when it comes back."""
MAX_ORPHANS: Final = 100
MAX_ORPHAN_BYTES: Final = 2_000_000
"""Transactions kept whose inputs are not known yet: a peer may be a block ahead."""
ORPHAN_TRIES: Final = 3
"""After so many further blocks nobody waits for the inputs any more."""
MAX_REMEMBERED: Final = 20_000
"""Transactions that are recognized by their bytes when they come again."""
GUEST_REGISTRATIONS_PER_S: Final = 1.0
GUEST_REGISTRATIONS_BURST: Final = 1_000
"""New claim scripts that the guests of one address may register; those beyond are not taken."""
GUEST_GREETINGS_PER_S: Final = 0.1
GUEST_GREETINGS_BURST: Final = 8
"""How many guests of one address that connect are told what waits: who comes again and again has heard it."""
ALL_GUESTS: Final = 5
"""Times as many are for all guests together, so that addresses by the thousand cost no more."""
MEMBER_REGISTRATIONS_PER_S: Final = 5.0
MEMBER_REGISTRATIONS_BURST: Final = MAX_REGISTERED
"""The same for each member, which may have a whole registry to tell of."""
GUESTS: Final = "guests"
"""Who handed in the claim scripts of all guests together."""
RELAY_AGAIN_S: Final = 3.0
RELAY_AGAIN_BYTES: Final = 500_000
"""What still waits is sent again after so long, after twice as long, and so on, oldest first and up to so much at once:
a peer may have had no room. That is soon enough, since a peer that comes back is told of everything; and sent again at
one pace, what waits would fill a narrow link, and keep from it the very block that it waits for."""
EVIDENCE_AGAIN_S: Final = 30.0
EVIDENCE_AGAIN_PIECES: Final = 16
"""Evidence that could have entered a block for so long is sent again, the first of it."""
REST_AFTER_S: Final = 0.005
"""Work of less than this goes on without a rest."""
MAX_REST_S: Final = 1.0
FALSE_FOR_NOW: Final = frozenset(
    {TransactionRule.MISSING_INPUT, TransactionRule.NOT_FINAL, TransactionRule.RELATIVE_LOCK}
)
FALSE_EVERYWHERE: Final = frozenset(
    {
        EvidenceReason.MALFORMED,
        EvidenceReason.NOT_STRIPPED,
        EvidenceReason.TRANSACTION_SIZE_64,
        EvidenceReason.BAD_PROOF,
        EvidenceReason.PROOF_TRUNCATED,
        EvidenceReason.PROOF_LEFTOVER,
        EvidenceReason.NEEDLESS_BRANCH,
        EvidenceReason.DUPLICATED_HASHES,
        EvidenceReason.PADDING_BITS,
        EvidenceReason.WRONG_MERKLE_ROOT,
        EvidenceReason.NOT_EXACTLY_ONE_MATCH,
        EvidenceReason.WRONG_TRANSACTION,
        EvidenceReason.OPENINGS_UNSORTED,
        EvidenceReason.NO_SUCH_OUTPUT,
        EvidenceReason.CLAIM_SCRIPT_TYPE,
        EvidenceReason.WRONG_SCRIPT,
        *TransactionReason,
        *ScriptReason,
        *(
            set(TransactionRule)
            - {TransactionRule.MISSING_INPUT, TransactionRule.NOT_FINAL, TransactionRule.RELATIVE_LOCK}
        ),
    }
)
"""Why something is refused whatever the node's chains hold, so that no honest node passes it on."""


class Relay:
    """Takes transactions, evidence and claim scripts from users and peers, keeps what is good and passes it on."""

    def __init__(self, core: NodeCore, peers: Peers) -> None:
        self._core = core
        self._peers = peers
        self._transactions: Inbox[tuple[bytes, int]] = Inbox(INBOX_TRANSACTIONS, INBOX_TRANSACTION_BYTES)
        self._evidence: Inbox[Evidence] = Inbox(INBOX_EVIDENCE, INBOX_EVIDENCE_BYTES)
        self._registrations: Inbox[tuple[Script, ...]] = Inbox(INBOX_REGISTRATIONS, INBOX_REGISTRATION_BYTES)
        self._orphans: OrderedDict[bytes, tuple[PeerId, int]] = OrderedDict()
        self._remembered: OrderedDict[bytes, Txid] = OrderedDict()
        per_s, burst = GUEST_REGISTRATIONS_PER_S, GUEST_REGISTRATIONS_BURST
        self._guest_registrations: SharedAllowances[str] = SharedAllowances(per_s, burst, ALL_GUESTS, trio.current_time)
        per_s, burst = GUEST_GREETINGS_PER_S, GUEST_GREETINGS_BURST
        self._guest_greetings: SharedAllowances[str] = SharedAllowances(per_s, burst, ALL_GUESTS, trio.current_time)
        per_s, burst = MEMBER_REGISTRATIONS_PER_S, MEMBER_REGISTRATIONS_BURST
        self._member_registrations: Allowances[int] = Allowances(per_s, burst, trio.current_time)
        peers.on_message(TransactionsMessage, self._receive_transactions, from_guests=True)
        peers.on_message(EvidenceMessage, self._receive_evidence, from_guests=True)
        peers.on_message(RegistrationsMessage, self._receive_registrations, from_guests=True)
        peers.on_connected(self._greet)
        peers.on_disconnected(self._forget)
        core.on_final(self._retry_orphans)

    async def run(self) -> None:
        """Judge what comes in, and send again, from time to time, what still waits."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._judge_transactions)
            nursery.start_soon(self._judge_evidence)
            nursery.start_soon(self._judge_registrations)
            nursery.start_soon(self._send_again)
            nursery.start_soon(self._send_evidence_again)

    # Transactions

    def submit_transaction(self, data: bytes) -> Txid:
        """Take a user's transaction; one that waits already is passed on again. Raises Rejected."""
        try:
            return self._take_transaction(data, None)
        except Rejected as rejected:
            if rejected.reason is not PoolReason.ALREADY_WAITING:
                raise
        self._peers.to_all(TransactionsMessage((data,)))
        return Transaction.parse(data).txid

    def _take_transaction(self, data: bytes, sender: PeerId | None) -> Txid:
        core = self._core
        txid = core.mempool.add(data, core.store, core.rules, core.now_ms())
        self._remembered[sha256(data)] = txid
        if len(self._remembered) > MAX_REMEMBERED:
            self._remembered.popitem(last=False)
        self._peers.to_all(TransactionsMessage((data,)), sender)
        core.work_changed()
        return txid

    def _receive_transactions(self, peer: PeerId, message: TransactionsMessage) -> None:
        for data in message.transactions:
            if not self._waits(data) and not self._transactions.put(peer, (data, 0), len(data)):
                log.debug("more transactions than one peer may hand in at once", peer=peer)
                return

    def _waits(self, data: bytes) -> bool:
        txid = self._remembered.get(sha256(data))
        return txid is not None and txid in self._core.mempool

    async def _judge_transactions(self) -> None:
        worked_s = 0.0
        while True:
            peer, (data, tries) = await self._transactions.take()
            started_s = time.perf_counter()
            try:
                self._take_transaction(data, peer)
            except Rejected as rejected:
                self._after_rejection(peer, data, tries, rejected)
            worked_s += time.perf_counter() - started_s
            if worked_s < REST_AFTER_S:
                await trio.lowlevel.checkpoint()
            else:
                await trio.sleep(worked_s)
                worked_s = 0.0

    def _after_rejection(self, peer: PeerId, data: bytes, tries: int, rejected: Rejected) -> None:
        if rejected.reason in FALSE_EVERYWHERE:
            self._condemn(peer, DropReason.FALSE_TRANSACTION, rejected)
        elif rejected.reason is TransactionRule.MISSING_INPUT:
            self._keep_orphan(peer, data, tries)
        elif rejected.reason is not PoolReason.ALREADY_WAITING:
            log.debug("relayed transaction rejected", reason=rejected.reason, detail=rejected.detail)

    def _keep_orphan(self, peer: PeerId, data: bytes, tries: int) -> None:
        if tries < ORPHAN_TRIES:
            self._orphans[data] = (peer, tries)
            while len(self._orphans) > MAX_ORPHANS or sum(map(len, self._orphans)) > MAX_ORPHAN_BYTES:
                self._orphans.popitem(last=False)

    def _retry_orphans(self, _: UnfinalBlock) -> None:
        orphans, self._orphans = self._orphans, OrderedDict()
        for data, (peer, tries) in orphans.items():
            self._transactions.put(peer, (data, tries + 1), len(data))

    async def _send_again(self) -> None:
        looked_ms = self._core.now_ms()
        while True:
            await trio.sleep(RELAY_AGAIN_S)
            before_ms, looked_ms = looked_ms, self._core.now_ms()
            due = (
                entry.transaction.serialize()
                for entry in self._core.mempool.entries()
                if _moments(looked_ms - entry.arrived_ms) > _moments(before_ms - entry.arrived_ms)
            )
            for part in _in_messages(due):
                self._peers.to_members(TransactionsMessage(part))

    # Evidence

    async def submit_evidence(self, evidence: Evidence) -> Txid:
        """Take evidence, once one's own Bitcoin node has confirmed its block; raises Rejected or L1Error."""
        return await self._take_evidence(evidence, None)

    async def _take_evidence(self, evidence: Evidence, sender: PeerId | None) -> Txid:
        core = self._core
        fact = await core.questions.block_fact(evidence.l1_block_hash)
        if fact is None:
            raise Rejected(EvidenceReason.WRONG_BLOCK, "one's own Bitcoin node does not hold its block")
        txid = core.evidence.add(evidence, fact, core.store, core.rules, core.now_ms())
        self._peers.to_members(EvidenceMessage((evidence.encode(),)), sender)
        core.work_changed()
        return txid

    def _receive_evidence(self, peer: PeerId, message: EvidenceMessage) -> None:
        for data in message.evidence:
            if not self._evidence.put(peer, Evidence.decode(data), len(data)):
                log.debug("more evidence than one peer may hand in at once", peer=peer)
                return

    async def _judge_evidence(self) -> None:
        while True:
            peer, evidence = await self._evidence.take()
            started_s = trio.current_time()
            try:
                txid = await self._take_evidence(evidence, peer)
                log.debug("evidence waits", l1_txid=hash_to_hex(txid))
            except Rejected as refused:
                if refused.reason in FALSE_EVERYWHERE:
                    self._condemn(peer, DropReason.FALSE_EVIDENCE, refused)
                elif refused.reason is not EvidencePoolReason.ALREADY_WAITING:
                    log.debug("relayed evidence refused", reason=refused.reason, detail=refused.detail)
            except L1Error as outage:
                log.info("evidence not taken: L1 can't be asked", detail=str(outage))
            # The Bitcoin node's time counts too: those who vote ask it as well.
            await trio.sleep(min(MAX_REST_S, trio.current_time() - started_s))

    async def _send_evidence_again(self) -> None:
        """Members make evidence of what they watch; of a claim by hand nobody may know but who was told of it once."""
        core = self._core
        while True:
            await trio.sleep(EVIDENCE_AGAIN_S)
            before_ms = core.now_ms() - int(EVIDENCE_AGAIN_S * 1000)
            buried = core.watcher.buried(core.rules.params.confirmations)
            chosen = core.evidence.select(core.store.ledger, buried.height, core.rules.params) if buried else []
            waiting = [
                item for item in chosen if (core.evidence.arrived_ms(Txid(sha256d(item.transaction))) or 0) <= before_ms
            ]
            for item in waiting[:EVIDENCE_AGAIN_PIECES]:
                self._peers.to_members(EvidenceMessage((item.encode(),)))

    # Registrations

    def register(self, *claim_scripts: Script) -> list[Script]:
        """Register claim scripts with every member; those that were new here. Raises RegistrationRefused."""
        new = self._core.registry.add(claim_scripts)
        for first in range(0, len(new), MAX_ITEMS):
            self._peers.to_members(RegistrationsMessage(tuple(new[first : first + MAX_ITEMS])))
        return new

    def _receive_registrations(self, peer: PeerId, message: RegistrationsMessage) -> None:
        scripts = tuple(Script(data) for data in message.claim_scripts if Script(data) not in self._core.registry)
        for first in range(0, len(scripts), REGISTRATIONS_AT_ONCE):
            part = scripts[first : first + REGISTRATIONS_AT_ONCE]
            if not self._registrations.put(peer, part, sum(map(len, part))):
                log.debug("more registrations than one peer may hand in at once", peer=peer)
                return

    async def _judge_registrations(self) -> None:
        while True:
            peer, scripts = await self._registrations.take()
            started_s = time.perf_counter()
            try:
                self._take_registrations(peer, [script for script in scripts if script not in self._core.registry])
            except RegistrationRefused as refused:
                self._peers.drop(peer, DropReason.GARBLED_MESSAGE, str(refused))
                self._forget(peer)
            await trio.sleep(time.perf_counter() - started_s)

    def _take_registrations(self, peer: PeerId, unknown: Sequence[Script]) -> None:
        """Register what is not registered, as far as the peer's allowance goes. Raises RegistrationRefused."""
        member = self._peers.member_of(peer)
        if not self._may_register(peer, len(unknown)):
            log.debug("more registrations than may be handed in at once", peer=peer, count=len(unknown))
            return
        new = self._core.registry.add(unknown, GUESTS if member is None else f"member {member}")
        if new and member is None:  # a member tells every other itself, and is who they count it for
            self._peers.to_members(RegistrationsMessage(tuple(new)))

    def _may_register(self, peer: PeerId, count: int) -> bool:
        member = self._peers.member_of(peer)
        if member is not None:
            return self._member_registrations.of(member).take(count)
        return self._guest_registrations.take(self._peers.holder_of(peer), count)

    # Peers

    def _condemn(self, peer: PeerId, reason: DropReason, rejected: Rejected) -> None:
        """Drop a peer that passed on what is false everywhere; the rest of what it handed in is not looked at."""
        self._peers.drop(peer, reason, str(rejected))
        self._forget(peer)

    def _forget(self, peer: PeerId) -> None:
        for inbox in (self._transactions, self._evidence, self._registrations):
            inbox.forget(peer)

    def _greet(self, peer: PeerId) -> None:
        """Tell a new peer what waits, and a member what is registered: it may have been away."""
        is_member = self._peers.member_of(peer) is not None
        if not is_member and not self._guest_greetings.take(self._peers.holder_of(peer), 1):
            log.debug("not told what waits: guests of its address connect too often", peer=peer)
            return
        for part in _in_messages(entry.transaction.serialize() for entry in self._core.mempool.entries()):
            self._peers.send(peer, TransactionsMessage(part))
        if is_member:
            scripts = self._core.registry.claim_scripts()
            for first in range(0, len(scripts), MAX_ITEMS):
                self._peers.send(peer, RegistrationsMessage(scripts[first : first + MAX_ITEMS]))


def _moments(age_ms: int) -> int:
    """How many of the moments at which it is sent again something of this age has passed."""
    return (max(0, age_ms) // int(RELAY_AGAIN_S * 1000)).bit_length()


def _in_messages(items: Iterable[bytes]) -> Iterator[tuple[bytes, ...]]:
    """The first items up to RELAY_AGAIN_BYTES together, in parts that fit one message."""
    part: list[bytes] = []
    total = 0
    for item in items:
        total += len(item)
        if total > RELAY_AGAIN_BYTES:
            break
        if len(part) >= MAX_ITEMS:
            yield tuple(part)
            part = []
        part.append(item)
    if part:
        yield tuple(part)
