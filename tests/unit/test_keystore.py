"""Key files: what is written is read back, and whatever is open, damaged or strange is refused with its reason."""

import copy
import os
import pickle
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.keystore import (
    CURVE_ORDER,
    MEMBER_KIND,
    MemberSecrets,
    SecretKind,
    generate_member_secrets,
    generate_secret,
    is_valid_secret,
    member_path,
    public_key,
    read_member_secrets,
    read_secret,
    secret_path,
    write_member_secrets,
    write_secret,
)
from federation.keystore_errors import KeystoreReason, KeystoreRefused
from federation.passphrase import Passphrase
from federation.sealed_box import LEAST_LOG_N, MAX_BOX_SIZE, SealedBox, seal

SECRETS = MemberSecrets(vote=b"\x11" * 32, custody=b"\x22" * 32, transport=b"\x33" * 32)
PASSPHRASE = Passphrase("correct horse battery staple")
JOINED = SECRETS.vote + SECRETS.custody + SECRETS.transport
PUBLIC = {
    "vote": public_key(SecretKind.VOTE, SECRETS.vote).hex(),
    "custody": public_key(SecretKind.CUSTODY, SECRETS.custody).hex(),
    "transport": public_key(SecretKind.TRANSPORT, SECRETS.transport).hex(),
}


def _write(directory: Path, secrets: MemberSecrets = SECRETS) -> Path:
    return write_member_secrets(directory, secrets, PASSPHRASE, scrypt_log_n=LEAST_LOG_N)


def _write_one(directory: Path, kind: SecretKind, secret: bytes) -> Path:
    return write_secret(directory, kind, secret, PASSPHRASE, scrypt_log_n=LEAST_LOG_N)


def _read(directory: Path) -> MemberSecrets:
    return read_member_secrets(directory, PASSPHRASE)


