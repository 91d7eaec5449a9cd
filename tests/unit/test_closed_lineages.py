"""The lineages that closed lately: which are remembered, and which of their versions L1 must not hold."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import cast

from bridge.batch import build_batch
from bridge.bitcoin.identifiers import Txid
from bridge.l1.client import L1Client
from bridge.ledger import Ledger
from bridge.lineages import record_batch, settle
from bridge.losses import restore_coin
from bridge.records import Finding
from bridge.state import Anchor, BatchKind, Lineage
from pegnode.service.closed_lineages import ClosedLineages
from pegnode.service.core import NodeCore
from pegnode.service.reserve_watch import ReserveWatch
from tests.support.ledgers import ledger_of, lose, wait
from tests.support.peg import CUSTODY, PARAMS, START_HEIGHT, anchor

TERMS = replace(PARAMS, batch_min_payouts=1)


@dataclass
class Store:
    """A ledger that is all final, as a node's database shows it. blocks: what the watcher knows L1 to hold."""

    ledger: Ledger
    blocks: dict[Txid, Anchor] = field(default_factory=dict)
    listeners: list[Callable[[object], None]] = field(default_factory=list)

    def core(self) -> NodeCore:
        """Of a node that has just started on it."""
        shown = SimpleNamespace(
            totals=self.ledger.totals,
            versions=self.ledger.versions,
            closed_lineages=self.ledger.closed_lineages,
            lineages_newest_first=self._newest_first,
        )
        watcher = SimpleNamespace(block_of=self.blocks.get, confirmations=lambda height: START_HEIGHT + 500 - height)
        records = SimpleNamespace(final=lambda: [])
        store = SimpleNamespace(ledger=shown)
        return cast(
            NodeCore, SimpleNamespace(store=store, watcher=watcher, records=records, on_final=self.listeners.append)
        )

    def _newest_first(self) -> Iterable[Lineage]:
        lineages = dict([*self.ledger.closed_lineages.items(), *self.ledger.open_lineages.items()])
        return [lineages[number] for number in sorted(lineages, reverse=True)]

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
