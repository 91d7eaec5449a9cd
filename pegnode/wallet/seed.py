"""The file with the wallet's secret: the mnemonic, and the chain that it is used on."""

import os
from pathlib import Path

import msgspec

from pegnode.wallet.errors import WalletError, WalletReason

SEED_VERSION = 1
MAX_SEED_BYTES = 4_096


class Seed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """version: of this format.  genesis_hash: reversed hex, of the sidechain.  mnemonic: BIP39, in clear."""

    version: int
    genesis_hash: str
    mnemonic: str

    def __repr__(self) -> str:
        return f"Seed(version={self.version}, genesis_hash={self.genesis_hash!r})"


def write_seed(path: Path, seed: Seed) -> None:
    """Write a new file that its owner alone may read. Raises WalletError (EXISTS, UNUSABLE)."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(seed) + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError as error:
        raise WalletError(WalletReason.EXISTS, f"{path.parent} already holds a wallet") from error
    except OSError as error:
        raise WalletError(WalletReason.UNUSABLE, f"can't write {path}: {error.strerror}") from error


def read_seed(path: Path) -> Seed:
    """The seed at `path`. Raises WalletError (NOT_FOUND, EXPOSED, DAMAGED, UNUSABLE)."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(MAX_SEED_BYTES)
    except FileNotFoundError as error:
        raise WalletError(WalletReason.NOT_FOUND, f"there is no wallet in {path.parent}") from error
    except OSError as error:
        raise WalletError(WalletReason.UNUSABLE, f"can't read {path}: {error.strerror}") from error
    if mode & 0o077:
        raise WalletError(WalletReason.EXPOSED, f"others may read {path}: chmod 600 it, and better move the money")
    try:
        seed = msgspec.json.decode(data, type=Seed)
    except msgspec.MsgspecError:
        seed = None  # the parser's words could quote the file
    if seed is None or seed.version != SEED_VERSION:
        raise WalletError(WalletReason.DAMAGED, f"{path} is not a seed of version {SEED_VERSION}")
    return seed
