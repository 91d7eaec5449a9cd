"""The lineages that closed lately: what settled each, and which of its versions must not be confirmed any more."""

from collections.abc import Iterator
from dataclasses import dataclass

from bridge.bitcoin.identifiers import Txid
from bridge.records import MAX_ABANDONED_BLOCKS
from bridge.state import Lineage
from pegnode.service.core import NodeCore
from pegnode.service.unfinal import UnfinalBlock


@dataclass(frozen=True, slots=True)
class ClosedLineage:
    """settled_by, settled_l1_height: None if its coins were lost.  others: its further versions."""

    number: int
    settled_by: Txid | None
    settled_l1_height: int | None
    others: tuple[Txid, ...]


class ClosedLineages:
    """Those settled no more L1 blocks ago than a record may abandon: some hundreds, of some hundred bytes each."""

    def __init__(self, core: NodeCore) -> None:
        self._core = core
        self._lineages: dict[int, ClosedLineage] = {}
        for lineage in core.store.ledger.lineages_newest_first():
            closed = _closed(lineage)
            if self._is_old(closed):
                break
            if core.store.ledger.closed_lineages.get(lineage.number) is not None:
                self._lineages[lineage.number] = closed
        core.on_final(self._after_final)

    def __iter__(self) -> Iterator[ClosedLineage]:
        """By ascending number."""
        return iter([self._lineages[number] for number in sorted(self._lineages)])

    def _after_final(self, unfinal: UnfinalBlock) -> None:
        for number, lineage in unfinal.state.ledger.closed_lineages.writes.items():
            if lineage is not None:
                self._lineages[number] = _closed(lineage)
                self._forget_the_old()

    def _forget_the_old(self) -> None:
        for number in [number for number, closed in self._lineages.items() if self._is_old(closed)]:
            del self._lineages[number]

    def _is_old(self, closed: ClosedLineage) -> bool:
        horizon = self._core.store.ledger.totals.anchor.height - MAX_ABANDONED_BLOCKS
        return closed.settled_l1_height is not None and closed.settled_l1_height < horizon


def _closed(lineage: Lineage) -> ClosedLineage:
    others = tuple(version.txid for version in lineage.versions if version.txid != lineage.settled_by)
    return ClosedLineage(lineage.number, lineage.settled_by, lineage.settled_l1_height, others)
