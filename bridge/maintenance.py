"""The first version of maintenance: the reserve moves its own coins before the recovery keys could.      (pure)

Theory of operation
    A coin's age is counted in anchors since its L1 block; at T, `recovery_timelock_blocks`, the recovery keys alone may
    spend it. Maintenance pays nobody: it spends coins, and what is left of them after the fee is change, new and young.
    The fund bears the fee. There are two grounds for it, and the first comes first.

    1. *Refresh*: of the free coins that are past T/2, first those that *press*, which 13T/16 have passed for, the
       largest first: should they be too many, then what is left behind is the least. After them the others, the oldest
       first. At most `maintenance_max_first_inputs`, and together at most half of the free value, so that payouts go
       on. The first is taken whatever it holds if 3T/4 have passed for it, and so is every coin for which two batches
       just have time left.
       If the fund can't bear the fee, the last are left out; for coins past 3T/4 what the fund lacks is booked as
       deficit, while the ledger's whole deficit stays within `maintenance_deficit_cap_sats`; for coins that press, up
       to that cap for each batch, whatever has been booked already: custody comes before bookkeeping. Coins too small
       to pay for themselves take the least other free coin with them that is enough: the largest may be what a payout
       waits for, and who gives such coins away would decide how long.
    2. *Merging*: if a burn is above what the `batch_max_first_inputs` largest coins hold, locked ones included, no
       payout can ever have inputs enough for it. The least of those coins and the free ones after it become one.

    The change is split as that of payouts, but for merged coins, which are one.

    One batch after the other settles, each after `confirmations` and a few blocks more, B in all. So coins that come in
    at a steady rate are refreshed in time at up to `maintenance_max_first_inputs` for every B blocks, and those of a
    burst up to that number times (T/2 - 2B) / B.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from bridge.batch_form import by_value, free_coins
from bridge.custody import Custody
from bridge.draft import Draft, Drafting
from bridge.ledger import LedgerView
from bridge.lineages import PlannedBatch, free_fund_sats, open_lineage
from bridge.params import PegParams
from bridge.state import BatchKind, Coin, WithdrawalStatus


def maintenance_due(view: LedgerView, params: PegParams) -> bool:
    """Whether maintenance may be due at some feerate; that none is open, the caller has seen."""
    return bool(_old_coins(view, params)) or len(_mergeable(view, params)) > 1


def refresh_urgent(view: LedgerView, params: PegParams) -> bool:
    """Whether a free coin is so old that moving it comes before everything else."""
    return any(is_urgent(view, coin, params) for coin in free_coins(view))


def is_urgent(view: LedgerView, coin: Coin, params: PegParams) -> bool:
    """Whether three quarters of the recovery's wait have passed for a coin."""
    return 4 * _age(view, coin) >= 3 * params.recovery_timelock_blocks


@dataclass(frozen=True, slots=True)
class Backlog:
    """Old coins that more may come of than there is time to move.

    blocks_needed: of L1, to move them all, at the least.  blocks_left: until the recovery keys may spend the oldest.
    """

    coins: int
    value_sats: int
    blocks_needed: int
    blocks_left: int


