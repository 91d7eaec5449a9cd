"""The first version of a payout: whom it pays, from which coins, at whose cost.      (pure)

Theory of operation
    1. Of the pending burns, those count whose max_fee reaches the least share that any payout has at this feerate.
    2. They are taken by age, at most `batch_max_payees`. One that the free coins can't cover together with those
       before it is passed over; the coins that count are the `batch_max_first_inputs` largest.
    3. Coins are taken from the largest (of equal ones, the lesser outpoint) until they leave no change, or change of
       at least `coin_floor`, since no smaller output may enter the ledger. If they run out before that, what remains
       goes to the fee as the fund's part; if the fund can't bear it, the youngest burn is left out.
    4. The payees share the fee equally, rounded up. While the share is above the max_fee of some, the one of them with
       the greatest value (of equal ones, the youngest) drops out for good, and 2 to 4 are repeated. One at a time:
       a large burn may need so many coins that all drop out together, and without it nobody else has to.
    5. The payout is due with `batch_min_payouts` survivors, or when the oldest of them has waited for
       `batch_max_wait_anchors`.

    Outputs are the payees in order of age, then change: in equal parts while the ledger has fewer than
    `change_target_coins` coins, so that a later batch need not wait for this one's change.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate

from bridge.batch_form import (
    by_value,
    change_parts,
    change_script,
    coin_weight,
    cut,
    least_share_sats,
    output_weight,
    vsize_vbytes,
)
from bridge.bitcoin.amounts import fee_sats
from bridge.custody import Custody
from bridge.draft import Draft
from bridge.ledger import LedgerView
from bridge.lineages import PlannedBatch, free_fund_sats
from bridge.params import PegParams
from bridge.state import BatchKind, Withdrawal, WithdrawalStatus


def payout_due(view: LedgerView, params: PegParams) -> bool:
    """Whether a payout may be due at some feerate: `plan_payout` counts the burns that survive at the one it is given.

    That none is open, the caller has seen.
    """
    return _is_due(_pending(view), view, params)


def plan_payout(view: LedgerView, feerate_sat_kvb: int, custody: Custody, params: PegParams) -> PlannedBatch | None:
    """The payout that is due on top of `view` at this feerate, or None."""
    pending = _pending(view)
    if not _is_due(pending, view, params):
        return None
    draft = Funding(view, custody, params, feerate_sat_kvb).select(pending)
    if draft is None or not _is_due(draft.payees, view, params):
        return None
    return draft.planned(BatchKind.PAYOUT, None, draft.cost_sats, view, custody)


class Funding:
    """What a payout may spend, and the rule by which payees and coins are chosen from it."""

    def __init__(self, view: LedgerView, custody: Custody, params: PegParams, feerate_sat_kvb: int) -> None:
        coins = [coin for _, coin in view.coins.items()]
        self._coins = by_value(coin for coin in coins if coin.lineage is None)[: params.batch_max_first_inputs]
        self._coin_sums = list(accumulate(coin.value_sats for coin in self._coins))
        self._input_weights = [0, *accumulate(coin_weight(coin, custody) for coin in self._coins)]
        self._coin_count = len(coins)
        self._change_weight = output_weight(len(change_script(custody)))
        self._fund_limit_sats = min(free_fund_sats(view), params.lineage_fee_cap_sats)
        self._params = params
        self._feerate_sat_kvb = feerate_sat_kvb

    def select(self, pending: Sequence[Withdrawal]) -> Draft | None:
        """The stable selection from `pending`, which is in order of age; None if nobody can be paid.

        Each payee bears the same share. The cost is what the change would have been, where that is too little.
        """
        least_sats = least_share_sats(self._params, self._feerate_sat_kvb)
        waiting = {withdrawal.number: withdrawal for withdrawal in pending if withdrawal.max_fee_sats >= least_sats}
        while True:
            payees, funds = self._payees(waiting.values())
            if funds is None:
                return None
            coin_count, change_sats, fund_part_sats = funds
            parts = change_parts(change_sats, self._coin_count - coin_count, self._params) if change_sats else 0
            change = cut(change_sats, parts)
            size_vbytes = self._size_vbytes(payees, coin_count, len(change))
            share_sats = -(-fee_sats(size_vbytes, self._feerate_sat_kvb) // len(payees))
            low = [payee for payee in payees if payee.max_fee_sats < share_sats]
            if not low:
                return Draft(
                    coins=tuple(self._coins[:coin_count]),
                    payees=tuple(payees),
                    feerate_sat_kvb=self._feerate_sat_kvb,
                    shares_sats=(share_sats,) * len(payees),
                    cost_sats=fund_part_sats,
                    spare_sats=fund_part_sats,
                    change_sats=change,
                    size_vbytes=size_vbytes,
                )
            del waiting[max(low, key=lambda payee: (payee.value_sats, payee.number)).number]

    def _payees(self, waiting: Iterable[Withdrawal]) -> tuple[list[Withdrawal], tuple[int, int, int] | None]:
        """The oldest burns that the coins cover together, and how they do; see `_funds`."""
        left_sats = self._coin_sums[-1] if self._coin_sums else 0
        payees: list[Withdrawal] = []
        for withdrawal in waiting:
            if withdrawal.value_sats <= left_sats:
                payees.append(withdrawal)
                left_sats -= withdrawal.value_sats
                if len(payees) == self._params.batch_max_payees:
                    break
        total_sats = sum(payee.value_sats for payee in payees)
        while payees:
            funds = self._funds(total_sats)
            if funds is not None:
                return payees, funds
            total_sats -= payees.pop().value_sats
        return [], None

    def _funds(self, total_sats: int) -> tuple[int, int, int] | None:
        """How many coins to take for `total_sats`, the change, and the fund's part; None if that can't be."""
        floor_sats = self._params.coin_floor_sats
        for index in range(bisect_left(self._coin_sums, total_sats), len(self._coin_sums)):
            change_sats = self._coin_sums[index] - total_sats
            if change_sats == 0 or change_sats >= floor_sats:
                return index + 1, change_sats, 0
        remainder_sats = self._coin_sums[-1] - total_sats
        return (len(self._coins), 0, remainder_sats) if remainder_sats <= self._fund_limit_sats else None

    def _size_vbytes(self, payees: Sequence[Withdrawal], coin_count: int, change_count: int) -> int:
        """Once it is signed."""
        output_weights = sum(output_weight(len(payee.l1_script)) for payee in payees)
        output_weights += change_count * self._change_weight
        return vsize_vbytes(self._input_weights[coin_count], coin_count, output_weights, len(payees) + change_count)


def _pending(view: LedgerView) -> list[Withdrawal]:
    """Burns that wait, the oldest first."""
    waiting = [entry for _, entry in view.open_withdrawals.items() if entry.status is WithdrawalStatus.PENDING]
    return sorted(waiting, key=lambda withdrawal: withdrawal.number)


def _is_due(payees: Sequence[Withdrawal], view: LedgerView, params: PegParams) -> bool:
    if not payees:
        return False
    waited_anchors = view.totals.anchor.height - payees[0].burned_at_anchor
    return len(payees) >= params.batch_min_payouts or waited_anchors >= params.batch_max_wait_anchors
