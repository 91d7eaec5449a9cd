"""A member's secrets on disk: one small file for each key, readable by its owner alone.

A file is JSON: `{"format": "pegnode-secret", "version": 1, "kind": ..., "encryption": "none", "public_key": ...,
"secret": ...}`, keys in hex. The public key, x-only, is there so that a damaged file is noticed before it signs.
`encryption` names how `secret` is to be read; this release knows "none", and refuses a file that says otherwise.

No message of this module, and no repr of its values, holds a secret.
"""

import contextlib
import enum
import errno
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bridge.bitcoin.curve import x_only
from bridge.errors import Reason
from federation.errors import Refused

RandomBytes = Callable[[int], bytes]
"""A source of that many unpredictable bytes: `secrets.token_bytes`, or a fixed stream in tests."""

SECRET_SIZE = 32
CURVE_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
"""The order n of secp256k1; a secret key is a number from 1 to n - 1. Source: SEC 2, 2.4.1."""

FORMAT = "pegnode-secret"
VERSION = 1
NO_ENCRYPTION = "none"
MAX_FILE_SIZE = 4096

_DIRECTORY_MODE = 0o700
_FILE_MODE = 0o600
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_KEY_HEX = re.compile(r"[0-9a-f]{64}")


class SecretKind(enum.StrEnum):
    """What a key is for. The file `KIND.key` of a directory holds it."""

    VOTE = "vote"
    CUSTODY = "custody"
    TRANSPORT = "transport"
    RECOVERY = "recovery"


class KeystoreReason(Reason):
    """Why a secret can't be read or written."""

    MISSING = "keystore-missing"
    EXISTS = "keystore-exists"
    NOT_A_FILE = "keystore-not-a-file"
    TOO_OPEN = "keystore-too-open"
    FOREIGN_OWNER = "keystore-foreign-owner"
    UNREADABLE = "keystore-unreadable"
    WRONG_SIZE = "keystore-wrong-size"
    MALFORMED = "keystore-malformed"
    UNKNOWN_VERSION = "keystore-unknown-version"
    ENCRYPTED = "keystore-encrypted"
    WRONG_KIND = "keystore-wrong-kind"
    INVALID_SCALAR = "keystore-invalid-scalar"
    WRONG_PUBLIC_KEY = "keystore-wrong-public-key"
    REUSED_KEY = "keystore-reused-key"


class KeystoreRefused(Refused):
    """A secret that is not accepted, and what to do about it. reason: KeystoreReason."""


@dataclass(frozen=True, slots=True, repr=False)
class MemberSecrets:
    """The three secret keys of one member, 32 bytes each. Its repr shows none of them."""

    vote: bytes
    custody: bytes
    transport: bytes

    def __repr__(self) -> str:
        return "MemberSecrets(hidden)"


class _SecretFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file's fields, in the order in which they are written. Its repr must never reach a log."""

    format: str
    version: int
    kind: str
    encryption: str
    public_key: str
    secret: str


def secret_path(directory: Path, kind: SecretKind) -> Path:
    """Where `directory` holds the secret of that kind."""
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


def write_member_secrets(directory: Path, secrets: MemberSecrets) -> None:
    """Write the three key files. Raises KeystoreRefused; a file that exists is never replaced."""
    _require_distinct(secrets)
    write_secret(directory, SecretKind.VOTE, secrets.vote)
    write_secret(directory, SecretKind.CUSTODY, secrets.custody)
    write_secret(directory, SecretKind.TRANSPORT, secrets.transport)


def read_member_secrets(directory: Path) -> MemberSecrets:
    """The three keys of `directory`. Raises KeystoreRefused with the reason, and the remedy in its detail."""
    secrets = MemberSecrets(
        vote=read_secret(directory, SecretKind.VOTE),
        custody=read_secret(directory, SecretKind.CUSTODY),
        transport=read_secret(directory, SecretKind.TRANSPORT),
    )
    _require_distinct(secrets)
    return secrets


def write_secret(directory: Path, kind: SecretKind, secret: bytes) -> Path:
    """Write one secret to a new file of mode 0600, synced to disk, and return its path.

    The directory is made with mode 0700 if it is absent. Raises KeystoreRefused: EXISTS, INVALID_SCALAR, TOO_OPEN,
    NOT_A_FILE, FOREIGN_OWNER, UNREADABLE.
    """
    if not is_valid_secret(secret):
        raise KeystoreRefused(KeystoreReason.INVALID_SCALAR, f"a {kind.value} key is 32 bytes and a curve scalar")
    with _refusing_os_errors(directory):
        directory.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
    _require_private_directory(directory)
    path = secret_path(directory, kind)
    content = msgspec.json.encode(
        _SecretFile(FORMAT, VERSION, kind.value, NO_ENCRYPTION, x_only(secret).hex(), secret.hex())
    )
    with _refusing_os_errors(path):
        _write_new_file(path, content + b"\n")
        _sync_directory(directory)
    return path


