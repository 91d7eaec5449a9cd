"""The signer's laws: an honest batch is approved, and whatever may be wrong with one is refused by its reason."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.bitcoin.hashes import sha256
from bridge.bitcoin.identifiers import OutPoint, Txid
from bridge.bitcoin.transaction import Transaction, TxIn, TxOut
from bridge.custody import CoinKind, reserve_script
from bridge.ledger import Ledger, settle
from bridge.state import BatchKind, BatchVersion, Coin, Lineage, WithdrawalStatus
from federation.approval import (
    ApprovedBatch,
    RefusalReason,
    ReserveFacts,
    SigningRefused,
    approve_batch,
    plan_version,
    recorded_version,
)
from federation.signing_plan import SigningPlan
from tests.support.peg import ALICE, PARAMS, START_HEIGHT, outpoint, p2wpkh
from tests.support.signers import change_script_of, federation, honest_facts, ledger_with_payout

FEDERATION = federation(4)


@dataclass
class Case:
    """A recorded payout and what this member's node says; tests spoil one or the other."""

    ledger: Ledger
    version: BatchVersion
    facts: ReserveFacts

    @property
    def lineage(self) -> Lineage:
        """The lineage of the payout."""
        lineage = self.ledger.open_lineages.get(0)
        assert lineage is not None
        return lineage

    @property
    def transaction(self) -> Transaction:
        """The recorded transaction."""
        return Transaction.parse(self.version.transaction)

    def approve(self) -> ApprovedBatch:
        """The verdict."""
        return approve_batch(self.ledger, self.version.txid, self.facts, FEDERATION.custody, PARAMS)

    def record(self, transaction: Transaction, **changes: object) -> None:
        """Have the ledger say that `transaction` was recorded, fee and fund's part as it has them unless changed."""
        coins = [self.ledger.coins.get(txin.outpoint) for txin in transaction.inputs]
        spent_sats = sum(coin.value_sats for coin in coins if coin is not None)
        self.amend(
            transaction=transaction.serialize(),
            txid=transaction.txid,
            fee_sats=spent_sats - sum(output.value_sats for output in transaction.outputs),
        )
        self.amend(**changes)

    def amend(self, **changes: object) -> None:
        """Change fields of the recorded version."""
        self.version = replace(self.version, **changes)  # type: ignore[arg-type]
        self.ledger.versions.put(self.version.txid, 0)
        self.ledger.open_lineages.put(0, replace(self.lineage, versions=(self.version,)))

    def locked(self, position: int = 0) -> Coin:
        """A coin that the batch spends."""
        coin = self.ledger.coins.get(self.lineage.inputs[position])
        assert coin is not None
        return coin

    def other(self) -> Coin:
        """A coin that it does not spend."""
        return next(coin for _, coin in self.ledger.coins.items() if coin.lineage is None)

    def report(self, coin: OutPoint, found: TxOut | None) -> None:
        """Have the own node say something else of one coin."""
        self.facts = replace(self.facts, unspent={**self.facts.unspent, coin: found})


@pytest.fixture
def case() -> Case:
    """A payout that is approved as it stands."""
    return _case()


def _case() -> Case:
    ledger, version = ledger_with_payout(FEDERATION)
    return Case(ledger, version, honest_facts(ledger, FEDERATION.custody))


def _with_output(transaction: Transaction, index: int, **changes: object) -> Transaction:
    outputs = list(transaction.outputs)
    outputs[index] = replace(outputs[index], **changes)  # type: ignore[arg-type]
    return replace(transaction, outputs=tuple(outputs))


def _shift(transaction: Transaction, source: int, target: int, sats: int) -> Transaction:
    """Move value between two outputs."""
    moved = _with_output(transaction, source, value_sats=transaction.outputs[source].value_sats - sats)
    return _with_output(moved, target, value_sats=transaction.outputs[target].value_sats + sats)


