"""The wire messages: each survives a round trip, and nothing else is accepted."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import MalformedError
from federation.equivocation import MAX_EQUIVOCATION_BYTES
from federation.record import MAX_SIGNED_RECORD_BYTES
from pegnode.net.messages import (
    MAX_EQUIVOCATIONS,
    MAX_ITEMS,
    MAX_RECORDS_PER_ANSWER,
    BlockAnswer,
    BlockRequest,
    CertificatesMessage,
    EquivocationsMessage,
    EvidenceMessage,
    FinalBlock,
    FinalBlocksAnswer,
    FinalBlocksRequest,
    L1Report,
    Message,
    OwnVotesAnswer,
    OwnVotesRequest,
    ProposalMessage,
    RecordMessage,
    RecordsAnswer,
    RecordsRequest,
    RegistrationsMessage,
    SharesMessage,
    SignedPayoutMessage,
    TipMessage,
    TransactionsMessage,
    VotesMessage,
    decode_message,
    encode_message,
)

hashes = st.binary(min_size=32, max_size=32)
encoded = st.binary(min_size=1, max_size=64)
items = st.lists(encoded, min_size=1, max_size=4).map(tuple)
heights = st.integers(min_value=0, max_value=2**63 - 1)
l1_heights = st.integers(min_value=0, max_value=2**32 - 1)
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(ProposalMessage, encoded, encoded, st.lists(encoded, max_size=3).map(tuple)),
    st.builds(VotesMessage, items),
    st.builds(CertificatesMessage, items),
    st.builds(BlockRequest, hashes),
    st.builds(BlockAnswer, hashes, st.binary(max_size=64)),
    st.builds(FinalBlocksRequest, heights),
    st.builds(
        FinalBlocksAnswer,
        heights,
        st.lists(st.builds(FinalBlock, encoded, st.binary(max_size=64)), max_size=3).map(tuple),
        st.lists(encoded, max_size=3).map(tuple),
        st.binary(max_size=64),
    ),
    st.builds(TipMessage, heights, hashes),
    st.builds(TransactionsMessage, items),
    st.builds(EvidenceMessage, items),
    st.builds(RegistrationsMessage, items),
    st.builds(L1Report, l1_heights, hashes),
    st.builds(SharesMessage, items),
    st.builds(SignedPayoutMessage, encoded),
    st.builds(RecordMessage, encoded),
    st.builds(RecordsRequest, heights),
    st.builds(RecordsAnswer, heights, st.lists(encoded, max_size=3).map(tuple)),
    st.builds(EquivocationsMessage, items),
    st.builds(OwnVotesRequest, hashes),
    st.builds(OwnVotesAnswer, hashes, st.lists(encoded, max_size=3).map(tuple), st.binary(max_size=64), st.booleans()),
)


@given(messages)
def test_message_survives_the_round_trip(message: Message) -> None:
    assert decode_message(encode_message(message)) == message


@given(messages, st.binary(min_size=1, max_size=8))
def test_message_with_trailing_bytes_is_refused(message: Message, tail: bytes) -> None:
    with pytest.raises(MalformedError):
        decode_message(encode_message(message) + tail)


@given(messages)
def test_message_cut_short_is_refused(message: Message) -> None:
    with pytest.raises(MalformedError):
        decode_message(encode_message(message)[:-1])


@given(st.binary(max_size=200))
def test_garbage_never_raises_anything_else(payload: bytes) -> None:
    try:
        decode_message(payload)
    except MalformedError:
        return
    assert encode_message(decode_message(payload))


@pytest.mark.parametrize(
    "fields",
    [
        [99, b"\x00" * 32],
        [18, b"\x00" * 32],
        [18, []],
        [18, [b""]],
        [18, [bytes(MAX_EQUIVOCATION_BYTES + 1)]],
        [18, [b"x"] * (MAX_EQUIVOCATIONS + 1)],
        [15, b""],
        [15, bytes(MAX_SIGNED_RECORD_BYTES + 1)],
        [16, -1],
        [17, 1, [b""]],
        [17, 1, [b"x"] * (MAX_RECORDS_PER_ANSWER + 1)],
        [4, b"\x00" * 31],
        [4, b"\x00" * 32, 1],
        [8, -1, b"\x00" * 32],
        [8, 1.5, b"\x00" * 32],
        [9, []],
        [9, [b"x"] * (MAX_ITEMS + 1)],
        [9, [b""]],
        [12, 2**32, b"\x00" * 32],
        {"type": 4},
        [],
    ],
)
def test_message_outside_its_limits_is_refused(fields: object) -> None:
    with pytest.raises(MalformedError):
        decode_message(msgspec.msgpack.encode(fields))
