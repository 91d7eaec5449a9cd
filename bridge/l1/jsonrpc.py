"""JSON-RPC as bitcoind speaks it: bytes out, status and bytes in. No connection is touched here.

Versions before 28 know JSON-RPC 1.x only, where an error comes with HTTP status 400, 404 or 500 and the usual body, so
that form is used with all of them. Numbers with a point become Decimal: money never passes through a float.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NoReturn

from bridge.l1.errors import L1Reason, L1RpcError, L1Unavailable, RpcCode

JsonValue = None | bool | int | str | Decimal | list[Any] | dict[str, Any]
"""What a reply holds once parsed: never a float."""

_STATUS_OK = 200
_SERVER_ERROR = 500
_STATUSES_WITH_BODY = frozenset({_STATUS_OK, 400, 404, 500})
_STATUS_REASONS = {401: L1Reason.UNAUTHORIZED, 403: L1Reason.UNAUTHORIZED, 503: L1Reason.OVERLOADED}


@dataclass(frozen=True, slots=True)
class Call:
    """One method with its parameters by position. Amounts among them are decimal texts, never floats."""

    method: str
    parameters: tuple[object, ...] = ()


def encode_call(call: Call) -> bytes:
    """Return the request body of a single call."""
    return json.dumps(_request(call, 0)).encode()


def encode_batch(calls: Sequence[Call]) -> bytes:
    """Return the request body of a batch; the index of each call is its id."""
    return json.dumps([_request(call, index) for index, call in enumerate(calls)]).encode()


def decode_result(call: Call, status: int, body: bytes) -> JsonValue:
    """Return the result of a single call; raises L1RpcError as the node does, and L1Unavailable."""
    outcome = _outcome(call, 0, _parse(status, body))
    if isinstance(outcome, L1RpcError):
        raise outcome
    return outcome


def decode_batch(calls: Sequence[Call], status: int, body: bytes) -> list[JsonValue | L1RpcError]:
    """Return the outcome of each call of a batch, in the order of the calls; raises L1Unavailable."""
    replies = _parse(status, body)
    if isinstance(replies, dict):
        refused = _outcome(Call("batch"), replies.get("id"), replies)
        if isinstance(refused, L1RpcError):
            raise refused
    if not isinstance(replies, list) or len(replies) != len(calls):
        _bad_response("a batch is answered by a list of as many replies")
    by_id = {reply["id"]: reply for reply in replies if isinstance(reply, Mapping) and type(reply.get("id")) is int}
    return [_outcome(call, index, by_id.get(index)) for index, call in enumerate(calls)]


def _request(call: Call, request_id: int) -> dict[str, object]:
    return {"jsonrpc": "1.0", "id": request_id, "method": call.method, "params": call.parameters}


def _bad_response(detail: str) -> NoReturn:
    raise L1Unavailable(L1Reason.BAD_RESPONSE, detail)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _parse(status: int, body: bytes) -> JsonValue:
    if status in _STATUS_REASONS:
        raise L1Unavailable(_STATUS_REASONS[status], f"HTTP status {status}")
    if status not in _STATUSES_WITH_BODY:
        raise L1Unavailable(_other_reason(status), f"HTTP status {status}")
    try:
        parsed: JsonValue = json.loads(body, parse_float=Decimal, parse_constant=_refuse_constant)
    except (ValueError, RecursionError, ArithmeticError) as error:
        detail = "not JSON" if status == _STATUS_OK else f"HTTP status {status}"
        raise L1Unavailable(_other_reason(status), detail) from error
    return parsed


def _other_reason(status: int) -> L1Reason:
    return L1Reason.FAILING if status >= _SERVER_ERROR else L1Reason.BAD_RESPONSE


def _outcome(call: Call, request_id: object, reply: object) -> JsonValue | L1RpcError:
    if not isinstance(reply, dict) or "error" not in reply or "result" not in reply:
        _bad_response(f"{call.method}: not a JSON-RPC reply")
    error = reply["error"]
    if error is None:
        if reply.get("id") != request_id:
            _bad_response(f"{call.method}: the reply to another request")
        result: JsonValue = reply["result"]
        return result
    if not isinstance(error, dict) or type(error.get("code")) is not int or not isinstance(error.get("message"), str):
        _bad_response(f"{call.method}: an error without code and message")
    code, message = error["code"], error["message"]
    if code == RpcCode.IN_WARMUP or "still in the process of being indexed" in message:
        raise L1Unavailable(L1Reason.WARMING_UP, message[:100])
    return L1RpcError(call.method, code, message)
