"""Why a withdrawal waits: each reason for a ledger in which it is the one, and none that is refuted by a batch."""

from collections.abc import Iterator
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from bridge.batch_form import least_share_sats
from bridge.bitcoin.identifiers import OutPoint
from bridge.ledger import Ledger, advance_anchor
from bridge.lineages import record_batch
from bridge.payout import plan_payout
from bridge.state import Coin, Withdrawal
from bridge.tables import OverlayTable
from bridge.waiting import Outlook, Waiting, WaitReason
from tests.support.ledgers import batched_ledger, burn, ledger_of, pending
from tests.support.peg import CUSTODY, PARAMS, START_HEIGHT, anchor

FEERATE = 10_000
ENOUGH_SATS = 50_000
ONE = replace(PARAMS, batch_min_payouts=1)


def waits(ledger: Ledger, index: int = 0, feerate_sat_kvb: int = FEERATE, **changes: int) -> Waiting:
    """Why one of the pending burns waits, by age."""
    outlook = Outlook(ledger, feerate_sat_kvb, CUSTODY, replace(PARAMS, **changes))
    return outlook.waiting(pending(ledger)[index])


def test_burn_waits_for_more_burns_or_for_time_to_pass() -> None:
    ledger = ledger_of([1_000_000], [(500_000, ENOUGH_SATS)])
    advance_anchor(ledger, anchor(START_HEIGHT + 2), PARAMS)
    assert waits(ledger) == Waiting(WaitReason.NOT_DUE, burns_missing=2, anchors_left=4)
    burn(ledger, 7, 100_000, max_fee_sats=ENOUGH_SATS)
    for index in range(2):
        assert waits(ledger, index) == Waiting(WaitReason.NOT_DUE, burns_missing=1, anchors_left=4)


def test_burn_is_next_when_the_payout_is_due_by_count_or_by_age() -> None:
    ledger = ledger_of([1_000_000], [(100_000, ENOUGH_SATS)] * PARAMS.batch_min_payouts)
    assert waits(ledger, 1) == Waiting(WaitReason.NEXT)
    alone = ledger_of([1_000_000], [(100_000, ENOUGH_SATS)])
    advance_anchor(alone, anchor(START_HEIGHT + PARAMS.batch_max_wait_anchors), PARAMS)
    assert waits(alone) == Waiting(WaitReason.NEXT)


