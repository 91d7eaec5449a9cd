"""One node's parts, without a network and without a Bitcoin node, for tests that say what comes in."""

import math
from typing import TYPE_CHECKING, cast

import trio

from bridge.l1.client import L1Client
from bridge.l1.watcher import L1Watcher
from federation.membership import Membership
from pegnode.mempool.evidence_pool import EvidencePool, EvidencePoolLimits
from pegnode.mempool.pool import Mempool, PoolLimits
from pegnode.net.messages import AnyMessage, Message, decode_message, encode_message
from pegnode.net.transport import (
    DropReason,
    FrameReceived,
    PeerAddress,
    PeerConnected,
    PeerDisconnected,
    PeerId,
    PeerRole,
    TransportEvent,
)
from pegnode.service.core import NodeCore
from pegnode.service.l1_questions import L1Questions
from pegnode.service.registry import DepositRegistry
from pegnode.service.unfinal import UnfinalBlocks
from pegnode.storage.store import ChainStore
from tests.support.chain import MemoryChain

if TYPE_CHECKING:
    from trio_typing import TaskStatus


class Wire:
    """A transport that is connected to every member: it delivers what the test says, and keeps what is sent.

    own: the member whose transport it is; None for a node without keys.
    """

    def __init__(self, membership: Membership, own: int | None) -> None:
        members = [PeerId(member.peer_id) for member in membership.members]
        self.peer_id = PeerId("a node without keys") if own is None else members[own]
        self.listen_addresses: tuple[PeerAddress, ...] = ()
        self.others = frozenset(members) - {self.peer_id}
        self.sent: list[AnyMessage] = []
        self.dropped: list[tuple[PeerId, DropReason]] = []
        self._incoming, self.events = trio.open_memory_channel[TransportEvent](math.inf)

    def deliver(self, sender: PeerId, message: Message) -> None:
        """A message comes in."""
        self._incoming.send_nowait(FrameReceived(sender, encode_message(message)))

    def connect(self, peer: PeerId) -> None:
        """A peer appears."""
        self._incoming.send_nowait(PeerConnected(peer, PeerRole.MEMBER, "test"))

    def disconnect(self, peer: PeerId) -> None:
        """A peer goes."""
        self._incoming.send_nowait(PeerDisconnected(peer, DropReason.CLOSED))

    def connected(self) -> frozenset[PeerId]:
        return self.others

    def send(self, peer: PeerId, payload: bytes) -> bool:
        self.sent.append(decode_message(payload))
        return True

    def drop(self, peer: PeerId, reason: DropReason) -> None:
        self.dropped.append((peer, reason))
        self._incoming.send_nowait(PeerDisconnected(peer, reason))

    def round_trip_ms(self, peer: PeerId) -> float | None:
        return None

    async def run(self, *, task_status: "TaskStatus[None]" = trio.TASK_STATUS_IGNORED) -> None:
        raise NotImplementedError


def lone_core(chain: MemoryChain, store: ChainStore) -> NodeCore:
    """The state of a node on `chain`, whose clock is a second ahead of the newest block. It can ask no Bitcoin node."""

    def now_ms() -> int:
        return chain.header.time_ms + 1_000

    client = cast(L1Client, None)
    watcher = L1Watcher(client, 0)
    return NodeCore(
        rules=chain.rules,
        store=store,
        unfinal=UnfinalBlocks(store),
        mempool=Mempool(PoolLimits()),
        evidence=EvidencePool(EvidencePoolLimits()),
        registry=DepositRegistry(store, chain.rules.custody, now_ms),
        watcher=watcher,
        questions=L1Questions(client, watcher, chain.rules.params),
        now_ms=now_ms,
    )
