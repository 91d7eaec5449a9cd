"""Frames between a functionary and its signer: however the stream is cut, and none too large, empty or slow."""

import pickle
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from bridge.bitcoin.identifiers import BlockHash
from bridge.errors import MalformedError
from federation.certificate import Certificate, VoteKind
from federation.membership import MAX_MEMBERS
from pegnode.signing import messages as say
from pegnode.signing.frames import FRAME_S, FrameStream
from pegnode.signing.messages import MAX_FRAME_BYTES
from pegnode.signing.refusals import LinkReason, LinkRefused

QUESTIONS: tuple[say.Question, ...] = (
    say.OpenLink(1, bytes(32), 3),
    say.AskVote(7, 1, 0, 2**40, b"\x01" * 32, b"proof"),
    say.AskCosign(8, b"\x02" * 32),
    say.AskStatement(9, b""),
    say.ShowBlock(10, b"block", (b"header",), b"certificate"),
)
ANSWERS: tuple[say.Answer, ...] = (
    say.LinkOpened(b"\x03" * 32, 12),
    say.Signed(7, b"vote"),
    say.Taken(10, 13),
    say.AskRefused(8, "refusal-halted", "for people"),
)


async def refusal(act: Callable[[], Awaitable[object]]) -> LinkReason:
    """The reason of a refusal."""
    with pytest.raises(LinkRefused) as caught:
        await act()
    assert isinstance(caught.value.reason, LinkReason)
    return caught.value.reason


def frame(payload: bytes) -> bytes:
    return len(payload).to_bytes(4, "little") + payload


@pytest.mark.parametrize("message", QUESTIONS)
def test_question_is_read_back(message: say.Question) -> None:
    assert say.decode_question(say.encode(message)) == message
    with pytest.raises(MalformedError):
        say.decode_answer(say.encode(message))


@pytest.mark.parametrize("message", ANSWERS)
def test_answer_is_read_back(message: say.Answer) -> None:
    assert say.decode_answer(say.encode(message)) == message
    with pytest.raises(MalformedError):
        say.decode_question(say.encode(message))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc0",
        say.encode(QUESTIONS[0]) + b"\x00",
        say.encode(QUESTIONS[0])[:-1],
        say.encode(say.OpenLink(1, bytes(31), 3)),
        say.encode(say.AskVote(1, 256, 0, 1, b"", b"")),
        say.encode(say.AskVote(1, 1, 0, 1, bytes(33), b"")),
        say.encode(say.AskVote(1, 1, 0, 1, bytes(32), bytes(say.MAX_PROOF + 1))),
        say.encode(say.AskCosign(2**32, bytes(32))),
        say.encode(say.AskCosign(-1, bytes(32))),
        say.encode(say.AskStatement(1, bytes(1_001))),
        say.encode(say.ShowBlock(1, b"", (), b"certificate")),
        say.encode(say.ShowBlock(1, b"block", (b"header",) * 513, b"certificate")),
        say.encode(say.ShowBlock(1, b"block", (b"",), b"certificate")),
    ],
)
def test_bytes_that_are_no_question_are_refused(payload: bytes) -> None:
    with pytest.raises(MalformedError):
        say.decode_question(payload)


async def test_frames_arrive_however_the_stream_is_cut() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    frames = FrameStream(theirs)
    for byte in frame(b"one") + frame(b"two"):
        await ours.send_all(bytes([byte]))
    await ours.send_all(frame(b"three") + frame(b"four"))
    assert [await frames.receive() for _ in range(4)] == [b"one", b"two", b"three", b"four"]
    await ours.aclose()
    assert await frames.receive() is None


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (frame(b""), LinkReason.GARBLED),
        ((MAX_FRAME_BYTES + 1).to_bytes(4, "little"), LinkReason.TOO_LARGE),
        (b"\xff\xff\xff\xff", LinkReason.TOO_LARGE),
    ],
)
async def test_frame_of_a_wrong_length_is_refused_by_the_length_alone(data: bytes, reason: LinkReason) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await ours.send_all(data)
    assert await refusal(FrameStream(theirs).receive) is reason


async def test_frame_that_ends_early_is_garbled() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await ours.send_all(frame(b"whole")[:-1])
    await ours.aclose()
    assert await refusal(FrameStream(theirs).receive) is LinkReason.GARBLED


async def test_frame_that_is_begun_and_not_ended_is_slow(autojump_clock: trio.abc.Clock) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await ours.send_all(frame(b"whole")[:-1])
    started_s = trio.current_time()
    assert await refusal(FrameStream(theirs).receive) is LinkReason.SLOW
    assert trio.current_time() - started_s == pytest.approx(FRAME_S)


async def test_frame_may_be_long_in_coming_before_it_begins(autojump_clock: trio.abc.Clock) -> None:
    ours, theirs = trio.testing.memory_stream_pair()

    async def late() -> None:
        await trio.sleep(100 * FRAME_S)
        await ours.send_all(frame(b"late"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(late)
        assert await FrameStream(theirs).receive() == b"late"


async def test_answer_that_nobody_takes_ends_the_connection(autojump_clock: trio.abc.Clock) -> None:
    _, theirs = trio.testing.lockstep_stream_pair()
    frames = FrameStream(theirs)
    assert await refusal(lambda: frames.send(bytes(100_000))) is LinkReason.SLOW
    with pytest.raises(LinkRefused, match="has gone"):
        await frames.send(b"more")


def test_transport_secret_is_neither_shown_nor_pickled() -> None:
    opened = say.LinkOpened(b"\x03" * 32, 12)
    assert repr(opened) == str(opened) == f"{opened}" == "LinkOpened(height=12)"
    with pytest.raises(TypeError, match="secret"):
        pickle.dumps(opened)


def test_largest_certificate_fits_a_question_for_a_vote() -> None:
    signatures = tuple((member, bytes(64)) for member in range(MAX_MEMBERS))
    proof = Certificate(VoteKind.NOTARIZE, 0, 2**62, BlockHash(bytes(32)), signatures).encode()
    question = say.AskVote(1, VoteKind.FINALIZE, 0, 2**62, bytes(32), proof)
    assert say.decode_question(say.encode(question)) == question
