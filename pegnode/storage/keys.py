"""The keys of the store. Numbers are big-endian, so that RocksDB's order of bytes is the order of the chain."""

from dataclasses import dataclass
from typing import Self

from bridge.bitcoin.identifiers import HASH_SIZE, OutPoint, Txid
from bridge.errors import MalformedError
from federation.equivocation import Equivocation

HEIGHT_SIZE = 8
POSITION_SIZE = 4
PLACE_SIZE = HEIGHT_SIZE + POSITION_SIZE


def height_key(height: int) -> bytes:
    """8 bytes."""
    return height.to_bytes(HEIGHT_SIZE, "big")


def height_from_key(key: bytes) -> int:
    """The height in 8 bytes; raises MalformedError."""
    if len(key) != HEIGHT_SIZE:
        raise MalformedError(f"a height key of {len(key)} bytes")
    return int.from_bytes(key, "big")


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where a transaction stands in the chain. height: of its block, u64; position: in its block, u32."""

    height: int
    position: int

    def encode(self) -> bytes:
        """12 bytes, ordered as the chain is."""
        return self.height.to_bytes(HEIGHT_SIZE, "big") + self.position.to_bytes(POSITION_SIZE, "big")

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """The place of exactly 12 bytes; raises MalformedError."""
        if len(data) != PLACE_SIZE:
            raise MalformedError(f"a place of {len(data)} bytes")
        return cls(int.from_bytes(data[:HEIGHT_SIZE], "big"), int.from_bytes(data[HEIGHT_SIZE:], "big"))


def history_key(script_hash: bytes, place: Place) -> bytes:
    """44 bytes: sha256 of the script, then where the transaction stands."""
    return script_hash + place.encode()


def place_from_history_key(key: bytes) -> Place:
    """The place in a history key; raises MalformedError."""
    return Place.decode(key[HASH_SIZE:])


def outpoint_from_key(key: bytes) -> OutPoint:
    """The outpoint in 36 bytes; raises MalformedError."""
    return OutPoint.decode(key)


def txid_from_key(key: bytes) -> Txid:
    """The txid in 32 bytes; raises MalformedError."""
    if len(key) != HASH_SIZE:
        raise MalformedError(f"a txid of {len(key)} bytes")
    return Txid(key)


def equivocation_key(equivocation: Equivocation) -> bytes:
    """16 bytes: member u16, epoch u32, view u64, the kinds of both votes u8: there is one proof of each."""
    member, epoch = equivocation.member.to_bytes(2, "big"), equivocation.epoch.to_bytes(4, "big")
    return member + epoch + height_key(equivocation.view) + bytes(equivocation.kinds)
