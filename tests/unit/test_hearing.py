"""What members say to the consensus machine: whose blocks are read, and whose are not worth it."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from federation.certificate import VoteKind
from pegnode.chain.block import Block, Body
from pegnode.consensus.actions import ConsensusReason
from pegnode.net.messages import BlockAnswer, BlockRequest, ProposalMessage, VotesMessage
from pegnode.net.transport import DropReason
from tests.support.driver_rig import DriverRig, driver_rig

LEADER = 3
VIEW = 3


@pytest.fixture
def member(tmp_path: Path) -> Iterator[DriverRig]:
    with driver_rig(tmp_path) as ready:
        yield ready


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Every body that was read since."""
    bodies: list[bytes] = []
    decode = Body.decode

    def noting(data: bytes) -> Body:
        bodies.append(data)
        return decode(data)

    monkeypatch.setattr(Body, "decode", noting)
    return bodies


def notarized(member: DriverRig, block: Block) -> bool:
    return (VoteKind.NOTARIZE, block.hash) in [(vote.kind, vote.block_hash) for vote in member.own_votes()]


@pytest.mark.parametrize("vote_first", [False, True])
async def test_blocks_of_one_leader_and_view_cost_one_reading_however_many_it_signs(
    member: DriverRig, read: list[bytes], autojump_clock: trio.abc.Clock, vote_first: bool
) -> None:
    """A vote for yet another block comes first, perhaps: then no block is the one that it votes for."""
    async with member.running():
        if vote_first:
            other = member.vote(LEADER, VoteKind.NOTARIZE, VIEW, member.proposal(VIEW, later_ms=1_000).hash)
            member.wire.deliver(member.peers.peer_of(LEADER), VotesMessage((other.encode(),)))
        for salt in range(30):
            member.deliver(member.proposal(VIEW, later_ms=salt))
        await trio.sleep(0.1)
        assert len(read) == (0 if vote_first else 1)
        assert member.wire.dropped == []


async def test_proposal_that_comes_again_is_not_read_again(
    member: DriverRig, read: list[bytes], autojump_clock: trio.abc.Clock
) -> None:
    async with member.running():
        for _ in range(5):
            member.deliver(member.proposal(1))
            await trio.sleep(0.1)
        assert len(read) == 1
        assert notarized(member, member.proposal(1))


@pytest.mark.parametrize(
    ("leader", "voter", "voted_view"),
    [(2, 2, VIEW), (2, 3, VIEW), (3, 2, VIEW), (3, 3, VIEW + 4)],
    ids=["not-the-leader", "not-the-leader's-block", "not-the-leader's-vote", "another-view's-vote"],
)
async def test_proposal_that_is_not_its_views_leaders_is_dropped_unread_with_its_sender(
    member: DriverRig,
    read: list[bytes],
    autojump_clock: trio.abc.Clock,
    leader: int,
    voter: int,
    voted_view: int,
) -> None:
    block = member.proposal(VIEW)
    block = Block(replace(block.header, leader=leader), block.body)
    vote = member.vote(voter, VoteKind.NOTARIZE, voted_view, block.hash)
    async with member.running():
        sender = member.peers.peer_of(2)
        member.wire.deliver(sender, ProposalMessage(block.encode(), vote.encode(), ()))
        await trio.sleep(0.1)
        assert member.wire.dropped == [(sender, DropReason.MISPLACED_MESSAGE)]
        assert read == []


async def test_proposal_of_a_later_view_waits_for_this_member_to_get_there(
    member: DriverRig, read: list[bytes], autojump_clock: trio.abc.Clock
) -> None:
    """As far ahead as each member leads once more; further ahead it comes again, or with what leads there."""
    near, far = member.proposal(5), member.proposal(6)
    async with member.running():
        member.deliver(near)
        member.deliver(far)
        await trio.sleep(0.1)
        assert read == [near.body.encode()]
        assert member.wire.dropped == []
        member.tell(*(member.nullification(view) for view in range(1, 5)))
        await trio.sleep(0.1)
        assert notarized(member, near)
        member.deliver(far, member.nullification(5))
        await trio.sleep(0.1)
        assert notarized(member, far)


async def test_proposal_of_a_view_that_is_over_is_not_read_and_nobodys_fault(
    member: DriverRig, read: list[bytes], autojump_clock: trio.abc.Clock
) -> None:
    async with member.running():
        member.tell(member.nullification(1))
        await trio.sleep(0.1)
        member.deliver(member.proposal(1))
        await trio.sleep(0.1)
        assert (read, member.wire.dropped) == ([], [])


@pytest.mark.parametrize("how", ["answer", "proposal"])
async def test_second_block_of_a_leader_is_taken_once_a_quorum_notarized_it(
    member: DriverRig, read: list[bytes], autojump_clock: trio.abc.Clock, how: str
) -> None:
    first, second = member.proposal(1), member.proposal(1, later_ms=1)
    async with member.running():
        member.deliver(first)
        await trio.sleep(0.1)
        member.deliver(second)
        await trio.sleep(0.1)
        assert len(read) == 1
        member.tell(member.certificate(VoteKind.NOTARIZE, 1, second.hash))
        await trio.sleep(0.1)
        assert BlockRequest(second.hash) in member.wire.sent
        if how == "answer":
            member.wire.deliver(member.peers.peer_of(2), BlockAnswer(second.hash, second.encode()))
        else:
            member.deliver(second)
        await trio.sleep(0.1)
        assert len(read) == 2
        member.tell(member.certificate(VoteKind.FINALIZE, 1, second.hash))
        await trio.sleep(0.1)
        assert member.core.store.tip.hash == second.hash


async def test_machine_says_why_it_has_no_use_for_a_block(member: DriverRig, autojump_clock: trio.abc.Clock) -> None:
    machine = member.driver._machine
    kept = member.proposal(5)

    def reason(block: Block, view: int, leader: int | None = None) -> ConsensusReason | None:
        voter = member.chain.rules.membership.leader(view) if leader is None else leader
        return machine.unwanted(member.vote(voter, VoteKind.NOTARIZE, view, block.hash))

    async with member.running():
        member.tell(member.nullification(1))
        member.deliver(kept)
        await trio.sleep(0.1)
        assert reason(kept, 5) is None
        assert reason(member.proposal(5, later_ms=1), 5) is ConsensusReason.EQUIVOCATION
        assert reason(member.proposal(6), 6) is None
        assert reason(member.proposal(7), 7) is ConsensusReason.VIEW_TOO_FAR
        assert reason(member.proposal(1), 1) is ConsensusReason.VIEW_PASSED
        assert reason(member.proposal(3), 3, leader=2) is ConsensusReason.NOT_LEADER
