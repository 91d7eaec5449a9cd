"""The money of a simulated chain, counted from its blocks and from L1 alone: no sum of the product's is believed.

Theory of operation. `after_block` follows each final block: what entered, what was burned, what closed, and the fund,
as the difference of what L1's transactions spend and pay. Then the terms of the equality are counted from the outputs,
coins and withdrawals themselves, and the ledger's totals must agree. `read_l1` walks the blocks of L1: whatever spends
a coin of the reserve must be a batch that a final block holds, and no withdrawal is paid twice, or paid and refunded.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from bridge.bitcoin.identifiers import OutPoint, Txid
from bridge.bitcoin.transaction import Transaction, TxOut
from bridge.deposits import CLAIM_FLAG, REFUND_FLAG
from bridge.evidence import Evidence
from bridge.state import Withdrawal, WithdrawalStatus
from pegnode.chain.block import Block
from pegnode.chain.state import ChainState, ChainView, TransactionKind
from tests.sim.seams import Violation
from tests.support.fake_l1 import FakeL1


@dataclass(frozen=True, slots=True)
class Promise:
    """What one version of a batch pays. payees: the withdrawals, in the order of its first outputs."""

    payees: tuple[Withdrawal, ...]


class Books:
    """Accounts of one chain, above `l1`."""

    def __init__(self, l1: FakeL1) -> None:
        self._l1 = l1
        self._l1_outputs: dict[OutPoint, TxOut] = {}
        self._l1_height = -1
        self._entered: set[OutPoint] = set()
        self._burns: dict[OutPoint, Withdrawal] = {}
        self._refunded: set[OutPoint] = set()
        self._ended: set[OutPoint] = set()
        self._promises: dict[Txid, Promise] = {}
        self._paid: Counter[OutPoint] = Counter()
        self._fund_less_deficit_sats = 0

    def after_block(self, block: Block, after: ChainState, view: ChainView) -> None:
        """Follow a final block; `view` is the state that it left. Raises Violation."""
        self.read_l1()
        for evidence in block.body.evidence:
            self._take_evidence(evidence, after)
        for applied in after.transactions:
            self._take_transaction(applied.kind, applied.transaction, [utxo.value_sats for _, utxo in applied.spent])
        self._take_withdrawals(after)
        self._take_batches(after)
        self._compare(view)

    def read_l1(self) -> None:
        """Walk the blocks of L1 that are new. Raises Violation."""
        while self._l1_height < self._l1.height:
            self._l1_height += 1
            for transaction in self._l1.blocks[self._l1_height].transactions:
                for vout, output in enumerate(transaction.outputs):
                    self._l1_outputs[transaction.outpoint(vout)] = output
                if any(txin.outpoint in self._entered for txin in transaction.inputs):
                    self._check_payout(transaction)

    def _check_payout(self, transaction: Transaction) -> None:
        """A transaction on L1 that spends the reserve."""
        promise = self._promises.get(transaction.txid)
        if promise is None:
            raise Violation(f"{transaction.txid.hex()[:8]} spends the reserve on L1, and no final block holds it")
        for index, withdrawal in enumerate(promise.payees):
            output, burn = transaction.outputs[index], withdrawal.burn
            self._paid[burn] += 1
            if self._paid[burn] > 1:
                raise Violation(f"the withdrawal {burn} is paid twice on L1")
            if burn in self._refunded:
                raise Violation(f"the withdrawal {burn} is refunded, and paid on L1")
            least_sats = withdrawal.value_sats - withdrawal.max_fee_sats
            if output.script != withdrawal.l1_script or not least_sats <= output.value_sats <= withdrawal.value_sats:
                raise Violation(f"the withdrawal {burn} is paid {output.value_sats} sats, or to another")

    def _take_evidence(self, evidence: Evidence, after: ChainState) -> None:
        transaction = Transaction.parse(evidence.transaction)
        for opening in evidence.openings:
            outpoint = transaction.outpoint(opening.vout)
            self._enter(outpoint)
            # A claim takes out again what it credits.
            self._fund_less_deficit_sats += self._l1_value(outpoint)
        if not evidence.openings:
            self._settle(transaction, after)

    def _settle(self, transaction: Transaction, after: ChainState) -> None:
        """What a batch cost that its payees did not bear was the fund's."""
        promise = self._promises.get(transaction.txid)
        if promise is None:
            raise Violation(f"{transaction.txid.hex()[:8]} settles, and is no batch of a final block")
        inputs_sats = sum(self._l1_value(txin.outpoint) for txin in transaction.inputs)
        fee_sats = inputs_sats - sum(output.value_sats for output in transaction.outputs)
        paid = zip(promise.payees, transaction.outputs, strict=False)
        self._fund_less_deficit_sats -= fee_sats - sum(item.value_sats - output.value_sats for item, output in paid)
        for vout in range(len(promise.payees), len(transaction.outputs)):
            self._enter(transaction.outpoint(vout))
        for withdrawal in promise.payees:
            closed = after.ledger.closed_withdrawals.get(withdrawal.burn)
            if closed is None or closed.status is not WithdrawalStatus.SETTLED:
                raise Violation(f"the withdrawal {withdrawal.burn} is paid, and not settled")

    def _take_transaction(self, kind: TransactionKind, transaction: Transaction, spent_sats: list[int]) -> None:
        """Its fee goes to the fund: what it spends less what it makes."""
        [first, *_] = transaction.inputs
        if kind is TransactionKind.CLAIM:
            self._l1_value(replace(first.outpoint, vout=first.outpoint.vout ^ CLAIM_FLAG))
            spent_sats = []  # counted with the evidence
        elif kind is TransactionKind.REFUND:
            burn = replace(first.outpoint, vout=first.outpoint.vout ^ REFUND_FLAG)
            if burn in self._refunded or self._paid[burn]:
                raise Violation(f"the withdrawal {burn} is refunded twice, or paid and refunded")
            self._refunded.add(burn)
            spent_sats = [self._burns[burn].value_sats]
        made_sats = sum(output.value_sats for output in transaction.outputs)
        if kind is TransactionKind.TRANSFER and made_sats > sum(spent_sats):
            raise Violation(f"{transaction.txid.hex()[:8]} makes more than it spends")
        self._fund_less_deficit_sats += sum(spent_sats) - made_sats

    def _take_withdrawals(self, after: ChainState) -> None:
        """A burn is what a final transaction burned, and what ended stays as it ended."""
        for burn, withdrawal in after.ledger.open_withdrawals.writes.items():
            if withdrawal is not None:
                self._burns.setdefault(burn, withdrawal)
        for burn, withdrawal in after.ledger.closed_withdrawals.writes.items():
            if withdrawal is None or burn in self._ended:
                raise Violation(f"the withdrawal {burn} ends twice")
            self._ended.add(burn)

    def _take_batches(self, after: ChainState) -> None:
        """Each version of a batch, once: what it pays is known from its lineage."""
        for lineage in after.ledger.open_lineages.writes.values():
            for version in lineage.versions if lineage is not None else ():
                payees = tuple(self._burns[burn] for burn in lineage.payees) if lineage is not None else ()
                self._promises.setdefault(version.txid, Promise(payees))

    def _enter(self, outpoint: OutPoint) -> None:
        if outpoint in self._entered:
            raise Violation(f"{outpoint} of L1 enters twice")
        self._entered.add(outpoint)

    def _l1_value(self, outpoint: OutPoint) -> int:
        """What an output of L1 holds."""
        output = self._l1_outputs.get(outpoint)
        if output is None:
            raise Violation(f"L1 has no output {outpoint}")
        return output.value_sats

    def _compare(self, view: ChainView) -> None:
        """The terms, counted one by one; the ledger's totals must be the same."""
        totals = view.ledger.totals
        counted = {
            "reserves": (sum(coin.value_sats for _, coin in view.ledger.coins.items()), totals.reserves_sats),
            "supply": (sum(utxo.value_sats for _, utxo in view.utxos.items()), totals.supply_sats),
            "unsettled": (sum(_open_values(view)), totals.unsettled_sats),
            "fund - deficit": (self._fund_less_deficit_sats, totals.fund_sats - totals.deficit_sats),
        }
        for name, (counted_sats, said_sats) in counted.items():
            if counted_sats != said_sats:
                raise Violation(f"{name}: {counted_sats} sats counted, {said_sats} in the ledger")
        reserves, supply, unsettled, fund_less_deficit = (counted_sats for counted_sats, _ in counted.values())
        if reserves != supply + unsettled + fund_less_deficit:
            raise Violation(f"reserves {reserves} != supply {supply} + owed {unsettled} + fund {fund_less_deficit}")


def _open_values(view: ChainView) -> Iterator[int]:
    return (withdrawal.value_sats for _, withdrawal in view.ledger.open_withdrawals.items())
