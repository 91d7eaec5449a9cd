"""REST in the manner of Esplora, for wallets: blocks, transactions and the histories of scripts, waiting ones included.

No login: it is public chain data. Amounts are integers of satoshis, as Esplora has them. A script is named by the
sha256 of its bytes in plain hex. What is large is rendered in slices, between which the node goes on with its own work.
Source: Blockstream's esplora, API.md.
"""

from collections.abc import Awaitable, Callable, Generator, Iterable
from itertools import islice
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse

from bridge.bitcoin.addresses import Network
from bridge.bitcoin.identifiers import (
    HASH_SIZE,
    BlockHash,
    OutPoint,
    Txid,
    hash_from_hex,
    hash_to_hex,
)
from bridge.bitcoin.transaction import Transaction, TxIn, TxOut
from bridge.errors import MalformedError, Rejected
from pegnode.chain.header import HEADER_SIZE, Header
from pegnode.errors import PegnodeError, Refusal
from pegnode.rpc.body import MAX_TRANSACTION_HEX_BYTES, BodyTooLarge, read_body
from pegnode.rpc.errors import RpcCode
from pegnode.rpc.lookup import FoundTransaction, MempoolIndex, OutputSpenders, find_bytes, find_transaction
from pegnode.rpc.node_api import NodeApi
from pegnode.rpc.render import Json, each, encoded, esplora_script_json
from pegnode.service.slices import to_the_end
from pegnode.storage.keys import Place

CONFIRMED_PAGE = 25
"""Confirmed entries of a page. Clients take a shorter page for the last one."""
BLOCKS_PAGE = 10
FEE_TARGETS = (1, 2, 3, 6, 12, 24, 144, 1008)
"""In blocks."""


class EsploraFault(PegnodeError):  # noqa: N818 -- the client's
    """A request that can't be answered. status: HTTP."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def add_esplora(app: FastAPI, node: NodeApi) -> None:
    """Serve the interface under `app`'s root."""
    for routes in (_BlockRoutes(node).routes(), _TransactionRoutes(node).routes()):
        for path, endpoint in routes.items():
            app.add_api_route(path, endpoint, methods=["GET"])
    app.add_api_route("/tx", _Broadcast(node), methods=["POST"])
    app.add_exception_handler(EsploraFault, _fault_response)


Endpoint = Callable[..., Awaitable[Response]]


class _BlockRoutes:
    def __init__(self, node: NodeApi) -> None:
        self._node = node

    def routes(self) -> dict[str, Endpoint]:
        return {
            "/blocks": self.blocks,
            "/blocks/tip/height": self.tip_height,
            "/blocks/tip/hash": self.tip_hash,
            "/blocks/{start_height}": self.blocks,
            "/block-height/{height}": self.block_height,
            "/block/{block_hash}": self.block,
        }

    async def blocks(self, start_height: str | None = None) -> Response:
        """Ten blocks, newest first, from the tip or from a height down."""
        tip_height = self._node.store.tip.header.height
        newest = tip_height if start_height is None else min(_height(start_height), tip_height)
        heights = range(newest, max(-1, newest - BLOCKS_PAGE), -1)
        return _json(await to_the_end(each(heights, self._block_json)))

    async def tip_height(self) -> Response:
        return PlainTextResponse(str(self._node.store.tip.header.height))

    async def tip_hash(self) -> Response:
        return PlainTextResponse(hash_to_hex(self._node.store.tip.hash))

    async def block_height(self, height: str) -> Response:
        header = self._node.store.header_at(_height(height))
        if header is None:
            raise EsploraFault(404, "Block not found")
        return PlainTextResponse(hash_to_hex(header.hash))

    async def block(self, block_hash: str) -> Response:
        height = self._node.store.height_of(BlockHash(_hash(block_hash)))
        if height is None:
            raise EsploraFault(404, "Block not found")
        return _json(self._block_json(height))

    def _block_json(self, height: int) -> Json:
        data = self._node.store.block_at(height)
        if data is None:
            raise EsploraFault(404, "Block not found")
        header = Header.decode(data[:HEADER_SIZE])
        return _block_json(header, len(data), self._node.store.index.count_at(height))


