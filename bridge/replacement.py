"""Replacement: how the fee of a batch that L1 does not confirm is raised, so that any version may settle and one does.

Theory of operation
    A replacement is the next version of the open lineage of its kind. It names the newest version, spends **all** of
    that one's inputs in their order, then free coins from the largest as far as the new fee needs them, and pays the
    same payees in the same order. So all versions conflict on L1, pairwise, and one of them confirms at most. (It would
    not do to share one input with the version before: {a, b}, {a, c} and {c, d} could pay twice.)

    Payees share the new fee equally, each up to its max_fee; the fund bears the rest, up to `lineage_fee_cap_sats` and
    to what is free. What the fund lacks for maintenance of a coin past 3T/4 is booked as deficit. A version must be
    `replacement_interval_anchors` older than its replacement, and the replacement must pay what L1's nodes ask of one:
    a higher feerate, and for its own size the relay's feerate more than before.

    A leader replaces when its own estimate is well above the newest version's feerate, or when that one has waited for
    `STALE_INTERVALS` intervals, whatever the estimate: then by the least step there is. Least steps alone would use up
    a lineage's versions in days, and leave none for the day on which L1's feerate doubles. So its last
    `RESERVED_VERSIONS` are for such days: by validity they raise the feerate well, members vote for them by their own
    estimates alone, and leaders propose none but at their own.
"""

from collections.abc import Sequence
from contextlib import suppress
from itertools import chain

from bridge.batch_form import BatchReason, coin_weight, free_coins, output_weight, vsize_vbytes
from bridge.bitcoin.amounts import fee_sats
from bridge.bitcoin.identifiers import Txid, hash_to_hex
from bridge.bitcoin.transaction import Transaction
from bridge.custody import Custody
from bridge.draft import Draft, Drafting
from bridge.errors import Rejected
from bridge.ledger import LedgerView
from bridge.lineages import MAX_VERSIONS, PlannedBatch, free_fund_sats, open_lineage
from bridge.maintenance import deficit_limit_sats
from bridge.params import PegParams
from bridge.state import BatchKind, BatchVersion, Coin, LedgerReason, Lineage, Withdrawal

INCREMENTAL_FEERATE_SAT_KVB = 1_000
"""What a replacement pays above its predecessor's fee, for each 1,000 of its own vbytes.

Source: BIP125, rule 4; Bitcoin Core, DEFAULT_INCREMENTAL_RELAY_FEE of all versions before 30, which take the most.
"""
STALE_INTERVALS = 2
"""A version that waited for so many intervals is replaced by the least step, whatever the estimate."""
RESERVED_VERSIONS = 8
"""How many of a lineage's versions are for feerates that are well above the one before. 5/4 to this power is 6."""
_MATERIAL = (5, 4)
"""A feerate of this factor above the newest version's is well above it."""


def plan_replacement(
    view: LedgerView, kind: BatchKind, replaces: Txid, feerate_sat_kvb: int, custody: Custody, params: PegParams
) -> PlannedBatch:
    """The next version of the open lineage of this kind, at this feerate.

    Raises Rejected(BatchReason): NO_OPEN_LINEAGE, LINEAGE_CLOSED, NOT_NEWEST, TOO_MANY_VERSIONS, TOO_EARLY,
    RESERVED, NOT_COVERED, OVER_FUND or STEP_NOT_MET, in this order.
    """
    lineage = _replaceable(view, kind, replaces, params)
    newest = lineage.versions[-1]
    if _is_reserved(len(lineage.versions) + 1) and not _is_material(feerate_sat_kvb, newest):
        raise Rejected(BatchReason.RESERVED, f"{feerate_sat_kvb} sat/kvB after {newest.feerate_sat_kvb}")
    draft = _draft(view, lineage, feerate_sat_kvb, custody, params)
    if not _meets_step(view, newest, draft, custody):
        raise Rejected(BatchReason.STEP_NOT_MET, f"{draft.fee_sats} sats after {newest.fee_sats}")
    return _planned(view, lineage, draft, custody, params)


def replacement_due(view: LedgerView, kind: BatchKind, params: PegParams) -> bool:
    """Whether the open lineage of this kind may have another version by now, if the fee can be raised."""
    lineage = open_lineage(view, kind)
    return (
        lineage is not None
        and len(lineage.versions) < MAX_VERSIONS
        and _age(view, lineage) >= params.replacement_interval_anchors
    )


