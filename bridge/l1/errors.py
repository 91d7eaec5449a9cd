"""Why a question to the Bitcoin node has no answer.

Two kinds: L1Unavailable says that nothing was learnt, so whoever asked waits; L1RpcError is the node's own refusal of
this one request. Neither ever holds a credential.
"""

from enum import IntEnum

from bridge.errors import BridgeError, Reason

_MESSAGE_CHARACTERS = 300


class L1Reason(Reason):
    """Why the node can't be asked."""

    UNREACHABLE = "l1-unreachable"
    """No connection, or it broke."""
    TIMEOUT = "l1-timeout"
    """It did not answer in time."""
    CREDENTIALS_MISSING = "l1-credentials-missing"
    """The file with cookie or password is absent, unreadable or empty, though somebody listens at the address."""
    UNAUTHORIZED = "l1-unauthorized"
    """The node refused the credentials."""
    WARMING_UP = "l1-warming-up"
    """It is starting, or still building the transaction index."""
    OVERLOADED = "l1-overloaded"
    """Its work queue is full, or it is stopping."""
    FAILING = "l1-failing"
    """An error of the server, without a reason that it could name."""
    BAD_RESPONSE = "l1-bad-response"
    """What answered isn't a Bitcoin node's JSON-RPC, or is larger than allowed."""
    UNREAD = "l1-unread"
    """It has newer blocks than were read here, and the answer hangs on them."""
    BAD_URL = "l1-bad-url"
    """Not of the form http://host:port."""


class RpcCode(IntEnum):
    """The node's error codes that this program tells apart. Source: Bitcoin Core, rpc/protocol.h."""

    BLOCK_ABSENT = -1
    """The node has a block's header and not its body; also other errors that have no number of their own."""
    NOT_FOUND = -5
    """Also a malformed address or key."""
    INVALID_PARAMETER = -8
    MALFORMED = -22
    """Not a transaction."""
    VERIFY_ERROR = -25
    """A transaction's inputs are missing or spent."""
    VERIFY_REJECTED = -26
    """Policy or consensus refuses the transaction."""
    ALREADY_IN_CHAIN = -27
    IN_WARMUP = -28


class L1Error(BridgeError):
    """Root of what goes wrong in asking the Bitcoin node."""


class L1Unavailable(L1Error):  # noqa: N818 -- a state of the node, to be waited out
    """The node gave no usable answer: nothing is known, so nothing follows.

    reason: stable.  detail: for people; never holds a credential.
    """

    def __init__(self, reason: L1Reason, detail: str = "") -> None:
        super().__init__(f"{reason.value}: {detail}" if detail else reason.value)
        self.reason = reason
        self.detail = detail


class L1RpcError(L1Error):
    """The node understood the request and refused it.

    code: the node's own; those that matter here are in RpcCode.  message: the node's words, cut to 300 characters,
    printable.
    """

    def __init__(self, method: str, code: int, message: str) -> None:
        printable = "".join(character if character.isprintable() else " " for character in message)
        self.method = method
        self.code = code
        self.message = printable[:_MESSAGE_CHARACTERS]
        super().__init__(f"{method}: {self.message} ({code})")
