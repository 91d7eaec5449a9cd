"""`python -m tests.machine.pace`: what dead, silent and dawdling leaders and slow networks cost, in virtual time.

Each figure is of a federation under steady load, with the times of `configs/local.toml` (4 members) or
`configs/federation-15.toml`; "fixed" has the timeout that these begin with, and never another.
"""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

from bridge.bitcoin.identifiers import BlockHash
from federation.certificate import Certificate, VoteKind
from pegnode.consensus.parameters import ConsensusParams
from tests.machine.fake_chain import fake_vote
from tests.machine.messages import Proposal
from tests.machine.simulated_member import SimulatedMember
from tests.machine.world import Faults, World

LOCAL = ConsensusParams(500, 2_000, 500, 16_000, 10_000, 2_000)
FIFTEEN = ConsensusParams(2_000, 10_000, 2_500, 80_000, 60_000, 10_000)
WARM_UP_TURNS = 6
"""So many blocks for each member are made before the clock starts."""
BLOCKS = 60


def fixed(params: ConsensusParams) -> ConsensusParams:
    """The same without learning."""
    return replace(params, min_view_timeout_ms=params.view_timeout_ms, max_view_timeout_ms=params.view_timeout_ms)


def delay(one_way_ms: int) -> Faults:
    """A network of this delay, give or take a tenth."""
    return Faults(min_delay_ms=max(one_way_ms * 9 // 10, 1), max_delay_ms=max(one_way_ms * 11 // 10, 1))


class Silent(SimulatedMember):
    """Votes as it should, and proposes nothing."""

    def propose(
        self, view: int, block_hash: BlockHash, certificates: tuple[Certificate, ...], members: tuple[int, ...]
    ) -> None:
        """Keep the block to itself."""


class Dawdler(SimulatedMember):
    """Proposes as late as it can so that a quorum still notarizes in time: it knows what the others measured."""

    def propose(
        self, view: int, block_hash: BlockHash, certificates: tuple[Certificate, ...], members: tuple[int, ...]
    ) -> None:
        """Wait nearly as long as the most impatient of the others."""
        network_ms = 3 * self.world.faults.max_delay_ms + 50
        patience_ms = min(self.world.members[other].machine.timeout_ms for other in self.others)
        vote = fake_vote(self.index, VoteKind.NOTARIZE, view, block_hash)
        proposal = Proposal(self.bodies[block_hash], vote, certificates)
        for member in members:
            self.later(max(patience_ms - network_ms, 0), partial(self.send, member, proposal))


@dataclass(frozen=True)
class Situation:
    """How many members, how far apart, who is dead, and who is of another kind."""

    name: str
    size: int
    delay_ms: int
    dead: tuple[int, ...] = ()
    other: tuple[tuple[int, type[SimulatedMember]], ...] = ()


@dataclass
class Load:
    """A federation that always has work."""

    world: World

    @classmethod
    def of(cls, situation: Situation, params: ConsensusParams) -> "Load":
        """Start it, and let every leader have some turns."""
        world = World(1, situation.size, delay(situation.delay_ms), params)
        for index, kind in situation.other:
            world.members[index] = kind(world, index)
        for member in world.members:
            if member.index not in situation.dead:
                member.start()
        load = cls(world)
        load._submit()
        load.blocks(WARM_UP_TURNS * situation.size)
        return load

    def blocks(self, count: int) -> float:
        """Wait for so many more final blocks; the mean time for each, in ms."""
        began_ms, height = self.world.now_ms, self.world.height
        if not self.world.run_for(24 * 3_600_000, lambda: self.world.height >= height + count):
            raise AssertionError(f"{self.world.height - height} of {count} blocks in a day")
        return (self.world.now_ms - began_ms) / count

    def timeout_ms(self) -> float:
        """The median of what the members that are up would wait."""
        return statistics.median(member.machine.timeout_ms for member in self.world.members if member.up)

    def _submit(self) -> None:
        self.world.submit()
        self.world.after(self.world.params.block_interval_ms // 2, self._submit)


def rows() -> Iterator[tuple[str, str, str, str]]:
    """What is printed: situation, time per block with fixed timeouts and with learned ones, timeout at the end."""
    four = [
        *(Situation(f"4 members, {ms} ms apart", 4, ms) for ms in (1, 50, 150, 400)),
        *(Situation(f"- one dead, {ms} ms", 4, ms, dead=(2,)) for ms in (1, 50, 150, 400)),
        Situation("- one silent, 50 ms", 4, 50, other=((2, Silent),)),
        Situation("- one dawdling, 50 ms", 4, 50, other=((2, Dawdler),)),
    ]
    fifteen = [
        *(Situation(f"15 members, {ms} ms apart", 15, ms) for ms in (50, 150)),
        *(Situation(f"- four dead in a row, {ms} ms", 15, ms, dead=(5, 6, 7, 8)) for ms in (50, 150)),
        *(Situation(f"- four dead here and there, {ms} ms", 15, ms, dead=(1, 5, 9, 13)) for ms in (50, 150)),
    ]
    for params, situations in ((LOCAL, four), (FIFTEEN, fifteen)):
        for situation in situations:
            before = Load.of(situation, fixed(params)).blocks(BLOCKS)
            load = Load.of(situation, params)
            yield situation.name, f"{before:,.0f}", f"{load.blocks(BLOCKS):,.0f}", f"{load.timeout_ms():,.0f}"


def slow_spell(slow_ms: int = 1_500, blocks: int = 20) -> list[tuple[str, str]]:
    """Four members 50 ms apart, for a while `slow_ms`, then as before."""
    load = Load.of(Situation("4 members, 50 ms apart", 4, 50), LOCAL)
    usual_ms = load.blocks(BLOCKS)
    load.world.faults = delay(slow_ms)
    first_ms, next_ms, timeout_ms = load.blocks(1), load.blocks(blocks), load.timeout_ms()
    load.world.faults = delay(50)
    again_ms, began_ms = load.blocks(4), load.world.now_ms
    while load.timeout_ms() > LOCAL.view_timeout_ms:
        load.blocks(1)
    return [
        ("time per block before", f"{usual_ms:,.0f}"),
        (f"one way takes {slow_ms:,} ms: first block after", f"{first_ms:,.0f}"),
        (f"time per block of the next {blocks}", f"{next_ms:,.0f}"),
        ("timeout then", f"{timeout_ms:,.0f}"),
        ("50 ms again: time per block of the first 4", f"{again_ms:,.0f}"),
        ("timeout is below its first value after", f"{load.world.now_ms - began_ms:,}"),
    ]


def main() -> None:
    """Print both tables."""
    print("| virtual ms | a block, fixed timeout | a block, learned | timeout learned |\n| --- | --- | --- | --- |")
    for row in rows():
        print("| " + " | ".join(row) + " |", flush=True)
    print("\n| a slow spell | virtual ms |\n| --- | --- |")
    for name, value in slow_spell():
        print(f"| {name} | {value} |")


if __name__ == "__main__":
    main()
