"""The JSON-RPC dispatcher: both versions, batches, errors and their numbers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import MalformedError, Reason, Rejected
from pegnode.errors import Refusal
from pegnode.rpc.errors import RpcCode, RpcError
from pegnode.rpc.jsonrpc import MAX_BATCH_REQUESTS, HttpReply, handle
from pegnode.rpc.methods.table import MethodTable
from pegnode.rpc.node_api import NodeApi, NodeUnavailable, UnavailableReason
from pegnode.storage.errors import StorageError, StorageReason
from tests.support.rpc_node import FakeNode


class SomeReason(Reason):
    """A rule."""

    BROKEN = "some-rule-broken"


async def echo(_node: NodeApi, text: str, times: int = 1, loud: bool = False) -> str:
    """Say it again.

    More about that.
    """
    return " ".join([text.upper() if loud else text] * times)


async def total(_node: NodeApi, numbers: list[int], start: int | None = None) -> int:
    """Add up."""
    return sum(numbers, start or 0)


async def fail(_node: NodeApi, how: str) -> None:
    """Go wrong."""
    raise {
        "rejected": Rejected(SomeReason.BROKEN, "detail"),
        "refusal": Refusal(SomeReason.BROKEN, "detail"),
        "rpc": RpcError(RpcCode.INVALID_PARAMETER, "said no", {"reason": "because"}),
        "l1": NodeUnavailable(UnavailableReason.L1_UNREACHABLE, "no answer"),
        "syncing": NodeUnavailable(UnavailableReason.SYNCING),
        "malformed": MalformedError("bad bytes"),
        "storage": StorageError(StorageReason.DAMAGED, "move it away"),
        "bug": KeyError("a secret"),
    }[how]


TABLE = MethodTable((("first", (echo, total)), ("second", (fail,))))


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeNode]:
    path: Path = tmp_path_factory.mktemp("node")
    fake = FakeNode(path / "chain")
    yield fake
    fake.close()


async def send(node: FakeNode, content: object) -> HttpReply:
    """The reply to a JSON value, or to bytes as they are."""
    return await handle(node, TABLE, content if isinstance(content, bytes) else msgspec.json.encode(content))


async def answer(node: FakeNode, content: object) -> Any:
    """The decoded reply."""
    return msgspec.json.decode((await send(node, content)).body)


def modern(method: str, *params: object, **named: object) -> dict[str, object]:
    """A request of version 2.0."""
    return {"jsonrpc": "2.0", "id": "x", "method": method, "params": named or list(params)}


async def test_legacy_request_gets_result_error_and_id(node: FakeNode) -> None:
    reply = await send(node, {"id": 7, "method": "echo", "params": ["hi", 2]})
    assert reply.status == 200
    assert msgspec.json.decode(reply.body) == {"result": "hi hi", "error": None, "id": 7}


async def test_legacy_error_shows_in_the_status(node: FakeNode) -> None:
    statuses = {}
    for name, request in {
        "rejected": {"method": "fail", "params": ["rejected"]},
        "unknown": {"method": "nothing"},
        "invalid": {"params": []},
        "parse": b"{",
    }.items():
        reply = await send(node, request)
        content = msgspec.json.decode(reply.body)
        assert content["result"] is None
        statuses[name] = (reply.status, content["error"]["code"])
    assert statuses == {
        "rejected": (500, -26), "unknown": (404, -32601), "invalid": (400, -32600), "parse": (500, -32700),
    }  # fmt: skip


@pytest.mark.parametrize("body", [b'{"\xff": 1}', b"[1e99999999999999999999]", b"[" * 100_000])
async def test_body_that_is_no_json_is_a_parse_error(node: FakeNode, body: bytes) -> None:
    reply = await send(node, body)
    assert (reply.status, msgspec.json.decode(reply.body)["error"]["code"]) == (500, -32700)


async def test_id_nested_as_deep_as_can_be_read_is_refused(node: FakeNode) -> None:
    codes = set()
    for depth in range(500, 1_100):
        reply = await send(node, b'{"method": "echo", "id": ' + b"[" * depth + b"]" * depth + b"}")
        codes.add(msgspec.json.decode(reply.body)["error"]["code"])
    assert codes == {-32600, -32700}


async def test_modern_request_gets_result_or_error(node: FakeNode) -> None:
    reply = await send(node, modern("echo", "hi"))
    assert (reply.status, msgspec.json.decode(reply.body)) == (200, {"jsonrpc": "2.0", "result": "hi", "id": "x"})
    reply = await send(node, modern("nothing"))
    assert reply.status == 200
    error = {"code": -32601, "message": "Method not found"}
    assert msgspec.json.decode(reply.body) == {"jsonrpc": "2.0", "error": error, "id": "x"}


async def test_modern_null_result_is_present(node: FakeNode) -> None:
    table = MethodTable((("only", (nothing,)),))
    reply = await handle(node, table, msgspec.json.encode(modern("nothing")))
    assert msgspec.json.decode(reply.body) == {"jsonrpc": "2.0", "result": None, "id": "x"}


async def nothing(_node: NodeApi) -> None:
    """Give null."""


async def test_notification_runs_and_gets_no_reply(node: FakeNode) -> None:
    ran: list[str] = []

    async def note(_node: NodeApi, text: str) -> None:
        """Note it."""
        ran.append(text)

    table = MethodTable((("only", (note,)),))
    request = {"jsonrpc": "2.0", "method": "note", "params": ["a"]}
    assert await handle(node, table, msgspec.json.encode(request)) == HttpReply(204, b"")
    assert await handle(node, table, msgspec.json.encode([request, request])) == HttpReply(204, b"")
    assert ran == ["a", "a", "a"]
    legacy = await handle(node, table, msgspec.json.encode({"method": "note", "params": ["b"]}))
    assert legacy.status == 200


async def test_batch_is_answered_in_order_and_mixed_versions(node: FakeNode) -> None:
    reply = await send(node, [modern("echo", "a"), {"id": 2, "method": "fail", "params": ["rpc"]}, 5])
    first, second, third = msgspec.json.decode(reply.body)
    assert reply.status == 200
    assert first == {"jsonrpc": "2.0", "result": "a", "id": "x"}
    assert second == {
        "result": None,
        "error": {"code": -8, "message": "said no", "data": {"reason": "because"}},
        "id": 2,
    }
    assert third["error"]["code"] == -32600


async def test_empty_batch_is_an_empty_list(node: FakeNode) -> None:
    assert await send(node, []) == HttpReply(200, b"[]")


async def test_batch_over_the_limit_is_refused(node: FakeNode) -> None:
    assert len(await answer(node, [modern("echo", "a")] * MAX_BATCH_REQUESTS)) == MAX_BATCH_REQUESTS
    refused = await answer(node, [modern("echo", "a")] * (MAX_BATCH_REQUESTS + 1))
    assert refused["error"]["code"] == -32600


@pytest.mark.parametrize(
    "content",
    [
        1,
        None,
        "text",
        {},
        {"method": 5},
        {"method": "echo", "params": "hi"},
        {"method": "echo", "jsonrpc": "3.0"},
        {"method": "echo", "jsonrpc": 2},
        {"method": "echo", "params": ["a"], "id": "x" * 300},
    ],
)
async def test_invalid_request_is_refused(node: FakeNode, content: object) -> None:
    reply = await send(node, content)
    assert reply.status == 400
    assert msgspec.json.decode(reply.body)["error"]["code"] == -32600


@pytest.mark.parametrize(
    ("how", "code", "reason"),
    [
        ("rejected", -26, "some-rule-broken"),
        ("refusal", -26, "some-rule-broken"),
        ("rpc", -8, "because"),
        ("l1", -9, "l1-unavailable"),
        ("syncing", -10, "syncing"),
        ("malformed", -22, None),
        ("storage", -20, "storage-damaged"),
        ("bug", -32603, None),
    ],
)
async def test_failure_has_its_number_and_reason(node: FakeNode, how: str, code: int, reason: str | None) -> None:
    error = (await answer(node, modern("fail", how)))["error"]
    assert error["code"] == code
    assert error.get("data", {}).get("reason") == reason
    assert "a secret" not in error["message"]


@pytest.mark.parametrize(
    ("request_params", "code"),
    [
        (modern("echo"), -32602),
        (modern("echo", None), -32602),
        (modern("echo", "a", 1, True, 5), -32602),
        (modern("echo", "a", wrong=1) | {"params": {"text": "a", "wrong": 1}}, -8),
        (modern("echo", 5), -3),
        (modern("echo", "a", "2"), -3),
        (modern("echo", "a", 1.5), -3),
        (modern("echo", "a", True), -3),
        (modern("total", [1, "2"]), -3),
        (modern("total", {"a": 1}), -3),
    ],
)
async def test_wrong_parameters_are_refused(node: FakeNode, request_params: dict[str, object], code: int) -> None:
    assert (await answer(node, request_params))["error"]["code"] == code


async def test_parameters_by_name_and_by_default(node: FakeNode) -> None:
    assert (await answer(node, modern("echo", text="a", loud=True)))["result"] == "A"
    assert (await answer(node, modern("echo", "a", None, True)))["result"] == "A"
    assert (await answer(node, modern("total", numbers=[1, 2], start=None)))["result"] == 3
    assert (await answer(node, modern("total", [1, 2], 4)))["result"] == 7


async def test_help_lists_and_explains(node: FakeNode) -> None:
    listing = (await answer(node, modern("help")))["result"]
    assert "== first ==\necho text [times] [loud]\ntotal numbers [start]" in listing
    explained = (await answer(node, modern("help", "echo")))["result"]
    assert explained == (
        "echo text [times] [loud]\n\nSay it again.\n\nMore about that.\n\n"
        "text: text\ntimes: integer, default 1\nloud: true or false, default false"
    )
    assert (
        "numbers: list of integer\nstart: integer, optional" in (await answer(node, modern("help", "total")))["result"]
    )
    assert (await answer(node, modern("help", "nothing")))["error"]["code"] == -32601


@given(st.binary(max_size=200))
def test_any_bytes_get_a_reply(body: bytes) -> None:
    reply = trio.run(handle, None, TABLE, body)
    assert reply.status in (200, 204, 400, 404, 500)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["method", "params", "id", "x"]), inner)
    ),
    max_leaves=8,
)


@given(json_values)
def test_any_json_gets_a_reply_with_a_known_code(content: object) -> None:
    reply = trio.run(handle, None, TABLE, msgspec.json.encode(content))
    decoded = msgspec.json.decode(reply.body)
    for message in decoded if isinstance(decoded, list) else [decoded]:
        assert message["error"] is None or message["error"]["code"] in set(RpcCode)
