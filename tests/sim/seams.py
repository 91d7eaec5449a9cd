"""What the parts of the simulator ask of one another.

The core (world, disk, network, watch) holds whole members; the adversary, the Bitcoin nodes, the users and the judge of
final blocks are made by the functions that `Outside` names, and see no more of the core than `World`.
"""

from collections.abc import Mapping, Sequence
from random import Random
from typing import Protocol

from pegnode.chain.parameters import ChainRules
from pegnode.genesis import Genesis
from pegnode.net.transport import PeerId
from tests.support.fake_l1_client import FakeL1Client, L1World
from tests.support.memory_member import Member


class Violation(Exception):  # noqa: N818 -- what the simulator looks for
    """Something happened that must never happen, or the chain did not go on. The text says what."""


class Network(Protocol):
    """What an adversary may do to the network."""

    def inject(self, source: PeerId, destination: PeerId, payload: bytes) -> None:
        """Send a frame that `source`'s member did not; it does not pass that member's adversary, and costs no queue."""


class World(Protocol):
    """What the outside sees of the simulated federation.

    members: the whole members that run now, by index; one that crashed is absent until it is back, as a new object.
    byzantine: who is evil; their members are real ones whose frames pass through an `Adversary`.
    is_healed: the bad time is over: everybody runs, everything arrives, and from now on the chain has to go on.
    incurable: honest members whose Bitcoin nodes stay ill even then, and without whom the chain has to go on.
    l1: the real L1; what single Bitcoin nodes see of it is `L1Views`' affair.
    """

    seed: int
    genesis: Genesis
    rules: ChainRules
    byzantine: frozenset[int]
    is_healed: bool
    incurable: frozenset[int]

    @property
    def members(self) -> Mapping[int, Member]: ...

    @property
    def l1(self) -> L1World: ...

    @property
    def network(self) -> Network: ...

    @property
    def honest(self) -> Sequence[Member]:
        """The honest members that run now, by rising index; after the healing only those that are to go on."""

    @property
    def bad_time_s(self) -> float:
        """How long the bad time lasts in virtual seconds, from the start of trio's clock."""

    def peer_id(self, index: int) -> PeerId: ...

    def vote_secret(self, index: int) -> bytes:
        """A member's vote key, 32 bytes."""

    def custody_secret(self, index: int) -> bytes:
        """A member's custody key, 32 bytes."""

    def random(self, purpose: str) -> Random:
        """A source of its own for each purpose, from the seed."""

    def note(self, who: str, what: str) -> None:
        """A line of the trace. who: "users", "miner", "member 3".  what: short, with short hashes."""


class Adversary(Protocol):
    """What stands between one Byzantine member, whole and real, and the network."""

    def outgoing(self, destination: PeerId, payload: bytes) -> Sequence[bytes]:
        """For each frame that its member sends: what is sent instead."""

    def incoming(self, source: PeerId, payload: bytes) -> None:
        """It sees all that its member hears."""

    async def run(self) -> None:
        """What it does of its own accord, by `world.network.inject`, until cancelled."""


class Oracle(Protocol):
    """An independent judge of the final chain."""

    def judge(self, block: bytes, certificate: bytes | None) -> None:
        """Each final block once, in order of heights. Raises Violation."""


class L1Views(Protocol):
    """The members' Bitcoin nodes. They outlive crashes of their members."""

    def client(self, index: int) -> FakeL1Client:
        """The same one at each start of a member."""

    async def run(self) -> None:
        """Let them lag, fork, disagree and fail, until cancelled."""

    def heal(self) -> None:
        """The bad time is over: all are well and agree, at once and for good."""


class Workload(Protocol):
    """The users, and the miner."""

    async def run(self) -> None:
        """Deposit, transfer, burn, mine, until cancelled; after `world.is_healed` nothing new but blocks of L1."""

    def unsettled(self) -> str:
        """For people: what is still to come."""

    def chain_goes_on(self, payout_blocks: int) -> None:
        """Told once, after the healing: the chain goes on everywhere.

        payout_blocks: what a payout may take from now on, in blocks of L1; who expires later is to be paid by then.
        """

    def settled(self) -> bool:
        """Whether all that was handed to an honest member is final everywhere that it should be.

        Asked after the healing alone: transfers final at each honest member (whoever lost one in a crash has handed it
        in again), deposits claimed, burns that offer enough paid and settled, or refunded if they expired too early for
        that. False as long as anything is still to come. Raises Violation when something will not come any more.
        """


class Outside(Protocol):
    """How the core makes the rest; each is called once for a seed, before any member runs."""

    def adversary_of(self, world: World, index: int, rng: Random) -> Adversary: ...

    def oracle_of(self, world: World) -> Oracle: ...

    def l1_views_of(self, world: World, rng: Random) -> L1Views: ...

    def workload_of(self, world: World, rng: Random) -> Workload: ...
