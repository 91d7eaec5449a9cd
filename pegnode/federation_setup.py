"""`peg federation init`: the files of a new federation, all made at once on one machine by one dealer.

    DIRECTORY/genesis.json                 the agreement of all; give it to everyone
              alice/functionary.toml       one folder for each member: its configuration ...
              alice/keys/member.key        ... its secrets, encrypted, for this member alone ...
              alice/data/journal           ... and its journal, empty: a member without one refuses to start
              recovery/1/recovery.key      the recovery keys, for people who keep them offline
              passphrase                   what opens all these keys, at random
              node/node.toml               for anyone who runs a full node without keys

**One dealer.** Whoever runs this holds, for a moment, every secret of the federation, and can steal the whole reserve
for as long as a copy is left. That is right for a machine's own test network and for demonstrations. A federation that
holds other people's money makes each member's keys on that member's machine and deals nothing but public keys.
"""

import errno
import shutil
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bridge.bitcoin.curve import x_only
from bridge.errors import Reason
from bridge.state import Anchor
from federation.journal import JournalIdentity
from federation.journal_entries import create_journal
from federation.keystore import (
    MemberSecrets,
    RandomBytes,
    SecretKind,
    generate_member_secrets,
    generate_secret,
    write_member_secrets,
    write_secret,
)
from federation.sealed_box import LEAST_LOG_N
from pegnode.config import FunctionaryConfig, L1Config, NodeConfig, P2pConfig, PeerConfig, RpcConfig
from pegnode.errors import ReasonedError
from pegnode.folders import (
    DATA_FOLDER,
    FUNCTIONARY_FILE,
    GENESIS_FILE,
    JOURNAL_FOLDER,
    KEYS_FOLDER,
    MEMBER_NAMES,
    NODE_FILE,
    NODE_NAME,
    PASSPHRASE_FILE,
    RECOVERY_FOLDER,
)
from pegnode.genesis import FIRST_EPOCH, Genesis, MemberSection
from pegnode.net.address import peer_id_from_secret
from pegnode.options.rendering import render
from pegnode.passphrase import write_random_passphrase
from pegnode.ports import LOOPBACK, free_ports

SPARE_RECOVERY_KEYS = 1
"""Recovery keys beyond the recovery quorum: as many may be lost."""
LEAST_PORT, MOST_PORT = 1024, 65535

DEALER_NOTICE = (
    "One dealer made every key of this federation on this machine: good for tests and demonstrations. "
    "Before other people's money is at stake, each member must make its own keys on its own machine."
)


class SetupReason(Reason):
    """Why no federation was set up."""

    NOT_EMPTY = "setup-not-empty"
    UNWRITABLE = "setup-unwritable"
    BAD_TEMPLATE = "setup-bad-template"
    MEMBER_COUNT = "setup-member-count"
    PORTS = "setup-ports"


class SetupRefused(ReasonedError):  # noqa: N818 -- a verdict, as in bridge.errors
    """No federation was set up, and nothing of it is left. reason: SetupReason."""


@dataclass(frozen=True, slots=True)
class FederationFiles:
    """Where everything is. functionaries: in the order of the members' index.  chain_id: 32 bytes.

    notice: what whoever runs this must be told.
    """

    directory: Path
    genesis: Path
    functionaries: tuple[Path, ...]
    node: Path
    recovery_keys: tuple[Path, ...]
    chain_id: bytes
    notice: str = DEALER_NOTICE


@dataclass(frozen=True, slots=True)
class _Seat:
    """Where one process listens, on this machine."""

    name: str
    p2p_port: int
    rpc_port: int

    @property
    def listen(self) -> str:
        return f"/ip4/{LOOPBACK}/tcp/{self.p2p_port}"

    @property
    def rpc(self) -> RpcConfig:
        return RpcConfig(bind=f"{LOOPBACK}:{self.rpc_port}")


