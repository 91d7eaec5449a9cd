"""Batches of both kinds against a model of L1: versions, replacements and settlements in any order.

The model is L1 as a Bitcoin node would have it: outputs, and any recorded version confirmed whose inputs are unspent.
Random histories try to have a burn paid twice, a coin counted that is spent, or a fee that nobody agreed to; and, as
coins are lost as well, a version recorded that the signer's laws refuse.
"""

from dataclasses import replace
from functools import partial

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bridge.batch import Batch, build_batch, check_batch, propose_batches
from bridge.bitcoin.identifiers import OutPoint, Txid
from bridge.bitcoin.transaction import Transaction
from bridge.custody import CoinKind
from bridge.errors import Rejected
from bridge.ledger import advance_anchor, enter_coin, enter_donation, record_burn
from bridge.lineages import free_fund_sats, record_batch, settle
from bridge.losses import book_losses
from bridge.records import Deficit, LostCoin
from bridge.replacement import is_least_step
from bridge.state import BatchKind, Coin, LedgerReason, Lineage
from federation.approval import approve_batch
from federation.refusal import RefusalReason, SigningRefused
from tests.support.ledgers import rejection
from tests.support.peg import ALICE, CUSTODY, PARAMS, anchor, new_ledger, outpoint, p2wpkh
from tests.support.signers import honest_facts

LIMITS = replace(
    PARAMS,
    batch_min_payouts=1,
    batch_max_payees=3,
    batch_max_first_inputs=3,
    batch_max_inputs=5,
    maintenance_max_first_inputs=4,
    maintenance_max_inputs=5,
    change_target_coins=4,
    replacement_interval_anchors=2,
    lineage_fee_cap_sats=40_000,
    maintenance_deficit_cap_sats=20_000,
    recovery_timelock_blocks=64,
)
PICKS = st.integers(min_value=0, max_value=2**16)
FEERATES = st.integers(min_value=1_000, max_value=60_000)


