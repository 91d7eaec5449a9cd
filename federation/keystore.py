"""A member's secrets on disk: one file, `member.key`, encrypted and readable by its owner alone.

The file is a box of kind "member" (see `federation.sealed_box`): the public keys of vote, custody and transport in
clear, and the secret keys, 32 bytes each and in that order, sealed. A recovery key has a box and a file of its own.

No message of this module, and no repr of its values, holds a secret.
"""

import enum
import secrets as system
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from coincurve import PrivateKey

from bridge.bitcoin.curve import x_only
from federation.keystore_errors import KeystoreReason, KeystoreRefused
from federation.passphrase import Passphrase
from federation.private_files import (
    make_private_directory,
    read_private_file,
    require_private_directory,
    write_private_file,
)
from federation.sealed_box import MAX_BOX_SIZE, STRONG_LOG_N, SealedBox, seal

RandomBytes = Callable[[int], bytes]
"""A source of that many unpredictable bytes: `secrets.token_bytes`, or a fixed stream in tests."""

SECRET_SIZE = 32
CURVE_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
"""The order n of secp256k1; a secret key is a number from 1 to n - 1. Source: SEC 2, 2.4.1."""

MEMBER_KIND = "member"


class SecretKind(enum.StrEnum):
    """What a key is for."""

    VOTE = "vote"
    CUSTODY = "custody"
    TRANSPORT = "transport"
    RECOVERY = "recovery"


MEMBER_KEYS = (SecretKind.VOTE, SecretKind.CUSTODY, SecretKind.TRANSPORT)
"""The keys of a member's file, in the order in which they are sealed."""


@dataclass(frozen=True, slots=True, repr=False)
class MemberSecrets:
    """The three secret keys of one member, 32 bytes each. It shows none of them, and is neither pickled nor copied."""

    vote: bytes
    custody: bytes
    transport: bytes

    def __repr__(self) -> str:
        return "MemberSecrets(hidden)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a member's secrets are neither pickled nor copied")


def member_path(directory: Path) -> Path:
    """Where `directory` holds a member's keys."""
    return directory / f"{MEMBER_KIND}.key"


def secret_path(directory: Path, kind: SecretKind) -> Path:
    """Where `directory` holds a lone secret of that kind."""
    return directory / f"{kind.value}.key"


def generate_secret(random_bytes: RandomBytes) -> bytes:
    """A new secret key, 32 bytes: uniform from 1 to the curve's order - 1, by rejection."""
    while True:
        secret = random_bytes(SECRET_SIZE)
        if is_valid_secret(secret):
            return secret


def generate_member_secrets(random_bytes: RandomBytes) -> MemberSecrets:
    """Three new and independent secret keys."""
    return MemberSecrets(
        vote=generate_secret(random_bytes),
        custody=generate_secret(random_bytes),
        transport=generate_secret(random_bytes),
    )


def is_valid_secret(secret: bytes) -> bool:
    """Whether `secret` is 32 bytes that name a number from 1 to the curve's order - 1, big-endian."""
    return len(secret) == SECRET_SIZE and 0 < int.from_bytes(secret, "big") < CURVE_ORDER


def write_member_secrets(
    directory: Path,
    secrets: MemberSecrets,
    passphrase: Passphrase,
    *,
    scrypt_log_n: int = STRONG_LOG_N,
    random_bytes: RandomBytes = system.token_bytes,
) -> Path:
    """Write the three keys to a new file, synced to disk, and return its path.

    The directory is made with mode 0700 if it is absent; a file that exists is never replaced.
    scrypt_log_n, random_bytes: see `federation.sealed_box`. Raises KeystoreRefused: EXISTS, INVALID_SCALAR,
    REUSED_KEY, TOO_OPEN, NOT_A_FILE, FOREIGN_OWNER, UNREADABLE, COST.
    """
    keys = dict(zip(MEMBER_KEYS, (secrets.vote, secrets.custody, secrets.transport), strict=True))
    return _write(member_path(directory), MEMBER_KIND, keys, passphrase, scrypt_log_n, random_bytes)


def read_member_secrets(directory: Path, passphrase: Passphrase) -> MemberSecrets:
    """The three keys of `directory`. Raises KeystoreRefused with the reason, and the remedy in its detail."""
    keys = _read(member_path(directory), MEMBER_KIND, passphrase)
    return MemberSecrets(keys[SecretKind.VOTE], keys[SecretKind.CUSTODY], keys[SecretKind.TRANSPORT])


