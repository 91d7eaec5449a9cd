"""Key files as wholes: shown, encrypted anew, backed up and restored, and never lost on the way."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from federation import key_files, private_files
from federation.key_files import back_up, change_passphrase, find_key_file, read_public_keys, restore
from federation.keystore import (
    MemberSecrets,
    SecretKind,
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
from federation.sealed_box import LEAST_LOG_N, SealedBox, seal

SECRETS = MemberSecrets(vote=b"\x11" * 32, custody=b"\x22" * 32, transport=b"\x33" * 32)
OLD, NEW = Passphrase("the old passphrase"), Passphrase("the new passphrase")


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A directory with SECRETS under OLD."""
    write_member_secrets(tmp_path / "keys", SECRETS, OLD, scrypt_log_n=LEAST_LOG_N)
    return tmp_path / "keys"


def _refusal(action: Callable[[], object]) -> KeystoreReason:
    with pytest.raises(KeystoreRefused) as caught:
        action()
    assert isinstance(caught.value.reason, KeystoreReason)
    return caught.value.reason


def _change(keys: Path) -> None:
    change_passphrase(member_path(keys), OLD, lambda: NEW, scrypt_log_n=LEAST_LOG_N)


def test_public_keys_are_shown_without_a_passphrase(keys: Path) -> None:
    shown = read_public_keys(member_path(keys))
    assert shown.kind == "member"
    assert shown.keys == {
        kind: public_key(kind, getattr(SECRETS, kind.value))
        for kind in (SecretKind.VOTE, SecretKind.CUSTODY, SecretKind.TRANSPORT)
    }
    assert len(shown.keys[SecretKind.TRANSPORT]) == 33


@pytest.mark.parametrize(
    ("kind", "public", "reason"),
    [
        ("wallet", {}, KeystoreReason.WRONG_KIND),
        ("recovery", {}, KeystoreReason.WRONG_PUBLIC_KEY),
        ("recovery", {"recovery": "zz"}, KeystoreReason.WRONG_PUBLIC_KEY),
        ("recovery", {"recovery": "11" * 33}, KeystoreReason.WRONG_PUBLIC_KEY),
        ("recovery", {"recovery": "11" * 32, "more": ""}, KeystoreReason.WRONG_PUBLIC_KEY),
    ],
)
def test_box_without_public_keys_shows_none(
    tmp_path: Path, kind: str, public: dict[str, str], reason: KeystoreReason
) -> None:
    path = tmp_path / "box"
    path.write_bytes(seal(kind, public, b"x", OLD, random_bytes=os.urandom, scrypt_log_n=LEAST_LOG_N))
    assert _refusal(lambda: read_public_keys(path)) is reason


def test_key_file_is_found_in_its_directory(keys: Path) -> None:
    assert find_key_file(keys) == find_key_file(member_path(keys)) == member_path(keys)
    write_secret(keys, SecretKind.RECOVERY, b"\x44" * 32, OLD, scrypt_log_n=LEAST_LOG_N)
    assert _refusal(lambda: find_key_file(keys)) is KeystoreReason.MISSING
    assert _refusal(lambda: find_key_file(keys.parent)) is KeystoreReason.MISSING


def test_changed_passphrase_opens_and_the_old_one_does_not(keys: Path) -> None:
    before = SealedBox.parse(member_path(keys).read_bytes())
    _change(keys)
    assert read_member_secrets(keys, NEW) == SECRETS
    assert _refusal(lambda: read_member_secrets(keys, OLD)) is KeystoreReason.WRONG_PASSPHRASE
    assert SealedBox.parse(member_path(keys).read_bytes()).public == before.public
    assert member_path(keys).stat().st_mode & 0o777 == 0o600
    assert list(keys.iterdir()) == [member_path(keys)]


def test_change_needs_the_old_passphrase(keys: Path) -> None:
    def ask() -> Passphrase:
        pytest.fail("a new one was asked for")

    content = member_path(keys).read_bytes()
    assert _refusal(lambda: change_passphrase(member_path(keys), NEW, ask)) is KeystoreReason.WRONG_PASSPHRASE
    assert member_path(keys).read_bytes() == content


