"""The configuration of one process: one TOML file, of which every option is known and every doubt is refused.

A relative path is relative to the file. No secret is an option: keys and passwords stay in files of their own.
"""

import enum
import ipaddress
import json
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self, TypeGuard, get_args, get_origin
from urllib.parse import urlsplit

import msgspec

from bridge.errors import Reason
from bridge.l1.credentials import CookieAuth, Credentials, PasswordAuth
from federation.membership import Member, Membership
from pegnode.errors import ReasonedError
from pegnode.folders import COOKIE_FILE
from pegnode.net.address import parse_endpoint
from pegnode.net.transport import PeerAddress, PeerId, TransportError

MAX_FILE_BYTES = 1_000_000
MAX_PORT = 0xFFFF
_BIND = re.compile(r"(?P<host>[0-9.]+|\[[0-9a-fA-F:.]+\]):(?P<port>[0-9]{1,5})", re.ASCII)


class ConfigReason(Reason):
    """Why a configuration is refused."""

    UNREADABLE = "config-unreadable"
    NOT_TOML = "config-not-toml"
    UNKNOWN_OPTION = "config-unknown-option"
    MISSING_OPTION = "config-missing-option"
    WRONG_VALUE = "config-wrong-value"
    CONTRADICTION = "config-contradiction"
    NOT_LOOPBACK = "config-not-loopback"
    BAD_ADDRESS = "config-bad-address"
    BAD_URL = "config-bad-url"
    DUPLICATE_PEER = "config-duplicate-peer"
    UNKNOWN_PEER = "config-unknown-peer"
    NOT_A_MEMBER = "config-not-a-member"


class ConfigRefused(ReasonedError):  # noqa: N818 -- a verdict, as in bridge.errors
    """A configuration that this program won't run with. reason: ConfigReason; the detail names the option."""


class LogLevel(enum.StrEnum):
    """The least severe message that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class L1Config(msgspec.Struct, frozen=True, kw_only=True):
    """The member's own Bitcoin node.

    url: `http://host:port`.  Either cookie_file, which bitcoind writes, or user and password_file, whose first line
    is the password.
    """

    url: str
    cookie_file: Path | None = None
    user: str | None = None
    password_file: Path | None = None

    def credentials(self) -> Credentials:
        """How to prove to that node who asks. Raises ConfigRefused(UNREADABLE) for a password file without one."""
        if self.cookie_file is not None:
            return CookieAuth(self.cookie_file)
        if self.user is None or self.password_file is None:
            raise ConfigRefused(ConfigReason.MISSING_OPTION, "l1.cookie_file, or l1.user and l1.password_file")
        try:
            password = self.password_file.read_text(encoding="utf-8").partition("\n")[0].strip()
        except (OSError, UnicodeDecodeError):
            password = ""
        if not password:
            raise ConfigRefused(ConfigReason.UNREADABLE, f"l1.password_file: no password in {self.password_file}")
        return PasswordAuth(self.user, password)


class PeerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Where to dial a member. name: as in the genesis, which has its peer id.  address: a multiaddr without one."""

    name: str
    address: str


class P2pConfig(msgspec.Struct, frozen=True, kw_only=True):
    """listen: a multiaddr, `/ip4/<address>/tcp/<port>`; port 0 takes a free one."""

    listen: str
    peers: tuple[PeerConfig, ...] = ()


class RpcConfig(msgspec.Struct, frozen=True, kw_only=True):
    """bind: `host:port`, or `[host]:port` for IPv6, a loopback address; port 0 takes a free one."""

    bind: str

    @property
    def host(self) -> str:
        """The address alone, without brackets."""
        return self.bind.rpartition(":")[0].removeprefix("[").removesuffix("]")

    @property
    def port(self) -> int:
        """0 to 65535."""
        return int(self.bind.rpartition(":")[2])


class NodeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A full node, which follows and checks the chain and has no keys."""

    name: str
    genesis: Path
    data_dir: Path
    log_level: LogLevel = LogLevel.INFO
    l1: L1Config
    p2p: P2pConfig
    rpc: RpcConfig

    @property
    def cookie_path(self) -> Path:
        """Where the running process keeps the login of its RPC."""
        return self.data_dir / COOKIE_FILE

    @classmethod
    def load(cls, path: Path) -> Self:
        """The configuration in the file at `path`. Raises ConfigRefused."""
        try:
            with path.open("rb") as file:
                content = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise ConfigRefused(ConfigReason.UNREADABLE, f"{path}: {error.strerror}") from error
        if len(content) > MAX_FILE_BYTES:
            raise ConfigRefused(ConfigReason.UNREADABLE, f"{path} is larger than {MAX_FILE_BYTES} bytes")
        try:
            return cls.parse(content.decode("utf-8"), path.parent)
        except UnicodeDecodeError as error:
            raise ConfigRefused(ConfigReason.NOT_TOML, f"{path} is not UTF-8") from error
        except ConfigRefused as error:
            raise ConfigRefused(error.reason, f"{path}: {error.detail}") from error

    @classmethod
    def parse(cls, text: str, directory: Path) -> Self:
        """The configuration written as `text`, with relative paths under `directory`. Raises ConfigRefused."""
        try:
            table = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigRefused(ConfigReason.NOT_TOML, str(error)) from error
        _require_known_options(table, cls, "")
        base = directory.resolve()

        def decode_path(_: type, value: object) -> Path:
            """Of all types in a configuration, Path is the one that the library does not know."""
            if not isinstance(value, str) or not value:
                raise ValueError("expected a path")
            return (base / value).resolve()

        try:
            config = msgspec.convert(table, cls, dec_hook=decode_path)
        except msgspec.ValidationError as error:
            raise ConfigRefused(ConfigReason.WRONG_VALUE, str(error).replace("$.", "")) from error
        config.validate()
        return config

    def validate(self) -> None:
        """Raise ConfigRefused for values that make no sense, alone or together."""
        if not self.name:
            raise ConfigRefused(ConfigReason.WRONG_VALUE, "name is empty")
        _validate_l1(self.l1)
        listen_port = _endpoint_port("p2p.listen", self.p2p.listen)
        _validate_rpc(self.rpc)
        if self.rpc.port and self.rpc.port == listen_port:
            raise ConfigRefused(ConfigReason.CONTRADICTION, f"p2p.listen and rpc.bind both take port {listen_port}")
        names = [peer.name for peer in self.p2p.peers]
        for index, peer in enumerate(self.p2p.peers):
            if names.index(peer.name) != index:
                raise ConfigRefused(ConfigReason.DUPLICATE_PEER, f"p2p.peers names {peer.name!r} twice")
            if not _endpoint_port(f"p2p.peers, {peer.name}", peer.address):
                raise ConfigRefused(ConfigReason.BAD_ADDRESS, f"p2p.peers, {peer.name}: port 0 can't be dialled")

    def peer_addresses(self, membership: Membership) -> tuple[PeerAddress, ...]:
        """Where to dial which peer id. Raises ConfigRefused(UNKNOWN_PEER) for a name that is no member's."""
        return tuple(
            PeerAddress(
                PeerId(_member_named(membership, peer.name, ConfigReason.UNKNOWN_PEER).peer_id),
                peer.address,
            )
            for peer in self.p2p.peers
        )


class FunctionaryConfig(NodeConfig, frozen=True, kw_only=True):
    """A member: a full node that also holds keys. name: as in the genesis.  keys_dir: see `federation.keystore`.

    passphrase_file: its first line opens the key files; None leaves it to the environment, or to a prompt.
    """

    keys_dir: Path
    passphrase_file: Path | None = None

    def validate(self) -> None:
        """Raise ConfigRefused for values that make no sense, alone or together."""
        super().validate()
        if self.keys_dir == self.data_dir:
            raise ConfigRefused(
                ConfigReason.CONTRADICTION, "keys_dir and data_dir are one directory; data can be rebuilt, keys can't"
            )
        if self.name in (peer.name for peer in self.p2p.peers):
            raise ConfigRefused(ConfigReason.CONTRADICTION, f"p2p.peers names {self.name!r}, which is this member")

    def member(self, membership: Membership) -> Member:
        """Which member this is. Raises ConfigRefused(NOT_A_MEMBER)."""
        return _member_named(membership, self.name, ConfigReason.NOT_A_MEMBER)


def render(config: NodeConfig, directory: Path) -> str:
    """The commented TOML of `config`, for a file in `directory`; paths below its parent are written relative to it.

    `type(config).parse(render(config, directory), directory)` gives `config` back.
    """
    base = directory.resolve()

    def path(value: Path) -> str:
        near = value.is_relative_to(base.parent)
        return _toml_string(os.path.relpath(value, base) if near else str(value))

    blocks = [
        ["# Relative paths are relative to this file."],
        [
            *_render_identity(config, path),
            f"log_level = {_toml_string(config.log_level.value)} # {', '.join(LogLevel)}",
        ],
        [
            "# This process's own Bitcoin node: everything about L1 is checked there, and nowhere else.",
            "[l1]",
            f"url = {_toml_string(config.l1.url)}",
            *_render_credentials(config.l1, path),
        ],
        ["[p2p]", f"listen = {_toml_string(config.p2p.listen)}"],
        *(_render_peer(peer) for peer in config.p2p.peers),
        [
            "# The control interface: on a loopback address only; its cookie is in data_dir.",
            "[rpc]",
            f"bind = {_toml_string(config.rpc.bind)}",
        ],
    ]
    return "\n\n".join("\n".join(block) for block in blocks) + "\n"


