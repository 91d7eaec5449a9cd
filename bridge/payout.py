"""The first version of a payout: whom it pays, from which coins, at whose cost.      (pure)

Theory of operation
    1. Of the pending burns, those count whose max_fee reaches the least share that any payout has at this feerate.
    2. They are taken by age, at most `batch_max_payees`. One that the free coins can't cover together with those
       before it is passed over; the coins that count are the `batch_max_first_inputs` largest.
    3. Coins are taken from the largest (of equal ones, the lesser outpoint) until they leave no change, or change of
       at least `coin_floor`, since no smaller output may enter the ledger. If they run out before that, what remains
       goes to the fee as the fund's part; if the fund can't bear it, the youngest burn is left out.
    4. The payees share the fee equally, rounded up. While the share is above the max_fee of some, the one of them with
       the greatest value (of equal ones, the youngest) drops out for good, younger burns are taken in its place, and
       3 and 4 are repeated. One at a time: a large burn may need so many coins that all drop out together, and
       without it nobody else has to. If any did, all of this begins anew from 2 without them, for what was passed
       over or left out may be paid now.
    5. The payout is due with `batch_min_payouts` survivors, or when the oldest of them has waited for
       `batch_max_wait_anchors`.

    Outputs are the payees in order of age, then change: in equal parts while the ledger has fewer than
    `change_target_coins` coins, so that a later batch need not wait for this one's change.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from heapq import heappop, heappush
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

    def select(self, pending: Iterable[Withdrawal]) -> Draft | None:
        """The stable selection from `pending`, which is in order of age; None if nobody can be paid.

        Each payee bears the same share. The cost is what the change would have been, where that is too little.
        """
        least_sats = least_share_sats(self._params, self._feerate_sat_kvb)
        waiting = [withdrawal for withdrawal in pending if withdrawal.max_fee_sats >= least_sats]
        while True:
            draft, dropped = self._select_once(waiting)
            if not dropped:
                return draft
            waiting = [withdrawal for withdrawal in waiting if withdrawal.number not in dropped]

    def _select_once(self, waiting: Iterable[Withdrawal]) -> tuple[Draft | None, set[int]]:
        """Those of `waiting` who are paid if whoever was passed over is not looked at again; and who dropped out."""
        source, payees, dropped = iter(waiting), _Payees(), set[int]()
        while True:
            self._fill(payees, source)
            funds = self._cover(payees)
            if funds is None:
                return None, dropped
            coin_count, change_sats, fund_part_sats = funds
            parts = change_parts(change_sats, self._coin_count - coin_count, self._params) if change_sats else 0
            size_vbytes = self._size_vbytes(payees, coin_count, parts)
            share_sats = -(-fee_sats(size_vbytes, self._feerate_sat_kvb) // len(payees))
            low = payees.largest_below(share_sats)
            if low is None:
                break
            payees.remove(low)
            dropped.add(low.number)
        draft = Draft(
            coins=tuple(self._coins[:coin_count]),
            payees=tuple(payees),
            feerate_sat_kvb=self._feerate_sat_kvb,
            shares_sats=(share_sats,) * len(payees),
            cost_sats=fund_part_sats,
            spare_sats=fund_part_sats,
            change_sats=cut(change_sats, parts),
            size_vbytes=size_vbytes,
        )
        return draft, dropped

    def _fill(self, payees: "_Payees", source: Iterable[Withdrawal]) -> None:
        """Take the next ones that the coins cover together with `payees`, until there are as many as there may be."""
        most, held_sats = self._params.batch_max_payees, self._coin_sums[-1] if self._coin_sums else 0
        if len(payees) == most:
            return
        for withdrawal in source:
            if withdrawal.value_sats <= held_sats - payees.total_sats:
                payees.add(withdrawal)
                if len(payees) == most:
                    return

    def _cover(self, payees: "_Payees") -> tuple[int, int, int] | None:
        """How coins cover them, the youngest of whom are left out until some do; None if nobody remains."""
        while payees:
            funds = self._funds(payees.total_sats)
            if funds is not None:
                return funds
            payees.remove(payees.youngest)
        return None

    def _funds(self, total_sats: int) -> tuple[int, int, int] | None:
        """How many coins to take for `total_sats`, the change, and the fund's part; None if that can't be."""
        floor_sats = self._params.coin_floor_sats
        for index in range(bisect_left(self._coin_sums, total_sats), len(self._coin_sums)):
            change_sats = self._coin_sums[index] - total_sats
            if change_sats == 0 or change_sats >= floor_sats:
                return index + 1, change_sats, 0
        remainder_sats = self._coin_sums[-1] - total_sats
        return (len(self._coins), 0, remainder_sats) if remainder_sats <= self._fund_limit_sats else None

    def _size_vbytes(self, payees: "_Payees", coin_count: int, change_count: int) -> int:
        """Once it is signed."""
        weights = payees.output_weights + change_count * self._change_weight
        return vsize_vbytes(self._input_weights[coin_count], coin_count, weights, len(payees) + change_count)


class _Payees:
    """Who is to be paid, in order of age, with what choosing among thousands needs at hand.

    total_sats: of what they burned.  output_weights: of their outputs, in weight units.
    """

    def __init__(self) -> None:
        self.total_sats = 0
        self.output_weights = 0
        self._by_number: dict[int, Withdrawal] = {}
        self._by_max_fee: list[tuple[int, int]] = []
        self._by_value: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self._by_number)

    def __iter__(self) -> Iterator[Withdrawal]:
        return iter(self._by_number.values())

    @property
    def youngest(self) -> Withdrawal:
        """The last one of at least one."""
        return next(reversed(self._by_number.values()))

    def add(self, withdrawal: Withdrawal) -> None:
        """One more, who is younger than all that there were ever."""
        self._by_number[withdrawal.number] = withdrawal
        self.total_sats += withdrawal.value_sats
        self.output_weights += output_weight(len(withdrawal.l1_script))
        heappush(self._by_max_fee, (withdrawal.max_fee_sats, withdrawal.number))

    def remove(self, withdrawal: Withdrawal) -> None:
        """One less."""
        del self._by_number[withdrawal.number]
        self.total_sats -= withdrawal.value_sats
        self.output_weights -= output_weight(len(withdrawal.l1_script))

    def largest_below(self, share_sats: int) -> Withdrawal | None:
        """Of those whose max_fee is below this share, the one of the greatest value; of equal ones, the youngest.

        Each is in one of two heaps, by its max_fee or, once a share was above that, by its value; also the removed.
        """
        while self._by_max_fee and self._by_max_fee[0][0] < share_sats:
            _, number = heappop(self._by_max_fee)
            if (payee := self._by_number.get(number)) is not None:
                heappush(self._by_value, (-payee.value_sats, -number))
        while self._by_value:
            payee = self._by_number.get(-self._by_value[0][1])
            if payee is not None and payee.max_fee_sats < share_sats:
                return payee
            heappop(self._by_value)
            if payee is not None:
                heappush(self._by_max_fee, (payee.max_fee_sats, payee.number))
        return None


def _pending(view: LedgerView) -> list[Withdrawal]:
    """Burns that wait, the oldest first."""
    waiting = [entry for _, entry in view.open_withdrawals.items() if entry.status is WithdrawalStatus.PENDING]
    return sorted(waiting, key=lambda withdrawal: withdrawal.number)


def _is_due(payees: Sequence[Withdrawal], view: LedgerView, params: PegParams) -> bool:
    if not payees:
        return False
    waited_anchors = view.totals.anchor.height - payees[0].burned_at_anchor
    return len(payees) >= params.batch_min_payouts or waited_anchors >= params.batch_max_wait_anchors
