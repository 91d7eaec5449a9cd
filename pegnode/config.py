"""The configuration of one process: one TOML file, of which every option is known and every doubt is refused.

The words attached to an option's type are its documentation: they stand in every rendered file and in refusals.
A relative path is relative to the file. No secret is an option: keys and passwords stay in files of their own.
"""

import enum
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Self

import msgspec

from bridge.l1.credentials import CookieAuth, Credentials, PasswordFileAuth
from federation.membership import Member, Membership
from pegnode.folders import COOKIE_FILE
from pegnode.net.transport import PeerAddress, PeerId
from pegnode.options import rules
from pegnode.options.errors import ConfigReason, ConfigRefused, flaws, refuse_any
from pegnode.options.reading import configuration, load_document, parse_document


class LogLevel(enum.StrEnum):
    """The least severe message that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class L1Config(msgspec.Struct, frozen=True, kw_only=True):
    """The member's own Bitcoin node. Either cookie_file, or user and password_file."""

    url: Annotated[
        str, msgspec.Meta(description="Its RPC, http://host:port: on this machine, or through a tunnel to yours")
    ]
    cookie_file: Annotated[
        Path | None,
        msgspec.Meta(
            description="The .cookie file that bitcoind writes when it starts; excludes user and password_file",
            examples=["/var/lib/bitcoind/.cookie"],
        ),
    ] = None
    user: Annotated[
        str | None,
        msgspec.Meta(description="The user of bitcoind's rpcauth; needs password_file", examples=["pegnode"]),
    ] = None
    password_file: Annotated[
        Path | None,
        msgspec.Meta(description="A file whose first line is that user's password", examples=["l1-password"]),
    ] = None

    def credentials(self) -> Credentials:
        """How to prove to that node who asks. The files are read when they are needed, so that both may change."""
        if self.cookie_file is not None:
            return CookieAuth(self.cookie_file)
        rules.require_credentials(self)
        if self.user is None or self.password_file is None:
            raise ConfigRefused(ConfigReason.MISSING_OPTION, "missing", (("l1", "password_file"),))
        return PasswordFileAuth(self.user, self.password_file)


class PeerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Where to dial a member, whose peer id is in the genesis."""

    name: Annotated[str, msgspec.Meta(description="The member's name, as in the genesis", examples=["bob"])]
    address: Annotated[
        str,
        msgspec.Meta(
            description="Where it listens: /ip4/<address>/tcp/<port>, or ip6, dns, dns4, dns6 in place of ip4",
            examples=["/ip4/203.0.113.7/tcp/9735"],
        ),
    ]


class P2pConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How to meet the members."""

    listen: Annotated[
        str,
        msgspec.Meta(
            description="Where this process listens: /ip4/<address>/tcp/<port>; 0.0.0.0 is every address, port 0 any"
        ),
    ]
    peers: Annotated[
        tuple[PeerConfig, ...],
        msgspec.Meta(description="Where the members listen: one section for each, this process's own left out"),
    ] = ()


class RpcConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The control interface."""

    bind: Annotated[
        str, msgspec.Meta(description="Where the RPC listens, 127.0.0.1:port or [::1]:port; port 0 takes a free one")
    ]

    @property
    def host(self) -> str:
        """The address alone, without brackets."""
        return self.bind.rpartition(":")[0].removeprefix("[").removesuffix("]")

    @property
    def port(self) -> int:
        """0 to 65535."""
        return int(self.bind.rpartition(":")[2])


class ProcessConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What every process has: a name, a chain, a folder of its own, and a Bitcoin node."""

    name: Annotated[str, msgspec.Meta(description="What this process is called; a member's name is in the genesis")]
    genesis: Annotated[
        Path, msgspec.Meta(description="The genesis.json that all members agreed on; it fixes the chain")
    ]
    data_dir: Annotated[
        Path,
        msgspec.Meta(description="Folder of the chain's database and of a member's journal; never copy or restore it"),
    ]
    log_level: Annotated[
        LogLevel, msgspec.Meta(description="The least severe message that is logged: debug, info, warning or error")
    ] = LogLevel.INFO
    l1: Annotated[
        L1Config,
        msgspec.Meta(description="This process's own Bitcoin node: everything about L1 is checked there alone"),
    ]

    @classmethod
    def load(cls, path: Path) -> Self:
        """The configuration in the file at `path`. Raises FileRefused, and ConfigRefused with the line."""
        return configuration(load_document(path), cls, path.parent, str(path))

    @classmethod
    def parse(cls, text: str, directory: Path) -> Self:
        """The configuration written as `text`, with relative paths under `directory`. Raises ConfigRefused."""
        return configuration(parse_document(text), cls, directory)

    def validate(self) -> None:
        """Raise ConfigRefused for values that make no sense, alone or together: each that is found."""
        refuse_any(flaws(self.checks()))

    def checks(self) -> Iterator[Callable[[], None]]:
        """What to look at: each raises ConfigRefused or does nothing, whatever the others find."""
        yield self._check_name
        yield partial(rules.check_l1, self.l1)

    def _check_name(self) -> None:
        if not self.name:
            raise ConfigRefused(ConfigReason.WRONG_VALUE, "empty; give this process a name", (("name",),))

    def member(self, membership: Membership) -> Member:
        """Which member this is. Raises ConfigRefused(NOT_A_MEMBER)."""
        return rules.member_named(membership, self.name, ConfigReason.NOT_A_MEMBER, ("name",))


