"""The file with the wallet's secret: the mnemonic, sealed under a passphrase, and what watching needs, in clear.

It is a box of kind "wallet" (see `federation.sealed_box`). In clear: the first block of the chain that it is for, and
the public descriptors of its addresses, so that a wallet shows addresses and balances without its passphrase. Who reads
the file sees all of the wallet's addresses, and can spend nothing.
"""

import secrets as system
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from federation.keystore import naming
from federation.keystore_errors import KeystoreReason, KeystoreRefused
from federation.passphrase import Passphrase
from federation.private_files import read_private_file, replace_private_file, write_private_file
from federation.sealed_box import MAX_BOX_SIZE, STRONG_LOG_N, SealedBox, seal
from pegnode.wallet.errors import WalletError, WalletReason

WALLET_KIND = "wallet"


@dataclass(frozen=True, slots=True)
class WatchedSeed:
    """What is known without the passphrase. genesis_hash: reversed hex, of the sidechain.

    receive, change: public descriptors.
    """

    genesis_hash: str
    receive: str
    change: str


def require_no_seed(path: Path) -> None:
    """Raise WalletError (EXISTS) if there is a seed: before people are asked for what would be in vain."""
    if path.exists() or path.is_symlink():
        raise WalletError(WalletReason.EXISTS, f"{path.parent} already holds a wallet")


def write_seed(
    path: Path, watched: WatchedSeed, mnemonic: str, passphrase: Passphrase, *, scrypt_log_n: int = STRONG_LOG_N
) -> None:
    """Write a new file that its owner alone may read. Raises WalletError (EXISTS) and KeystoreRefused."""
    require_no_seed(path)
    public = {"genesis_hash": watched.genesis_hash, "receive": watched.receive, "change": watched.change}
    write_private_file(path, _seal(public, mnemonic, passphrase, scrypt_log_n))


def read_seed(path: Path) -> WatchedSeed:
    """What the file at `path` shows. Raises WalletError (NOT_FOUND, DAMAGED) and KeystoreRefused."""
    public = _read_box(path).public
    try:
        return WatchedSeed(public["genesis_hash"], public["receive"], public["change"])
    except KeyError:
        raise WalletError(WalletReason.DAMAGED, f"{path} does not say what to watch; restore from the words") from None


def open_seed(path: Path, passphrase: Passphrase) -> str:
    """The mnemonic. Raises WalletError (NOT_FOUND) and KeystoreRefused (WRONG_PASSPHRASE and others)."""
    box = _read_box(path)
    with naming(path):
        return box.open(passphrase).decode()


def change_seed_passphrase(
    path: Path, old: Passphrase, ask_new: Callable[[], Passphrase], *, scrypt_log_n: int = STRONG_LOG_N
) -> None:
    """Seal the mnemonic anew; a crash leaves the old file or the new one. Raises as `open_seed` does.

    ask_new: called once the old passphrase has opened the file.
    """
    public, mnemonic = dict(_read_box(path).public), open_seed(path, old)
    replace_private_file(path, _seal(public, mnemonic, ask_new(), scrypt_log_n))


def _seal(public: dict[str, str], mnemonic: str, passphrase: Passphrase, scrypt_log_n: int) -> bytes:
    return seal(
        WALLET_KIND,
        public,
        mnemonic.encode(),
        passphrase,
        random_bytes=system.token_bytes,
        scrypt_log_n=scrypt_log_n,
    )


def _read_box(path: Path) -> SealedBox:
    try:
        content = read_private_file(path, MAX_BOX_SIZE)
    except KeystoreRefused as error:
        if error.reason is KeystoreReason.MISSING:
            raise WalletError(WalletReason.NOT_FOUND, f"there is no wallet in {path.parent}") from error
        raise
    with naming(path):
        box = SealedBox.parse(content)
        if box.kind != WALLET_KIND:
            raise KeystoreRefused(KeystoreReason.WRONG_KIND, "it holds no wallet's seed")
        return box