def _assert_refused(case: Case, reason: RefusalReason) -> None:
    with pytest.raises(SigningRefused) as caught:
        case.approve()
    assert caught.value.reason is reason


def test_recorded_payout_is_approved(case: Case) -> None:
    approved = case.approve()
    assert approved.txid == case.version.txid
    assert approved.plan.transaction.serialize() == case.version.transaction
    assert [planned.outpoint for planned in approved.plan.inputs] == list(case.lineage.inputs)
    assert approved.plan.prevouts == tuple(case.facts.unspent[one] for one in case.lineage.inputs)


def test_approval_leaves_the_ledger_as_it_was(case: Case) -> None:
    before = list(case.ledger.coins.items()), list(case.ledger.open_lineages.items()), case.ledger.totals
    case.approve()
    assert (list(case.ledger.coins.items()), list(case.ledger.open_lineages.items()), case.ledger.totals) == before


def test_only_approve_batch_approves(case: Case) -> None:
    plan: SigningPlan = case.approve().plan
    with pytest.raises(TypeError):
        ApprovedBatch(plan, object())


def test_halted_member_refuses(case: Case) -> None:
    case.facts = replace(case.facts, halted=True)
    _assert_refused(case, RefusalReason.HALTED)


def test_node_below_the_anchor_refuses(case: Case) -> None:
    anchor_height = case.ledger.totals.anchor.height
    case.facts = replace(case.facts, l1_height=anchor_height)
    case.approve()
    case.facts = replace(case.facts, l1_height=anchor_height - 1)
    _assert_refused(case, RefusalReason.NODE_BEHIND)


def test_unrecorded_transaction_is_refused(case: Case) -> None:
    case.version = replace(case.version, txid=Txid(sha256(b"another")))
    _assert_refused(case, RefusalReason.NOT_RECORDED)


def test_version_that_its_lineage_lacks_is_refused(case: Case) -> None:
    stray = Txid(sha256(b"stray"))
    case.ledger.versions.put(stray, 0)
    case.version = replace(case.version, txid=stray)
    _assert_refused(case, RefusalReason.NOT_RECORDED)


def test_settled_lineage_is_refused(case: Case) -> None:
    settle(case.ledger, case.version.txid, START_HEIGHT + 1)
    _assert_refused(case, RefusalReason.LINEAGE_CLOSED)


def test_lineage_marked_settled_is_refused(case: Case) -> None:
    case.ledger.open_lineages.put(0, replace(case.lineage, settled_by=case.version.txid))
    _assert_refused(case, RefusalReason.LINEAGE_CLOSED)


def test_unknown_kind_is_refused(case: Case) -> None:
    case.ledger.open_lineages.put(0, replace(case.lineage, kind=99))  # type: ignore[arg-type]
    _assert_refused(case, RefusalReason.UNKNOWN_KIND)


@pytest.mark.parametrize("spoil", [lambda data: data[:-1], lambda data: data + b"\0", lambda _: b""])
def test_malformed_transaction_is_refused(case: Case, spoil: Callable[[bytes], bytes]) -> None:
    case.amend(transaction=spoil(case.version.transaction))
    _assert_refused(case, RefusalReason.MALFORMED_TRANSACTION)


def test_transaction_with_a_witness_is_refused(case: Case) -> None:
    signed = case.transaction.with_witnesses([(b"\x01",)] * len(case.transaction.inputs))
    case.amend(transaction=signed.serialize())
    _assert_refused(case, RefusalReason.MALFORMED_TRANSACTION)


