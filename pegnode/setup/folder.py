"""A member's folder, which is made in two steps, on the member's own machine.

    DIRECTORY/keys/member.key      `create_member`: the three secrets, encrypted, for this member alone ...
              card.json            ... and the public card, for everybody
              data/journal         `complete_member`: the empty journal, without which a member refuses to start ...
              functionary.toml     ... its configuration ...
              genesis.json         ... and, last of all, the agreement of all
    DIRECTORY/node/node.toml       `write_node`: the same for a full node without keys ...
                   genesis.json    ... in a folder that can be given away

A journal is begun once in a chain's life. Where there is a genesis already, no journal is made: one that is missing
then is lost, and a member that began another could vote against its own word.
"""

import ipaddress
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from federation.journal_entries import create_journal, open_journal
from federation.journal_header import JournalIdentity
from federation.keystore import RandomBytes, generate_member_secrets, read_member_secrets, write_member_secrets
from federation.passphrase import Passphrase
from federation.sealed_box import STRONG_LOG_N
from pegnode.config import FunctionaryConfig, L1Config, NodeConfig, P2pConfig, PeerConfig, RpcConfig
from pegnode.folders import DATA_FOLDER, FUNCTIONARY_FILE, GENESIS_FILE, JOURNAL_FOLDER, KEYS_FOLDER, NODE_FILE
from pegnode.genesis import Genesis
from pegnode.genesis_rules import FIRST_EPOCH
from pegnode.input_file import FileRefused, read_input
from pegnode.options.rendering import render
from pegnode.setup.assembly import Assembly
from pegnode.setup.card import MAX_CARD_BYTES, CardReason, CardRefused, MemberCard
from pegnode.setup.comparison import differences
from pegnode.setup.errors import SetupReason, SetupRefused
from pegnode.setup.staging import staged

CARD_FILE = "card.json"
NODE_LISTEN = "/ip4/127.0.0.1/tcp/0"
"""Nobody dials a node without keys: it needs no port of its own."""


@dataclass(frozen=True, slots=True)
class OwnSettings:
    """What a process has of its own, and no other needs to know.

    rpc_bind: host:port, a loopback address.  listen: a multiaddr; None for what follows from the card's address.
    passphrase_file: what opens the keys at start; None for the environment or a terminal.
    """

    l1: L1Config
    rpc_bind: str
    listen: str | None = None
    passphrase_file: Path | None = None


def create_member(
    directory: Path,
    name: str,
    address: str,
    passphrase: Passphrase,
    *,
    random_bytes: RandomBytes,
    scrypt_log_n: int = STRONG_LOG_N,
) -> MemberCard:
    """Make a member's keys in `directory`, which is absent or empty, and the card that it gives to the others.

    address: a multiaddr at which others reach it.  random_bytes: unpredictable.  scrypt_log_n: see
    `federation.sealed_box`. Raises CardRefused, SetupRefused or KeystoreRefused; in each case nothing is left.
    """
    secrets = generate_member_secrets(random_bytes)
    card = MemberCard.make(name, address, secrets, random_bytes)
    with staged(directory) as stage:
        keys = stage / KEYS_FOLDER
        write_member_secrets(keys, secrets, passphrase, scrypt_log_n=scrypt_log_n, random_bytes=random_bytes)
        (stage / CARD_FILE).write_bytes(card.document)
    return card


def complete_member(directory: Path, assembly: Assembly, passphrase: Passphrase, own: OwnSettings) -> bool:
    """Give a member what it lacks to start; whether that was needed. An assembled folder is left as it is.

    Raises CardRefused; SetupRefused: NOT_AMONG_CARDS, NOT_OWN_KEYS, EXISTS, UNWRITABLE; and what keys, journal or
    configuration refuse with. Nothing is replaced.
    """
    directory = directory.absolute()
    card = _own_card(directory, assembly)
    if not card.belongs_to(read_member_secrets(directory / KEYS_FOLDER, passphrase)):
        detail = (
            f"{directory / CARD_FILE} is not of the keys in {directory / KEYS_FOLDER}; restore the one or the other"
        )
        raise SetupRefused(SetupReason.NOT_OWN_KEYS, detail)
    genesis = directory / GENESIS_FILE
    if genesis.exists():
        _require_same(genesis, assembly.genesis)
        return False
    peers = [member for member in assembly.members if member.name != card.name]
    config = FunctionaryConfig(
        name=card.name,
        genesis=genesis,
        data_dir=directory / DATA_FOLDER,
        keys_dir=directory / KEYS_FOLDER,
        passphrase_file=own.passphrase_file.absolute() if own.passphrase_file else None,
        l1=_absolute(own.l1),
        p2p=P2pConfig(listen=own.listen or listen_address(card), peers=_peers(peers)),
        rpc=RpcConfig(bind=own.rpc_bind),
    )
    config.validate()
    contents = {
        directory / FUNCTIONARY_FILE: render(config, directory).encode(),
        genesis: assembly.genesis.document,
    }
    _require_free(contents)
    _begin_journal(directory / DATA_FOLDER, assembly, card)
    _write(contents)
    return True