class _TransactionRoutes:
    def __init__(self, node: NodeApi) -> None:
        self._node = node
        self._waiting = MempoolIndex(node)

    def routes(self) -> dict[str, Endpoint]:
        return {
            "/scripthash/{script_hash}/txs": self.script_transactions,
            "/scripthash/{script_hash}/txs/chain": self.script_confirmed,
            "/scripthash/{script_hash}/txs/chain/{last_txid}": self.script_confirmed,
            "/scripthash/{script_hash}/txs/mempool": self.script_waiting,
            "/tx/{txid}": self.transaction,
            "/tx/{txid}/hex": self.transaction_hex,
            "/tx/{txid}/raw": self.transaction_raw,
            "/tx/{txid}/status": self.transaction_status,
            "/tx/{txid}/outspend/{vout}": self.outspend,
            "/tx/{txid}/outspends": self.outspends,
            "/fee-estimates": self.fee_estimates,
        }

    async def script_transactions(self, script_hash: str) -> Response:
        """The newest of what waits, then the newest confirmed page; each newest first."""
        digest = _script_hash(script_hash)
        waiting = await self._waiting.touching(digest)
        return await self._page([*waiting, *self._confirmed(digest, None)])

    async def script_confirmed(self, script_hash: str, last_txid: str | None = None) -> Response:
        """A page of confirmed transactions, those after `last_txid` in the order of newest first."""
        digest = _script_hash(script_hash)
        if last_txid is None:
            return await self._page(self._confirmed(digest, None))
        place = self._node.store.index.place(Txid(_hash(last_txid)))
        return await self._page([] if place is None else self._confirmed(digest, place))

    async def script_waiting(self, script_hash: str) -> Response:
        return await self._page(await self._waiting.touching(_script_hash(script_hash)))

    async def transaction(self, txid: str) -> Response:
        return _json(await to_the_end(self._named_json(txid)))

    async def transaction_hex(self, txid: str) -> Response:
        return PlainTextResponse(self._find_bytes(txid).hex())

    async def transaction_raw(self, txid: str) -> Response:
        return Response(self._find_bytes(txid), media_type="application/octet-stream")

    async def transaction_status(self, txid: str) -> Response:
        wanted = Txid(_hash(txid))
        place = self._node.store.index.place(wanted)
        if place is None and wanted not in self._node.mempool:
            raise EsploraFault(404, "Transaction not found")
        return _json(self._status_json(place))

    async def outspend(self, txid: str, vout: str) -> Response:
        transaction = self._find(txid).transaction
        if not vout.isascii() or not vout.isdecimal() or len(vout) > 10 or int(vout) >= len(transaction.outputs):
            raise EsploraFault(404, "Output not found")
        return _json(self._outspend_json(transaction.outpoint(int(vout)), OutputSpenders(self._node)))

    async def outspends(self, txid: str) -> Response:
        transaction, spenders = self._find(txid).transaction, OutputSpenders(self._node)
        outpoints = (transaction.outpoint(index) for index in range(len(transaction.outputs)))
        return _json(await to_the_end(each(outpoints, lambda outpoint: self._outspend_json(outpoint, spenders))))

    async def fee_estimates(self) -> Response:
        """Satoshis per virtual byte by target: blocks have room, so the least that is relayed is enough for any."""
        whole, thousandths = divmod(self._node.pool_limits.min_feerate_sat_kvb, 1000)
        feerate = msgspec.Raw(f"{whole}.{thousandths:03d}".encode("ascii"))
        return _json({str(target): feerate for target in FEE_TARGETS})

    def _find(self, txid: str) -> FoundTransaction:
        found = find_transaction(self._node, Txid(_hash(txid)))
        if found is None:
            raise EsploraFault(404, "Transaction not found")
        return found

    def _find_bytes(self, txid: str) -> bytes:
        found = find_bytes(self._node, Txid(_hash(txid)))
        if found is None:
            raise EsploraFault(404, "Transaction not found")
        return found

    def _confirmed(self, script_hash: bytes, before: Place | None) -> list[Txid]:
        history = self._node.store.index.script_history(script_hash, before)
        return [entry.txid for entry in islice(history, CONFIRMED_PAGE)]

    async def _page(self, txids: Iterable[Txid]) -> Response:
        return _json(await to_the_end(self._transactions_json(txids)))

    def _transactions_json(self, txids: Iterable[Txid]) -> Generator[None, None, list[msgspec.Raw]]:
        """Those that are still there when it is their turn: what waits may be dropped meanwhile."""
        rendered = []
        for txid in txids:
            found = find_transaction(self._node, txid)
            if found is not None:
                rendered.append((yield from encoded(self._transaction_json(found))))
        return rendered

    def _named_json(self, txid: str) -> Generator[None, None, Json]:
        return (yield from self._transaction_json(self._find(txid)))

    def _transaction_json(self, found: FoundTransaction) -> Generator[None, None, Json]:
        yield
        rendered = yield from _transaction_json(found, self._node.network)
        return rendered | {"status": self._status_json(found.place)}

    def _status_json(self, place: Place | None) -> Json:
        header = None if place is None else self._node.store.header_at(place.height)
        if header is None:
            return {"confirmed": False}
        block_hash = hash_to_hex(header.hash)
        return {
            "confirmed": True,
            "block_height": header.height,
            "block_hash": block_hash,
            "block_time": header.time_seconds,
        }

    def _outspend_json(self, outpoint: OutPoint, spenders: OutputSpenders) -> Json:
        spender = spenders.spender(outpoint)
        if spender is None:
            return {"spent": False}
        return {
            "spent": True,
            "txid": hash_to_hex(spender.txid),
            "vin": spender.vin,
            "status": self._status_json(self._node.store.index.place(spender.txid)),
        }


