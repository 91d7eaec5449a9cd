"""The network in memory with more mishaps: some that no transport prevents, and some worse than any real one's.

Of the messages of consensus any may be lost, come twice, or overtake another: the protocol bears it, and says all of it
again. The other parts rely on the transport's promise, so for them connections break, and nothing else happens. A lane,
one direction of a pair, may be blocked by itself: its frames wait, and when the silence lasts too long both sides end
the connection.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random

import trio

from pegnode.net.memory import MemoryNetwork, _Lane, _Pair
from pegnode.net.messages import CertificatesMessage, ProposalMessage, VotesMessage, encode_message
from pegnode.net.transport import DropReason, FrameReceived, PeerDisconnected, PeerId, TransportEvent
from tests.sim.seams import Adversary

_SAMPLES = (ProposalMessage(b"", b"", ()), VotesMessage(()), CertificatesMessage(()))
SAID_AGAIN = frozenset(encode_message(message)[1] for message in _SAMPLES)
"""The second byte of a frame is its message's tag. These may be lost, come twice, and overtake one another."""


@dataclass(frozen=True, slots=True)
class Weather:
    """Probabilities for each message of consensus. reorder_s: how much later one may come that is overtaken."""

    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    reorder_s: float = 0.5


FAIR = Weather()


class SimNetwork(MemoryNetwork):
    """on_sent: told of every frame that an honest member's process sends, before anything can happen to it."""

    def __init__(
        self, rng: Random, delay_s: tuple[float, float], on_sent: Callable[[PeerId, PeerId, bytes], None]
    ) -> None:
        super().__init__(rng, delay_s=delay_s)
        self.weather = FAIR
        self.adversaries: dict[PeerId, Adversary] = {}
        self.gone: set[PeerId] = set()
        self._rng = Random(f"weather {rng.getrandbits(64)}")
        self._on_sent = on_sent
        self._blocks: Counter[tuple[PeerId, PeerId]] = Counter()
        self._serials: Counter[tuple[PeerId, PeerId]] = Counter()
        self._waiting: defaultdict[tuple[PeerId, PeerId], list[tuple[_Lane, Callable[[], None]]]] = defaultdict(list)
        self._held: dict[PeerId, list[tuple[PeerId, int, bytes]]] = {}

    # what members send

    def send(self, source: PeerId, destination: PeerId, payload: bytes) -> bool:
        """See `Transport.send`; a process that is gone sends nothing."""
        if source in self.gone or not self._lane(source, destination).is_open:
            return False
        if source in self._held:
            self._held[source].append((destination, self._pair(source, destination).generation, payload))
            return True
        adversary = self.adversaries.get(source)
        if adversary is None:
            self._on_sent(source, destination, payload)
            return self._carry(source, destination, payload)
        for frame in adversary.outgoing(destination, payload):
            self._carry(source, destination, frame)
        return True

    def hold(self, source: PeerId) -> None:
        """Keep what it sends until it is released; and nobody connects to it."""
        self._held.setdefault(source, [])

    def release(self, source: PeerId) -> None:
        """Send what was kept, unless its connection ended; of a process that is gone, nothing."""
        if source not in self._held:
            return
        for destination, generation, payload in self._held.pop(source):
            if self._pair(source, destination).generation == generation:
                self.send(source, destination, payload)
        for destination, lane in self._lanes[source].items():
            if not lane.is_open:
                self._reconnect(self._pair(source, destination))

    def inject(self, source: PeerId, destination: PeerId, payload: bytes) -> None:
        """A frame that `source`'s member did not send; nothing happens when the two are not connected."""
        lane = self._lane(source, destination)
        generation = self._pair(source, destination).generation

        def arrive() -> None:
            if self._pair(source, destination).generation == generation and self._lane(destination, source).is_open:
                self._tell(destination, FrameReceived(source, payload))

        if lane.is_open:
            self._convey(lane, arrive)

    def _carry(self, source: PeerId, destination: PeerId, payload: bytes) -> bool:
        weather = self.weather
        if weather is FAIR or len(payload) < 2 or payload[1] not in SAID_AGAIN:
            return super().send(source, destination, payload)
        if self._rng.random() < weather.loss:
            return True
        if self._rng.random() < weather.duplicate:
            self._overtaken(source, destination, payload)
        if self._rng.random() < weather.reorder:
            self._overtaken(source, destination, payload)
            return True
        return super().send(source, destination, payload)

    def _overtaken(self, source: PeerId, destination: PeerId, payload: bytes) -> None:
        """Send a frame that arrives later, whatever its lane promises."""
        pair, generation = self._pair(source, destination), self._pair(source, destination).generation
        lane = self._lane(source, destination)

        def arrive() -> None:
            if self._blocks[source, destination]:
                self._waiting[source, destination].append((lane, arrive))
            elif pair.generation == generation and self._lane(destination, source).is_open:
                self._tell(destination, FrameReceived(source, payload))

        late_s = self._rng.uniform(*self._delay_s) + self._rng.uniform(0, self.weather.reorder_s)
        self._schedule(lane, trio.current_time() + late_s, arrive)

    def _tell(self, peer: PeerId, event: TransportEvent) -> None:
        if isinstance(event, FrameReceived) and peer in self.adversaries:
            self.adversaries[peer].incoming(event.peer, event.payload)
        if peer not in self.gone:
            super()._tell(peer, event)

    # lanes that are blocked

    def block(self, lanes: Iterable[tuple[PeerId, PeerId]]) -> None:
        """Let nothing through from the first of each pair to the second, until it is unblocked as often."""
        for source, destination in lanes:
            self._blocks[source, destination] += 1
            if self._blocks[source, destination] == 1:
                self._serials[source, destination] += 1
                self._await_silence(source, destination)

    def unblock(self, lanes: Iterable[tuple[PeerId, PeerId]]) -> None:
        """End a block: what waited goes on its way, or the nodes reconnect."""
        for source, destination in lanes:
            self._blocks[source, destination] -= 1
            if not self._blocks[source, destination]:
                for lane, effect in self._waiting.pop((source, destination), []):
                    self._convey(lane, effect)
                self._reconnect(self._pair(source, destination))

    def _await_silence(self, source: PeerId, destination: PeerId) -> None:
        pair = self._pair(source, destination)
        serial = self._serials[source, destination]
        generation = pair.generation

        def notice() -> None:
            if self._blocks[source, destination] and self._serials[source, destination] == serial:
                for lane in pair.lanes:
                    self._close(lane, generation, PeerDisconnected(lane.destination, DropReason.SILENT))

        self._schedule(pair.lanes[0], trio.current_time() + self._limits.silence_limit_s, notice)

    def _convey(self, lane: _Lane, effect: Callable[[], None]) -> None:
        key = (lane.source, lane.destination)

        def arrive() -> None:
            if self._blocks[key]:
                self._waiting[key].append((lane, effect))
            else:
                effect()

        self._schedule(lane, lane.next_due_s(trio.current_time()), arrive)

    def _connect(self, pair: _Pair) -> None:
        one, other = pair.lanes
        is_blocked = self._blocks[one.source, one.destination] or self._blocks[other.source, other.destination]
        if is_blocked or one.source in self._held or other.source in self._held:
            pair.is_connecting = False
        else:
            super()._connect(pair)