def propose_replacement(
    view: LedgerView, kind: BatchKind, estimate_sat_kvb: int, custody: Custody, params: PegParams
) -> PlannedBatch | None:
    """The replacement that a leader with this estimate, within floor and ceiling, proposes now; None for none."""
    lineage = open_lineage(view, kind)
    if lineage is None or not replacement_due(view, kind, params):
        return None
    newest = lineage.versions[-1]
    is_reserved = _is_reserved(len(lineage.versions) + 1)
    if _is_material(estimate_sat_kvb, newest):
        with suppress(Rejected):  # coins or fund don't allow as much, or the least step is above the estimate
            return plan_replacement(view, kind, newest.txid, estimate_sat_kvb, custody, params)
    elif _age(view, lineage) < STALE_INTERVALS * params.replacement_interval_anchors:
        return None
    least = None if is_reserved else _least_step(view, lineage, custody, params)
    planned = None if least is None else _planned(view, lineage, least, custody, params)
    # A step that was raised for lesser change, and then takes a further coin, may be more than others vote for.
    return planned if planned is not None and _steps_least(view, newest, planned.version, custody) else None


def is_least_step(view: LedgerView, kind: BatchKind, custody: Custody) -> bool:
    """Whether the newest version, recorded in `view` already, raises the fee by no more than it must.

    None of the reserved versions counts as that: they need a member's estimate to speak for them.
    """
    lineage = open_lineage(view, kind)
    if lineage is None or len(lineage.versions) < 2 or _is_reserved(len(lineage.versions)):
        return False
    old, new = lineage.versions[-2:]
    return _steps_least(view, old, new, custody)


def _is_reserved(number: int) -> bool:
    """Whether the version of this number, counted from 1, is one of those for feerates well above the one before."""
    return number > MAX_VERSIONS - RESERVED_VERSIONS


def _is_material(feerate_sat_kvb: int, newest: BatchVersion) -> bool:
    """Whether this is well above the newest version's feerate."""
    over, under = _MATERIAL
    return feerate_sat_kvb * under >= newest.feerate_sat_kvb * over


def _age(view: LedgerView, lineage: Lineage) -> int:
    """Anchors since the newest version."""
    return view.totals.anchor.height - lineage.versions[-1].anchor_height


def _replaceable(view: LedgerView, kind: BatchKind, replaces: Txid, params: PegParams) -> Lineage:
    """The open lineage whose newest version is `replaces`, and may be replaced by now."""
    lineage, number = open_lineage(view, kind), view.versions.get(replaces)
    if number is not None and number in view.closed_lineages:
        raise Rejected(BatchReason.LINEAGE_CLOSED, f"lineage {number} has settled")
    if lineage is None:
        raise Rejected(BatchReason.NO_OPEN_LINEAGE, f"no {kind.name} is open")
    if lineage.versions[-1].txid != replaces:
        raise Rejected(BatchReason.NOT_NEWEST, f"{hash_to_hex(replaces)} is not the newest of lineage {lineage.number}")
    if len(lineage.versions) >= MAX_VERSIONS:
        raise Rejected(BatchReason.TOO_MANY_VERSIONS, f"lineage {lineage.number} has {MAX_VERSIONS}")
    if _age(view, lineage) < params.replacement_interval_anchors:
        raise Rejected(BatchReason.TOO_EARLY, f"{_age(view, lineage)} of {params.replacement_interval_anchors} anchors")
    return lineage


def _draft(view: LedgerView, lineage: Lineage, feerate_sat_kvb: int, custody: Custody, params: PegParams) -> Draft:
    """All inputs of the lineage, as few free coins as it takes, and a cost that the fund can bear."""
    locked, free = _locked_coins(view, lineage), free_coins(view)
    coin_count = sum(1 for _ in view.coins.items())
    drafting = Drafting(_payees(view, lineage), feerate_sat_kvb, coin_count, custody, params)
    most = min(len(free), params.max_inputs(lineage.kind) - len(locked))
    spendable = [locked + free[:added] for added in range(most + 1)]
    drafts = (drafting.draft(coins) for coins in spendable)
    without_change = (drafting.with_parts(coins, 0) for coins in spendable)
    found = next((draft for draft in chain(drafts, without_change) if draft is not None), None)
    if found is None:
        raise Rejected(BatchReason.NOT_COVERED, f"{len(locked)} inputs, and {len(free)} free coins")
    limit_sats = _fund_limit_sats(view, lineage, params) + _deficit_limit_sats(view, lineage, locked, params)
    if found.cost_sats > limit_sats:
        raise Rejected(BatchReason.OVER_FUND, f"{found.cost_sats} sats, at most {limit_sats}")
    return found


