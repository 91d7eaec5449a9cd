"""The transport's twin in memory, for tests and simulation: the same port, with time and mishaps under control.

Theory of operation. Every pair of running nodes with a member among them is connected. One task carries out what is
due, in the order of (time, source, destination, serial number on that lane), and every lane between two nodes draws
its delays from a random source of its own. So under trio's autojump clock, what a node sees depends on the seed and
on what the nodes send, never on how trio interleaves their tasks.

It keeps the promises of a real transport. A lane delivers in order. While a pair is cut, as when packets get lost,
its frames wait; a pair that is mended in time has lost nothing, and otherwise both sides find each other silent and
the frames are gone. A pair reconnects by itself `redial_s` after it broke, unless it is cut.
"""

import heapq
import math
import random
from collections import defaultdict
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import combinations, product
from typing import TYPE_CHECKING

import trio

from pegnode.net.outbox import FRAME_OVERHEAD_BYTES
from pegnode.net.session import LinkLimits
from pegnode.net.transport import (
    DropReason,
    FrameReceived,
    PeerAddress,
    PeerConnected,
    PeerDisconnected,
    PeerId,
    PeerRole,
    TransportError,
    TransportEvent,
)

if TYPE_CHECKING:
    from trio_typing import TaskStatus

SOFTWARE = "memory"


@dataclass(slots=True)
class _Lane:
    """One direction of a pair. is_open: the source considers itself connected to the destination."""

    source: PeerId
    destination: PeerId
    rng: random.Random
    delay_s: tuple[float, float]
    is_open: bool = False
    serial: int = 0
    last_due_s: float = 0.0
    queued_bytes: int = 0

    def next_due_s(self, now_s: float) -> float:
        """When something sent now arrives: never before what was sent earlier."""
        self.last_due_s = max(self.last_due_s, now_s + self.rng.uniform(*self.delay_s))
        return self.last_due_s


@dataclass(slots=True)
class _Pair:
    """generation: counts connections, so that what belongs to an earlier one is recognised. cuts: counts cuts.

    held: what arrived during a cut, in order, to go on its way when the cut is mended.
    """

    lanes: tuple[_Lane, _Lane]
    generation: int = 0
    cuts: int = 0
    is_cut: bool = False
    is_connecting: bool = False
    held: list[tuple[_Lane, Callable[[], None]]] = field(default_factory=list)


@dataclass(order=True, slots=True)
class _Action:
    due_s: float
    source: PeerId
    destination: PeerId
    serial: int
    carry_out: Callable[[], None] = field(compare=False)


