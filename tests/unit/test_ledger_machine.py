"""The ledger against a model that knows only what exists: L1 outputs, unspent sidechain outputs, and open promises.

Random histories of deposits, donations, fees, burns, batches, replacements, settlements and refunds try to break the
equality, to have the ledger own what L1 does not hold, or to change what is closed. Whatever is refused must have
changed nothing. In `tests.unit.test_loss_machine`, L1 takes coins back too.
"""

from collections.abc import Callable
from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bridge.batch import Batch, build_batch, check_batch
from bridge.bitcoin.identifiers import BlockHash, OutPoint, Txid
from bridge.bitcoin.transaction import Transaction
from bridge.custody import CoinKind, reserve_script
from bridge.deposits import apply_evidence
from bridge.errors import Reason, Rejected
from bridge.evidence import EvidenceReason, Opening
from bridge.ledger import Ledger, add_fee, advance_anchor, record_burn
from bridge.lineages import PlannedBatch, free_fund_sats, record_batch, settle
from bridge.refunds import due_refunds, refund, refund_transaction
from bridge.state import Anchor, BatchKind, LedgerReason, Withdrawal, WithdrawalStatus
from bridge.withdrawals import Burn, BurnReason, check_burns
from tests.support.ledgers import plan, rejection, terms
from tests.support.peg import (
    ALICE,
    BOB,
    CUSTODY,
    PARAMS,
    POLICY,
    START_HEIGHT,
    anchor,
    deposit_script,
    evidence_of,
    lone_fact,
    new_ledger,
    outpoint,
    pays,
)

LIMITS = replace(
    PARAMS,
    batch_min_payouts=2,
    batch_max_wait_anchors=3,
    batch_max_payees=3,
    batch_max_first_inputs=3,
    change_target_coins=4,
    withdrawal_window_anchors=5,
    max_window_withdrawals_sats=8_000_000,
    max_peg_sats=30_000_000,
    withdrawal_expiry_anchors=6,
    max_refunds_per_block=2,
    replacement_interval_anchors=1,
)
DONATION_SCRIPT = reserve_script(POLICY, CoinKind.DONATION).script
VALUES = st.integers(min_value=30_000, max_value=4_000_000)
FACTORS = st.lists(st.integers(min_value=2, max_value=8), min_size=1, max_size=3)
PICKS = st.integers(min_value=0, max_value=2**16)