def _fund_limit_sats(view: LedgerView, lineage: Lineage, params: PegParams) -> int:
    """What a version of this lineage may take of the fund."""
    return min(free_fund_sats(view) + lineage.reserved_fund_sats, params.lineage_fee_cap_sats)


def _deficit_limit_sats(view: LedgerView, lineage: Lineage, coins: Sequence[Coin], params: PegParams) -> int:
    """What it may take besides, as deficit: nothing, but for maintenance of a coin that must not grow older."""
    if lineage.kind is not BatchKind.MAINTENANCE:
        return 0
    return max((deficit_limit_sats(view, coin, params) for coin in coins), default=0)


def _locked_coins(view: LedgerView, lineage: Lineage) -> list[Coin]:
    coins = [coin for outpoint in lineage.inputs if (coin := view.coins.get(outpoint)) is not None]
    if len(coins) != len(lineage.inputs):
        raise Rejected(LedgerReason.INCONSISTENT, f"lineage {lineage.number} lacks a coin")
    return coins


def _payees(view: LedgerView, lineage: Lineage) -> list[Withdrawal]:
    payees = [payee for burn in lineage.payees if (payee := view.open_withdrawals.get(burn)) is not None]
    if len(payees) != len(lineage.payees):
        raise Rejected(LedgerReason.INCONSISTENT, f"lineage {lineage.number} lacks a withdrawal")
    return payees


def _meets_step(view: LedgerView, old: BatchVersion, new: Draft, custody: Custody) -> bool:
    """Whether a node that holds `old` takes `new` for it. Source: BIP125, rules 3 and 4; Bitcoin Core, PaysForRBF."""
    least_sats = old.fee_sats + fee_sats(new.size_vbytes, INCREMENTAL_FEERATE_SAT_KVB)
    old_vbytes = _signed_vsize_vbytes(view, old, custody)
    return new.fee_sats >= least_sats and new.fee_sats * old_vbytes > old.fee_sats * new.size_vbytes


def _least_step(view: LedgerView, lineage: Lineage, custody: Custody, params: PegParams) -> Draft | None:
    """The least step's draft; None when the ceiling is below it, or coins and fund don't allow it.

    The size depends on the feerate, for change that pays more may be cut in fewer parts: whenever it turns out lesser,
    the step is taken anew from it.
    """
    old = lineage.versions[-1]
    feerate_sat_kvb = _step_sat_kvb(old.fee_sats, _signed_vsize_vbytes(view, old, custody))
    while feerate_sat_kvb <= params.feerate_ceiling_sat_kvb:
        try:
            draft = _draft(view, lineage, feerate_sat_kvb, custody, params)
        except Rejected:
            return None
        if _meets_step(view, old, draft, custody):
            return draft
        feerate_sat_kvb = max(feerate_sat_kvb + 1, _step_sat_kvb(old.fee_sats, draft.size_vbytes))
    return None


def _planned(view: LedgerView, lineage: Lineage, draft: Draft, custody: Custody, params: PegParams) -> PlannedBatch:
    """The next version of the lineage, whose cost the fund bears as far as it can."""
    fund_part_sats = min(draft.cost_sats, _fund_limit_sats(view, lineage, params))
    return draft.planned(lineage.kind, lineage.versions[-1].txid, fund_part_sats, view, custody)


def _steps_least(view: LedgerView, old: BatchVersion, new: BatchVersion, custody: Custody) -> bool:
    """Whether `new` takes at most the least step from `old`, to the size of either."""
    sizes_vbytes = (_signed_vsize_vbytes(view, version, custody) for version in (old, new))
    return new.feerate_sat_kvb <= max(_step_sat_kvb(old.fee_sats, size_vbytes) for size_vbytes in sizes_vbytes)


def _step_sat_kvb(old_fee_sats: int, size_vbytes: int) -> int:
    """The feerate at which a transaction of this size pays the least step above the old fee."""
    least_sats = old_fee_sats + fee_sats(size_vbytes, INCREMENTAL_FEERATE_SAT_KVB)
    return -(-least_sats * 1000 // size_vbytes)


def _signed_vsize_vbytes(view: LedgerView, version: BatchVersion, custody: Custody) -> int:
    """Virtual bytes of a recorded version of an open lineage, once it is signed."""
    transaction = Transaction.parse_stripped(version.transaction)
    coins = [coin for txin in transaction.inputs if (coin := view.coins.get(txin.outpoint)) is not None]
    return vsize_vbytes(
        sum(coin_weight(coin, custody) for coin in coins),
        len(transaction.inputs),
        sum(output_weight(len(output.script)) for output in transaction.outputs),
        len(transaction.outputs),
    )
