"""What waits for the consensus machine: events in order, each with the body of the block that it tells of.

A proposal's body has not been read yet: see `hearing`.

What this node found out itself always has room, for there is little of it at a time. So have certificates, which only
quorums make, and each of which is told of once. What else peers send is lost when too much waits, as if the network had
lost it: they send it again. That happens only while a signer in another process is awaited, since nothing else that the
machine waits for lets the network be read.
"""

import math
from dataclasses import dataclass
from typing import Final

import trio

from federation.certificate import Certificate, Vote
from pegnode.chain.block import Block
from pegnode.chain.header import Header
from pegnode.consensus import events as ev
from pegnode.net.transport import PeerId

MAX_QUEUED: Final = 4_096
MAX_QUEUED_BODY_BYTES: Final = 32_000_000
"""Peers have room while fewer events than this wait, and blocks of fewer bytes."""

Body = tuple[Block, bytes]
"""A block with its encoding."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A block with its leader's vote for it, both of one view that this member leads.

    sender: who answers for the body.  data: the block as it came, of which only the header has been read.
    """

    sender: PeerId
    header: Header
    vote: Vote
    data: bytes


Queued = tuple[ev.Event | Proposal, Body | None]


class EventQueue:
    """Events for the machine, first in, first out."""

    def __init__(self) -> None:
        self._body_bytes = 0
        self._events_in, self._events = trio.open_memory_channel[Queued](math.inf)

    def __len__(self) -> int:
        return self._events.statistics().current_buffer_used

    def put(self, event: ev.Event, body: Body | None = None) -> None:
        """Queue what must not be lost. body: kept from when the machine hears of it."""
        self._put((event, body))

    def put_from_peer(self, event: ev.Event | Proposal, body: Body | None = None) -> None:
        """Queue what a peer sent, unless too much waits already."""
        if len(self) < MAX_QUEUED and self._body_bytes < MAX_QUEUED_BODY_BYTES:
            self._put((event, body))

    async def take(self) -> Queued:
        """The oldest, when there is one."""
        return self._taken(await self._events.receive())

    def take_nowait(self) -> Queued:
        """The oldest. Raises trio.WouldBlock when nothing waits."""
        return self._taken(self._events.receive_nowait())

    def shed(self) -> list[Certificate]:
        """Drop all that waits, but the newest word on work; of the certificates among it nobody will tell again."""
        waiting = [self.take_nowait()[0] for _ in range(len(self))]
        work = [event for event in waiting if isinstance(event, ev.WorkKnown)]
        for event in work[-1:]:
            self.put(event)
        return [event.certificate for event in waiting if isinstance(event, ev.CertificateReceived)]

    def _put(self, queued: Queued) -> None:
        self._body_bytes += _size(queued)
        self._events_in.send_nowait(queued)

    def _taken(self, queued: Queued) -> Queued:
        self._body_bytes -= _size(queued)
        return queued


def _size(queued: Queued) -> int:
    event, body = queued
    if isinstance(event, Proposal):
        return len(event.data)
    return 0 if body is None else len(body[1])
