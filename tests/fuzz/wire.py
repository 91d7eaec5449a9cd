"""The decoders of what goes between nodes."""

from bridge.bitcoin.identifiers import BlockHash, Txid
from bridge.errors import MalformedError
from federation.certificate import VoteKind
from federation.cosign import CosignShare
from pegnode.net import messages
from pegnode.net.framing import FrameDecoder, FrameKind, encode_frame
from pegnode.net.handshake import Hello, decode_goodbye, decode_hello, encode_goodbye, encode_hello
from pegnode.net.messages import decode_message, encode_message
from pegnode.net.transport import DropReason, PeerRole, RemoteFault
from tests.fuzz.decoders import Decoder, Finding
from tests.fuzz.scene import certificate, scene, vote
from tests.support.equivocations import equivocation
from tests.support.records import ANY_RECORD

MALFORMED = (MalformedError,)
MAX_FRAME = 4_000


def wire_decoders() -> tuple[Decoder, ...]:
    """All of them."""
    hello = Hello(bytes(range(32)), PeerRole.MEMBER, "pegnode/1")
    frames = encode_frame(FrameKind.HELLO, encode_hello(hello)) + encode_frame(FrameKind.PING, bytes(8))
    return (
        Decoder(
            "pegnode.net.messages:decode_message",
            _read_message,
            MALFORMED,
            tuple(map(encode_message, _messages())),
        ),
        Decoder(
            "pegnode.net.handshake:decode_hello", decode_hello, (RemoteFault,), (encode_hello(hello),), encode_hello
        ),
        Decoder(
            "pegnode.net.handshake:decode_goodbye",
            decode_goodbye,
            (RemoteFault,),
            (encode_goodbye(DropReason.SLOW_CONSUMER), b"a reason of later versions"),
        ),
        Decoder("pegnode.net.framing:FrameDecoder.feed", _read_frames, (RemoteFault,), (frames, frames[:60])),
    )


def _read_message(data: bytes) -> object:
    """MessagePack has several encodings of a value, so what is asked is that reading ours gives the value back."""
    message = decode_message(data)
    again = decode_message(encode_message(message))
    if message != again:
        raise Finding(f"{message} is read back as {again}")
    return message


def _read_frames(data: bytes) -> object:
    """The frames, however the stream is cut."""
    whole = FrameDecoder(MAX_FRAME)
    frames = list(whole.feed(data))
    bytewise = FrameDecoder(MAX_FRAME)
    if frames != [frame for place in range(len(data)) for frame in bytewise.feed(data[place : place + 1])]:
        raise Finding(f"{data.hex()}: other frames when it comes byte by byte")
    if not data.startswith(b"".join(encode_frame(*frame) for frame in frames)):
        raise Finding(f"{data.hex()}: frames that are not in it")
    return frames


def _messages() -> list[messages.Message]:
    """One of each type."""
    block, data = scene().block, scene().block.encode()
    cast = vote(VoteKind.NOTARIZE, 5, block.hash, 1).encode()
    nullified = certificate(VoteKind.NULLIFY, 6, b"").encode()
    final = certificate(VoteKind.FINALIZE, 5, block.hash).encode()
    payment = scene().payments[0].serialize()
    known = BlockHash(block.hash)
    return [
        messages.ProposalMessage(data[:400], cast, (nullified,)),
        messages.VotesMessage((cast,)),
        messages.CertificatesMessage((nullified, final)),
        messages.BlockRequest(known),
        messages.BlockAnswer(known, b""),
        messages.FinalBlocksRequest(7),
        messages.FinalBlocksAnswer(7, (messages.FinalBlock(data[:300], final),), (block.header.encode(),), final),
        messages.TipMessage(7, known),
        messages.TransactionsMessage((payment,)),
        messages.EvidenceMessage((scene().evidence[0].encode(),)),
        messages.RegistrationsMessage((b"\x00\x14" + bytes(20),)),
        messages.L1Report(11, known),
        messages.SharesMessage((CosignShare(Txid(bytes(32)), 2, (bytes(64),)).encode(),)),
        messages.SignedPayoutMessage(payment),
        messages.RecordMessage(ANY_RECORD.encode()),
        messages.RecordsRequest(1),
        messages.RecordsAnswer(1, (ANY_RECORD.encode(),)),
        messages.EquivocationsMessage((equivocation(scene().chain.rules, 1).encode(),)),
        messages.OwnVotesRequest(known),
        messages.OwnVotesAnswer(known, (cast, cast), final, vouches=True),
    ]
