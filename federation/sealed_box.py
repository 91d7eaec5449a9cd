"""Secrets under a passphrase: the one format of key files, wallet seeds and backups. (pure)

A box is JSON, indented, with these fields in this order:

    format        "pegnode-sealed"
    version       1
    kind          what is inside: "member", "recovery", "wallet"
    public        what may be known without the passphrase, such as public keys: names to texts
    scrypt_log_n  the cost of a guess: scrypt with N = 2^scrypt_log_n, r = 8, p = 1 takes 2^scrypt_log_n KiB
    salt          32 bytes in hex, fresh for each box
    nonce         12 bytes in hex, fresh for each box
    sealed        the secret and a tag of 16 bytes in hex: ChaCha20-Poly1305 under the key that scrypt gives
    checksum      SHA-256 in hex of the values above

The values before `sealed`, as a JSON array without blanks, are the associated data: the tag covers them too. The
checksum, over the same array with `sealed` in it, is no protection: it tells a damaged file, which no passphrase opens,
from a wrong passphrase. A file that someone altered and gave a new checksum can't be told from a wrong passphrase;
neither opens.

Sources: RFC 7914 (scrypt), RFC 8439 (ChaCha20-Poly1305).
"""

import re
from collections.abc import Callable, Mapping
from hashlib import sha256

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from federation.keystore_errors import KeystoreReason, KeystoreRefused
from federation.passphrase import Passphrase

FORMAT = "pegnode-sealed"
VERSION = 1
SALT_SIZE = 32
NONCE_SIZE = 12
TAG_SIZE = 16
MAX_SECRET_SIZE = 1024
MAX_BOX_SIZE = 8192
"""Bytes of the largest box that is read."""

STRONG_LOG_N = 17
"""128 MiB and about half a second for each guess. Source: OWASP Password Storage Cheat Sheet (scrypt)."""
LEAST_LOG_N = 10
"""1 MiB and a few milliseconds: enough for a passphrase of 256 random bits, which nobody can guess."""
MOST_LOG_N = 18
"""256 MiB: a file asks for no more memory than that."""

