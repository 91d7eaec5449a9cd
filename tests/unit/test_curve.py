"""Points and signatures; the published vectors are in tests/vectors."""

import pytest
from coincurve import PublicKey, PublicKeyXOnly
from hypothesis import assume, given
from hypothesis import strategies as st

from bridge.bitcoin import curve
from bridge.bitcoin.curve import CurveReason
from bridge.bitcoin.hashes import tagged_hash
from bridge.errors import Rejected

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
FIELD = 2**256 - 2**32 - 977
SECRETS = st.integers(1, ORDER - 1).map(lambda value: value.to_bytes(32))
DIGESTS = st.binary(min_size=32, max_size=32)
SECRET = bytes(31) + b"\x07"
NONCE = bytes(31) + b"\x0b"
NOT_ON_THE_CURVE = bytes(31) + b"\x05"


@given(SECRETS, DIGESTS, DIGESTS)
def test_signature_verifies_for_its_key_and_digest_only(secret: bytes, digest: bytes, aux: bytes) -> None:
    signature = curve.schnorr_sign(secret, digest, aux)
    key = curve.x_only(secret)
    assert curve.schnorr_verify(key, digest, signature)
    assert not curve.schnorr_verify(key, bytes(byte ^ 1 for byte in digest), signature)
    assert not curve.schnorr_verify(curve.NUMS, digest, signature)
    assert not curve.schnorr_verify(key, digest, signature[32:] + signature[:32])


@pytest.mark.parametrize("size", [0, 31, 33, 65])
def test_verification_is_false_for_other_sizes(size: int) -> None:
    digest = bytes(32)
    signature = curve.schnorr_sign(SECRET, digest, bytes(32))
    key = curve.x_only(SECRET)
    assert not curve.schnorr_verify((key + key + key)[:size], digest, signature)
    assert not curve.schnorr_verify(key, bytes(size), signature)
    assert not curve.schnorr_verify(key, digest, (signature + signature)[:size])


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_signature_of_another_digest_size_is_refused_though_it_is_valid(size: int) -> None:
    """BIP340 signs messages of any size; what is signed here is a digest, and nothing else may pass for one."""
    message = bytes(size)
    key, nonce = curve.x_only(SECRET), curve.x_only(NONCE)
    challenge = int.from_bytes(tagged_hash("BIP0340/challenge", nonce + key + message)) % ORDER
    response = (_even(NONCE) + challenge * _even(SECRET)) % ORDER
    signature = nonce + response.to_bytes(32)
    assert PublicKeyXOnly(key).verify(signature, message)
    assert not curve.schnorr_verify(key, message, signature)


def _even(secret: bytes) -> int:
    """The secret of the point with the same x and an even y."""
    value = int.from_bytes(secret)
    return value if PublicKey.from_secret(secret).format()[0] == 2 else ORDER - value


@pytest.mark.parametrize("secret", [b"", bytes(31), bytes(32), ORDER.to_bytes(32), b"\xff" * 32, bytes(33)])
def test_secret_is_refused_without_being_named(secret: bytes) -> None:
    for use in (curve.x_only, lambda value: curve.schnorr_sign(value, bytes(32), bytes(32))):
        with pytest.raises(Rejected) as rejection:
            use(secret)
        assert rejection.value.reason is CurveReason.INVALID_SCALAR
        assert not secret or secret.hex() not in str(rejection.value)
        assert rejection.value.__cause__ is None


@pytest.mark.parametrize(("digest_size", "aux_size"), [(31, 32), (33, 32), (32, 0), (32, 31), (32, 33)])
def test_signing_is_refused_for_other_sizes(digest_size: int, aux_size: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        curve.schnorr_sign(SECRET, bytes(digest_size), bytes(aux_size))


@pytest.mark.parametrize("key", [b"", bytes(31), bytes(32), NOT_ON_THE_CURVE, FIELD.to_bytes(32), b"\x02" + curve.NUMS])
def test_key_is_refused_when_no_point_has_it(key: bytes) -> None:
    assert not curve.is_valid_x_only(key)
    with pytest.raises(Rejected) as rejection:
        curve.tweak_add(key, bytes(31) + b"\x01")
    assert rejection.value.reason is CurveReason.INVALID_POINT


@given(SECRETS, SECRETS)
def test_tweaked_key_is_the_one_of_the_tweaked_secret(secret: bytes, scalar: bytes) -> None:
    point = curve.x_only(secret)
    value = int.from_bytes(secret)
    assume(int.from_bytes(scalar) not in (value, ORDER - value))
    # The key stands for the point with even y: its secret may be the negative one.
    candidates = {curve.x_only(((signed + int.from_bytes(scalar)) % ORDER).to_bytes(32)) for signed in (value, -value)}
    key, parity = curve.tweak_add(point, scalar)
    assert key in candidates
    assert parity in (0, 1)
    assert curve.is_valid_x_only(key)


def test_tweak_of_zero_leaves_the_even_point() -> None:
    assert curve.tweak_add(curve.NUMS, bytes(32)) == (curve.NUMS, 0)


@pytest.mark.parametrize("scalar", [b"", bytes(31), ORDER.to_bytes(32), b"\xff" * 32, bytes(33)])
def test_tweak_is_refused_out_of_range(scalar: bytes) -> None:
    with pytest.raises(Rejected) as rejection:
        curve.tweak_add(curve.NUMS, scalar)
    assert rejection.value.reason is CurveReason.INVALID_SCALAR


def test_tweak_is_refused_when_the_sum_is_at_infinity() -> None:
    secret = bytes(31) + b"\x01"  # G itself has an even y
    with pytest.raises(Rejected) as rejection:
        curve.tweak_add(curve.x_only(secret), (ORDER - 1).to_bytes(32))
    assert rejection.value.reason is CurveReason.INVALID_SCALAR
