"""The reserve's scripts: who may spend the bitcoin that is locked on L1, and by which witness.

Every reserve script is P2TR with the descriptor `tr(P,{multi_a(q,members...),and_v(v:older(T),multi_a(r,recovery...))})`
so that any Bitcoin node can derive, watch and audit it. P is nobody's key: a point without known logarithm, moved by
a tagged hash of the chain, the epoch and the claim script, so that a deposit's output commits to whom it credits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property, lru_cache

from bitcoin.core import script as opcodes
from bitcoin.core._bignum import bn2vch

from bridge.bitcoin import curve
from bridge.bitcoin.hashes import tagged_hash
from bridge.bitcoin.identifiers import HASH_SIZE, Script
from bridge.bitcoin.script import push
from bridge.bitcoin.taproot import control_block, output_key, output_script, tapbranch_hash, tapleaf_hash
from bridge.bitcoin.transaction import WITNESS_SCALE_FACTOR, compact_size
from bridge.codec import Writer
from bridge.errors import Reason, Rejected

MAX_MEMBERS = 100
MAX_RELATIVE_BLOCKS = 0xFFFF
"""The longest relative lock that counts blocks. Source: BIP68."""


class CoinKind(IntEnum):
    """What a reserve coin is: u8 in every encoding."""

    DEPOSIT = 1
    CHANGE = 2
    DONATION = 3


class CustodyReason(Reason):
    """Why a policy or a witness is refused."""

    CHAIN_ID_SIZE = "custody-chain-id-size"
    EPOCH_OUT_OF_RANGE = "custody-epoch-out-of-range"
    NO_MEMBERS = "custody-no-members"
    TOO_MANY_MEMBERS = "custody-too-many-members"
    QUORUM_OUT_OF_RANGE = "custody-quorum-out-of-range"
    INVALID_KEY = "custody-invalid-key"
    REPEATED_KEY = "custody-repeated-key"
    TIMELOCK_OUT_OF_RANGE = "custody-timelock-out-of-range"
    CLAIM_SCRIPT = "custody-claim-script"
    SIGNATURE_COUNT = "custody-signature-count"
    SIGNATURE_SIZE = "custody-signature-size"
    UNKNOWN_EPOCH = "custody-unknown-epoch"


@dataclass(frozen=True, slots=True)
class CustodyPolicy:
    """Who may spend the reserve in one epoch.

    chain_id: 32 bytes; epoch: u32; member_keys and recovery_keys: x-only, 32 bytes each, members in the order of their
    index.
    """

    chain_id: bytes
    epoch: int
    quorum: int
    member_keys: tuple[bytes, ...]
    recovery_keys: tuple[bytes, ...]
    recovery_quorum: int
    recovery_timelock_blocks: int


@dataclass(frozen=True, slots=True)
class ReserveScript:
    """One reserve script with all that spending it takes.

    internal_key: 32 bytes; control blocks: 65 bytes; descriptor: without its checksum.
    """

    script: Script
    internal_key: bytes
    quorum_leaf: bytes
    recovery_leaf: bytes
    quorum_control_block: bytes
    recovery_control_block: bytes
    descriptor: str
