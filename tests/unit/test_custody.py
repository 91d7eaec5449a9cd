"""Reserve scripts: whom they bind, and the witnesses that spend them through the kernel."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.bitcoin import curve
from bridge.bitcoin.hashes import sha256, tagged_hash
from bridge.bitcoin.identifiers import OutPoint, Script, Txid
from bridge.bitcoin.script import ScriptReason, require_standard_witness
from bridge.bitcoin.script_engine import verify_scripts
from bridge.bitcoin.taproot import script_path_sighash
from bridge.bitcoin.transaction import Transaction, TxIn, TxOut
from bridge.custody import (
    CoinKind,
    Custody,
    CustodyPolicy,
    CustodyReason,
    ReserveScript,
    quorum_input_weight,
    quorum_leaf_script,
    quorum_witness,
    recovery_leaf_script,
    recovery_witness,
    reserve_script,
)
from bridge.errors import Rejected

CLAIM = b"\x00\x14" + bytes(20)
SECRETS = [sha256(b"%d" % index) for index in range(20)]
KEYS = [curve.x_only(secret) for secret in SECRETS]


def _policy(size: int = 4, epoch: int = 0, **changes: Any) -> CustodyPolicy:
    policy = CustodyPolicy(
        chain_id=sha256(b"chain"),
        epoch=epoch,
        quorum=size - (size - 1) // 3,
        member_keys=tuple(KEYS[:size]),
        recovery_keys=tuple(KEYS[-3:]),
        recovery_quorum=2,
        recovery_timelock_blocks=4032,
    )
    return replace(policy, **changes)


def _reason(call: Any, *arguments: Any, **changes: Any) -> CustodyReason:
    with pytest.raises(Rejected) as rejection:
        call(*arguments, **changes)
    assert isinstance(rejection.value.reason, CustodyReason)
    return rejection.value.reason


def _spend(reserve: ReserveScript, sequence: int = 0xFFFFFFFD) -> tuple[Transaction, list[TxOut]]:
    txin = TxIn(OutPoint(Txid(b"\x01" * 32), 0), sequence=sequence)
    return Transaction(2, (txin,), (TxOut(9000, Script(CLAIM)),)), [TxOut(10_000, reserve.script)]


def _signatures(
    transaction: Transaction, prevouts: list[TxOut], leaf_hash: bytes, secrets: Sequence[bytes | None]
) -> list[bytes | None]:
    digest = script_path_sighash(transaction, 0, prevouts, leaf_hash)
    return [None if secret is None else curve.schnorr_sign(secret, digest, bytes(32)) for secret in secrets]


POLICY = _policy()
RESERVE = reserve_script(POLICY, CoinKind.CHANGE)


@given(st.sets(st.integers(0, 14), min_size=11, max_size=11))
def test_any_quorum_of_fifteen_spends(signers: set[int]) -> None:
    reserve = reserve_script(_policy(15), CoinKind.DEPOSIT, CLAIM)
    transaction, prevouts = _spend(reserve)
    secrets = [SECRETS[index] if index in signers else None for index in range(15)]
    witness = quorum_witness(reserve, _signatures(transaction, prevouts, reserve.quorum_leaf_hash, secrets))
    signed = transaction.with_witnesses([witness])
    require_standard_witness(signed, prevouts)
    verify_scripts(signed, prevouts)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 10, 15])
def test_weight_of_an_input_is_predicted(size: int) -> None:
    reserve = reserve_script(_policy(size), CoinKind.CHANGE)
    transaction, prevouts = _spend(reserve)
    secrets = [*SECRETS[: reserve.policy.quorum], *[None] * (size - reserve.policy.quorum)]
    witness = quorum_witness(reserve, _signatures(transaction, prevouts, reserve.quorum_leaf_hash, secrets))
    signed = transaction.with_witnesses([witness])
    verify_scripts(signed, prevouts)
    assert signed.weight == 4 * (transaction.stripped_size - 41) + 2 + quorum_input_weight(reserve.policy)


@pytest.mark.parametrize(("size", "weight"), [(4, 566), (15, 1465)])
def test_weight_of_an_input_is_known(size: int, weight: int) -> None:
    assert quorum_input_weight(_policy(size)) == weight


@pytest.mark.parametrize("absent", [0, 1, 2])
def test_two_recovery_keys_spend_after_the_timelock(absent: int) -> None:
    secrets: list[bytes | None] = list(SECRETS[-3:])
    secrets[absent] = None
    for sequence, opens in ((4031, False), (4032, True), (4033, True), (4032 | 1 << 22, False), (0xFFFFFFFD, False)):
        transaction, prevouts = _spend(RESERVE, sequence)
        witness = recovery_witness(RESERVE, _signatures(transaction, prevouts, RESERVE.recovery_leaf_hash, secrets))
        signed = transaction.with_witnesses([witness])
        require_standard_witness(signed, prevouts)
        if opens:
            verify_scripts(signed, prevouts)
        else:
            with pytest.raises(Rejected) as rejection:
                verify_scripts(signed, prevouts)
            assert rejection.value.reason is ScriptReason.SCRIPT_FAILED


def test_recovery_needs_version_2() -> None:
    transaction, prevouts = _spend(RESERVE, 4032)
    transaction = replace(transaction, version=1)
    signatures = _signatures(transaction, prevouts, RESERVE.recovery_leaf_hash, [*SECRETS[-3:-1], None])
    with pytest.raises(Rejected, match="script-failed"):
        verify_scripts(transaction.with_witnesses([recovery_witness(RESERVE, signatures)]), prevouts)


def test_signatures_in_the_wrong_order_do_not_spend() -> None:
    transaction, prevouts = _spend(RESERVE)
    first, second, third = _signatures(transaction, prevouts, RESERVE.quorum_leaf_hash, SECRETS[:3])
    verify_scripts(transaction.with_witnesses([quorum_witness(RESERVE, [first, second, third, None])]), prevouts)
    with pytest.raises(Rejected, match="script-failed"):
        verify_scripts(transaction.with_witnesses([quorum_witness(RESERVE, [second, first, third, None])]), prevouts)


def test_members_do_not_spend_by_the_recovery_leaf() -> None:
    transaction, prevouts = _spend(RESERVE, 4032)
    signatures = _signatures(transaction, prevouts, RESERVE.recovery_leaf_hash, [*SECRETS[:2], None])
    with pytest.raises(Rejected, match="script-failed"):
        verify_scripts(transaction.with_witnesses([recovery_witness(RESERVE, signatures)]), prevouts)


@pytest.mark.parametrize("count", [0, 2, 4])
def test_witness_is_refused_without_exactly_a_quorum(count: int) -> None:
    signatures = [bytes(64)] * count + [None] * (4 - count)
    assert _reason(quorum_witness, RESERVE, signatures) is CustodyReason.SIGNATURE_COUNT


@pytest.mark.parametrize("places", [3, 5])
def test_witness_is_refused_without_a_place_for_each_key(places: int) -> None:
    signatures = [bytes(64)] * 3 + [None] * (places - 3)
    assert _reason(quorum_witness, RESERVE, signatures) is CustodyReason.SIGNATURE_COUNT


def test_recovery_witness_is_refused_without_exactly_its_quorum() -> None:
    assert _reason(recovery_witness, RESERVE, [bytes(64)] * 3) is CustodyReason.SIGNATURE_COUNT
    assert _reason(recovery_witness, RESERVE, [bytes(64), None, None]) is CustodyReason.SIGNATURE_COUNT


@pytest.mark.parametrize("size", [0, 63, 65])
def test_witness_is_refused_with_a_signature_of_another_size(size: int) -> None:
    signatures = [bytes(64), bytes(64), bytes(size), None]
    assert _reason(quorum_witness, RESERVE, signatures) is CustodyReason.SIGNATURE_SIZE


def test_scripts_differ_by_kind_claim_epoch_chain_and_keys() -> None:
    policies = [
        POLICY,
        _policy(epoch=1),
        _policy(chain_id=sha256(b"another")),
        _policy(15),
        _policy(quorum=2),
        _policy(recovery_timelock_blocks=4033),
        _policy(recovery_quorum=1),
        _policy(member_keys=(*POLICY.member_keys[1:], POLICY.member_keys[0])),
    ]
    scripts = {
        reserve_script(policy, kind).script for policy in policies for kind in (CoinKind.CHANGE, CoinKind.DONATION)
    }
    scripts |= {
        reserve_script(policy, CoinKind.DEPOSIT, claim).script
        for policy in policies
        for claim in (CLAIM, b"\x00\x14" + b"\x01" * 20, b"\x51\x20" + bytes(32))
    }
    assert len(scripts) == len(policies) * 5


def test_internal_key_is_the_point_that_anyone_can_recompute() -> None:
    scalar = tagged_hash(
        "pegnode/custody/deposit",
        curve.NUMS + POLICY.chain_id + (0).to_bytes(4, "little") + len(CLAIM).to_bytes(4, "little") + CLAIM,
    )
    reserve = reserve_script(POLICY, CoinKind.DEPOSIT, CLAIM)
    assert reserve.internal_key == curve.tweak_add(curve.NUMS, scalar)[0]
    assert reserve.descriptor.startswith(f"tr({reserve.internal_key.hex()},{{multi_a(3,{KEYS[0].hex()},")


def test_leaves_are_what_the_descriptor_says() -> None:
    first, second, third = (b"\x20" + key for key in KEYS[:3])
    policy = _policy(3, quorum=2)
    assert quorum_leaf_script(policy) == first + b"\xac" + second + b"\xba" + third + b"\xba" + b"\x52\x9c"
    tail = b"".join(b"\x20" + key + code for key, code in zip(KEYS[-3:], (b"\xac", b"\xba", b"\xba"), strict=True))
    assert recovery_leaf_script(policy) == b"\x02\xc0\x0f\xb2\x69" + tail + b"\x52\x9c"


@pytest.mark.parametrize(
    ("blocks", "operation"),
    [(1, "51"), (16, "60"), (17, "0111"), (128, "028000"), (144, "029000"), (65535, "03ffff00")],
)
def test_timelock_is_pushed_as_a_number(blocks: int, operation: str) -> None:
    assert recovery_leaf_script(_policy(recovery_timelock_blocks=blocks)).hex().startswith(operation + "b269")


@pytest.mark.parametrize("claim_script", [b"", b"\x51", b"\x6a", b"\x52\x20" + bytes(32)])
def test_deposit_is_refused_without_a_claim_script_of_the_five_types(claim_script: bytes) -> None:
    assert _reason(reserve_script, POLICY, CoinKind.DEPOSIT, claim_script) is CustodyReason.CLAIM_SCRIPT


@pytest.mark.parametrize("kind", [CoinKind.CHANGE, CoinKind.DONATION])
def test_claim_script_is_refused_where_nobody_is_credited(kind: CoinKind) -> None:
    assert _reason(reserve_script, POLICY, kind, CLAIM) is CustodyReason.CLAIM_SCRIPT


MANY = tuple(curve.x_only(sha256(b"many %d" % index)) for index in range(44))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"chain_id": bytes(31)}, CustodyReason.CHAIN_ID_SIZE),
        ({"epoch": -1}, CustodyReason.EPOCH_OUT_OF_RANGE),
        ({"epoch": 2**32}, CustodyReason.EPOCH_OUT_OF_RANGE),
        ({"member_keys": ()}, CustodyReason.KEY_COUNT),
        ({"member_keys": MANY}, CustodyReason.KEY_COUNT),
        ({"recovery_keys": ()}, CustodyReason.KEY_COUNT),
        ({"recovery_keys": MANY}, CustodyReason.KEY_COUNT),
        ({"quorum": 0}, CustodyReason.QUORUM_OUT_OF_RANGE),
        ({"quorum": 5}, CustodyReason.QUORUM_OUT_OF_RANGE),
        ({"recovery_quorum": 0}, CustodyReason.QUORUM_OUT_OF_RANGE),
        ({"recovery_quorum": 4}, CustodyReason.QUORUM_OUT_OF_RANGE),
        ({"recovery_timelock_blocks": 0}, CustodyReason.TIMELOCK_OUT_OF_RANGE),
        ({"recovery_timelock_blocks": 65_536}, CustodyReason.TIMELOCK_OUT_OF_RANGE),
        ({"member_keys": (*KEYS[:3], bytes(32))}, CustodyReason.INVALID_KEY),
        ({"recovery_keys": (*KEYS[4:6], b"\x02" + KEYS[7])}, CustodyReason.INVALID_KEY),
        ({"member_keys": (*KEYS[:3], KEYS[0])}, CustodyReason.REPEATED_KEY),
        ({"recovery_keys": (KEYS[0], *KEYS[5:7])}, CustodyReason.REPEATED_KEY),
    ],
)
def test_policy_is_refused(changes: dict[str, Any], reason: CustodyReason) -> None:
    assert _reason(_policy, **changes) is reason


@pytest.mark.parametrize(("count", "quorum"), [(43, 1), (19, 13), (18, 14)])
def test_policy_takes_what_every_node_relays(count: int, quorum: int) -> None:
    assert _policy(member_keys=MANY[:count], quorum=quorum).quorum == quorum
    assert _policy(recovery_keys=MANY[:count], recovery_quorum=quorum).recovery_quorum == quorum


@pytest.mark.parametrize(("count", "quorum"), [(43, 2), (20, 14), (19, 15)])
def test_policy_is_refused_when_not_every_node_relays_its_spends(count: int, quorum: int) -> None:
    keys = MANY[:count]
    assert _reason(_policy, member_keys=keys, quorum=quorum) is CustodyReason.WITNESS_SIZE
    assert _reason(_policy, recovery_keys=keys, recovery_quorum=quorum) is CustodyReason.WITNESS_SIZE


def test_custody_knows_its_epochs() -> None:
    custody = Custody({2: _policy(epoch=2), 0: POLICY})
    assert _policy(epoch=2**32 - 1).epoch == 2**32 - 1
    assert custody.policy(0) is POLICY
    assert custody.newest.epoch == 2
    assert _reason(custody.policy, 1) is CustodyReason.UNKNOWN_EPOCH


def test_custody_is_refused_without_a_policy_or_under_a_wrong_epoch() -> None:
    assert _reason(Custody, {}) is CustodyReason.UNKNOWN_EPOCH
    assert _reason(Custody, {1: POLICY}) is CustodyReason.EPOCH_OUT_OF_RANGE


def test_custody_recognizes_change_and_donation_scripts_of_every_epoch() -> None:
    policies = {0: POLICY, 1: _policy(epoch=1)}
    custody = Custody(policies)
    for policy in policies.values():
        assert custody.is_reserve_script(reserve_script(policy, CoinKind.CHANGE).script)
        assert custody.is_reserve_script(reserve_script(policy, CoinKind.DONATION).script)
        assert not custody.is_reserve_script(reserve_script(policy, CoinKind.DEPOSIT, CLAIM).script)
    assert not custody.is_reserve_script(reserve_script(_policy(epoch=2), CoinKind.CHANGE).script)
    assert not custody.is_reserve_script(CLAIM)