def test_transaction_under_another_txid_is_refused(case: Case) -> None:
    case.amend(transaction=_shift(case.transaction, 0, 1, 1).serialize())
    _assert_refused(case, RefusalReason.WRONG_TXID)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda tx: replace(tx, version=1),
        lambda tx: replace(tx, locktime=500),
        lambda tx: replace(tx, inputs=(replace(tx.inputs[0], sequence=0xFFFFFFFF), *tx.inputs[1:])),
        lambda tx: replace(tx, inputs=(replace(tx.inputs[0], sequence=4_032), *tx.inputs[1:])),
        lambda tx: replace(tx, inputs=(replace(tx.inputs[0], script_sig=b"\x51"), *tx.inputs[1:])),
    ],
    ids=["version", "locktime", "final", "relative lock", "script"],
)
def test_transaction_of_another_form_is_refused(case: Case, spoil: Callable[[Transaction], Transaction]) -> None:
    case.record(spoil(case.transaction))
    _assert_refused(case, RefusalReason.WRONG_FORM)


def test_coin_spent_twice_is_refused(case: Case) -> None:
    inputs = case.transaction.inputs
    case.record(replace(case.transaction, inputs=(inputs[0], *inputs)))
    _assert_refused(case, RefusalReason.REPEATED_INPUT)


def test_input_outside_the_lineage_is_refused(case: Case) -> None:
    stranger = TxIn(case.other().outpoint, b"", case.transaction.inputs[0].sequence)
    case.record(replace(case.transaction, inputs=(*case.transaction.inputs, stranger)))
    _assert_refused(case, RefusalReason.INPUT_NOT_IN_LINEAGE)


def test_input_that_is_no_coin_is_refused(case: Case) -> None:
    case.ledger.coins.delete(case.lineage.inputs[1])
    _assert_refused(case, RefusalReason.INPUT_NOT_A_COIN)


def test_input_that_is_not_locked_is_refused(case: Case) -> None:
    case.ledger.coins.put(case.locked().outpoint, replace(case.locked(), lineage=None))
    _assert_refused(case, RefusalReason.INPUT_NOT_LOCKED)


def test_input_locked_by_another_lineage_is_refused(case: Case) -> None:
    case.ledger.coins.put(case.locked().outpoint, replace(case.locked(), lineage=7))
    _assert_refused(case, RefusalReason.INPUT_LOCKED_ELSEWHERE)


def test_input_that_another_lineage_also_names_is_refused(case: Case) -> None:
    other = Lineage(7, BatchKind.MAINTENANCE, (case.locked(1).outpoint,), (), (), 0)
    case.ledger.open_lineages.put(7, other)
    _assert_refused(case, RefusalReason.INPUT_LOCKED_ELSEWHERE)


def test_coin_of_an_unknown_epoch_is_refused(case: Case) -> None:
    case.ledger.coins.put(case.locked().outpoint, replace(case.locked(), epoch=3))
    _assert_refused(case, RefusalReason.NO_RESERVE_SCRIPT)


def test_unspent_coin_of_an_unknown_epoch_is_refused(case: Case) -> None:
    case.ledger.coins.put(case.other().outpoint, replace(case.other(), epoch=3))
    _assert_refused(case, RefusalReason.NO_RESERVE_SCRIPT)


def test_change_of_an_unknown_epoch_is_refused(case: Case) -> None:
    case.amend(epoch=3)
    _assert_refused(case, RefusalReason.NO_RESERVE_SCRIPT)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda tx: _with_output(tx, 0, script=p2wpkh("mallory")),
        lambda tx: replace(tx, outputs=(tx.outputs[1], tx.outputs[0], *tx.outputs[2:])),
        lambda tx: replace(tx, outputs=tx.outputs[3:]),
        lambda tx: replace(tx, outputs=tx.outputs[:2]),
        lambda tx: _shift(tx, 3, 0, 20_000),
        lambda tx: _with_output(tx, 0, value_sats=tx.outputs[0].value_sats - 20_000),
    ],
    ids=["script", "order", "none paid", "one unpaid", "more than burned", "over max_fee"],
)
def test_wrong_payees_are_refused(case: Case, spoil: Callable[[Transaction], Transaction]) -> None:
    case.record(spoil(case.transaction))
    _assert_refused(case, RefusalReason.WRONG_PAYEES)


