"""The decoders of what is answered to this program: by its Bitcoin node, and to the command line by its own node."""

from collections.abc import Callable, Coroutine, Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

import httpx
import msgspec

from bridge.bitcoin.block import parse_block
from bridge.bitcoin.identifiers import BlockHash, OutPoint, Txid, hash_to_hex
from bridge.errors import MalformedError
from bridge.l1.client import L1Client
from bridge.l1.connection import L1Connection
from bridge.l1.credentials import CookieAuth
from bridge.l1.errors import L1RpcError, L1Unavailable
from bridge.l1.jsonrpc import Call, JsonValue, decode_batch, decode_result
from pegnode.rpc.client import RpcClient, RpcClientError
from pegnode.rpc.cookie import Credentials
from pegnode.rpc.results import AnchorReply
from tests.fuzz.decoders import Decoder
from tests.fuzz.documents import scratch_directory
from tests.fuzz.scene import scene

L1_ERRORS = (L1Unavailable, L1RpcError)
STATUSES = (200, 500, 404, 401, 503, 302, 204, 599)
HASH_HEX = hash_to_hex(bytes(range(32)))
TXID = Txid(bytes(range(32)))
OUTPOINT = OutPoint(TXID, 1)
BLOCK_HASH = BlockHash(bytes(range(32)))
Questions = dict[str, tuple[Callable[[], Coroutine[Any, Any, Any]], tuple[bytes, ...]]]
"""How each question is put, and answers that a node gives to it."""


@cache
def reply_decoders() -> tuple[Decoder, ...]:
    """All of them."""
    return (*_l1(), _own_node())


def _own_node() -> Decoder:
    """The first byte chooses the status of the answer, the others are its body."""
    answer: list[tuple[int, bytes]] = []
    cookie = scratch_directory() / "cookie"
    Credentials.generate().write(cookie)
    client = RpcClient("http://127.0.0.1:1", cookie)

    def respond(_request: httpx.Request) -> httpx.Response:
        status, body = answer[-1]
        return httpx.Response(status, content=body)

    client._http = httpx.Client(transport=httpx.MockTransport(respond))

    def ask(data: bytes) -> object:
        answer[:] = [(STATUSES[data[0] % len(STATUSES)] if data else 200, data[1:])]
        return client.ask(AnchorReply, "getanchor")

    reply = {"jsonrpc": "2.0", "result": {"height": 5, "hash": HASH_HEX}, "id": 1}
    refusal = {"jsonrpc": "2.0", "error": {"code": -26, "message": "no", "data": {"reason": "x"}}, "id": 1}
    return Decoder(
        "pegnode.rpc.client:RpcClient.ask",
        ask,
        (RpcClientError,),
        (b"\x00" + msgspec.json.encode(reply),),
        refused=(b"\x00" + msgspec.json.encode(refusal),),
    )


class CannedConnection:
    """Every question is answered by the same HTTP status and body."""

    def __init__(self) -> None:
        self.status, self.body = 200, b""

    async def call(self, call: Call, **_: object) -> JsonValue:
        """As L1Connection."""
        return decode_result(call, self.status, self.body)

    async def batch(self, calls: Sequence[Call]) -> list[JsonValue | L1RpcError]:
        """As L1Connection."""
        return decode_batch(calls, self.status, self.body)


