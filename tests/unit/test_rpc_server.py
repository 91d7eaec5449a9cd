"""The edge of the HTTP server: who may ask, from where, and how much."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from pegnode.rpc.body import MAX_RPC_BODY_BYTES
from pegnode.rpc.cookie import Credentials
from pegnode.rpc.server import ServerConfig, ServerError, ServerReason, create_app
from tests.support.rpc_node import FakeNode

CREDENTIALS = Credentials("user", "secret")
REQUEST = b'{"id":1,"method":"getblockcount"}'


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeNode]:
    fake = FakeNode(tmp_path_factory.mktemp("node") / "chain")
    yield fake
    fake.close()


@pytest.fixture
async def web(node: FakeNode) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=create_app(node, CREDENTIALS))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:18900") as client:
        yield client


async def post(web: httpx.AsyncClient, password: str = "secret", **headers: str) -> httpx.Response:
    return await web.post("/", content=REQUEST, auth=("user", password), headers=headers)


async def test_right_cookie_is_served(web: httpx.AsyncClient) -> None:
    response = await post(web)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {"result": 0, "error": None, "id": 1}


async def test_wrong_or_missing_cookie_is_refused(web: httpx.AsyncClient) -> None:
    wrong, missing = await post(web, "guess"), await web.post("/", content=REQUEST)
    for response in (wrong, missing):
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == 'Basic realm="jsonrpc"'
        assert response.content == b""


async def test_only_post_is_served_at_the_root(web: httpx.AsyncClient) -> None:
    assert (await web.get("/")).status_code == 405


async def test_rest_needs_no_cookie(web: httpx.AsyncClient) -> None:
    assert (await web.get("/blocks/tip/height")).text == "0"


async def test_body_over_the_limit_is_refused_before_it_is_read(web: httpx.AsyncClient) -> None:
    announced = await web.post("/", content=b" " * (MAX_RPC_BODY_BYTES + 1), auth=("user", "secret"))
    assert announced.status_code == 413
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1_000_000
            yield b" " * 1_000_000

    streamed = await web.post("/", content=endless(), auth=("user", "secret"))
    assert streamed.status_code == 413
    assert sent <= MAX_RPC_BODY_BYTES + 2_000_000


async def test_body_at_the_limit_is_read(web: httpx.AsyncClient) -> None:
    response = await web.post("/", content=REQUEST.ljust(MAX_RPC_BODY_BYTES), auth=("user", "secret"))
    assert response.status_code == 200


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:18900", "localhost", "LOCALHOST:1", "[::1]", "[::1]:18900", "127.9.9.9:1"]
)
async def test_host_of_this_machine_is_served(web: httpx.AsyncClient, host: str) -> None:
    assert (await post(web, host=host)).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "evil.example:18900",
        "127.0.0.1.evil.example",
        "localhost.evil",
        "10.0.0.1",
        "[::2]",
        "0.0.0.0",
    ],
)
async def test_rebound_host_is_refused(web: httpx.AsyncClient, host: str) -> None:
    for path in ("/", "/blocks/tip/height", "/tx"):
        response = await web.post(path, content=REQUEST, auth=("user", "secret"), headers={"host": host})
        assert response.status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "http://127.0.0.1:3000"},
        {"origin": "https://127.0.0.1:18900"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
async def test_page_of_another_origin_is_refused(web: httpx.AsyncClient, headers: dict[str, str]) -> None:
    assert (await post(web, **headers)).status_code == 403
    assert (await web.get("/blocks/tip/height", headers=headers)).status_code == 403
    assert (await web.post("/tx", content=b"00", headers=headers)).status_code == 403


@pytest.mark.parametrize(
    "headers", [{"origin": "http://127.0.0.1:18900"}, {"sec-fetch-site": "same-origin"}, {"sec-fetch-site": "none"}]
)
async def test_page_of_the_same_origin_is_served(web: httpx.AsyncClient, headers: dict[str, str]) -> None:
    assert (await post(web, **headers)).status_code == 200


@pytest.mark.parametrize(
    ("host", "bind"), [("127.0.0.1", "127.0.0.1:5"), ("::1", "[::1]:5"), ("127.1.2.3", "127.1.2.3:5")]
)
def test_loopback_address_is_bound(tmp_path: Path, host: str, bind: str) -> None:
    assert ServerConfig(tmp_path / ".cookie", host, 5).bind() == bind


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.1", "example.org", "localhost", ""])
def test_other_address_is_refused(tmp_path: Path, host: str) -> None:
    with pytest.raises(ServerError) as caught:
        ServerConfig(tmp_path / ".cookie", host).bind()
    assert caught.value.reason is ServerReason.NOT_LOOPBACK