def write_node(directory: Path, assembly: Assembly, own: OwnSettings) -> Path:
    """Write what a full node without keys needs, and return its configuration file. Raises SetupRefused."""
    directory = directory.absolute()
    config = NodeConfig(
        name=directory.name,
        genesis=directory / GENESIS_FILE,
        data_dir=directory / DATA_FOLDER,
        l1=_absolute(own.l1),
        p2p=P2pConfig(listen=own.listen or NODE_LISTEN, peers=_peers(assembly.members)),
        rpc=RpcConfig(bind=own.rpc_bind),
    )
    config.validate()
    contents = {
        directory / NODE_FILE: render(config, directory).encode(),
        directory / GENESIS_FILE: assembly.genesis.document,
    }
    _require_free(contents)
    _write(contents)
    return directory / NODE_FILE


def listen_address(card: MemberCard) -> str:
    """Where a member with this card listens: on the card's port, and on every address unless the card's is local."""
    endpoint = card.endpoint
    every = "/ip4/0.0.0.0"
    try:
        ip = ipaddress.ip_address(endpoint.host)
        if ip.is_loopback:
            every = f"/ip{ip.version}/{ip}"
        elif ip.version == 6:
            every = "/ip6/::"
    except ValueError:
        pass  # a name, whose address is not known here
    return f"{every}/tcp/{endpoint.port}"


def read_card_file(path: Path) -> bytes:
    """The bytes of a card. Raises CardRefused (UNREADABLE)."""
    try:
        return read_input(path, MAX_CARD_BYTES)
    except FileRefused as refused:
        raise CardRefused(CardReason.UNREADABLE, refused.detail) from refused


def _own_card(directory: Path, assembly: Assembly) -> MemberCard:
    """The folder's card, which must be among the members'."""
    path = directory / CARD_FILE
    if not path.exists():
        detail = f"there is no {path}; make this member's keys and card first: peg federation init"
        raise CardRefused(CardReason.UNREADABLE, detail)
    card = MemberCard.decode(read_card_file(path))
    for other in assembly.members:
        if other.digest == card.digest:
            return card
        if other.name == card.name:
            detail = f"the card named {card.name} among the cards is {other.fingerprint}, and yours {card.fingerprint}"
            raise SetupRefused(SetupReason.NOT_AMONG_CARDS, f"{detail}; send yours to everybody again")
    detail = f"your card, {path} of {card.name}, is not among the cards; add it, here and at every other member"
    raise SetupRefused(SetupReason.NOT_AMONG_CARDS, detail)


def _require_same(path: Path, genesis: Genesis) -> None:
    existing = Genesis.load(path)
    found = differences(existing, genesis)
    if found:
        detail = f"{path} is another genesis: {found[0].field} is {found[0].first} there and {found[0].second} now"
        todo = "a member that has begun stays with its own; else assemble into a new directory"
        raise SetupRefused(SetupReason.EXISTS, f"{detail}, and {len(found) - 1} more fields differ; {todo}")


def _require_free(contents: Mapping[Path, bytes]) -> None:
    """Refuse where a file would be replaced by another content."""
    for path, content in contents.items():
        try:
            taken = path.exists() and path.read_bytes() != content
        except OSError as error:
            raise SetupRefused(SetupReason.UNWRITABLE, f"{path}: {error.strerror}") from error
        if taken:
            raise SetupRefused(SetupReason.EXISTS, f"{path} exists and is another; move it away, or compare the two")


def _begin_journal(data_dir: Path, assembly: Assembly, card: MemberCard) -> None:
    """Begin the journal, or find the one that an interrupted attempt left. Raises JournalRefused."""
    index = [member.name for member in assembly.members].index(card.name)
    identity = JournalIdentity(assembly.genesis.chain_id, FIRST_EPOCH, index)
    path = data_dir / JOURNAL_FOLDER
    if path.exists():
        open_journal(path, identity).close()
        return
    try:
        data_dir.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise SetupRefused(SetupReason.UNWRITABLE, f"{data_dir}: {error.strerror}") from error
    with staged(path) as stage:
        create_journal(stage, identity).close()


def _write(contents: Mapping[Path, bytes]) -> None:
    """Write each file whole or not at all, in this order."""
    for path, content in contents.items():
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".new", dir=path.parent)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(descriptor)
            Path(name).replace(path)
        except OSError as error:
            raise SetupRefused(SetupReason.UNWRITABLE, f"{path}: {error.strerror}") from error


def _peers(cards: Sequence[MemberCard]) -> tuple[PeerConfig, ...]:
    return tuple(PeerConfig(name=card.name, address=card.address) for card in cards)


def _absolute(l1: L1Config) -> L1Config:
    """The same files, whatever the working directory of those who will read the configuration."""
    return L1Config(
        url=l1.url,
        cookie_file=l1.cookie_file.absolute() if l1.cookie_file else None,
        user=l1.user,
        password_file=l1.password_file.absolute() if l1.password_file else None,
    )