class MemoryNetwork:
    """The nodes, and what lies between them. `run` must run beside the nodes.

    delay_s: the least and the greatest delay of a frame, above 0. Raises TransportError on other bounds.
    redial_s: how long a broken pair takes to reconnect.
    """

    def __init__(
        self,
        rng: random.Random,
        *,
        delay_s: tuple[float, float] = (0.001, 0.005),
        redial_s: float = 0.2,
        limits: LinkLimits | None = None,
    ) -> None:
        self._seed = rng.getrandbits(64)
        self._delay_s = _checked_delay(delay_s)
        self._redial_s = redial_s
        self._limits = limits or LinkLimits()
        self._nodes: dict[PeerId, MemoryTransport] = {}
        self._pairs: dict[frozenset[PeerId], _Pair] = {}
        self._lanes: defaultdict[PeerId, dict[PeerId, _Lane]] = defaultdict(dict)
        self._actions: list[_Action] = []
        self._rest = trio.CancelScope()

    def transport(self, peer: PeerId, role: PeerRole = PeerRole.MEMBER) -> "MemoryTransport":
        """A node of this network, there while its `run` runs. A restarted node is a new one with the same id."""
        return MemoryTransport(self, peer, role)

    async def run(self) -> None:
        """Carry out what is due, until cancelled."""
        while True:
            with trio.move_on_at(self._actions[0].due_s if self._actions else math.inf) as self._rest:
                await trio.Event().wait()
            while self._actions and self._actions[0].due_s <= trio.current_time():
                heapq.heappop(self._actions).carry_out()

    def set_delay(self, source: PeerId, destination: PeerId, delay_s: tuple[float, float]) -> None:
        """Change the bounds of one direction's delay, for frames sent from now on. Raises TransportError."""
        self._lane(source, destination).delay_s = _checked_delay(delay_s)

    def cut(self, one: PeerId, other: PeerId) -> None:
        """Let nothing through between two nodes. Each finds out by the other's silence."""
        pair = self._pair(one, other)
        if pair.is_cut:
            return
        pair.is_cut = True
        pair.cuts += 1
        cuts, generation = pair.cuts, pair.generation

        def notice() -> None:
            if pair.is_cut and pair.cuts == cuts:
                for lane in pair.lanes:
                    self._close(lane, generation, PeerDisconnected(lane.destination, DropReason.SILENT))

        self._schedule(pair.lanes[0], trio.current_time() + self._limits.silence_limit_s, notice)

    def mend(self, one: PeerId, other: PeerId) -> None:
        """End a cut: what waited goes on its way, or the nodes reconnect."""
        pair = self._pair(one, other)
        if pair.is_cut:
            pair.is_cut = False
            held, pair.held = pair.held, []
            for lane, effect in held:
                self._convey(lane, effect)
            self._reconnect(pair)

    def partition(self, *groups: Collection[PeerId]) -> None:
        """Cut every pair with a node in each of two groups."""
        for one_group, other_group in combinations(groups, 2):
            for one, other in product(one_group, other_group):
                self.cut(one, other)

    def heal(self) -> None:
        """Mend every cut."""
        for pair in list(self._pairs.values()):
            self.mend(pair.lanes[0].source, pair.lanes[0].destination)

    def join(self, node: "MemoryTransport") -> None:
        """Put a node on the network. Raises TransportError if one with its id is there."""
        if node.peer_id in self._nodes:
            raise TransportError(f"{node.peer_id} runs already")
        self._nodes[node.peer_id] = node
        for peer in self._nodes:
            if peer != node.peer_id:
                self._reconnect(self._pair(node.peer_id, peer))

    def leave(self, node: "MemoryTransport") -> None:
        """Take a node off the network; its peers see the connection close."""
        del self._nodes[node.peer_id]
        for peer in self.connected(node.peer_id):
            self._end(self._lane(node.peer_id, peer), DropReason.CLOSED, by_peer=False)

    def connected(self, source: PeerId) -> frozenset[PeerId]:
        """The peers that `source` considers itself connected to."""
        return frozenset(peer for peer, lane in self._lanes[source].items() if lane.is_open)

    def send(self, source: PeerId, destination: PeerId, payload: bytes) -> bool:
        """See `Transport.send`."""
        if len(payload) > self._limits.max_payload_bytes:
            raise TransportError(f"a payload of {len(payload)} bytes is over the limit")
        lane = self._lane(source, destination)
        if not lane.is_open:
            return False
        cost_bytes = len(payload) + FRAME_OVERHEAD_BYTES
        if lane.queued_bytes + cost_bytes > self._limits.max_queued_bytes:
            self.drop(source, destination, DropReason.SLOW_CONSUMER)
            return False
        lane.queued_bytes += cost_bytes
        generation = self._pair(source, destination).generation

        def arrive() -> None:
            if self._pair(source, destination).generation == generation:
                lane.queued_bytes -= cost_bytes
                if self._lane(destination, source).is_open:
                    self._tell(destination, FrameReceived(source, payload))

        self._convey(lane, arrive)
        return True

    def drop(self, source: PeerId, destination: PeerId, reason: DropReason) -> None:
        """See `Transport.drop`."""
        lane = self._lane(source, destination)
        if lane.is_open:
            self._end(lane, reason, by_peer=True)

    def round_trip_ms(self, source: PeerId, destination: PeerId) -> float | None:
        """The mean over both directions' bounds; None when not connected."""
        there, back = self._lane(source, destination), self._lane(destination, source)
        return (sum(there.delay_s) + sum(back.delay_s)) / 2 * 1000 if there.is_open else None

    def _end(self, lane: _Lane, reason: DropReason, *, by_peer: bool) -> None:
        """The lane's source ends the connection. by_peer: it says why, in the other's eyes."""
        back = self._lane(lane.destination, lane.source)
        generation = self._pair(lane.source, lane.destination).generation
        self._close(lane, generation, PeerDisconnected(lane.destination, reason))
        self._convey(lane, lambda: self._close(back, generation, PeerDisconnected(lane.source, reason, by_peer)))

    def _close(self, lane: _Lane, generation: int, event: PeerDisconnected) -> None:
        """The lane's source learns that the connection has ended."""
        pair = self._pair(lane.source, lane.destination)
        if lane.is_open and pair.generation == generation:
            lane.is_open = False
            self._tell(lane.source, event)
            self._reconnect(pair)

    def _reconnect(self, pair: _Pair) -> None:
        if not pair.is_connecting:
            pair.is_connecting = True
            self._schedule(pair.lanes[0], trio.current_time() + self._redial_s, lambda: self._connect(pair))

    def _connect(self, pair: _Pair) -> None:
        pair.is_connecting = False
        one, other = (self._nodes.get(lane.source) for lane in pair.lanes)
        if one is None or other is None or pair.is_cut or any(lane.is_open for lane in pair.lanes):
            return
        if PeerRole.MEMBER not in (one.role, other.role):
            return
        pair.generation += 1
        for lane, peer in zip(pair.lanes, (other, one), strict=True):
            lane.is_open = True
            lane.queued_bytes = 0
            self._tell(lane.source, PeerConnected(peer.peer_id, peer.role, SOFTWARE))

    def _convey(self, lane: _Lane, effect: Callable[[], None]) -> None:
        """Bring about `effect` at the lane's destination once it got there."""
        pair = self._pair(lane.source, lane.destination)

        def arrive() -> None:
            if pair.is_cut:
                pair.held.append((lane, effect))
            else:
                effect()

        self._schedule(lane, lane.next_due_s(trio.current_time()), arrive)

    def _pair(self, one: PeerId, other: PeerId) -> _Pair:
        key = frozenset((one, other))
        if (pair := self._pairs.get(key)) is None:
            low, high = sorted(key)
            pair = self._pairs[key] = _Pair((self._lane(low, high), self._lane(high, low)))
        return pair

    def _lane(self, source: PeerId, destination: PeerId) -> _Lane:
        if (lane := self._lanes[source].get(destination)) is None:
            rng = random.Random(f"{self._seed}/{source}/{destination}")
            lane = self._lanes[source][destination] = _Lane(source, destination, rng, self._delay_s)
        return lane

    def _schedule(self, lane: _Lane, due_s: float, carry_out: Callable[[], None]) -> None:
        lane.serial += 1
        heapq.heappush(self._actions, _Action(due_s, lane.source, lane.destination, lane.serial, carry_out))
        self._rest.deadline = self._actions[0].due_s

    def _tell(self, peer: PeerId, event: TransportEvent) -> None:
        if (node := self._nodes.get(peer)) is not None:
            node.tell(event)