@pytest.mark.parametrize("failing", ["write", "fsync", "replace", "directory"])
def test_failed_change_leaves_one_whole_file(keys: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    """Whatever fails, and even if nothing after it runs, a passphrase opens the keys."""

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        if failing == "write":
            patch.setattr(private_files, "_write_new_file", fail)
        elif failing == "fsync":
            patch.setattr(os, "fsync", fail)
        elif failing == "replace":
            patch.setattr(Path, "replace", fail)
        else:
            patch.setattr(private_files, "_sync_directory", fail)
        assert _refusal(lambda: _change(keys)) is KeystoreReason.UNREADABLE
    assert list(keys.iterdir()) == [member_path(keys)]
    assert read_member_secrets(keys, NEW if failing == "directory" else OLD) == SECRETS


@pytest.mark.parametrize(("step", "passphrase"), [("fsync", OLD), ("replace", OLD), ("directory", NEW)])
def test_crash_at_any_step_of_a_change_leaves_one_whole_file(
    keys: Path, monkeypatch: pytest.MonkeyPatch, step: str, passphrase: Passphrase
) -> None:
    """A process that ends between two steps cleans nothing up: what it leaves must open, and not be in the way."""
    with monkeypatch.context() as patch:
        if step == "directory":
            patch.setattr(private_files, "_sync_directory", lambda _: os._exit(9))
        else:
            patch.setattr(os, step, lambda *_: os._exit(9))
        child = os.fork()
        if child == 0:
            _change(keys)
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert read_member_secrets(keys, passphrase) == SECRETS
    change_passphrase(member_path(keys), passphrase, lambda: OLD, scrypt_log_n=LEAST_LOG_N)
    assert read_member_secrets(keys, OLD) == SECRETS
    assert list(keys.iterdir()) == [member_path(keys)]


def test_backup_restores_to_the_same_keys(keys: Path, tmp_path: Path) -> None:
    shown = back_up(member_path(keys), tmp_path / "backup", OLD)
    assert shown == read_public_keys(tmp_path / "backup")
    assert (tmp_path / "backup").stat().st_mode & 0o777 == 0o600
    assert restore(tmp_path / "backup", tmp_path / "new", OLD) == shown
    assert read_member_secrets(tmp_path / "new", OLD) == SECRETS


def test_backup_of_a_recovery_key_restores_under_its_name(tmp_path: Path) -> None:
    write_secret(tmp_path / "keys", SecretKind.RECOVERY, b"\x44" * 32, OLD, scrypt_log_n=LEAST_LOG_N)
    back_up(secret_path(tmp_path / "keys", SecretKind.RECOVERY), tmp_path / "backup", OLD)
    restore(tmp_path / "backup", tmp_path / "new", OLD)
    assert read_secret(tmp_path / "new", SecretKind.RECOVERY, OLD) == b"\x44" * 32


def test_backup_on_a_medium_without_owners_is_read(keys: Path, tmp_path: Path) -> None:
    back_up(member_path(keys), tmp_path / "backup", OLD)
    (tmp_path / "backup").chmod(0o777)
    restore(tmp_path / "backup", tmp_path / "new", OLD)
    assert member_path(tmp_path / "new").stat().st_mode & 0o777 == 0o600


def test_backup_needs_the_passphrase(keys: Path, tmp_path: Path) -> None:
    assert _refusal(lambda: back_up(member_path(keys), tmp_path / "b", NEW)) is KeystoreReason.WRONG_PASSPHRASE
    assert not (tmp_path / "b").exists()


def test_backup_replaces_nothing(keys: Path, tmp_path: Path) -> None:
    (tmp_path / "backup").write_text("another")
    assert _refusal(lambda: back_up(member_path(keys), tmp_path / "backup", OLD)) is KeystoreReason.EXISTS
    assert (tmp_path / "backup").read_text() == "another"


def test_backup_into_no_folder_is_refused_with_its_name(keys: Path, tmp_path: Path) -> None:
    with pytest.raises(KeystoreRefused, match=f"there is no folder {tmp_path}/stick: make it") as caught:
        back_up(member_path(keys), tmp_path / "stick" / "backup", OLD)
    assert caught.value.reason is KeystoreReason.MISSING


def test_backup_that_reads_otherwise_is_refused(keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = private_files.write_private_file
    monkeypatch.setattr(key_files, "write_private_file", lambda path, content: write(path, content[:-1]))
    assert _refusal(lambda: back_up(member_path(keys), tmp_path / "backup", OLD)) is KeystoreReason.DAMAGED
    assert not (tmp_path / "backup").exists()


def test_restore_overwrites_nothing(keys: Path, tmp_path: Path) -> None:
    back_up(member_path(keys), tmp_path / "backup", OLD)
    _change(keys)
    assert _refusal(lambda: restore(tmp_path / "backup", keys, OLD)) is KeystoreReason.EXISTS
    assert read_member_secrets(keys, NEW) == SECRETS


def test_restore_refuses_damage_and_leaves_nothing(keys: Path, tmp_path: Path) -> None:
    content = member_path(keys).read_bytes()
    (tmp_path / "backup").write_bytes(content.replace(b'"sealed": "', b'"sealed": "00'))
    assert _refusal(lambda: restore(tmp_path / "backup", tmp_path / "new", OLD)) is KeystoreReason.DAMAGED
    assert _refusal(lambda: restore(tmp_path / "none", tmp_path / "new", OLD)) is KeystoreReason.MISSING
    assert not (tmp_path / "new").exists()
