"""Peer ids of transport keys, and the addresses at which peers are dialled. (pure)

Peer ids are written here without libp2p, which takes most of a second to import; a test holds them to libp2p's.
"""

import ipaddress
from dataclasses import dataclass

import base58

from bridge.bitcoin.curve import is_valid_x_only
from federation.keystore import SecretKind, is_valid_secret, public_key
from pegnode.net.transport import PeerAddress, PeerId, TransportError

_KEY_PREFIX = bytes((0x00, 37, 0x08, 0x02, 0x12, 33))
"""Identity multihash of 37 bytes: a protobuf with key type 2 (secp256k1) in field 1, and 33 bytes of key in field 2.

Source: libp2p specs, peer-ids.
"""
_HOST_PROTOCOLS = ("ip4", "ip6", "dns", "dns4", "dns6")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A TCP endpoint. host: an IP address, or a name for the resolver."""

    host: str
    port: int


def peer_id_of(key: bytes) -> PeerId:
    """The peer id of a transport public key: 33 bytes, compressed. Raises TransportError unless it is a point."""
    if len(key) != 33:
        raise TransportError(f"a transport public key of {len(key)} bytes; it has 33")
    if key[0] not in (2, 3) or not is_valid_x_only(key[1:]):
        raise TransportError("not a secp256k1 public key")
    return PeerId(base58.b58encode(_KEY_PREFIX + key).decode("ascii"))


def peer_id_from_secret(secret: bytes) -> PeerId:
    """The peer id of a transport secret: 32 bytes, big-endian. Raises TransportError unless it is a valid key."""
    if not is_valid_secret(secret):
        raise TransportError("a transport secret that is not 32 bytes, or outside the curve's order")
    return peer_id_of(public_key(SecretKind.TRANSPORT, secret))


def parse_peer_id(text: str) -> PeerId:
    """The peer id that `text` spells. Raises TransportError unless it is spelt as that of a secp256k1 key."""
    try:
        encoded = base58.b58decode(text.encode("ascii"))
    except ValueError as error:
        raise TransportError(f"{text!r} is not base58") from error
    key = encoded.removeprefix(_KEY_PREFIX)
    if len(encoded) != len(_KEY_PREFIX) + 33 or len(key) != 33 or key[0] not in (2, 3):
        raise TransportError(f"{text!r} is not the peer id of a secp256k1 key")
    return PeerId(base58.b58encode(encoded).decode("ascii"))


def transport_key_of(peer_id: str) -> bytes:
    """The transport public key that a peer id spells: 33 bytes, compressed; whether it is a point is not looked at.

    Raises TransportError unless it is the peer id of a secp256k1 key.
    """
    return base58.b58decode(parse_peer_id(peer_id))[len(_KEY_PREFIX) :]


def parse_peer_address(text: str) -> PeerAddress:
    """An address in its usual text form, `<multiaddr>/p2p/<peer id>`. Raises TransportError."""
    multiaddr, separator, peer = text.rpartition("/p2p/")
    if not separator:
        raise TransportError(f"{text!r} does not end in /p2p/<peer id>")
    parse_endpoint(multiaddr)
    return PeerAddress(parse_peer_id(peer), multiaddr)


def parse_endpoint(multiaddr: str) -> Endpoint:
    """Where `/ip4|ip6|dns|dns4|dns6/<host>/tcp/<port>` points. Raises TransportError on anything else."""
    parts = multiaddr.split("/")
    if len(parts) != 5 or parts[0] or parts[1] not in _HOST_PROTOCOLS or parts[3] != "tcp":
        raise TransportError(f"{multiaddr!r} is not of the form /ip4/<host>/tcp/<port>, /ip6/… or /dns/…")
    _, protocol, host, _, port = parts
    if not port.isascii() or not port.isdecimal() or len(port) > 5 or int(port) > 0xFFFF:
        raise TransportError(f"{multiaddr!r} has no valid port")
    if not host:
        raise TransportError(f"{multiaddr!r} has no host")
    try:
        if protocol == "ip4":
            ipaddress.IPv4Address(host)
        elif protocol == "ip6":
            ipaddress.IPv6Address(host)
        else:
            host.encode("idna")
    except UnicodeError as error:
        raise TransportError(f"{multiaddr!r} has no name that can be looked up") from error
    except ValueError as error:
        raise TransportError(f"{multiaddr!r} has no valid IP address") from error
    return Endpoint(host, int(port))


def address_group(host: str) -> str:
    """The address by which connections are counted and rationed: an IPv4 address, or the /64 of an IPv6 one.

    Whoever has one IPv6 address has all of its /64. What is no IP address stands for itself.
    """
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((address, 64), strict=False))


def multiaddr_of(endpoint: Endpoint) -> str:
    """The multiaddr of an endpoint whose host is an IP address."""
    protocol = "ip6" if ":" in endpoint.host else "ip4"
    return f"/{protocol}/{endpoint.host}/tcp/{endpoint.port}"