def initialize(
    directory: Path,
    template_toml: str,
    *,
    l1: L1Config,
    anchor: Anchor,
    time_ms: int,
    random_bytes: RandomBytes,
    base_port: int | None = None,
) -> FederationFiles:
    """Make a federation in `directory`, which is absent or empty. One dealer makes all the keys: see above.

    template_toml: the genesis parameters, one of configs/*.toml; it says how many members there are.
    l1: the Bitcoin node that every process starts out with.  anchor: a buried block of it.  time_ms: now, milliseconds
    since 1970.  random_bytes: unpredictable, for the keys.
    base_port: the first member takes this port for its peers and the next one for RPC, and so on, the node last; None
    takes whatever ports are free.

    Raises SetupRefused, GenesisRefused, ConfigRefused, KeystoreRefused or JournalRefused; in each case nothing of it is
    left.
    """
    directory = directory.absolute()
    _require_absent_or_empty(directory)
    names = MEMBER_NAMES[: _member_count(template_toml)]
    seats = _seats((*names, NODE_NAME), base_port)
    secrets = [generate_member_secrets(random_bytes) for _ in names]
    recovery = [generate_secret(random_bytes) for _ in range(_recovery_count(template_toml))]
    genesis = Genesis.from_template(
        template_toml,
        members=[_section(name, one) for name, one in zip(names, secrets, strict=True)],
        recovery_keys_hex=[x_only(secret).hex() for secret in recovery],
        anchor=anchor,
        time_ms=time_ms,
    )
    files = _places(directory, names, len(recovery), genesis.chain_id)
    configs = _configs(files, seats, _absolute(l1))
    with _staging(directory) as stage:
        passphrase = write_random_passphrase(stage / PASSPHRASE_FILE, random_bytes)
        for path, config in configs.items():
            _write_config(stage / path.relative_to(directory), render(config, path.parent))
        for index, (name, one) in enumerate(zip(names, secrets, strict=True)):
            write_member_secrets(stage / name / KEYS_FOLDER, one, passphrase, scrypt_log_n=LEAST_LOG_N)
            _begin_journal(stage / name / DATA_FOLDER, JournalIdentity(genesis.chain_id, FIRST_EPOCH, index))
        (stage / RECOVERY_FOLDER).mkdir(mode=0o700)
        for path, secret in zip(files.recovery_keys, recovery, strict=True):
            folder = (stage / path.relative_to(directory)).parent
            write_secret(folder, SecretKind.RECOVERY, secret, passphrase, scrypt_log_n=LEAST_LOG_N)
        (stage / GENESIS_FILE).write_bytes(genesis.document)
    return files


def _places(directory: Path, names: tuple[str, ...], recovery_keys: int, chain_id: bytes) -> FederationFiles:
    return FederationFiles(
        directory=directory,
        genesis=directory / GENESIS_FILE,
        functionaries=tuple(directory / name / FUNCTIONARY_FILE for name in names),
        node=directory / NODE_NAME / NODE_FILE,
        recovery_keys=tuple(
            directory / RECOVERY_FOLDER / str(number) / f"{SecretKind.RECOVERY.value}.key"
            for number in range(1, recovery_keys + 1)
        ),
        chain_id=chain_id,
    )


def _begin_journal(data_dir: Path, identity: JournalIdentity) -> None:
    data_dir.mkdir(mode=0o700)
    create_journal(data_dir / JOURNAL_FOLDER, identity).close()


def _member_count(template_toml: str) -> int:
    count = _template_number(template_toml, "member_count")
    if not 1 <= count <= len(MEMBER_NAMES):
        raise SetupRefused(SetupReason.MEMBER_COUNT, f"{count}; this dealer names 1 to {len(MEMBER_NAMES)} members")
    return count


def _recovery_count(template_toml: str) -> int:
    """One key may be lost."""
    return _template_number(template_toml, "peg", "recovery_quorum") + SPARE_RECOVERY_KEYS


def _template_number(template_toml: str, *path: str) -> int:
    """A number that must be known before the genesis can be made, which then checks the template as a whole."""
    try:
        value: object = tomllib.loads(template_toml)
    except tomllib.TOMLDecodeError as error:
        raise SetupRefused(SetupReason.BAD_TEMPLATE, str(error)) from error
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    if type(value) is not int or not 0 <= value <= 1000:
        raise SetupRefused(SetupReason.BAD_TEMPLATE, f"{'.'.join(path)} is missing, or no number from 0 to 1000")
    return value


