"""The lineages that closed lately: what settled each, and which of its versions must not be confirmed any more."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from bridge.bitcoin.identifiers import Txid
from bridge.records import MAX_ABANDONED_BLOCKS
from bridge.state import BatchKind, Lineage
from pegnode.service.core import NodeCore
from pegnode.service.unfinal import UnfinalBlock


@dataclass(frozen=True, slots=True)
class ClosedLineage:
    """settled_by: None if its coins were lost.  others: its further versions.

    ended_l1_height: where L1 confirmed `settled_by`; without one, an anchor at or above that of the record that ended
    it.
    """

    number: int
    settled_by: Txid | None
    ended_l1_height: int
    others: tuple[Txid, ...]


class ClosedLineages:
    """Those that ended no more L1 blocks ago than a record may abandon: some hundreds, of some hundred bytes each."""

    def __init__(self, core: NodeCore) -> None:
        self._core = core
        ledger = core.store.ledger
        self._lineages = {
            closed.number: closed
            for closed in _newest_first(ledger.lineages_newest_first(), ledger.totals.anchor.height, self._horizon)
            if closed.number not in ledger.open_lineages and not self._is_old(closed)
        }
        core.on_final(self._after_final)

    def __iter__(self) -> Iterator[ClosedLineage]:
        """By ascending number."""
        return iter([self._lineages[number] for number in sorted(self._lineages)])

    def _after_final(self, unfinal: UnfinalBlock) -> None:
        ledger = unfinal.state.ledger
        for number, lineage in ledger.closed_lineages.writes.items():
            if lineage is not None:
                self._lineages[number] = _closed(lineage, ledger.totals.anchor.height)
        for number in [number for number, closed in self._lineages.items() if self._is_old(closed)]:
            del self._lineages[number]

    @property
    def _horizon(self) -> int:
        return self._core.store.ledger.totals.anchor.height - MAX_ABANDONED_BLOCKS

    def _is_old(self, closed: ClosedLineage) -> bool:
        return closed.ended_l1_height < self._horizon


def _newest_first(lineages: Iterable[Lineage], anchor_height: int, horizon: int) -> Iterator[ClosedLineage]:
    """These, as if all were closed, until those before them had ended below the horizon.

    Of each kind one is open at a time: it had ended by the anchor at which the next one of its kind was recorded.
    """
    ended_by = dict.fromkeys(BatchKind, anchor_height)
    for lineage in lineages:
        yield _closed(lineage, ended_by[lineage.kind])
        ended_by[lineage.kind] = lineage.versions[0].anchor_height
        if max(ended_by.values()) < horizon:
            return


def _closed(lineage: Lineage, ended_by: int) -> ClosedLineage:
    """ended_by: an anchor at which it was closed already."""
    others = tuple(version.txid for version in lineage.versions if version.txid != lineage.settled_by)
    ended_l1_height = ended_by if lineage.settled_l1_height is None else lineage.settled_l1_height
    return ClosedLineage(lineage.number, lineage.settled_by, ended_l1_height, others)
