"""The signer's laws about a batch: it pays what is owed at an allowed cost, was due, and is no other.      (pure)

Two ways lead to the same bytes. The amounts are judged one by one, by arithmetic of this module's own; then the whole
transaction is made anew by the code that makes batches (`bridge.draft`) from coins, payees and feerate, and compared
byte for byte. So a flaw in the one is met by the other, and nothing of a batch is left to whoever proposed it. What
can't be known afterwards is how many coins the reserve had when the change was cut: within bounds, the number of parts
is taken as recorded.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise

from bridge.batch_form import MAX_CHANGE_PARTS
from bridge.bitcoin import amounts
from bridge.bitcoin.identifiers import OutPoint, Script
from bridge.custody import CoinKind, Custody, reserve_script
from bridge.draft import Drafting
from bridge.errors import Rejected
from bridge.ledger import LedgerView
from bridge.lineages import MAX_VERSIONS
from bridge.params import PegParams
from bridge.replacement import RESERVED_VERSIONS
from bridge.state import BatchKind, BatchVersion, Coin, Lineage, Withdrawal, WithdrawalStatus
from federation.recorded_batch import spends
from federation.refusal import RefusalReason, SigningRefused
from federation.signing_plan import SigningPlan


def check_batch(
    view: LedgerView, lineage: Lineage, version: BatchVersion, plan: SigningPlan, custody: Custody, params: PegParams
) -> tuple[Withdrawal, ...]:
    """Whom `lineage` pays, once `version`, whose plan this is, has been found to be as it must.

    Raises SigningRefused: WRONG_PAYEE_COUNT, PAYEE_*, WITHDRAWAL_OVER_CAP, NO_RESERVE_SCRIPT, CHANGE_*, FEERATE_*,
    FUND_PART_*, FEE_*, SHARES_TOO_HIGH, TOO_LARGE, NOT_DUE or NOT_AS_REBUILT, in this order.
    """
    payees = _payees(view, lineage)
    coins = _coins(view, lineage.inputs[: len(plan.inputs)])  # each version has these first, in this order
    shares_sats = _check_payees(payees, plan, params)
    _check_change(version, plan, len(payees), custody, params)
    _check_fee(lineage, version, plan, shares_sats, _may_be_short_sats(lineage, version, coins, params), params)
    _check_size(lineage, plan, params)
    _check_versions(view, lineage, params)
    _check_due(view, lineage, payees, params)
    _check_rebuilt(version, plan, coins, payees, custody, params)
    return payees


def _coins(view: LedgerView, outpoints: Iterable[OutPoint]) -> list[Coin]:
    return [coin for outpoint in outpoints if (coin := view.coins.get(outpoint)) is not None]


def _payees(view: LedgerView, lineage: Lineage) -> tuple[Withdrawal, ...]:
    """The withdrawals that `lineage` pays, in order, each promised to it alone. Maintenance pays nobody."""
    if bool(lineage.payees) != (lineage.kind is BatchKind.PAYOUT):
        raise SigningRefused(RefusalReason.WRONG_PAYEE_COUNT, f"{len(lineage.payees)} for a {lineage.kind.name}")
    if len(set(lineage.payees)) != len(lineage.payees):
        raise SigningRefused(RefusalReason.PAYEE_TWICE)
    elsewhere = {
        burn: number
        for number, other in view.open_lineages.items()
        if number != lineage.number
        for burn in other.payees
    }
    payees = []
    for burn in lineage.payees:
        if burn in view.closed_withdrawals:
            raise SigningRefused(RefusalReason.PAYEE_CLOSED, f"burn {burn}")
        withdrawal = view.open_withdrawals.get(burn)
        if (
            withdrawal is None
            or withdrawal.status is not WithdrawalStatus.BATCHED
            or withdrawal.lineage != lineage.number
        ):
            raise SigningRefused(RefusalReason.PAYEE_NOT_OWED, f"burn {burn} by lineage {lineage.number}")
        if burn in elsewhere:
            raise SigningRefused(RefusalReason.PAYEE_ELSEWHERE, f"burn {burn} by lineage {elsewhere[burn]}")
        payees.append(withdrawal)
    return tuple(payees)


def _check_payees(payees: Sequence[Withdrawal], plan: SigningPlan, params: PegParams) -> int:
    """The payees' outputs come first and in order; what they bear of the fee, in sats."""
    outputs = plan.transaction.outputs
    if len(outputs) < len(payees):
        raise SigningRefused(RefusalReason.WRONG_PAYEE_COUNT, f"{len(outputs)} outputs for {len(payees)} payees")
    shares_sats = 0
    for payee, output in zip(payees, outputs, strict=False):
        share_sats = payee.value_sats - output.value_sats
        if output.script != payee.l1_script:
            raise SigningRefused(RefusalReason.PAYEE_SCRIPT, f"{output.script.hex()} for burn {payee.burn}")
        if not 0 <= share_sats <= payee.max_fee_sats:
            raise SigningRefused(RefusalReason.PAYEE_SHARE, f"{share_sats} sats of burn {payee.burn}")
        if payee.value_sats > params.max_withdrawal_sats:
            raise SigningRefused(RefusalReason.WITHDRAWAL_OVER_CAP, f"burn {payee.burn} of {payee.value_sats} sats")
        shares_sats += share_sats
    return shares_sats