def test_burn_that_bears_no_share_is_told_the_share() -> None:
    """The least there can be; that of the others' payout; or that of a payout for it alone."""
    least_sats = least_share_sats(PARAMS, FEERATE)
    assert waits(ledger_of([1_000_000], [(500_000, 0)])) == Waiting(WaitReason.MAX_FEE, share_sats=least_sats)
    others = ledger_of([1_000_000], [(100_000, ENOUGH_SATS), (100_000, ENOUGH_SATS), (100_000, least_sats)])
    planned = plan_payout(others, FEERATE, CUSTODY, ONE)
    assert planned is not None
    assert waits(others, 2) == Waiting(WaitReason.MAX_FEE, share_sats=planned.version.fee_sats // 2)
    alone = waits(ledger_of([1_000_000], [(500_000, least_sats)]))
    assert alone.reason is WaitReason.MAX_FEE
    assert alone.share_sats is not None
    enough = waits(ledger_of([1_000_000], [(500_000, alone.share_sats)]))
    assert enough.reason is WaitReason.NOT_DUE
    assert waits(ledger_of([1_000_000], [(500_000, alone.share_sats - 1)])) == alone


def test_share_is_that_of_the_feerate_within_floor_and_ceiling() -> None:
    ledger = ledger_of([1_000_000], [(500_000, 0)])
    for feerate, used in ((1, PARAMS.feerate_floor_sat_kvb), (10**9, PARAMS.feerate_ceiling_sat_kvb)):
        assert waits(ledger, feerate_sat_kvb=feerate).share_sats == least_share_sats(PARAMS, used)


def test_burn_waits_for_the_open_batch() -> None:
    ledger = batched_ledger()
    burn(ledger, 8, 50_000, max_fee_sats=ENOUGH_SATS)
    burn(ledger, 9, 50_000, max_fee_sats=0)
    reasons = [Outlook(ledger, FEERATE, CUSTODY, PARAMS).waiting(item).reason for item in pending(ledger)[1:]]
    assert reasons == [WaitReason.BATCH_OPEN, WaitReason.MAX_FEE]


def test_burn_that_the_free_coins_do_not_hold_waits_for_coins() -> None:
    too_much = ledger_of([400_000, 400_000], [(700_000, ENOUGH_SATS)])
    assert waits(too_much).reason is WaitReason.NOT_DUE
    assert waits(too_much, batch_max_first_inputs=1) == Waiting(WaitReason.NOT_COVERED)
    behind = ledger_of([400_000, 400_000], [(300_000, ENOUGH_SATS), (200_000, ENOUGH_SATS)])
    reasons = [waits(behind, index, batch_max_first_inputs=1).reason for index in range(2)]
    assert reasons == [WaitReason.NOT_DUE, WaitReason.NOT_COVERED]


def test_burn_behind_a_full_payout_waits_for_the_next() -> None:
    ledger = ledger_of([1_000_000], [(100_000, ENOUGH_SATS)] * 3)
    reasons = [waits(ledger, index, batch_max_payees=2).reason for index in range(3)]
    assert reasons == [WaitReason.NOT_DUE, WaitReason.NOT_DUE, WaitReason.BATCH_FULL]


def test_expired_burn_waits_for_its_refund() -> None:
    ledger = ledger_of([1_000_000], [(500_000, 0)])
    advance_anchor(ledger, anchor(START_HEIGHT + 9), PARAMS)
    assert waits(ledger, withdrawal_expiry_anchors=9) == Waiting(WaitReason.EXPIRED)
    assert waits(ledger, withdrawal_expiry_anchors=10).reason is WaitReason.MAX_FEE


class _ReadCoins(OverlayTable[OutPoint, Coin]):
    """Coins, and how often all of them were read."""

    readings = 0

    def items(self) -> Iterator[tuple[OutPoint, Coin]]:
        self.readings += 1
        return super().items()


def test_coins_are_read_as_often_for_many_burns_as_for_one() -> None:
    """Whoever burns dust, and asks for all of it, must not keep a member from its blocks."""
    ledger = ledger_of([1_000_000] * 3, [(100_000, least_share_sats(PARAMS, FEERATE))] * 12)
    readings = set()
    for count in (1, 12):
        ledger.coins = coins = _ReadCoins(ledger.coins)
        outlook = Outlook(ledger, FEERATE, CUSTODY, PARAMS)
        assert {outlook.waiting(burned).reason for burned in pending(ledger)[:count]} == {WaitReason.MAX_FEE}
        readings.add(coins.readings)
    assert len(readings) == 1


@given(
    coins=st.lists(st.integers(30_000, 900_000), min_size=1, max_size=4),
    burns=st.lists(st.tuples(st.integers(1_000, 500_000), st.integers(0, 20_000)), min_size=1, max_size=6),
    waited=st.integers(0, 7),
)
def test_next_payout_pays_whom_the_reasons_say(coins: list[int], burns: list[tuple[int, int]], waited: int) -> None:
    if sum(value_sats for value_sats, _ in burns) > sum(coins):
        return
    ledger = ledger_of(coins, burns)
    advance_anchor(ledger, anchor(START_HEIGHT + waited), PARAMS)
    outlook = Outlook(ledger, FEERATE, CUSTODY, PARAMS)
    reasons = {withdrawal.burn: outlook.waiting(withdrawal) for withdrawal in pending(ledger)}
    planned = plan_payout(ledger, FEERATE, CUSTODY, PARAMS)
    paid = set() if planned is None else set(planned.payees)
    assert {named for named, waiting in reasons.items() if waiting.reason is WaitReason.NEXT} == paid
    for withdrawal in pending(ledger):
        _told_enough(withdrawal, reasons[withdrawal.burn])
    if planned is not None:
        record_batch(ledger, planned)


def _told_enough(withdrawal: Withdrawal, waiting: Waiting) -> None:
    """A share that it would have to bear is above what it bears; a payout that is not due misses something."""
    if waiting.reason is WaitReason.MAX_FEE:
        assert waiting.share_sats is not None
        assert waiting.share_sats > withdrawal.max_fee_sats
    if waiting.reason is WaitReason.NOT_DUE:
        assert waiting.burns_missing is not None
        assert waiting.anchors_left is not None
        assert min(waiting.burns_missing, waiting.anchors_left) > 0
