"""From what the watcher saw on L1 to evidence for the sidechain: deposits nobody has to claim, and settled batches."""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

import structlog
import trio

from bridge.bitcoin.identifiers import OutPoint, Script, Txid, hash_to_hex
from bridge.bitcoin.transaction import Transaction
from bridge.custody import CoinKind
from bridge.deposits import ReserveTerms, build_evidence, find_openings
from bridge.errors import MalformedError, Reason, Rejected
from bridge.evidence import Evidence
from bridge.l1.client import L1Client
from bridge.l1.errors import L1Error, L1RpcError
from bridge.state import Anchor
from pegnode.errors import Refusal
from pegnode.mempool.evidence_pool import EvidencePoolReason
from pegnode.service.core import NodeCore
from pegnode.service.relay import Relay

log = structlog.get_logger()

CURRENT_POLL_S: Final = 0.5
"""How often a node that is catching up looks whether it has."""


class ClaimReason(Reason):
    """Why a deposit can't be claimed by hand now."""

    TRANSACTION_UNKNOWN = "claim-transaction-unknown"  # No L1 block that the node knows holds the transaction.
    NO_SUCH_OUTPUT = "claim-no-such-output"  # The transaction has no such output.
    WRONG_SCRIPT = "claim-wrong-script"  # The output does not pay the deposit address of that claim script.
    ALREADY_ENTERED = "claim-already-entered"  # The deposit is claimed already.
    BELOW_MINIMUM = "claim-below-minimum"  # The output holds less than a deposit must.
    TOO_FEW_CONFIRMATIONS = "claim-too-few-confirmations"  # The deposit is not deep enough yet.


