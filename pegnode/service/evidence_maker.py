"""From what the watcher saw on L1 to evidence for the sidechain: deposits nobody has to claim, and settled batches."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import structlog
import trio

from bridge.bitcoin.identifiers import OutPoint, Txid, hash_to_hex
from bridge.bitcoin.transaction import Transaction
from bridge.deposits import build_evidence, find_openings, may_still_enter
from bridge.errors import MalformedError, Rejected
from bridge.evidence import Opening
from bridge.l1.client import L1Client
from bridge.l1.errors import L1Error, L1RpcError
from bridge.l1.watcher import Payment
from bridge.state import Anchor
from pegnode.mempool.evidence_pool import EvidencePoolReason
from pegnode.service.core import NodeCore
from pegnode.service.relay import Relay

log = structlog.get_logger()

CURRENT_POLL_S: Final = 0.5
"""How often a node that is catching up looks whether it has."""


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why no evidence could be made of a transaction while L1's tip was `l1_tip`."""

    l1_tip: Anchor | None
    detail: str


class EvidenceMaker:
    """Makes evidence of every watched transaction that is deep enough, whenever L1, the chain or the registry moved.

    is_current: whether this node has caught up with the chain. Until then nothing is made: in an old ledger, the
    change of a batch that a later block records looks like a donation.
    """

    def __init__(self, core: NodeCore, client: L1Client, relay: Relay, is_current: Callable[[], bool]) -> None:
        self._core = core
        self._client = client
        self._relay = relay
        self._is_current = is_current
        self._failures: dict[Txid, _Failure] = {}
        self._poked = trio.Event()
        core.on_final(lambda _: self.poke())
        core.registry.on_new(self._after_registration)

    def poke(self) -> None:
        """Look again soon; for whoever sees L1 move."""
        self._poked.set()

    def failure(self, txid: Txid) -> str | None:
        """Why no evidence could be made of a transaction, for people; None if none was tried in vain."""
        failure = self._failures.get(txid)
        return failure.detail if failure else None

    def _after_registration(self) -> None:
        self._failures.clear()
        self.poke()

    async def run(self) -> None:
        """Make evidence after each poke, for ever. An outage of L1 ends one attempt, not the task."""
        while True:
            await self._poked.wait()
            if not self._is_current():
                await trio.sleep(CURRENT_POLL_S)
                continue
            self._poked = trio.Event()
            try:
                await self._make_all()
            except L1Error as outage:
                self._failures.clear()  # what the node said before may have been as wrong
                log.info("no evidence made", detail=str(outage))

    async def _make_all(self) -> None:
        """Of each transaction by itself: whoever pays an address must not keep the others' deposits out."""
        watched: dict[Txid, Anchor | None] = dict.fromkeys(self._open_versions())
        watched.update(self._watched_payments())
        l1_tip = self._core.watcher.tip
        self._failures = {
            txid: failure for txid, failure in self._failures.items() if failure.l1_tip == l1_tip and txid in watched
        }
        for txid, block in watched.items():
            if txid in self._failures or (block is None and txid in self._core.evidence):
                continue
            try:
                await self._make(txid, block)
            except (L1RpcError, MalformedError, Rejected) as error:
                self._failures[txid] = _Failure(l1_tip, str(error))
                log.warning("no evidence made of a transaction", l1_txid=hash_to_hex(txid), detail=str(error))

    async def _make(self, txid: Txid, block: Anchor | None) -> None:
        """Make evidence of one transaction. block: where it is, if that is known."""
        # A payout is looked for however long ago it confirmed: one that nobody found would lock its coins for good.
        block = block or await self._core.questions.block_of(txid)
        if block is None or not self._is_buried(block):
            return
        data = await self._client.raw_transaction(txid, block.hash)
        if data is None:
            return
        transaction = Transaction.parse(data)
        if transaction.is_coinbase and not self._is_mature(block):
            return
        ledger = self._core.store.ledger
        number = ledger.versions.get(txid)
        if number is not None and number in ledger.open_lineages:
            await self.prove(transaction, block, ())
            return
        openings = find_openings(transaction, self._core.registry.terms)
        openings = tuple(item for item in openings if self._is_new(txid, item, transaction, block))
        spent = await self._core.questions.spent([OutPoint(txid, opening.vout) for opening in openings])
        openings = tuple(item for item in openings if OutPoint(txid, item.vout) not in spent)
        if openings:
            await self.prove(transaction, block, openings)
        elif spent:
            self._failures[txid] = _Failure(self._core.watcher.tip, "its outputs are spent on L1")

    async def prove(self, transaction: Transaction, block: Anchor, openings: Sequence[Opening]) -> None:
        """Offer evidence of a transaction, in pieces that a block may hold; none to open: it settles a batch.

        That a piece waits already, for somebody may have been faster, is as good. Raises Rejected or L1Error.
        """
        proof = await self._client.tx_out_proof([transaction.txid], block.hash)
        size = self._core.rules.params.max_openings
        for first in range(0, max(1, len(openings)), size):
            part = tuple(openings[first : first + size])
            try:
                await self._relay.submit_evidence(build_evidence(transaction, proof, block.height, part))
            except Rejected as refused:
                if refused.reason is not EvidencePoolReason.ALREADY_WAITING:
                    raise
        log.info("evidence made", l1_txid=hash_to_hex(transaction.txid), openings=len(openings))

    def _open_versions(self) -> Iterator[Txid]:
        """The recorded versions of open batches."""
        for _, lineage in self._core.store.ledger.open_lineages.items():
            for version in lineage.versions:
                yield version.txid

    def _watched_payments(self) -> Iterator[tuple[Txid, Anchor]]:
        """Transactions, deep enough, that pay a watched script what neither has entered nor waits, lowest first."""
        waiting = self._core.evidence.positions()
        found = {
            payment.outpoint.txid: payment.l1_block
            for script in self._core.registry.terms
            for payment in self._core.watcher.payments_to(script)
            if self._is_buried(payment.l1_block)
            and self._may_enter(payment.outpoint, payment.value_sats, payment.l1_block)
            and not (payment.outpoint in waiting and self._is_proven_in(payment))
        }
        yield from sorted(found.items(), key=lambda item: (item[1].height, item[0]))

    def _is_proven_in(self, payment: Payment) -> bool:
        """Whether the evidence that waits about a payment's transaction is of the block that holds it now."""
        evidence = self._core.evidence.get(payment.outpoint.txid)
        return evidence is not None and evidence.l1_block_hash == payment.l1_block.hash

    def _is_buried(self, block: Anchor) -> bool:
        return self._core.watcher.confirmations(block.height) >= self._core.rules.params.confirmations

    def _is_mature(self, block: Anchor) -> bool:
        return self._core.watcher.confirmations(block.height) >= self._core.rules.params.coinbase_confirmations

    def _is_new(self, txid: Txid, opening: Opening, transaction: Transaction, block: Anchor) -> bool:
        return self._may_enter(OutPoint(txid, opening.vout), transaction.outputs[opening.vout].value_sats, block)

    def _may_enter(self, outpoint: OutPoint, value_sats: int, block: Anchor) -> bool:
        ledger, params = self._core.store.ledger, self._core.rules.params
        number = ledger.versions.get(outpoint.txid)
        settled = number is None or number in ledger.closed_lineages
        in_time = may_still_enter(ledger, outpoint, block.height, ledger.totals.anchor.height, params)
        return settled and in_time and value_sats >= params.coin_floor_sats
