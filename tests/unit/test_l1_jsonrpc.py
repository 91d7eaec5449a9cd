"""JSON-RPC replies: results, the node's refusals, and everything that is neither."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.l1.errors import L1Reason, L1RpcError, L1Unavailable
from bridge.l1.jsonrpc import Call, JsonValue, decode_batch, decode_result, encode_batch, encode_call

CALL = Call("getblockhash", (7,))


def _reply(result: object = None, error: object = None, request_id: object = 0) -> bytes:
    return json.dumps({"result": result, "error": error, "id": request_id}).encode()


def _unavailable(status: int, body: bytes) -> L1Reason:
    with pytest.raises(L1Unavailable) as caught:
        decode_result(CALL, status, body)
    return caught.value.reason


def test_request_carries_method_and_parameters() -> None:
    assert json.loads(encode_call(CALL)) == {"jsonrpc": "1.0", "id": 0, "method": "getblockhash", "params": [7]}
    assert [request["id"] for request in json.loads(encode_batch([CALL, CALL]))] == [0, 1]


def test_result_keeps_decimals_exact() -> None:
    body = b'{"result": {"value": 0.29999999, "count": 3}, "error": null, "id": 0}'
    assert decode_result(CALL, 200, body) == {"value": Decimal("0.29999999"), "count": 3}


@pytest.mark.parametrize("status", [200, 404, 500])
def test_refusal_of_the_node_carries_code_and_message(status: int) -> None:
    body = _reply(error={"code": -8, "message": "Block height out of range"})
    with pytest.raises(L1RpcError, match="out of range") as caught:
        decode_result(CALL, status, body)
    assert (caught.value.method, caught.value.code) == ("getblockhash", -8)


def test_refusal_of_the_node_is_cut_and_printable() -> None:
    with pytest.raises(L1RpcError) as caught:
        decode_result(CALL, 500, _reply(error={"code": -1, "message": "\x1b[31m\n" + "x" * 10_000}))
    assert caught.value.message.isprintable()
    assert len(caught.value.message) == 300


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (401, b"", L1Reason.UNAUTHORIZED),
        (403, b"", L1Reason.UNAUTHORIZED),
        (503, b"Work queue depth exceeded", L1Reason.OVERLOADED),
        (302, _reply(1), L1Reason.BAD_RESPONSE),
        (500, _reply(error={"code": -28, "message": "Loading block index"}), L1Reason.WARMING_UP),
        (
            500,
            _reply(error={"code": -5, "message": "Blockchain transactions are still in the process of being indexed"}),
            L1Reason.WARMING_UP,
        ),
        (200, b"", L1Reason.BAD_RESPONSE),
        (200, b"<html>", L1Reason.BAD_RESPONSE),
        (200, b"\xff\xfe\x00", L1Reason.BAD_RESPONSE),
        (200, b"[" * 100_000, L1Reason.BAD_RESPONSE),
        (200, b"1" * 10_000, L1Reason.BAD_RESPONSE),
        (200, b"[1]", L1Reason.BAD_RESPONSE),
        (200, b'{"result": 1}', L1Reason.BAD_RESPONSE),
        (200, b'{"result": NaN, "error": null, "id": 0}', L1Reason.BAD_RESPONSE),
        (200, b'{"result": 1e999999999999999999999, "error": null, "id": 0}', L1Reason.BAD_RESPONSE),
        (200, _reply(1, request_id=1), L1Reason.BAD_RESPONSE),
        (200, _reply(error="no"), L1Reason.BAD_RESPONSE),
        (200, _reply(error={"code": "-8", "message": "x"}), L1Reason.BAD_RESPONSE),
        (200, _reply(error={"code": True, "message": "x"}), L1Reason.BAD_RESPONSE),
    ],
)
def test_reply_that_answers_nothing_is_unavailable(status: int, body: bytes, reason: L1Reason) -> None:
    assert _unavailable(status, body) == reason


@given(status=st.sampled_from([200, 204, 401, 404, 500, 503]), body=st.binary(max_size=64))
def test_arbitrary_bytes_never_pass_for_a_result(status: int, body: bytes) -> None:
    assert _unavailable(status, body) in L1Reason


def test_batch_is_put_back_in_the_order_of_the_calls() -> None:
    body = json.dumps(
        [
            {"result": "second", "error": None, "id": 1},
            {"result": None, "error": {"code": -5, "message": "no"}, "id": 2},
            {"result": "first", "error": None, "id": 0},
        ]
    ).encode()
    first, second, third = decode_batch([CALL, CALL, CALL], 200, body)
    assert (first, second) == ("first", "second")
    assert isinstance(third, L1RpcError)
    assert third.code == -5


@pytest.mark.parametrize(
    "replies",
    [
        [{"result": 1, "error": None, "id": 0}],
        [{"result": 1, "error": None, "id": 0}, {"result": 1, "error": None, "id": 0}],
        [{"result": 1, "error": None, "id": 0}, 5],
        [{"result": 1, "error": None, "id": 0}, {"result": 1, "error": None, "id": []}],
        "text",
    ],
)
def test_batch_with_missing_replies_is_a_bad_response(replies: JsonValue) -> None:
    with pytest.raises(L1Unavailable) as caught:
        decode_batch([CALL, CALL], 200, json.dumps(replies).encode())
    assert caught.value.reason == L1Reason.BAD_RESPONSE


def test_batch_refused_as_a_whole_is_the_nodes_refusal() -> None:
    with pytest.raises(L1RpcError) as caught:
        decode_batch([CALL, CALL], 500, _reply(error={"code": -32700, "message": "Parse error"}, request_id=None))
    assert caught.value.code == -32700


def test_batch_during_warm_up_is_unavailable() -> None:
    body = json.dumps([{"result": None, "error": {"code": -28, "message": "Starting"}, "id": 0}]).encode()
    with pytest.raises(L1Unavailable) as caught:
        decode_batch([CALL], 200, body)
    assert caught.value.reason == L1Reason.WARMING_UP