class LedgerMachine(RuleBasedStateMachine):
    """reserve: what L1 holds for us.  unspent: the values of the UTXO set.  open: what unpaid burns are owed, by age.

    burned: anchor height and value of every burn.  waits_since: the anchor height from which a burn expires.  versions:
    of the open batch; promised: burns in it.  closed: withdrawals as they were closed, paid or refunded.  made: the L1
    transaction that made a coin, and what opens it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ledger = new_ledger()
        self.reserve: dict[OutPoint, int] = {}
        self.unspent: list[int] = []
        self.open: dict[OutPoint, int] = {}
        self.burned: dict[OutPoint, tuple[int, int]] = {}
        self.waits_since: dict[OutPoint, int] = {}
        self.versions: list[PlannedBatch] = []
        self.promised: set[OutPoint] = set()
        self.fund_sats = 0
        self.deficit_sats = 0
        self.made: dict[OutPoint, tuple[Transaction, Opening]] = {}
        self.closed: dict[OutPoint, Withdrawal] = {}
        self.confirmed: list[Txid] = []
        self.serial = 0

    def _next(self) -> int:
        self.serial += 1
        return self.serial

    def _refused(self, transition: Callable[[], object]) -> Reason:
        return rejection(self.ledger, transition)

    def _enter(self, value_sats: int, *, donation: bool) -> None:
        script = DONATION_SCRIPT if donation else deposit_script()
        opening = Opening(0, CoinKind.DONATION, 0, b"") if donation else Opening(0, CoinKind.DEPOSIT, 0, ALICE)
        transaction = pays((value_sats, script), spends=self._next())
        evidence = evidence_of(transaction, opening)

        def apply() -> tuple[Transaction, ...]:
            return apply_evidence(self.ledger, evidence, lone_fact(), CUSTODY, LIMITS)

        if sum(self.reserve.values()) + value_sats > LIMITS.max_peg_sats:
            assert self._refused(apply) is EvidenceReason.OVER_CAP
            return
        claims = apply()
        self.reserve[transaction.outpoint(0)] = value_sats
        self.made[transaction.outpoint(0)] = (transaction, opening)
        credited = [output.value_sats for claim in claims for output in claim.outputs]
        self.unspent += credited
        if credited:
            self.fund_sats += value_sats - sum(credited)
        else:
            self._receive(value_sats)
        assert self._refused(apply) is EvidenceReason.ALREADY_ENTERED

    def _receive(self, value_sats: int) -> None:
        """What nobody is owed makes good what is missing, before it is anybody's to spend."""
        repaid_sats = min(value_sats, self.deficit_sats)
        self.deficit_sats -= repaid_sats
        self.fund_sats += value_sats - repaid_sats

    @initialize()
    def first_deposits(self) -> None:
        """A peg that has something to lose."""
        for value_sats in (2_000_000, 700_000, 700_000, 100_000):
            self._enter(value_sats, donation=False)

    @rule(value_sats=VALUES)
    def deposit(self, value_sats: int) -> None:
        self._enter(value_sats, donation=False)

    @rule(value_sats=VALUES)
    def donate(self, value_sats: int) -> None:
        self._enter(value_sats, donation=True)

    @precondition(lambda self: self.unspent)
    @rule(pick=PICKS, fee_sats=st.integers(min_value=0, max_value=5_000))
    def transfer(self, pick: int, fee_sats: int) -> None:
        index = pick % len(self.unspent)
        fee_sats = min(fee_sats, self.unspent[index])
        add_fee(self.ledger, fee_sats)
        self.unspent[index] -= fee_sats
        self.fund_sats += fee_sats

    @rule(excess_sats=st.integers(min_value=1, max_value=100))
    def overdraw(self, excess_sats: int) -> None:
        too_much_sats = sum(self.unspent) + excess_sats
        assert self._refused(lambda: add_fee(self.ledger, too_much_sats)) is LedgerReason.NEGATIVE_TERM
        assert self._refused(lambda: self._burn(too_much_sats, 0)) is LedgerReason.NEGATIVE_TERM

    @precondition(lambda self: self.unspent)
    @rule(pick=PICKS, permille=st.integers(min_value=1, max_value=1_000), max_fee_sats=st.integers(0, 20_000))
    def burn(self, pick: int, permille: int, max_fee_sats: int) -> None:
        index = pick % len(self.unspent)
        self._burn_of(index, self.unspent[index] * permille // 1_000, max_fee_sats)

    def _burn_of(self, index: int, value_sats: int, max_fee_sats: int) -> None:
        """Burn some of an unspent output, unless the rules don't allow it."""
        if value_sats - max_fee_sats < 330 or value_sats <= LIMITS.refund_fee_sats:
            return
        window_sats = sum(
            burned_sats
            for height, burned_sats in self.burned.values()
            if height > self.ledger.totals.anchor.height - LIMITS.withdrawal_window_anchors
        )
        request = [(Burn(BOB, max_fee_sats, ALICE), value_sats)]
        if window_sats + value_sats > LIMITS.max_window_withdrawals_sats:
            reason = self._refused(lambda: check_burns(request, self.ledger, CUSTODY, LIMITS))
            assert reason is BurnReason.OVER_WINDOW
            return
        check_burns(request, self.ledger, CUSTODY, LIMITS)
        withdrawal = self._burn(value_sats, max_fee_sats)
        self.unspent[index] -= value_sats
        self.open[withdrawal.burn] = value_sats
        self.burned[withdrawal.burn] = (self.ledger.totals.anchor.height, value_sats)
        self.waits_since[withdrawal.burn] = self.ledger.totals.anchor.height

    def _burn(self, value_sats: int, max_fee_sats: int) -> Withdrawal:
        return record_burn(
            self.ledger,
            outpoint(100_000 + self._next()),
            value_sats=value_sats,
            max_fee_sats=max_fee_sats,
            l1_script=BOB,
            refund_script=ALICE,
        )

    @precondition(lambda self: self.burned)
    @rule(pick=PICKS)
    def burn_again(self, pick: int) -> None:
        known = list(self.burned)[pick % len(self.burned)]

        def again() -> Withdrawal:
            return record_burn(self.ledger, known, value_sats=1, max_fee_sats=0, l1_script=BOB, refund_script=ALICE)

        assert self._refused(again) is LedgerReason.BURN_KNOWN

    @rule(step=st.integers(min_value=0, max_value=4))
    def anchor(self, step: int) -> None:
        advance_anchor(self.ledger, anchor(self.ledger.totals.anchor.height + step), LIMITS)

    @rule()
    def anchor_elsewhere(self) -> None:
        height = self.ledger.totals.anchor.height
        other = BlockHash(bytes(32))
        reasons = {
            self._refused(lambda: advance_anchor(self.ledger, Anchor(height - 1, other), LIMITS)),
            self._refused(lambda: advance_anchor(self.ledger, Anchor(height, other), LIMITS)),
            self._refused(lambda: advance_anchor(self.ledger, Anchor(height + 145, other), LIMITS)),
        }
        assert reasons == {LedgerReason.ANCHOR_BACKWARDS, LedgerReason.ANCHOR_CHANGED, LedgerReason.ANCHOR_STEP}

    @rule(feerate_sat_kvb=st.integers(min_value=1_000, max_value=20_000))
    def batch(self, feerate_sat_kvb: int) -> None:
        planned = build_batch(self.ledger, BatchKind.PAYOUT, None, feerate_sat_kvb, CUSTODY, LIMITS)
        if planned is None:
            return
        assert check_batch(Ledger(self.ledger), Batch.of(planned), CUSTODY, LIMITS) == planned
        assert set(planned.inputs) <= set(self.reserve)
        assert set(planned.payees) <= set(self.open)
        record_batch(self.ledger, planned)
        self.versions, self.promised = [planned], set(planned.payees)
        assert self._refused(lambda: record_batch(self.ledger, planned)) is LedgerReason.LINEAGE_OPEN

    @precondition(lambda self: not self.versions)
    @rule(left_sats=st.integers(30_000, 32_000), max_fee_sats=st.integers(200, 600), factors=FACTORS)
    def batch_tightly(self, left_sats: int, max_fee_sats: int, factors: list[int]) -> None:
        """Of burns that leave of the largest coin just what change must be: who raises the fee needs another coin."""
        largest_sats = max((coin.value_sats for _, coin in self.ledger.coins.items()), default=0)
        burned_sats = largest_sats - left_sats
        for value_sats in (burned_sats // 2, burned_sats - burned_sats // 2):
            index = next((index for index, held_sats in enumerate(self.unspent) if held_sats >= value_sats), None)
            if index is not None:
                self._burn_of(index, value_sats, max_fee_sats)
        self.batch(1_000)
        for factor in factors:
            self.replace_batch(factor)

    @rule(factor=st.integers(min_value=2, max_value=8))
    def replace_batch(self, factor: int) -> None:
        """With further coins, if the fee asks for them; the fee may be none that is allowed."""
        if not self.versions:
            return
        advance_anchor(self.ledger, anchor(self.ledger.totals.anchor.height + 1), LIMITS)
        newest = self.versions[-1]
        feerate_sat_kvb = newest.version.feerate_sat_kvb * factor
        try:
            planned = build_batch(self.ledger, BatchKind.PAYOUT, newest.version.txid, feerate_sat_kvb, CUSTODY, LIMITS)
        except Rejected:
            return
        assert planned is not None
        assert newest.inputs == planned.inputs[: len(newest.inputs)]
        assert set(planned.inputs) <= set(self.reserve)
        record_batch(self.ledger, planned)
        self.versions.append(planned)
        assert self._refused(lambda: record_batch(self.ledger, planned)) is LedgerReason.NOT_NEWEST

    @precondition(lambda self: self.versions)
    @rule(pick=PICKS)
    def settle(self, pick: int) -> None:
        ((_, lineage),) = self.ledger.open_lineages.items()
        assert list(lineage.versions) == [planned.version for planned in self.versions]
        version = lineage.versions[pick % len(lineage.versions)]
        transaction = Transaction.parse(version.transaction)
        spent_sats = sum(self.reserve.pop(txin.outpoint) for txin in transaction.inputs)
        spent_sats -= sum(output.value_sats for output in transaction.outputs)
        assert spent_sats == version.fee_sats
        apply_evidence(self.ledger, evidence_of(transaction), lone_fact(), CUSTODY, LIMITS)
        for index, burn in enumerate(lineage.payees):
            owed_sats, paid_sats = self.open.pop(burn), transaction.outputs[index].value_sats
            closed = self.ledger.closed_withdrawals.get(burn)
            assert closed is not None
            assert owed_sats - closed.max_fee_sats <= paid_sats <= owed_sats
            assert closed.payout == transaction.outpoint(index)
            self.closed[burn] = closed
        for index in range(len(lineage.payees), len(transaction.outputs)):
            self.reserve[transaction.outpoint(index)] = transaction.outputs[index].value_sats
            self.made[transaction.outpoint(index)] = (transaction, Opening(index, CoinKind.CHANGE, 0, b""))
        self.versions, self.promised = [], set()
        self.fund_sats -= version.fund_part_sats
        self.confirmed.append(version.txid)

    @precondition(lambda self: self.confirmed)
    @rule(pick=PICKS)
    def settle_again(self, pick: int) -> None:
        txid = self.confirmed[pick % len(self.confirmed)]
        reason = self._refused(lambda: settle(self.ledger, txid, START_HEIGHT))
        assert reason is LedgerReason.ALREADY_SETTLED

    def _expired(self) -> list[OutPoint]:
        """By the model: what waits, in no batch, since long enough, the oldest first."""
        latest = self.ledger.totals.anchor.height - LIMITS.withdrawal_expiry_anchors
        return [burn for burn in self.open if burn not in self.promised and self.waits_since[burn] <= latest]

    @precondition(lambda self: self.open)
    @rule(step=st.integers(min_value=0, max_value=LIMITS.withdrawal_expiry_anchors))
    def refund_what_is_due(self, step: int) -> None:
        """As the next block does, which has no choice."""
        advance_anchor(self.ledger, anchor(self.ledger.totals.anchor.height + step), LIMITS)
        due = due_refunds(self.ledger, LIMITS)
        assert [withdrawal.burn for withdrawal in due] == self._expired()[: LIMITS.max_refunds_per_block]
        for withdrawal in due:
            transaction = refund_transaction(withdrawal, LIMITS)
            self.closed[withdrawal.burn] = refund(self.ledger, withdrawal.burn, LIMITS.refund_fee_sats)
            value_sats = self.open.pop(withdrawal.burn)
            [credited] = transaction.outputs
            self.unspent.append(credited.value_sats)
            self.fund_sats += value_sats - credited.value_sats
            assert (credited.script, value_sats - credited.value_sats) == (ALICE, LIMITS.refund_fee_sats)

    @precondition(lambda self: self.closed or self.promised)
    @rule(pick=PICKS)
    def refund_what_is_paid_or_refunded(self, pick: int) -> None:
        """Or on its way: the value would be there twice."""
        known = [*self.closed, *sorted(self.promised)]
        burn = known[pick % len(known)]
        assert self._refused(lambda: refund(self.ledger, burn, 0)) is LedgerReason.NOT_PENDING

    @precondition(lambda self: any(entry.status is WithdrawalStatus.REFUNDED for entry in self.closed.values()))
    @rule(pick=PICKS)
    def pay_what_is_refunded(self, pick: int) -> None:
        """By a batch that somebody planned before, and that no other rule looks at."""
        refunded = [entry for entry in self.closed.values() if entry.status is WithdrawalStatus.REFUNDED]
        wanted = refunded[pick % len(refunded)]
        free = [entry for _, entry in self.ledger.coins.items() if entry.lineage is None]
        if self.promised or sum(entry.value_sats for entry in free) < wanted.value_sats:
            return
        planned = plan(self.ledger, free, [wanted])
        assert self._refused(lambda: record_batch(self.ledger, planned)) is LedgerReason.NOT_PENDING

    @rule()
    def give_up_half_way(self) -> None:
        """A block whose second step fails must leave nothing of its first."""

        def block() -> None:
            with self.ledger.atomic() as trial:
                add_fee(trial, 0)
                advance_anchor(trial, anchor(trial.totals.anchor.height + 1), LIMITS)
                raise Rejected(LedgerReason.EQUALITY)

        assert self._refused(block) is LedgerReason.EQUALITY

    @invariant()
    def terms_are_what_exists(self) -> None:
        """Each term is counted by the model alone; that they balance is then no bookkeeping of ours."""
        reserves_sats, unsettled_sats = sum(self.reserve.values()), sum(self.open.values())
        supply_sats = sum(self.unspent)
        assert terms(self.ledger) == (reserves_sats, self.deficit_sats, supply_sats, unsettled_sats, self.fund_sats)
        assert reserves_sats + self.deficit_sats == supply_sats + unsettled_sats + self.fund_sats
        assert min(reserves_sats, supply_sats, unsettled_sats, free_fund_sats(self.ledger)) >= 0

    @invariant()
    def coins_are_what_l1_holds(self) -> None:
        """No coin is invented or forgotten, none is below the floor, and all are known to have entered."""
        coins = dict(self.ledger.coins.items())
        assert {held: entry.value_sats for held, entry in coins.items()} == self.reserve
        assert all(held in self.ledger.entered for held in coins)
        assert all(entry.value_sats >= LIMITS.coin_floor_sats for entry in coins.values())

    @invariant()
    def withdrawals_are_open_or_closed(self) -> None:
        """What is closed never changes; what is open is pending, or batched by the open lineage that names it."""
        assert {burn: entry.value_sats for burn, entry in self.ledger.open_withdrawals.items()} == self.open
        since = {burn: entry.burned_at_anchor for burn, entry in self.ledger.open_withdrawals.items()}
        assert since == {burn: self.waits_since[burn] for burn in self.open}
        assert dict(self.ledger.closed_withdrawals.items()) == self.closed
        assert self.open.keys() | self.closed.keys() == self.burned.keys()
        assert not self.open.keys() & self.closed.keys()
        lineages = dict(self.ledger.open_lineages.items())
        promised = {burn for lineage in lineages.values() for burn in lineage.payees}
        batched = {
            burn
            for burn, entry in self.ledger.open_withdrawals.items()
            if entry.status is WithdrawalStatus.BATCHED and entry.lineage in lineages
        }
        pending = {
            burn
            for burn, entry in self.ledger.open_withdrawals.items()
            if entry.status is WithdrawalStatus.PENDING and entry.lineage is None
        }
        assert (batched, pending) == (promised, set(self.open) - promised)
        locked = {held for held, entry in self.ledger.coins.items() if entry.lineage is not None}
        assert locked == {held for lineage in lineages.values() for held in lineage.inputs}
        assert locked == {held for planned in self.versions for held in planned.inputs}


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
