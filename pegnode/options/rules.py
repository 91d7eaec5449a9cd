"""What the options may hold, beyond their types. Every refusal names the options that it is about."""

import ipaddress
import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from federation.membership import Member, Membership
from pegnode.net.address import Endpoint, parse_endpoint
from pegnode.net.transport import TransportError
from pegnode.options.errors import ConfigReason, ConfigRefused
from pegnode.options.toml_document import OptionPath

if TYPE_CHECKING:
    from pegnode.config import FunctionaryConfig, L1Config, P2pConfig, RpcConfig

MAX_PORT = 0xFFFF
_BIND = re.compile(r"(?P<host>[0-9.]+|\[[0-9a-fA-F:.]+\]):(?P<port>[0-9]{1,5})", re.ASCII)

_L1_URL: OptionPath = ("l1", "url")
_COOKIE_FILE: OptionPath = ("l1", "cookie_file")
_LISTEN: OptionPath = ("p2p", "listen")
_BIND_OPTION: OptionPath = ("rpc", "bind")


def check_l1(l1: "L1Config") -> None:
    """Raise ConfigRefused unless this says where the Bitcoin node is, and by one way how to log in."""
    if _l1_endpoint(l1) is None:
        raise ConfigRefused(ConfigReason.BAD_URL, "not of the form http://host:port", (_L1_URL,))
    if "@" in l1.url:
        # Never quoted: it may hold a password.
        what = "it holds credentials; leave them out, and give cookie_file, or user and password_file"
        raise ConfigRefused(ConfigReason.BAD_URL, what, (_L1_URL,))
    require_credentials(l1)


def _l1_endpoint(l1: "L1Config") -> tuple[str, int] | None:
    """The host and port of the Bitcoin node's RPC; None if its URL has not the form of one."""
    try:
        parts = urlsplit(l1.url)
        usable = (
            parts.scheme in ("http", "https") and parts.path in ("", "/") and not parts.query and not parts.fragment
        )
        return (parts.hostname, parts.port) if usable and parts.hostname and parts.port else None
    except ValueError:
        return None


def require_credentials(l1: "L1Config") -> None:
    """Raise ConfigRefused unless there is a cookie file, or a user with a password file, and not both."""
    login = [("l1", name) for name in ("user", "password_file") if getattr(l1, name) is not None]
    if l1.cookie_file is not None and login:
        what = f"either cookie_file, or user and password_file; remove {'this' if len(login) == 1 else 'these'}"
        raise ConfigRefused(ConfigReason.CONTRADICTION, what, (*login, _COOKIE_FILE))
    if l1.cookie_file is None and not login:
        what = "missing; give the cookie file that bitcoind writes, or user and password_file"
        raise ConfigRefused(ConfigReason.MISSING_OPTION, what, (_COOKIE_FILE,))
    if l1.cookie_file is None and len(login) == 1:
        missing = "user" if l1.user is None else "password_file"
        what = f"missing: {login[0][1]} is of use only with it"
        raise ConfigRefused(ConfigReason.MISSING_OPTION, what, (("l1", missing),))


def check_ports(p2p: "P2pConfig", rpc: "RpcConfig", l1: "L1Config") -> None:
    """Raise ConfigRefused unless peers and RPC each get a port of their own, and the RPC a loopback address."""
    listen = _endpoint(_LISTEN, p2p.listen)
    if not _is_ip_address(listen.host):
        what = f"{listen.host} is a name; listen on an IP address, 0.0.0.0 for every one of this machine"
        raise ConfigRefused(ConfigReason.BAD_ADDRESS, what, (_LISTEN,))
    _check_bind(rpc)
    if rpc.port and rpc.port == listen.port:
        what = f"p2p.listen takes port {listen.port} too; give one of them another"
        raise ConfigRefused(ConfigReason.CONTRADICTION, what, (_BIND_OPTION, _LISTEN))
    if rpc.port and _l1_endpoint(l1) == (rpc.host, rpc.port):
        what = "this is this process's own RPC, rpc.bind; give the Bitcoin node's port"
        raise ConfigRefused(ConfigReason.CONTRADICTION, what, (_L1_URL, _BIND_OPTION))


