"""The server as a process of the operating system sees it: sockets, cookie file, client, shutdown."""

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from pegnode.rpc.client import ClientReason, RpcClient, RpcClientError
from pegnode.rpc.cookie import CookieError, CookieReason, Credentials
from pegnode.rpc.results import PegInfoReply
from pegnode.rpc.server import ServerConfig, ServerError, ServerReason, serve
from tests.support.peg import p2tr
from tests.support.rpc_node import FakeNode

DEADLINE_SECONDS = 60


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[FakeNode]:
    fake = FakeNode(tmp_path / "chain")
    yield fake
    fake.close()


@asynccontextmanager
async def serving(node: FakeNode, config: ServerConfig) -> AsyncIterator[str]:
    """The URL of a server that stops in an orderly way when the block ends."""
    stop = trio.Event()
    with trio.fail_after(DEADLINE_SECONDS):
        async with trio.open_nursery() as nursery:
            url: str = await nursery.start(serve, config, node, stop)
            yield url
            stop.set()


async def ask(url: str, cookie: Path, call: Callable[[RpcClient], Any]) -> Any:
    """What the client gets, in a thread."""

    def run() -> Any:
        with RpcClient(url, cookie) as client:
            return call(client)

    return await trio.to_thread.run_sync(run)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_client_asks_a_real_server(node: FakeNode, tmp_path: Path, host: str) -> None:
    node.fund(p2tr("alice"))
    cookie = tmp_path / ".cookie"
    async with serving(node, ServerConfig(cookie, host)) as url:
        assert await ask(url, cookie, lambda client: client.call("getblockcount")) == 1
        info = await ask(url, cookie, lambda client: client.ask(PegInfoReply, "getpeginfo"))
        assert (info.equality, info.height) == (True, 1)
        async with httpx.AsyncClient() as http:
            assert (await http.get(f"{url}/blocks/tip/height")).text == "1"


async def test_cookie_lives_as_long_as_the_server(node: FakeNode, tmp_path: Path) -> None:
    cookie = tmp_path / ".cookie"
    async with serving(node, ServerConfig(cookie)) as url:
        assert cookie.stat().st_mode & 0o777 == 0o600
        first = Credentials.read(cookie)
    assert not cookie.exists()
    with pytest.raises(RpcClientError) as caught:
        await ask(url, cookie, lambda client: client.call("getblockcount"))
    assert caught.value.reason is ClientReason.NO_COOKIE
    async with serving(node, ServerConfig(cookie)):
        assert Credentials.read(cookie) != first


async def test_cookie_is_removed_when_the_node_is_cancelled(node: FakeNode, tmp_path: Path) -> None:
    cookie = tmp_path / ".cookie"
    async with trio.open_nursery() as nursery:
        await nursery.start(serve, ServerConfig(cookie), node, trio.Event())
        assert cookie.exists()
        nursery.cancel_scope.cancel()
    assert not cookie.exists()


async def test_cookie_of_another_node_is_refused(node: FakeNode, tmp_path: Path) -> None:
    other = tmp_path / "other"
    Credentials.generate().write(other)
    async with serving(node, ServerConfig(tmp_path / ".cookie")) as url:
        with pytest.raises(RpcClientError) as caught:
            await ask(url, other, lambda client: client.call("getblockcount"))
    assert caught.value.reason is ClientReason.UNAUTHORIZED


async def test_taken_port_is_told_and_leaves_no_cookie(node: FakeNode, tmp_path: Path) -> None:
    cookie = tmp_path / ".cookie"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ServerError) as caught:
            await serve(ServerConfig(cookie, port=taken.getsockname()[1]), node, trio.Event())
    assert caught.value.reason is ServerReason.ADDRESS_IN_USE
    assert not cookie.exists()


async def test_unwritable_cookie_stops_the_start(node: FakeNode, tmp_path: Path) -> None:
    with pytest.raises(CookieError) as caught:
        await serve(ServerConfig(tmp_path / "absent" / ".cookie"), node, trio.Event())
    assert caught.value.reason is CookieReason.UNREADABLE


async def test_stop_method_reaches_the_node(node: FakeNode, tmp_path: Path) -> None:
    cookie = tmp_path / ".cookie"
    async with serving(node, ServerConfig(cookie)) as url:
        assert await ask(url, cookie, lambda client: client.call("stop")) == "Pegnode stopping"
    assert node.stopped


async def test_many_clients_are_served_at_once(node: FakeNode, tmp_path: Path) -> None:
    cookie = tmp_path / ".cookie"
    results: list[int] = []

    async def one(url: str) -> None:
        results.append(await ask(url, cookie, lambda client: client.call("getblockcount")))

    async with serving(node, ServerConfig(cookie)) as url, trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(partial(one, url))
    assert results == [0] * 20


async def test_server_stops_while_a_connection_idles(node: FakeNode, tmp_path: Path) -> None:
    async with serving(node, ServerConfig(tmp_path / ".cookie")) as url:
        http = httpx.AsyncClient()
        assert (await http.get(f"{url}/blocks/tip/height")).status_code == 200
    await http.aclose()
