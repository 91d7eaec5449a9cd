"""Reading a request's body, and no more of it than is allowed."""

from fastapi import Request

from pegnode.chain.block import MAX_TRANSACTION_BYTES
from pegnode.errors import PegnodeError

MAX_TRANSACTION_HEX_BYTES = 2 * MAX_TRANSACTION_BYTES
MAX_RPC_BODY_BYTES = 8_000_000
"""A few transactions of the largest size, in hex."""


class BodyTooLarge(PegnodeError):  # noqa: N818 -- the client's
    """The body is longer than the limit."""


async def read_body(request: Request, limit_bytes: int) -> bytes:
    """The whole body; raises BodyTooLarge as soon as it exceeds the limit, or says that it will."""
    announced = request.headers.get("content-length", "0")
    if announced.isdecimal() and int(announced) > limit_bytes:
        raise BodyTooLarge(f"A body holds at most {limit_bytes} bytes")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit_bytes:
            raise BodyTooLarge(f"A body holds at most {limit_bytes} bytes")
    return bytes(body)
