"""The sealed box: every byte of it counts, and what it may ask of a machine is bounded."""

import json
import os
from collections.abc import Callable
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from hypothesis import given, settings
from hypothesis import strategies as st

from federation import sealed_box
from federation.keystore_errors import KeystoreReason, KeystoreRefused
from federation.passphrase import Passphrase
from federation.sealed_box import (
    LEAST_LOG_N,
    MAX_BOX_SIZE,
    MAX_SECRET_SIZE,
    MOST_LOG_N,
    NONCE_SIZE,
    SALT_SIZE,
    STRONG_LOG_N,
    SealedBox,
    seal,
)

PASSPHRASE = Passphrase("correct horse battery staple")
SECRET = b"a secret that nobody else knows!"
PUBLIC = {"vote": "aa" * 32, "name": "the public part"}


def _seal(secret: bytes = SECRET, public: dict[str, str] = PUBLIC, scrypt_log_n: int = LEAST_LOG_N) -> bytes:
    return seal("member", public, secret, PASSPHRASE, random_bytes=os.urandom, scrypt_log_n=scrypt_log_n)


BOX = _seal()


def _changed(**changes: object) -> bytes:
    """BOX with other values and a checksum that fits them; None removes a field."""
    fields = {name: value for name, value in (json.loads(BOX) | changes).items() if value is not None}
    if "checksum" in fields and "checksum" not in changes:
        values = json.dumps([fields[name] for name in fields if name != "checksum"], separators=(",", ":"))
        fields["checksum"] = sha256(values.encode()).hexdigest()
    return json.dumps(fields, indent=2).encode() + b"\n"


def _refusal(action: Callable[[], object]) -> KeystoreReason:
    with pytest.raises(KeystoreRefused) as caught:
        action()
    assert SECRET.hex() not in str(caught.value)
    assert "staple" not in str(caught.value)
    assert isinstance(caught.value.reason, KeystoreReason)
    return caught.value.reason


@settings(max_examples=25)
@given(
    secret=st.binary(min_size=1, max_size=MAX_SECRET_SIZE),
    public=st.dictionaries(st.text(max_size=10), st.text(max_size=50), max_size=4),
)
def test_secret_round_trips(secret: bytes, public: dict[str, str]) -> None:
    box = SealedBox.parse(_seal(secret, public))
    assert (box.kind, box.public, box.scrypt_log_n) == ("member", public, LEAST_LOG_N)
    assert box.open(PASSPHRASE) == secret


def test_format_is_as_documented() -> None:
    """Open a box by hand, from the words of docs/protocol.md."""
    fields = json.loads(BOX)
    assert list(fields) == [
        "format", "version", "kind", "public", "scrypt_log_n", "salt", "nonce", "sealed", "checksum",
    ]  # fmt: skip
    key = Scrypt(bytes.fromhex(fields["salt"]), 32, 2 ** fields["scrypt_log_n"], 8, 1).derive(PASSPHRASE.reveal())
    header = [fields[name] for name in ("format", "version", "kind", "public", "scrypt_log_n", "salt", "nonce")]
    opened = ChaCha20Poly1305(key).decrypt(
        bytes.fromhex(fields["nonce"]),
        bytes.fromhex(fields["sealed"]),
        json.dumps(header, separators=(",", ":")).encode(),
    )
    assert opened == SECRET
    assert _changed() == BOX


def test_default_cost_is_the_strong_one() -> None:
    box = SealedBox.parse(seal("member", {}, SECRET, PASSPHRASE, random_bytes=os.urandom))
    assert box.scrypt_log_n == STRONG_LOG_N == 17
    assert box.open(PASSPHRASE) == SECRET


def test_salt_and_nonce_are_fresh() -> None:
    boxes = [json.loads(_seal()) for _ in range(3)]
    for name, size in (("salt", SALT_SIZE), ("nonce", NONCE_SIZE)):
        assert {len(box[name]) for box in boxes} == {2 * size}
        assert len({box[name] for box in boxes}) == 3
    assert len({box["sealed"] for box in boxes}) == 3


def test_wrong_passphrase_opens_nothing() -> None:
    box = SealedBox.parse(BOX)
    for text in ("correct horse battery stable", "Correct horse battery staple", "correct horse battery staple2"):
        assert _refusal(lambda text=text: box.open(Passphrase(text))) is KeystoreReason.WRONG_PASSPHRASE  # type: ignore[misc]


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "recovery"},
        {"public": PUBLIC | {"vote": "bb" * 32}},
        {"public": {}},
        {"public": dict(reversed(PUBLIC.items()))},
        {"scrypt_log_n": LEAST_LOG_N + 1},
        {"salt": "00" * SALT_SIZE},
        {"nonce": "00" * NONCE_SIZE},
        {"sealed": "00" * 48},
    ],
)
def test_no_field_can_be_altered_unseen(changes: dict[str, object]) -> None:
    """Whoever alters a field can make the checksum fit, but not the seal."""
    box = SealedBox.parse(_changed(**changes))
    assert _refusal(lambda: box.open(PASSPHRASE)) is KeystoreReason.WRONG_PASSPHRASE


