"""The socket below a secure link: what a peer may leave unsaid, and how little of ours the kernel holds."""

import sys
from socket import IPPROTO_TCP
from typing import cast

import pytest
import trio
import trio.testing
from libp2p.io.exceptions import ConnectionClosedError

from pegnode.net.libp2p_link import TCP_NOTSENT_LOWAT, UNSENT_BYTES, SocketConnection, bound_unsent

SILENCE_S = 3.0


def connected() -> tuple[trio.abc.Stream, SocketConnection]:
    """A peer, and its connection here."""
    peer, ours = trio.testing.memory_stream_pair()
    return peer, SocketConnection(cast(trio.SocketStream, ours), SILENCE_S)


async def test_peer_that_says_nothing_before_its_hello_is_given_up(autojump_clock: trio.abc.Clock) -> None:
    peer, wire = connected()
    await trio.sleep(10)
    await peer.send_all(b"something")
    assert await wire.read(9) == b"something"
    began_s = trio.current_time()
    with pytest.raises(ConnectionClosedError, match="silent before its Hello"):
        await wire.read()
    assert trio.current_time() - began_s == pytest.approx(SILENCE_S)


async def test_silence_is_another_matter_after_the_hello(autojump_clock: trio.abc.Clock) -> None:
    peer, wire = connected()
    async with trio.open_nursery() as nursery:

        async def say_something_late() -> None:
            await trio.sleep(SILENCE_S / 2)
            wire.lift_budget()  # while the connection is being read
            await trio.sleep(3 * SILENCE_S)
            await peer.send_all(b"late")
            await trio.sleep(3 * SILENCE_S)
            await peer.send_all(b"later")

        nursery.start_soon(say_something_late)
        assert await wire.read() == b"late"
        assert await wire.read() == b"later"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such option")
async def test_kernel_holds_little_that_is_not_under_way() -> None:
    with trio.socket.socket() as tcp, trio.socket.socket(trio.socket.AF_UNIX) as other:
        bound_unsent(trio.SocketStream(tcp))
        assert tcp.getsockopt(IPPROTO_TCP, TCP_NOTSENT_LOWAT) == UNSENT_BYTES
        bound_unsent(trio.SocketStream(other))  # which has no such option: nothing happens
