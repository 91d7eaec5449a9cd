"""A member's keys: whether they are its own, safe from others, and can be opened."""

import os
import socket
from collections.abc import Mapping
from pathlib import Path

from federation.key_files import read_public_keys
from federation.keystore import SecretKind, member_path, read_box, read_member_secrets
from federation.keystore_errors import KeystoreReason, KeystoreRefused
from federation.membership import Member
from federation.passphrase import Passphrase
from pegnode.doctor.findings import Check, Finding, Outcome, ok, problem, refused, warning
from pegnode.net.address import transport_key_of
from pegnode.passphrase import VARIABLE, find_passphrase, read_passphrase_file

RESTORE = "correct keys_dir, or restore this member's keys: peg keys restore"


def check_keys(keys: Mapping[SecretKind, bytes], member: Member) -> Finding:
    """Whether the keys that a file names are those by which the genesis knows this member."""
    expected = {
        SecretKind.VOTE: member.vote_key32,
        SecretKind.CUSTODY: member.custody_key32,
        SecretKind.TRANSPORT: transport_key_of(member.peer_id),
    }
    strange = [kind.value for kind, key in expected.items() if keys.get(kind) != key]
    if strange:
        what = f"the genesis knows {member.name} by another {' and '.join(strange)} key"
        return problem(Check.KEYS, what, f"{RESTORE}; or correct name, if these are another member's")
    return ok(Check.KEYS, f"they are {member.name}'s, encrypted, and this user's alone")


def keys(keys_dir: Path, member: Member | None) -> Finding:
    """The key file as it lies there. member: None when the genesis has no member of that name, or can't be read."""
    path = member_path(keys_dir)
    try:
        read_box(path)
        public = read_public_keys(path)
    except KeystoreRefused as error:
        if error.reason is KeystoreReason.MISSING:
            return problem(Check.KEYS, f"there is no {path}", RESTORE)
        return refused(Check.KEYS, error.detail, RESTORE)
    if member is None:
        return warning(Check.KEYS, "not compared: the genesis names no such member", "see configuration and genesis")
    return check_keys(public.keys, member)


def passphrase(keys_dir: Path, file: Path | None, key_file: Finding) -> Finding:
    """Whether the passphrase that the process would find opens the keys. Nobody is asked for one.

    file: the passphrase_file.  key_file: what was found of the file that it is to open.
    """
    if key_file.outcome is Outcome.PROBLEM:
        return warning(Check.PASSPHRASE, "not tried: something is wrong with the keys", "see keys")
    if file is None and VARIABLE not in os.environ:
        what = "the process asks for it at a terminal when it starts; not tried"
        remedy = "for a start without a person, set passphrase_file; to try it here, set " + VARIABLE
        return warning(Check.PASSPHRASE, what, remedy)
    try:
        found, source = _found(file)
        read_member_secrets(keys_dir, found)
    except KeystoreRefused as error:
        if error.reason is KeystoreReason.WRONG_PASSPHRASE:
            remedy = "give the right one in passphrase_file or the environment; nobody can open the keys without it"
            return problem(Check.PASSPHRASE, error.detail, remedy)
        return refused(Check.PASSPHRASE, error.detail, "correct passphrase_file, or what it holds")
    return check_place(file, keys_dir, source)


def check_place(file: Path | None, keys_dir: Path, source: str) -> Finding:
    """Whether who gets the keys gets their passphrase too."""
    if file is not None and file.is_relative_to(keys_dir):
        what = f"{file} lies beside the keys that it opens, and goes into their backups"
        return warning(Check.PASSPHRASE, what, "move it out of keys_dir")
    return ok(Check.PASSPHRASE, f"{source} opens the keys")


def _found(file: Path | None) -> tuple[Passphrase, str]:
    """As the process itself looks for it. Raises KeystoreRefused."""
    if file is not None:
        return read_passphrase_file(file), str(file)
    return find_passphrase(None), f"the environment variable {VARIABLE}"


def signer(path: Path) -> Finding:
    """Whether a signer listens at a functionary's socket. It is only called, and told nothing."""
    remedy = "start it: peg signer run"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
            trial.connect(str(path))
    except FileNotFoundError:
        return problem(Check.SIGNER, f"there is no socket {path}", f"{remedy}; or correct signer.socket")
    except ConnectionRefusedError:
        return problem(Check.SIGNER, f"nobody answers at {path}", remedy)
    except OSError as error:
        what = f"{path}: {error.strerror or error}"
        return problem(Check.SIGNER, what, "run the signer and this process as one user; or correct signer.socket")
    return ok(Check.SIGNER, f"one answers at {path}; it holds the keys")
