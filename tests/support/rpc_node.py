"""A node for tests of its edges: real rules, store and mempool; a fake L1, and no peers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from bridge.bitcoin.addresses import Network, l1_network, sidechain_network
from bridge.bitcoin.identifiers import BlockHash, OutPoint, Script, Txid
from bridge.custody import reserve_script
from bridge.evidence import Evidence
from bridge.l1.answers import ScannedOutput
from bridge.l1.states import L1Health, L1State
from bridge.records import Finding, Record
from bridge.state import Coin as ReserveCoin
from federation.certificate import VoteKind
from federation.record import SignedRecord
from federation.statement import BlockTerms, SignedStatement, SolvencyStatement
from pegnode.audit.report import Audit
from pegnode.audit.reserve import Books, L1Sight, explain
from pegnode.chain.parameters import ChainRules
from pegnode.mempool.pool import Mempool, PoolLimits
from pegnode.rpc.deposit_states import DepositInfo
from pegnode.rpc.jsonrpc import handle
from pegnode.rpc.node_api import (
    ClaimReceipt,
    DroppedPeer,
    PayoutProgress,
    PeerInfo,
    RecordView,
    ResumePlan,
    TransactionVerdict,
)
from pegnode.rpc.server import method_table
from pegnode.status import L1Status, MemberStatus, NodeStatus, SeenVote
from pegnode.storage.store import ChainStore, FinalBlock
from tests.support.chain import START_MS, MemoryChain

VERSION = "1.2.3"
PEERS = (
    PeerInfo("a member", 1, 12.5, 7, "192.0.2.1", "pegnode/1", START_MS),
    PeerInfo("a guest", None, None, None, "", "", START_MS),
)
AT_HAND = MemberStatus(
    member=0,
    connected=True,
    missing_since_ms=None,
    round_trip_ms=12.5,
    last_vote=SeenVote(11, VoteKind.NOTARIZE, START_MS + 1),
    software="pegnode/1",
    final_height=7,
    l1_buried_height=114,
    missed_turn=False,
    equivocations=0,
)
AWAY = MemberStatus(
    member=1,
    connected=False,
    missing_since_ms=START_MS + 2,
    round_trip_ms=None,
    last_vote=None,
    software="",
    final_height=None,
    l1_buried_height=None,
    missed_turn=True,
    equivocations=1,
)
DROPPED = (
    DroppedPeer("a member", 1, "192.0.2.1", "false-signature", False, "of member 2", START_MS + 5, 2),
    DroppedPeer(None, None, "192.0.2.2", "handshake-failed", False, "", START_MS, 40),
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What one JSON-RPC 2.0 request gave. Numbers with a fraction are Decimal."""

    result: Any
    code: int | None
    message: str
    reason: str