def _check_change(
    version: BatchVersion, plan: SigningPlan, payee_count: int, custody: Custody, params: PegParams
) -> None:
    """Every further output returns to the reserve, as a coin that may enter the ledger."""
    change_script = _change_script(custody, version.epoch)
    for output in plan.transaction.outputs[payee_count:]:
        if output.script != change_script:
            raise SigningRefused(RefusalReason.CHANGE_SCRIPT, f"{output.value_sats} sats to {output.script.hex()}")
        if output.value_sats < params.coin_floor_sats:
            raise SigningRefused(RefusalReason.CHANGE_BELOW_FLOOR, f"{output.value_sats} sats")


def _change_script(custody: Custody, epoch: int) -> Script:
    try:
        return reserve_script(custody.policy(epoch), CoinKind.CHANGE).script
    except Rejected as error:
        raise SigningRefused(RefusalReason.NO_RESERVE_SCRIPT, str(error)) from error


def _may_be_short_sats(lineage: Lineage, version: BatchVersion, coins: Iterable[Coin], params: PegParams) -> int:
    """What may be booked as deficit: in maintenance alone, and for a coin that was past three quarters of its wait."""
    ages = [version.anchor_height - coin.l1_height for coin in coins]
    urgent = any(4 * age >= 3 * params.recovery_timelock_blocks for age in ages)
    return params.maintenance_deficit_cap_sats if lineage.kind is BatchKind.MAINTENANCE and urgent else 0


def _check_fee(
    lineage: Lineage,
    version: BatchVersion,
    plan: SigningPlan,
    shares_sats: int,
    may_be_short_sats: int,
    params: PegParams,
) -> None:
    """The fee is what the version says, at a feerate and a cost to the fund within the caps.

    shares_sats: what the payees bear of it. They bear at most what the feerate asks, each share rounded up; the fund
    bears the rest, but for what may be booked as deficit.
    """
    if not params.feerate_floor_sat_kvb <= version.feerate_sat_kvb <= params.feerate_ceiling_sat_kvb:
        raise SigningRefused(RefusalReason.FEERATE_OUT_OF_RANGE, f"{version.feerate_sat_kvb} sat/kvB")
    if version.fund_part_sats > params.lineage_fee_cap_sats:
        raise SigningRefused(RefusalReason.FUND_PART_OVER_CAP, f"{version.fund_part_sats} sats of the fund")
    outputs = plan.transaction.outputs
    fee_sats = sum(prevout.value_sats for prevout in plan.prevouts) - sum(output.value_sats for output in outputs)
    asked_sats = amounts.fee_sats(plan.signed_vsize_vbytes, version.feerate_sat_kvb)
    short_sats = fee_sats - shares_sats - version.fund_part_sats
    if fee_sats != version.fee_sats:
        raise SigningRefused(RefusalReason.FEE_NOT_AS_RECORDED, f"{fee_sats} sats, {version.fee_sats} recorded")
    if fee_sats < asked_sats:
        raise SigningRefused(RefusalReason.FEE_TOO_LOW, f"{fee_sats} sats, {asked_sats} asked by the feerate")
    if shares_sats >= asked_sats + len(lineage.payees):
        raise SigningRefused(RefusalReason.SHARES_TOO_HIGH, f"{shares_sats} sats, {asked_sats} asked by the feerate")
    if not 0 <= short_sats <= may_be_short_sats:
        raise SigningRefused(
            RefusalReason.FUND_PART_DIFFERS,
            f"{version.fund_part_sats} sats; the fee is {fee_sats}, the payees' part {shares_sats}",
        )


