"""The directory a command works on: a local federation, or the data of one node, and how to reach what runs there."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from bridge.bitcoin.addresses import Network, l1_network, sidechain_network
from pegnode.config import NodeConfig, load_config
from pegnode.errors import PegnodeError
from pegnode.genesis import Genesis
from pegnode.local_federation import LocalFederation, LocalFederationError, client_of
from pegnode.passphrase import VARIABLE
from pegnode.rpc.client import RpcClient

DIRECTORY_VARIABLE = "PEGNODE_DIR"
NODE_VARIABLE = "PEGNODE_NODE"


def default_directory() -> Path:
    """Where a local federation lives unless told otherwise."""
    return Path(os.environ.get("HOME", ".")) / ".pegnode"


def command_on(directory: Path, words: str) -> str:
    """`peg WORDS`, with --dir if it would go elsewhere without."""
    usual = Path(os.environ.get(DIRECTORY_VARIABLE) or default_directory())
    return f"peg {words}" if directory.absolute() == usual.absolute() else f"peg {words} --dir {directory}"


DirectoryOption = Annotated[
    Path,
    typer.Option(
        "--dir",
        envvar=DIRECTORY_VARIABLE,
        help="The local federation's directory, and where wallets lie.",
        default_factory=default_directory,
        show_default="~/.pegnode",
    ),
]
PassphraseFileOption = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        help="A file of mode 0600 whose first line is the passphrase.",
        show_default=f"${VARIABLE}, or a prompt",
    ),
]
NewPassphraseFileOption = Annotated[
    Path | None,
    typer.Option("--new-passphrase-file", help="The same for the new passphrase.", show_default="a prompt"),
]
NodeOption = Annotated[
    str | None,
    typer.Option(
        "--node",
        envvar=NODE_VARIABLE,
        help="A member's name, or the .toml file of a node or member.",
        show_default="any member that runs",
    ),
]


class NoNode(PegnodeError):  # noqa: N818 -- a state of the machine
    """No node to ask."""


@dataclass(frozen=True, slots=True)
class Home:
    """A local federation and, if one was chosen, the node to ask. node: a member's name or a TOML file."""

    directory: Path
    node: str | None = None

    @property
    def federation(self) -> LocalFederation:
        """The local federation in the directory; raises PegnodeError when there is none.

        Where nobody named a node, that may be what was meant: a member's machine needs no local federation.
        """
        try:
            return LocalFederation.open(self.directory)
        except LocalFederationError as absent:
            detail = f"{absent.detail}; or name a node: --node FILE.toml, or {NODE_VARIABLE}"
            raise LocalFederationError(absent.reason, detail) from absent

    def config(self) -> NodeConfig:
        """The configuration of the node to ask: the chosen one, else the first member that runs."""
        if self.node is not None and self.node.endswith(".toml"):
            return load_config(Path(self.node))
        federation = self.federation
        if self.node is not None:
            return federation.member_config(self.node)
        for name in federation.member_names:
            if federation.is_running(name):
                return federation.member_config(name)
        raise NoNode(f"no member runs in {self.directory}; start them with: {command_on(self.directory, 'up')}")

    @contextmanager
    def client(self) -> Iterator[RpcClient]:
        """A client of the node to ask. Raises NoNode when that is a member of the local federation that is down."""
        config = self.config()
        if self.node is not None and not self.node.endswith(".toml") and not self.federation.is_running(self.node):
            raise NoNode(f"{self.node} does not run; start it with: {command_on(self.directory, 'up')}")
        with client_of(config) as client:
            yield client

    def genesis(self) -> Genesis:
        """The genesis of the node's chain."""
        return Genesis.load(self.config().genesis)

    def local_passphrase_file(self) -> Path | None:
        """What opens the wallets of a local federation, whose coins are worth nothing; None for any other wallet."""
        if self.genesis().l1.network != "regtest":
            return None
        path = LocalFederation(self.directory.absolute(), ()).passphrase_path
        return path if path.exists() else None

    def networks(self) -> tuple[Network, Network]:
        """How addresses are written on the sidechain, and on L1."""
        name = self.genesis().l1.network
        return sidechain_network(name), l1_network(name)


def rpc_url(config: NodeConfig) -> str:
    """Where the node with this configuration answers."""
    return f"http://{config.rpc.bind}"
