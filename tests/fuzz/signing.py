"""The decoders of what a functionary and its signer say to each other."""

from bridge.bitcoin.identifiers import Txid
from bridge.errors import MalformedError
from federation.certificate import VoteKind
from pegnode.signing import messages
from pegnode.signing.messages import LinkMessage, decode_answer, decode_question, encode
from tests.fuzz.decoders import Decoder, Finding
from tests.fuzz.scene import certificate, scene, signed_statement, vote
from tests.support.records import ANY_RECORD


def signing_decoders() -> tuple[Decoder, ...]:
    """All of them."""
    block = scene().block
    proof = certificate(VoteKind.FINALIZE, 5, block.hash).encode()
    statement = signed_statement(0)
    questions = (
        messages.OpenLink(messages.LINK_VERSION, bytes(32), 1),
        messages.AskVote(1, VoteKind.FINALIZE, 0, 5, block.hash, b"a certificate"),
        messages.AskCosign(2, Txid(bytes(range(32)))),
        messages.AskStatement(3, statement.statement.encode()),
        messages.ShowBlock(4, block.encode(), (block.header.encode(),), proof),
        messages.AskRecord(5, (ANY_RECORD.record.encode(),), 0),
        messages.ShowRecord(6, ANY_RECORD.encode()),
    )
    answers = (
        messages.LinkOpened(bytes(range(32)), 7),
        messages.Signed(1, vote(VoteKind.FINALIZE, 5, block.hash, 1).encode()),
        messages.Taken(4, 8),
        messages.AskRefused(2, "refusal-halted", "it has halted"),
    )
    malformed = (MalformedError,)
    return (
        Decoder("pegnode.signing.messages:decode_question", _question, malformed, tuple(map(encode, questions))),
        Decoder("pegnode.signing.messages:decode_answer", _answer, malformed, tuple(map(encode, answers))),
    )


def _question(data: bytes) -> LinkMessage:
    """MessagePack has several encodings of a value, so what is asked is that reading ours gives the value back."""
    question = decode_question(data)
    return _same(question, decode_question(encode(question)))


def _answer(data: bytes) -> LinkMessage:
    answer = decode_answer(data)
    return _same(answer, decode_answer(encode(answer)))


def _same(message: LinkMessage, again: LinkMessage) -> LinkMessage:
    if message != again:
        raise Finding(f"{message} is read back as {again}")
    return message
