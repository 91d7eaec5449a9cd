"""The Hello: the first frame in each direction, by which both sides agree that they run the same chain. (pure)

    hello            = protocol_version  chain_id  role  software
    protocol_version = u16, little-endian
    chain_id         = 32 bytes: it commits to every genesis parameter
    role             = u8: 1 member, 2 guest; what the sender is to the federation
    software         = u32 length, little-endian, at most 64; printable ASCII

The dialler's Hello comes first. The other side answers with its own once it has checked the dialler's and admits it,
so that each knows on the other's Hello that it is welcome; else it answers with a Goodbye. Later versions may change
everything behind `protocol_version`.
"""

from dataclasses import dataclass

from bridge.codec import Reader, Writer, decode_whole
from bridge.errors import MalformedError
from pegnode.net.transport import DropReason, PeerRole, RemoteFault, TransportError

PROTOCOL_VERSION = 1
CHAIN_ID_BYTES = 32
MAX_SOFTWARE_BYTES = 64
MAX_HELLO_BYTES = 1024
"""Room for later versions, whose Hello must be readable as far as its version. Ours has at most 103 bytes."""
MAX_REASON_BYTES = 32


@dataclass(frozen=True, slots=True)
class Hello:
    """chain_id: 32 bytes. software: printable ASCII, at most 64 characters; for people, unverified."""

    chain_id: bytes
    role: PeerRole
    software: str
    protocol_version: int = PROTOCOL_VERSION

    def __post_init__(self) -> None:
        if len(self.chain_id) != CHAIN_ID_BYTES:
            raise TransportError(f"a chain id of {len(self.chain_id)} bytes; it has {CHAIN_ID_BYTES}")
        if len(self.software) > MAX_SOFTWARE_BYTES or not _is_printable_ascii(self.software):
            raise TransportError(f"{self.software!r} is not printable ASCII of at most {MAX_SOFTWARE_BYTES} characters")


def encode_hello(hello: Hello) -> bytes:
    """The payload of a HELLO frame."""
    writer = Writer().u16(hello.protocol_version).fixed(hello.chain_id, CHAIN_ID_BYTES).u8(hello.role)
    return writer.variable(hello.software.encode("ascii")).finish()


def decode_hello(payload: bytes) -> Hello:
    """The Hello of a peer. Raises RemoteFault: WRONG_VERSION before anything behind it is read; GARBLED_FRAME."""
    try:
        version = Reader(payload).u16()
        if version != PROTOCOL_VERSION:
            raise RemoteFault(DropReason.WRONG_VERSION, f"theirs is {version}, ours {PROTOCOL_VERSION}")
        return decode_whole(payload, _read_hello)
    except (MalformedError, TransportError, ValueError) as error:
        raise RemoteFault(DropReason.GARBLED_FRAME, f"Hello: {error}") from error


def _read_hello(reader: Reader) -> Hello:
    version, chain_id, role = reader.u16(), reader.take(CHAIN_ID_BYTES), PeerRole(reader.u8())
    return Hello(chain_id, role, reader.variable(MAX_SOFTWARE_BYTES).decode("ascii"), version)


def check_hello(theirs: Hello, chain_id: bytes, expected_role: PeerRole) -> None:
    """Raise RemoteFault unless the peer is on our chain and claims the role our own configuration gives it."""
    if theirs.chain_id != chain_id:
        raise RemoteFault(DropReason.WRONG_CHAIN, f"theirs is {theirs.chain_id.hex()}")
    if theirs.role is not expected_role:
        raise RemoteFault(DropReason.WRONG_ROLE, f"claims {theirs.role.name}, is {expected_role.name} here")


def encode_goodbye(reason: DropReason) -> bytes:
    """The payload of a GOODBYE frame: the reason's stable name, ASCII, at most 32 bytes."""
    return reason.value.encode("ascii")


def decode_goodbye(payload: bytes) -> DropReason:
    """The reason a peer gives. One that this version doesn't know reads as CLOSED; raises RemoteFault GARBLED_FRAME."""
    if len(payload) > MAX_REASON_BYTES or not payload.isascii():
        raise RemoteFault(DropReason.GARBLED_FRAME, "a reason that is not short ASCII")
    try:
        return DropReason(payload.decode("ascii"))
    except ValueError:
        return DropReason.CLOSED


def _is_printable_ascii(text: str) -> bool:
    return text.isascii() and text.isprintable()