class _Broadcast:
    """POST /tx: a transaction in hex, without regard to the content type; the reply is its txid."""

    def __init__(self, node: NodeApi) -> None:
        self._node = node

    async def __call__(self, request: Request) -> Response:
        try:
            body = await read_body(request, MAX_TRANSACTION_HEX_BYTES)
            transaction = Transaction.parse(bytes.fromhex(body.decode("ascii")))
        except BodyTooLarge as error:
            raise EsploraFault(413, str(error)) from error
        except (UnicodeDecodeError, ValueError, Rejected) as error:
            raise _broadcast_fault(RpcCode.DESERIALIZATION_ERROR, f"TX decode failed. {error}") from error
        if self._node.store.index.place(transaction.txid) is None:
            try:
                await self._node.submit_transaction(transaction.serialize())
            except (Rejected, Refusal) as error:
                raise _broadcast_fault(RpcCode.VERIFY_REJECTED, str(error)) from error
        return PlainTextResponse(hash_to_hex(transaction.txid))


def _broadcast_fault(code: RpcCode, message: str) -> EsploraFault:
    """In Esplora's words, which its clients look for."""
    description = msgspec.json.encode({"code": int(code), "message": message}).decode()
    return EsploraFault(400, f"sendrawtransaction RPC error: {description}")


async def _fault_response(_request: Request, fault: Exception) -> Response:
    status = fault.status if isinstance(fault, EsploraFault) else 500
    return PlainTextResponse(str(fault), status_code=status)


def _json(content: Any) -> Response:
    return Response(msgspec.json.encode(content), media_type="application/json")


def _hash(text: str) -> bytes:
    try:
        return hash_from_hex(text)
    except MalformedError as error:
        raise EsploraFault(400, "Invalid hex string") from error


def _script_hash(text: str) -> bytes:
    try:
        digest = bytes.fromhex(text)
    except ValueError as error:
        raise EsploraFault(400, "Invalid hex string") from error
    if len(digest) != HASH_SIZE:
        raise EsploraFault(400, "A script hash has 64 digits")
    return digest


def _height(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 15:
        raise EsploraFault(400, "Invalid height")
    return int(text)


def _block_json(header: Header, size: int, transaction_count: int) -> Json:
    """Proof of work has no meaning here: its fields are zero."""
    return {
        "id": hash_to_hex(header.hash),
        "height": header.height,
        "version": header.version,
        "timestamp": header.time_seconds,
        "tx_count": transaction_count,
        "size": size,
        "weight": 4 * size,
        "merkle_root": header.body_root.hex(),
        "previousblockhash": hash_to_hex(header.parent) if header.height else None,
        "mediantime": header.time_seconds,
        "nonce": 0,
        "bits": 0,
        "difficulty": 0,
    }


def _transaction_json(found: FoundTransaction, network: Network) -> Generator[None, None, Json]:
    transaction = found.transaction
    pairs = zip(transaction.inputs, found.spent, strict=True)
    rendered: Json = {"txid": hash_to_hex(transaction.txid)}
    yield
    rendered |= {
        "version": transaction.version,
        "locktime": transaction.locktime,
        "size": len(transaction.serialize()),
        "weight": transaction.weight,
        "fee": found.fee_sats,
    }
    rendered["vin"] = yield from each(pairs, lambda pair: _input_json(*pair, network))
    rendered["vout"] = yield from each(transaction.outputs, lambda output: _output_json(output, network))
    return rendered


def _input_json(item: TxIn, spent: TxOut | None, network: Network) -> Json:
    """prevout: null for the input of a claim or a refund, which spends no output of this chain."""
    return {
        "txid": hash_to_hex(item.outpoint.txid),
        "vout": item.outpoint.vout,
        "prevout": None if spent is None else _output_json(spent, network),
        "scriptsig": item.script_sig.hex(),
        "witness": [element.hex() for element in item.witness],
        "is_coinbase": False,
        "sequence": item.sequence,
    }


def _output_json(output: TxOut, network: Network) -> Json:
    return {**esplora_script_json(output.script, network), "value": output.value_sats}
