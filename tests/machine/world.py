"""A federation of bare machines under virtual time: one event queue, one source of randomness, a network that fails as
it is told to.

Everything that happens follows from the seed. A Watch looks at what leaves each member, and raises Violation at the
very step at which an honest member contradicts itself or two members disagree about a height.
"""

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from pegnode.consensus.parameters import ConsensusParams
from tests.machine.fake_chain import fake_membership
from tests.machine.messages import Message, Work
from tests.machine.simulated_member import SimulatedMember
from tests.machine.watch import Watch

PARAMS = ConsensusParams(
    block_interval_ms=200,
    view_timeout_ms=600,
    min_view_timeout_ms=150,
    max_view_timeout_ms=4800,
    heartbeat_ms=4000,
    resend_ms=300,
)


@dataclass(frozen=True)
class Faults:
    """What the network and the machines do wrong. Probabilities are per message, per step, per check."""

    min_delay_ms: int = 5
    max_delay_ms: int = 40
    drop: float = 0.0
    duplicate: float = 0.0
    crash: float = 0.0
    max_downtime_ms: int = 3000
    withhold_l1: float = 0.0
    wait_for_l1: float = 0.0
    build_fails: float = 0.0


HEALTHY = Faults()


class World:
    """The queue, the network, and the watch."""

    def __init__(self, seed: int, size: int, faults: Faults = HEALTHY, params: ConsensusParams = PARAMS) -> None:
        self.random = random.Random(seed)
        self.params = params
        self.membership = fake_membership(size)
        self.faults = faults
        self.now_ms = 0
        self.l1_news = False
        self.watch = Watch(self.membership)
        self.partition: dict[int, int] = {}
        self.submitted = 0
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._sequence = 0
        self.members: list[SimulatedMember] = [SimulatedMember(self, index) for index in range(size)]

    # the queue

    def after(self, delay_ms: int, do: Callable[[], None]) -> None:
        """Do something later; what is due at the same time goes in the order in which it was asked for."""
        self._sequence += 1
        heapq.heappush(self._queue, (self.now_ms + delay_ms, self._sequence, do))

    def run_until(self, end_ms: int, done: Callable[[], bool] = lambda: False) -> bool:
        """Let time pass; whether `done` came true before the end."""
        while not done():
            if not self._queue or self._queue[0][0] > end_ms:
                self.now_ms = end_ms
                return False
            self.now_ms, _, do = heapq.heappop(self._queue)
            do()
        return True

    def run_for(self, duration_ms: int, done: Callable[[], bool] = lambda: False) -> bool:
        """Let this much time pass."""
        return self.run_until(self.now_ms + duration_ms, done)

    # the network

    def send(self, source: int, target: int, message: Message) -> None:
        """Carry a message, or lose it, or carry it twice."""
        if self.partition.get(source) != self.partition.get(target) or self.random.random() < self.faults.drop:
            return
        copies = 2 if self.random.random() < self.faults.duplicate else 1
        for _ in range(copies):
            delay_ms = self.random.randint(self.faults.min_delay_ms, self.faults.max_delay_ms)
            self.after(delay_ms, lambda: self.members[target].receive(message, source))

    def submit(self, transactions: int = 1) -> None:
        """Hand a few transactions, each to a member that is up, who relays them."""
        for _ in range(transactions):
            self.submitted += 1
            up = [member for member in self.members if member.up]
            if up:
                self.random.choice(up).receive(Work(self.submitted), -1)

    def heal(self) -> None:
        """From now on everything works, and every member hears again of every transaction."""
        self.faults = replace(HEALTHY, withhold_l1=self.faults.withhold_l1)
        self.partition = {}
        for member in self.members:
            member.start()
            for transaction in range(1, self.submitted + 1):
                member.receive(Work(transaction), -1)

    # questions

    @property
    def honest(self) -> list[SimulatedMember]:
        """The members that follow the protocol, up or down."""
        return [member for member in self.members if member.index not in self.watch.byzantine]

    @property
    def height(self) -> int:
        """The highest height that any member knows to be final."""
        return max(self.watch.final, default=0)

    def all_reached(self, height: int) -> bool:
        """Whether every honest member stores this height."""
        return all(len(member.store) >= height for member in self.honest)

    def all_settled(self) -> bool:
        """Whether every transaction is final at every honest member."""
        return all(len(member.settled) == self.submitted for member in self.honest)
