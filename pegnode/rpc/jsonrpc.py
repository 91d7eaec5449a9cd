"""JSON-RPC 1.0 and 2.0 in the manner of bitcoind: bytes in, an HTTP status and bytes out. No sockets.

The version of a request decides the form of its reply. 1.0: `result`, `error` and `id` always, and an HTTP status that
tells an error. 2.0: `result` or `error`, status 200, and no reply to a request without an id. A batch is a list of
requests, answered in order with status 200. Source: Bitcoin Core, doc/JSON-RPC-interface.md.
"""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import msgspec
import structlog
import trio

from bridge.errors import MalformedError, Rejected
from federation.errors import Refused
from pegnode.errors import Refusal
from pegnode.rpc.errors import RpcCode, RpcError
from pegnode.rpc.methods.table import MethodTable
from pegnode.rpc.node_api import NodeApi, NodeUnavailable, UnavailableReason
from pegnode.storage.errors import StorageError

MAX_BATCH_REQUESTS = 1_000
MAX_ID_BYTES = 256

_log = structlog.get_logger(__name__)
_decoder = msgspec.json.Decoder(float_hook=Decimal)
_UNAVAILABLE_CODES = {
    UnavailableReason.L1_UNREACHABLE: RpcCode.NOT_CONNECTED,
    UnavailableReason.L1_BEHIND: RpcCode.NOT_CONNECTED,
    UnavailableReason.SYNCING: RpcCode.SYNCING,
    UnavailableReason.L1_MOVED: RpcCode.MISC_ERROR,
    UnavailableReason.SCAN_BUSY: RpcCode.MISC_ERROR,
    UnavailableReason.NO_KEYS: RpcCode.MISC_ERROR,
    UnavailableReason.SIGNER_AWAY: RpcCode.MISC_ERROR,
}
_LEGACY_STATUS = {RpcCode.INVALID_REQUEST: 400, RpcCode.METHOD_NOT_FOUND: 404}


@dataclass(frozen=True, slots=True)
class HttpReply:
    """What to send back. body: JSON; empty with status 204."""

    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Request:
    """One well-formed request."""

    method: str
    params: list[Any] | dict[str, Any]
    request_id: Any
    modern: bool
    """JSON-RPC 2.0."""
    notification: bool
    """2.0 without an id: wants no reply."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The reply to one request."""

    message: dict[str, Any]
    status: int


async def handle(node: NodeApi, table: MethodTable, body: bytes) -> HttpReply:
    """Serve the request or the batch in `body`."""
    try:
        content = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, ArithmeticError, RecursionError):
        return _single(_failure(RpcError(RpcCode.PARSE_ERROR, "Parse error"), None, modern=False))
    if not isinstance(content, list):
        return _single(await _serve(node, table, content))
    if len(content) > MAX_BATCH_REQUESTS:
        error = RpcError(RpcCode.INVALID_REQUEST, f"A batch holds at most {MAX_BATCH_REQUESTS} requests")
        return _single(_failure(error, None, modern=False))
    answers = []
    for item in content:
        await trio.lowlevel.checkpoint()  # a thousand requests, none of which may wait for anything
        answers.append(await _serve(node, table, item))
    messages = [answer.message for answer in answers if answer is not None]
    if answers and not messages:
        return HttpReply(204, b"")
    return HttpReply(200, msgspec.json.encode(messages))


def _single(answer: Answer | None) -> HttpReply:
    if answer is None:
        return HttpReply(204, b"")
    return HttpReply(answer.status, msgspec.json.encode(answer.message))


async def _serve(node: NodeApi, table: MethodTable, content: Any) -> Answer | None:
    """The answer to one request; None to a notification."""
    try:
        request = _request(content)
    except RpcError as error:
        return _failure(error, None, modern=False)
    try:
        result = await table.call(node, request.method, request.params)
        answer = _success(result, request)
    except RpcError as error:
        answer = _failure(error, request.request_id, request.modern)
    except Exception as error:  # noqa: BLE001 -- one request must not end the server; the log has the trace
        answer = _failure(_translated(error, request.method), request.request_id, request.modern)
    return None if request.notification else answer


def _request(content: Any) -> Request:
    """The request in a decoded value; raises RpcError."""
    if not isinstance(content, dict):
        raise RpcError(RpcCode.INVALID_REQUEST, "Invalid Request object")
    version = content.get("jsonrpc", "1.0")
    if version not in ("1.0", "1.1", "2.0"):
        raise RpcError(RpcCode.INVALID_REQUEST, "JSON-RPC version not supported")
    method = content.get("method")
    if not isinstance(method, str):
        raise RpcError(RpcCode.INVALID_REQUEST, "Method must be a string" if "method" in content else "Missing method")
    params = content.get("params")
    if params is None:
        params = []
    if not isinstance(params, list | dict):
        raise RpcError(RpcCode.INVALID_REQUEST, "Params must be an array or object")
    request_id = content.get("id")
    if not _is_short(request_id):
        raise RpcError(RpcCode.INVALID_REQUEST, f"An id is at most {MAX_ID_BYTES} bytes long")
    modern = version == "2.0"
    return Request(method, params, request_id, modern, notification=modern and "id" not in content)


def _is_short(request_id: Any) -> bool:
    try:
        return len(msgspec.json.encode(request_id)) <= MAX_ID_BYTES
    except RecursionError:  # what could just be decoded may be nested too deep to be encoded from here
        return False


def _success(result: object, request: Request) -> Answer:
    if request.modern:
        return Answer({"jsonrpc": "2.0", "result": result, "id": request.request_id}, 200)
    return Answer({"result": result, "error": None, "id": request.request_id}, 200)


def _failure(error: RpcError, request_id: Any, modern: bool) -> Answer:
    description: dict[str, Any] = {"code": int(error.code), "message": error.message}
    if error.data is not None:
        description["data"] = error.data
    if modern:
        return Answer({"jsonrpc": "2.0", "error": description, "id": request_id}, 200)
    return Answer({"result": None, "error": description, "id": request_id}, _LEGACY_STATUS.get(error.code, 500))


def _translated(error: Exception, method: str) -> RpcError:
    """The verdicts of the node in the client's terms."""
    if isinstance(error, Rejected | Refused | Refusal):
        return RpcError(RpcCode.VERIFY_REJECTED, str(error), {"reason": error.reason.value})
    if isinstance(error, NodeUnavailable):
        code = _UNAVAILABLE_CODES[error.reason]
        return RpcError(code, str(error), {"reason": error.reason.value})
    if isinstance(error, MalformedError):
        return RpcError(RpcCode.DESERIALIZATION_ERROR, str(error))
    _log.error("rpc_method_failed", method=method, exc_info=error)
    if isinstance(error, StorageError):
        return RpcError(RpcCode.DATABASE_ERROR, str(error), {"reason": error.reason.value})
    return RpcError(RpcCode.INTERNAL_ERROR, f"{method} failed inside the node; its log says more")
