"""What an owner does with a key file as a whole: look at it, change its passphrase, back it up, restore it."""

import secrets as system
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from federation.keystore import (
    MEMBER_KIND,
    RandomBytes,
    SecretKind,
    key_kinds,
    naming,
    open_keys,
    read_box,
)
from federation.keystore_errors import KeystoreReason, KeystoreRefused
from federation.passphrase import Passphrase
from federation.private_files import (
    make_private_directory,
    read_small_file,
    replace_private_file,
    write_private_file,
)
from federation.sealed_box import MAX_BOX_SIZE, STRONG_LOG_N, SealedBox, seal


@dataclass(frozen=True, slots=True)
class PublicKeys:
    """What a key file shows without its passphrase. kind: "member" or a lone key's.  keys: x-only, 32 bytes; the
    transport key compressed, 33. Whether they are those of the sealed secrets, only the passphrase can tell.
    """

    kind: str
    keys: Mapping[SecretKind, bytes]


def file_name(kind: str) -> str:
    """The name under which a keys directory holds keys of that kind."""
    return f"{kind}.key"


def find_key_file(path: Path) -> Path:
    """`path` itself if it is a file, or the one key file in this directory. Raises KeystoreRefused (MISSING)."""
    if not path.is_dir():
        return path
    kinds = (MEMBER_KIND, *SecretKind)
    found = [file for file in (path / file_name(kind) for kind in kinds) if file.exists()]
    if not found:
        raise KeystoreRefused(KeystoreReason.MISSING, f"no key file in {path}")
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise KeystoreRefused(KeystoreReason.MISSING, f"{path} holds {names}; name one of them")
    return found[0]


def read_public_keys(path: Path) -> PublicKeys:
    """The public keys in a key file or a backup. Raises KeystoreRefused."""
    return _public_keys(_read_anywhere(path)[1], path)


def change_passphrase(
    path: Path,
    old: Passphrase,
    ask_new: Callable[[], Passphrase],
    *,
    scrypt_log_n: int = STRONG_LOG_N,
    random_bytes: RandomBytes = system.token_bytes,
) -> None:
    """Seal the keys anew, with a fresh salt, and put the file in the old one's place: a crash leaves one, whole.

    ask_new: called once the old passphrase has opened the file.
    What can't be undone: backups keep the old passphrase, and a disk may keep the old file's blocks for a while.
    Raises KeystoreRefused.
    """
    box = read_box(path)
    with naming(path):
        joined = b"".join(open_keys(box, old).values())
    sealed = seal(box.kind, box.public, joined, ask_new(), random_bytes=random_bytes, scrypt_log_n=scrypt_log_n)
    replace_private_file(path, sealed)


def back_up(path: Path, target: Path, passphrase: Passphrase) -> PublicKeys:
    """Copy a key file, once it has opened, to a new file, and compare what can be read back from there.

    Raises KeystoreRefused: EXISTS, DAMAGED when the copy reads otherwise, and what reading raises.
    """
    content, box = _read_anywhere(path)
    with naming(path):
        open_keys(box, passphrase)
    write_private_file(target, content)
    if read_small_file(target, MAX_BOX_SIZE) != content:
        target.unlink()
        raise KeystoreRefused(KeystoreReason.DAMAGED, f"{target} does not hold what was written; use another medium")
    return _public_keys(box, target)


def restore(backup: Path, directory: Path, passphrase: Passphrase) -> PublicKeys:
    """Put the keys of a backup, once it has opened, into a keys directory that has none of their kind.

    Raises KeystoreRefused: EXISTS, and what reading and writing raise.
    """
    content, box = _read_anywhere(backup)
    with naming(backup):
        open_keys(box, passphrase)
    make_private_directory(directory)
    write_private_file(directory / file_name(box.kind), content)
    return _public_keys(box, backup)


def _read_anywhere(path: Path) -> tuple[bytes, SealedBox]:
    content = read_small_file(path, MAX_BOX_SIZE)
    with naming(path):
        return content, SealedBox.parse(content)


def _public_keys(box: SealedBox, path: Path) -> PublicKeys:
    with naming(path):
        kinds = key_kinds(box)
        try:
            keys = {kind: bytes.fromhex(box.public[kind.value]) for kind in kinds}
        except (KeyError, ValueError):
            keys = {}
        sizes = {kind: 33 if kind is SecretKind.TRANSPORT else 32 for kind in kinds}
        if {kind: len(key) for kind, key in keys.items()} != sizes or len(box.public) != len(kinds):
            raise KeystoreRefused(KeystoreReason.WRONG_PUBLIC_KEY, "its public keys are none; restore your backup")
    return PublicKeys(box.kind, keys)
