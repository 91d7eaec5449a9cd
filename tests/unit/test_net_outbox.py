"""The outbox keeps order and bounds, joins small frames, and ends with its last frame."""

import pytest
import trio

from pegnode.net.outbox import COALESCE_BYTES, FRAME_OVERHEAD_BYTES, LARGE_BYTES, Outbox


async def test_frames_come_out_in_order_and_together() -> None:
    outbox = Outbox(1000)
    assert all(outbox.put(frame) for frame in (b"one", b"two", b"three"))
    assert await outbox.take() == b"onetwothree"


async def test_chunk_stops_at_the_size_worth_joining() -> None:
    outbox = Outbox(10 * COALESCE_BYTES)
    frames = [bytes((number,)) * (COALESCE_BYTES // 2) for number in range(3)] + [b"x" * (2 * COALESCE_BYTES), b"y"]
    assert all(outbox.put(frame) for frame in frames)
    assert await outbox.take() == frames[0] + frames[1]
    assert await outbox.take() == frames[2]
    assert await outbox.take() == frames[3]
    assert await outbox.take() == frames[4]


async def test_full_outbox_takes_nothing_until_emptied() -> None:
    outbox = Outbox(2 * (FRAME_OVERHEAD_BYTES + 10))
    assert [outbox.put(bytes(10)) for _ in range(3)] == [True, True, False]
    await outbox.take()
    assert outbox.put(bytes(10))


async def test_large_frame_that_waits_is_not_queued_again() -> None:
    outbox = Outbox(10 * LARGE_BYTES)
    large, other = bytes(LARGE_BYTES), b"x" * LARGE_BYTES
    for frame in (large, other, large, other, large):
        assert outbox.put(frame)
    assert await outbox.take() == large + other
    assert outbox.put(large)
    assert await outbox.take() == large


async def test_small_frames_are_queued_as_often_as_they_are_put() -> None:
    outbox = Outbox(10 * LARGE_BYTES)
    small = bytes(LARGE_BYTES - 1)
    assert all(outbox.put(small) for _ in range(3))
    assert await outbox.take() == 3 * small


async def test_closed_outbox_takes_no_second_copy_either() -> None:
    outbox = Outbox(10 * LARGE_BYTES)
    assert outbox.put(bytes(LARGE_BYTES))
    outbox.close(bytes(LARGE_BYTES))
    assert not outbox.put(bytes(LARGE_BYTES))


async def test_empty_frames_fill_the_outbox_too() -> None:
    outbox = Outbox(10 * FRAME_OVERHEAD_BYTES)
    assert sum(outbox.put(b"") for _ in range(100)) == 10


async def test_take_waits_for_a_frame(autojump_clock: trio.abc.Clock) -> None:
    outbox = Outbox(1000)
    async with trio.open_nursery() as nursery:

        async def put_later() -> None:
            await trio.sleep(5)
            outbox.put(b"late")

        nursery.start_soon(put_later)
        assert await outbox.take() == b"late"


@pytest.mark.parametrize("last", [b"", b"goodbye"])
async def test_closed_outbox_ends_with_its_last_frame(last: bytes) -> None:
    outbox = Outbox(1000)
    outbox.put(b"discarded")
    outbox.close(last)
    assert not outbox.put(b"refused")
    if last:
        assert await outbox.take() == last
    assert await outbox.take() == b""


async def test_close_wakes_a_waiting_taker(autojump_clock: trio.abc.Clock) -> None:
    outbox = Outbox(1000)
    async with trio.open_nursery() as nursery:

        async def close_later() -> None:
            await trio.sleep(5)
            outbox.close(b"")

        nursery.start_soon(close_later)
        assert await outbox.take() == b""
