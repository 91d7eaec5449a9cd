"""The Hello and the Goodbye: round trips, fixed layout, and a reason for every malformed or unwelcome one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pegnode.net.handshake import (
    MAX_HELLO_BYTES,
    Hello,
    check_hello,
    decode_goodbye,
    decode_hello,
    encode_goodbye,
    encode_hello,
)
from pegnode.net.transport import DropReason, PeerRole, RemoteFault, TransportError

CHAIN = bytes(range(32))
GOOD = encode_hello(Hello(CHAIN, PeerRole.MEMBER, "pegnode/0.1"))
HELLOS = st.builds(
    Hello,
    chain_id=st.binary(min_size=32, max_size=32),
    role=st.sampled_from(PeerRole),
    software=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=64),
)


def reason_of(payload: bytes) -> DropReason:
    """Why a payload is refused."""
    with pytest.raises(RemoteFault) as refusal:
        decode_hello(payload)
    return refusal.value.reason


@given(HELLOS)
def test_hello_round_trip(hello: Hello) -> None:
    encoded = encode_hello(hello)
    assert decode_hello(encoded) == hello
    assert len(encoded) <= MAX_HELLO_BYTES


def test_hello_layout_is_as_documented() -> None:
    assert bytes.fromhex("0100") + CHAIN + b"\x01" + bytes.fromhex("0b000000") + b"pegnode/0.1" == GOOD


@given(st.binary(max_size=200))
def test_garbage_is_a_fault_or_a_canonical_hello(garbage: bytes) -> None:
    try:
        outcome: bytes | DropReason = encode_hello(decode_hello(garbage))
    except RemoteFault as fault:
        outcome = fault.reason
    assert outcome in (DropReason.WRONG_VERSION, DropReason.GARBLED_FRAME, garbage)


@given(st.integers(min_value=0, max_value=len(GOOD) - 1))
def test_truncated_hello_is_garbled(size: int) -> None:
    assert reason_of(GOOD[:size]) is DropReason.GARBLED_FRAME


@pytest.mark.parametrize(
    "payload",
    [
        GOOD + b"\0",
        GOOD[:34] + b"\x03" + GOOD[35:],
        GOOD[:35] + b"\x41\0\0\0" + b"x" * 65,
        GOOD[:35] + b"\x01\0\0\0\n",
        GOOD[:35] + b"\x01\0\0\0\xff",
    ],
    ids=["trailing byte", "unknown role", "long software", "control character", "not ASCII"],
)
def test_malformed_hello_is_garbled(payload: bytes) -> None:
    assert reason_of(payload) is DropReason.GARBLED_FRAME


def test_other_version_is_refused_whatever_follows_it() -> None:
    assert reason_of(b"\x02\0") is DropReason.WRONG_VERSION
    assert reason_of(b"\x02\0 a layout unknown today") is DropReason.WRONG_VERSION


@pytest.mark.parametrize(
    ("hello", "reason"),
    [
        (Hello(bytes(32), PeerRole.MEMBER, ""), DropReason.WRONG_CHAIN),
        (Hello(CHAIN, PeerRole.GUEST, ""), DropReason.WRONG_ROLE),
    ],
)
def test_unwelcome_hello_is_refused(hello: Hello, reason: DropReason) -> None:
    with pytest.raises(RemoteFault) as refusal:
        check_hello(hello, CHAIN, PeerRole.MEMBER)
    assert refusal.value.reason is reason


def test_claimed_membership_is_refused_to_a_guest() -> None:
    with pytest.raises(RemoteFault) as refusal:
        check_hello(Hello(CHAIN, PeerRole.MEMBER, ""), CHAIN, PeerRole.GUEST)
    assert refusal.value.reason is DropReason.WRONG_ROLE


def test_welcome_hello_passes() -> None:
    check_hello(Hello(CHAIN, PeerRole.GUEST, "x"), CHAIN, PeerRole.GUEST)


@pytest.mark.parametrize(("chain_id", "software"), [(bytes(31), "x"), (CHAIN, "x" * 65), (CHAIN, "é"), (CHAIN, "\n")])
def test_own_hello_out_of_form_is_our_error(chain_id: bytes, software: str) -> None:
    with pytest.raises(TransportError):
        Hello(chain_id, PeerRole.MEMBER, software)


@pytest.mark.parametrize("reason", DropReason)
def test_goodbye_round_trip(reason: DropReason) -> None:
    assert decode_goodbye(encode_goodbye(reason)) is reason


def test_goodbye_of_a_later_version_reads_as_closed() -> None:
    assert decode_goodbye(b"reason-of-the-future") is DropReason.CLOSED


@pytest.mark.parametrize("payload", [b"x" * 33, b"\xff"])
def test_malformed_goodbye_is_garbled(payload: bytes) -> None:
    with pytest.raises(RemoteFault) as refusal:
        decode_goodbye(payload)
    assert refusal.value.reason is DropReason.GARBLED_FRAME
