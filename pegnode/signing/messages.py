"""What a functionary and its signer say to each other: MessagePack arrays `[tag, field, ...]`, one a frame.

    frame = length u32, little-endian, 1 to MAX_FRAME_BYTES; then so many bytes of one message

What is signed travels inside as its canonical bytes (see `bridge.codec`). A number that the asker chooses comes back
in the answer, so that a slow question holds up no vote. Bytes that aren't exactly one known message in its limits end
the connection: nobody honest sends them.
"""

from typing import Annotated, Final, NoReturn, TypeVar

import msgspec

from bridge.errors import MalformedError
from federation.membership import MAX_MEMBERS
from federation.record import MAX_SIGNED_RECORD_BYTES
from pegnode.chain.block import MAX_BODY_BYTES
from pegnode.net.messages import MAX_PROOF_HEADERS, Encoded, Hash, Height

M = TypeVar("M")

LINK_VERSION: Final = 1
MAX_FRAME_BYTES: Final = MAX_BODY_BYTES + 200_000
"""The largest block, with the most headers of a proof and its certificate."""
MAX_RECORDS: Final = 16
"""Of one plan that is to be signed."""
MAX_PROOF: Final = 100 + 66 * MAX_MEMBERS
"""Bytes of a certificate: 66 for each signature, and what is signed."""
MAX_DETAIL: Final = 2_000
"""Characters of an explanation."""

U16 = Annotated[int, msgspec.Meta(ge=0, le=2**16 - 1)]
U32 = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
View = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
EncodedRecord = Annotated[bytes, msgspec.Meta(min_length=1, max_length=MAX_SIGNED_RECORD_BYTES)]
Number = U32
"""Which question this is, or answers."""
Detail = Annotated[str, msgspec.Meta(max_length=MAX_DETAIL)]


class LinkMessage(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of every message. The tag is its first element."""


class OpenLink(LinkMessage, frozen=True, tag=1):
    """A functionary's first word: which version it speaks, of which chain it is, and as which member."""

    version: U16
    chain_id: Hash
    member: U16


class AskVote(LinkMessage, frozen=True, tag=2):
    """Asks for a vote. kind: of `VoteKind`.  block_hash: 32 bytes, or none for NULLIFY.

    proof: the encoded certificate that it rests on, see `Follower.require_reached`; none if the final chain does.
    """

    number: Number
    kind: Annotated[int, msgspec.Meta(ge=0, le=255)]
    epoch: U32
    view: View
    block_hash: Annotated[bytes, msgspec.Meta(max_length=32)]
    proof: Annotated[bytes, msgspec.Meta(max_length=MAX_PROOF)]


class AskCosign(LinkMessage, frozen=True, tag=3):
    """Asks for the signatures of a recorded batch version."""

    number: Number
    txid: Hash


class AskStatement(LinkMessage, frozen=True, tag=4):
    """Asks for a signed statement of solvency. statement: an encoded one, or empty for one of the newest block."""

    number: Number
    statement: Annotated[bytes, msgspec.Meta(max_length=1_000)]


class ShowBlock(LinkMessage, frozen=True, tag=5):
    """Shows the final block that follows the newest one known.

    headers: encoded headers from its child up to a block with a finalization; none when it has its own.
    certificate: that finalization.
    """

    number: Number
    block: Encoded
    headers: Annotated[tuple[Encoded, ...], msgspec.Meta(max_length=MAX_PROOF_HEADERS)]
    certificate: Encoded


class AskRecord(LinkMessage, frozen=True, tag=6):
    """Asks for a signature under one of consecutive records, by its index among them. records: encoded ones."""

    number: Number
    records: Annotated[tuple[EncodedRecord, ...], msgspec.Meta(min_length=1, max_length=MAX_RECORDS)]
    index: Annotated[int, msgspec.Meta(ge=0, lt=MAX_RECORDS)]


class ShowRecord(LinkMessage, frozen=True, tag=7):
    """Shows a record that a quorum signed: one may say which L1 blocks lay below an anchor that L1 left."""

    number: Number
    record: EncodedRecord


class LinkOpened(LinkMessage, frozen=True, tag=64):
    """The signer's first word. transport_secret: 32 bytes.  height: of the newest block that it knows to be final."""

    transport_secret: Hash
    height: Height

    def __repr__(self) -> str:
        return f"LinkOpened(height={self.height})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("this holds a secret and is not pickled")


class Signed(LinkMessage, frozen=True, tag=65):
    """What was asked for, signed and encoded: a vote, a share, a statement."""

    number: Number
    signed: Encoded


class Taken(LinkMessage, frozen=True, tag=66):
    """What was shown is applied, or kept. height: what is known to be final now."""

    number: Number
    height: Height


class AskRefused(LinkMessage, frozen=True, tag=67):
    """A question, or with number 0 the connection, is refused. reason: of `pegnode.signing.refusals`."""

    number: Number
    reason: Annotated[str, msgspec.Meta(max_length=100)]
    detail: Detail


Question = OpenLink | AskVote | AskCosign | AskStatement | ShowBlock | AskRecord | ShowRecord
Answer = LinkOpened | Signed | Taken | AskRefused

_encoder = msgspec.msgpack.Encoder()
_questions: msgspec.msgpack.Decoder[Question] = msgspec.msgpack.Decoder(Question)
_answers: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)


def encode(message: LinkMessage) -> bytes:
    """The bytes of a message."""
    return _encoder.encode(message)


def decode_question(payload: bytes) -> Question:
    """What a functionary said; raises MalformedError when it is not exactly one question in its limits."""
    return _decoded(_questions, payload)


def decode_answer(payload: bytes) -> Answer:
    """What a signer said; raises MalformedError when it is not exactly one answer in its limits."""
    return _decoded(_answers, payload)


def _decoded(decoder: msgspec.msgpack.Decoder[M], payload: bytes) -> M:
    try:
        return decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedError(f"no message: {error}") from error
