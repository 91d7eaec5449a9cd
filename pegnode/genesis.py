"""The genesis: every parameter that the members agreed on, and the chain identity that commits to them."""

from pathlib import Path
from typing import Self

import msgspec

from bridge.bitcoin.hashes import tagged_hash
from pegnode.chain.parameters import ChainRules, RhythmParams


class L1Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which Bitcoin chain the peg is to. Hashes as Bitcoin shows them (reversed hex)."""

    network: str
    genesis_hash_hex: str
    anchor_height: int
    anchor_hash_hex: str


class MemberSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One member, at its index. Keys are x-only public keys in hex."""

    name: str
    vote_key_hex: str
    custody_key_hex: str
    peer_id: str


class Genesis(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Every parameter of a chain. Two chains with the same genesis are the same chain."""

    version: int
    time_ms: int
    l1: L1Section
    members: tuple[MemberSection, ...]
    recovery_keys_hex: tuple[str, ...]
    peg: dict[str, int]
    chain: dict[str, int]
    rhythm: dict[str, int]

    @property
    def canonical_bytes(self) -> bytes:
        """The one encoding that the chain id commits to."""
        return msgspec.json.encode(self, order="sorted")

    @property
    def chain_id(self) -> bytes:
        """32 bytes."""
        return tagged_hash("pegnode/chain-id", self.canonical_bytes)

    @classmethod
    def load(cls, path: Path) -> Self:
        """The genesis in a JSON file; raises GenesisRefused."""
        raise NotImplementedError

    def rules(self) -> ChainRules:
        """The rules of the chain; raises GenesisRefused."""
        raise NotImplementedError

    def rhythm_params(self) -> RhythmParams:
        """When members act; raises GenesisRefused."""
        raise NotImplementedError
