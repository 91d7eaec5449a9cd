"""A proxy between one member and its Bitcoin node, through which a test lets that node fail in every way it likes.

It speaks HTTP with threads of its own, since functional tests block. What the member sends is checked against the
proxy's own credentials, and goes to the Bitcoin node with that node's cookie.
"""

import base64
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

from pegnode.bitcoind import RegtestBitcoind
from pegnode.plain_http import no_authorities
from pegnode.ports import free_ports

USER = "proxy"
HUGE_BYTES = 40_000_000
"""More than a client reads of one answer."""

Answer = tuple[int, bytes]
"""HTTP status and body."""
Fault = Callable[["Exchange"], Answer | None]
"""What happens to a request instead of being passed on. None: the connection is closed without an answer."""


@dataclass
class Exchange:
    """One request. calls: what it asks, one or, in a batch, several.  stop: set when the fault ends."""

    proxy: "L1Proxy"
    body: bytes
    stop: threading.Event

    @property
    def calls(self) -> list[dict[str, Any]]:
        """The JSON-RPC requests."""
        parsed = json.loads(self.body or b"[]")
        return parsed if isinstance(parsed, list) else [parsed]

    def forward(self) -> Answer:
        """What the Bitcoin node answers."""
        return self.proxy.ask(self.body)


@dataclass
class L1Proxy:
    """Where it listens, and the node behind it."""

    upstream: RegtestBitcoind
    password: str = "first"
    port: int = field(default_factory=lambda: free_ports(1)[0])
    _failing: tuple[Fault, threading.Event] | None = None
    """What goes wrong at present, and what is set when that ends."""
    _server: ThreadingHTTPServer | None = None
    _http: httpx.Client = field(
        default_factory=lambda: httpx.Client(
            timeout=30, trust_env=False, verify=no_authorities(), limits=httpx.Limits(max_keepalive_connections=0)
        )
    )

    @property
    def url(self) -> str:
        """For the member's configuration."""
        return f"http://127.0.0.1:{self.port}"

    def ask(self, body: bytes) -> Answer:
        """Pass a request on."""
        user, _, password = self.upstream.cookie_path.read_text().partition(":")
        reply = self._http.post(self.upstream.url, content=body, auth=(user, password))
        return reply.status_code, reply.content

    @contextmanager
    def failing(self, fault: Fault) -> Iterator[None]:
        """Let every request meet with `fault` for as long as this lasts."""
        stop = threading.Event()
        self._failing = fault, stop
        try:
            yield
        finally:
            self._failing = None
            stop.set()

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Refuse connections for as long as this lasts."""
        self._end()
        try:
            yield
        finally:
            self._begin()

    @contextmanager
    def leading_to(self, upstream: RegtestBitcoind) -> Iterator[None]:
        """Have another node behind it for as long as this lasts."""
        before, self.upstream = self.upstream, upstream
        try:
            yield
        finally:
            self.upstream = before

    def exchange(self, handler: BaseHTTPRequestHandler) -> None:
        """Serve one request."""
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        expected = base64.b64encode(f"{USER}:{self.password}".encode()).decode()
        if handler.headers.get("Authorization") != f"Basic {expected}":
            _respond(handler, (401, b""))
            return
        failing = self._failing  # read once: it may change at any time
        answer = self.ask(body) if failing is None else failing[0](Exchange(self, body, failing[1]))
        if answer is None:
            handler.connection.shutdown(socket.SHUT_RDWR)
        else:
            _respond(handler, answer)

    def _begin(self) -> None:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                try:
                    proxy.exchange(self)
                except (OSError, httpx.HTTPError):
                    self.close_connection = True

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True

        self._server = Server(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def _end(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


def _respond(handler: BaseHTTPRequestHandler, answer: Answer) -> None:
    status, body = answer
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


@contextmanager
def l1_proxy(upstream: RegtestBitcoind) -> Iterator[L1Proxy]:
    """A proxy to a node, ended with the block."""
    proxy = L1Proxy(upstream)
    proxy._begin()
    try:
        yield proxy
    finally:
        proxy._end()
        proxy._http.close()


def lead_through(proxy: L1Proxy, config: Path) -> Path:
    """Have a member's configuration name the proxy, and a file with its password; that file."""
    password_file = config.parent / "l1-password"
    password_file.write_text(proxy.password)
    text = re.sub(r"^url = .*$", f'url = "{proxy.url}"', config.read_text(), count=1, flags=re.MULTILINE)
    login = f'user = "{USER}"\npassword_file = "{password_file}"'
    config.write_text(re.sub(r"^cookie_file = .*$", login, text, count=1, flags=re.MULTILINE))
    return password_file


# What may go wrong


def silent(exchange: Exchange) -> Answer | None:
    """No answer, for as long as the fault lasts."""
    exchange.stop.wait()
    return None


def slow(delay_s: float) -> Fault:
    """Every answer comes late."""

    def answer(exchange: Exchange) -> Answer | None:
        exchange.stop.wait(delay_s)
        return exchange.forward()

    return answer


def canned(status: int, body: bytes) -> Fault:
    """Every request is answered alike."""
    return lambda _: (status, body)


def dropped(_: Exchange) -> Answer | None:
    """The connection is closed without an answer."""
    return None


def cut_short(exchange: Exchange) -> Answer | None:
    """Half of the answer, which then is no JSON."""
    status, body = exchange.forward()
    return status, body[: len(body) // 2]


def rpc_error(code: int, message: str) -> Fault:
    """Every call is refused by JSON-RPC."""

    def answer(exchange: Exchange) -> Answer | None:
        replies = [
            {"result": None, "error": {"code": code, "message": message}, "id": call["id"]} for call in exchange.calls
        ]
        return 500, json.dumps(replies if exchange.body.startswith(b"[") else replies[0]).encode()

    return answer


class Frozen:
    """What was answered once is answered for ever."""

    def __init__(self) -> None:
        self._answers: dict[bytes, Answer] = {}

    def has_answered(self, method: str) -> bool:
        """Whether a call of this method has an answer that stands."""
        return any(json.loads(body)["method"] == method for body in list(self._answers) if not body.startswith(b"["))

    def __call__(self, exchange: Exchange) -> Answer | None:
        """Answer a request."""
        if exchange.body not in self._answers:
            answer = exchange.forward()
            self._answers.setdefault(exchange.body, answer)  # of two that asked at once, the first to be answered
        return self._answers[exchange.body]


def lying(tell: Callable[[str, list[Any], Any], Any]) -> Fault:
    """Each good reply is replaced: `tell` gets method, parameters and the result, and returns another result.

    A result of `NOT_FOUND` becomes that error of the node.
    """

    def answer(exchange: Exchange) -> Answer | None:
        status, body = exchange.forward()
        parsed = json.loads(body)
        replies = parsed if isinstance(parsed, list) else [parsed]
        by_id = {call["id"]: call for call in exchange.calls}
        for reply in replies:
            call = by_id[reply["id"]]
            if reply["error"] is None:
                reply["result"] = tell(call["method"], list(call["params"]), reply["result"])
            if reply["result"] is NOT_FOUND:
                reply["result"], reply["error"] = None, {"code": -5, "message": "Block not found"}
        return status, json.dumps(parsed).encode()

    return answer


class _NotFound:
    """Stands for the node's error."""


NOT_FOUND = _NotFound()
