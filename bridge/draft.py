"""A batch whose coins and payees are given: who bears its fee, and what change is left.      (pure)

The payees share the fee equally, rounded up, but none bears more than its max_fee. What they don't bear comes out of
the change, and is the fund's. Change is cut in as many parts as are due, and in fewer where they would be too small.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from bridge.batch_form import (
    change_outputs,
    change_parts,
    change_script,
    coin_weight,
    cut,
    output_weight,
    unsigned_transaction,
    vsize_vbytes,
)
from bridge.bitcoin import amounts
from bridge.bitcoin.identifiers import Txid
from bridge.bitcoin.transaction import Transaction, TxOut
from bridge.custody import Custody
from bridge.ledger import LedgerView
from bridge.lineages import PlannedBatch
from bridge.params import PegParams
from bridge.state import BatchKind, BatchVersion, Coin, Withdrawal


@dataclass(frozen=True, slots=True)
class Draft:
    """shares_sats: what each payee bears, in order.  cost_sats: what else the fee has.  change_sats: of each part.

    spare_sats: of the cost, what the feerate does not ask for: it would be too little for change.
    size_vbytes: once it is signed.
    """

    coins: tuple[Coin, ...]
    payees: tuple[Withdrawal, ...]
    feerate_sat_kvb: int
    shares_sats: tuple[int, ...]
    cost_sats: int
    spare_sats: int
    change_sats: tuple[int, ...]
    size_vbytes: int

    @property
    def fee_sats(self) -> int:
        """The whole fee."""
        return sum(self.shares_sats) + self.cost_sats

    def transaction(self, custody: Custody) -> Transaction:
        """The unsigned transaction, with change to the newest epoch's script."""
        paid = zip(self.payees, self.shares_sats, strict=True)
        outputs = tuple(TxOut(payee.value_sats - share_sats, payee.l1_script) for payee, share_sats in paid)
        return unsigned_transaction(self.coins, outputs + change_outputs(self.change_sats, custody))

    def planned(
        self, kind: BatchKind, replaces: Txid | None, fund_part_sats: int, view: LedgerView, custody: Custody
    ) -> PlannedBatch:
        """The batch, with as much of the cost as the fund pays."""
        transaction = self.transaction(custody)
        version = BatchVersion(
            txid=transaction.txid,
            transaction=transaction.serialize_stripped(),
            feerate_sat_kvb=self.feerate_sat_kvb,
            fee_sats=self.fee_sats,
            fund_part_sats=fund_part_sats,
            epoch=custody.newest.epoch,
            anchor_height=view.totals.anchor.height,
        )
        inputs = tuple(coin.outpoint for coin in self.coins)
        return PlannedBatch(kind, replaces, inputs, tuple(payee.burn for payee in self.payees), version)


class Drafting:
    """Drafts for the same payees at one feerate. coin_count: how many coins the ledger has, locked ones included."""

    def __init__(
        self,
        payees: Sequence[Withdrawal],
        feerate_sat_kvb: int,
        coin_count: int,
        custody: Custody,
        params: PegParams,
    ) -> None:
        self._payees = tuple(payees)
        self._feerate_sat_kvb = feerate_sat_kvb
        self._coin_count = coin_count
        self._custody = custody
        self._params = params
        self._owed_sats = sum(payee.value_sats for payee in payees)
        self._payee_weights = sum(output_weight(len(payee.l1_script)) for payee in payees)
        self._change_weight = output_weight(len(change_script(custody)))

    def draft(self, coins: Sequence[Coin], *, split: bool = True) -> Draft | None:
        """The batch that spends these coins, or None when they don't hold payees, cost, and change or none at all.

        Without payees there must be change, for a transaction has an output.
        split: whether the change may be cut.
        """
        left_sats = self._left_sats(coins)
        if left_sats < 0:
            return None
        wanted = change_parts(left_sats, self._coin_count - len(coins), self._params) if split else 1
        drafts = (self.with_parts(coins, parts) for parts in range(wanted, -1, -1))
        return next((draft for draft in drafts if draft is not None and draft.spare_sats == 0), None)

    def with_parts(self, coins: Sequence[Coin], parts: int) -> Draft | None:
        """The batch that spends these coins and has so many parts of change; None when they don't hold all of that.

        With none, the fee is given what would be too little for change; but without payees there must be some.
        """
        if parts == 0 and not self._payees:
            return None
        shares_sats, cost_sats, size_vbytes = self._fee(coins, parts)
        change_sats = self._left_sats(coins) - cost_sats
        if change_sats < self._least_change_sats(parts):
            return None
        spare_sats = 0 if parts else change_sats
        return Draft(
            coins=tuple(coins),
            payees=self._payees,
            feerate_sat_kvb=self._feerate_sat_kvb,
            shares_sats=shares_sats,
            cost_sats=cost_sats + spare_sats,
            spare_sats=spare_sats,
            change_sats=cut(change_sats, parts),
            size_vbytes=size_vbytes,
        )

    def _least_change_sats(self, parts: int) -> int:
        """The only part is a coin of the ledger, one of several as large as a deposit."""
        return self._params.coin_floor_sats if parts == 1 else parts * self._params.min_deposit_sats

    def _left_sats(self, coins: Sequence[Coin]) -> int:
        return sum(coin.value_sats for coin in coins) - self._owed_sats

    def _fee(self, coins: Sequence[Coin], parts: int) -> tuple[tuple[int, ...], int, int]:
        """What each payee bears of the fee with so many parts of change, what is left of it, and the signed size."""
        size_vbytes = vsize_vbytes(
            sum(coin_weight(coin, self._custody) for coin in coins),
            len(coins),
            self._payee_weights + parts * self._change_weight,
            len(self._payees) + parts,
        )
        asked_sats = amounts.fee_sats(size_vbytes, self._feerate_sat_kvb)
        share_sats = -(-asked_sats // len(self._payees)) if self._payees else 0
        shares_sats = tuple(min(share_sats, payee.max_fee_sats) for payee in self._payees)
        return shares_sats, max(0, asked_sats - sum(shares_sats)), size_vbytes
