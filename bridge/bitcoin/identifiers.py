"""Names of things on either chain, as raw bytes in the order in which they are hashed.

Bitcoin shows hashes reversed; that form exists only at the RPC and CLI edge, under names that end in `_hex`.
"""

from dataclasses import dataclass
from typing import NewType

from bridge.errors import MalformedError

Txid = NewType("Txid", bytes)
"""32 bytes: sha256d of a transaction without its witness."""
BlockHash = NewType("BlockHash", bytes)
"""32 bytes: sha256d of an L1 header, or the tagged hash of a sidechain header."""
Script = NewType("Script", bytes)
"""An output script (scriptPubKey)."""

HASH_SIZE = 32
OUTPOINT_SIZE = 36


@dataclass(frozen=True, slots=True, order=True)
class OutPoint:
    """One output of one transaction. txid: 32 bytes, internal order; vout: u32."""

    txid: Txid
    vout: int

    def encode(self) -> bytes:
        """36 bytes: txid, then the index as u32 little-endian, as Bitcoin serializes it."""
        return self.txid + self.vout.to_bytes(4, "little")

    @classmethod
    def decode(cls, data: bytes) -> "OutPoint":
        """The outpoint of exactly 36 bytes; raises MalformedError."""
        if len(data) != OUTPOINT_SIZE:
            raise MalformedError(f"an outpoint of {len(data)} bytes")
        return cls(Txid(data[:HASH_SIZE]), int.from_bytes(data[HASH_SIZE:], "little"))

    def __str__(self) -> str:
        return f"{hash_to_hex(self.txid)}:{self.vout}"


def hash_to_hex(value: bytes) -> str:
    """A hash as Bitcoin shows it: reversed, in hex."""
    return value[::-1].hex()


def hash_from_hex(value_hex: str) -> bytes:
    """The 32 bytes of a hash shown reversed in hex; raises MalformedError."""
    try:
        value = bytes.fromhex(value_hex)
    except ValueError as error:
        raise MalformedError("not hexadecimal") from error
    if len(value) != HASH_SIZE or len(value_hex) != 2 * HASH_SIZE:
        raise MalformedError(f"a hash is 64 hexadecimal digits, not {len(value_hex)}")
    return value[::-1]


def outpoint_from_text(text: str) -> OutPoint:
    """The outpoint written `txid_hex:vout`; raises MalformedError."""
    txid_hex, colon, vout = text.partition(":")
    if not colon or not vout.isascii() or not vout.isdecimal() or len(vout) > 10 or int(vout) > 0xFFFFFFFF:
        raise MalformedError("an outpoint is written txid:vout")
    return OutPoint(Txid(hash_from_hex(txid_hex)), int(vout))
