"""The reserve's scripts: who may spend the bitcoin that is locked on L1, and by which witness.

Every reserve script is P2TR with the descriptor `tr(P,{multi_a(q,members),and_v(v:older(T),multi_a(r,recovery))})`, so
that any Bitcoin node can derive, watch and audit it. P is nobody's key: a point without known logarithm, moved by a
tagged hash of the chain, the epoch and the claim script, so that a deposit's output commits to whom it credits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

from bitcoin.core import script as opcodes

from bridge.bitcoin import curve
from bridge.bitcoin.hashes import tagged_hash
from bridge.bitcoin.identifiers import HASH_SIZE, Script
from bridge.bitcoin.script import classify, push
from bridge.bitcoin.taproot import control_block, output_key, output_script, tapbranch_hash, tapleaf_hash
from bridge.bitcoin.transaction import WITNESS_SCALE_FACTOR, compact_size
from bridge.codec import Writer
from bridge.errors import Reason, Rejected

MAX_WITNESS_SIZE = 1650
"""Bytes of an input's witness that every node relays: 13 of 19 fit, 14 of 20 don't. Core would take more.

Source: Bitcoin Knots, default of -maxscriptsize.
"""
MAX_KEYS = 43
"""Of members, and of recovery: more don't fit such a witness even with a quorum of one."""
MAX_RELATIVE_BLOCKS = 0xFFFF
"""The longest relative lock that counts blocks. Source: BIP68."""

# An input without its witness: outpoint, length of an empty script, sequence.
_INPUT_SIZE = 32 + 4 + 1 + 4
_CONTROL_BLOCK_SIZE = 33 + 32
_OP_CHECKSIGADD = 0xBA
"""Source: BIP342."""


class CoinKind(IntEnum):
    """What a reserve coin is: u8 in every encoding."""

    DEPOSIT = 1
    CHANGE = 2
    DONATION = 3


class CustodyReason(Reason):
    """Why a policy or a witness is refused."""

    CHAIN_ID_SIZE = "custody-chain-id-size"  # The chain id has not 32 bytes.
    EPOCH_OUT_OF_RANGE = "custody-epoch-out-of-range"
    """The epoch is no u32, or a policy stands under another epoch than its own."""
    KEY_COUNT = "custody-key-count"  # No member or recovery keys, or more than 43 of one kind.
    QUORUM_OUT_OF_RANGE = "custody-quorum-out-of-range"  # A quorum of none, or of more than there are keys.
    INVALID_KEY = "custody-invalid-key"  # A key is no point of the curve.
    REPEATED_KEY = "custody-repeated-key"  # One key stands twice among members' and recovery's.
    WITNESS_SIZE = "custody-witness-size"  # The witness of a leaf is longer than every node relays.
    TIMELOCK_OUT_OF_RANGE = "custody-timelock-out-of-range"  # The recovery's wait is not 1 to 65,535 blocks.
    CLAIM_SCRIPT = "custody-claim-script"
    """A deposit's claim script is none of the five types, or another kind has one."""
    SIGNATURE_COUNT = "custody-signature-count"  # Not exactly a quorum of signatures, or not one place for each key.
    SIGNATURE_SIZE = "custody-signature-size"  # A signature has not 64 bytes.
    UNKNOWN_EPOCH = "custody-unknown-epoch"  # No policy is known of this epoch.


@dataclass(frozen=True, slots=True)
class CustodyPolicy:
    """Who may spend the reserve in one epoch; can't be made invalid: the constructor raises Rejected(CustodyReason).

    chain_id: 32 bytes; epoch: u32; member_keys and recovery_keys: x-only, 32 bytes each, all different, members in the
    order of their index; the recovery keys may spend once a coin is `recovery_timelock_blocks` old.
    """

    chain_id: bytes
    epoch: int
    quorum: int
    member_keys: tuple[bytes, ...]
    recovery_keys: tuple[bytes, ...]
    recovery_quorum: int
    recovery_timelock_blocks: int

    def __post_init__(self) -> None:
        if len(self.chain_id) != HASH_SIZE:
            raise Rejected(CustodyReason.CHAIN_ID_SIZE, f"{len(self.chain_id)} bytes")
        if not 0 <= self.epoch <= 0xFFFFFFFF:
            raise Rejected(CustodyReason.EPOCH_OUT_OF_RANGE, str(self.epoch))
        for keys, quorum in ((self.member_keys, self.quorum), (self.recovery_keys, self.recovery_quorum)):
            if not 1 <= len(keys) <= MAX_KEYS:
                raise Rejected(CustodyReason.KEY_COUNT, str(len(keys)))
            if not 1 <= quorum <= len(keys):
                raise Rejected(CustodyReason.QUORUM_OUT_OF_RANGE, f"{quorum} of {len(keys)}")
        if not 1 <= self.recovery_timelock_blocks <= MAX_RELATIVE_BLOCKS:
            raise Rejected(CustodyReason.TIMELOCK_OUT_OF_RANGE, str(self.recovery_timelock_blocks))
        everyone = self.member_keys + self.recovery_keys
        for key in everyone:
            if not curve.is_valid_x_only(key):
                raise Rejected(CustodyReason.INVALID_KEY, key.hex())
        if len(set(everyone)) != len(everyone):
            raise Rejected(CustodyReason.REPEATED_KEY, "one key twice among members and recovery")
        quorum_size = _witness_size(quorum_leaf_script(self), len(self.member_keys), self.quorum)
        recovery_size = _witness_size(recovery_leaf_script(self), len(self.recovery_keys), self.recovery_quorum)
        if max(quorum_size, recovery_size) > MAX_WITNESS_SIZE:
            raise Rejected(
                CustodyReason.WITNESS_SIZE, f"{quorum_size} and {recovery_size} bytes, not every node relays it"
            )


