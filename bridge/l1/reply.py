"""Typed fields of a JSON reply. What isn't as it should be is a bad response, never a guess."""

from decimal import Decimal
from typing import NoReturn

from bridge.bitcoin.amounts import MAX_MONEY_SATS
from bridge.bitcoin.identifiers import BlockHash, Script, Txid, hash_from_hex
from bridge.errors import MalformedError
from bridge.l1.errors import L1Reason, L1Unavailable

_DECIMALS = 8
_ABSENT = object()


class Reply:
    """One JSON value, with where it came from for the message of an error.

    Every reading method returns the value in this program's own form, or raises L1Unavailable(BAD_RESPONSE).
    """

    __slots__ = ("_value", "where")

    def __init__(self, value: object, where: str) -> None:
        self._value = value
        self.where = where

    def __getitem__(self, key: str) -> "Reply":
        """Return a field of an object; one that is absent fails when it is read."""
        return Reply(self._object().get(key, _ABSENT), f"{self.where}.{key}")

    def __contains__(self, key: str) -> bool:
        return key in self._object()

    @property
    def is_null(self) -> bool:
        """Whether the value is JSON's null."""
        return self._value is None

    def items(self) -> list["Reply"]:
        """Return the elements of a list."""
        if not isinstance(self._value, list):
            self._refuse("not a list")
        return [Reply(value, f"{self.where}[{index}]") for index, value in enumerate(self._value)]

    def only(self) -> "Reply":
        """Return the one element of a list."""
        elements = self.items()
        if len(elements) != 1:
            self._refuse("not a list of one")
        return elements[0]

    def text(self) -> str:
        """Return a string."""
        if not isinstance(self._value, str):
            self._refuse("not a string")
        return self._value

    def flag(self) -> bool:
        """Return a boolean."""
        if not isinstance(self._value, bool):
            self._refuse("not a boolean")
        return self._value

    def integer(self, minimum: int = 0, maximum: int = (1 << 63) - 1) -> int:
        """Return an integer from `minimum` to `maximum`."""
        if type(self._value) is not int or not minimum <= self._value <= maximum:
            self._refuse("not an integer in range")
        return self._value

    def sats(self) -> int:
        """Return an exact amount in satoshis of a number in bitcoin, from 0 to 21 million."""
        if type(self._value) is not int and not isinstance(self._value, Decimal):
            self._refuse("not an amount")
        amount = Decimal(self._value)
        exponent = amount.as_tuple().exponent
        if not amount.is_finite() or not isinstance(exponent, int) or exponent < -_DECIMALS:
            self._refuse("not a whole number of satoshis")
        if amount.is_signed() or not amount <= MAX_MONEY_SATS // 10**_DECIMALS:
            self._refuse("an amount out of range")
        return int(amount.scaleb(_DECIMALS))

    def data(self) -> bytes:
        """Return bytes shown in hex."""
        try:
            return bytes.fromhex(self.text())
        except ValueError:
            self._refuse("not hexadecimal")

    def script(self) -> Script:
        """Return an output script shown in hex."""
        return Script(self.data())

    def hash(self) -> bytes:
        """Return 32 bytes, internal order, of a hash shown reversed in hex."""
        try:
            return hash_from_hex(self.text())
        except MalformedError:
            self._refuse("not a hash")

    def txid(self) -> Txid:
        """Return a transaction id, internal order."""
        return Txid(self.hash())

    def block_hash(self) -> BlockHash:
        """Return a block hash, internal order."""
        return BlockHash(self.hash())

    def _object(self) -> dict[str, object]:
        if not isinstance(self._value, dict):
            self._refuse("not an object")
        return self._value

    def _refuse(self, fault: str) -> NoReturn:
        raise L1Unavailable(L1Reason.BAD_RESPONSE, f"{self.where}: {'absent' if self._value is _ABSENT else fault}")