def _check_bind(rpc: "RpcConfig") -> None:
    match = _BIND.fullmatch(rpc.bind)
    if match is None or int(match["port"]) > MAX_PORT or not _is_ip_address(rpc.host):
        what = f"{rpc.bind!r} is not of the form 127.0.0.1:port"
        raise ConfigRefused(ConfigReason.BAD_ADDRESS, what, (_BIND_OPTION,))
    if not ipaddress.ip_address(rpc.host).is_loopback:
        what = f"{rpc.bind!r} is reachable from outside; use 127.0.0.1 and a tunnel"
        raise ConfigRefused(ConfigReason.NOT_LOOPBACK, what, (_BIND_OPTION,))


def check_peers(p2p: "P2pConfig") -> None:
    """Raise ConfigRefused unless every peer has a name and an address of its own, which isn't ours."""
    names: dict[str, OptionPath] = {}
    addresses: dict[str, OptionPath] = {}
    for index, peer in enumerate(p2p.peers):
        name, address = ("p2p", "peers", index, "name"), ("p2p", "peers", index, "address")
        if not _endpoint(address, peer.address).port:
            raise ConfigRefused(ConfigReason.BAD_ADDRESS, "port 0 can't be dialled; give the peer's port", (address,))
        if peer.address == p2p.listen:
            what = f"{peer.address} is where this process listens itself; give the peer's address"
            raise ConfigRefused(ConfigReason.CONTRADICTION, what, (address, _LISTEN))
        if (earlier := names.setdefault(peer.name, name)) != name:
            what = f"{peer.name!r} is named twice; remove one"
            raise ConfigRefused(ConfigReason.DUPLICATE_PEER, what, (name, earlier))
        if (earlier := addresses.setdefault(peer.address, address)) != address:
            what = f"two peers can't both be at {peer.address}; correct one"
            raise ConfigRefused(ConfigReason.DUPLICATE_PEER, what, (address, earlier))


def check_no_keys(config: "FunctionaryConfig") -> None:
    """Raise ConfigRefused if a process whose signer holds the keys says where keys are."""
    given = [(name,) for name in ("keys_dir", "passphrase_file") if getattr(config, name) is not None]
    if given:
        what = f"the signer holds the keys; remove {'this' if len(given) == 1 else 'these'}, or the section signer"
        raise ConfigRefused(ConfigReason.CONTRADICTION, what, (*given, ("signer", "socket")))


def check_folders(data_dir: Path, keys_dir: Path) -> None:
    """Raise ConfigRefused when keys and data lie within each other: data is deleted at times, keys are backed up."""
    if data_dir == keys_dir or data_dir.is_relative_to(keys_dir) or keys_dir.is_relative_to(data_dir):
        what = (
            "keys_dir and data_dir lie within each other; data may be deleted and is never restored, keys the reverse"
        )
        raise ConfigRefused(ConfigReason.CONTRADICTION, what, (("keys_dir",), ("data_dir",)))


def member_named(membership: Membership, name: str, reason: ConfigReason, option: OptionPath) -> Member:
    """The member of that name. Raises ConfigRefused with the reason, about the option that names it."""
    for member in membership.members:
        if member.name == name:
            return member
    names = ", ".join(member.name for member in membership.members)
    raise ConfigRefused(reason, f"{name!r} is no member of this genesis, which has {names}", (option,))


def _endpoint(option: OptionPath, multiaddr: str) -> Endpoint:
    try:
        return parse_endpoint(multiaddr)
    except TransportError as error:
        raise ConfigRefused(ConfigReason.BAD_ADDRESS, str(error), (option,)) from error


def _is_ip_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