def _check_size(lineage: Lineage, plan: SigningPlan, params: PegParams) -> None:
    """Neither the lineage nor the transaction has more of anything than a batch may have."""
    parts = len(plan.transaction.outputs) - len(lineage.payees)
    first_inputs = len(spends(lineage.versions[0].transaction))
    for what, count, most in (
        ("versions", len(lineage.versions), MAX_VERSIONS),
        ("inputs of the first version", first_inputs, params.max_first_inputs(lineage.kind)),
        ("inputs", len(plan.inputs), params.max_inputs(lineage.kind)),
        ("payees", len(lineage.payees), params.batch_max_payees),
        ("parts of change", parts, MAX_CHANGE_PARTS),
    ):
        if count > most:
            raise SigningRefused(RefusalReason.TOO_LARGE, f"{count} {what}, at most {most}")


def _check_versions(view: LedgerView, lineage: Lineage, params: PegParams) -> None:
    """Each version came an interval after the one before, for a higher fee, and the last ones for a much higher one."""
    for number, (earlier, later) in enumerate(pairwise(lineage.versions), 2):
        waited_anchors = later.anchor_height - earlier.anchor_height
        if waited_anchors < params.replacement_interval_anchors:
            raise SigningRefused(RefusalReason.NOT_DUE, f"version {number} came after {waited_anchors} anchors")
        if later.fee_sats <= earlier.fee_sats:
            raise SigningRefused(RefusalReason.NOT_DUE, f"version {number} pays no more than the one before")
        is_reserved = number > MAX_VERSIONS - RESERVED_VERSIONS
        if is_reserved and 4 * later.feerate_sat_kvb < 5 * earlier.feerate_sat_kvb:
            raise SigningRefused(RefusalReason.NOT_DUE, f"version {number} raises the feerate by less than a quarter")
    if lineage.versions[-1].anchor_height > view.totals.anchor.height:
        raise SigningRefused(RefusalReason.NOT_DUE, "recorded above the anchor")


def _check_due(view: LedgerView, lineage: Lineage, payees: Sequence[Withdrawal], params: PegParams) -> None:
    """There was a ground for the first version when it was recorded."""
    first = lineage.versions[0]
    if lineage.kind is BatchKind.PAYOUT:
        waited_anchors = [first.anchor_height - payee.burned_at_anchor for payee in payees]
        enough = len(payees) >= params.batch_min_payouts or waited_anchors[0] >= params.batch_max_wait_anchors
        if not enough or min(waited_anchors) < 0:
            raise SigningRefused(RefusalReason.NOT_DUE, f"{len(payees)} payees after {waited_anchors[0]} anchors")
        return
    coins = _coins(view, spends(first.transaction))
    ages = [first.anchor_height - coin.l1_height for coin in coins]
    old = sum(2 * age >= params.recovery_timelock_blocks for age in ages)
    refreshes = old > 0 and len(coins) - old <= 1
    if not refreshes and len(coins) < 2:
        raise SigningRefused(RefusalReason.NOT_DUE, f"{old} of {len(coins)} coins are old, and one can't be merged")


def _check_rebuilt(
    version: BatchVersion,
    plan: SigningPlan,
    coins: Sequence[Coin],
    payees: Sequence[Withdrawal],
    custody: Custody,
    params: PegParams,
) -> None:
    """The code that makes batches makes this transaction: the same shares, the same change, the same bytes."""
    then = custody.as_of(version.epoch)
    drafting = Drafting(payees, version.feerate_sat_kvb, len(coins), then, params)
    draft = drafting.with_parts(coins, len(plan.transaction.outputs) - len(payees))
    if draft is None:
        raise SigningRefused(RefusalReason.NOT_AS_REBUILT, "the coins don't hold payees, fee and change")
    if draft.transaction(then).serialize_stripped() != version.transaction:
        raise SigningRefused(RefusalReason.NOT_AS_REBUILT, "coins, payees and feerate make another transaction")
