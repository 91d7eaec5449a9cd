"""Where a passphrase comes from: a file, the environment, or a person at a terminal, in this order."""

import ctypes
import getpass
import os
import sys
import warnings
from pathlib import Path

from federation.keystore import RandomBytes
from federation.keystore_errors import KeystoreReason, KeystoreRefused
from federation.passphrase import MAX_BYTES, Passphrase
from federation.private_files import read_private_file, write_private_file

VARIABLE = "PEGNODE_PASSPHRASE"
RANDOM_SIZE = 32


def find_passphrase(file: Path | None, *, new: bool = False, what: str = "the keys") -> Passphrase:
    """The passphrase in `file`, else that of the environment, else what is typed: twice when it is `new`.

    The environment variable is removed and wiped, so that neither children, crash reports nor /proc have it.
    what: named in the prompt.
    Raises KeystoreRefused: NO_PASSPHRASE, BAD_PASSPHRASE, and for the file what `read_private_file` raises.
    """
    from_environment = _take_variable()
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


def _take_variable() -> str | None:
    """The environment variable's value, which is then gone: also from the memory that /proc/PID/environ shows."""
    text = os.environ.get(VARIABLE)
    if text is not None:
        library = ctypes.CDLL(None)
        library.getenv.restype = ctypes.c_void_p
        place = library.getenv(VARIABLE.encode())
        if place is not None:
            ctypes.memset(place, 0, len(os.fsencode(text)))
        del os.environ[VARIABLE]
    return text


def _typed(what: str, *, new: bool) -> Passphrase:
    passphrase = Passphrase(_ask(f"{'new ' if new else ''}passphrase for {what}: "))
    if new and Passphrase(_ask("the same again: ")) != passphrase:
        raise KeystoreRefused(KeystoreReason.BAD_PASSPHRASE, "the two passphrases differ")
    return passphrase


def _ask(prompt: str) -> str:
    """What is typed, unseen. Raises KeystoreRefused (NO_PASSPHRASE) for a terminal that can't hide it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", getpass.GetPassWarning)
            return getpass.getpass(prompt)
    except EOFError:
        raise KeystoreRefused(KeystoreReason.NO_PASSPHRASE, "no passphrase was typed") from None
    except getpass.GetPassWarning:
        raise KeystoreRefused(KeystoreReason.NO_PASSPHRASE, "this terminal would show the passphrase") from None