@dataclass(frozen=True, slots=True)
class ReserveScript:
    """One reserve script with all that spending it takes.

    internal_key: 32 bytes; leaf hashes: 32 bytes; control blocks: 65 bytes; descriptor: without its checksum.
    """

    policy: CustodyPolicy
    script: Script
    internal_key: bytes
    quorum_leaf: bytes
    recovery_leaf: bytes
    quorum_leaf_hash: bytes
    recovery_leaf_hash: bytes
    quorum_control_block: bytes
    recovery_control_block: bytes
    descriptor: str


@lru_cache(maxsize=4096)
def reserve_script(policy: CustodyPolicy, kind: CoinKind, claim_script: bytes = b"") -> ReserveScript:
    """The reserve script of one kind and, for a deposit, of the sidechain script that its claim pays.

    claim_script: one of the five types for DEPOSIT, empty for the others; else raises
    Rejected(CustodyReason.CLAIM_SCRIPT).
    """
    if kind is CoinKind.DEPOSIT and classify(claim_script) is None:
        raise Rejected(CustodyReason.CLAIM_SCRIPT, f"a claim can't pay {claim_script.hex()}")
    if kind is not CoinKind.DEPOSIT and claim_script:
        raise Rejected(CustodyReason.CLAIM_SCRIPT, f"{kind.name} credits nobody")
    internal_key = _internal_key(policy, kind, claim_script)
    quorum_leaf, recovery_leaf = quorum_leaf_script(policy), recovery_leaf_script(policy)
    quorum_hash, recovery_hash = tapleaf_hash(quorum_leaf), tapleaf_hash(recovery_leaf)
    key, parity = output_key(internal_key, tapbranch_hash(quorum_hash, recovery_hash))
    return ReserveScript(
        policy=policy,
        script=output_script(key),
        internal_key=internal_key,
        quorum_leaf=quorum_leaf,
        recovery_leaf=recovery_leaf,
        quorum_leaf_hash=quorum_hash,
        recovery_leaf_hash=recovery_hash,
        quorum_control_block=control_block(internal_key, parity, [recovery_hash]),
        recovery_control_block=control_block(internal_key, parity, [quorum_hash]),
        descriptor=_descriptor(policy, internal_key),
    )


def quorum_leaf_script(policy: CustodyPolicy) -> bytes:
    """The tapscript by which a quorum of members spends at any time."""
    return _multi_a(policy.quorum, policy.member_keys)


def recovery_leaf_script(policy: CustodyPolicy) -> bytes:
    """The tapscript by which the recovery keys spend a coin of the age of the timelock."""
    timelock = _push_number(policy.recovery_timelock_blocks)
    wait = timelock + bytes([opcodes.OP_CHECKSEQUENCEVERIFY, opcodes.OP_VERIFY])
    return wait + _multi_a(policy.recovery_quorum, policy.recovery_keys)


def quorum_witness(reserve: ReserveScript, signatures: Sequence[bytes | None]) -> tuple[bytes, ...]:
    """The witness that spends by the quorum leaf.

    signatures: one entry for each member in the order of their index, 64 bytes or None, exactly `quorum` of them given;
    else raises Rejected(CustodyReason). Whether they verify is not looked at.
    """
    policy = reserve.policy
    stack = _signature_stack(signatures, len(policy.member_keys), policy.quorum)
    return (*stack, reserve.quorum_leaf, reserve.quorum_control_block)


def recovery_witness(reserve: ReserveScript, signatures: Sequence[bytes | None]) -> tuple[bytes, ...]:
    """The witness that spends by the recovery leaf; the input's sequence must be at least the timelock.

    signatures: one entry for each recovery key in order, as for `quorum_witness`.
    """
    policy = reserve.policy
    stack = _signature_stack(signatures, len(policy.recovery_keys), policy.recovery_quorum)
    return (*stack, reserve.recovery_leaf, reserve.recovery_control_block)


@lru_cache(maxsize=64)
def quorum_input_weight(policy: CustodyPolicy) -> int:
    """The exact weight units of one input that spends a reserve coin by the quorum leaf, its witness included."""
    witness_size = _witness_size(quorum_leaf_script(policy), len(policy.member_keys), policy.quorum)
    return _INPUT_SIZE * WITNESS_SCALE_FACTOR + witness_size


