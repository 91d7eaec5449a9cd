"""The client for the command line: results as types, and one line for each thing that can go wrong."""

import base64
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from pegnode.rpc.client import ClientReason, RpcClient, RpcClientError, RpcRefused
from pegnode.rpc.cookie import Credentials
from pegnode.rpc.results import AnchorReply
from tests.support.canned_http import CannedServer, canned_server, http_response

PATIENCE_SECONDS = 60.0


@pytest.fixture
def cookie(tmp_path: Path) -> Path:
    path = tmp_path / ".cookie"
    Credentials("__cookie__", "secret").write(path)
    return path


async def in_thread(
    server: CannedServer, cookie: Path, use: Callable[[RpcClient], Any], timeout_seconds: float = PATIENCE_SECONDS
) -> Any:
    """What `use` returns, in a thread, as the command line is one."""

    def run() -> Any:
        with RpcClient(server.url, cookie, timeout_seconds=timeout_seconds) as client:
            return use(client)

    return await trio.to_thread.run_sync(run)


async def failure(
    answer: Callable[[bytes], bytes | None], cookie: Path, timeout_seconds: float = PATIENCE_SECONDS
) -> RpcClientError:
    """What a call raises when the server answers so."""
    async with canned_server(answer) as server:
        with pytest.raises(RpcClientError) as caught:
            await in_thread(server, cookie, lambda client: client.call("getblockcount"), timeout_seconds)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)
    return caught.value


def replies(content: object, status: int = 200) -> Callable[[bytes], bytes]:
    """A server that always answers with this JSON."""
    return lambda _request: http_response(status, msgspec.json.encode(content))


async def test_call_sends_the_cookie_and_gives_the_result(cookie: Path) -> None:
    async with canned_server(replies({"jsonrpc": "2.0", "result": {"height": 5}, "id": 1})) as server:
        result = await in_thread(server, cookie, lambda client: client.call("gettip", 1, "a"))
    assert result == {"height": 5}
    [request] = server.requests
    headers, _, body = request.partition(b"\r\n\r\n")
    assert b"Basic " + base64.b64encode(b"__cookie__:secret") in headers
    assert msgspec.json.decode(body) == {"jsonrpc": "2.0", "id": 1, "method": "gettip", "params": [1, "a"]}


async def test_named_parameters_are_sent_by_name(cookie: Path) -> None:
    async with canned_server(replies({"result": None})) as server:
        result = await in_thread(server, cookie, lambda client: client.call("method", count=2))
    assert result is None
    assert b'"params":{"count":2}' in server.requests[0]


async def test_ask_gives_a_type(cookie: Path) -> None:
    content = {"result": {"height": 5, "hash": "aa", "more": "of a later release"}}
    async with canned_server(replies(content)) as server:
        result = await in_thread(server, cookie, lambda client: client.ask(AnchorReply, "getanchor"))
    assert result == AnchorReply(5, "aa")


async def test_cookie_is_read_for_each_call(cookie: Path) -> None:
    async with canned_server(replies({"result": 1})) as server:
        client = RpcClient(server.url, cookie)
        await trio.to_thread.run_sync(partial(client.call, "one"))
        Credentials("__cookie__", "renewed").write(cookie)
        await trio.to_thread.run_sync(partial(client.call, "two"))
        client.close()
    assert base64.b64encode(b"__cookie__:renewed") in server.requests[1]


@pytest.mark.parametrize("status", [200, 500])
async def test_refusal_of_the_node_carries_code_and_reason(cookie: Path, status: int) -> None:
    error = {"code": -26, "message": "too little", "data": {"reason": "pool-feerate"}}
    refused = await failure(replies({"error": error, "result": None, "id": 1}, status), cookie)
    assert isinstance(refused, RpcRefused)
    assert (refused.reason, refused.code, refused.refusal) == (ClientReason.REFUSED, -26, "pool-feerate")
    assert str(refused) == "too little"
    plain = await failure(replies({"error": {"code": -1, "message": "no"}}), cookie)
    assert isinstance(plain, RpcRefused)
    assert plain.refusal == ""


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'{"error": {"message": "no code"}}', b"5", b'{"result": "\xff"}']
)
async def test_other_answer_is_no_node(cookie: Path, body: bytes) -> None:
    error = await failure(lambda _request: http_response(200, body), cookie)
    assert error.reason is ClientReason.BAD_REPLY


async def test_result_of_another_type_is_no_node_of_this_release(cookie: Path) -> None:
    async with canned_server(replies({"result": {"height": "five", "hash": "aa"}})) as server:
        with pytest.raises(RpcClientError) as caught:
            await in_thread(server, cookie, lambda client: client.ask(AnchorReply, "getanchor"))
    assert caught.value.reason is ClientReason.BAD_REPLY


async def test_wrong_cookie_is_told(cookie: Path) -> None:
    error = await failure(lambda _request: http_response(401, b""), cookie)
    assert error.reason is ClientReason.UNAUTHORIZED


async def test_silent_node_is_a_timeout(cookie: Path) -> None:
    error = await failure(lambda _request: None, cookie, timeout_seconds=0.2)
    assert error.reason is ClientReason.TIMEOUT


def test_absent_node_is_unreachable(cookie: Path) -> None:
    with socket.socket() as placeholder:
        placeholder.bind(("127.0.0.1", 0))
        port = placeholder.getsockname()[1]
        with RpcClient(f"http://127.0.0.1:{port}", cookie) as client, pytest.raises(RpcClientError) as caught:
            client.call("getblockcount")
    assert caught.value.reason is ClientReason.NODE_UNREACHABLE


async def test_broken_connection_is_unreachable(cookie: Path) -> None:
    error = await failure(lambda _request: b"HTTP/1.1 200 X\r\nContent-Length: 50\r\n\r\n{", cookie)
    assert error.reason in (ClientReason.NODE_UNREACHABLE, ClientReason.TIMEOUT)


@pytest.mark.parametrize("content", [None, b"", b"\xff"])
def test_missing_or_malformed_cookie_is_told(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / ".cookie"
    if content is not None:
        path.write_bytes(content)
    with RpcClient("http://127.0.0.1:9", path) as client, pytest.raises(RpcClientError) as caught:
        client.call("getblockcount")
    assert caught.value.reason is ClientReason.NO_COOKIE
