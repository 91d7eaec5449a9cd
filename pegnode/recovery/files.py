"""PSBT files, as bytes or in base 64, and signed transactions in hex: what holders pass to one another."""

import base64
import binascii
from pathlib import Path

from bridge.bitcoin.transaction import Transaction
from bridge.errors import Rejected
from bridge.psbt import MAGIC, MAX_PSBT_SIZE, Psbt, PsbtReason
from pegnode.input_file import read_input
from pegnode.setup.errors import SetupReason, SetupRefused
from pegnode.setup.inputs import write_new

MAX_TRANSACTION_SIZE = 400_000
"""Bytes: more are not relayed, whatever they are."""


def read_psbt(path: Path) -> Psbt:
    """The PSBT in a file. Raises FileRefused, and Rejected(PsbtReason) with the file's name."""
    data = read_input(path, 2 * MAX_PSBT_SIZE)
    try:
        return Psbt.decode(data if data.startswith(MAGIC) else _from_base64(data))
    except Rejected as error:
        raise Rejected(error.reason, f"{path}: {error.detail}") from error


def write_psbt(path: Path, psbt: Psbt) -> None:
    """Write a new file. Raises SetupRefused (EXISTS, UNWRITABLE)."""
    write_new(path, psbt.encode())


def make_directory(path: Path) -> None:
    """Make a new directory. Raises SetupRefused (EXISTS, UNWRITABLE)."""
    try:
        path.mkdir(parents=True)
    except FileExistsError as error:
        raise SetupRefused(SetupReason.EXISTS, f"{path} exists; nothing is replaced, name another") from error
    except OSError as error:
        raise SetupRefused(SetupReason.UNWRITABLE, f"{path}: {error.strerror}") from error


def read_transaction(path: Path) -> Transaction:
    """The signed transaction in a file of hex. Raises FileRefused, and Rejected(TransactionReason)."""
    data = read_input(path, 2 * MAX_TRANSACTION_SIZE + 2)
    try:
        raw = bytes.fromhex(data.decode("ascii"))
    except ValueError:
        raw = b""
    try:
        return Transaction.parse(raw)
    except Rejected as error:
        detail = f"{path}: no transaction in hex, such as `peg recovery finalize` writes"
        raise Rejected(error.reason, detail) from error


def write_transaction(path: Path, transaction: Transaction) -> None:
    """Write a new file, in hex. Raises SetupRefused (EXISTS, UNWRITABLE)."""
    write_new(path, transaction.serialize().hex().encode() + b"\n")


def _from_base64(data: bytes) -> bytes:
    try:
        return base64.b64decode(b"".join(data.split()), validate=True)
    except binascii.Error as error:
        raise Rejected(PsbtReason.MALFORMED, "neither the bytes of a PSBT nor base 64 of them") from error
