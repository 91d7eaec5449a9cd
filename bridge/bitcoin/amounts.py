"""Money: whole satoshis inside, decimal bitcoin only in text."""

from bridge.errors import Reason, Rejected

COIN = 100_000_000
"""Satoshis in one bitcoin."""
MAX_MONEY_SATS = 21_000_000 * COIN
"""No amount is above this. Source: Bitcoin Core, consensus/amount.h."""

_DECIMALS = 8


class AmountReason(Reason):
    """Why a text is not an amount."""

    MALFORMED = "amount-malformed"  # Not a decimal number of BTC.
    TOO_MANY_DECIMALS = "amount-too-many-decimals"  # More than eight decimals.
    OUT_OF_RANGE = "amount-out-of-range"  # More than 21 million BTC.


def parse_btc(text: str) -> int:
    """Satoshis of a plain decimal amount of bitcoin such as "0.5": no sign, exponent, space or separator.

    Raises Rejected(AmountReason).
    """
    whole, point, fraction = text.partition(".")
    digits = (whole, fraction) if point else (whole,)
    if not all(part.isascii() and part.isdecimal() for part in digits):
        raise Rejected(AmountReason.MALFORMED, "an amount is written in digits, with at most one point between them")
    if len(fraction) > _DECIMALS:
        raise Rejected(AmountReason.TOO_MANY_DECIMALS, "a satoshi is the eighth decimal")
    if len(whole.lstrip("0")) > _DECIMALS:
        raise Rejected(AmountReason.OUT_OF_RANGE, "more than 21 million bitcoin")
    value_sats = int(whole[-_DECIMALS:]) * COIN + int(fraction.ljust(_DECIMALS, "0"))
    if value_sats > MAX_MONEY_SATS:
        raise Rejected(AmountReason.OUT_OF_RANGE, "more than 21 million bitcoin")
    return value_sats


def format_btc(value_sats: int) -> str:
    """The amount in bitcoin with all eight decimals, such as "0.50000000"; what `parse_btc` reads back."""
    sign = "-" if value_sats < 0 else ""
    whole, fraction = divmod(abs(value_sats), COIN)
    return f"{sign}{whole}.{fraction:0{_DECIMALS}d}"


def fee_sats(vsize_vbytes: int, feerate_sat_kvb: int) -> int:
    """The least fee that pays `feerate_sat_kvb` satoshis per 1000 virtual bytes, rounded up."""
    return -(-vsize_vbytes * feerate_sat_kvb // 1000)
