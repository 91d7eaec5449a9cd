"""The decoders of what people and programs type: RPC requests, REST paths, addresses, amounts, peers' addresses."""

from collections.abc import Callable
from functools import cache
from typing import Any

import msgspec
import trio

from bridge.bitcoin import bech32
from bridge.bitcoin.addresses import NETWORKS, Network, decode_address, encode_address
from bridge.bitcoin.amounts import format_btc, parse_btc
from bridge.bitcoin.identifiers import hash_from_hex, hash_to_hex, outpoint_from_text
from bridge.errors import MalformedError, Rejected
from pegnode.net.address import parse_endpoint, parse_peer_address, parse_peer_id
from pegnode.net.transport import TransportError
from pegnode.rpc.arguments import (
    address_argument,
    block_hash_argument,
    bytes_argument,
    outpoint_argument,
    transaction_argument,
    txid_argument,
)
from pegnode.rpc.cookie import Credentials
from pegnode.rpc.descriptors import with_checksum
from pegnode.rpc.errors import RpcError
from pegnode.rpc.jsonrpc import handle
from pegnode.rpc.methods.table import MethodTable
from pegnode.rpc.server import create_app, method_table
from tests.fuzz.decoders import Decoder, Finding
from tests.fuzz.documents import scratch_directory
from tests.fuzz.scene import ALICE, scene
from tests.support.rpc_node import FakeNode

HASH_HEX = hash_to_hex(bytes(range(32)))
PEER_ID = "16Uiu2HAkukYDXVFKWvdfgcgUDTs2QSRuAqHE4Jd7xNnbfBgwfHZF"
INTERNAL_ERROR = -32603
"""What the RPC answers when a method failed in a way that nobody planned."""


@cache
def request_decoders() -> tuple[Decoder, ...]:
    """All of them."""
    return (*_texts(), *_arguments(), *_peers(), *_interfaces())


def _texts() -> tuple[Decoder, ...]:
    return (
        *(_address_decoder(network) for network in NETWORKS),
        Decoder(
            "bridge.bitcoin.bech32:decode",
            _text(_bech32),
            (MalformedError,),
            (b"A1LQFN3A", b"abcdef1l7aum6echk45nj3s0wdvt2fg8x9yrzpqzd3ryx"),
        ),
        Decoder("bridge.bitcoin.amounts:parse_btc", _text(_amount), (Rejected,), (b"0.5", b"21000000", b"1.00000001")),
        Decoder(
            "bridge.bitcoin.identifiers:hash_from_hex", _text(hash_from_hex), (MalformedError,), (HASH_HEX.encode(),)
        ),
        Decoder(
            "bridge.bitcoin.identifiers:outpoint_from_text",
            _text(_outpoint),
            (MalformedError,),
            (f"{HASH_HEX}:7".encode(),),
        ),
        Decoder("pegnode.rpc.descriptors:with_checksum", _text(with_checksum), (ValueError,), (b"raw(deadbeef)",)),
    )


def _text(read: Callable[[str], object]) -> Callable[[bytes], object]:
    """What `read` makes of text; bytes that are no UTF-8 stand for characters all the same."""
    return lambda data: read(data.decode("utf-8", "replace"))


def _address_decoder(network: Network) -> Decoder:
    scripts = [output.script for _, output in scene().coins]
    samples = tuple(encode_address(script, network).encode() for script in scripts)

    def read(text: str) -> object:
        script = decode_address(text, network)
        written = encode_address(script, network)
        if written not in (text, text.lower()):
            raise Finding(f"{text} is written {written}")
        return script

    return Decoder("bridge.bitcoin.addresses:decode_address", _text(read), (Rejected,), samples)


def _bech32(text: str) -> object:
    hrp, symbols, remainder = bech32.decode(text)
    if remainder in (bech32.BECH32, bech32.BECH32M) and bech32.encode(hrp, symbols, remainder) != text.lower():
        raise Finding(f"{text} is written {bech32.encode(hrp, symbols, remainder)}")
    return hrp, symbols, bech32.from_symbols(symbols)


def _amount(text: str) -> object:
    value_sats = parse_btc(text)
    if parse_btc(format_btc(value_sats)) != value_sats:
        raise Finding(f"{text} is {value_sats}, written {format_btc(value_sats)}")
    return value_sats


def _outpoint(text: str) -> object:
    outpoint = outpoint_from_text(text)
    if outpoint_from_text(str(outpoint)) != outpoint:
        raise Finding(f"{text} is written {outpoint}")
    return outpoint.encode()


def _arguments() -> tuple[Decoder, ...]:
    network = NETWORKS[-1]
    payment = scene().payments[0].serialize().hex()
    readers: dict[str, tuple[Callable[[str], object], str]] = {
        "txid_argument": (lambda text: txid_argument("x", text), HASH_HEX),
        "block_hash_argument": (lambda text: block_hash_argument("x", text), HASH_HEX),
        "outpoint_argument": (lambda text: outpoint_argument("x", text), f"{HASH_HEX}:1"),
        "bytes_argument": (lambda text: bytes_argument("x", text), "00ff"),
        "transaction_argument": (lambda text: transaction_argument("x", text).txid, payment),
        "address_argument": (
            lambda text: address_argument("x", text, network),
            encode_address(ALICE.script(), network),
        ),
    }
    return tuple(
        Decoder(f"pegnode.rpc.arguments:{name}", _text(read), (RpcError,), (sample.encode(),))
        for name, (read, sample) in readers.items()
    )


