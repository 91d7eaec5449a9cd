"""Deposits: what evidence enters, which claims follow from it, and that bad evidence enters nothing."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.bitcoin.identifiers import OutPoint, Script
from bridge.bitcoin.transaction import Transaction, TxIn, TxOut
from bridge.custody import CoinKind, Custody, CustodyReason, reserve_script
from bridge.deposits import (
    CLAIM_FLAG,
    REFUND_FLAG,
    ReserveTerms,
    apply_evidence,
    build_evidence,
    claim_transaction,
    find_openings,
)
from bridge.errors import Reason
from bridge.evidence import Evidence, EvidenceReason, Opening
from bridge.ledger import Ledger, enter_coin
from bridge.lineages import record_batch, settle
from bridge.state import Coin, LedgerReason, WithdrawalStatus
from tests.support.ledgers import (
    batched_ledger,
    burn,
    only_lineage,
    only_withdrawal,
    plan,
    rejection,
    small_ledger,
    terms,
)
from tests.support.peg import (
    ALICE,
    BOB,
    CUSTODY,
    PARAMS,
    POLICY,
    START_HEIGHT,
    coin,
    deposit_script,
    evidence_of,
    lone_fact,
    lone_proof,
    new_ledger,
    pays,
    policy,
)

DONATION_SCRIPT = reserve_script(POLICY, CoinKind.DONATION).script
CHANGE_SCRIPT = reserve_script(POLICY, CoinKind.CHANGE).script
DEPOSIT = Opening(0, CoinKind.DEPOSIT, 0, ALICE)


def _apply(ledger: Ledger, evidence: Evidence) -> tuple[Transaction, ...]:
    return apply_evidence(ledger, evidence, lone_fact(evidence.l1_height), CUSTODY, PARAMS)


def _reason(ledger: Ledger, evidence: Evidence) -> Reason:
    return rejection(ledger, lambda: _apply(ledger, evidence))


# Claims


@given(value_sats=st.integers(min_value=PARAMS.min_deposit_sats, max_value=PARAMS.max_peg_sats))
def test_deposit_gives_its_claim(value_sats: int) -> None:
    ledger = new_ledger()
    deposit = pays((value_sats, deposit_script()))
    (claim,) = _apply(ledger, evidence_of(deposit, DEPOSIT))
    assert terms(ledger) == (value_sats, 0, value_sats - 30_000, 0, 30_000)
    assert claim.outputs == (TxOut(value_sats - 30_000, ALICE),)
    entered = Coin(deposit.outpoint(0), value_sats, CoinKind.DEPOSIT, 0, ALICE, START_HEIGHT)
    assert ledger.coins.get(deposit.outpoint(0)) == entered


def test_claim_has_one_form() -> None:
    deposit = pays((200_000, BOB), (100_000, deposit_script(BOB)))
    claim = claim_transaction(deposit.outpoint(1), 100_000, BOB, PARAMS)
    assert claim == Transaction(
        version=2,
        inputs=(TxIn(OutPoint(deposit.txid, 1 | 1 << 30), b"", 0xFFFFFFFF, ()),),
        outputs=(TxOut(70_000, BOB),),
        locktime=0,
    )
    assert claim == Transaction.parse(claim.serialize())
    assert (CLAIM_FLAG, REFUND_FLAG) == (1 << 30, 1 << 29)


def test_evidence_enters_all_its_openings_in_order() -> None:
    ledger = new_ledger()
    transaction = pays(
        (500_000, deposit_script(BOB)), (1, ALICE), (300_000, DONATION_SCRIPT), (200_000, deposit_script(ALICE))
    )
    bobs = Opening(0, CoinKind.DEPOSIT, 0, BOB)
    donation = Opening(2, CoinKind.DONATION, 0, b"")
    claims = _apply(ledger, evidence_of(transaction, bobs, donation, replace(DEPOSIT, vout=3)))
    assert [claim.outputs for claim in claims] == [(TxOut(470_000, BOB),), (TxOut(170_000, ALICE),)]
    assert terms(ledger) == (1_000_000, 0, 640_000, 0, 360_000)


def test_outputs_of_one_transaction_may_enter_at_different_times() -> None:
    ledger = new_ledger()
    transaction = pays((500_000, deposit_script(BOB)), (200_000, deposit_script(ALICE)))
    _apply(ledger, evidence_of(transaction, replace(DEPOSIT, vout=1)))
    _apply(ledger, evidence_of(transaction, Opening(0, CoinKind.DEPOSIT, 0, BOB)))
    assert terms(ledger)[:1] == (700_000,)


# What goes to the fund


@pytest.mark.parametrize(
    ("value_sats", "script", "opening"),
    [
        pytest.param(99_999, deposit_script(), DEPOSIT, id="deposit below the minimum"),
        pytest.param(30_000, deposit_script(), DEPOSIT, id="deposit at the floor"),
        pytest.param(500_000, DONATION_SCRIPT, Opening(0, CoinKind.DONATION, 0, b""), id="donation"),
        pytest.param(500_000, CHANGE_SCRIPT, Opening(0, CoinKind.CHANGE, 0, b""), id="payment to the change script"),
    ],
)
def test_evidence_of_what_nobody_may_claim_goes_to_the_fund(value_sats: int, script: Script, opening: Opening) -> None:
    ledger = new_ledger()
    transaction = pays((value_sats, script))
    assert _apply(ledger, evidence_of(transaction, opening)) == ()
    assert terms(ledger) == (value_sats, 0, 0, 0, value_sats)
    entered = ledger.coins.get(transaction.outpoint(0))
    assert entered is not None
    assert (entered.kind, entered.claim_script) == (opening.kind, opening.claim_script)


# Refusals


@pytest.mark.parametrize(
    ("openings", "reason"),
    [
        ((), EvidenceReason.NO_OPENINGS),
        ((replace(DEPOSIT, vout=1), DEPOSIT), EvidenceReason.OPENINGS_UNSORTED),
        ((DEPOSIT, DEPOSIT), EvidenceReason.OPENINGS_UNSORTED),
        ((DEPOSIT, replace(DEPOSIT, vout=2)), EvidenceReason.NO_SUCH_OUTPUT),
        ((DEPOSIT, replace(DEPOSIT, vout=2**32 - 1)), EvidenceReason.NO_SUCH_OUTPUT),
        ((replace(DEPOSIT, claim_script=BOB),), EvidenceReason.WRONG_SCRIPT),
        ((DEPOSIT, replace(DEPOSIT, vout=1)), EvidenceReason.WRONG_SCRIPT),
        ((replace(DEPOSIT, kind=CoinKind.DONATION, claim_script=b""),), EvidenceReason.WRONG_SCRIPT),
        ((replace(DEPOSIT, claim_script=b""),), EvidenceReason.CLAIM_SCRIPT_TYPE),
        ((replace(DEPOSIT, claim_script=b"\x51"),), EvidenceReason.CLAIM_SCRIPT_TYPE),
        ((replace(DEPOSIT, kind=CoinKind.DONATION),), EvidenceReason.CLAIM_SCRIPT_TYPE),
        ((replace(DEPOSIT, kind=CoinKind.CHANGE),), EvidenceReason.CLAIM_SCRIPT_TYPE),
        ((replace(DEPOSIT, epoch=1),), CustodyReason.UNKNOWN_EPOCH),
    ],
)
def test_evidence_rejects_openings_that_are_none(openings: tuple[Opening, ...], reason: Reason) -> None:
    transaction = pays((200_000, deposit_script()), (200_000, BOB))
    assert _reason(small_ledger(), evidence_of(transaction, *openings)) is reason


def test_evidence_rejects_an_output_below_the_floor() -> None:
    transaction = pays((200_000, deposit_script()), (29_999, DONATION_SCRIPT))
    evidence = evidence_of(transaction, DEPOSIT, Opening(1, CoinKind.DONATION, 0, b""))
    assert _reason(small_ledger(), evidence) is EvidenceReason.BELOW_FLOOR


def test_evidence_rejects_an_outpoint_that_entered_before() -> None:
    ledger = small_ledger()
    evidence = evidence_of(pays((200_000, deposit_script())), DEPOSIT)
    _apply(ledger, evidence)
    assert _reason(ledger, evidence) is EvidenceReason.ALREADY_ENTERED


@pytest.mark.parametrize(
    ("script", "opening"),
    [
        pytest.param(deposit_script(), DEPOSIT, id="deposit"),
        pytest.param(DONATION_SCRIPT, Opening(0, CoinKind.DONATION, 0, b""), id="donation"),
    ],
)
def test_evidence_rejects_more_reserves_than_the_cap(script: Script, opening: Opening) -> None:
    ledger = new_ledger()
    enter_coin(ledger, coin(1, PARAMS.max_peg_sats - 200_000), 0)
    assert _reason(ledger, evidence_of(pays((200_001, script)), opening)) is EvidenceReason.OVER_CAP
    _apply(ledger, evidence_of(pays((200_000, script)), opening))
    assert ledger.totals.reserves_sats == PARAMS.max_peg_sats


def test_evidence_rejects_a_block_above_the_anchor() -> None:
    transaction = pays((200_000, deposit_script()))
    above = evidence_of(transaction, DEPOSIT, l1_height=START_HEIGHT + 1)
    assert _reason(small_ledger(), above) is EvidenceReason.ABOVE_ANCHOR


@pytest.mark.parametrize("timelock_blocks", [71, 72])
def test_evidence_rejects_an_output_past_half_of_the_recovery_keys_wait(timelock_blocks: int) -> None:
    params = replace(PARAMS, recovery_timelock_blocks=timelock_blocks)
    deposit = pays((200_000, deposit_script()))

    def enter(age: int, ledger: Ledger) -> None:
        evidence = evidence_of(deposit, DEPOSIT, l1_height=START_HEIGHT - age)
        apply_evidence(ledger, evidence, lone_fact(evidence.l1_height), CUSTODY, params)

    ledger = small_ledger()
    assert rejection(ledger, lambda: enter(36, ledger)) is EvidenceReason.TOO_OLD
    enter(35, ledger)
    assert deposit.outpoint(0) in ledger.coins


def test_evidence_rejects_a_transaction_over_the_cap() -> None:
    evidence = evidence_of(pays((200_000, deposit_script())), DEPOSIT)
    size = len(evidence.transaction)
    small = replace(PARAMS, max_evidence_transaction_bytes=size - 1)
    ledger = new_ledger()
    reason = rejection(ledger, lambda: apply_evidence(ledger, evidence, lone_fact(), CUSTODY, small))
    assert reason is EvidenceReason.TRANSACTION_TOO_LARGE
    apply_evidence(ledger, evidence, lone_fact(), CUSTODY, replace(PARAMS, max_evidence_transaction_bytes=size))


def test_evidence_rejects_what_its_block_does_not_hold() -> None:
    ledger = small_ledger()
    evidence = replace(
        evidence_of(pays((200_000, deposit_script())), DEPOSIT), proof=lone_proof(pays((200_001, deposit_script())))
    )
    assert _reason(ledger, evidence) is EvidenceReason.WRONG_TRANSACTION


def test_coinbase_deposit_rejects_until_it_is_mature() -> None:
    ledger = small_ledger()
    coinbase = pays((200_000, deposit_script()), coinbase=True)
    # With the anchor itself at 6 confirmations, a block 94 below it has 100.
    young = evidence_of(coinbase, DEPOSIT, l1_height=START_HEIGHT - 93)
    assert _reason(ledger, young) is EvidenceReason.IMMATURE_COINBASE
    assert len(_apply(ledger, evidence_of(coinbase, DEPOSIT, l1_height=START_HEIGHT - 94))) == 1


def test_evidence_of_an_older_epoch_enters_with_it() -> None:
    custody = Custody({0: POLICY, 1: policy(1)})
    ledger = new_ledger()
    script = reserve_script(policy(1), CoinKind.DEPOSIT, ALICE).script
    transaction = pays((200_000, deposit_script()), (200_000, script))
    openings = (DEPOSIT, Opening(1, CoinKind.DEPOSIT, 1, ALICE))
    apply_evidence(ledger, evidence_of(transaction, *openings), lone_fact(), custody, PARAMS)
    assert {entry.epoch for _, entry in ledger.coins.items()} == {0, 1}


def test_evidence_that_fails_late_enters_nothing() -> None:
    transaction = pays((200_000, deposit_script()), (200_000, deposit_script()), (200_000, BOB))
    openings = (replace(DEPOSIT, vout=vout) for vout in range(3))
    assert _reason(small_ledger(), evidence_of(transaction, *openings)) is EvidenceReason.WRONG_SCRIPT


# Settlement


def _version(ledger: Ledger) -> Transaction:
    return Transaction.parse(only_lineage(ledger).versions[0].transaction)


def test_evidence_of_a_recorded_version_settles_it() -> None:
    ledger, twin = batched_ledger(), batched_ledger()
    version = _version(ledger)
    assert _apply(ledger, evidence_of(version, l1_height=START_HEIGHT - 1)) == ()
    settle(twin, version.txid, START_HEIGHT - 1)
    assert terms(ledger) == terms(twin)
    assert ledger.totals == twin.totals
    settled = ledger.closed_withdrawals.get(only_withdrawal(batched_ledger()).burn)
    assert settled is not None
    assert settled.status is WithdrawalStatus.SETTLED


def test_evidence_rejects_a_version_that_is_settled() -> None:
    ledger = batched_ledger()
    evidence = evidence_of(_version(ledger))
    _apply(ledger, evidence)
    assert _reason(ledger, evidence) is LedgerReason.ALREADY_SETTLED


@pytest.mark.parametrize("vout", [0, 1])
def test_evidence_rejects_openings_of_a_version_before_it_is_settled(vout: int) -> None:
    ledger = batched_ledger()
    evidence = evidence_of(_version(ledger), Opening(vout, CoinKind.CHANGE, 0, b""))
    assert _reason(ledger, evidence) is EvidenceReason.CHANGE_CLAIMED


def test_change_of_a_version_whose_lineage_another_settled_is_a_donation() -> None:
    """L1 confirmed another version after a deep reorg: what it returned is the reserve's, and repays what was lost."""
    ledger = batched_ledger()
    other = pays((400_000, CHANGE_SCRIPT))
    ledger.versions.put(other.txid, only_lineage(ledger).number)
    opened = evidence_of(other, Opening(0, CoinKind.CHANGE, 0, b""))
    assert _reason(ledger, opened) is EvidenceReason.CHANGE_CLAIMED
    _apply(ledger, evidence_of(_version(ledger)))
    fund_sats = ledger.totals.fund_sats
    assert _apply(ledger, opened) == ()
    assert ledger.totals.fund_sats == fund_sats + 400_000
    assert _reason(ledger, opened) is EvidenceReason.ALREADY_ENTERED
    assert _reason(ledger, evidence_of(other)) is LedgerReason.ALREADY_SETTLED