@pytest.mark.parametrize("status", [WithdrawalStatus.PENDING, WithdrawalStatus.SETTLED, WithdrawalStatus.REFUNDED])
def test_payee_that_is_not_batched_is_refused(case: Case, status: WithdrawalStatus) -> None:
    withdrawal = case.ledger.open_withdrawals.get(case.lineage.payees[0])
    assert withdrawal is not None
    case.ledger.open_withdrawals.put(withdrawal.burn, replace(withdrawal, status=status))
    _assert_refused(case, RefusalReason.WRONG_PAYEES)


def test_payee_of_another_lineage_is_refused(case: Case) -> None:
    withdrawal = case.ledger.open_withdrawals.get(case.lineage.payees[0])
    assert withdrawal is not None
    case.ledger.open_withdrawals.put(withdrawal.burn, replace(withdrawal, lineage=7))
    _assert_refused(case, RefusalReason.WRONG_PAYEES)


def test_payee_without_a_burn_is_refused(case: Case) -> None:
    case.ledger.open_withdrawals.delete(case.lineage.payees[2])
    _assert_refused(case, RefusalReason.WRONG_PAYEES)


def test_payee_named_twice_is_refused(case: Case) -> None:
    first, _, third, *change = case.transaction.outputs
    case.record(replace(case.transaction, outputs=(first, first, third, *change)))
    payees = case.lineage.payees
    case.ledger.open_lineages.put(0, replace(case.lineage, payees=(payees[0], payees[0], payees[2])))
    _assert_refused(case, RefusalReason.WRONG_PAYEES)


def test_payout_without_payees_is_refused(case: Case) -> None:
    case.ledger.open_lineages.put(0, replace(case.lineage, payees=()))
    _assert_refused(case, RefusalReason.WRONG_PAYEES)


def test_maintenance_with_payees_is_refused(case: Case) -> None:
    case.ledger.open_lineages.put(0, replace(case.lineage, kind=BatchKind.MAINTENANCE))
    _assert_refused(case, RefusalReason.WRONG_PAYEES)


def test_change_to_anyone_else_is_refused(case: Case) -> None:
    case.record(_with_output(case.transaction, 4, script=p2wpkh("mallory")))
    _assert_refused(case, RefusalReason.WRONG_CHANGE)


def test_change_to_a_deposit_script_is_refused(case: Case) -> None:
    deposit = reserve_script(FEDERATION.policy, CoinKind.DEPOSIT, ALICE)
    case.record(_with_output(case.transaction, 4, script=deposit.script))
    _assert_refused(case, RefusalReason.WRONG_CHANGE)


def test_change_under_the_coin_floor_is_refused(case: Case) -> None:
    left_sats = case.transaction.outputs[3].value_sats - (PARAMS.coin_floor_sats - 1)
    case.record(_shift(case.transaction, 3, 4, left_sats))
    _assert_refused(case, RefusalReason.WRONG_CHANGE)


def test_outputs_beyond_the_inputs_are_refused(case: Case) -> None:
    case.record(_with_output(case.transaction, 3, value_sats=case.locked().value_sats * 2))
    _assert_refused(case, RefusalReason.WRONG_FEE)


def test_recorded_fee_that_is_another_is_refused(case: Case) -> None:
    case.amend(fee_sats=case.version.fee_sats + 1)
    _assert_refused(case, RefusalReason.WRONG_FEE)


def test_recorded_fund_part_that_is_another_is_refused(case: Case) -> None:
    case.amend(fund_part_sats=1)
    _assert_refused(case, RefusalReason.WRONG_FEE)


def test_fee_below_the_feerate_is_refused(case: Case) -> None:
    case.amend(feerate_sat_kvb=case.version.feerate_sat_kvb + 100)
    _assert_refused(case, RefusalReason.WRONG_FEE)


def test_payees_who_bear_more_than_the_feerate_asks_are_refused(case: Case) -> None:
    case.record(_shift(case.transaction, 0, 3, 5))
    _assert_refused(case, RefusalReason.WRONG_FEE)
    case = _case()
    case.record(_with_output(case.transaction, 0, value_sats=case.transaction.outputs[0].value_sats - 5))
    _assert_refused(case, RefusalReason.WRONG_FEE)