class NodeConfig(ProcessConfig, frozen=True, kw_only=True):
    """A full node, which follows and checks the chain and has no keys."""

    p2p: Annotated[P2pConfig, msgspec.Meta(description="The way to the members")]
    rpc: Annotated[
        RpcConfig,
        msgspec.Meta(description="The control interface, on a loopback address only; its cookie is in data_dir"),
    ]

    @property
    def cookie_path(self) -> Path:
        """Where the running process keeps the login of its RPC."""
        return self.data_dir / COOKIE_FILE

    def checks(self) -> Iterator[Callable[[], None]]:
        """What to look at."""
        yield from super().checks()
        yield partial(rules.check_ports, self.p2p, self.rpc, self.l1)
        yield partial(rules.check_peers, self.p2p)

    def peer_addresses(self, membership: Membership) -> tuple[PeerAddress, ...]:
        """Where to dial which peer id. Raises ConfigRefused(UNKNOWN_PEER) for a name that is no member's."""
        return tuple(
            PeerAddress(
                PeerId(
                    rules.member_named(
                        membership, peer.name, ConfigReason.UNKNOWN_PEER, ("p2p", "peers", index, "name")
                    ).peer_id
                ),
                peer.address,
            )
            for index, peer in enumerate(self.p2p.peers)
        )


class SignerLink(msgspec.Struct, frozen=True, kw_only=True):
    """A signer in a process of its own, which holds this member's keys."""

    socket: Annotated[
        Path,
        msgspec.Meta(description="The socket at which `peg signer run` listens, on this machine", examples=["signer"]),
    ]


class FunctionaryConfig(NodeConfig, frozen=True, kw_only=True):
    """A member: a full node that also holds keys, or asks a signer that does."""

    keys_dir: Annotated[
        Path | None,
        msgspec.Meta(
            description="Folder of this member's encrypted keys: back it up, and keep it to yourself; excludes signer",
            examples=["keys"],
        ),
    ] = None
    passphrase_file: Annotated[
        Path | None,
        msgspec.Meta(
            description="A file whose first line opens the keys; without it, PEGNODE_PASSPHRASE or a prompt does",
            examples=["/run/secrets/pegnode-passphrase"],
        ),
    ] = None
    signer: Annotated[
        SignerLink | None,
        msgspec.Meta(description="A process of its own that holds the keys, instead of keys_dir: see `peg signer`"),
    ] = None

    def checks(self) -> Iterator[Callable[[], None]]:
        """What to look at."""
        yield from super().checks()
        yield self._check_keys
        yield self._check_peers

    def _check_keys(self) -> None:
        if self.signer is not None:
            rules.check_no_keys(self)
        elif self.keys_dir is None:
            what = "missing: the folder of this member's keys, unless a signer holds them"
            raise ConfigRefused(ConfigReason.MISSING_OPTION, what, (("keys_dir",),))
        else:
            rules.check_folders(self.data_dir, self.keys_dir)

    def _check_peers(self) -> None:
        for index, peer in enumerate(self.p2p.peers):
            if peer.name == self.name:
                option = ("p2p", "peers", index, "name")
                what = f"{self.name!r} is this member itself; remove this peer, or correct a name"
                raise ConfigRefused(ConfigReason.CONTRADICTION, what, (option, ("name",)))


class SignerConfig(ProcessConfig, frozen=True, kw_only=True):
    """A member's signer: its keys, and what it needs to judge by itself what they sign."""

    keys_dir: Annotated[
        Path, msgspec.Meta(description="Folder of this member's encrypted keys: back it up, and keep it to yourself")
    ]
    passphrase_file: Annotated[
        Path | None,
        msgspec.Meta(
            description="A file whose first line opens the keys; without it, PEGNODE_PASSPHRASE or a prompt does",
            examples=["/run/secrets/pegnode-passphrase"],
        ),
    ] = None
    socket: Annotated[
        Path,
        msgspec.Meta(description="Where the functionary connects: a file in a folder that is this user's alone"),
    ]

    def checks(self) -> Iterator[Callable[[], None]]:
        """What to look at."""
        yield from super().checks()
        yield partial(rules.check_folders, self.data_dir, self.keys_dir)


def load_config(path: Path) -> NodeConfig:
    """The configuration of a member if the file says where keys are, else of a full node. Raises as `load` does."""
    document = load_document(path)
    kind = FunctionaryConfig if {"keys_dir", "signer"} & document.table.keys() else NodeConfig
    return configuration(document, kind, path.parent, str(path))


def load_process_config(path: Path) -> ProcessConfig:
    """The same, or the configuration of a signer if the file says where it listens. Raises as `load` does."""
    document = load_document(path)
    if "socket" not in document.table:
        return load_config(path)
    return configuration(document, SignerConfig, path.parent, str(path))