def _seats(names: tuple[str, ...], base_port: int | None) -> list[_Seat]:
    count = 2 * len(names)
    if base_port is None:
        try:
            ports = free_ports(count)
        except OSError as error:
            raise SetupRefused(SetupReason.PORTS, f"no {count} free ports: {error.strerror}") from error
    elif LEAST_PORT <= base_port <= MOST_PORT + 1 - count:
        ports = tuple(range(base_port, base_port + count))
    else:
        raise SetupRefused(
            SetupReason.PORTS, f"{count} ports from {base_port} on do not lie within {LEAST_PORT} to {MOST_PORT}"
        )
    return [_Seat(name, ports[2 * index], ports[2 * index + 1]) for index, name in enumerate(names)]


def _section(name: str, secrets: MemberSecrets) -> MemberSection:
    return MemberSection(
        name=name,
        vote_key_hex=x_only(secrets.vote).hex(),
        custody_key_hex=x_only(secrets.custody).hex(),
        peer_id=peer_id_from_secret(secrets.transport),
    )


def _absolute(l1: L1Config) -> L1Config:
    """The same files, whatever the working directory of those who will read the configuration."""
    return L1Config(
        url=l1.url,
        cookie_file=l1.cookie_file.absolute() if l1.cookie_file else None,
        user=l1.user,
        password_file=l1.password_file.absolute() if l1.password_file else None,
    )


def _configs(files: FederationFiles, seats: list[_Seat], l1: L1Config) -> dict[Path, NodeConfig]:
    """The configuration of each process, by its file. Raises ConfigRefused when `l1` makes no sense."""
    *members, node = seats
    peers = tuple(PeerConfig(name=seat.name, address=seat.listen) for seat in members)
    configs: dict[Path, NodeConfig] = {
        files.node: NodeConfig(
            name=node.name,
            genesis=files.genesis,
            data_dir=files.node.parent / DATA_FOLDER,
            l1=l1,
            p2p=P2pConfig(listen=node.listen, peers=peers),
            rpc=node.rpc,
        )
    }
    for path, seat in zip(files.functionaries, members, strict=True):
        configs[path] = FunctionaryConfig(
            name=seat.name,
            genesis=files.genesis,
            data_dir=path.parent / DATA_FOLDER,
            keys_dir=path.parent / KEYS_FOLDER,
            passphrase_file=files.directory / PASSPHRASE_FILE,
            l1=l1,
            p2p=P2pConfig(listen=seat.listen, peers=tuple(peer for peer in peers if peer.name != seat.name)),
            rpc=seat.rpc,
        )
    for config in configs.values():
        config.validate()
    return configs


def _require_absent_or_empty(directory: Path) -> None:
    try:
        occupied = any(directory.iterdir())
    except FileNotFoundError:
        return
    except OSError as error:
        raise SetupRefused(SetupReason.UNWRITABLE, f"{directory}: {error.strerror}") from error
    if occupied:
        raise SetupRefused(SetupReason.NOT_EMPTY, f"{directory} holds files; name a new directory")


@contextmanager
def _staging(directory: Path) -> Iterator[Path]:
    """A private folder beside `directory`, which takes its place in one step when the body has completed.

    If anything fails, the folder is removed with all that it holds: half a federation is never left.
    """
    stage: Path | None = None
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", suffix=".new", dir=directory.parent))
        yield stage
        stage.rename(directory)
    except OSError as error:
        if error.errno == errno.ENOTEMPTY:
            raise SetupRefused(SetupReason.NOT_EMPTY, f"{directory} was filled meanwhile") from error
        raise SetupRefused(SetupReason.UNWRITABLE, f"{directory}: {error.strerror}") from error
    finally:
        if stage is not None:
            shutil.rmtree(stage, ignore_errors=True)


def _write_config(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o700)
    path.write_text(text, encoding="utf-8")
