"""Key files: what is written is read back, and whatever is open, damaged or strange is refused with its reason."""

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation import keystore
from federation.keystore import (
    CURVE_ORDER,
    KeystoreReason,
    KeystoreRefused,
    MemberSecrets,
    SecretKind,
    generate_member_secrets,
    generate_secret,
    is_valid_secret,
    read_member_secrets,
    read_secret,
    secret_path,
    write_member_secrets,
    write_secret,
)

SECRETS = MemberSecrets(vote=b"\x11" * 32, custody=b"\x22" * 32, transport=b"\x33" * 32)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A directory with SECRETS."""
    directory = tmp_path / "keys"
    write_member_secrets(directory, SECRETS)
    return directory


def _refusal(action: Callable[[], object]) -> KeystoreRefused:
    with pytest.raises(KeystoreRefused) as caught:
        action()
    for secret in (SECRETS.vote, SECRETS.custody, SECRETS.transport):
        assert secret.hex() not in repr(caught.value) + str(caught.value)
    return caught.value


def _rewrite(path: Path, **changes: object) -> None:
    """Change fields of a key file; None removes one."""
    fields = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in fields.items() if value is not None}))


def test_secrets_round_trip(keys: Path) -> None:
    assert read_member_secrets(keys) == SECRETS


@given(number=st.integers(min_value=1, max_value=CURVE_ORDER - 1), kind=st.sampled_from(SecretKind))
def test_secret_round_trips_for_every_key(
    tmp_path_factory: pytest.TempPathFactory, number: int, kind: SecretKind
) -> None:
    directory = tmp_path_factory.mktemp("keys")
    secret = number.to_bytes(32, "big")
    write_secret(directory, kind, secret)
    assert read_secret(directory, kind) == secret


def test_files_are_for_the_owner_alone(keys: Path) -> None:
    previous = os.umask(0)
    try:
        write_secret(keys.parent / "others", SecretKind.RECOVERY, SECRETS.vote)
    finally:
        os.umask(previous)
    for directory in (keys, keys.parent / "others"):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        for path in directory.iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_repr_hides_the_secrets() -> None:
    shown = f"{SECRETS} {SECRETS!r} {SECRETS!s} {[SECRETS]}"
    assert shown == "MemberSecrets(hidden) " * 3 + "[MemberSecrets(hidden)]"


def test_generated_secrets_are_distinct_and_valid() -> None:
    secrets = generate_member_secrets(os.urandom)
    assert len({secrets.vote, secrets.custody, secrets.transport}) == 3
    assert all(map(is_valid_secret, (secrets.vote, secrets.custody, secrets.transport)))


def test_generation_draws_again_outside_the_curve_order() -> None:
    draws = iter([bytes(32), CURVE_ORDER.to_bytes(32, "big"), b"\xff" * 32, (CURVE_ORDER - 1).to_bytes(32, "big")])
    assert generate_secret(lambda _: next(draws)) == (CURVE_ORDER - 1).to_bytes(32, "big")


@pytest.mark.parametrize("mode", [0o640, 0o620, 0o610, 0o604, 0o602, 0o601, 0o644, 0o660])
def test_reading_refuses_a_file_open_to_others(keys: Path, mode: int) -> None:
    path = secret_path(keys, SecretKind.CUSTODY)
    path.chmod(mode)
    refused = _refusal(lambda: read_member_secrets(keys))
    assert refused.reason is KeystoreReason.TOO_OPEN
    assert f"chmod 600 {path}" in refused.detail


@pytest.mark.parametrize("mode", [0o750, 0o705, 0o711])
def test_directory_open_to_others_is_refused(keys: Path, mode: int) -> None:
    keys.chmod(mode)
    for action in (
        lambda: read_secret(keys, SecretKind.VOTE),
        lambda: write_secret(keys, SecretKind.RECOVERY, SECRETS.vote),
    ):
        refused = _refusal(action)
        assert refused.reason is KeystoreReason.TOO_OPEN
        assert f"chmod 700 {keys}" in refused.detail
    assert not secret_path(keys, SecretKind.RECOVERY).exists()


def test_another_users_directory_is_refused(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    assert _refusal(lambda: read_secret(keys, SecretKind.VOTE)).reason is KeystoreReason.FOREIGN_OWNER


def test_writing_never_replaces_a_key(keys: Path) -> None:
    refused = _refusal(lambda: write_secret(keys, SecretKind.VOTE, b"\x44" * 32))
    assert refused.reason is KeystoreReason.EXISTS
    assert read_secret(keys, SecretKind.VOTE) == SECRETS.vote


def test_failed_write_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    refused = _refusal(lambda: write_secret(tmp_path / "keys", SecretKind.VOTE, SECRETS.vote))
    assert refused.reason is KeystoreReason.UNREADABLE
    assert "No space left" in refused.detail
    assert list((tmp_path / "keys").iterdir()) == []


@pytest.mark.parametrize("secret", [b"", b"\x11" * 31, b"\x11" * 33, bytes(32), CURVE_ORDER.to_bytes(32, "big")])
def test_writing_refuses_what_is_no_key(tmp_path: Path, secret: bytes) -> None:
    refused = _refusal(lambda: write_secret(tmp_path / "keys", SecretKind.VOTE, secret))
    assert refused.reason is KeystoreReason.INVALID_SCALAR
    assert not (tmp_path / "keys").exists()


def test_one_secret_for_two_purposes_is_refused(keys: Path, tmp_path: Path) -> None:
    twice = MemberSecrets(SECRETS.vote, SECRETS.vote, SECRETS.transport)
    assert _refusal(lambda: write_member_secrets(tmp_path / "new", twice)).reason is KeystoreReason.REUSED_KEY
    assert not (tmp_path / "new").exists()
    vote = json.loads(secret_path(keys, SecretKind.VOTE).read_text())
    _rewrite(secret_path(keys, SecretKind.CUSTODY), **(vote | {"kind": "custody"}))
    assert _refusal(lambda: read_member_secrets(keys)).reason is KeystoreReason.REUSED_KEY


def test_missing_file_is_refused(keys: Path) -> None:
    secret_path(keys, SecretKind.TRANSPORT).unlink()
    assert _refusal(lambda: read_member_secrets(keys)).reason is KeystoreReason.MISSING


def test_missing_directory_is_refused(tmp_path: Path) -> None:
    assert _refusal(lambda: read_member_secrets(tmp_path / "none")).reason is KeystoreReason.MISSING


def test_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.touch()
    assert _refusal(lambda: read_secret(path, SecretKind.VOTE)).reason is KeystoreReason.NOT_A_FILE


@pytest.mark.parametrize("what", ["directory", "fifo", "link"])
def test_key_that_is_no_regular_file_is_refused(keys: Path, what: str) -> None:
    path = secret_path(keys, SecretKind.VOTE)
    aside = path.rename(keys / "aside")
    if what == "directory":
        path.mkdir(0o700)
    elif what == "fifo":
        os.mkfifo(path, 0o600)
    else:
        path.symlink_to(aside)
    assert _refusal(lambda: read_secret(keys, SecretKind.VOTE)).reason is KeystoreReason.NOT_A_FILE


def test_unreadable_file_is_refused(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_descriptor: int, _size: int) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "read", fail)
    refused = _refusal(lambda: read_secret(keys, SecretKind.VOTE))
    assert refused.reason is KeystoreReason.UNREADABLE
    assert "Input/output error" in refused.detail


@pytest.mark.parametrize("size", [0, keystore.MAX_FILE_SIZE + 1])
def test_file_of_impossible_size_is_refused(keys: Path, size: int) -> None:
    secret_path(keys, SecretKind.VOTE).write_bytes(b" " * size)
    assert _refusal(lambda: read_secret(keys, SecretKind.VOTE)).reason is KeystoreReason.WRONG_SIZE


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"format": "other"}, KeystoreReason.MALFORMED),
        ({"version": 2}, KeystoreReason.UNKNOWN_VERSION),
        ({"version": None}, KeystoreReason.MALFORMED),
        ({"extra": 1}, KeystoreReason.MALFORMED),
        ({"secret": 5}, KeystoreReason.MALFORMED),
        ({"encryption": "argon2id"}, KeystoreReason.ENCRYPTED),
        ({"kind": "custody"}, KeystoreReason.WRONG_KIND),
        ({"secret": SECRETS.vote.hex()[:-2]}, KeystoreReason.WRONG_SIZE),
        ({"secret": SECRETS.vote.hex() + "00"}, KeystoreReason.WRONG_SIZE),
        ({"secret": "g" * 64}, KeystoreReason.INVALID_SCALAR),
        ({"secret": "AB" * 32}, KeystoreReason.INVALID_SCALAR),
        ({"secret": "0" * 64}, KeystoreReason.INVALID_SCALAR),
        ({"secret": f"{CURVE_ORDER:064x}"}, KeystoreReason.INVALID_SCALAR),
        ({"secret": SECRETS.custody.hex()}, KeystoreReason.WRONG_PUBLIC_KEY),
        ({"public_key": "00" * 32}, KeystoreReason.WRONG_PUBLIC_KEY),
    ],
)
def test_damaged_file_is_refused(keys: Path, changes: dict[str, object], reason: KeystoreReason) -> None:
    _rewrite(secret_path(keys, SecretKind.VOTE), **changes)
    assert _refusal(lambda: read_secret(keys, SecretKind.VOTE)).reason is reason


@given(garbage=st.binary(min_size=1, max_size=200))
def test_garbage_is_refused(tmp_path_factory: pytest.TempPathFactory, garbage: bytes) -> None:
    directory = tmp_path_factory.mktemp("keys")
    write_secret(directory, SecretKind.VOTE, SECRETS.vote)
    secret_path(directory, SecretKind.VOTE).write_bytes(garbage)
    assert _refusal(lambda: read_secret(directory, SecretKind.VOTE)).reason is KeystoreReason.MALFORMED


def test_truncated_file_is_refused_without_quoting_it(keys: Path) -> None:
    path = secret_path(keys, SecretKind.VOTE)
    content = path.read_bytes()
    for length in range(1, len(content) - 2):
        path.write_bytes(content[:length])
        assert _refusal(lambda: read_secret(keys, SecretKind.VOTE)).reason is KeystoreReason.MALFORMED
