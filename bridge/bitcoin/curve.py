"""Points and signatures on secp256k1, by libsecp256k1 through coincurve.

Lengths are checked here: the C library reads 32 or 64 bytes from whatever it is given.
"""

from coincurve import PrivateKey, PublicKeyXOnly

from bridge.errors import Reason, Rejected

KEY_SIZE = 32
SCALAR_SIZE = 32
DIGEST_SIZE = 32
SIGNATURE_SIZE = 64

NUMS = bytes.fromhex("50929b74c1a04954b78b4b6035e97a5e078a5a0f28ec96d547bfee9ace803ac0")
"""H, a point whose discrete logarithm nobody knows: x is the SHA-256 of the uncompressed generator. Source: BIP341."""


class CurveReason(Reason):
    """Why values are not a point or a scalar."""

    INVALID_POINT = "curve-invalid-point"  # The bytes are no x coordinate of a point.
    INVALID_SCALAR = "curve-invalid-scalar"  # The bytes are zero, or not below the order of the curve.


def is_valid_x_only(key: bytes) -> bool:
    """Whether these are the 32 bytes of a point's x coordinate. Source: BIP340, lift_x."""
    return _lift(key) is not None


def schnorr_verify(public_key: bytes, digest: bytes, signature: bytes) -> bool:
    """Whether `signature` (64 bytes) is the x-only key's over the 32-byte digest; False for anything of another size.

    Source: BIP340.
    """
    if len(digest) != DIGEST_SIZE or len(signature) != SIGNATURE_SIZE:
        return False
    point = _lift(public_key)
    return point is not None and bool(point.verify(signature, digest))


def schnorr_sign(secret: bytes, digest: bytes, aux: bytes) -> bytes:
    """The 64-byte signature of a 32-byte digest; `aux` is 32 bytes of fresh randomness from the caller.

    Raises Rejected(CurveReason.INVALID_SCALAR) for an invalid secret, never naming it; ValueError for a digest or `aux`
    of another size.  Source: BIP340.
    """
    if len(digest) != DIGEST_SIZE or len(aux) != SCALAR_SIZE:
        raise ValueError("a digest and its auxiliary randomness have 32 bytes each")
    return bytes(_private_key(secret).sign_schnorr(digest, aux))


def x_only(secret: bytes) -> bytes:
    """The 32-byte x-only public key of a 32-byte secret; raises Rejected(CurveReason.INVALID_SCALAR)."""
    return bytes(_private_key(secret).public_key_xonly.format())


def tweak_add(point: bytes, scalar: bytes) -> tuple[bytes, int]:
    """lift_x(point) + scalar·G as (x coordinate, parity of y).

    point and scalar: 32 bytes.  Raises Rejected(CurveReason): INVALID_POINT, or INVALID_SCALAR for a scalar that is not
    below the group's order or a sum at infinity.
    """
    if len(scalar) != SCALAR_SIZE:
        raise Rejected(CurveReason.INVALID_SCALAR, f"{len(scalar)} bytes")
    key = _lift(point)
    if key is None:
        raise Rejected(CurveReason.INVALID_POINT, point.hex())
    try:
        key.tweak_add(scalar)
    except ValueError as error:
        raise Rejected(CurveReason.INVALID_SCALAR, "not below the order, or the sum is at infinity") from error
    return bytes(key.format()), int(key.parity)


def _lift(key: bytes) -> PublicKeyXOnly | None:
    if len(key) != KEY_SIZE:
        return None
    try:
        return PublicKeyXOnly(key)
    except ValueError:
        return None


def _private_key(secret: bytes) -> PrivateKey:
    if len(secret) != SCALAR_SIZE:
        raise Rejected(CurveReason.INVALID_SCALAR, f"a secret of {len(secret)} bytes")
    try:
        return PrivateKey(secret)
    except ValueError:
        # Without a cause: the library's text must not carry anything of the secret.
        raise Rejected(CurveReason.INVALID_SCALAR, "a secret that is zero or not below the order") from None