def immediate(coroutine: Coroutine[Any, Any, Any]) -> object:
    """What a coroutine gives that never has to wait."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise RuntimeError("the coroutine waits")


def _l1() -> tuple[Decoder, ...]:
    client = L1Client("http://127.0.0.1:1", CookieAuth(Path("none")))
    canned = CannedConnection()
    client.connection = cast(L1Connection, canned)
    return tuple(
        Decoder(
            f"bridge.l1.client:L1Client.{name}",
            _answered(canned, ask),
            (*L1_ERRORS, MalformedError) if name == "block" else L1_ERRORS,
            tuple(b"\x00" + sample for sample in samples),
            refused=tuple(b"\x00" + reply for reply in _REFUSALS),
        )
        for name, (ask, samples) in _questions(client).items()
    )


def _answered(canned: CannedConnection, ask: Callable[[], Coroutine[Any, Any, Any]]) -> Callable[[bytes], object]:
    """The first byte chooses the status of the answer, the others are its body."""

    def decode(data: bytes) -> object:
        canned.status = STATUSES[data[0] % len(STATUSES)] if data else 200
        canned.body = data[1:]
        return immediate(ask())

    return decode


def _reply(result: object, request_id: int = 0) -> dict[str, object]:
    return {"result": result, "error": None, "id": request_id}


def _body(result: object) -> bytes:
    return msgspec.json.encode(_reply(result))


def _batch(*results: object) -> bytes:
    return msgspec.json.encode([_reply(result, index) for index, result in enumerate(results)])


_REFUSALS = (
    msgspec.json.encode({"result": None, "error": {"code": -1, "message": "Something else"}, "id": 0}),
    msgspec.json.encode({"result": None, "error": {"code": -28, "message": "Loading block index..."}, "id": 0}),
)


def _questions(client: L1Client) -> Questions:
    """Every question, and answers that a node gives to it."""
    return {
        **_about_the_node(client),
        **_about_blocks(client),
        **_about_coins(client),
        **_about_transactions(client),
        **_about_descriptors(client),
    }


def _about_the_node(client: L1Client) -> Questions:
    info = {
        "chain": "regtest",
        "blocks": 7,
        "headers": 9,
        "bestblockhash": HASH_HEX,
        "initialblockdownload": False,
        "pruned": False,
    }
    network = {
        "version": 290_100,
        "subversion": "/Satoshi:29.1.0/",
        "connections": 8,
        "relayfee": msgspec.Raw(b"0.00001000"),
        "incrementalfee": msgspec.Raw(b"1e-5"),
    }
    return {
        "chain_info": (client.chain_info, (_body(info),)),
        "network_info": (client.network_info, (_body(network),)),
    }


def _about_blocks(client: L1Client) -> Questions:
    header = {
        "hash": HASH_HEX,
        "height": 7,
        "confirmations": 3,
        "nTx": 2,
        "merkleroot": HASH_HEX,
        "time": 1_700_000_000,
        "previousblockhash": HASH_HEX,
    }
    mined = next(block for block in scene().chain.l1.blocks if len(block.transactions) > 1)
    block = mined.header + bytes([len(mined.transactions)]) + b"".join(item.serialize() for item in mined.transactions)

    async def parsed_block() -> object:
        return parse_block(await client.block(BLOCK_HASH))

    return {
        "block_hash": (lambda: client.block_hash(7), (_body(HASH_HEX),)),
        "block_header": (lambda: client.block_header(BLOCK_HASH), (_body(header),)),
        "block_headers": (lambda: client.block_headers([BLOCK_HASH] * 2), (_batch(header, header),)),
        "block": (parsed_block, (_body(block.hex()),)),
    }


def _about_coins(client: L1Client) -> Questions:
    output = {
        "value": msgspec.Raw(b"0.50000000"),
        "scriptPubKey": {"hex": "0014" + "00" * 20},
        "confirmations": 3,
        "coinbase": False,
        "bestblock": HASH_HEX,
    }
    unspent = {
        "txid": HASH_HEX,
        "vout": 1,
        "amount": msgspec.Raw(b"1.5"),
        "scriptPubKey": "5120" + "00" * 32,
        "height": 5,
        "coinbase": True,
    }
    scan = {"success": True, "height": 7, "bestblock": HASH_HEX, "unspents": [unspent]}
    return {
        "txouts": (lambda: client.txouts([OUTPOINT, OUTPOINT], True), (_batch(output, None),)),
        "tx_out_proof": (lambda: client.tx_out_proof([TXID]), (_body("00ff"),)),
        "scan_txoutset": (lambda: client.scan_txoutset(["raw(00)"]), (_body(scan),)),
    }


def _about_transactions(client: L1Client) -> Questions:
    raw = scene().payments[0].serialize()
    accepted = {"allowed": True, "vsize": 110, "fees": {"base": msgspec.Raw(b"0.00000110")}}
    spending = [{"txid": HASH_HEX, "vout": 1, "spendingtxid": HASH_HEX}]
    return {
        "raw_transaction": (lambda: client.raw_transaction(TXID), (_body(raw.hex()),)),
        "transaction_block": (
            lambda: client.transaction_block(TXID),
            (_body({"blockhash": HASH_HEX, "confirmations": 3}),),
        ),
        "send_raw_transaction": (lambda: client.send_raw_transaction(raw), (_body(HASH_HEX),)),
        "test_mempool_accept": (
            lambda: client.test_mempool_accept(raw),
            (_body([accepted]), _body([{"allowed": False, "reject-reason": "dust"}])),
        ),
        "estimate_feerate": (
            lambda: client.estimate_feerate(2),
            (_body({"feerate": msgspec.Raw(b"0.0001")}), _body({})),
        ),
        "mempool_contains": (lambda: client.mempool_contains(TXID), (_body({}),)),
        "mempool_spenders": (lambda: client.mempool_spenders([OUTPOINT]), (_body(spending),)),
    }


def _about_descriptors(client: L1Client) -> Questions:
    described = {
        "descriptor": "raw(00)#x",
        "checksum": "x",
        "isrange": False,
        "issolvable": False,
        "hasprivatekeys": False,
    }
    return {
        "descriptor_info": (lambda: client.descriptor_info("raw(00)"), (_body(described),)),
        "derive_addresses": (lambda: client.derive_addresses("raw(00)#x"), (_body(["bcrt1q"]),)),
    }
