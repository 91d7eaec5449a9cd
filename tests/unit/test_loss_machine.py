"""The ledger against the model of `tests.unit.test_ledger_machine`, on an L1 that takes coins away and gives them back.

What can't happen: a payee paid twice, or refunded and paid; a coin claimed or restored twice; money that nobody has; a
coin locked for a batch that is dead. In short, all that the model can't follow, or that leaves the equality.
"""

from collections.abc import Sequence
from functools import partial

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from bridge.bitcoin.identifiers import OutPoint
from bridge.bitcoin.transaction import Transaction
from bridge.deposits import apply_evidence
from bridge.evidence import EvidenceReason
from bridge.lineages import PlannedBatch, free_fund_sats
from bridge.losses import book_losses, restore_coin
from bridge.records import Deficit, LostCoin, RecordReason
from bridge.state import LedgerReason
from tests.support.peg import CUSTODY, START_HEIGHT, evidence_of, lone_fact, outpoint
from tests.unit.test_ledger_machine import LIMITS, PICKS, LedgerMachine


class LossMachine(LedgerMachine):
    """lost: what L1 took from us, with its value.  dead: versions that can't confirm any more."""

    def __init__(self) -> None:
        super().__init__()
        self.lost: dict[OutPoint, int] = {}
        self.dead: list[PlannedBatch] = []

    @precondition(lambda self: self.reserve)
    @rule(picks=st.lists(PICKS, min_size=1, max_size=3))
    def lose(self, picks: Sequence[int]) -> None:
        self._lose({list(self.reserve)[pick % len(self.reserve)] for pick in picks})

    @precondition(lambda self: self.versions)
    @rule(pick=PICKS)
    def lose_what_the_newest_version_spends(self, pick: int) -> None:
        inputs = self.versions[-1].inputs
        self._lose({inputs[-1 - pick % len(inputs)]})

    def _lose(self, gone: set[OutPoint]) -> None:
        """A record books it; what it killed is dead, and whoever it would have paid waits anew."""
        deficit = Deficit.of(LostCoin(held, self.reserve[held]) for held in gone)
        book_losses(self.ledger, deficit)
        for held in gone:
            value_sats = self.reserve.pop(held)
            self.lost[held] = value_sats
            self.deficit_sats += value_sats
        living = [planned for planned in self.versions if not gone & set(planned.inputs)]
        self.dead += self.versions[len(living) :]
        if self.versions and not living:
            self.waits_since |= dict.fromkeys(self.promised, self.ledger.totals.anchor.height)
            self.promised = set()
        self.versions = living
        assert self._refused(lambda: book_losses(self.ledger, deficit)) is RecordReason.NOT_A_COIN

    @precondition(lambda self: self.reserve)
    @rule(pick=PICKS, excess_sats=st.integers(min_value=1, max_value=1_000))
    def lose_what_is_not_there(self, pick: int, excess_sats: int) -> None:
        """With a coin that is: then neither is booked."""
        held = list(self.reserve)[pick % len(self.reserve)]
        known, unknown = LostCoin(held, self.reserve[held]), LostCoin(outpoint(1_000_000 + self._next()), 1)
        wrong = Deficit.of((LostCoin(held, self.reserve[held] + excess_sats),))
        assert self._refused(lambda: book_losses(self.ledger, Deficit.of((known, unknown)))) is RecordReason.NOT_A_COIN
        assert self._refused(lambda: book_losses(self.ledger, wrong)) is RecordReason.WRONG_VALUE

    @precondition(lambda self: self.lost)
    @rule(pick=PICKS)
    def give_back(self, pick: int) -> None:
        """L1 has a lost coin again: it is the reserve's once more, and credits nobody a second time."""
        held = list(self.lost)[pick % len(self.lost)]
        transaction, opening = self.made[held]
        apply = partial(apply_evidence, self.ledger, evidence_of(transaction, opening), lone_fact(), CUSTODY, LIMITS)
        if sum(self.reserve.values()) + self.lost[held] > LIMITS.max_peg_sats:
            assert self._refused(apply) is EvidenceReason.OVER_CAP
            return
        assert apply() == ()
        value_sats = self.lost.pop(held)
        self.reserve[held] = value_sats
        self._receive(value_sats)
        assert self._refused(apply) is EvidenceReason.ALREADY_ENTERED

    @precondition(lambda self: self.reserve)
    @rule(pick=PICKS)
    def give_back_what_is_there(self, pick: int) -> None:
        held = list(self.reserve)[pick % len(self.reserve)]
        assert self._refused(lambda: restore_coin(self.ledger, held, START_HEIGHT)) is LedgerReason.NOT_LOST

    @precondition(lambda self: self.dead)
    @rule(pick=PICKS)
    def settle_by_the_dead(self, pick: int) -> None:
        """A dead version settles nothing, unless the same transaction was recorded anew since its coins came back."""
        version = self.dead[pick % len(self.dead)].version
        if any(planned.version.txid == version.txid for planned in self.versions):
            return
        evidence = evidence_of(Transaction.parse(version.transaction))
        reason = self._refused(lambda: apply_evidence(self.ledger, evidence, lone_fact(), CUSTODY, LIMITS))
        assert reason in (EvidenceReason.NO_OPENINGS, LedgerReason.ALREADY_SETTLED)

    @invariant()
    def lost_coins_are_what_l1_took(self) -> None:
        assert {held: entry.value_sats for held, entry in self.ledger.lost.items()} == self.lost
        assert not self.lost.keys() & self.reserve.keys()
        assert all(held in self.ledger.entered and entry.lineage is None for held, entry in self.ledger.lost.items())

    @invariant()
    def living_versions_are_the_recorded_ones(self) -> None:
        """Each of them spends coins that are there, all that the one before it spends, and reserves its part."""
        lineages = [lineage for _, lineage in self.ledger.open_lineages.items()]
        assert [list(lineage.versions) for lineage in lineages] == (
            [[planned.version for planned in self.versions]] if self.versions else []
        )
        for lineage in lineages:
            assert lineage.inputs == self.versions[-1].inputs
            assert lineage.reserved_fund_sats == max(version.fund_part_sats for version in lineage.versions)
            assert all(self.ledger.versions.get(version.txid) == lineage.number for version in lineage.versions)
        for txid in {planned.version.txid for planned in self.dead} - {item.version.txid for item in self.versions}:
            number = self.ledger.versions.get(txid)
            assert number is None or number in self.ledger.closed_lineages
        for older, newer in zip(self.versions, self.versions[1:], strict=False):
            assert newer.inputs[: len(older.inputs)] == older.inputs
        assert all(spent in self.reserve for planned in self.versions for spent in planned.inputs)
        assert free_fund_sats(self.ledger) >= 0


TestLossMachine = LossMachine.TestCase
TestLossMachine.settings = settings(max_examples=40, stateful_step_count=50, deadline=None)
