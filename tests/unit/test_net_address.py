"""Peer ids are libp2p's, and addresses are read strictly."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from libp2p.crypto.secp256k1 import create_new_key_pair
from libp2p.peer.id import ID

from pegnode.net.address import (
    Endpoint,
    address_group,
    multiaddr_of,
    parse_endpoint,
    parse_peer_address,
    parse_peer_id,
    peer_id_from_secret,
    peer_id_of,
)
from pegnode.net.transport import PeerAddress, TransportError

SECRET = bytes(range(1, 33))
PEER = "16Uiu2HAm4Ms862Gnqafssgvik4JJ1LuqWMcKNipq4nm2UaoLRbeP"
ED25519_PEER = "12D3KooWBtp1AcgQiqHqV4fGTWQTuYLGGQ4Sbn1QGZRN5kJNTq6f"


@given(st.binary(min_size=32, max_size=32).filter(lambda secret: 0 < int.from_bytes(secret) < 2**255))
def test_peer_id_is_libp2ps_and_parses(secret: bytes) -> None:
    pair = create_new_key_pair(secret)
    peer = peer_id_from_secret(secret)
    assert peer == ID.from_pubkey(pair.public_key).to_base58()
    assert peer == peer_id_of(pair.public_key.to_bytes()) == parse_peer_id(peer)


def test_peer_id_of_a_known_secret() -> None:
    assert peer_id_from_secret(SECRET) == PEER


@pytest.mark.parametrize("secret", [b"", bytes(32), b"\xff" * 32, bytes(33)])
def test_invalid_secret_is_refused(secret: bytes) -> None:
    with pytest.raises(TransportError):
        peer_id_from_secret(secret)


def test_public_key_that_is_no_compressed_point_is_refused() -> None:
    uncompressed = create_new_key_pair(SECRET).public_key.impl.format(compressed=False)  # type: ignore[attr-defined]
    for key in (b"", b"\x02" + b"\xff" * 32, uncompressed):
        with pytest.raises(TransportError):
            peer_id_of(key)


@pytest.mark.parametrize("text", ["", "0", "é", PEER[:-1], PEER + "1", "1" + PEER, ED25519_PEER, "Qm" + "1" * 44])
def test_text_that_is_no_peer_id_of_ours_is_refused(text: str) -> None:
    with pytest.raises(TransportError):
        parse_peer_id(text)


@pytest.mark.parametrize(
    ("multiaddr", "endpoint"),
    [
        ("/ip4/127.0.0.1/tcp/4001", Endpoint("127.0.0.1", 4001)),
        ("/ip6/::1/tcp/0", Endpoint("::1", 0)),
        ("/dns4/node.example/tcp/65535", Endpoint("node.example", 65535)),
    ],
)
def test_endpoint_and_address_are_read(multiaddr: str, endpoint: Endpoint) -> None:
    assert parse_endpoint(multiaddr) == endpoint
    address = parse_peer_address(f"{multiaddr}/p2p/{PEER}")
    assert address == PeerAddress(parse_peer_id(PEER), multiaddr)
    assert address.text == f"{multiaddr}/p2p/{PEER}"
    if not multiaddr.startswith("/dns"):
        assert multiaddr_of(endpoint) == multiaddr


@pytest.mark.parametrize(
    "multiaddr",
    [
        "",
        "127.0.0.1:4001",
        "/ip4/127.0.0.1",
        "/ip4/127.0.0.1/udp/4001",
        "/ip4/127.0.0.1/tcp/4001/ws",
        "/ip4/127.0.0.1/tcp/65536",
        "/ip4/127.0.0.1/tcp/-1",
        "/ip4/127.0.0.1/tcp/",
        "/ip4/127.0.0.1/tcp/\u0661",
        "/ip4/127.0.0.1/tcp/" + "1" * 5000,
        "/ip4/::1/tcp/1",
        "/ip6/127.0.0.1/tcp/1",
        "/ip4/node.example/tcp/1",
        "/dns4//tcp/1",
        "/dns4/member..example/tcp/1",
        "/dns/" + "a" * 64 + ".example/tcp/1",
        "x/ip4/127.0.0.1/tcp/1",
    ],
)
def test_malformed_multiaddr_is_refused(multiaddr: str) -> None:
    with pytest.raises(TransportError):
        parse_endpoint(multiaddr)


@pytest.mark.parametrize("text", ["/ip4/127.0.0.1/tcp/1", f"/ip4/x/tcp/1/p2p/{PEER}", "/ip4/127.0.0.1/tcp/1/p2p/x"])
def test_malformed_peer_address_is_refused(text: str) -> None:
    with pytest.raises(TransportError):
        parse_peer_address(text)


@pytest.mark.parametrize(
    ("host", "group"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("member.example", "member.example"),
    ],
)
def test_addresses_that_one_machine_may_have_are_one_group(host: str, group: str) -> None:
    assert address_group(host) == group
