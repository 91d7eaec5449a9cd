"""An HTTP server of one test: it answers every request with bytes of the test's choice, and keeps what it was sent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import trio

_HEADERS_END = b"\r\n\r\n"


@dataclass
class CannedServer:
    """Where it listens, and the requests that it has seen, headers included."""

    url: str
    requests: list[bytes] = field(default_factory=list)


def http_response(status: int, body: bytes) -> bytes:
    """Return a whole response with its length."""
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


@asynccontextmanager
async def canned_server(answer: Callable[[bytes], bytes | None]) -> AsyncIterator[CannedServer]:
    """Serve on a free port of 127.0.0.1 until the block ends.

    answer: from a request to the bytes sent back, whatever they are; None keeps the connection open and silent.
    """
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    server = CannedServer(f"http://127.0.0.1:{listener.socket.getsockname()[1]}")

    async def serve_one(stream: trio.SocketStream) -> None:
        async with stream:
            with suppress(trio.BrokenResourceError):  # the client may have heard enough, or have never asked
                request = await _read_request(stream)
                server.requests.append(request)
                response = answer(request)
                if response is None:
                    await trio.sleep_forever()
                else:
                    await stream.send_all(response)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve_one, [listener])
        yield server
        nursery.cancel_scope.cancel()


async def _read_request(stream: trio.SocketStream) -> bytes:
    received = b""
    while _HEADERS_END not in received:
        received += await _receive(stream)
    headers, _, body = received.partition(_HEADERS_END)
    lengths = (int(line.split(b":")[1]) for line in headers.lower().splitlines() if line.startswith(b"content-len"))
    length = next(lengths, 0)  # a GET has no body
    while len(body) < length:
        body += await _receive(stream)
    return headers + _HEADERS_END + body


async def _receive(stream: trio.SocketStream) -> bytes:
    """At least a byte. Raises trio.BrokenResourceError when the client has gone."""
    data = await stream.receive_some()
    if not data:
        raise trio.BrokenResourceError("closed by the client")
    return bytes(data)
