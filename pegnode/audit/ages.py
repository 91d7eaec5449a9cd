"""How long the reserve's coins have lain still, against the time after which the recovery keys may spend them.  (pure)

A coin's age is its number of confirmations: at the age T of its epoch's timelock, the next block may hold a recovery.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from bridge.bitcoin.amounts import format_btc
from pegnode.audit.reserve import Row


@dataclass(frozen=True, slots=True)
class Ages:
    """Of the coins that L1 holds. oldest_blocks: 0 without coins.  earliest_recovery_l1_height: None without coins.

    past_half_sats, past_three_quarters_sats, mature_sats: what coins are worth that are at least T/2, 3T/4 and T old;
    each is a part of the one before.
    """

    oldest_blocks: int
    earliest_recovery_l1_height: int | None
    past_half_sats: int
    past_three_quarters_sats: int
    mature_sats: int
    warnings: tuple[str, ...]


def ages(rows: Sequence[Row]) -> Ages:
    """The ages of the ledger's coins among `rows`, and a warning for each mark that some have passed."""
    coins = [row for row in rows if row.is_coin and row.on_l1]
    half, three_quarters, mature = ([row for row in coins if _is_past(row, quarters)] for quarters in (2, 3, 4))
    young_half = [row for row in half if not _is_past(row, 3)]
    late = [row for row in three_quarters if not _is_past(row, 4)]
    texts = (
        (mature, "past the whole recovery timelock: the recovery keys may spend them now"),
        (late, "past three quarters of the recovery timelock"),
        (young_half, "past half of the recovery timelock"),
    )
    return Ages(
        oldest_blocks=max((row.confirmations for row in coins), default=0),
        earliest_recovery_l1_height=min((row.recovery_l1_height for row in coins), default=None),
        past_half_sats=_sum(half),
        past_three_quarters_sats=_sum(three_quarters),
        mature_sats=_sum(mature),
        warnings=tuple(_warning(some, text) for some, text in texts if some),
    )


def _is_past(row: Row, quarters: int) -> bool:
    return 4 * row.confirmations >= quarters * (row.recovery_l1_height - row.l1_height)


def _sum(rows: Sequence[Row]) -> int:
    return sum(row.value_sats for row in rows)


def _warning(rows: Sequence[Row], text: str) -> str:
    count = "1 coin" if len(rows) == 1 else f"{len(rows)} coins"
    height = min(row.recovery_l1_height for row in rows)
    return f"{count}, {format_btc(_sum(rows))} BTC, {text}; the first can be recovered at L1 height {height}"