class FakeNode:
    """NodeApi over a chain that grows when the test says so."""

    def __init__(self, path: Path) -> None:
        self.chain = MemoryChain()
        self.store = ChainStore.open(path, self.chain.rules)
        self.pool_limits = PoolLimits()
        self.mempool = Mempool(self.pool_limits)
        self.network: Network = sidechain_network("regtest")
        self.l1_network: Network = l1_network("regtest")
        self.current = NodeStatus(
            version=VERSION,
            member=None,
            started_ms=START_MS,
            uptime_ms=61_500,
            view=12,
            leader=0,
            best_known_height=0,
            syncing=False,
            l1=L1Status(L1Health(L1State.OK, START_MS), "/A node:1/", 120, self.chain.l1.anchor(0).hash, 3_000),
            members=(AT_HAND, AWAY),
            halts=(),
            waiting_for=(),
            final_age_ms=7_000,
            timeout_ms=2_000,
            journal=None,
            key_alarm=None,
            stall=None,
        )
        self.found_deposits: tuple[DepositInfo, ...] = ()
        self.asked_scripts: tuple[Script, ...] = ()
        self.claimed: list[tuple[Txid, Script, int | None, BlockHash | None]] = []
        self.progress: dict[Txid, PayoutProgress] = {}
        self.failure: Exception | None = None
        self.stopped = False
        self.lost: list[OutPoint] = []
        self.asked_statements: list[SolvencyStatement | None] = []
        self.asked_findings: list[tuple[Finding, ...]] = []
        self.resume_plan = ResumePlan((), ())
        self.waiting: list[SignedRecord] = []
        anchor = self.chain.l1.anchor(0)
        header = self.chain.header
        terms = BlockTerms(self.rules.chain_id, 0, 0, header.hash, anchor, header.ledger_root, 5, 1, 3, 2, 1)
        self.signed = SignedStatement(SolvencyStatement(terms, anchor, START_MS), ((2, bytes(range(64))),))

    @property
    def rules(self) -> ChainRules:
        return self.chain.rules

    def status(self) -> NodeStatus:
        return replace(self.current, best_known_height=max(self.current.best_known_height, self.height))

    def peers(self) -> tuple[PeerInfo, ...]:
        return PEERS

    def dropped_peers(self) -> tuple[DroppedPeer, ...]:
        return DROPPED

    def try_transaction(self, transaction: bytes) -> TransactionVerdict:
        entry = self.mempool.check(transaction, self.store, self.rules, self.now_ms)
        return TransactionVerdict(entry.transaction.txid, entry.transaction.vsize_vbytes, entry.fee_sats)

    async def submit_transaction(self, transaction: bytes) -> Txid:
        self._fail()
        return self.mempool.add(transaction, self.store, self.rules, self.now_ms)

    async def register_deposits(self, claim_scripts: Sequence[Script]) -> int:
        self._fail()
        new = [script for script in claim_scripts if script not in self.store.deposit_scripts()]
        self.store.keep_deposit_scripts(new, self.now_ms)
        return len(new)

    async def deposits(self, claim_scripts: tuple[Script, ...]) -> tuple[DepositInfo, ...]:
        self._fail()
        self.asked_scripts = claim_scripts
        return self.found_deposits

    async def claim_deposits(
        self, l1_txid: Txid, claim_script: Script, vout: int | None, l1_block: BlockHash | None
    ) -> tuple[ClaimReceipt, ...]:
        self._fail()
        self.claimed.append((l1_txid, claim_script, vout, l1_block))
        return (ClaimReceipt(OutPoint(l1_txid, vout or 0), l1_txid, 1_000),)

    def payout_progress(self, txid: Txid) -> PayoutProgress | None:
        return self.progress.get(txid)

    async def audit(self, scan: bool) -> Audit:
        self._fail()
        tip = self.chain.l1.anchor(self.chain.l1.height)
        coins = {outpoint: coin for outpoint, coin in self.store.ledger.coins.items() if outpoint not in self.lost}
        outputs = {outpoint: self._unspent(coin) for outpoint, coin in coins.items()}
        sight = L1Sight(tip, outputs, {}, frozenset(), {})
        books = Books.take(self.store.ledger, outputs)
        rows = explain(books, sight, self.rules.custody, self.rules.params)
        return Audit(self.store.begin_recount().finish(), tip, True, len(outputs), scan, rows, self.now_ms, ())

    def _unspent(self, coin: ReserveCoin) -> ScannedOutput:
        script = reserve_script(self.rules.custody.policy(coin.epoch), coin.kind, coin.claim_script).script
        return ScannedOutput(coin.outpoint, coin.value_sats, script, coin.l1_height, False)

    async def sign_statement(self, statement: SolvencyStatement | None) -> SignedStatement:
        self._fail()
        self.asked_statements.append(statement)
        return self.signed

    async def plan_resume(self, others: Sequence[Finding]) -> ResumePlan:
        self._fail()
        self.asked_findings.append(tuple(others))
        return self.resume_plan

    async def judge_records(self, records: Sequence[Record]) -> tuple[RecordView, ...]:
        self._fail()
        return tuple(RecordView(record, ("as seen here",), None) for record in records)

    async def sign_record(self, records: Sequence[Record], index: int) -> SignedRecord:
        self._fail()
        return SignedRecord(records[index], ((2, bytes(range(64))),))

    def submit_record(self, signed: SignedRecord) -> None:
        self._fail()
        self.waiting.append(signed)

    def waiting_records(self) -> tuple[SignedRecord, ...]:
        return tuple(self.waiting)

    def request_stop(self) -> None:
        self.stopped = True

    @property
    def height(self) -> int:
        """Of the newest final block."""
        return self.store.tip.header.height

    @property
    def now_ms(self) -> int:
        """As if the newest block had just come."""
        return self.store.tip.header.time_ms + 1

    def make_block(self, *evidence: Evidence) -> None:
        """One more final block, with all that waits."""
        built = self.chain.extend(*self.mempool.select(self.store, 1_000_000), evidence=evidence)
        self.store.commit([FinalBlock(built.state, built.block.encode(), b"a certificate")])
        self.mempool.remove_applied(built.state.transactions)

    def fund(self, *claim_scripts: Script, value_sats: int = 10_000_000) -> None:
        """A deposit for each script, claimed in one more block."""
        evidence = [self.chain.pay_reserve(script, value_sats)[1] for script in claim_scripts]
        self.chain.bury()
        self.make_block(*evidence)

    def close(self) -> None:
        """Free the store."""
        self.store.close()

    async def ask(self, method: str, *params: object, **named: object) -> Answer:
        """Call a method through the whole dispatcher."""
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": named or list(params)}
        reply = await handle(self, method_table(), msgspec.json.encode(body))
        content = msgspec.json.Decoder(float_hook=Decimal).decode(reply.body)
        error = content.get("error", {})
        reason = error.get("data", {}).get("reason", "")
        return Answer(content.get("result"), error.get("code"), error.get("message", ""), reason)

    def _fail(self) -> None:
        if self.failure is not None:
            raise self.failure