def write_secret(
    directory: Path,
    kind: SecretKind,
    secret: bytes,
    passphrase: Passphrase,
    *,
    scrypt_log_n: int = STRONG_LOG_N,
    random_bytes: RandomBytes = system.token_bytes,
) -> Path:
    """Write a lone secret, such as a recovery key, to a new file, as `write_member_secrets` does."""
    path = secret_path(directory, kind)
    return _write(path, kind.value, {kind: secret}, passphrase, scrypt_log_n, random_bytes)


def read_secret(directory: Path, kind: SecretKind, passphrase: Passphrase) -> bytes:
    """The 32-byte secret that `write_secret` wrote. Raises KeystoreRefused."""
    return _read(secret_path(directory, kind), kind.value, passphrase)[kind]


def public_key(kind: SecretKind, secret: bytes) -> bytes:
    """How a key is known to others: a transport key compressed, 33 bytes, for its peer id; all others x-only, 32."""
    return PrivateKey(secret).public_key.format() if kind is SecretKind.TRANSPORT else x_only(secret)


def open_keys(box: SealedBox, passphrase: Passphrase) -> dict[SecretKind, bytes]:
    """The secret keys in a box, and nothing that does not fit its public keys.

    Raises KeystoreRefused: WRONG_PASSPHRASE, COST, WRONG_KIND, WRONG_SIZE, INVALID_SCALAR, REUSED_KEY,
    WRONG_PUBLIC_KEY.
    """
    kinds = key_kinds(box)
    joined = box.open(passphrase)
    if len(joined) != len(kinds) * SECRET_SIZE:
        raise KeystoreRefused(KeystoreReason.WRONG_SIZE, "not 32 bytes for each key; restore it from your backup")
    keys = {kind: joined[index * SECRET_SIZE : (index + 1) * SECRET_SIZE] for index, kind in enumerate(kinds)}
    _require_keys(keys)
    if box.public != _public_hex(keys):
        raise KeystoreRefused(
            KeystoreReason.WRONG_PUBLIC_KEY, "secret and public keys don't match; restore it from your backup"
        )
    return keys


def key_kinds(box: SealedBox) -> tuple[SecretKind, ...]:
    """Which keys a box holds. Raises KeystoreRefused (WRONG_KIND) for one with something else."""
    if box.kind == MEMBER_KIND:
        return MEMBER_KEYS
    if box.kind in list(SecretKind):
        return (SecretKind(box.kind),)
    raise KeystoreRefused(KeystoreReason.WRONG_KIND, "it holds no keys of a member or for recovery")


def read_box(path: Path) -> SealedBox:
    """The box in a file that is its owner's alone, in a directory likewise. Raises KeystoreRefused."""
    require_private_directory(path.parent)
    content = read_private_file(path, MAX_BOX_SIZE)
    with naming(path):
        return SealedBox.parse(content)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put the path before what a KeystoreRefused says."""
    try:
        yield
    except KeystoreRefused as error:
        raise KeystoreRefused(error.reason, f"{path}: {error.detail}") from None


def _write(
    path: Path,
    file_kind: str,
    keys: Mapping[SecretKind, bytes],
    passphrase: Passphrase,
    scrypt_log_n: int,
    random_bytes: RandomBytes,
) -> Path:
    _require_keys(keys)
    make_private_directory(path.parent)
    joined = b"".join(keys.values())
    public = _public_hex(keys)
    write_private_file(
        path, seal(file_kind, public, joined, passphrase, random_bytes=random_bytes, scrypt_log_n=scrypt_log_n)
    )
    return path


def _read(path: Path, file_kind: str, passphrase: Passphrase) -> dict[SecretKind, bytes]:
    box = read_box(path)
    with naming(path):
        if box.kind != file_kind:
            raise KeystoreRefused(
                KeystoreReason.WRONG_KIND, f"it holds {box.kind!r} keys; put the {file_kind} file there"
            )
        return open_keys(box, passphrase)


def _public_hex(keys: Mapping[SecretKind, bytes]) -> dict[str, str]:
    return {kind.value: public_key(kind, secret).hex() for kind, secret in keys.items()}


def _require_keys(keys: Mapping[SecretKind, bytes]) -> None:
    """Raise KeystoreRefused (INVALID_SCALAR, REUSED_KEY) unless they are keys, each another."""
    for kind, secret in keys.items():
        if not is_valid_secret(secret):
            raise KeystoreRefused(KeystoreReason.INVALID_SCALAR, f"a {kind.value} key is 32 bytes and a curve scalar")
    if len(set(keys.values())) != len(keys):
        raise KeystoreRefused(
            KeystoreReason.REUSED_KEY, "one secret serves two purposes; give each purpose a key of its own"
        )