class BatchMachine(RuleBasedStateMachine):
    """unspent: the reserve's outputs on L1 with their values.  paid: how often each burn was paid on L1, and what.

    open: burns and their bounds, not paid yet.  mined: versions that L1 has confirmed and nobody has proven.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ledger = new_ledger()
        self.unspent: dict[OutPoint, int] = {}
        self.open: dict[OutPoint, tuple[int, int]] = {}
        self.paid: dict[OutPoint, list[int]] = {}
        self.mined: list[Txid] = []
        self.deficit_sats = 0
        self.serial = 0

    def _next(self) -> OutPoint:
        self.serial += 1
        return outpoint(self.serial)

    def _height(self) -> int:
        return self.ledger.totals.anchor.height

    def _enter(self, value_sats: int, kind: CoinKind, age: int = 0) -> None:
        claim_script = ALICE if kind is CoinKind.DEPOSIT else b""
        coin = Coin(self._next(), value_sats, kind, 0, claim_script, self._height() - age)
        if kind is CoinKind.DEPOSIT:
            enter_coin(self.ledger, coin, 100)
        else:
            enter_donation(self.ledger, coin)
            self.deficit_sats -= min(value_sats, self.deficit_sats)
        self.unspent[coin.outpoint] = value_sats

    @initialize()
    def begin(self) -> None:
        """A reserve of coins of many ages."""
        for value_sats, age in ((900_000, 0), (400_000, 20), (400_000, 31), (60_000, 40), (35_000, 0)):
            self._enter(value_sats, CoinKind.DEPOSIT, age)

    @rule(value_sats=st.integers(min_value=31_000, max_value=900_000))
    def deposit(self, value_sats: int) -> None:
        self._enter(value_sats, CoinKind.DEPOSIT)

    @rule(value_sats=st.integers(min_value=30_000, max_value=90_000))
    def donate(self, value_sats: int) -> None:
        self._enter(value_sats, CoinKind.DONATION)

    @rule(permille=st.integers(min_value=20, max_value=900), max_fee_sats=st.sampled_from([1_000, 3_000, 20_000]))
    def burn(self, permille: int, max_fee_sats: int) -> None:
        value_sats = self.ledger.totals.supply_sats * permille // 1_000
        if value_sats > max_fee_sats + 330:
            name = self._next()
            record_burn(
                self.ledger,
                name,
                value_sats=value_sats,
                max_fee_sats=max_fee_sats,
                l1_script=p2wpkh(str(self.serial)),
                refund_script=ALICE,
            )
            self.open[name] = (value_sats, max_fee_sats)

    @rule(step=st.integers(min_value=1, max_value=6))
    def pass_time(self, step: int) -> None:
        advance_anchor(self.ledger, anchor(self._height() + step), LIMITS)

    @rule(estimate=FEERATES)
    def propose(self, estimate: int) -> None:
        before = dict(self.ledger.open_lineages.items())
        for planned in propose_batches(self.ledger, estimate, self.mined, CUSTODY, LIMITS):
            assert check_batch(self.ledger, Batch.of(planned), CUSTODY, LIMITS) == planned
            lineage = record_batch(self.ledger, planned)
            if lineage.number in before:
                least = is_least_step(self.ledger, planned.kind, CUSTODY)
                assert least or planned.version.feerate_sat_kvb == estimate, "others would not vote for it"
                assert not set(self.mined) & {version.txid for version in lineage.versions}

    @rule(kind=st.sampled_from(BatchKind), feerate=FEERATES, pick=PICKS)
    def replace_by_a_faulty_leader(self, kind: BatchKind, feerate: int, pick: int) -> None:
        """At any feerate that the rules let through, and of any version."""
        known = [txid for txid, _ in self.ledger.versions.items()]
        if not known:
            return
        replaced = known[pick % len(known)]
        try:
            planned = build_batch(self.ledger, kind, replaced, feerate, CUSTODY, LIMITS)
        except Rejected:
            return
        assert planned is not None
        record_batch(self.ledger, planned)
        assert rejection(self.ledger, lambda: record_batch(self.ledger, planned)) is LedgerReason.NOT_NEWEST

    @rule()
    def sign(self) -> None:
        """The signer's laws allow every version that is recorded by the rules, however long ago, unless L1 has one."""
        facts = honest_facts(self.ledger, CUSTODY)
        seen = {held: found if held in self.unspent else None for held, found in facts.unspent.items()}
        facts = replace(facts, unspent=seen, confirmed=frozenset(self.mined))
        for _, lineage in self.ledger.open_lineages.items():
            versions = [version.txid for version in lineage.versions]
            for txid in versions:
                if set(versions) & set(self.mined):
                    with pytest.raises(SigningRefused) as caught:
                        approve_batch(self.ledger, txid, facts, CUSTODY, LIMITS)
                    assert caught.value.reason is RefusalReason.ALREADY_CONFIRMED
                else:
                    assert approve_batch(self.ledger, txid, facts, CUSTODY, LIMITS).txid == txid

    @precondition(lambda self: len(self.unspent) > 2)
    @rule(pick=PICKS)
    def lose(self, pick: int) -> None:
        """A record books a coin as lost: the versions that spend it are dead, and their payees may wait again."""
        held = sorted(self.ledger.coins.items(), key=lambda item: item[1].value_sats)
        lost = [LostCoin(entry.outpoint, entry.value_sats) for _, entry in held if entry.outpoint in self.unspent]
        if lost:
            coin = lost[pick % len(lost)]
            book_losses(self.ledger, Deficit.of((coin,)))
            del self.unspent[coin.outpoint]
            self.deficit_sats += coin.value_sats

    @precondition(lambda self: self._waiting())
    @rule(pick=PICKS)
    def mine(self, pick: int) -> None:
        """L1 confirms any version that it can: all its inputs are there."""
        waiting = self._waiting()
        lineage, txid = waiting[pick % len(waiting)]
        transaction = self._transaction(txid)
        for txin in transaction.inputs:
            del self.unspent[txin.outpoint]
        for index, burn in enumerate(lineage.payees):
            self.paid.setdefault(burn, []).append(transaction.outputs[index].value_sats)
        for index in range(len(lineage.payees), len(transaction.outputs)):
            self.unspent[transaction.outpoint(index)] = transaction.outputs[index].value_sats
        self.mined.append(txid)

    @precondition(lambda self: self.mined)
    @rule(pick=PICKS)
    def prove(self, pick: int) -> None:
        txid = self.mined.pop(pick % len(self.mined))
        before = self.ledger.totals
        closed = settle(self.ledger, txid, self._height())
        version = next(version for version in closed.versions if version.txid == txid)
        self.deficit_sats += self.ledger.totals.deficit_sats - before.deficit_sats
        short_sats = self.ledger.totals.deficit_sats - before.deficit_sats
        assert 0 <= short_sats <= (LIMITS.maintenance_deficit_cap_sats if closed.kind is BatchKind.MAINTENANCE else 0)
        assert before.fund_sats - self.ledger.totals.fund_sats == version.fund_part_sats
        assert version.fund_part_sats <= LIMITS.lineage_fee_cap_sats
        for burn in closed.payees:
            value_sats, max_fee_sats = self.open.pop(burn)
            [paid_sats] = self.paid[burn]
            assert value_sats - max_fee_sats <= paid_sats <= value_sats
        for other in closed.versions:
            again = partial(settle, self.ledger, other.txid, self._height())
            assert rejection(self.ledger, again) is LedgerReason.ALREADY_SETTLED

    def _transaction(self, txid: Txid) -> Transaction:
        versions = (version for _, lineage in self.ledger.open_lineages.items() for version in lineage.versions)
        return Transaction.parse(next(version.transaction for version in versions if version.txid == txid))

    def _waiting(self) -> list[tuple[Lineage, Txid]]:
        """The versions that L1 could confirm now."""
        return [
            (lineage, version.txid)
            for _, lineage in self.ledger.open_lineages.items()
            for version in lineage.versions
            if all(txin.outpoint in self.unspent for txin in Transaction.parse(version.transaction).inputs)
        ]

    @invariant()
    def nobody_is_paid_twice(self) -> None:
        """However many versions there are, L1 takes one: every other of its lineage spends what is gone."""
        assert all(len(payments) == 1 for payments in self.paid.values())

    @invariant()
    def ledger_is_what_l1_holds(self) -> None:
        """All but what confirmed versions have spent and brought back, which the ledger learns when they are proven."""
        self.ledger.totals.require_equality()
        assert self.ledger.totals.deficit_sats == self.deficit_sats
        assert free_fund_sats(self.ledger) >= 0
        expected = dict(self.unspent)
        for txid in self.mined:
            transaction = self._transaction(txid)
            for index in range(len(transaction.outputs)):
                expected.pop(transaction.outpoint(index), None)
            for txin in transaction.inputs:
                coin = self.ledger.coins.get(txin.outpoint)
                assert coin is not None
                assert coin.lineage is not None
                expected[txin.outpoint] = coin.value_sats
        assert {held: coin.value_sats for held, coin in self.ledger.coins.items()} == expected

    @invariant()
    def every_version_spends_what_the_one_before_spends(self) -> None:
        for _, lineage in self.ledger.open_lineages.items():
            spent: set[OutPoint] = set()
            for version in lineage.versions:
                inputs = {txin.outpoint for txin in Transaction.parse(version.transaction).inputs}
                assert spent <= inputs <= set(lineage.inputs)
                assert version.fund_part_sats <= lineage.reserved_fund_sats
                spent = inputs
            assert len(spent) <= LIMITS.batch_max_inputs


TestBatchMachine = BatchMachine.TestCase
TestBatchMachine.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
