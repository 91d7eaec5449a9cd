"""Bech32 (BIP173) and Bech32m (BIP350): text of a human-readable part, a "1", and symbols of 5 bits with a checksum.

python-bitcoinlib knows the first only; its polynomial and its regrouping of bits serve both.
"""

from bitcoin.segwit_addr import CHARSET, bech32_hrp_expand, bech32_polymod, convertbits

from bridge.errors import MalformedError

BECH32 = 1
"""What the polynomial leaves of a valid Bech32 string."""
BECH32M = 0x2BC830A3
"""What the polynomial leaves of a valid Bech32m string."""
MAX_LENGTH = 90

_CHECKSUM_SYMBOLS = 6
_SYMBOL_BITS = 5


def encode(hrp: str, symbols: list[int], constant: int) -> str:
    """The text of `symbols` (5 bits each) in lower case. constant: BECH32 or BECH32M."""
    expanded = bech32_hrp_expand(hrp) + symbols + [0] * _CHECKSUM_SYMBOLS
    remainder = bech32_polymod(expanded) ^ constant
    checksum = [remainder >> _SYMBOL_BITS * (_CHECKSUM_SYMBOLS - 1 - i) & 31 for i in range(_CHECKSUM_SYMBOLS)]
    return hrp + "1" + "".join(CHARSET[symbol] for symbol in symbols + checksum)


def decode(text: str) -> tuple[str, list[int], int]:
    """Human-readable part in lower case, symbols without the checksum, and what the polynomial leaves.

    The caller compares the last with BECH32 or BECH32M. Raises MalformedError for text of neither form.
    """
    if len(text) > MAX_LENGTH or any(not 33 <= ord(character) <= 126 for character in text):
        raise MalformedError(f"not at most {MAX_LENGTH} printable characters")
    if text.lower() != text and text.upper() != text:
        raise MalformedError("upper and lower case are mixed")
    hrp, separator, data = text.lower().rpartition("1")
    if not separator or not hrp or len(data) < _CHECKSUM_SYMBOLS:
        raise MalformedError("no human-readable part, or no room for the checksum")
    symbols = [CHARSET.find(character) for character in data]
    if -1 in symbols:
        raise MalformedError("a character outside the alphabet")
    return hrp, symbols[:-_CHECKSUM_SYMBOLS], int(bech32_polymod(bech32_hrp_expand(hrp) + symbols))


def to_symbols(data: bytes) -> list[int]:
    """Bytes as symbols of 5 bits, the last padded with zeros."""
    return list(convertbits(data, 8, _SYMBOL_BITS))


def from_symbols(symbols: list[int]) -> bytes:
    """The bytes in symbols of 5 bits; raises MalformedError for padding of 5 bits or more, or other than zeros."""
    data = convertbits(symbols, _SYMBOL_BITS, 8, pad=False)
    if data is None:
        raise MalformedError("padding that is too long or not zero")
    return bytes(data)
