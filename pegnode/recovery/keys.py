"""A holder's recovery key: checked to be one of the federation's before anybody types a passphrase."""

from pathlib import Path

from bridge.custody import Custody
from bridge.errors import Rejected
from bridge.recovery import RecoveryReason
from federation.key_files import find_key_file, read_public_keys
from federation.keystore import SecretKind, naming, open_keys, read_box
from federation.keystore_errors import KeystoreReason, KeystoreRefused
from federation.passphrase import Passphrase
from pegnode.recovery.survey import EPOCHS


def recovery_key_of(path: Path, custody: Custody) -> bytes:
    """The public key, 32 bytes, in a key file or the directory with one; no passphrase is needed.

    Raises KeystoreRefused, and Rejected(RecoveryReason.UNKNOWN_KEY) for a key that recovers nothing here.
    """
    file = find_key_file(path)
    public = read_public_keys(file).keys.get(SecretKind.RECOVERY)
    if public is None:
        raise KeystoreRefused(KeystoreReason.WRONG_KIND, f"{file}: it holds no recovery key; name the file of one")
    if not any(public in custody.policy(epoch).recovery_keys for epoch in EPOCHS):
        detail = f"{public.hex()}, in {file}, is none of the recovery keys of this genesis"
        raise Rejected(RecoveryReason.UNKNOWN_KEY, detail)
    return public


def open_recovery_key(path: Path, passphrase: Passphrase) -> bytes:
    """The secret, 32 bytes, in the key file that `recovery_key_of` has looked at. Raises KeystoreRefused."""
    file = find_key_file(path)
    with naming(file):
        return open_keys(read_box(file), passphrase)[SecretKind.RECOVERY]
