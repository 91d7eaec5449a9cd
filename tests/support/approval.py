"""A recorded payout and what one member's Bitcoin node says, for tests of the signer's laws that spoil one of them."""

from dataclasses import dataclass, replace

import pytest

from bridge.bitcoin.identifiers import OutPoint
from bridge.bitcoin.transaction import Transaction, TxOut
from bridge.ledger import Ledger
from bridge.state import BatchVersion, Coin, Lineage
from federation.approval import ApprovedBatch, approve_batch
from federation.refusal import RefusalReason, SigningRefused
from federation.reserve_law import ReserveFacts
from tests.support.peg import PARAMS
from tests.support.signers import federation, honest_facts, ledger_with_payout

FEDERATION = federation(4)


@dataclass
class Case:
    """A recorded payout and what this member's node says; tests spoil one or the other."""

    ledger: Ledger
    version: BatchVersion
    facts: ReserveFacts

    @property
    def lineage(self) -> Lineage:
        """The lineage of the payout."""
        lineage = self.ledger.open_lineages.get(0)
        assert lineage is not None
        return lineage

    @property
    def transaction(self) -> Transaction:
        """The recorded transaction."""
        return Transaction.parse(self.version.transaction)

    def approve(self) -> ApprovedBatch:
        """The verdict."""
        return approve_batch(self.ledger, self.version.txid, self.facts, FEDERATION.custody, PARAMS)

    def record(self, transaction: Transaction, **changes: object) -> None:
        """Have the ledger say that `transaction` was recorded, fee and fund's part as it has them unless changed."""
        coins = [self.ledger.coins.get(txin.outpoint) for txin in transaction.inputs]
        spent_sats = sum(coin.value_sats for coin in coins if coin is not None)
        self.amend(
            transaction=transaction.serialize(),
            txid=transaction.txid,
            fee_sats=spent_sats - sum(output.value_sats for output in transaction.outputs),
        )
        self.amend(**changes)

    def amend(self, **changes: object) -> None:
        """Change fields of the recorded version."""
        self.version = replace(self.version, **changes)  # type: ignore[arg-type]
        self.ledger.versions.put(self.version.txid, 0)
        self.ledger.open_lineages.put(0, replace(self.lineage, versions=(self.version,)))

    def locked(self, position: int = 0) -> Coin:
        """A coin that the batch spends."""
        coin = self.ledger.coins.get(self.lineage.inputs[position])
        assert coin is not None
        return coin

    def other(self) -> Coin:
        """A coin that it does not spend."""
        return next(coin for _, coin in self.ledger.coins.items() if coin.lineage is None)

    def age(self, outpoint: OutPoint, part: int, of: int) -> None:
        """Have a coin's block be so old that this part of the recovery's wait has passed."""
        coin = self.ledger.coins.get(outpoint)
        assert coin is not None
        l1_height = self.ledger.totals.anchor.height - part * PARAMS.recovery_timelock_blocks // of
        self.ledger.coins.put(outpoint, replace(coin, l1_height=l1_height))

    def report(self, coin: OutPoint, found: TxOut | None) -> None:
        """Have the own node say something else of one coin."""
        self.facts = replace(self.facts, unspent={**self.facts.unspent, coin: found})


def payout_case() -> Case:
    """A payout that is approved as it stands."""
    ledger, version = ledger_with_payout(FEDERATION)
    return Case(ledger, version, honest_facts(ledger, FEDERATION.custody))


def with_output(transaction: Transaction, index: int, **changes: object) -> Transaction:
    """The transaction with fields of one output changed."""
    outputs = list(transaction.outputs)
    outputs[index] = replace(outputs[index], **changes)  # type: ignore[arg-type]
    return replace(transaction, outputs=tuple(outputs))


def shifted(transaction: Transaction, source: int, target: int, sats: int) -> Transaction:
    """Move value between two outputs."""
    moved = with_output(transaction, source, value_sats=transaction.outputs[source].value_sats - sats)
    return with_output(moved, target, value_sats=transaction.outputs[target].value_sats + sats)


def assert_refused(case: Case, reason: RefusalReason) -> None:
    """See that the member does not sign, for this reason."""
    with pytest.raises(SigningRefused) as caught:
        case.approve()
    assert caught.value.reason is reason