def read_secret(directory: Path, kind: SecretKind) -> bytes:
    """The 32-byte secret of that kind. Raises KeystoreRefused."""
    path = secret_path(directory, kind)
    _require_private_directory(directory)
    content = _read_private_file(path)
    try:
        fields = msgspec.json.decode(content, type=_SecretFile)
    except (msgspec.DecodeError, UnicodeDecodeError):
        # The library's message could quote the file: it goes no further.
        raise _not_a_key_file(path) from None
    return _checked_secret(path, kind, fields)


def _checked_secret(path: Path, kind: SecretKind, fields: _SecretFile) -> bytes:
    if fields.format != FORMAT:
        raise _not_a_key_file(path)
    if fields.version != VERSION:
        raise KeystoreRefused(
            KeystoreReason.UNKNOWN_VERSION,
            f"{path} is not of key file version {VERSION}; it needs the release that wrote it",
        )
    if fields.encryption != NO_ENCRYPTION:
        raise KeystoreRefused(KeystoreReason.ENCRYPTED, f"{path} is encrypted; this release reads plain key files only")
    if fields.kind != kind.value:
        raise KeystoreRefused(
            KeystoreReason.WRONG_KIND, f"{path} holds another kind of key; put the {kind.value} key there"
        )
    if len(fields.secret) != 2 * SECRET_SIZE:
        raise KeystoreRefused(
            KeystoreReason.WRONG_SIZE, f"{path}: the secret is not 32 bytes; restore it from your backup"
        )
    if not _KEY_HEX.fullmatch(fields.secret) or not is_valid_secret(bytes.fromhex(fields.secret)):
        raise KeystoreRefused(
            KeystoreReason.INVALID_SCALAR, f"{path}: the secret is no secp256k1 key; restore it from your backup"
        )
    secret = bytes.fromhex(fields.secret)
    if x_only(secret).hex() != fields.public_key:
        raise KeystoreRefused(
            KeystoreReason.WRONG_PUBLIC_KEY, f"{path}: secret and public key don't match; restore it from your backup"
        )
    return secret


def _not_a_key_file(path: Path) -> KeystoreRefused:
    return KeystoreRefused(KeystoreReason.MALFORMED, f"{path} is not a key file; restore it from your backup")


def _require_distinct(secrets: MemberSecrets) -> None:
    if len({secrets.vote, secrets.custody, secrets.transport}) != 3:
        raise KeystoreRefused(
            KeystoreReason.REUSED_KEY, "one secret serves two purposes; give each purpose a key of its own"
        )


def _require_private_directory(directory: Path) -> None:
    with _refusing_os_errors(directory):
        status = directory.stat()
    if not stat.S_ISDIR(status.st_mode):
        raise KeystoreRefused(KeystoreReason.NOT_A_FILE, f"{directory} is not a directory")
    _require_private(directory, status, _DIRECTORY_MODE)


def _require_private(path: Path, status: os.stat_result, mode: int) -> None:
    if status.st_uid != os.geteuid():
        raise KeystoreRefused(
            KeystoreReason.FOREIGN_OWNER, f"{path} belongs to another user; run as its owner, or chown it"
        )
    if status.st_mode & _OTHERS:
        raise KeystoreRefused(
            KeystoreReason.TOO_OPEN,
            f"{path} is open to others (mode {stat.S_IMODE(status.st_mode):04o}); run: chmod {mode:o} {path}",
        )


def _write_new_file(path: Path, content: bytes) -> None:
    """All of `content`, synced, or no file."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, _FILE_MODE)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_private_file(path: Path) -> bytes:
    """All bytes of a regular file that only its owner may read.

    Judged on the open descriptor, so that the file can't be swapped between check and read.
    """
    with _refusing_os_errors(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise KeystoreRefused(KeystoreReason.NOT_A_FILE, f"{path} is not a regular file")
        _require_private(path, status, _FILE_MODE)
        if not 0 < status.st_size <= MAX_FILE_SIZE:
            raise KeystoreRefused(
                KeystoreReason.WRONG_SIZE, f"{path} has {status.st_size} bytes; restore it from your backup"
            )
        with _refusing_os_errors(path):
            return os.read(descriptor, MAX_FILE_SIZE)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _refusing_os_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's errors about `path` into KeystoreRefused."""
    try:
        yield
    except FileExistsError as error:
        raise KeystoreRefused(
            KeystoreReason.EXISTS, f"{path} exists; a key is never overwritten, move it away first"
        ) from error
    except FileNotFoundError as error:
        raise KeystoreRefused(
            KeystoreReason.MISSING, f"{path} does not exist; correct the path, or restore it from your backup"
        ) from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise KeystoreRefused(
                KeystoreReason.NOT_A_FILE, f"{path} is a symbolic link; put the file there"
            ) from error
        raise KeystoreRefused(KeystoreReason.UNREADABLE, f"{path}: {error.strerror}") from error
