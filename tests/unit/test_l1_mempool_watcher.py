"""The mempool watcher against a Bitcoin node that the test plays."""

from collections.abc import Sequence

import pytest
import trio

from bridge.bitcoin.identifiers import OutPoint, Script, Txid
from bridge.bitcoin.transaction import Transaction, TxOut
from bridge.l1 import mempool_watcher
from bridge.l1.answers import L1TxOut
from bridge.l1.errors import L1Reason, L1Unavailable
from bridge.l1.mempool_watcher import MempoolWatcher
from bridge.l1.watcher import WINDOW_BLOCKS, L1Watcher
from pegnode.service.registry import MAX_REGISTERED
from tests.support.fake_l1_client import FakeL1Client, L1World

WATCHED = Script(b"\x51\x20" + b"\x07" * 32)
OTHER = Script(b"\x51\x20" + b"\x08" * 32)


class World:
    """A Bitcoin node with a mempool, and both watchers of it."""

    def __init__(self) -> None:
        self.watched = {WATCHED}
        self.l1 = L1World()
        self.l1.mine(3)
        self.node = FakeL1Client(self.l1)
        self.blocks = L1Watcher(self.node, 1)
        self.watcher = MempoolWatcher(self.node, self.blocks, self.watched.__contains__)

    def pay(self, *scripts: Script) -> Transaction:
        payment = self.l1.chain.payment(*(TxOut(1_000, script) for script in scripts))
        self.l1.mempool[payment.txid] = payment
        return payment

    async def look(self) -> list[tuple[OutPoint, bool]]:
        """Both watchers look; what is remembered, and whether it is gone."""
        await self.blocks.poll()
        await self.watcher.poll()
        return [(payment.outpoint, payment.is_gone) for payment in self.watcher.payments_to({WATCHED})]


async def test_payment_to_a_watched_script_is_remembered(autojump_clock: trio.abc.Clock) -> None:
    world = World()
    payment = world.pay(OTHER, WATCHED)
    world.pay(OTHER)
    assert await world.look() == [(payment.outpoint(1), False)]
    assert world.watcher.payments_to({OTHER}) == []


async def test_each_transaction_is_read_once(autojump_clock: trio.abc.Clock) -> None:
    world = World()
    world.pay(WATCHED)
    await world.look()
    world.node.asked.clear()
    await world.look()
    assert "raw_transactions" not in world.node.asked
    world.pay(WATCHED)
    assert len(await world.look()) == 2


async def test_payment_that_a_block_holds_is_forgotten(autojump_clock: trio.abc.Clock) -> None:
    world = World()
    world.pay(WATCHED)
    await world.look()
    world.l1.mine()
    await world.watcher.poll()
    assert len(world.watcher.payments_to({WATCHED})) == 1, "the block watcher has not told of it yet"
    assert await world.look() == []


async def test_payment_that_is_replaced_is_gone_until_it_is_back(autojump_clock: trio.abc.Clock) -> None:
    world = World()
    payment = world.pay(WATCHED)
    await world.look()
    del world.l1.mempool[payment.txid]
    assert await world.look() == [(payment.outpoint(0), True)]
    world.l1.mempool[payment.txid] = payment
    assert await world.look() == [(payment.outpoint(0), False)]


async def test_payment_that_was_gone_and_is_in_a_block_is_forgotten(autojump_clock: trio.abc.Clock) -> None:
    world = World()
    payment = world.pay(WATCHED)
    await world.look()
    del world.l1.mempool[payment.txid]
    await world.look()
    world.l1.chain.mine(payment)
    assert await world.look() == []


async def test_payment_that_is_gone_is_forgotten_with_the_blocks_of_its_time(autojump_clock: trio.abc.Clock) -> None:
    world = World()
    payment = world.pay(WATCHED)
    await world.look()
    del world.l1.mempool[payment.txid]
    await world.look()
    world.l1.mine(WINDOW_BLOCKS - 1)
    assert await world.look() == [(payment.outpoint(0), True)]
    world.l1.mine()
    assert await world.look() == []


async def test_payment_in_a_block_that_l1_gave_up_is_looked_for(autojump_clock: trio.abc.Clock) -> None:
    world = World()
    payment = world.l1.chain.payment(TxOut(1_000, WATCHED))
    world.l1.chain.mine(payment)
    assert await world.look() == []
    world.l1.chain.blocks.pop()
    world.l1.chain.mine_empty(2)
    assert await world.look() == [(payment.outpoint(0), True)]


