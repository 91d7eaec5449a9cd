"""The signer's laws about what is recorded: an honest payout is approved; another version, form or coin is refused."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.bitcoin.hashes import sha256
from bridge.bitcoin.identifiers import Txid
from bridge.bitcoin.transaction import Transaction, TxIn
from bridge.custody import CoinKind
from bridge.lineages import settle
from bridge.state import BatchKind, Lineage
from federation.approval import ApprovedBatch
from federation.recorded_batch import plan_version, recorded_version
from federation.refusal import RefusalReason, SigningRefused
from federation.signing_plan import SigningPlan
from tests.support.approval import FEDERATION, Case, assert_refused, payout_case, shifted
from tests.support.peg import START_HEIGHT
from tests.support.signers import honest_facts


@pytest.fixture
def case() -> Case:
    """A payout that is approved as it stands."""
    return payout_case()


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


def test_unrecorded_transaction_is_refused(case: Case) -> None:
    case.version = replace(case.version, txid=Txid(sha256(b"another")))
    assert_refused(case, RefusalReason.NOT_RECORDED)


def test_version_that_its_lineage_lacks_is_refused(case: Case) -> None:
    stray = Txid(sha256(b"stray"))
    case.ledger.versions.put(stray, 0)
    case.version = replace(case.version, txid=stray)
    assert_refused(case, RefusalReason.NOT_RECORDED)


def test_settled_lineage_is_refused(case: Case) -> None:
    settle(case.ledger, case.version.txid, START_HEIGHT + 1)
    assert_refused(case, RefusalReason.LINEAGE_CLOSED)


def test_lineage_marked_settled_is_refused(case: Case) -> None:
    case.ledger.open_lineages.put(0, replace(case.lineage, settled_by=case.version.txid))
    assert_refused(case, RefusalReason.LINEAGE_CLOSED)


def test_unknown_kind_is_refused(case: Case) -> None:
    case.ledger.open_lineages.put(0, replace(case.lineage, kind=99))  # type: ignore[arg-type]
    assert_refused(case, RefusalReason.UNKNOWN_KIND)


@pytest.mark.parametrize("spoil", [lambda data: data[:-1], lambda data: data + b"\0", lambda _: b""])
def test_malformed_transaction_is_refused(case: Case, spoil: Callable[[bytes], bytes]) -> None:
    case.amend(transaction=spoil(case.version.transaction))
    assert_refused(case, RefusalReason.MALFORMED_TRANSACTION)


def test_transaction_with_a_witness_is_refused(case: Case) -> None:
    signed = case.transaction.with_witnesses([(b"\x01",)] * len(case.transaction.inputs))
    case.amend(transaction=signed.serialize())
    assert_refused(case, RefusalReason.MALFORMED_TRANSACTION)


def test_transaction_under_another_txid_is_refused(case: Case) -> None:
    case.amend(transaction=shifted(case.transaction, 0, 1, 1).serialize())
    assert_refused(case, RefusalReason.WRONG_TXID)


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
    assert_refused(case, RefusalReason.WRONG_FORM)


def test_coin_spent_twice_is_refused(case: Case) -> None:
    inputs = case.transaction.inputs
    case.record(replace(case.transaction, inputs=(inputs[0], *inputs)))
    assert_refused(case, RefusalReason.REPEATED_INPUT)


def test_input_outside_the_lineage_is_refused(case: Case) -> None:
    stranger = TxIn(case.other().outpoint, b"", case.transaction.inputs[0].sequence)
    case.record(replace(case.transaction, inputs=(*case.transaction.inputs, stranger)))
    assert_refused(case, RefusalReason.INPUT_NOT_IN_LINEAGE)


def test_input_that_is_no_coin_is_refused(case: Case) -> None:
    case.ledger.coins.delete(case.lineage.inputs[1])
    assert_refused(case, RefusalReason.INPUT_NOT_A_COIN)


def test_input_that_is_not_locked_is_refused(case: Case) -> None:
    case.ledger.coins.put(case.locked().outpoint, replace(case.locked(), lineage=None))
    assert_refused(case, RefusalReason.INPUT_NOT_LOCKED)


def test_input_locked_by_another_lineage_is_refused(case: Case) -> None:
    case.ledger.coins.put(case.locked().outpoint, replace(case.locked(), lineage=7))
    assert_refused(case, RefusalReason.INPUT_LOCKED_ELSEWHERE)


def test_input_that_another_lineage_also_names_is_refused(case: Case) -> None:
    other = Lineage(7, BatchKind.MAINTENANCE, (case.locked(1).outpoint,), (), (), 0)
    case.ledger.open_lineages.put(7, other)
    assert_refused(case, RefusalReason.INPUT_LOCKED_ELSEWHERE)


def test_coin_of_an_unknown_epoch_is_refused(case: Case) -> None:
    case.ledger.coins.put(case.locked().outpoint, replace(case.locked(), epoch=3))
    assert_refused(case, RefusalReason.NO_RESERVE_SCRIPT)


def test_plan_is_there_for_a_member_that_refuses(case: Case) -> None:
    case.facts = replace(case.facts, halted=True)
    assert_refused(case, RefusalReason.HALTED)
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
    case = payout_case()
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
