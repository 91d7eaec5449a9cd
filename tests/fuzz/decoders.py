"""Every decoder of the project, and what must hold of each for any bytes.

    decode(data) gives a value, or raises an error of its own layer and nothing else;
    the same bytes give the same value, or the same refusal;
    where an encoding is canonical, encode(decode(data)) == data.

`tests/fuzz/test_decoders.py` walks the sources and fails for a decoder that is not listed here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


class Finding(AssertionError):  # noqa: N818 -- an outcome of fuzzing, named as the field names it
    """A property that does not hold."""


@dataclass(frozen=True)
class Decoder:
    """One decoder. name: `module:qualified name` of what it covers.

    errors: what it may raise, and nothing else.  encode: gives back the bytes, where the encoding is canonical.
    samples: bytes that it accepts.  refused: bytes that it refuses, and that lead somewhere.
    """

    name: str
    decode: Callable[[bytes], object]
    errors: tuple[type[Exception], ...]
    samples: tuple[bytes, ...]
    encode: Callable[[Any], bytes] | None = None
    refused: tuple[bytes, ...] = ()


def check_decoder(decoder: Decoder, data: bytes) -> bool:
    """Raise Finding unless the properties hold for `data`; whether it was accepted."""
    first = _outcome(decoder, data)
    second = _outcome(decoder, data)
    if repr(first) != repr(second):
        raise Finding(f"{decoder.name}: {first!r}, then {second!r}")
    if isinstance(first, Exception):
        return False
    if decoder.encode is not None:
        encoded = decoder.encode(first)
        if encoded != data:
            raise Finding(f"{decoder.name}: {data.hex()} decodes, and encodes to {encoded.hex()}")
    return True


def _outcome(decoder: Decoder, data: bytes) -> object:
    """The value, or the refusal."""
    try:
        return decoder.decode(data)
    except decoder.errors as error:
        return error
