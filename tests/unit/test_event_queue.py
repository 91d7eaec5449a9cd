"""The consensus machine's queue: in order, and of what peers send no more than has room."""

from typing import cast

import pytest
import trio

from federation.certificate import NO_BLOCK, Certificate, VoteKind
from pegnode.chain.block import Block
from pegnode.consensus import events as ev
from pegnode.service.event_queue import MAX_QUEUED, MAX_QUEUED_BODY_BYTES, EventQueue

BODY = (cast(Block, None), bytes(MAX_QUEUED_BODY_BYTES // 4))


async def test_event_queue_gives_back_in_order() -> None:
    queue = EventQueue()
    queue.put(ev.WorkKnown(True))
    queue.put_from_peer(ev.Tick(), BODY)
    assert await queue.take() == (ev.WorkKnown(True), None)
    assert queue.take_nowait() == (ev.Tick(), BODY)
    with pytest.raises(trio.WouldBlock):
        queue.take_nowait()


def test_event_queue_loses_what_peers_send_beyond_its_length() -> None:
    queue = EventQueue()
    for _ in range(MAX_QUEUED + 10):
        queue.put_from_peer(ev.Tick())
    assert len(queue) == MAX_QUEUED
    queue.put(ev.WorkKnown(True))
    assert len(queue) == MAX_QUEUED + 1, "what this node found out itself is never lost"
    queue.take_nowait()
    queue.take_nowait()
    queue.put_from_peer(ev.Tick())
    assert len(queue) == MAX_QUEUED


def test_event_queue_loses_blocks_beyond_their_bytes_until_some_were_taken() -> None:
    queue = EventQueue()
    for _ in range(10):
        queue.put_from_peer(ev.Tick(), BODY)
    assert len(queue) == 4
    queue.take_nowait()
    queue.put_from_peer(ev.Tick(), BODY)
    queue.put_from_peer(ev.Tick(), BODY)
    assert len(queue) == 4


def test_event_queue_sheds_all_but_certificates_and_the_newest_word_on_work() -> None:
    queue = EventQueue()
    certificate = Certificate(VoteKind.NULLIFY, 0, 7, NO_BLOCK, ())
    queue.put(ev.WorkKnown(True))
    queue.put(ev.CertificateReceived(certificate))
    queue.put_from_peer(ev.Tick(), BODY)
    queue.put(ev.WorkKnown(False))
    assert queue.shed() == [certificate]
    assert (queue.take_nowait(), len(queue)) == ((ev.WorkKnown(False), None), 0)
    for _ in range(4):
        queue.put_from_peer(ev.Tick(), BODY)
    assert len(queue) == 4, "the bytes of what was dropped have room again"