class MemoryTransport:
    """One node's `Transport`; made by `MemoryNetwork.transport`. Its event channel holds as much as is sent."""

    def __init__(self, network: MemoryNetwork, peer: PeerId, role: PeerRole) -> None:
        self.role = role
        self._network = network
        self._peer_id = peer
        self._events_in, self._events = trio.open_memory_channel[TransportEvent](math.inf)

    @property
    def peer_id(self) -> PeerId:
        """See `Transport`."""
        return self._peer_id

    @property
    def listen_addresses(self) -> tuple[PeerAddress, ...]:
        """None: the nodes of one network find each other."""
        return ()

    @property
    def events(self) -> trio.MemoryReceiveChannel[TransportEvent]:
        """See `Transport`."""
        return self._events

    def connected(self) -> frozenset[PeerId]:
        """See `Transport`."""
        return self._network.connected(self._peer_id)

    def send(self, peer: PeerId, payload: bytes) -> bool:
        """See `Transport`."""
        return self._network.send(self._peer_id, peer, payload)

    def drop(self, peer: PeerId, reason: DropReason) -> None:
        """See `Transport`."""
        self._network.drop(self._peer_id, peer, reason)

    def round_trip_ms(self, peer: PeerId) -> float | None:
        """See `Transport`."""
        return self._network.round_trip_ms(self._peer_id, peer)

    async def run(self, *, task_status: "TaskStatus[None]" = trio.TASK_STATUS_IGNORED) -> None:
        """See `Transport`."""
        self._network.join(self)
        try:
            task_status.started()
            await trio.sleep_forever()
        finally:
            self._network.leave(self)
            self._events_in.close()

    def tell(self, event: TransportEvent) -> None:
        """For the network: let the node know."""
        with suppress(trio.BrokenResourceError):  # the node has stopped reading
            self._events_in.send_nowait(event)


def _checked_delay(delay_s: tuple[float, float]) -> tuple[float, float]:
    if not 0 < delay_s[0] <= delay_s[1]:
        raise TransportError(f"delays between {delay_s[0]} and {delay_s[1]} seconds")
    return delay_s