def test_value_given_to_the_fee_is_refused(case: Case) -> None:
    case.record(_with_output(case.transaction, 3, value_sats=case.transaction.outputs[3].value_sats - 1_000))
    _assert_refused(case, RefusalReason.WRONG_FEE)


def test_fund_part_over_the_cap_is_refused(case: Case) -> None:
    case.amend(fund_part_sats=PARAMS.lineage_fee_cap_sats + 1)
    _assert_refused(case, RefusalReason.FEE_OVER_CAP)


@pytest.mark.parametrize("feerate", [PARAMS.feerate_floor_sat_kvb - 1, PARAMS.feerate_ceiling_sat_kvb + 1])
def test_feerate_out_of_range_is_refused(case: Case, feerate: int) -> None:
    case.amend(feerate_sat_kvb=feerate)
    _assert_refused(case, RefusalReason.FEERATE_OUT_OF_RANGE)


def test_withdrawal_over_the_cap_is_refused(case: Case) -> None:
    params = replace(PARAMS, max_withdrawal_sats=17_500_001)
    with pytest.raises(SigningRefused) as caught:
        approve_batch(case.ledger, case.version.txid, case.facts, FEDERATION.custody, params)
    assert caught.value.reason is RefusalReason.WITHDRAWAL_OVER_CAP


def test_batch_that_the_chain_holds_is_refused(case: Case) -> None:
    case.facts = replace(case.facts, confirmed=frozenset({case.version.txid}))
    _assert_refused(case, RefusalReason.ALREADY_CONFIRMED)


@pytest.mark.parametrize("which", ["locked", "other"])
def test_coin_that_the_node_was_not_asked_for_is_refused(case: Case, which: str) -> None:
    coin = case.locked() if which == "locked" else case.other()
    case.facts = replace(
        case.facts, unspent={point: found for point, found in case.facts.unspent.items() if point != coin.outpoint}
    )
    _assert_refused(case, RefusalReason.COIN_NOT_REPORTED)


@pytest.mark.parametrize("which", ["locked", "other"])
def test_coin_that_the_node_lacks_is_refused(case: Case, which: str) -> None:
    case.report((case.locked() if which == "locked" else case.other()).outpoint, None)
    _assert_refused(case, RefusalReason.COIN_MISSING)


@pytest.mark.parametrize("which", ["locked", "other"])
@pytest.mark.parametrize("changes", [{"value_sats": 1}, {"script": p2wpkh("mallory")}], ids=["value", "script"])
def test_coin_that_the_node_has_otherwise_is_refused(case: Case, which: str, changes: dict[str, object]) -> None:
    coin = case.locked() if which == "locked" else case.other()
    found = case.facts.unspent[coin.outpoint]
    assert found is not None
    case.report(coin.outpoint, replace(found, **changes))  # type: ignore[arg-type]
    _assert_refused(case, RefusalReason.COIN_DIFFERS)


def _with_maintenance(case: Case) -> BatchVersion:
    """A second lineage, of maintenance, that spends the one free coin."""
    coin = case.other()
    spend = Transaction(
        2, (TxIn(coin.outpoint, b"", 0xFFFFFFFD),), (TxOut(coin.value_sats - 10_000, change_script_of(FEDERATION)),)
    )
    version = BatchVersion(spend.txid, spend.serialize(), 20_000, 10_000, 10_000, 0, START_HEIGHT)
    case.ledger.coins.put(coin.outpoint, replace(coin, lineage=1))
    case.ledger.open_lineages.put(1, Lineage(1, BatchKind.MAINTENANCE, (coin.outpoint,), (), (version,), 10_000))
    case.ledger.versions.put(version.txid, 1)
    return version