def test_damage_is_told_without_the_passphrase() -> None:
    for index in range(len(BOX)):
        damaged = BOX[:index] + bytes([BOX[index] ^ 1]) + BOX[index + 1 :]
        assert _refusal(lambda damaged=damaged: SealedBox.parse(damaged)) in (  # type: ignore[misc]
            KeystoreReason.DAMAGED,
            KeystoreReason.MALFORMED,
            KeystoreReason.UNKNOWN_VERSION,
        )


@pytest.mark.parametrize(
    "content",
    [
        BOX[:-1],
        BOX + b"\n",
        BOX.replace(b"\n", b"\r\n"),
        BOX.replace(b"  ", b" "),
        BOX.replace(b'"version": 1,', b'"version": 1, "version": 1,'),
    ],
)
def test_other_spelling_of_the_same_is_damage(content: bytes) -> None:
    assert _refusal(lambda: SealedBox.parse(content)) is KeystoreReason.DAMAGED


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"format": "other"}, KeystoreReason.MALFORMED),
        ({"version": 2}, KeystoreReason.UNKNOWN_VERSION),
        ({"version": None}, KeystoreReason.MALFORMED),
        ({"version": "1"}, KeystoreReason.MALFORMED),
        ({"extra": 1}, KeystoreReason.MALFORMED),
        ({"sealed": 5}, KeystoreReason.MALFORMED),
        ({"public": {"vote": 5}}, KeystoreReason.MALFORMED),
        ({"salt": "00" * (SALT_SIZE - 1)}, KeystoreReason.MALFORMED),
        ({"nonce": "00" * (NONCE_SIZE + 1)}, KeystoreReason.MALFORMED),
        ({"nonce": "0g" * NONCE_SIZE}, KeystoreReason.MALFORMED),
        ({"nonce": "AA" * NONCE_SIZE}, KeystoreReason.MALFORMED),
        ({"sealed": "00" * 16}, KeystoreReason.MALFORMED),
        ({"sealed": "00" * (MAX_SECRET_SIZE + 17)}, KeystoreReason.MALFORMED),
        ({"checksum": "00" * 32}, KeystoreReason.DAMAGED),
        ({"scrypt_log_n": MOST_LOG_N + 1}, KeystoreReason.COST),
        ({"scrypt_log_n": LEAST_LOG_N - 1}, KeystoreReason.COST),
        ({"scrypt_log_n": -1}, KeystoreReason.COST),
        ({"scrypt_log_n": 2**62}, KeystoreReason.COST),
    ],
)
def test_strange_box_is_refused(changes: dict[str, object], reason: KeystoreReason) -> None:
    assert _refusal(lambda: SealedBox.parse(_changed(**changes))) is reason


def test_cost_is_refused_before_it_is_paid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealed_box, "Scrypt", None)
    for cost in (LEAST_LOG_N - 1, MOST_LOG_N + 1):
        assert _refusal(lambda cost=cost: _seal(scrypt_log_n=cost)) is KeystoreReason.COST  # type: ignore[misc]
        assert _refusal(lambda cost=cost: SealedBox.parse(_changed(scrypt_log_n=cost))) is KeystoreReason.COST  # type: ignore[misc]


def test_machine_without_the_memory_is_told_how_much(monkeypatch: pytest.MonkeyPatch) -> None:
    def starve(*_: object) -> Scrypt:
        raise MemoryError

    monkeypatch.setattr(sealed_box, "Scrypt", starve)
    with pytest.raises(KeystoreRefused, match="128 MiB") as caught:
        _seal(scrypt_log_n=STRONG_LOG_N)
    assert caught.value.reason is KeystoreReason.COST


@pytest.mark.parametrize("size", [0, MAX_SECRET_SIZE + 1])
def test_secret_of_impossible_size_is_not_sealed(size: int) -> None:
    assert _refusal(lambda: _seal(bytes(size))) is KeystoreReason.WRONG_SIZE


@pytest.mark.parametrize("size", [0, MAX_BOX_SIZE + 1])
def test_box_of_impossible_size_is_refused(size: int) -> None:
    assert _refusal(lambda: SealedBox.parse(b" " * size)) is KeystoreReason.WRONG_SIZE


@given(garbage=st.binary(min_size=1, max_size=200))
def test_garbage_is_refused(garbage: bytes) -> None:
    assert _refusal(lambda: SealedBox.parse(garbage)) is KeystoreReason.MALFORMED


def test_repr_of_a_box_shows_nothing_of_it() -> None:
    assert "public part" not in repr(SealedBox.parse(BOX))
