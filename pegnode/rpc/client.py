"""A client of the JSON-RPC interface for the command line: synchronous, one line for each thing that can go wrong."""

from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
import msgspec

from bridge.errors import Reason
from pegnode.errors import ReasonedError
from pegnode.plain_http import no_authorities
from pegnode.rpc.cookie import CookieError, Credentials

DEFAULT_TIMEOUT_SECONDS = 30.0

T = TypeVar("T")


class ClientReason(Reason):
    """Why a call gave no result."""

    NO_COOKIE = "client-no-cookie"
    """No node runs on the data directory, or it may not be read."""
    NODE_UNREACHABLE = "client-node-unreachable"  # Nothing answers where the cookie says.
    TIMEOUT = "client-timeout"  # The node did not answer in time.
    UNAUTHORIZED = "client-unauthorized"
    """The cookie is another node's."""
    BAD_REPLY = "client-bad-reply"
    """What answers is not a node of this release."""
    REFUSED = "client-refused"
    """The node answered with an error: RpcRefused."""


class RpcClientError(ReasonedError):
    """A call without a result. `str()` is one line for people."""

    reason: ClientReason

    def __str__(self) -> str:
        return self.detail


class RpcRefused(RpcClientError):  # noqa: N818 -- an answer of the node
    """The node's error. code: see RpcCode.  refusal: the stable reason of the rule that was broken, or empty."""

    def __init__(self, code: int, message: str, refusal: str) -> None:
        super().__init__(ClientReason.REFUSED, message)
        self.code = code
        self.refusal = refusal


class _Failure(msgspec.Struct):
    code: int
    message: str
    data: dict[str, str] = {}


class _Reply(msgspec.Struct):
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: _Failure | None = None


class RpcClient:
    """Calls one node. url: such as http://127.0.0.1:18900.  cookie_path: in the node's data directory."""

    def __init__(self, url: str, cookie_path: Path, *, timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS) -> None:
        self._url = url
        self._cookie_path = cookie_path
        self._http = httpx.Client(timeout=timeout_seconds, trust_env=False, verify=no_authorities())

    def call(self, method: str, /, *params: object, **named: object) -> Any:
        """The result of `method`, called with positional or with named parameters. Raises RpcClientError."""
        return self.ask(Any, method, *params, **named)

    def ask(self, reply: type[T], method: str, /, *params: object, **named: object) -> T:
        """As `call`, with the result as `reply`: a type such as those of `pegnode.rpc.results`."""
        given = named or list(params)
        body = msgspec.json.encode({"jsonrpc": "2.0", "id": 1, "method": method, "params": given})
        response = self._post(body)
        if response.status_code == httpx.codes.UNAUTHORIZED:
            detail = f"the node at {self._url} does not accept the cookie {self._cookie_path}"
            raise RpcClientError(ClientReason.UNAUTHORIZED, detail)
        try:
            answer = msgspec.json.decode(response.content, type=_Reply)
            if answer.error is not None:
                raise RpcRefused(answer.error.code, answer.error.message, answer.error.data.get("reason", ""))
            return msgspec.json.decode(answer.result, type=reply)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            detail = f"what answers at {self._url} is no node of this release (HTTP {response.status_code}, {error})"
            raise RpcClientError(ClientReason.BAD_REPLY, detail) from error

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _post(self, body: bytes) -> httpx.Response:
        try:
            credentials = Credentials.read(self._cookie_path)
        except CookieError as error:
            raise RpcClientError(ClientReason.NO_COOKIE, error.detail) from error
        try:
            return self._http.post(self._url, content=body, auth=(credentials.user, credentials.password))
        except httpx.TimeoutException as error:
            raise RpcClientError(ClientReason.TIMEOUT, f"the node at {self._url} did not answer in time") from error
        except httpx.HTTPError as error:
            raise RpcClientError(
                ClientReason.NODE_UNREACHABLE, f"no node answers at {self._url}; does its process run?"
            ) from error
