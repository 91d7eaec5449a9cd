"""A test of the test: each kind of evil is really carried out, answered as it deserves, and brings nothing about."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import cast
from unittest import mock

import pytest

from pegnode.chain.block import Block
from pegnode.consensus.events import Verdict
from pegnode.net.transport import DropReason
from pegnode.service.judge import Judge
from tests.sim import evil_answers, evil_leader, evil_memory, evil_votes, evil_wire
from tests.sim.adversary import EVILS, ByzantineMember, carried_out, kinds_done
from tests.sim.bad_blocks import KINDS
from tests.sim.determinism import HASH_SEED, is_hash_seeded
from tests.sim.evil import Evil, Villain
from tests.sim.knowledge import Knowledge
from tests.sim.outside import Everybody
from tests.sim.plan import Disturbance, Kind, Plan
from tests.sim.play import play
from tests.sim.seams import World
from tests.sim.watch import BLAMELESS
from tests.sim.world import SimWorld

EVIL_MEMBER, CUT_OFF, PARTED = 1, 3, 2
BAD_TIME_S = 6.0
ROOT = Path(__file__).parents[2]
TRIES = 6
OTHERS = 2
"""Tests in this file that are no evil's own."""

Answers = frozenset[DropReason]
FORGED = frozenset({DropReason.FALSE_SIGNATURE})
GARBLED = frozenset({DropReason.GARBLED_MESSAGE})
MISPLACED = frozenset({DropReason.MISPLACED_MESSAGE})
FALSE = frozenset({DropReason.FALSE_TRANSACTION, DropReason.FALSE_EVIDENCE, DropReason.FALSE_BLOCKS})
ANSWERS: dict[type[Evil], Answers] = {
    evil_leader.BadBlocks: MISPLACED | GARBLED,
    evil_leader.OtherBodies: GARBLED,
    evil_votes.ForgeVotes: FORGED,
    evil_votes.ForgeCertificates: FORGED,
    evil_answers.FalseFinalBlocks: frozenset({DropReason.FALSE_BLOCKS}) | MISPLACED | GARBLED,
    evil_answers.FalseBlocks: MISPLACED | GARBLED,
    evil_answers.FalseShares: FORGED,
    evil_answers.FalseItems: FALSE | FORGED | GARBLED | MISPLACED,
    evil_memory.FalseMemories: MISPLACED | GARBLED | FORGED,
    evil_memory.FalseGuilt: FORGED,
    evil_wire.Garbage: FALSE | FORGED | GARBLED | MISPLACED,
    evil_wire.Replay: MISPLACED | GARBLED,
}
"""For which an honest member ends the connection. Of the others each frame is one that an honest member could send."""
CONVICTED = "is convicted"
SPLIT = "two blocks of a view"
FURTHER: dict[type[Evil], frozenset[str]] = {
    evil_leader.Twins: frozenset({CONVICTED, SPLIT}),
    evil_leader.BadBlocks: frozenset({Verdict.INVALID.name}),
    evil_leader.KeepBodies: frozenset({f"{evil_leader.KeepBodies.name}: asked"}),
    evil_votes.VoteForAll: frozenset({CONVICTED}),
    evil_votes.Contradict: frozenset({CONVICTED}),
    evil_memory.TwinsForRestarted: frozenset({CONVICTED}),
}
"""What else has to come of it: a proof, a verdict on a block of its own, two that are judged, a variety of it."""


class OneEvil(Everybody):
    """An outside whose evil member knows one kind of evil, and lets no occasion go by."""

    def __init__(self, kind: type[Evil]) -> None:
        self.kind = kind

    def adversary_of(self, world: World, index: int, rng: Random) -> ByzantineMember:
        """Who plays the evil member."""
        self.adversary = ByzantineMember(world, index, rng, [self.kind])
        self.adversary.evils[0].eagerness = 1.0
        return self.adversary


def played(kind: type[Evil], seed: int) -> tuple[SimWorld, ByzantineMember]:
    """Four members, one of them evil; another is cut off for a while, and a third is killed."""
    plan = replace(
        Plan.calm(seed, bad_time_s=BAD_TIME_S),
        byzantine=(EVIL_MEMBER,),
        delay_s=(0.001, 0.02),
        disturbances=(
            Disturbance(1.0, 2.0, Kind.CUT, (CUT_OFF,)),
            Disturbance(4.0, 1.0, Kind.POWER, (PARTED,)),
        ),
    )
    outside = OneEvil(kind)
    return play(plan, outside), outside.adversary