def backlog(view: LedgerView, params: PegParams) -> Backlog | None:
    """The coins past T/2 that wait, if moving them takes more than half of what the oldest has left; no rule."""
    waiting = _old_coins(view, params)
    if not waiting:
        return None
    batches = -(-len(waiting) // params.maintenance_max_first_inputs)
    batches += open_lineage(view, BatchKind.MAINTENANCE) is not None
    needed = batches * (params.confirmations + params.replacement_interval_anchors)
    left = params.recovery_timelock_blocks - max(_age(view, coin) for coin in waiting)
    if 2 * needed <= left:
        return None
    return Backlog(len(waiting), sum(coin.value_sats for coin in waiting), needed, max(0, left))


def deficit_limit_sats(view: LedgerView, coin: Coin, params: PegParams) -> int:
    """What moving a coin may book as deficit where the fund is empty.

    The cap bounds the ledger's whole deficit, whatever it is from, as long as that can wait. What is left of the
    recovery's wait after that is for a batch that is open already and for the coin's own, each to confirm and to
    settle: no cap on the sum holds them up.
    """
    cap_sats = params.maintenance_deficit_cap_sats
    if _is_pressing(view, coin, params):
        return cap_sats
    return max(0, cap_sats - view.totals.deficit_sats) if is_urgent(view, coin, params) else 0


def _is_pressing(view: LedgerView, coin: Coin, params: PegParams) -> bool:
    """Whether thirteen sixteenths of the wait have passed for a coin, or so much that two batches just have time left.

    With the shortest wait that a genesis may have, that is at three quarters.
    """
    return 16 * _age(view, coin) >= 13 * params.recovery_timelock_blocks or _is_last_call(view, coin, params)


def _is_last_call(view: LedgerView, coin: Coin, params: PegParams) -> bool:
    return _age(view, coin) >= params.last_refresh_age


def plan_maintenance(
    view: LedgerView, feerate_sat_kvb: int, custody: Custody, params: PegParams
) -> PlannedBatch | None:
    """The maintenance that is due on top of `view` at this feerate, or None."""
    coin_count = sum(1 for _ in view.coins.items())
    drafting = Drafting((), feerate_sat_kvb, coin_count, custody, params)
    limit_sats = min(free_fund_sats(view), params.lineage_fee_cap_sats)
    draft = _refresh(view, drafting, limit_sats, params) or _merge(view, drafting, limit_sats, params)
    if draft is None:
        return None
    return draft.planned(BatchKind.MAINTENANCE, None, min(draft.cost_sats, limit_sats), view, custody)


def _age(view: LedgerView, coin: Coin) -> int:
    return view.totals.anchor.height - coin.l1_height


def _old_coins(view: LedgerView, params: PegParams) -> list[Coin]:
    """The free coins past T/2: those that press, the largest first, then the oldest first; then the lesser outpoint."""
    old = [coin for coin in free_coins(view) if 2 * _age(view, coin) >= params.recovery_timelock_blocks]
    pressing = [coin for coin in old if _is_pressing(view, coin, params)]
    others = set(old).difference(pressing)
    return pressing + sorted(others, key=lambda coin: (coin.l1_height, coin.outpoint.encode()))


def _refresh(view: LedgerView, drafting: Drafting, limit_sats: int, params: PegParams) -> Draft | None:
    """As many of the coins that are to be moved as fund and cap allow."""
    free = free_coins(view)
    chosen = _within_half(view, _old_coins(view, params), sum(coin.value_sats for coin in free), params)

    def draft(count: int) -> Draft | None:
        return _carried(drafting, chosen[:count], free, params)

    def is_too_dear(count: int) -> bool:
        found = draft(count)
        limits_sats = (deficit_limit_sats(view, coin, params) for coin in chosen[:count])
        return found is not None and found.cost_sats > limit_sats + min(limits_sats)

    count = _most(len(chosen), is_too_dear)
    return draft(count) if count else None


def _most(count: int, is_too_dear: Callable[[int], bool]) -> int:
    """The greatest number of coins, up to `count`, that is not too dear. Each coin more costs more."""
    return bisect_left(range(1, count + 1), True, key=is_too_dear)


def _within_half(view: LedgerView, old: Sequence[Coin], free_sats: int, params: PegParams) -> list[Coin]:
    """Those that fit half of the free value, one after the other; an urgent first, and the last call, always fit."""
    chosen: list[Coin] = []
    chosen_sats = 0
    for coin in old:
        always = is_urgent(view, coin, params) if not chosen else _is_last_call(view, coin, params)
        if always or 2 * (chosen_sats + coin.value_sats) <= free_sats:
            chosen.append(coin)
            chosen_sats += coin.value_sats
        if len(chosen) == params.maintenance_max_first_inputs:
            break
    return chosen


def _carried(drafting: Drafting, coins: list[Coin], free: Iterable[Coin], params: PegParams) -> Draft | None:
    """These coins alone if they leave change, or else with the least other free one that makes them; None if none does.

    Of equal ones, with the lesser outpoint.
    """
    draft = drafting.draft(coins)
    if draft is not None or len(coins) == params.maintenance_max_first_inputs:
        return draft
    others = sorted(set(free).difference(coins), key=lambda coin: (coin.value_sats, coin.outpoint.encode()))
    least = bisect_left(others, True, key=lambda coin: drafting.draft([*coins, coin]) is not None)
    return drafting.draft([*coins, *others[least : least + 1]])


def _mergeable(view: LedgerView, params: PegParams) -> list[Coin]:
    """The coins to merge, the largest first: none unless a burn waits that no payout has inputs enough for."""
    waiting = (entry for _, entry in view.open_withdrawals.items() if entry.status is WithdrawalStatus.PENDING)
    largest_sats = max((withdrawal.value_sats for withdrawal in waiting), default=0)
    coins = by_value(coin for _, coin in view.coins.items()) if largest_sats else []
    most = params.batch_max_first_inputs
    if largest_sats <= sum(coin.value_sats for coin in coins[:most]):
        return []
    return [coin for coin in coins[most - 1 :] if coin.lineage is None][:most]


def _merge(view: LedgerView, drafting: Drafting, limit_sats: int, params: PegParams) -> Draft | None:
    """As many of them as the fund allows, if what they become is more than the largest of them."""
    coins = _mergeable(view, params)
    for count in range(len(coins), 1, -1):
        draft = drafting.draft(coins[:count], split=False)
        if draft is not None and draft.cost_sats <= limit_sats and max(draft.change_sats) > coins[0].value_sats:
            return draft
    return None
