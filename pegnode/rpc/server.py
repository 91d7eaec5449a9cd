"""The HTTP server: JSON-RPC at POST /, Esplora-style REST below it, on a loopback address only.

A browser on this machine must not become the arm of a web page elsewhere: requests whose Host is not this machine
(DNS rebinding) or that a page of another origin sent are refused before anything looks at them.
"""

import ipaddress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import trio
from fastapi import FastAPI, Request, Response
from hypercorn.config import Config
from hypercorn.trio import serve as hypercorn_serve
from hypercorn.typing import ASGIFramework
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from bridge.errors import Reason
from pegnode.errors import ReasonedError
from pegnode.rpc.body import MAX_RPC_BODY_BYTES, BodyTooLarge, read_body
from pegnode.rpc.cookie import Credentials
from pegnode.rpc.esplora import add_esplora
from pegnode.rpc.jsonrpc import handle
from pegnode.rpc.methods.audit import AUDIT_METHODS
from pegnode.rpc.methods.chain import CHAIN_METHODS
from pegnode.rpc.methods.control import CONTROL_METHODS
from pegnode.rpc.methods.equivocations import EQUIVOCATION_METHODS
from pegnode.rpc.methods.mempool import MEMPOOL_METHODS
from pegnode.rpc.methods.peg import PEG_METHODS
from pegnode.rpc.methods.records import RECORD_METHODS
from pegnode.rpc.methods.table import MethodTable
from pegnode.rpc.methods.withdrawals import WITHDRAWAL_METHODS
from pegnode.rpc.node_api import NodeApi

if TYPE_CHECKING:
    from trio_typing import TaskStatus  # a dependency of libp2p brings stubs of trio that lack trio.TaskStatus

GRACEFUL_SECONDS = 2.0
"""For requests under way when the node stops."""
KEEP_ALIVE_SECONDS = 60.0


class ServerReason(Reason):
    """Why the server does not start."""

    NOT_LOOPBACK = "rpc-not-loopback"  # It would listen on another address than the loopback's.
    ADDRESS_IN_USE = "rpc-address-in-use"  # The address can't be listened on, most often because another process does.


class ServerError(ReasonedError):
    """The server does not start."""

    reason: ServerReason


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Where to listen, and where the cookie goes. port: 0 for any free one."""

    cookie_path: Path
    host: str = "127.0.0.1"
    port: int = 0

    def bind(self) -> str:
        """The address as Hypercorn writes it; raises ServerError (NOT_LOOPBACK)."""
        try:
            address = ipaddress.ip_address(self.host)
        except ValueError as error:
            raise ServerError(ServerReason.NOT_LOOPBACK, f"{self.host} is not an IP address") from error
        if not address.is_loopback:
            detail = f"{self.host} is not a loopback address: the cookie crosses the connection in clear"
            raise ServerError(ServerReason.NOT_LOOPBACK, detail)
        return f"[{address}]:{self.port}" if address.version == 6 else f"{address}:{self.port}"


def method_table() -> MethodTable:
    """Every method of the interface."""
    return MethodTable(
        (
            ("blockchain", CHAIN_METHODS),
            ("mempool", MEMPOOL_METHODS),
            ("peg", PEG_METHODS),
            ("withdrawals", WITHDRAWAL_METHODS),
            ("audit", AUDIT_METHODS),
            ("records", RECORD_METHODS),
            ("evidence of guilt", EQUIVOCATION_METHODS),
            ("control", CONTROL_METHODS),
        )
    )


def create_app(node: NodeApi, credentials: Credentials) -> FastAPI:
    """The application. FastAPI's own pages are off: they would load scripts from elsewhere."""
    app = FastAPI(title="Pegnode", docs_url=None, redoc_url=None, openapi_url=None)
    table = method_table()

    async def json_rpc(request: Request) -> Response:
        if not credentials.allow(request.headers.get("authorization", "")):
            return Response(status_code=401, headers={"WWW-Authenticate": 'Basic realm="jsonrpc"'})
        try:
            body = await read_body(request, MAX_RPC_BODY_BYTES)
        except BodyTooLarge as error:
            return PlainTextResponse(str(error), status_code=413)
        reply = await handle(node, table, body)
        return Response(reply.body, status_code=reply.status, media_type="application/json")

    app.add_api_route("/", json_rpc, methods=["POST"])
    add_esplora(app, node)
    app.add_middleware(SameMachineGuard)
    return app


async def serve(
    config: ServerConfig,
    node: NodeApi,
    stop: trio.Event,
    *,
    task_status: "TaskStatus[str]" = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until `stop` is set, and for a moment longer what is under way.

    Reports its URL when it accepts connections. The cookie exists for as long as this runs. Raises ServerError, or
    CookieError when the cookie can't be written.
    """
    settings = _hypercorn_settings(config)
    credentials = Credentials.generate()
    app = create_app(node, credentials)
    credentials.write(config.cookie_path)
    started = False
    try:
        async with trio.open_nursery() as nursery:
            start = partial(hypercorn_serve, cast(ASGIFramework, app), settings, shutdown_trigger=stop.wait)
            urls: list[str] = await nursery.start(start)
            started = True
            task_status.started(urls[0])
    except* OSError as errors:
        if started:
            raise
        raise ServerError(ServerReason.ADDRESS_IN_USE, f"can't listen on {config.bind()}: {_first(errors)}") from errors
    finally:
        credentials.remove(config.cookie_path)


def _hypercorn_settings(config: ServerConfig) -> Config:
    settings = Config()
    settings.bind = [config.bind()]
    settings.accesslog = settings.errorlog = None
    settings.include_server_header = False
    settings.graceful_timeout = GRACEFUL_SECONDS
    settings.keep_alive_timeout = KEEP_ALIVE_SECONDS
    return settings


def _first(errors: BaseExceptionGroup) -> BaseException:
    """The first leaf of a group."""
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


class SameMachineGuard:
    """Lets through what this machine asked for itself, and answers the rest with 403."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            refusal = refused(Headers(scope=scope))
            if refusal is not None:
                await PlainTextResponse(refusal, status_code=403)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def refused(headers: Headers) -> str | None:
    """Why a request with these headers is refused, or None."""
    host = headers.get("host", "")
    if not _is_this_machine(host):
        return "The Host header does not name this machine"
    origin = headers.get("origin")
    if origin is not None and origin != f"http://{host}":
        return "Requests from pages of another origin are refused"
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return "Requests from pages of another site are refused"
    return None


def _is_this_machine(host: str) -> bool:
    """Whether a Host header, with or without a port, is `localhost` or a loopback address."""
    name = host[: host.rindex("]") + 1] if host.startswith("[") and "]" in host else host.partition(":")[0]
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False