def _forge(path: Path, kind: str = MEMBER_KIND, public: dict[str, str] = PUBLIC, secret: bytes = JOINED) -> None:
    """Put a box there that opens, whatever is in it."""
    path.write_bytes(seal(kind, public, secret, PASSPHRASE, random_bytes=os.urandom, scrypt_log_n=LEAST_LOG_N))


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A directory with SECRETS."""
    directory = tmp_path / "keys"
    _write(directory)
    return directory


def _refusal(action: Callable[[], object]) -> KeystoreRefused:
    with pytest.raises(KeystoreRefused) as caught:
        action()
    for secret in (SECRETS.vote, SECRETS.custody, SECRETS.transport):
        assert secret.hex() not in repr(caught.value) + str(caught.value)
    return caught.value


def test_secrets_round_trip(keys: Path) -> None:
    assert _read(keys) == SECRETS


@settings(max_examples=20)
@given(number=st.integers(min_value=1, max_value=CURVE_ORDER - 1), kind=st.sampled_from(SecretKind))
def test_secret_round_trips_for_every_key(
    tmp_path_factory: pytest.TempPathFactory, number: int, kind: SecretKind
) -> None:
    directory = tmp_path_factory.mktemp("keys")
    secret = number.to_bytes(32, "big")
    _write_one(directory, kind, secret)
    assert read_secret(directory, kind, PASSPHRASE) == secret


def test_public_keys_are_in_clear(keys: Path) -> None:
    box = SealedBox.parse(member_path(keys).read_bytes())
    assert (box.kind, dict(box.public)) == (MEMBER_KIND, PUBLIC)


def test_no_secret_is_in_the_file(keys: Path) -> None:
    content = member_path(keys).read_bytes()
    for secret in (SECRETS.vote, SECRETS.custody, SECRETS.transport):
        assert secret not in content
        assert secret.hex().encode() not in content


def test_wrong_passphrase_is_refused(keys: Path) -> None:
    refused = _refusal(lambda: read_member_secrets(keys, Passphrase("correct horse battery stable")))
    assert refused.reason is KeystoreReason.WRONG_PASSPHRASE
    assert str(member_path(keys)) in refused.detail


def test_files_are_for_the_owner_alone(keys: Path) -> None:
    previous = os.umask(0)
    try:
        _write_one(keys.parent / "others", SecretKind.RECOVERY, SECRETS.vote)
    finally:
        os.umask(previous)
    for directory in (keys, keys.parent / "others"):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        for path in directory.iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_repr_hides_the_secrets() -> None:
    shown = f"{SECRETS} {SECRETS!r} {SECRETS!s} {[SECRETS]}"
    assert shown == "MemberSecrets(hidden) " * 3 + "[MemberSecrets(hidden)]"


def test_secrets_are_neither_pickled_nor_copied() -> None:
    for action in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError):
            action(SECRETS)


def test_generated_secrets_are_distinct_and_valid() -> None:
    secrets = generate_member_secrets(os.urandom)
    assert len({secrets.vote, secrets.custody, secrets.transport}) == 3
    assert all(map(is_valid_secret, (secrets.vote, secrets.custody, secrets.transport)))


def test_generation_draws_again_outside_the_curve_order() -> None:
    draws = iter([bytes(32), CURVE_ORDER.to_bytes(32, "big"), b"\xff" * 32, (CURVE_ORDER - 1).to_bytes(32, "big")])
    assert generate_secret(lambda _: next(draws)) == (CURVE_ORDER - 1).to_bytes(32, "big")


@pytest.mark.parametrize("mode", [0o640, 0o620, 0o610, 0o604, 0o602, 0o601, 0o644, 0o660])
def test_reading_refuses_a_file_open_to_others(keys: Path, mode: int) -> None:
    path = member_path(keys)
    path.chmod(mode)
    refused = _refusal(lambda: _read(keys))
    assert refused.reason is KeystoreReason.TOO_OPEN
    assert f"chmod 600 {path}" in refused.detail


@pytest.mark.parametrize("mode", [0o750, 0o705, 0o711])
def test_directory_open_to_others_is_refused(keys: Path, mode: int) -> None:
    keys.chmod(mode)
    for action in (lambda: _read(keys), lambda: _write_one(keys, SecretKind.RECOVERY, SECRETS.vote)):
        refused = _refusal(action)
        assert refused.reason is KeystoreReason.TOO_OPEN
        assert f"chmod 700 {keys}" in refused.detail
    assert not secret_path(keys, SecretKind.RECOVERY).exists()


def test_another_users_directory_is_refused(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    assert _refusal(lambda: _read(keys)).reason is KeystoreReason.FOREIGN_OWNER


def test_writing_never_replaces_a_key(keys: Path) -> None:
    others = MemberSecrets(b"\x44" * 32, b"\x55" * 32, b"\x66" * 32)
    assert _refusal(lambda: _write(keys, others)).reason is KeystoreReason.EXISTS
    assert _read(keys) == SECRETS


def test_failed_write_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    refused = _refusal(lambda: _write(tmp_path / "keys"))
    assert refused.reason is KeystoreReason.UNREADABLE
    assert "No space left" in refused.detail
    assert list((tmp_path / "keys").iterdir()) == []


@pytest.mark.parametrize("secret", [b"", b"\x11" * 31, b"\x11" * 33, bytes(32), CURVE_ORDER.to_bytes(32, "big")])
def test_writing_refuses_what_is_no_key(tmp_path: Path, secret: bytes) -> None:
    refused = _refusal(lambda: _write_one(tmp_path / "keys", SecretKind.VOTE, secret))
    assert refused.reason is KeystoreReason.INVALID_SCALAR
    assert not (tmp_path / "keys").exists()


def test_one_secret_for_two_purposes_is_refused(keys: Path, tmp_path: Path) -> None:
    twice = MemberSecrets(SECRETS.vote, SECRETS.vote, SECRETS.transport)
    assert _refusal(lambda: _write(tmp_path / "new", twice)).reason is KeystoreReason.REUSED_KEY
    assert not (tmp_path / "new").exists()
    _forge(member_path(keys), secret=SECRETS.vote * 2 + SECRETS.transport)
    assert _refusal(lambda: _read(keys)).reason is KeystoreReason.REUSED_KEY


def test_missing_file_is_refused(keys: Path) -> None:
    member_path(keys).unlink()
    assert _refusal(lambda: _read(keys)).reason is KeystoreReason.MISSING


def test_missing_directory_is_refused(tmp_path: Path) -> None:
    assert _refusal(lambda: _read(tmp_path / "none")).reason is KeystoreReason.MISSING


def test_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.touch()
    assert _refusal(lambda: _read(path)).reason is KeystoreReason.NOT_A_FILE


@pytest.mark.parametrize("what", ["directory", "fifo", "link"])
def test_key_that_is_no_regular_file_is_refused(keys: Path, what: str) -> None:
    path = member_path(keys)
    aside = path.rename(keys / "aside")
    if what == "directory":
        path.mkdir(0o700)
    elif what == "fifo":
        os.mkfifo(path, 0o600)
    else:
        path.symlink_to(aside)
    assert _refusal(lambda: _read(keys)).reason is KeystoreReason.NOT_A_FILE


def test_unreadable_file_is_refused(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_descriptor: int, _size: int) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "read", fail)
    refused = _refusal(lambda: _read(keys))
    assert refused.reason is KeystoreReason.UNREADABLE
    assert "Input/output error" in refused.detail


@pytest.mark.parametrize("size", [0, MAX_BOX_SIZE + 1])
def test_file_of_impossible_size_is_refused(keys: Path, size: int) -> None:
    member_path(keys).write_bytes(b" " * size)
    assert _refusal(lambda: _read(keys)).reason is KeystoreReason.WRONG_SIZE


def test_keys_of_another_kind_are_refused(keys: Path) -> None:
    member_path(keys).rename(secret_path(keys, SecretKind.RECOVERY))
    refused = _refusal(lambda: read_secret(keys, SecretKind.RECOVERY, PASSPHRASE))
    assert refused.reason is KeystoreReason.WRONG_KIND


@pytest.mark.parametrize(
    ("secret", "reason"),
    [
        (JOINED[:-1], KeystoreReason.WRONG_SIZE),
        (JOINED + b"\x00", KeystoreReason.WRONG_SIZE),
        (SECRETS.vote + bytes(32) + SECRETS.transport, KeystoreReason.INVALID_SCALAR),
        (SECRETS.custody + SECRETS.vote + SECRETS.transport, KeystoreReason.WRONG_PUBLIC_KEY),
    ],
)
def test_seal_over_what_is_no_members_keys_is_refused(keys: Path, secret: bytes, reason: KeystoreReason) -> None:
    _forge(member_path(keys), secret=secret)
    assert _refusal(lambda: _read(keys)).reason is reason


@pytest.mark.parametrize("public", [{}, PUBLIC | {"vote": "00" * 32}, PUBLIC | {"more": ""}])
def test_seal_beside_other_public_keys_is_refused(keys: Path, public: dict[str, str]) -> None:
    _forge(member_path(keys), public=public)
    assert _refusal(lambda: _read(keys)).reason is KeystoreReason.WRONG_PUBLIC_KEY


def test_truncated_file_is_refused_without_quoting_it(keys: Path) -> None:
    path = member_path(keys)
    content = path.read_bytes()
    for length in range(1, len(content)):
        path.write_bytes(content[:length])
        assert _refusal(lambda: _read(keys)).reason in (KeystoreReason.MALFORMED, KeystoreReason.DAMAGED)
