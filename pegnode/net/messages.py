"""The messages that peers exchange: MessagePack arrays `[type, field, ...]`, one message a frame.

Consensus objects travel inside as their canonical bytes (see `bridge.codec`), so what is hashed or signed never
depends on MessagePack. A frame that isn't exactly one known message within its limits is the sender's fault.
"""

from typing import Annotated, Final

import msgspec

from bridge.errors import MalformedError
from federation.equivocation import MAX_EQUIVOCATION_BYTES
from federation.record import MAX_SIGNED_RECORD_BYTES

MAX_BLOCKS_PER_ANSWER: Final = 64
MAX_PROOF_HEADERS: Final = 512
"""Headers from the last block of an answer up to a block with a finalization of its own."""
MAX_JUSTIFICATION: Final = 4_096
"""Certificates a proposal may carry: one for each view since its parent's."""
MAX_VOTES: Final = 4_096
MAX_ITEMS: Final = 1_024
"""Transactions, evidence or claim scripts in one message."""
MAX_RECORDS_PER_ANSWER: Final = 16
"""Of the longest records they stay below the half of a frame."""
MAX_EQUIVOCATIONS: Final = 128
"""Proofs of members' faults in one message."""
MAX_OWN_VOTES: Final = 3
"""One of each kind."""

Hash = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Encoded = Annotated[bytes, msgspec.Meta(min_length=1)]
Height = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
L1Height = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
Serial = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
EncodedRecord = Annotated[bytes, msgspec.Meta(min_length=1, max_length=MAX_SIGNED_RECORD_BYTES)]
EncodedEquivocation = Annotated[bytes, msgspec.Meta(min_length=1, max_length=MAX_EQUIVOCATION_BYTES)]
Items = Annotated[tuple[Encoded, ...], msgspec.Meta(min_length=1, max_length=MAX_ITEMS)]


class Message(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of every message. The tag is its first element."""


class ProposalMessage(Message, frozen=True, tag=1):
    """A leader's block for its view, with the certificates that justify its parent.

    block: an encoded Block.  vote: the leader's encoded notarize vote.
    justification: encoded certificates, the parent's notarization and every nullification since.
    """

    block: Encoded
    vote: Encoded
    justification: Annotated[tuple[Encoded, ...], msgspec.Meta(max_length=MAX_JUSTIFICATION)]


class VotesMessage(Message, frozen=True, tag=2):
    """Encoded votes, the sender's own or passed on."""

    votes: Annotated[tuple[Encoded, ...], msgspec.Meta(min_length=1, max_length=MAX_VOTES)]


class CertificatesMessage(Message, frozen=True, tag=3):
    """Encoded certificates."""

    certificates: Annotated[tuple[Encoded, ...], msgspec.Meta(min_length=1, max_length=MAX_VOTES)]


class BlockRequest(Message, frozen=True, tag=4):
    """Asks for one block, final or not, by its hash."""

    block_hash: Hash


class BlockAnswer(Message, frozen=True, tag=5):
    """The block that was asked for; `block` is empty when the peer does not have it."""

    block_hash: Hash
    block: bytes


class FinalBlocksRequest(Message, frozen=True, tag=6):
    """Asks for final blocks from `first_height` on."""

    first_height: Height


class FinalBlock(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One final block; `certificate` is its encoded finalization, empty when only a descendant has one."""

    block: Encoded
    certificate: bytes


class FinalBlocksAnswer(Message, frozen=True, tag=7):
    """Consecutive final blocks, and the proof of those at the end. Empty: the peer has none from there on.

    headers: encoded headers of the blocks that follow the last one, up to a block with a finalization.
    certificate: that finalization. Both are empty when the last block has its own.
    """

    first_height: Height
    blocks: Annotated[tuple[FinalBlock, ...], msgspec.Meta(max_length=MAX_BLOCKS_PER_ANSWER)]
    headers: Annotated[tuple[Encoded, ...], msgspec.Meta(max_length=MAX_PROOF_HEADERS)]
    certificate: bytes


class TipMessage(Message, frozen=True, tag=8):
    """The sender's final tip, sent on connection and when it moves."""

    height: Height
    block_hash: Hash


class TransactionsMessage(Message, frozen=True, tag=9):
    """Sidechain transactions to relay."""

    transactions: Items


class EvidenceMessage(Message, frozen=True, tag=10):
    """Encoded evidence to relay."""

    evidence: Items


class RegistrationsMessage(Message, frozen=True, tag=11):
    """Claim scripts whose deposit addresses were handed out: a hint where to look, never a claim."""

    claim_scripts: Items


class L1Report(Message, frozen=True, tag=12):
    """The highest L1 block that the sender's own node has at the peg's depth."""

    height: L1Height
    block_hash: Hash


class SharesMessage(Message, frozen=True, tag=13):
    """Encoded cosigning shares for batches that are final."""

    shares: Items


class SignedPayoutMessage(Message, frozen=True, tag=14):
    """A batch version with a quorum's signatures, for a member that still collects them."""

    transaction: Encoded


class RecordMessage(Message, frozen=True, tag=15):
    """An encoded record that a quorum signed, and no final block has carried out yet."""

    record: EncodedRecord


class RecordsRequest(Message, frozen=True, tag=16):
    """Asks for records that lead from one branch of L1 to another, with this serial or a higher one."""

    first_serial: Serial


class RecordsAnswer(Message, frozen=True, tag=17):
    """The first of those that the peer has, by rising serial: carried out, or waiting for a block."""

    first_serial: Serial
    records: Annotated[tuple[EncodedRecord, ...], msgspec.Meta(max_length=MAX_RECORDS_PER_ANSWER)]


class EquivocationsMessage(Message, frozen=True, tag=18):
    """Encoded equivocations: proofs, each of two votes of one member that exclude each other."""

    equivocations: Annotated[tuple[EncodedEquivocation, ...], msgspec.Meta(min_length=1, max_length=MAX_EQUIVOCATIONS)]


class OwnVotesRequest(Message, frozen=True, tag=19):
    """Asks a member what it knows of the asker's votes. nonce: new at each start, so that no answer is of an older."""

    nonce: Hash


class OwnVotesAnswer(Message, frozen=True, tag=20):
    """What a member knows of the asker's votes, and of the highest view.

    votes: encoded, the newest of each kind that it saw of the asker.  certificate: of the highest view that it knows,
    encoded; empty if there is none.  vouches: it signs votes itself, and knows a certificate of its journal's floor or
    of a higher view.
    """

    nonce: Hash
    votes: Annotated[tuple[Encoded, ...], msgspec.Meta(max_length=MAX_OWN_VOTES)]
    certificate: bytes
    vouches: bool


AnyMessage = (
    ProposalMessage
    | VotesMessage
    | CertificatesMessage
    | BlockRequest
    | BlockAnswer
    | FinalBlocksRequest
    | FinalBlocksAnswer
    | TipMessage
    | TransactionsMessage
    | EvidenceMessage
    | RegistrationsMessage
    | L1Report
    | SharesMessage
    | SignedPayoutMessage
    | RecordMessage
    | RecordsRequest
    | RecordsAnswer
    | EquivocationsMessage
    | OwnVotesRequest
    | OwnVotesAnswer
)

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(AnyMessage)


def encode_message(message: Message) -> bytes:
    """The payload of one frame."""
    return _encoder.encode(message)


def decode_message(payload: bytes) -> AnyMessage:
    """The message in `payload`; raises MalformedError when it is not exactly one message in its limits."""
    try:
        message: AnyMessage = _decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedError(f"no message: {error}") from error
    return message
