"""`peg keys`: the key files of a member, and of those who keep recovery keys."""

import enum
import secrets
from pathlib import Path
from typing import Annotated

import typer

from federation.key_files import (
    PublicKeys,
    back_up,
    change_passphrase,
    file_name,
    find_key_file,
    read_public_keys,
    restore,
)
from federation.keystore import (
    MEMBER_KIND,
    SecretKind,
    generate_member_secrets,
    generate_secret,
    write_member_secrets,
    write_secret,
)
from federation.private_files import refuse_existing, require_private_directory
from pegnode.cli.home import NewPassphraseFileOption, PassphraseFileOption
from pegnode.cli.terminal import JsonOption, errors_as_one_line, out, print_fields, print_json
from pegnode.memory_guard import forbid_memory_dumps
from pegnode.net.address import peer_id_of
from pegnode.passphrase import find_passphrase

KeysArgument = Annotated[Path, typer.Argument(metavar="KEYS", help="A keys directory, or a key file.")]
DirectoryArgument = Annotated[Path, typer.Argument(metavar="DIRECTORY", help="A keys directory; made if absent.")]

JOURNAL_WARNING = (
    "These keys are half of a member. Its journal, which data_dir holds, is the other half: a member that has lost it "
    "refuses to start, since it could contradict its own votes and be proved at fault. Move the newest journal along "
    "with the keys, after the old process has ended; never run one member twice, and never start on an old copy. If "
    "the journal is lost, renew it: peg journal renew."
)

keys_app = typer.Typer(no_args_is_help=True, help="Key files, always encrypted: make, show, back up and restore them.")


class KeyFileKind(enum.StrEnum):
    """What `new` makes."""

    MEMBER = MEMBER_KIND
    RECOVERY = SecretKind.RECOVERY.value


@keys_app.command("new")
def new(
    directory: DirectoryArgument,
    kind: Annotated[
        KeyFileKind, typer.Option("--kind", help="A member's three keys, or one recovery key.")
    ] = KeyFileKind.MEMBER,
    passphrase_file: PassphraseFileOption = None,
    json: JsonOption = False,
) -> None:
    """Make keys in a new file, and show their public halves."""
    with errors_as_one_line():
        forbid_memory_dumps()
        if directory.exists():
            require_private_directory(directory)
        path = directory / file_name(kind.value)
        refuse_existing(path)
        passphrase = find_passphrase(passphrase_file, new=True)
        if kind is KeyFileKind.MEMBER:
            write_member_secrets(directory, generate_member_secrets(secrets.token_bytes), passphrase)
        else:
            write_secret(directory, SecretKind.RECOVERY, generate_secret(secrets.token_bytes), passphrase)
        _print_keys(path, read_public_keys(path), json)
        if not json:
            out.print("Without the passphrase nobody opens the file, you included. Back it up with: ", end="")
            out.print(f"peg keys backup {path} FILE", markup=False)


@keys_app.command("show")
def show(keys: KeysArgument, json: JsonOption = False) -> None:
    """Show the public keys in a key file or a backup. No passphrase is needed, and no secret is read."""
    with errors_as_one_line():
        path = find_key_file(keys)
        _print_keys(path, read_public_keys(path), json)


@keys_app.command("change-passphrase")
def change(
    keys: KeysArgument,
    passphrase_file: PassphraseFileOption = None,
    new_passphrase_file: NewPassphraseFileOption = None,
) -> None:
    """Encrypt a key file anew under another passphrase."""
    with errors_as_one_line():
        forbid_memory_dumps()
        path = find_key_file(keys)
        old = find_passphrase(passphrase_file, what=f"{path}")
        change_passphrase(path, old, lambda: find_passphrase(new_passphrase_file, new=True, what=f"{path}"))
        out.print(f"{path} has a new passphrase; a file that passphrase_file names needs it too", markup=False)
        out.print(
            "Backups open with the old one: make new ones and destroy those. A disk may keep the old file's content "
            "for a while, a solid-state disk out of reach: if the old passphrase was betrayed, make new keys.",
            markup=False,
        )


@keys_app.command("backup")
def backup(
    keys: KeysArgument,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The copy: a new file, best on another medium.")],
    passphrase_file: PassphraseFileOption = None,
    json: JsonOption = False,
) -> None:
    """Check that the passphrase opens a key file, and copy it, encrypted as it is."""
    with errors_as_one_line():
        forbid_memory_dumps()
        path = find_key_file(keys)
        refuse_existing(file)
        public = back_up(path, file, find_passphrase(passphrase_file, what=f"{path}"))
        _print_keys(file, public, json)
        if not json:
            out.print(
                "It opens with today's passphrase. The journal is not in it: an old copy of one must never be used.",
                markup=False,
            )


@keys_app.command("restore")
def restore_keys(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `peg keys backup` wrote.")],
    directory: DirectoryArgument,
    passphrase_file: PassphraseFileOption = None,
    json: JsonOption = False,
) -> None:
    """Check that the passphrase opens a backup, and put it into a keys directory. Nothing is overwritten."""
    with errors_as_one_line():
        forbid_memory_dumps()
        kind = read_public_keys(file).kind
        refuse_existing(directory / file_name(kind))
        public = restore(file, directory, find_passphrase(passphrase_file, what=f"{file}"))
        _print_keys(directory / file_name(kind), public, json)
        if not json and kind == MEMBER_KIND:
            out.print(JOURNAL_WARNING, markup=False)


def _print_keys(path: Path, public: PublicKeys, json: bool) -> None:
    fields = {kind.value: key.hex() for kind, key in public.keys.items()}
    transport = public.keys.get(SecretKind.TRANSPORT)
    if transport is not None:
        fields[SecretKind.TRANSPORT.value] = peer_id_of(transport)
    if json:
        print_json({"file": str(path), "kind": public.kind, "public": fields})
        return
    print_fields({"file": path, "kind": public.kind, **fields})
