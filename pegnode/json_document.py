"""JSON files that people can read and programs sign or judge: each document has one form but for white space."""

from typing import TypeVar

import msgspec

from bridge.errors import MalformedError

T = TypeVar("T")


def render_json(document: object) -> bytes:
    """The file of a document: a msgspec struct, dataclass or builtin."""
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def parse_json(data: bytes, kind: type[T]) -> T:
    """The document in a file, in whatever form. Raises MalformedError."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedError(str(error)) from error


def require_form(data: bytes, document: object) -> None:
    """Raise MalformedError unless a file says this document and nothing else, in the one form."""
    if b"".join(data.split()) != b"".join(render_json(document).split()):
        raise MalformedError("a field too much, twice, out of order or written otherwise, or words not its own")
