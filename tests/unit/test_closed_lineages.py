"""The lineages that closed lately: which are remembered, and which of their versions L1 must not hold."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import cast
from unittest import mock

import pytest

from bridge.batch import build_batch
from bridge.bitcoin.identifiers import Txid
from bridge.l1.client import L1Client
from bridge.ledger import Ledger
from bridge.lineages import record_batch, settle
from bridge.losses import restore_coin
from bridge.records import MAX_ABANDONED_BLOCKS, Finding
from bridge.state import Anchor, BatchKind, Lineage
from pegnode.service.closed_lineages import ClosedLineages
from pegnode.service.core import NodeCore
from pegnode.service.reserve_watch import ReserveWatch
from tests.support.ledgers import ledger_of, lose, plan, wait
from tests.support.peg import CUSTODY, PARAMS, START_HEIGHT, anchor, coin

TERMS = replace(PARAMS, batch_min_payouts=1)


@dataclass
class Store:
    """A ledger that is all final, as a node's database shows it. blocks: what the watcher knows L1 to hold."""

    ledger: Ledger
    blocks: dict[Txid, Anchor] = field(default_factory=dict)
    listeners: list[Callable[[object], None]] = field(default_factory=list)

    def core(self) -> NodeCore:
        """Of a node on it."""
        watcher = SimpleNamespace(block_of=self.blocks.get, confirmations=lambda height: START_HEIGHT + 500 - height)
        parts = SimpleNamespace(
            store=SimpleNamespace(ledger=self),
            watcher=watcher,
            records=SimpleNamespace(final=list),
            on_final=self.listeners.append,
        )
        return cast(NodeCore, parts)

    def __getattr__(self, name: str) -> object:
        return getattr(self.ledger, name)

    def lineages_newest_first(self) -> Iterable[Lineage]:
        """As the database has them."""
        lineages = dict([*self.ledger.closed_lineages.items(), *self.ledger.open_lineages.items()])
        return [lineages[number] for number in sorted(lineages, reverse=True)]

    @contextmanager
    def final_block(self) -> Iterator[Ledger]:
        """The next block's ledger, which becomes final."""
        block = Ledger(self.ledger)
        yield block
        self.ledger = block
        for listener in self.listeners:
            listener(SimpleNamespace(state=SimpleNamespace(ledger=block)))

    def second_versions(self) -> set[Finding]:
        """What a look finds of closed lineages' versions."""
        core = self.core()
        watch = ReserveWatch(core, cast(L1Client, None), ClosedLineages(core), lambda: True)
        return set(watch._second_versions(PARAMS.confirmations))


def pay(ledger: Ledger) -> Lineage:
    """The next payout is recorded."""
    planned = build_batch(ledger, BatchKind.PAYOUT, None, 2_000, CUSTODY, TERMS)
    assert planned is not None
    return record_batch(ledger, planned)


def test_version_recorded_anew_after_its_coins_returned_is_no_second_one() -> None:
    """The same payees, coins and feerate make the same bytes."""
    ledger = ledger_of([1_000_000], [(500_000, 20_000)])
    dead = pay(ledger)
    txid = dead.versions[0].txid
    lose(ledger, *dead.inputs)
    store = Store(ledger, {txid: anchor(START_HEIGHT + 1)})
    assert store.second_versions() == {Finding.second_version(txid)}
    restore_coin(ledger, dead.inputs[0], START_HEIGHT)
    living = pay(ledger)
    assert (living.number, living.versions[0].txid) == (dead.number + 1, txid)
    assert store.second_versions() == set()
    settle(ledger, txid, START_HEIGHT + 1)
    assert store.second_versions() == set()


def numbers(closed: ClosedLineages) -> list[int]:
    """Which lineages are remembered."""
    return [lineage.number for lineage in closed]


@pytest.mark.parametrize("given_up", [True, False], ids=["given up", "settled"])
def test_closed_lineage_is_forgotten_when_no_record_can_abandon_its_end(given_up: bool) -> None:
    store = Store(ledger_of([1_000_000], [(500_000, 20_000)]))
    lineage = pay(store.ledger)
    running = ClosedLineages(store.core())
    assert numbers(running) == []
    with store.final_block() as block:
        wait(block, 10)
        if given_up:
            lose(block, *lineage.inputs)
        else:
            settle(block, lineage.versions[0].txid, START_HEIGHT + 10)
    for blocks, remembered in ((0, [0]), (MAX_ABANDONED_BLOCKS, [0]), (1, [])):
        with store.final_block() as block:
            wait(block, blocks)
        assert numbers(running) == remembered


def test_lineage_that_ended_behind_an_old_one_is_remembered_after_a_restart() -> None:
    """It was open for long, and one of the other kind came and went meanwhile."""
    ledger = ledger_of([1_000_000, 300_000], [(500_000, 20_000)])
    lineage = pay(ledger)
    maintenance = replace(plan(ledger, [coin(1, 300_000)], []), kind=BatchKind.MAINTENANCE)
    record_batch(ledger, maintenance)
    settle(ledger, maintenance.version.txid, START_HEIGHT + 1)
    wait(ledger, MAX_ABANDONED_BLOCKS + 2)
    lose(ledger, *lineage.inputs)
    assert numbers(ClosedLineages(Store(ledger).core())) == [0]


def test_no_more_lineages_are_read_at_a_start_than_may_have_ended_lately() -> None:
    ledger = ledger_of([1_000_000, 300_000], [])
    for _ in range(3):
        for kind in BatchKind:
            [spent, *_] = [entry for _, entry in ledger.coins.items() if entry.lineage is None]
            planned = replace(plan(ledger, [spent], []), kind=kind)
            record_batch(ledger, planned)
            settle(ledger, planned.version.txid, ledger.totals.anchor.height + 1)
        wait(ledger, MAX_ABANDONED_BLOCKS)
    store = Store(ledger)
    lineages = iter(store.lineages_newest_first())
    with mock.patch.object(store, "lineages_newest_first", return_value=lineages):
        assert numbers(ClosedLineages(store.core())) == [4, 5]
    assert [lineage.number for lineage in lineages] == [1, 0]
