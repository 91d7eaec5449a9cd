"""A test of the test: what the watch looks for it finds, by name, in a federation that is well but for one deed.

Each deed is done in the midst of whole members, by one of them or to one; without it the same run finds nothing.
"""

from collections.abc import Callable
from dataclasses import replace
from random import Random
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio

from bridge.bitcoin.identifiers import BlockHash
from federation.certificate import NO_BLOCK, Certificate, Vote, VoteKind
from federation.equivocation import Equivocation
from pegnode.chain.block import Block
from pegnode.consensus import actions as act
from pegnode.net.messages import Message, ProposalMessage, VotesMessage, encode_message
from pegnode.net.transport import DropReason
from pegnode.service.unfinal import UnfinalBlock
from tests.sim import recovery
from tests.sim.outside import Everybody
from tests.sim.plan import Plan
from tests.sim.play import play
from tests.sim.seams import Violation, World
from tests.sim.trace import Trace
from tests.sim.watch import Watch
from tests.sim.workload import Users
from tests.sim.world import SimWorld
from tests.support.equivocations import block_hash, signed_vote
from tests.support.memory_member import Member

DOER, OTHER, EVIL = 0, 2, 1
PLAN = replace(Plan.calm(1, bad_time_s=2.0), byzantine=(EVIL,))
DEED_S = 1.5
"""When there are final blocks, and votes above the journals' floors."""
UNKNOWN = BlockHash(bytes(31) + b"\x01")
NOTARIZE, NULLIFY, FINALIZE = VoteKind
Deed = Callable[[SimWorld], None]


class NoEvil(Everybody):
    """The Byzantine member does nothing but what honest ones do; at DEED_S something is done."""

    def __init__(self, deed: Deed) -> None:
        self._deed = deed

    def adversary_of(self, world: World, index: int, rng: Random) -> Any:
        """Sends what its member sends."""
        return SimpleNamespace(
            outgoing=lambda destination, payload: (payload,),
            incoming=lambda source, payload: None,
            run=trio.sleep_forever,
        )

    def workload_of(self, world: World, rng: Random) -> Users:
        """The users, and the deed."""
        return Doing(world, rng, self._deed)


class Doing(Users):
    """Users beside whom something is done."""

    def __init__(self, world: World, rng: Random, deed: Deed) -> None:
        super().__init__(world, rng)
        self._sim, self._deed = cast(SimWorld, world), deed

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(super().run)
            await trio.sleep_until(DEED_S)
            self._deed(self._sim)


def says(world: SimWorld, message: Message) -> None:
    """The doer's own process sends it."""
    world.members[DOER].transport.send(world.peer_id(OTHER), encode_message(message))


def said(world: SimWorld, kind: VoteKind) -> Vote:
    """The doer's newest vote of a kind, signed by nobody: the watch looks at what leaves, and needs no signature."""
    view = max(view for member, view, of in world.watch.said if member == DOER and of is kind)
    return Vote(kind, 0, view, world.watch.said[DOER, view, kind], DOER, bytes(64))


def votes_again(world: SimWorld) -> None:
    says(world, VotesMessage((replace(said(world, NOTARIZE), block_hash=UNKNOWN).encode(),)))


def gives_up_what_it_finalized(world: SimWorld) -> None:
    says(world, VotesMessage((replace(said(world, FINALIZE), kind=NULLIFY, block_hash=NO_BLOCK).encode(),)))


def votes_beside_its_journal(world: SimWorld) -> None:
    ahead = replace(said(world, NOTARIZE), view=world.watch.highest_view + 100)
    says(world, VotesMessage((ahead.encode(),)))


def proposes_another_block(world: SimWorld) -> None:
    member, vote = world.members[DOER], said(world, NOTARIZE)
    blocks = filter(None, map(member.store.block_at, range(member.height, 0, -1)))
    other = next(data for data in blocks if Block.decode_whole(data).hash != vote.block_hash)
    says(world, ProposalMessage(other, vote.encode(), ()))


def has_its_key_stolen(world: SimWorld) -> None:
    view = world.watch.highest_view
    votes = [signed_vote(world.rules, OTHER, view=view, block=block).encode() for block in (1, 2)]
    frame = encode_message(VotesMessage(tuple(votes)))
    world.network.inject(world.peer_id(EVIL), world.peer_id(DOER), frame)


def keeps_a_proof_for_itself(world: SimWorld) -> None:
    one, other = (signed_vote(world.rules, EVIL, block=block) for block in (1, 2))
    world.members[DOER].store.keep_equivocation(Equivocation.of(one, other))


def drops_another(world: SimWorld) -> None:
    world.members[DOER].transport.drop(world.peer_id(OTHER), DropReason.PROTOCOL_VIOLATION)


def ends_by_an_error(world: SimWorld) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("unplanned")

    world.members[DOER].store.block_at = fail  # type: ignore[method-assign,assignment]
    world.members[DOER].machine.handle = fail  # type: ignore[method-assign,assignment]