def _ledger_paying(script: Script) -> Ledger:
    """A ledger with an open payout of 300,000 sats to `script`, with change of 700,000."""
    ledger = new_ledger()
    enter_coin(ledger, coin(1, 1_000_000), 0)
    waiting = burn(ledger, 2, 300_000, l1_script=script)
    record_batch(ledger, plan(ledger, [coin(1, 1_000_000)], [waiting]))
    return ledger


def test_payee_of_a_settled_version_may_be_a_deposit() -> None:
    ledger = _ledger_paying(deposit_script(BOB))
    version = _version(ledger)
    _apply(ledger, evidence_of(version))
    (claim,) = _apply(ledger, evidence_of(version, Opening(0, CoinKind.DEPOSIT, 0, BOB)))
    assert claim.outputs == (TxOut(270_000, BOB),)


def test_change_of_a_settled_version_is_never_opened() -> None:
    ledger = _ledger_paying(BOB)
    version = _version(ledger)
    _apply(ledger, evidence_of(version))
    evidence = evidence_of(version, Opening(1, CoinKind.CHANGE, 0, b""))
    assert _reason(ledger, evidence) is EvidenceReason.ALREADY_ENTERED


# Building evidence


def test_openings_are_found_in_order() -> None:
    transaction = pays((5, BOB), (6, DONATION_SCRIPT), (7, deposit_script()), (8, DONATION_SCRIPT))
    candidates = {
        deposit_script(): ReserveTerms(CoinKind.DEPOSIT, 0, ALICE),
        DONATION_SCRIPT: ReserveTerms(CoinKind.DONATION, 0, b""),
    }
    assert find_openings(transaction, candidates) == (
        Opening(1, CoinKind.DONATION, 0, b""),
        Opening(2, CoinKind.DEPOSIT, 0, ALICE),
        Opening(3, CoinKind.DONATION, 0, b""),
    )


def test_built_evidence_is_stripped_and_sorted() -> None:
    transaction = pays((200_000, deposit_script()), (200_000, deposit_script()))
    signed = transaction.with_witnesses([(b"signature",)])
    openings = (replace(DEPOSIT, vout=1), DEPOSIT)
    evidence = build_evidence(signed, lone_proof(transaction), START_HEIGHT, openings)
    assert evidence == evidence_of(transaction, DEPOSIT, replace(DEPOSIT, vout=1))
    assert len(_apply(new_ledger(), evidence)) == 2
