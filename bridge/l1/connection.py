"""One Bitcoin node's JSON-RPC over HTTP, with credentials, a deadline and a bound on what is read."""

from collections.abc import Sequence
from types import TracebackType
from typing import Self

import httpx
import trio

from bridge.l1.credentials import Credentials
from bridge.l1.errors import L1Reason, L1RpcError, L1Unavailable
from bridge.l1.jsonrpc import Call, JsonValue, decode_batch, decode_result, encode_batch, encode_call

MAX_RESPONSE_BYTES = 32_000_000
"""A block of 4 MB in hex is 8 MB; a batch may hold some."""
MAX_CONNECTIONS = 8
"""Requests at one time: bitcoind has 16 threads for all its clients, and refuses above a queue of 64."""

_UNAUTHORIZED = 401
_CLOSED_UNANSWERED = "Server disconnected"
"""How httpx begins to say that the connection ended before the end of an answer's head."""


class L1Connection:
    """The way to one node. Requests may be made at the same time by several tasks.

    No connection is kept open between requests: bitcoind closes idle ones when it likes, and a request that meets
    this may or may not have been carried out.
    """

    def __init__(
        self, url: str, auth: Credentials, timeout_s: float, max_response_bytes: int = MAX_RESPONSE_BYTES
    ) -> None:
        """Prepare; nothing is sent.

        url: http://host:port, no credentials within.  timeout_s: for a whole request.
        Raises L1Unavailable(BAD_URL).
        """
        self._url = _checked_url(url)
        self._auth = auth
        self._secret: tuple[str, str] | None = None
        self._timeout_s = timeout_s
        self._max_response_bytes = max_response_bytes
        self._http = httpx.AsyncClient(
            headers={"Content-Type": "application/json", "Accept-Encoding": "identity"},
            limits=httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=0),
            timeout=httpx.Timeout(None),  # one deadline for the whole request is kept below
            trust_env=False,  # a proxy set for the web has no business between a node and its Bitcoin node
        )

    @property
    def url(self) -> str:
        """Where the node is, without credentials."""
        return str(self._url)

    async def aclose(self) -> None:
        """Give the connections back."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def call(
        self, call: Call, *, timeout_s: float | None = None, path: str = "/", max_response_bytes: int | None = None
    ) -> JsonValue:
        """Return the result of one call; raises L1RpcError and L1Unavailable.

        path: "/", or "/wallet/<name>" for a wallet's own methods.  max_response_bytes: of this call alone.
        """
        status, body = await self._post(encode_call(call), timeout_s, path, max_response_bytes)
        return decode_result(call, status, body)

    async def batch(self, calls: Sequence[Call], *, timeout_s: float | None = None) -> list[JsonValue | L1RpcError]:
        """Return the outcome of each call, in order, from one request; raises L1Unavailable when there are none."""
        if not calls:
            return []
        status, body = await self._post(encode_batch(calls), timeout_s, "/")
        return decode_batch(calls, status, body)

    async def _post(
        self, body: bytes, timeout_s: float | None, path: str, max_bytes: int | None = None
    ) -> tuple[int, bytes]:
        """Return HTTP status and body. A cookie that the node refuses is read again once: it may have restarted."""
        try:
            with trio.fail_after(self._timeout_s if timeout_s is None else timeout_s):
                secret = self._secret or await self._credentials()
                status, response = await self._post_once(body, secret, path, max_bytes)
                if status == _UNAUTHORIZED and (fresh := self._auth.read()) != secret:
                    secret = fresh
                    status, response = await self._post_once(body, secret, path, max_bytes)
        except trio.TooSlowError as error:
            raise L1Unavailable(L1Reason.TIMEOUT, "no complete answer in time") from error
        except httpx.RemoteProtocolError as error:
            if str(error).startswith(_CLOSED_UNANSWERED):  # as a tunnel does whose other end finds nobody
                raise L1Unavailable(L1Reason.UNREACHABLE, f"{self.url} closes connections unanswered") from error
            raise L1Unavailable(L1Reason.BAD_RESPONSE, "not an HTTP response") from error
        except httpx.TransportError as error:
            connected = not isinstance(error, httpx.ConnectError)
            detail = f"the connection to {self.url} broke" if connected else f"no connection to {self.url}"
            raise L1Unavailable(L1Reason.UNREACHABLE, detail) from error
        self._secret = None if status == _UNAUTHORIZED else secret
        return status, response

    async def _credentials(self) -> tuple[str, str]:
        """Read them. Where there are none, a node that does not run is the likelier cause, and is named instead."""
        try:
            return self._auth.read()
        except L1Unavailable:
            await self._post_once(b"", None, "/")  # fails in its own way if nobody listens
            raise

    async def _post_once(
        self, body: bytes, secret: tuple[str, str] | None, path: str, max_bytes: int | None = None
    ) -> tuple[int, bytes]:
        url = self._url.join(path)
        most = max_bytes or self._max_response_bytes
        auth = None if secret is None else httpx.BasicAuth(*secret)
        async with self._http.stream("POST", url, content=body, auth=auth) as response:
            received = bytearray()
            async for chunk in response.aiter_raw():
                received += chunk
                if len(received) > most:
                    detail = f"more than {most} bytes"
                    raise L1Unavailable(L1Reason.BAD_RESPONSE, detail)
            return response.status_code, bytes(received)


def _checked_url(url: str) -> httpx.URL:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise L1Unavailable(L1Reason.BAD_URL, "not of the form http://host:port") from error
    if parsed.scheme not in ("http", "https") or not parsed.host or parsed.userinfo or parsed.path != "/":
        raise L1Unavailable(L1Reason.BAD_URL, "not of the form http://host:port, without user and password")
    return parsed