def _render_identity(config: NodeConfig, path: Callable[[Path], str]) -> list[str]:
    lines = [
        f"name = {_toml_string(config.name)}",
        f"genesis = {path(config.genesis)}",
        f"data_dir = {path(config.data_dir)}",
    ]
    if isinstance(config, FunctionaryConfig):
        lines.append(f"keys_dir = {path(config.keys_dir)} # back this up, and keep it to yourself")
        if config.passphrase_file is not None:
            lines.append(f"passphrase_file = {path(config.passphrase_file)}")
    return lines


def _render_credentials(l1: L1Config, path: Callable[[Path], str]) -> list[str]:
    if l1.cookie_file is not None:
        return [f"cookie_file = {path(l1.cookie_file)}"]
    if l1.user is not None and l1.password_file is not None:
        return [f"user = {_toml_string(l1.user)}", f"password_file = {path(l1.password_file)}"]
    return []


def _render_peer(peer: PeerConfig) -> list[str]:
    return ["[[p2p.peers]]", f"name = {_toml_string(peer.name)}", f"address = {_toml_string(peer.address)}"]


def _toml_string(value: str) -> str:
    """A TOML basic string. JSON's is one, but for DEL, which TOML wants escaped."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _require_known_options(table: Mapping[str, object], section: type[msgspec.Struct], prefix: str) -> None:
    """Raise ConfigRefused for the first option that `section` lacks, and then for the first that `table` lacks."""
    fields = {field.name: field for field in msgspec.structs.fields(section)}
    for name in table:
        if name not in fields:
            raise ConfigRefused(ConfigReason.UNKNOWN_OPTION, prefix + name)
    for name, field in fields.items():
        if name not in table:
            if field.required:
                raise ConfigRefused(ConfigReason.MISSING_OPTION, prefix + name)
            continue
        value = table[name]
        kind = field.type
        if isinstance(value, dict) and _is_section(kind):
            _require_known_options(value, kind, f"{prefix}{name}.")
        if isinstance(value, list) and get_origin(kind) is tuple and _is_section(get_args(kind)[0]):
            for index, item in enumerate(value):
                if isinstance(item, dict):
                    _require_known_options(item, get_args(kind)[0], f"{prefix}{name}[{index}].")


def _is_section(kind: object) -> TypeGuard[type[msgspec.Struct]]:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _validate_l1(l1: L1Config) -> None:
    try:
        parts = urlsplit(l1.url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port is not None
        usable = usable and parts.path in ("", "/") and not parts.query and not parts.fragment
    except ValueError:
        usable = False
    if not usable:
        raise ConfigRefused(ConfigReason.BAD_URL, "l1.url is not of the form http://host:port")
    if "@" in l1.url:
        # Never quoted: it may hold a password.
        raise ConfigRefused(
            ConfigReason.BAD_URL, "l1.url holds credentials; use cookie_file, or user and password_file"
        )
    if l1.cookie_file is not None and (l1.user is not None or l1.password_file is not None):
        raise ConfigRefused(ConfigReason.CONTRADICTION, "l1.cookie_file excludes l1.user and l1.password_file")
    if l1.cookie_file is None and (l1.user is None or l1.password_file is None):
        raise ConfigRefused(ConfigReason.MISSING_OPTION, "l1.cookie_file, or l1.user and l1.password_file together")


def _endpoint_port(option: str, multiaddr: str) -> int:
    try:
        return parse_endpoint(multiaddr).port
    except TransportError as error:
        raise ConfigRefused(ConfigReason.BAD_ADDRESS, f"{option}: {error}") from error


def _validate_rpc(rpc: RpcConfig) -> None:
    match = _BIND.fullmatch(rpc.bind)
    if match is None or int(match["port"]) > MAX_PORT:
        raise ConfigRefused(ConfigReason.BAD_ADDRESS, f"rpc.bind {rpc.bind!r} is not of the form 127.0.0.1:port")
    try:
        loopback = ipaddress.ip_address(rpc.host).is_loopback
    except ValueError:
        raise ConfigRefused(
            ConfigReason.BAD_ADDRESS, f"rpc.bind {rpc.bind!r} names no IP address; write 127.0.0.1:port"
        ) from None
    if not loopback:
        raise ConfigRefused(
            ConfigReason.NOT_LOOPBACK, f"rpc.bind {rpc.bind!r} is reachable from outside; use 127.0.0.1 and a tunnel"
        )


def _member_named(membership: Membership, name: str, reason: ConfigReason) -> Member:
    for member in membership.members:
        if member.name == name:
            return member
    raise ConfigRefused(reason, f"{name!r} is no member of this genesis")
