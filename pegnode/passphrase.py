"""Where a passphrase comes from: a file, the environment, or a person at a terminal, in this order."""

import getpass
import os
import sys
from pathlib import Path

from federation.keystore import RandomBytes
from federation.keystore_errors import KeystoreReason, KeystoreRefused
from federation.passphrase import MAX_BYTES, Passphrase
from federation.private_files import read_private_file, write_private_file

VARIABLE = "PEGNODE_PASSPHRASE"
RANDOM_SIZE = 32


def find_passphrase(file: Path | None, *, new: bool = False, what: str = "the keys") -> Passphrase:
    """The passphrase in `file`, else that of the environment, else what is typed: twice when it is `new`.

    The environment variable is removed, so that neither children nor crash reports have it. what: named in the prompt.
    Raises KeystoreRefused: NO_PASSPHRASE, BAD_PASSPHRASE, and for the file what `read_private_file` raises.
    """
    from_environment = os.environ.pop(VARIABLE, None)
    if file is not None:
        return read_passphrase_file(file)
    if from_environment is not None:
        return _named(f"environment variable {VARIABLE}", from_environment)
    if sys.stdin.isatty():
        return _typed(what, new=new)
    raise KeystoreRefused(
        KeystoreReason.NO_PASSPHRASE,
        f"no passphrase for {what}: name a file that holds it (passphrase_file, --passphrase-file), "
        f"set {VARIABLE}, or run this at a terminal",
    )


def read_passphrase_file(path: Path) -> Passphrase:
    """The first line of a file that is its owner's alone. Raises KeystoreRefused."""
    content = read_private_file(path, MAX_BYTES + 2)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise KeystoreRefused(KeystoreReason.BAD_PASSPHRASE, f"{path} is not UTF-8") from None
    return _named(str(path), text.partition("\n")[0].removesuffix("\r"))


def write_random_passphrase(path: Path, random_bytes: RandomBytes) -> Passphrase:
    """Write a passphrase of 256 random bits to a new file of mode 0600, and return it. Raises KeystoreRefused."""
    text = random_bytes(RANDOM_SIZE).hex()
    write_private_file(path, text.encode() + b"\n")
    return Passphrase(text)


def _named(source: str, text: str) -> Passphrase:
    try:
        return Passphrase(text)
    except KeystoreRefused as error:
        raise KeystoreRefused(error.reason, f"{source}: {error.detail}") from None


def _typed(what: str, *, new: bool) -> Passphrase:
    try:
        passphrase = Passphrase(getpass.getpass(f"{'new ' if new else ''}passphrase for {what}: "))
        if new and getpass.getpass("the same again: ") != passphrase.reveal().decode():
            raise KeystoreRefused(KeystoreReason.BAD_PASSPHRASE, "the two passphrases differ")
    except EOFError:
        raise KeystoreRefused(KeystoreReason.NO_PASSPHRASE, "no passphrase was typed") from None
    return passphrase