@lru_cache(maxsize=64)
def recovery_input_weight(policy: CustodyPolicy) -> int:
    """The same of one input that spends a reserve coin by the recovery leaf."""
    witness_size = _witness_size(recovery_leaf_script(policy), len(policy.recovery_keys), policy.recovery_quorum)
    return _INPUT_SIZE * WITNESS_SCALE_FACTOR + witness_size


class Custody:
    """The policies of every epoch; at least one, else raises Rejected(CustodyReason.UNKNOWN_EPOCH)."""

    __slots__ = ("_open_scripts", "_policies")

    def __init__(self, policies: Mapping[int, CustodyPolicy]) -> None:
        if not policies:
            raise Rejected(CustodyReason.UNKNOWN_EPOCH, "no epoch has a policy")
        self._policies = dict(policies)
        for epoch, policy in self._policies.items():
            if policy.epoch != epoch:
                raise Rejected(CustodyReason.EPOCH_OUT_OF_RANGE, f"the policy of epoch {policy.epoch} as {epoch}'s")
        self._open_scripts = frozenset(
            reserve_script(policy, kind).script
            for policy in self._policies.values()
            for kind in (CoinKind.CHANGE, CoinKind.DONATION)
        )

    def policy(self, epoch: int) -> CustodyPolicy:
        """The policy of an epoch; raises Rejected(CustodyReason.UNKNOWN_EPOCH)."""
        policy = self._policies.get(epoch)
        if policy is None:
            raise Rejected(CustodyReason.UNKNOWN_EPOCH, str(epoch))
        return policy

    @property
    def policies(self) -> tuple[CustodyPolicy, ...]:
        """The policy of each epoch."""
        return tuple(self._policies.values())

    @property
    def newest(self) -> CustodyPolicy:
        """The policy of the highest epoch: change goes to its script."""
        return self._policies[max(self._policies)]

    def as_of(self, epoch: int) -> "Custody":
        """As it was while `epoch` was the newest; raises Rejected(CustodyReason.UNKNOWN_EPOCH)."""
        if self.policy(epoch) is self.newest:
            return self
        return Custody({number: policy for number, policy in self._policies.items() if number <= epoch})

    def is_reserve_script(self, script: bytes) -> bool:
        """Whether this is the change or donation script of any epoch.

        A deposit's script shows nobody what it is until its claim script is named; the ledger knows those with coins.
        """
        return script in self._open_scripts


def _internal_key(policy: CustodyPolicy, kind: CoinKind, claim_script: bytes) -> bytes:
    """NUMS + H(NUMS, chain, epoch, claim script)·G: it proves that it is nobody's key, and what it is bound to."""
    bound = Writer().fixed(curve.NUMS, curve.KEY_SIZE).fixed(policy.chain_id, HASH_SIZE).u32(policy.epoch)
    scalar = tagged_hash(f"pegnode/custody/{kind.name.lower()}", bound.variable(claim_script).finish())
    key, _ = curve.tweak_add(curve.NUMS, scalar)
    return key


def _multi_a(quorum: int, keys: Sequence[bytes]) -> bytes:
    """Exactly `quorum` signatures by different keys. Source: BIP387."""
    first, *others = keys
    script = push(first) + bytes([opcodes.OP_CHECKSIG])
    script += b"".join(push(key) + bytes([_OP_CHECKSIGADD]) for key in others)
    return script + _push_number(quorum) + bytes([opcodes.OP_NUMEQUAL])


def _push_number(value: int) -> bytes:
    """The shortest operation that pushes a positive number."""
    return bytes(opcodes.CScript([value]))


def _signature_stack(signatures: Sequence[bytes | None], key_count: int, quorum: int) -> tuple[bytes, ...]:
    """The stack under the leaf: the script checks the first key first, so its signature lies on top."""
    given = [signature for signature in signatures if signature is not None]
    if len(signatures) != key_count or len(given) != quorum:
        raise Rejected(CustodyReason.SIGNATURE_COUNT, f"{len(given)} signatures, {len(signatures)} places")
    if any(len(signature) != curve.SIGNATURE_SIZE for signature in given):
        raise Rejected(CustodyReason.SIGNATURE_SIZE, f"a signature has {curve.SIGNATURE_SIZE} bytes")
    return tuple(signature or b"" for signature in reversed(signatures))


def _witness_size(leaf: bytes, key_count: int, quorum: int) -> int:
    """Bytes of a witness that spends by `leaf`: the count, signatures, empty places, leaf and control block."""
    signatures_size = quorum * (1 + curve.SIGNATURE_SIZE) + (key_count - quorum)
    leaf_size = len(compact_size(len(leaf))) + len(leaf)
    return len(compact_size(key_count + 2)) + signatures_size + leaf_size + 1 + _CONTROL_BLOCK_SIZE


def _descriptor(policy: CustodyPolicy, internal_key: bytes) -> str:
    members = ",".join(key.hex() for key in policy.member_keys)
    recovery = ",".join(key.hex() for key in policy.recovery_keys)
    by_quorum = f"multi_a({policy.quorum},{members})"
    by_recovery = f"and_v(v:older({policy.recovery_timelock_blocks}),multi_a({policy.recovery_quorum},{recovery}))"
    return f"tr({internal_key.hex()},{{{by_quorum},{by_recovery}}})"