_BLOCK_SIZE, _PARALLELISM, _KEY_SIZE = 8, 1, 32
_HEX = re.compile(r"(?:[0-9a-f]{2})*")


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The fields, in the order in which they are written."""

    format: str
    version: int
    kind: str
    public: dict[str, str]
    scrypt_log_n: int
    salt: str
    nonce: str
    sealed: str
    checksum: str


class SealedBox:
    """A box that was read, and not opened. kind, public: see above; not to be trusted before `open` has succeeded."""

    __slots__ = ("_file", "kind", "public")

    def __init__(self, file: _File) -> None:
        self._file = file
        self.kind = file.kind
        self.public: Mapping[str, str] = file.public

    @classmethod
    def parse(cls, content: bytes) -> "SealedBox":
        """The box of these bytes. Raises KeystoreRefused: WRONG_SIZE, MALFORMED, UNKNOWN_VERSION, DAMAGED, COST."""
        if not 0 < len(content) <= MAX_BOX_SIZE:
            raise KeystoreRefused(KeystoreReason.WRONG_SIZE, f"{len(content)} bytes; restore it from your backup")
        try:
            file = msgspec.json.decode(content, type=_File)
        except (msgspec.DecodeError, UnicodeDecodeError):
            # The library's message could quote the file: it goes no further.
            raise _not_a_box() from None
        if file.format != FORMAT:
            raise _not_a_box()
        if file.version != VERSION:
            raise KeystoreRefused(
                KeystoreReason.UNKNOWN_VERSION, f"not of version {VERSION}; it needs the release that wrote it"
            )
        if file.checksum != _checksum(file) or content != _encode(file):
            raise KeystoreRefused(KeystoreReason.DAMAGED, "the file is damaged; restore it from your backup")
        _require_shape(file)
        return cls(file)

    @property
    def scrypt_log_n(self) -> int:
        """The cost of a guess."""
        return self._file.scrypt_log_n

    def open(self, passphrase: Passphrase) -> bytes:
        """The secret. Raises KeystoreRefused: WRONG_PASSPHRASE, COST."""
        file = self._file
        key = _derive(passphrase, bytes.fromhex(file.salt), file.scrypt_log_n)
        try:
            return ChaCha20Poly1305(key).decrypt(
                bytes.fromhex(file.nonce), bytes.fromhex(file.sealed), _associated_data(file)
            )
        except InvalidTag:
            raise KeystoreRefused(
                KeystoreReason.WRONG_PASSPHRASE,
                "the passphrase does not open it; if you are sure of it, the file was altered: restore your backup",
            ) from None


def seal(
    kind: str,
    public: Mapping[str, str],
    secret: bytes,
    passphrase: Passphrase,
    *,
    random_bytes: Callable[[int], bytes],
    scrypt_log_n: int = STRONG_LOG_N,
) -> bytes:
    """The bytes of a new box. secret: 1 to 1024 bytes. Raises KeystoreRefused: WRONG_SIZE, COST."""
    if not 0 < len(secret) <= MAX_SECRET_SIZE:
        raise KeystoreRefused(KeystoreReason.WRONG_SIZE, f"a secret of 1 to {MAX_SECRET_SIZE} bytes can be sealed")
    _require_cost(scrypt_log_n)
    salt, nonce = random_bytes(SALT_SIZE), random_bytes(NONCE_SIZE)
    blank = _File(FORMAT, VERSION, kind, dict(public), scrypt_log_n, salt.hex(), nonce.hex(), sealed="", checksum="")
    key = _derive(passphrase, salt, scrypt_log_n)
    sealed = ChaCha20Poly1305(key).encrypt(nonce, secret, _associated_data(blank))
    file = msgspec.structs.replace(blank, sealed=sealed.hex())
    return _encode(msgspec.structs.replace(file, checksum=_checksum(file)))


def _derive(passphrase: Passphrase, salt: bytes, scrypt_log_n: int) -> bytes:
    try:
        return Scrypt(salt, _KEY_SIZE, 1 << scrypt_log_n, _BLOCK_SIZE, _PARALLELISM).derive(passphrase.reveal())
    except MemoryError:
        needed_mib = (128 * _BLOCK_SIZE << scrypt_log_n) >> 20
        raise KeystoreRefused(
            KeystoreReason.COST, f"the passphrase's key takes {needed_mib} MiB of memory; make room for it"
        ) from None


def _encode(file: _File) -> bytes:
    return msgspec.json.format(msgspec.json.encode(file), indent=2) + b"\n"


def _associated_data(file: _File) -> bytes:
    """What the tag covers besides the secret: all that comes before it."""
    return msgspec.json.encode(msgspec.structs.astuple(file)[:-2])


def _checksum(file: _File) -> str:
    return sha256(msgspec.json.encode(msgspec.structs.astuple(file)[:-1])).hexdigest()


def _require_shape(file: _File) -> None:
    """Raise KeystoreRefused (MALFORMED, COST) for lengths and costs that `seal` does not write."""
    sizes = (
        (file.salt, SALT_SIZE, SALT_SIZE),
        (file.nonce, NONCE_SIZE, NONCE_SIZE),
        (file.sealed, TAG_SIZE + 1, TAG_SIZE + MAX_SECRET_SIZE),
    )
    for text, least, most in sizes:
        if not _HEX.fullmatch(text) or not 2 * least <= len(text) <= 2 * most:
            raise _not_a_box()
    _require_cost(file.scrypt_log_n)


def _require_cost(scrypt_log_n: int) -> None:
    if not LEAST_LOG_N <= scrypt_log_n <= MOST_LOG_N:
        raise KeystoreRefused(
            KeystoreReason.COST, f"scrypt_log_n is {scrypt_log_n}; {LEAST_LOG_N} to {MOST_LOG_N} are accepted"
        )


def _not_a_box() -> KeystoreRefused:
    return KeystoreRefused(KeystoreReason.MALFORMED, "not a key file; restore it from your backup")
