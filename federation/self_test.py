"""The power-on self-test: two independent implementations of the curve must agree before one of them gets our keys.

`bridge.bitcoin.curve` is libsecp256k1 behind coincurve, C code in a wheel. Here BIP340's verification and BIP341's
tweak are written a second time, over the curve arithmetic of `ecdsa`, which is plain Python and shares no code with it.
Both are run on BIP340's published vectors and on damaged copies of them. The keys in this file are public:
`ecdsa` leaks secrets through its timing, and never sees one of ours.

Source: BIP340 (algorithm and vectors 0, 1 and 3), BIP341 (taproot_tweak_pubkey).
"""

from dataclasses import dataclass
from typing import Protocol

from ecdsa.curves import SECP256k1
from ecdsa.ellipticcurve import INFINITY, AbstractPoint, PointJacobi

from bridge.bitcoin import curve
from bridge.bitcoin.hashes import tagged_hash
from bridge.errors import Reason
from federation.errors import Refused

FIELD_SIZE = 2**256 - 2**32 - 977
"""The prime p of secp256k1. Source: SEC 2, 2.4.1."""
_GENERATOR = SECP256k1.generator
_ORDER = int(SECP256k1.order)


class SelfTestReason(Reason):
    """Which of the engine's answers is wrong."""

    PUBLIC_KEY = "self-test-public-key"  # The engine derives another public key than a published one.
    SIGNATURE = "self-test-signature"  # The engine makes another signature than a published one.
    REFUSES_VALID = "self-test-refuses-valid"  # The engine refuses a signature that the second implementation takes.
    ACCEPTS_INVALID = "self-test-accepts-invalid"
    """The engine takes a signature that the second implementation refuses."""
    TWEAK = "self-test-tweak"  # The engine tweaks a key otherwise than the second implementation.


class SelfTestFailed(Refused):
    """The two implementations disagree on this machine: nothing may be signed on it. reason: SelfTestReason."""


class CurveEngine(Protocol):
    """What is tested; the module `bridge.bitcoin.curve` is one."""

    def x_only(self, secret32: bytes, /) -> bytes:
        """The x-only public key, 32 bytes."""
        ...

    def schnorr_sign(self, secret32: bytes, digest32: bytes, aux32: bytes, /) -> bytes:
        """A BIP340 signature, 64 bytes."""
        ...

    def schnorr_verify(self, public_key32: bytes, digest32: bytes, signature64: bytes, /) -> bool:
        """Whether a BIP340 signature holds."""
        ...

    def tweak_add(self, point32: bytes, scalar32: bytes, /) -> tuple[bytes, int]:
        """point + scalar * G: its x coordinate, 32 bytes, and its parity."""
        ...


@dataclass(frozen=True, slots=True)
class Vector:
    """One of BIP340's published signing vectors; every field is public. 32 bytes each, the signature 64."""

    secret32: bytes
    public_key32: bytes
    aux32: bytes
    digest32: bytes
    signature64: bytes


def _vector(secret: str, public_key: str, aux: str, digest: str, signature: str) -> Vector:
    return Vector(*(bytes.fromhex(field) for field in (secret, public_key, aux, digest, signature)))


VECTORS = (
    _vector(
        "0000000000000000000000000000000000000000000000000000000000000003",
        "F9308A019258C31049344F85F89D5229B531C845836F99B08601F113BCE036F9",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "E907831F80848D1069A5371B402410364BDF1C5F8307B0084C55F1CE2DCA8215"
        "25F66A4A85EA8B71E482A74F382D2CE5EBEEE8FDB2172F477DF4900D310536C0",
    ),
    _vector(
        "B7E151628AED2A6ABF7158809CF4F3C762E7160F38B4DA56A784D9045190CFEF",
        "DFF1D77F2A671C5F36183726DB2341BE58FEAE1DA2DECED843240F7B502BA659",
        "0000000000000000000000000000000000000000000000000000000000000001",
        "243F6A8885A308D313198A2E03707344A4093822299F31D0082EFA98EC4E6C89",
        "6896BD60EEAE296DB48A229FF71DFE071BDE413E6D43F917DC8DCF8C78DE3341"
        "8906D11AC976ABCCB20B091292BFF4EA897EFCB639EA871CFA95F6DE339E4B0A",
    ),
    _vector(
        "0B432B2677937381AEF05BB02A66ECD012773062CF3FA2549E44F58ED2401710",
        "25D1DFF95105F5253C4022F628A996AD3A0D95FBF21D468A1B33F8C160D8F517",
        "FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF",
        "FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF",
        "7EB0509757E246F19449885651611CB965ECC1A187DD51B64FDA1EDC9637D5EC"
        "97582B9CB13DB3933705B32BA982AF5AF25FD78881EBB32771FC5922EFC66EA3",
    ),
)