def test_coin_spent_by_another_recorded_version_is_no_loss(case: Case) -> None:
    spent = case.other().outpoint
    maintenance = _with_maintenance(case)
    case.report(spent, None)
    _assert_refused(case, RefusalReason.COIN_MISSING)
    case.facts = replace(case.facts, confirmed=frozenset({maintenance.txid}))
    case.approve()
    case.report(case.locked().outpoint, None)
    _assert_refused(case, RefusalReason.COIN_MISSING)


def test_other_lineage_with_a_malformed_version_is_refused(case: Case) -> None:
    maintenance = _with_maintenance(case)
    other = case.ledger.open_lineages.get(1)
    assert other is not None
    case.ledger.open_lineages.put(1, replace(other, versions=(replace(maintenance, transaction=b""),)))
    case.facts = replace(case.facts, confirmed=frozenset({maintenance.txid}))
    _assert_refused(case, RefusalReason.MALFORMED_TRANSACTION)


def test_maintenance_is_approved_and_may_book_a_capped_deficit(case: Case) -> None:
    case.version = _with_maintenance(case)
    case.approve()
    lineage = case.ledger.open_lineages.get(1)
    assert lineage is not None
    for fund_part_sats, expected in ((9_000, None), (10_001, RefusalReason.WRONG_FEE)):
        version = replace(case.version, fund_part_sats=fund_part_sats)
        case.ledger.open_lineages.put(1, replace(lineage, versions=(version,)))
        if expected is None:
            case.approve()
        else:
            _assert_refused(case, expected)
    params = replace(PARAMS, maintenance_deficit_cap_sats=999)
    case.ledger.open_lineages.put(1, replace(lineage, versions=(replace(case.version, fund_part_sats=9_000),)))
    with pytest.raises(SigningRefused) as caught:
        approve_batch(case.ledger, case.version.txid, case.facts, FEDERATION.custody, params)
    assert caught.value.reason is RefusalReason.WRONG_FEE


def test_plan_is_there_for_a_member_that_refuses(case: Case) -> None:
    case.facts = replace(case.facts, halted=True)
    _assert_refused(case, RefusalReason.HALTED)
    lineage, version = recorded_version(case.ledger, case.version.txid)
    plan = plan_version(case.ledger, lineage, version, FEDERATION.custody)
    assert plan.txid == case.version.txid


def test_plan_knows_the_size_before_anyone_signs(case: Case) -> None:
    plan = case.approve().plan
    policy = FEDERATION.policy
    widest = (b"\0" * 64,) * policy.quorum + (b"",) * (len(policy.member_keys) - policy.quorum)
    signed = plan.transaction.with_witnesses(
        [(*widest, planned.reserve.quorum_leaf, planned.reserve.quorum_control_block) for planned in plan.inputs]
    )
    assert plan.signed_vsize_vbytes == signed.vsize_vbytes


@given(position=st.integers(min_value=0), value=st.integers(min_value=1, max_value=255))
def test_any_damaged_byte_of_the_transaction_is_refused(position: int, value: int) -> None:
    case = _case()
    data = bytearray(case.version.transaction)
    data[position % len(data)] ^= value
    case.amend(transaction=bytes(data))
    with pytest.raises(SigningRefused):
        case.approve()


def test_every_kind_of_coin_is_planned_by_its_own_script(case: Case) -> None:
    for position, kind in enumerate((CoinKind.CHANGE, CoinKind.DONATION)):
        coin = case.locked(position)
        case.ledger.coins.put(coin.outpoint, replace(coin, kind=kind, claim_script=b""))
    case.facts = honest_facts(case.ledger, FEDERATION.custody)
    plan = case.approve().plan
    assert len({planned.reserve.script for planned in plan.inputs}) == 3
    assert len({planned.digest32 for planned in plan.inputs}) == len(plan.inputs)


def test_facts_of_coins_that_the_ledger_lacks_do_not_matter(case: Case) -> None:
    case.report(outpoint(999), None)
    case.approve()
