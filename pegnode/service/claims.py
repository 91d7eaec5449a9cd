"""Claims by hand: from an L1 txid and a claim script alone to evidence, on any node with a Bitcoin node.

The node finds the block, the outputs and their epochs by itself. What is missing for that is told in words.
"""

from dataclasses import dataclass

from bridge.bitcoin.identifiers import BlockHash, OutPoint, Script, Txid, hash_to_hex
from bridge.bitcoin.transaction import Transaction
from bridge.custody import CoinKind
from bridge.deposits import find_openings, may_still_enter
from bridge.errors import MalformedError, Rejected
from bridge.evidence import EvidenceReason, Opening
from bridge.l1.errors import L1RpcError
from bridge.l1.watcher import WINDOW_BLOCKS
from bridge.ledger import may_enter
from bridge.state import Anchor
from pegnode.rpc.deposit_states import ClaimReason, ClaimRefused
from pegnode.service.core import NodeCore
from pegnode.service.evidence_maker import EvidenceMaker
from pegnode.service.relay import Relay


@dataclass(frozen=True, slots=True)
class ClaimedOutput:
    """An L1 output whose evidence waits for a block."""

    outpoint: OutPoint
    value_sats: int


class Claims:
    """Claims deposits by hand."""

    def __init__(self, core: NodeCore, relay: Relay, evidence_maker: EvidenceMaker) -> None:
        self._core = core
        self._relay = relay
        self._evidence_maker = evidence_maker

    async def claim(
        self, l1_txid: Txid, claim_script: Script, vout: int | None, l1_block: BlockHash | None
    ) -> list[ClaimedOutput]:
        """Offer evidence of what an L1 transaction pays to the deposit addresses of `claim_script`; what that is.

        vout: of this output alone.  l1_block: where the transaction is; without it the block is looked for.
        What can't be claimed beside what can is left out.
        Raises ClaimRefused, RegistrationRefused, Rejected or L1Error.
        """
        block = await self._locate(l1_txid, l1_block)
        transaction = await self._transaction(l1_txid, block)
        openings = self._openings(transaction, claim_script, vout)
        openings = await self._claimable(transaction, openings, block)
        self._require_depth(transaction, block)
        self._relay.register(claim_script)
        await self._evidence_maker.prove(transaction, block, openings)
        return [
            ClaimedOutput(OutPoint(l1_txid, opening.vout), transaction.outputs[opening.vout].value_sats)
            for opening in openings
        ]

    async def _locate(self, l1_txid: Txid, l1_block: BlockHash | None) -> Anchor:
        questions = self._core.questions
        if l1_block is not None:
            fact = await questions.block_fact(l1_block)
            if fact is None:
                detail = f"the Bitcoin node's active chain does not hold the block {hash_to_hex(l1_block)}"
                raise ClaimRefused(ClaimReason.BLOCK_UNKNOWN, detail)
            return Anchor(fact.height, l1_block)
        block = await questions.block_of(l1_txid)
        if block is not None:
            return block
        txid_hex = hash_to_hex(l1_txid)
        if await questions.in_mempool(l1_txid):
            needed = self._core.rules.params.confirmations
            detail = f"{txid_hex} waits in the mempool: 0 of {needed} confirmations"
            raise ClaimRefused(ClaimReason.TOO_FEW_CONFIRMATIONS, detail)
        if not await questions.has_transaction_index():
            detail = (
                f"{txid_hex} is in none of the latest {WINDOW_BLOCKS} L1 blocks, and this node's Bitcoin node keeps no "
                "index of older ones: name its block (--l1-block, which any block explorer shows), or ask a node whose "
                "bitcoind runs with txindex=1"
            )
            raise ClaimRefused(ClaimReason.NOT_INDEXED, detail)
        raise ClaimRefused(ClaimReason.TRANSACTION_UNKNOWN, f"{txid_hex} is in no known L1 block")

    async def _transaction(self, l1_txid: Txid, block: Anchor) -> Transaction:
        try:
            data = await self._core.questions.transaction(l1_txid, block)
        except L1RpcError as error:
            detail = f"the Bitcoin node has no block {block.height} ({error.message}): ask a node that is not pruned"
            raise ClaimRefused(ClaimReason.BLOCK_ABSENT, detail) from error
        if data is None:
            detail = f"the L1 block {hash_to_hex(block.hash)} does not hold {hash_to_hex(l1_txid)}"
            raise ClaimRefused(ClaimReason.TRANSACTION_UNKNOWN, detail)
        try:
            return Transaction.parse(data)
        except (Rejected, MalformedError) as error:
            raise Rejected(EvidenceReason.MALFORMED, str(error)) from error

    def _openings(self, transaction: Transaction, claim_script: Script, vout: int | None) -> tuple[Opening, ...]:
        """Those of the outputs that pay the claim script, or of the one that is named."""
        if vout is not None and vout >= len(transaction.outputs):
            raise ClaimRefused(ClaimReason.NO_SUCH_OUTPUT, f"it has {len(transaction.outputs)} outputs")
        found = find_openings(transaction, self._core.registry.terms_of(claim_script))
        openings = tuple(opening for opening in found if vout in (None, opening.vout))
        if openings:
            return openings
        which = "none of its outputs pays" if vout is None else f"output {vout} does not pay"
        detail = f"{which} the deposit address, of any epoch, of that claim script{self._others(transaction)}"
        raise ClaimRefused(ClaimReason.WRONG_SCRIPT, detail)

    def _others(self, transaction: Transaction) -> str:
        """What else of the reserve the transaction pays, as far as this node can tell."""
        known = {opening.kind is CoinKind.DEPOSIT for opening in find_openings(transaction, self._core.registry.terms)}
        if known == {False}:
            return "; it pays the federation's own address, which is a gift to its fund"
        if known:
            return "; it pays the deposit address of another claim script"
        return "; is it the address of another federation, or of another wallet?"

    def _require_depth(self, transaction: Transaction, block: Anchor) -> None:
        params = self._core.rules.params
        needed = params.coinbase_confirmations if transaction.is_coinbase else params.confirmations
        depth = self._core.watcher.confirmations(block.height)
        if depth < needed:
            raise ClaimRefused(ClaimReason.TOO_FEW_CONFIRMATIONS, f"{depth} of {needed} confirmations")

    async def _claimable(
        self, transaction: Transaction, openings: tuple[Opening, ...], block: Anchor
    ) -> tuple[Opening, ...]:
        """Those that can be claimed. Raises ClaimRefused if none can, for the first one's reason."""
        txid = transaction.txid
        spent = await self._core.questions.spent([OutPoint(txid, opening.vout) for opening in openings])
        refusals: list[ClaimRefused] = []
        claimable: list[Opening] = []
        for opening in openings:
            outpoint, value_sats = OutPoint(txid, opening.vout), transaction.outputs[opening.vout].value_sats
            refusal = self._refusal(outpoint, value_sats, block.height, is_spent=outpoint in spent)
            if refusal is None:
                claimable.append(opening)
            else:
                refusals.append(refusal)
        if not claimable:
            raise refusals[0]
        return tuple(claimable)

    def _refusal(self, outpoint: OutPoint, value_sats: int, l1_height: int, *, is_spent: bool) -> ClaimRefused | None:
        ledger, params = self._core.store.ledger, self._core.rules.params
        anchor_height, least_sats = ledger.totals.anchor.height, params.min_deposit_sats
        if not may_enter(ledger, outpoint):
            if value_sats < least_sats:
                detail = f"{value_sats} sats, below the least deposit of {least_sats} sats, went to the fund"
                return ClaimRefused(ClaimReason.BELOW_MINIMUM, detail)
            return ClaimRefused(ClaimReason.ALREADY_ENTERED, "this deposit is claimed already")
        if value_sats < least_sats:
            detail = f"{value_sats} sats; the least deposit is {least_sats} sats, and what is less credits nobody"
            return ClaimRefused(ClaimReason.BELOW_MINIMUM, detail)
        if is_spent:
            return ClaimRefused(ClaimReason.SPENT, "spent on L1 already, as the recovery keys may with an old output")
        if not may_still_enter(ledger, outpoint, l1_height, anchor_height, params):
            lock_blocks = params.recovery_timelock_blocks
            detail = (
                f"paid in L1 block {l1_height}, {anchor_height - l1_height} blocks ago, and credited within "
                f"{(lock_blocks - 1) // 2} only; after {lock_blocks}, recovery keys can spend it: ask who holds them"
            )
            return ClaimRefused(ClaimReason.TOO_OLD, detail)
        return None