def _peers() -> tuple[Decoder, ...]:
    endpoints = ("/ip4/127.0.0.1/tcp/9735", "/ip6/::1/tcp/0", "/dns4/a.example/tcp/65535")
    errors = (TransportError,)

    def peer_id(text: str) -> object:
        found = parse_peer_id(text)
        if parse_peer_id(found) != found:
            raise Finding(f"{text} is written {found}")
        return found

    def peer_address(text: str) -> object:
        found = parse_peer_address(text)
        if parse_peer_address(found.text) != found:
            raise Finding(f"{text} is written {found.text}")
        return found

    return (
        Decoder("pegnode.net.address:parse_endpoint", _text(parse_endpoint), errors, tuple(map(str.encode, endpoints))),
        Decoder("pegnode.net.address:parse_peer_id", _text(peer_id), errors, (PEER_ID.encode(),)),
        Decoder(
            "pegnode.net.address:parse_peer_address",
            _text(peer_address),
            errors,
            (f"{endpoints[0]}/p2p/{PEER_ID}".encode(),),
        ),
    )


# The interfaces of a node, whole


@cache
def node() -> FakeNode:
    """A node with a few blocks, deposits and payments. What it is asked changes nothing that it answers."""
    fake = FakeNode(scratch_directory() / "chain")
    fake.fund(ALICE.script())
    fake.make_block()
    return fake


def _interfaces() -> tuple[Decoder, ...]:
    address = encode_address(ALICE.script(), NETWORKS[-1])
    header = node().store.tip.header
    funding = node().chain.blocks[0]
    credited = next(iter(node().store.index.transactions_at(1))).txid
    txid_hex, script_hash = hash_to_hex(credited), "ab" * 32
    calls: list[object] = [{"jsonrpc": "2.0", "id": 1, "method": method.name, "params": []} for method in _methods()]
    calls += [
        {"method": "getblockheader", "params": [hash_to_hex(header.hash), True], "id": "x"},
        {"method": "getblock", "params": {"blockhash": hash_to_hex(funding.hash)}, "id": 1.5},
        {"jsonrpc": "1.1", "method": "getrawtransaction", "params": [txid_hex, True]},
        {"jsonrpc": "2.0", "method": "getdepositaddress", "params": [address], "id": None},
        {"jsonrpc": "2.0", "method": "listdeposits", "params": [[address]], "id": [1]},
        {"jsonrpc": "2.0", "method": "gettxout", "params": [txid_hex, 0], "id": {}},
        {"jsonrpc": "2.0", "method": "testmempoolaccept", "params": [[scene().payments[0].serialize().hex()]], "id": 1},
        {"jsonrpc": "2.0", "method": "estimatewithdrawal", "params": [1_000_000], "id": 1},
        {"jsonrpc": "2.0", "method": "getwithdrawal", "params": [f"{txid_hex}:0"], "id": 1},
        [
            {"jsonrpc": "2.0", "method": "help"},
            {"jsonrpc": "2.0", "method": "help", "id": 1, "params": {"command": "help"}},
        ],
    ]
    paths = [
        *("/blocks", "/blocks/tip/height", "/blocks/tip/hash", "/blocks/1", "/block-height/1", "/fee-estimates"),
        f"/block/{hash_to_hex(header.hash)}",
        *(f"/scripthash/{script_hash}/txs{rest}" for rest in ("", "/chain", f"/chain/{txid_hex}", "/mempool")),
        *(f"/tx/{txid_hex}{rest}" for rest in ("", "/hex", "/raw", "/status", "/outspend/0", "/outspends")),
    ]
    credentials = Credentials("__cookie__", "0" * 64)
    return (
        Decoder("pegnode.rpc.jsonrpc:handle", _rpc, (), tuple(map(msgspec.json.encode, calls))),
        Decoder("pegnode.rpc.esplora:add_esplora", _rest("GET"), (), tuple(map(str.encode, paths))),
        Decoder(
            "pegnode.rpc.esplora:_Broadcast.__call__",
            _rest("POST"),
            (),
            (scene().payments[0].serialize().hex().encode(),),
        ),
        Decoder(
            "pegnode.rpc.cookie:Credentials.allow",
            lambda data: credentials.allow(data.decode("latin-1")),
            (),
            (b"Basic X19jb29raWVfXzow",),
        ),
    )


def _rpc(data: bytes) -> object:
    """The reply. An error that nobody planned is a finding, though the server would survive it."""
    reply = trio.run(handle, node(), _methods(), data)
    answers = msgspec.json.decode(reply.body) if reply.body else []
    for answer in answers if isinstance(answers, list) else [answers]:
        error = answer.get("error")
        if error is not None and error["code"] == INTERNAL_ERROR:
            raise Finding(f"{data!r}: {answer}")
    return reply


@cache
def _methods() -> MethodTable:
    """The methods of the interface but one: `stop` is obeyed."""
    kept = [method.handler for method in method_table() if method.name not in ("stop", "help")]
    return MethodTable([("all", kept)])


@cache
def _application() -> Any:
    return create_app(node(), Credentials("__cookie__", "0" * 64))


def _rest(method: str) -> Callable[[bytes], object]:
    """The status and body that the application answers: GET takes `data` for the path, POST for the body of /tx."""

    def ask(data: bytes) -> object:
        path = data.decode("utf-8", "replace").partition("?")[0] if method == "GET" else "/tx"
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode("utf-8"),
            "query_string": b"",
            "root_path": "",
            "headers": [(b"host", b"127.0.0.1")],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 1),
        }
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"" if method == "GET" else data, "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        trio.run(_application(), scope, receive, send)
        status = sent[0]["status"]
        if status >= 500:
            raise Finding(f"{data!r}: status {status}")
        return status, b"".join(message.get("body", b"") for message in sent[1:])

    return ask
