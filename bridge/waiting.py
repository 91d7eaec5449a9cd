"""Why a withdrawal waits: what is shown to whoever burned, and no rule of anything.

It asks `bridge.payout` whom it would pay if a payout were due at once, at one feerate. Who is not among these is told
what stands in the way: first what nothing but a lower feerate removes, then what passes by itself.
"""

from dataclasses import dataclass, replace
from functools import cached_property

from bridge.batch_form import free_coins, least_share_sats
from bridge.custody import Custody
from bridge.errors import Reason
from bridge.ledger import LedgerView
from bridge.lineages import PlannedBatch, open_lineage
from bridge.params import PegParams
from bridge.payout import Funding, plan_payout
from bridge.refunds import expires_at
from bridge.state import BatchKind, Withdrawal


class WaitReason(Reason):
    """Why a pending withdrawal is in no batch."""

    EXPIRED = "withdrawal-expired"  # Refunds are due, this one too: it is in one of the next blocks.
    MAX_FEE = "withdrawal-max-fee"  # Its max_fee is below what a payout costs each payee now.
    BATCH_OPEN = "withdrawal-batch-open"  # The last payout has not settled: until then there is no other.
    NOT_COVERED = "withdrawal-not-covered"
    """The free coins don't hold it, or not together with the older burns that are paid first."""
    BATCH_FULL = "withdrawal-batch-full"  # Older burns fill the next payout.
    NOT_DUE = "withdrawal-not-due"  # The next payout includes it, and waits for more burns or for time to pass.
    NEXT = "withdrawal-next"  # The next payout includes it, and is due: it is in one of the next blocks.


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why one withdrawal waits. share_sats: with MAX_FEE, what it would have to bear.

    burns_missing, anchors_left: with NOT_DUE, after so many more burns, or so many more anchors, the payout is due.
    """

    reason: WaitReason
    share_sats: int | None = None
    burns_missing: int | None = None
    anchors_left: int | None = None


class Outlook:
    """What the next payout on top of `view` would be at this feerate, worked out once, when it is first asked for."""

    def __init__(self, view: LedgerView, feerate_sat_kvb: int, custody: Custody, params: PegParams) -> None:
        self._view = view
        self._custody = custody
        self._params = params
        least, most = params.feerate_floor_sat_kvb, params.feerate_ceiling_sat_kvb
        self._feerate_sat_kvb = min(max(feerate_sat_kvb, least), most)
        self._least_share_sats = least_share_sats(params, self._feerate_sat_kvb)
        self._free_sats = sum(coin.value_sats for coin in free_coins(view)[: params.batch_max_first_inputs])
        self._is_open = open_lineage(view, BatchKind.PAYOUT) is not None

    def waiting(self, withdrawal: Withdrawal) -> Waiting:
        """Why a pending withdrawal of the view waits."""
        if expires_at(withdrawal, self._params) <= self._view.totals.anchor.height:
            return Waiting(WaitReason.EXPIRED)
        if withdrawal.max_fee_sats < self._least_share_sats:
            return Waiting(WaitReason.MAX_FEE, share_sats=self._present_share_sats())
        if self._is_open:
            return Waiting(WaitReason.BATCH_OPEN)
        if self._next is not None and withdrawal.burn in self._next.payees:
            return self._until_due(self._next)
        return self._passed_over(withdrawal)

    @cached_property
    def _next(self) -> PlannedBatch | None:
        """The payout, as if one burn were enough to make it due."""
        if self._is_open:
            return None
        one = replace(self._params, batch_min_payouts=1)
        return plan_payout(self._view, self._feerate_sat_kvb, self._custody, one)

    @cached_property
    def _funding(self) -> Funding:
        """What a payout may spend: worked out once, for a listing may ask for a thousand withdrawals."""
        return Funding(self._view, self._custody, self._params, self._feerate_sat_kvb)

    def _present_share_sats(self) -> int:
        """What each payee of the next payout bears; of the cheapest there can be, when there is no next."""
        return self._least_share_sats if self._next is None else _share_sats(self._next)

    def _until_due(self, planned: PlannedBatch) -> Waiting:
        params, height = self._params, self._view.totals.anchor.height
        oldest = self._view.open_withdrawals.get(planned.payees[0])
        burned_at_anchor = height if oldest is None else oldest.burned_at_anchor
        burns_missing = params.batch_min_payouts - len(planned.payees)
        anchors_left = burned_at_anchor + params.batch_max_wait_anchors - height
        if burns_missing <= 0 or anchors_left <= 0:
            return Waiting(WaitReason.NEXT)
        return Waiting(WaitReason.NOT_DUE, burns_missing=burns_missing, anchors_left=anchors_left)

    def _passed_over(self, withdrawal: Withdrawal) -> Waiting:
        """Why the next payout leaves out a burn that would bear a share of the cheapest one."""
        if withdrawal.value_sats > self._free_sats:
            return Waiting(WaitReason.NOT_COVERED)
        if withdrawal.max_fee_sats < self._present_share_sats():
            return Waiting(WaitReason.MAX_FEE, share_sats=self._present_share_sats())
        if self._next is not None and len(self._next.payees) == self._params.batch_max_payees:
            return Waiting(WaitReason.BATCH_FULL)
        alone = self._funding.select([replace(withdrawal, max_fee_sats=withdrawal.value_sats)])
        if alone is not None and withdrawal.max_fee_sats < alone.shares_sats[0]:
            return Waiting(WaitReason.MAX_FEE, share_sats=alone.shares_sats[0])
        return Waiting(WaitReason.NOT_COVERED)


def _share_sats(planned: PlannedBatch) -> int:
    """What each payee of a first version bears."""
    return (planned.version.fee_sats - planned.version.fund_part_sats) // len(planned.payees)