async def test_large_mempool_is_read_some_at_a_time(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mempool_watcher, "READ_EACH_POLL", 5)
    monkeypatch.setattr(mempool_watcher, "READ_AT_ONCE", 2)
    world = World()
    for _ in range(12):
        world.pay(WATCHED)
    assert [len(await world.look()) for _ in range(4)] == [5, 10, 12, 12]
    assert world.node.asked.count("raw_transactions") == 3 + 3 + 1


async def test_oldest_payments_are_forgotten_first(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mempool_watcher, "MAX_REMEMBERED", 2)
    world = World()
    first = world.pay(WATCHED)
    await world.look()
    later = {world.pay(WATCHED).outpoint(0) for _ in range(2)}
    assert {outpoint for outpoint, _ in await world.look()} == later
    assert first.outpoint(0) not in later


async def test_whoever_is_paid_most_often_is_forgotten_first(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mempool_watcher, "MAX_REMEMBERED", 5)
    world = World()
    world.watched.add(OTHER)
    alone = world.pay(OTHER)
    await world.look()
    world.pay(*[WATCHED] * 4)
    await world.look()
    flood = world.pay(*[WATCHED] * 4)
    await world.look()
    assert [item.outpoint for item in world.watcher.payments_to({OTHER})] == [alone.outpoint(0)]
    assert [outpoint for outpoint, _ in await world.look()] == [flood.outpoint(vout) for vout in range(4)]


async def test_payments_in_a_block_that_l1_gave_up_are_as_bounded(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mempool_watcher, "MAX_REMEMBERED", 2)
    world = World()
    payment = world.l1.chain.payment(*[TxOut(1_000, WATCHED)] * 3)
    world.l1.chain.mine(payment)
    await world.look()
    world.l1.chain.blocks.pop()
    world.l1.chain.mine_empty(2)
    assert await world.look() == [(payment.outpoint(1), True), (payment.outpoint(2), True)]


def test_each_registered_address_may_have_an_unconfirmed_payment() -> None:
    assert mempool_watcher.MAX_REMEMBERED >= MAX_REGISTERED


class OddNode(FakeL1Client):
    """Its mempool holds what no transaction is, and what has just left it."""

    async def mempool_txids(self) -> frozenset[Txid]:
        return frozenset({Txid(bytes([number] * 32)) for number in range(3)})

    async def raw_transactions(self, txids: Sequence[Txid]) -> list[bytes | None]:
        return [None, b"\x02", b"nothing of the kind"]


async def test_what_is_no_transaction_is_passed_over(autojump_clock: trio.abc.Clock) -> None:
    world = World()
    watcher = MempoolWatcher(OddNode(world.l1), world.blocks, lambda _: True)
    await watcher.poll()
    assert watcher.payments_to({WATCHED}) == []


async def test_outage_changes_nothing_and_ends_nothing(autojump_clock: trio.abc.Clock) -> None:
    world = World()
    payment = world.pay(WATCHED)
    await world.look()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.watcher.run)
        world.node.outage = True
        del world.l1.mempool[payment.txid]
        await trio.sleep(60)
        assert [item.is_gone for item in world.watcher.payments_to({WATCHED})] == [False]
        world.node.outage = False
        await trio.sleep(10)
        assert [item.is_gone for item in world.watcher.payments_to({WATCHED})] == [True]
        nursery.cancel_scope.cancel()


async def test_slow_mempool_is_asked_for_less_often(autojump_clock: trio.abc.Clock) -> None:
    world = World()
    world.node.answer_s = 3.0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.watcher.run)
        await trio.sleep(590)
        nursery.cancel_scope.cancel()
    assert world.node.asked.count("mempool_txids") == 10


async def test_payment_that_another_transaction_in_the_mempool_spends_is_not_gone(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what the mempool does not hold is asked for: an output that is spent there exists all the same."""
    world = World()
    payment = world.pay(WATCHED)

    async def no_outputs(outpoints: Sequence[OutPoint], include_mempool: bool) -> list[L1TxOut | None]:
        raise L1Unavailable(L1Reason.UNREACHABLE, f"asked for {outpoints}")

    monkeypatch.setattr(world.node, "txouts", no_outputs)
    assert await world.look() == [(payment.outpoint(0), False)]
