"""What a member looks up while a payout of many versions and inputs has confirmed and waits for its settlement."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import cast

import pytest
import trio

from bridge.batch import build_batch
from bridge.bitcoin.identifiers import OutPoint, Txid
from bridge.bitcoin.transaction import Transaction
from bridge.l1.answers import L1TxOut
from bridge.l1.client import L1Client
from bridge.l1.watcher import L1Watcher
from bridge.ledger import Ledger
from bridge.lineages import record_batch
from bridge.state import BatchKind, Lineage
from federation.recorded_batch import spends
from pegnode.service.closed_lineages import ClosedLineages
from pegnode.service.core import NodeCore
from pegnode.service.l1_questions import L1Questions
from pegnode.service.reserve_watch import ReserveWatch
from tests.support.ledgers import ledger_of, only_lineage, wait
from tests.support.peg import CUSTODY, PARAMS, anchor

VERSIONS = 8
INPUTS = 12
TERMS = replace(PARAMS, batch_min_payouts=1)


class FakeNode:
    """A Bitcoin node that has none of the coins."""

    async def txouts(self, outpoints: Iterable[OutPoint], *, include_mempool: bool) -> list[L1TxOut | None]:
        await trio.lowlevel.checkpoint()
        return [None for _ in outpoints]

    async def tip(self) -> tuple[int, bytes]:
        return 2_000, anchor(2_000).hash

    async def transaction_block(self, txid: Txid) -> None:
        await trio.lowlevel.checkpoint()


@dataclass
class World:
    """A lineage whose newest version is in an L1 block. questions, watch: a member's."""

    ledger: Ledger
    lineage: Lineage
    questions: L1Questions
    watch: ReserveWatch


@pytest.fixture
def world() -> World:
    ledger = ledger_of([1_000_000] * INPUTS, [(1_000_000 * INPUTS - 200_000, 10_000_000)])
    feerate_sat_kvb, replaces = 1_000, None
    for _ in range(VERSIONS):
        planned = build_batch(ledger, BatchKind.PAYOUT, replaces, feerate_sat_kvb, CUSTODY, TERMS)
        assert planned is not None
        record_batch(ledger, planned)
        replaces, feerate_sat_kvb = planned.version.txid, 2 * feerate_sat_kvb
        wait(ledger, TERMS.replacement_interval_anchors)
    lineage = only_lineage(ledger)
    blocks = {lineage.versions[-1].txid: anchor(1_990)}
    watcher = SimpleNamespace(tip=anchor(2_000), block_of=blocks.get, block_at=anchor)
    client = cast(L1Client, FakeNode())
    questions = L1Questions(client, cast(L1Watcher, watcher), TERMS)
    core = cast(NodeCore, SimpleNamespace(questions=questions, watcher=watcher))
    return World(ledger, lineage, questions, ReserveWatch(core, client, cast(ClosedLineages, ()), lambda: True))


async def parsed_in_turns(monkeypatch: pytest.MonkeyPatch, work: Callable[[], Awaitable[object]]) -> list[int]:
    """How many transactions the work parses between one turn that others have and the next."""
    turns = [0]
    parse = Transaction.parse_stripped

    def counted(data: bytes) -> Transaction:
        turns[-1] += 1
        return parse(data)

    async def others() -> None:
        while True:
            turns.append(0)
            await trio.lowlevel.checkpoint()

    spends.cache_clear()
    monkeypatch.setattr(Transaction, "parse_stripped", counted)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(others)
        await work()
        nursery.cancel_scope.cancel()
    return turns


async def test_look_reads_each_version_once_and_gives_others_their_turn(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    coins = {coin: world.lineage.versions for _, coin in world.ledger.coins.items() if coin.lineage is not None}
    assert len(coins) == INPUTS

    async def look() -> None:
        assert await world.watch._unexplained(coins) == frozenset()

    turns = await parsed_in_turns(monkeypatch, look)
    assert (sum(turns), max(turns)) == (VERSIONS, 1)


async def test_reserve_is_looked_up_reading_the_confirmed_version_alone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def look() -> None:
        reserve = await world.questions.reserve(world.ledger)
        assert (reserve.held_sats, reserve.missing) == (0, ())
        assert reserve.paid_out_sats == world.ledger.totals.reserves_sats

    assert sum(await parsed_in_turns(monkeypatch, look)) == 1
