"""The recount: whether what is there adds up to what is written down."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Self

from bridge.errors import Rejected
from bridge.ledger import LedgerView, ledger_root
from bridge.state import Totals
from pegnode.chain.state import Tip, Utxo


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What a recount found after the block `tip`. totals: as written down; counted_*: as added up, in sats."""

    tip: Tip
    totals: Totals
    ledger_root: bytes
    """32 bytes, of the ledger as it is stored."""
    counted_reserves_sats: int
    coin_count: int
    counted_unsettled_sats: int
    open_withdrawal_count: int
    counted_supply_sats: int
    utxo_count: int

    @property
    def findings(self) -> tuple[str, ...]:
        """What does not add up, for people; empty when all is well."""
        pairs = (
            ("reserves", self.counted_reserves_sats, self.totals.reserves_sats),
            ("unsettled", self.counted_unsettled_sats, self.totals.unsettled_sats),
            ("supply", self.counted_supply_sats, self.totals.supply_sats),
        )
        found = [
            f"{name}: counted {counted}, recorded {recorded}"
            for name, counted, recorded in pairs
            if counted != recorded
        ]
        try:
            self.totals.require_equality()
        except Rejected as error:
            found.append(str(error))
        if self.ledger_root != self.tip.header.ledger_root:
            found.append("the ledger's root is not the one in the header of the last block")
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Recount:
    """A recount half done: the small tables are counted, the UTXO set, as it was then, is still to be read."""

    tip: Tip
    totals: Totals
    ledger_root: bytes
    coin_values_sats: tuple[int, ...]
    withdrawal_values_sats: tuple[int, ...]
    utxos: Iterator[Utxo]

    @classmethod
    def begin(cls, tip: Tip, ledger: LedgerView, utxos: Iterable[Utxo]) -> Self:
        """Count the live tables of `ledger` now. utxos: the unspent outputs after `tip`, read by `finish`."""
        return cls(
            tip=tip,
            totals=ledger.totals,
            ledger_root=ledger_root(ledger),
            coin_values_sats=tuple(coin.value_sats for _, coin in ledger.coins.items()),
            withdrawal_values_sats=tuple(item.value_sats for _, item in ledger.open_withdrawals.items()),
            utxos=iter(utxos),
        )

    def finish(self) -> AuditReport:
        """Read the UTXO set; takes about a second for each few hundred thousand outputs. May run in a thread. Once."""
        supply_sats = utxo_count = 0
        for utxo in self.utxos:
            supply_sats += utxo.value_sats
            utxo_count += 1
        return AuditReport(
            tip=self.tip,
            totals=self.totals,
            ledger_root=self.ledger_root,
            counted_reserves_sats=sum(self.coin_values_sats),
            coin_count=len(self.coin_values_sats),
            counted_unsettled_sats=sum(self.withdrawal_values_sats),
            open_withdrawal_count=len(self.withdrawal_values_sats),
            counted_supply_sats=supply_sats,
            utxo_count=utxo_count,
        )