DEEDS: tuple[tuple[Deed, str], ...] = (
    (votes_again, "member 0 cast two NOTARIZE votes in view"),
    (gives_up_what_it_finalized, "member 0 finalized and nullified view"),
    (votes_beside_its_journal, "leaves, and a power failure would lose it"),
    (proposes_another_block, "member 0 proposes one block and votes for another in view"),
    (has_its_key_stolen, "member 0 keeps a proof against honest member 2"),
    (keeps_a_proof_for_itself, "honest members know of other guilty ones: [[], [], [1]]"),
    (drops_another, "member 0 drops honest member 2: protocol-violation"),
    (ends_by_an_error, "member 0 died of ZeroDivisionError: unplanned"),
)


@pytest.mark.parametrize(("deed", "violation"), DEEDS, ids=lambda item: getattr(item, "__name__", ""))
def test_watch_finds_deed(deed: Deed, violation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "SETTLE_S", 20.0)
    assert violation in str(play(PLAN, NoEvil(deed)).violation)


def test_watch_finds_nothing_where_nothing_is_done() -> None:
    assert play(PLAN, NoEvil(lambda world: None)).violation is None


# What whole members never say, whoever is among them: handed to the watch directly.


class Played:
    """A member of which the watch sees only what a test says."""

    def __init__(self, watch: Watch, index: int = DOER) -> None:
        self.watch, self.index = watch, index
        self.violations: list[str] = []
        self.actions: list[act.Action] = []
        self.machine = SimpleNamespace(handle=lambda event, now_ms: self.actions, view=1)
        self.store = SimpleNamespace(keep_equivocation=lambda proof: None, certificate_at=lambda height: None)
        self.core = SimpleNamespace(on_final=lambda told: setattr(self, "has_final", told))
        self.has_final: Callable[[UnfinalBlock], None] = lambda unfinal: None
        watch.attach(cast(Member, self), lambda violation: self.violations.append(str(violation)))

    def does(self, action: act.Action) -> list[str]:
        """What the watch says to that."""
        self.actions = [action]
        self.machine.handle(None, 0)
        return self.violations

    def finds_final(self, height: int, view: int) -> list[str]:
        """The same of a final block."""
        header = SimpleNamespace(height=height, view=view, hash=block_hash(100 * height + view))
        self.has_final(cast(UnfinalBlock, SimpleNamespace(block=SimpleNamespace(header=header), data=b"")))
        return self.violations

    def starts_at(self, height: int, view: int) -> None:
        """Its process starts with such a tip. Raises Violation."""
        header = SimpleNamespace(height=height, hash=block_hash(100 * height + view))
        self.store.tip = SimpleNamespace(header=header)
        self.watch.check_tip(self.index, cast(Member, self))


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    """Over members of whom EVIL is Byzantine."""
    monkeypatch.setattr(trio, "current_time", lambda: 0.0)
    return Watch(Trace(), {EVIL}, {}, bytes(32))


def vote_of(member: int) -> Vote:
    return Vote(NOTARIZE, 0, 9, UNKNOWN, member, bytes(64))


CERTIFICATE = Certificate(NOTARIZE, 0, 9, UNKNOWN, ())
NULLIFICATION = Certificate(NULLIFY, 0, 9, NO_BLOCK, ())


@pytest.mark.parametrize(
    ("action", "violation"),
    [
        (act.ReportEquivocation(vote_of(OTHER), vote_of(OTHER)), "member 0 accuses honest member 2"),
        (act.ReportConflictingCertificates(CERTIFICATE, NULLIFICATION), "reports ReportConflictingCertificates"),
        (act.ReportInvalidCertified(UNKNOWN, CERTIFICATE), "member 0 reports ReportInvalidCertified"),
        (act.ReportUnknownOwnVote(vote_of(DOER)), "member 0 does not know its own vote: view 9, NOTARIZE"),
    ],
    ids=lambda item: type(item).__name__,
)
def test_watch_finds_report(watch: Watch, action: act.Action, violation: str) -> None:
    [found] = Played(watch).does(action)
    assert violation in found


def test_watch_finds_nothing_in_what_is_due(watch: Watch) -> None:
    """Who is Byzantine is accused, and an excused member may have forgotten what it said."""
    watch.excused.add(OTHER)
    assert not Played(watch).does(act.ReportEquivocation(vote_of(EVIL), vote_of(EVIL)))
    assert not Played(watch).does(act.ReportEquivocation(vote_of(OTHER), vote_of(OTHER)))
    assert not Played(watch, OTHER).does(act.ReportUnknownOwnVote(vote_of(OTHER)))
    assert not Played(watch).does(act.SaveCertificate(NULLIFICATION))


def test_watch_finds_final_block_beside_another(watch: Watch) -> None:
    assert not Played(watch).finds_final(1, view=1)
    assert not Played(watch, OTHER).finds_final(1, view=1)
    assert Played(watch, OTHER).finds_final(1, view=2) == ["member 2 has another final block at height 1"]


def test_watch_finds_final_block_without_its_parent(watch: Watch) -> None:
    assert not Played(watch).finds_final(1, view=1)
    assert Played(watch).finds_final(3, view=3) == ["member 0 has block 3 and nobody block 2"]


def test_watch_finds_tip_that_was_never_final(watch: Watch) -> None:
    member = Played(watch)
    member.finds_final(1, view=1)
    member.starts_at(1, view=1)
    with pytest.raises(Violation, match="member 0 starts with a tip at height 2 that was never final"):
        member.starts_at(2, view=2)
    with pytest.raises(Violation, match="member 0 starts with another final block at height 1"):
        member.starts_at(1, view=2)