class ClaimRefused(Refusal):
    """A deposit that can't be claimed now. reason: ClaimReason; the detail says what is missing."""


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
        self._failed_at: dict[Txid, Anchor | None] = {}
        self._poked = trio.Event()
        core.on_final(lambda _: self.poke())
        core.registry.on_new(self._after_registration)

    def poke(self) -> None:
        """Look again soon; for whoever sees L1 move."""
        self._poked.set()

    def _after_registration(self) -> None:
        self._failed_at.clear()
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
                self._failed_at.clear()  # what the node said before may have been as wrong
                log.info("no evidence made", detail=str(outage))

    async def _make_all(self) -> None:
        """Of each transaction by itself: whoever pays an address must not keep the others' deposits out."""
        watched: dict[Txid, Anchor | None] = dict.fromkeys(self._open_versions())
        watched.update(self._watched_payments())
        l1_tip = self._core.watcher.tip
        self._failed_at = {txid: tip for txid, tip in self._failed_at.items() if tip == l1_tip and txid in watched}
        for txid, block in watched.items():
            if txid in self._core.evidence or txid in self._failed_at:
                continue
            try:
                await self._make(txid, block)
            except (L1RpcError, MalformedError, Rejected) as error:
                self._failed_at[txid] = l1_tip
                log.warning("no evidence made of a transaction", l1_txid=hash_to_hex(txid), detail=str(error))

    async def _make(self, txid: Txid, block: Anchor | None) -> None:
        """Make evidence of one transaction. block: where it is, if that is known."""
        # A payout is looked for however long ago it confirmed: one that nobody found would lock its coins for good.
        block = block or await self._core.questions.block_of(txid)
        if block is None or not self._is_buried(block):
            return
        evidence = await self._evidence(txid, block, self._core.registry.terms)
        if evidence is not None:
            await self._submit(evidence)
            log.info("evidence made", l1_txid=hash_to_hex(txid), openings=len(evidence.openings))

    def _open_versions(self) -> Iterator[Txid]:
        """The recorded versions of open batches."""
        for _, lineage in self._core.store.ledger.open_lineages.items():
            for version in lineage.versions:
                yield version.txid

    def _watched_payments(self) -> Iterator[tuple[Txid, Anchor]]:
        """Transactions, deep enough, that pay a watched script and have not entered."""
        for script in self._core.registry.terms:
            for payment in self._core.watcher.payments_to(script):
                if self._is_buried(payment.l1_block) and self._is_new(payment.outpoint, payment.value_sats):
                    yield payment.outpoint.txid, payment.l1_block

    def _is_buried(self, block: Anchor) -> bool:
        return self._core.watcher.confirmations(block.height) >= self._core.rules.params.confirmations

    def _is_new(self, outpoint: OutPoint, value_sats: int) -> bool:
        ledger = self._core.store.ledger
        number = ledger.versions.get(outpoint.txid)
        settled = number is None or number in ledger.closed_lineages
        return settled and outpoint not in ledger.entered and value_sats >= self._core.rules.params.coin_floor_sats

    async def _evidence(self, txid: Txid, block: Anchor, candidates: Mapping[Script, ReserveTerms]) -> Evidence | None:
        """Evidence of a transaction in an L1 block; None when it has nothing to show yet."""
        data = await self._client.raw_transaction(txid, block.hash)
        if data is None:
            return None
        transaction = Transaction.parse(data)
        params, ledger = self._core.rules.params, self._core.store.ledger
        depth = self._core.watcher.confirmations(block.height)
        if transaction.is_coinbase and depth < params.coinbase_confirmations:
            return None
        number = ledger.versions.get(txid)
        settles = number is not None and number in ledger.open_lineages
        openings = [
            opening
            for opening in find_openings(transaction, candidates)
            if self._is_new(OutPoint(txid, opening.vout), transaction.outputs[opening.vout].value_sats)
        ]
        if not openings and not settles:
            return None
        proof = await self._client.tx_out_proof([txid], block.hash)
        return build_evidence(transaction, proof, block.height, tuple(openings[: params.max_openings]))

    async def claim(self, outpoint: OutPoint, claim_script: Script) -> int:
        """Claim one deposit by hand, from its L1 outpoint and claim script alone; the value in satoshis.

        Raises ClaimRefused, RegistrationRefused, Rejected, or L1Unavailable.
        """
        block = await self._core.questions.block_of(outpoint.txid)
        data = await self._client.raw_transaction(outpoint.txid, block.hash) if block else None
        if block is None or data is None:
            raise ClaimRefused(ClaimReason.TRANSACTION_UNKNOWN, f"{hash_to_hex(outpoint.txid)} is in no known L1 block")
        transaction = Transaction.parse(data)
        value_sats = self._require_claimable(transaction, outpoint, claim_script, block)
        self._relay.register(claim_script)
        reserve = self._core.registry.reserve(claim_script)
        terms = ReserveTerms(CoinKind.DEPOSIT, self._core.registry.policy.epoch, claim_script)
        evidence = await self._evidence(outpoint.txid, block, {reserve.script: terms})
        if evidence is not None:
            await self._submit(evidence)
        return value_sats

    async def _submit(self, evidence: Evidence) -> None:
        """Offer evidence; that it waits already, for somebody may have been faster, is as good. Raises Rejected."""
        try:
            await self._relay.submit_evidence(evidence)
        except Rejected as refused:
            if refused.reason is not EvidencePoolReason.ALREADY_WAITING:
                raise

    def _require_claimable(
        self, transaction: Transaction, outpoint: OutPoint, claim_script: Script, block: Anchor
    ) -> int:
        params = self._core.rules.params
        if outpoint.vout >= len(transaction.outputs):
            raise ClaimRefused(ClaimReason.NO_SUCH_OUTPUT, f"it has {len(transaction.outputs)} outputs")
        output = transaction.outputs[outpoint.vout]
        if output.script != self._core.registry.reserve(claim_script).script:
            raise ClaimRefused(
                ClaimReason.WRONG_SCRIPT, "this output does not pay the deposit address of that claim script"
            )
        if outpoint in self._core.store.ledger.entered:
            raise ClaimRefused(ClaimReason.ALREADY_ENTERED, "this deposit is claimed already")
        if output.value_sats < params.min_deposit_sats:
            raise ClaimRefused(
                ClaimReason.BELOW_MINIMUM,
                f"{output.value_sats} sats; the least deposit is {params.min_deposit_sats} sats",
            )
        needed = params.coinbase_confirmations if transaction.is_coinbase else params.confirmations
        depth = self._core.watcher.confirmations(block.height)
        if depth < needed:
            raise ClaimRefused(ClaimReason.TOO_FEW_CONFIRMATIONS, f"{depth} of {needed} confirmations")
        return output.value_sats