def run_self_test(engine: CurveEngine = curve) -> None:
    """Raise SelfTestFailed unless `engine` and the second implementation agree on every vector. About 60 ms."""
    for number, vector in enumerate(VECTORS):
        _test_vector(engine, vector, f"vector {number}")


def reference_verify(public_key32: bytes, digest32: bytes, signature64: bytes) -> bool:
    """BIP340's Verify over `ecdsa`'s arithmetic. Public inputs only. Source: BIP340, Verification."""
    point = _lift_x(public_key32)
    r = int.from_bytes(signature64[:32], "big")
    s = int.from_bytes(signature64[32:], "big")
    if point is None or len(signature64) != 64 or r >= FIELD_SIZE or s >= _ORDER:
        return False
    challenge = tagged_hash("BIP0340/challenge", signature64[:32] + public_key32 + digest32)
    e = int.from_bytes(challenge, "big") % _ORDER
    candidate = _GENERATOR * s + point * (_ORDER - e)
    return bool(candidate != INFINITY and candidate.y() % 2 == 0 and candidate.x() == r)


def reference_public_key(secret32: bytes) -> bytes:
    """The x-only public key of a secret that is *no secret*, 32 bytes, over `ecdsa`'s arithmetic."""
    return int((_GENERATOR * int.from_bytes(secret32, "big")).x()).to_bytes(32, "big")


def reference_tweak_add(point32: bytes, scalar32: bytes) -> tuple[bytes, int] | None:
    """lift_x(point) + scalar * G: x coordinate and parity; None when there is no such point. Source: BIP341."""
    point = _lift_x(point32)
    scalar = int.from_bytes(scalar32, "big")
    if point is None or scalar >= _ORDER:
        return None
    tweaked = point + _GENERATOR * scalar
    if tweaked == INFINITY:
        return None
    return int(tweaked.x()).to_bytes(32, "big"), int(tweaked.y()) % 2


def _lift_x(x_bytes: bytes) -> AbstractPoint | None:
    """The point with that x coordinate and an even y, None if there is none. Source: BIP340, lift_x."""
    x = int.from_bytes(x_bytes, "big")
    if len(x_bytes) != 32 or x >= FIELD_SIZE:
        return None
    y_squared = (pow(x, 3, FIELD_SIZE) + 7) % FIELD_SIZE
    y = pow(y_squared, (FIELD_SIZE + 1) // 4, FIELD_SIZE)
    if pow(y, 2, FIELD_SIZE) != y_squared:
        return None
    return PointJacobi(SECP256k1.curve, x, y if y % 2 == 0 else FIELD_SIZE - y, 1, _ORDER)


def _test_vector(engine: CurveEngine, vector: Vector, name: str) -> None:
    if not engine.x_only(vector.secret32) == vector.public_key32 == reference_public_key(vector.secret32):
        raise SelfTestFailed(SelfTestReason.PUBLIC_KEY, name)
    if engine.schnorr_sign(vector.secret32, vector.digest32, vector.aux32) != vector.signature64:
        raise SelfTestFailed(SelfTestReason.SIGNATURE, name)
    if not (
        engine.schnorr_verify(vector.public_key32, vector.digest32, vector.signature64)
        and reference_verify(vector.public_key32, vector.digest32, vector.signature64)
    ):
        raise SelfTestFailed(SelfTestReason.REFUSES_VALID, name)
    for what, damaged in _damaged(vector).items():
        if engine.schnorr_verify(damaged.public_key32, damaged.digest32, damaged.signature64) or reference_verify(
            damaged.public_key32, damaged.digest32, damaged.signature64
        ):
            raise SelfTestFailed(SelfTestReason.ACCEPTS_INVALID, f"{name}, {what}")
    scalar32 = tagged_hash("pegnode/self-test", vector.public_key32)
    if engine.tweak_add(vector.public_key32, scalar32) != reference_tweak_add(vector.public_key32, scalar32):
        raise SelfTestFailed(SelfTestReason.TWEAK, name)


def _damaged(vector: Vector) -> dict[str, Vector]:
    """Copies of `vector` whose signature does not hold, each by what was done to it."""
    r, s = vector.signature64[:32], vector.signature64[32:]
    negated_s = (_ORDER - int.from_bytes(s, "big")).to_bytes(32, "big")

    def with_signature(signature64: bytes) -> Vector:
        return Vector(vector.secret32, vector.public_key32, vector.aux32, vector.digest32, signature64)

    return {
        "another digest": Vector(
            vector.secret32,
            vector.public_key32,
            vector.aux32,
            tagged_hash("pegnode/self-test", b""),
            vector.signature64,
        ),
        "s negated": with_signature(r + negated_s),
        "s is the curve's order": with_signature(r + _ORDER.to_bytes(32, "big")),
        "r is the field's size": with_signature(FIELD_SIZE.to_bytes(32, "big") + s),
        "r of another signature": with_signature(bytes(31) + b"\x01" + s),
    }
