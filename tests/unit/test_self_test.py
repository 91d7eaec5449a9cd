"""The power-on self-test: it passes on this machine, and each way in which an engine may be wrong stops it."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.bitcoin import curve
from federation.keystore import CURVE_ORDER
from federation.self_test import (
    FIELD_SIZE,
    VECTORS,
    SelfTestFailed,
    SelfTestReason,
    reference_public_key,
    reference_tweak_add,
    reference_verify,
    run_self_test,
)

_SCALARS = st.integers(min_value=1, max_value=CURVE_ORDER - 1).map(lambda number: number.to_bytes(32, "big"))
_BYTES32 = st.binary(min_size=32, max_size=32)


@dataclass
class FaultyEngine:
    """The real engine with one fault."""

    fault: str

    def x_only(self, secret: bytes, /) -> bytes:
        return bytes(32) if self.fault == "x_only" else curve.x_only(secret)

    def schnorr_sign(self, secret: bytes, digest: bytes, aux: bytes, /) -> bytes:
        # A valid signature, by another nonce: only the published one will do.
        return curve.schnorr_sign(secret, digest, b"\x77" * 32 if self.fault == "sign" else aux)

    def schnorr_verify(self, public_key: bytes, digest: bytes, signature: bytes, /) -> bool:
        if self.fault in ("always", "never"):
            return self.fault == "always"
        if self.fault == "s modulo the order" and int.from_bytes(signature[32:], "big") == CURVE_ORDER:
            return True
        return curve.schnorr_verify(public_key, digest, signature)

    def tweak_add(self, point: bytes, scalar: bytes, /) -> tuple[bytes, int]:
        key, parity = curve.tweak_add(point, scalar)
        return key, parity ^ (self.fault == "parity")


def test_self_test_passes_on_this_machine() -> None:
    run_self_test()


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("x_only", SelfTestReason.PUBLIC_KEY),
        ("sign", SelfTestReason.SIGNATURE),
        ("never", SelfTestReason.REFUSES_VALID),
        ("always", SelfTestReason.ACCEPTS_INVALID),
        ("s modulo the order", SelfTestReason.ACCEPTS_INVALID),
        ("parity", SelfTestReason.TWEAK),
    ],
)
def test_self_test_refuses_an_engine_with_a_fault(fault: str, reason: SelfTestReason) -> None:
    with pytest.raises(SelfTestFailed) as caught:
        run_self_test(FaultyEngine(fault))
    assert caught.value.reason is reason


def test_self_test_refuses_when_the_second_implementation_disagrees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("federation.self_test.reference_verify", lambda *_: True)
    with pytest.raises(SelfTestFailed) as caught:
        run_self_test()
    assert caught.value.reason is SelfTestReason.ACCEPTS_INVALID


@given(secret=_SCALARS, digest=_BYTES32, aux=_BYTES32, bit=st.integers(min_value=0, max_value=511))
def test_implementations_agree_on_signatures(secret: bytes, digest: bytes, aux: bytes, bit: int) -> None:
    public_key = curve.x_only(secret)
    assert reference_public_key(secret) == public_key
    signature = curve.schnorr_sign(secret, digest, aux)
    assert reference_verify(public_key, digest, signature)
    damaged = (int.from_bytes(signature, "big") ^ 1 << bit).to_bytes(64, "big")
    assert not reference_verify(public_key, digest, damaged)
    assert not curve.schnorr_verify(public_key, digest, damaged)


@given(point=_BYTES32, scalar=_SCALARS)
def test_implementations_agree_on_tweaks(point: bytes, scalar: bytes) -> None:
    expected = reference_tweak_add(point, scalar)
    assert curve.is_valid_x_only(point) is (expected is not None)
    if expected is not None:
        assert curve.tweak_add(point, scalar) == expected


def test_reference_refuses_values_out_of_range() -> None:
    vector = VECTORS[0]
    r, s = vector.signature64[:32], vector.signature64[32:]
    field, order = FIELD_SIZE.to_bytes(32, "big"), CURVE_ORDER.to_bytes(32, "big")
    assert reference_verify(vector.public_key32, vector.digest32, r + s)
    assert not reference_verify(vector.public_key32, vector.digest32, r + s + b"\0")
    assert not reference_verify(vector.public_key32, vector.digest32, r + order)
    assert not reference_verify(vector.public_key32, vector.digest32, field + s)
    assert not reference_verify(field, vector.digest32, r + s)
    assert reference_tweak_add(vector.public_key32, order) is None
    assert reference_tweak_add(field, s) is None


def test_reference_has_no_tweak_to_infinity() -> None:
    generator = reference_public_key((1).to_bytes(32, "big"))
    minus_one = (CURVE_ORDER - 1).to_bytes(32, "big")
    assert reference_tweak_add(generator, minus_one) is None


def test_vectors_are_public() -> None:
    assert VECTORS[0].secret32 == (3).to_bytes(32, "big")
    assert all(curve.x_only(vector.secret32) == vector.public_key32 for vector in VECTORS)
