"""Errors of the JSON-RPC edge, by the numbers that bitcoind's clients know."""

import enum

from pegnode.errors import PegnodeError


class RpcCode(enum.IntEnum):
    """Source: Bitcoin Core, rpc/protocol.h; JSON-RPC 2.0, section 5.1."""

    PARSE_ERROR = -32700
    INVALID_REQUEST = -32600
    METHOD_NOT_FOUND = -32601
    INVALID_PARAMS = -32602
    INTERNAL_ERROR = -32603
    MISC_ERROR = -1
    TYPE_ERROR = -3
    INVALID_ADDRESS_OR_KEY = -5
    """Also: nothing is known by this name."""
    INVALID_PARAMETER = -8
    NOT_CONNECTED = -9
    """The node's own Bitcoin node does not answer."""
    SYNCING = -10
    DATABASE_ERROR = -20
    DESERIALIZATION_ERROR = -22
    VERIFY_ERROR = -25
    """The transaction spends what does not exist, or is spent."""
    VERIFY_REJECTED = -26
    ALREADY_IN_CHAIN = -27


class RpcError(PegnodeError):
    """The reply to a request that can't be served. data: more about it, for programs."""

    def __init__(self, code: RpcCode, message: str, data: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data
