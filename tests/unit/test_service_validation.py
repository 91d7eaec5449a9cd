"""Blocks are checked, and built, in slices, between which others have their turn and the chain may move on."""

from collections.abc import AsyncIterator

import pytest
import trio

from bridge.bitcoin.script import ScriptType
from bridge.bitcoin.transaction import Transaction
from pegnode.chain.builder import build_in_steps
from pegnode.chain.rules import apply_in_steps
from pegnode.service import proposer, slices, validation
from pegnode.service.unfinal import UnfinalBlock
from pegnode.service.validation import validate
from tests.support.members import Member, MemoryFederation, memory_federation
from tests.support.mini_wallet import MiniWallet, coins_of

ALICE = MiniWallet("alice")
TRANSFERS = 6


class Scene:
    """A member alone, and transfers that the next block may hold."""

    def __init__(self, federation: MemoryFederation) -> None:
        self.federation = federation
        self.member: Member = federation.members[0]
        coin = federation.fund_by_hand(self.member, ALICE)
        parts = ALICE.pay(coin, *[ALICE.script(ScriptType.P2TR)] * TRANSFERS)
        federation.commit_block(self.member, parts)
        self.transfers: list[Transaction] = [ALICE.pay(part, ALICE.script()) for part in coins_of(parts)]
        self.pauses = 0

    async def note_pauses(self) -> None:
        """Count the turns that others get."""
        while True:
            await trio.lowlevel.checkpoint()
            self.pauses += 1

    def finalize(self, unfinal: UnfinalBlock) -> None:
        """Make a block final."""
        if self.member.core.unfinal.get(unfinal.block.hash) is None:
            self.member.core.unfinal.add(unfinal)
        self.member.core.finalize(unfinal.block.hash, self.federation.finalization(unfinal))


@pytest.fixture
async def scene(autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    monkeypatch.setattr(slices, "SLICE_S", 0.0)
    async with memory_federation(0) as federation:
        yield Scene(federation)


async def test_others_have_their_turn_while_a_block_is_checked(scene: Scene) -> None:
    block = scene.federation.next_block(scene.member.store, *scene.transfers)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scene.note_pauses)
        assert await validate(scene.member.core, block.block, block.data)
        nursery.cancel_scope.cancel()
    assert scene.pauses >= TRANSFERS // 2
    scene.finalize(block)
    assert scene.member.store.tip.hash == block.block.hash


async def test_block_whose_parent_becomes_final_in_a_pause_is_checked_anew(scene: Scene) -> None:
    member, federation = scene.member, scene.federation
    parent = federation.next_block(member.store, scene.transfers[0])
    member.core.unfinal.add(parent)
    block = federation.next_block(parent.state, *scene.transfers[1:])
    applied: list[int] = []

    def counting(*arguments: object) -> object:
        applied.append(1)
        return apply_in_steps(*arguments)  # type: ignore[arg-type]

    async def move_on() -> None:
        await trio.lowlevel.checkpoint()
        scene.finalize(parent)

    async with trio.open_nursery() as nursery:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(validation, "apply_in_steps", counting)
            nursery.start_soon(move_on)
            assert await validate(member.core, block.block, block.data)
    assert len(applied) == 2
    scene.finalize(block)
    assert all(member.store.index.transaction(transfer.txid) for transfer in scene.transfers)


async def test_block_whose_parent_is_gone_after_a_pause_is_not_kept(scene: Scene) -> None:
    member, federation = scene.member, scene.federation
    parent = federation.next_block(member.store, scene.transfers[0])
    other = federation.next_block(member.store)
    member.core.unfinal.add(parent)
    block = federation.next_block(parent.state, *scene.transfers[1:])

    async def move_on() -> None:
        await trio.lowlevel.checkpoint()
        scene.finalize(other)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(move_on)
        assert not await validate(member.core, block.block, block.data)
    assert member.core.unfinal.get(block.block.hash) is None
    assert member.core.halt_findings == []


# building


async def test_others_have_their_turn_while_a_block_is_built(scene: Scene) -> None:
    """A leader that builds a full block for seconds must hear what the others say meanwhile."""
    member = scene.member
    for transfer in scene.transfers:
        member.relay.submit_transaction(transfer.serialize())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scene.note_pauses)
        built = await member.proposer.build(member.store.tip.header.view + 1, member.store.tip.hash, include_l1=False)
        nursery.cancel_scope.cancel()
    assert scene.pauses >= TRANSFERS // 2
    assert built is not None
    assert len(built.block.body.transactions) == TRANSFERS


@pytest.mark.parametrize("is_gone", [False, True])
async def test_block_whose_parent_changes_in_a_pause_is_built_anew_or_not_at_all(scene: Scene, is_gone: bool) -> None:
    member, federation = scene.member, scene.federation
    parent = federation.next_block(member.store, scene.transfers[0])
    other = federation.next_block(member.store)
    member.core.unfinal.add(parent)
    for transfer in scene.transfers:
        member.relay.submit_transaction(transfer.serialize())
    begun: list[int] = []

    def counting(*arguments: object) -> object:
        begun.append(1)
        return build_in_steps(*arguments)  # type: ignore[arg-type]

    async def move_on() -> None:
        await trio.lowlevel.checkpoint()
        scene.finalize(other if is_gone else parent)

    async with trio.open_nursery() as nursery:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(proposer, "build_in_steps", counting)
            nursery.start_soon(move_on)
            built = await member.proposer.build(parent.block.header.view + 1, parent.block.hash, include_l1=False)
    if is_gone:
        assert (built, len(begun)) == (None, 1)
        return
    assert len(begun) == 2
    assert built is not None
    scene.finalize(built)
    assert all(member.store.index.transaction(transfer.txid) for transfer in scene.transfers)