@contextmanager
def judged() -> Iterator[Counter[str]]:
    """Counts the verdicts on blocks that the evil member leads with, which itself judges none of its own."""
    verdicts: Counter[str] = Counter()
    blocks: dict[int, bytes] = {}
    judge = Judge.judge

    async def noted(self: Judge, block: Block, data: bytes) -> Verdict:
        verdict = await judge(self, block, data)
        if block.header.leader == EVIL_MEMBER:
            verdicts[verdict.name] += 1
            verdicts[SPLIT] += blocks.setdefault(block.header.view, block.header.hash) != block.header.hash
        return verdict

    with mock.patch.object(Judge, "judge", noted):
        yield verdicts


def answers(world: SimWorld) -> Answers:
    """Why honest members dropped the evil one."""
    lines = [line for line in world.trace.lines() if f"drops member {EVIL_MEMBER}:" in line]
    return frozenset(reason for reason in DropReason for line in lines if line.endswith(f" {reason.value}"))


@pytest.mark.skipif(is_hash_seeded(), reason="this is the process that it starts")
def test_all_evils_in_a_process_whose_hashes_are_those_of_every_run() -> None:
    """One for all: they order sets of strings, and so what happens."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    environment = {**os.environ, "PYTHONHASHSEED": HASH_SEED}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"{len(EVILS) + OTHERS} passed" in run.stdout


def is_convicted(world: SimWorld) -> bool:
    """Whether an honest member has proof that the evil one signed what excludes each other."""
    stores = [disk.open_store(world.rules) for index, disk in world.disks.items() if index != EVIL_MEMBER]
    return any(proof.member == EVIL_MEMBER for store in stores for proof in store.equivocations())


@pytest.mark.skipif(not is_hash_seeded(), reason="run by the test before")
@pytest.mark.parametrize("kind", EVILS, ids=lambda kind: kind.name)
def test_evil_is_carried_out_and_brings_nothing_about(kind: type[Evil]) -> None:
    """It is answered as it deserves in one of the first runs; nothing that must never happen does in any."""
    due, further = ANSWERS.get(kind, frozenset()), FURTHER.get(kind, frozenset())
    given, done = Answers(), Counter[str]()
    for seed in range(TRIES):
        with judged() as verdicts:
            world, adversary = played(kind, seed)
        assert world.violation is None
        given |= answers(world)
        assert given <= due | BLAMELESS
        done += adversary.carried_out + verdicts + Counter({CONVICTED: is_convicted(world)})
        if done[kind.name] and (given & due or not due) and all(done[name] for name in further):
            return
    pytest.fail(f"carried out: {done}, answers: {given}")


def test_villain_knows_the_most_impatient_of_the_honest_members() -> None:
    """Of those that run; before any does, it goes by what they begin with."""
    machines = [(True, 240), (True, 170), (False, 0)]
    honest = [SimpleNamespace(machine=SimpleNamespace(is_started=runs, timeout_ms=ms)) for runs, ms in machines]
    genesis = SimpleNamespace(consensus=SimpleNamespace(view_timeout_ms=300))
    for running, patience_s in ((honest, 0.17), (honest[2:], 0.3), ([], 0.3)):
        world = cast(World, SimpleNamespace(honest=running, genesis=genesis))
        villain = Villain(world, EVIL_MEMBER, Knowledge(world, {}), lambda *_: None)
        assert villain.patience_s == patience_s


@pytest.mark.skipif(not is_hash_seeded(), reason="run by the first test")
def test_evil_that_was_carried_out_is_counted() -> None:
    world, _ = played(evil_leader.BadBlocks, 0)
    counted = carried_out(world.network.adversaries.values())
    made = [name for name in counted if name.startswith("bad block: ")]
    assert made
    done = f"1 of {len(EVILS)} kinds of evil and {len(made)} of {len(KINDS)} of bad blocks"
    assert kinds_done(counted) == done
