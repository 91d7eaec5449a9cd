"""Lost coins that L1 has again: each comes back once, by its own opening, and credits nobody a second time."""

from dataclasses import replace
from functools import partial

from bridge.bitcoin.transaction import Transaction
from bridge.custody import CoinKind
from bridge.deposits import apply_evidence
from bridge.evidence import Evidence, EvidenceReason, Opening
from bridge.ledger import Ledger, enter_coin, enter_donation, may_enter
from bridge.lineages import PlannedBatch, record_batch, settle
from bridge.losses import restore_coin
from bridge.state import BatchKind, LedgerReason, Withdrawal
from tests.support.ledgers import (
    batched_ledger,
    burn,
    lose,
    only_lineage,
    only_withdrawal,
    pending,
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
    START_HEIGHT,
    coin,
    deposit_script,
    evidence_of,
    lone_fact,
    new_ledger,
    outpoint,
    pays,
)

DEPOSIT_SATS = 1_000_000
DEPOSIT = pays((DEPOSIT_SATS, deposit_script()))
OPENED = evidence_of(DEPOSIT, Opening(0, CoinKind.DEPOSIT, 0, ALICE))


def apply(ledger: Ledger, evidence: Evidence) -> tuple[Transaction, ...]:
    """Enter it; the claims it gives rise to."""
    return apply_evidence(ledger, evidence, lone_fact(), CUSTODY, PARAMS)


def with_lost_deposit() -> Ledger:
    """A ledger whose one deposit, Alice's, was claimed and then lost."""
    ledger = new_ledger()
    [claim] = apply(ledger, OPENED)
    assert claim.outputs[0].value_sats == DEPOSIT_SATS - PARAMS.claim_fee_sats
    lose(ledger, DEPOSIT.outpoint(0))
    return ledger


def test_lost_deposit_comes_back_once_and_is_not_claimed_again() -> None:
    ledger = with_lost_deposit()
    before = terms(ledger)
    assert apply(ledger, OPENED) == ()
    assert before == (0, DEPOSIT_SATS, 970_000, 0, 30_000)
    assert terms(ledger) == (DEPOSIT_SATS, 0, 970_000, 0, 30_000)
    assert DEPOSIT.outpoint(0) not in ledger.lost
    assert rejection(ledger, lambda: apply(ledger, OPENED)) is EvidenceReason.ALREADY_ENTERED


def test_lost_coin_comes_back_at_its_new_height_and_free() -> None:
    ledger = batched_ledger()
    lose(ledger, outpoint(1))
    assert restore_coin(ledger, outpoint(1), START_HEIGHT + 3) == replace(
        coin(1, 1_000_000), l1_height=START_HEIGHT + 3
    )
    assert ledger.coins.get(outpoint(1)) == replace(coin(1, 1_000_000), l1_height=START_HEIGHT + 3)


def test_coin_that_is_not_lost_is_not_restored() -> None:
    ledger = small_ledger()
    for known in (outpoint(1), outpoint(9)):
        assert rejection(ledger, partial(restore_coin, ledger, known, 1)) is LedgerReason.NOT_LOST


def test_coin_that_came_back_may_be_lost_and_come_back_again() -> None:
    ledger = with_lost_deposit()
    for _ in range(2):
        apply(ledger, OPENED)
        assert not may_enter(ledger, DEPOSIT.outpoint(0))
        lose(ledger, DEPOSIT.outpoint(0))
        assert may_enter(ledger, DEPOSIT.outpoint(0))
    assert terms(ledger) == (0, DEPOSIT_SATS, 970_000, 0, 30_000)


def test_lost_coin_comes_back_only_by_its_own_opening() -> None:
    ledger = with_lost_deposit()
    for opening in (
        Opening(0, CoinKind.DEPOSIT, 0, BOB),
        Opening(0, CoinKind.DONATION, 0, b""),
        Opening(0, CoinKind.CHANGE, 0, b""),
    ):
        assert rejection(ledger, partial(apply, ledger, evidence_of(DEPOSIT, opening))) is EvidenceReason.WRONG_SCRIPT


def test_lost_coin_that_comes_back_after_the_deficit_was_repaid_goes_to_the_fund() -> None:
    ledger = with_lost_deposit()
    enter_donation(ledger, coin(5, 800_000, CoinKind.DONATION))
    assert terms(ledger) == (800_000, 200_000, 970_000, 0, 30_000)
    apply(ledger, OPENED)
    assert terms(ledger) == (1_800_000, 0, 970_000, 0, 830_000)


def test_lost_change_comes_back_when_its_payout_is_confirmed_again() -> None:
    ledger = batched_ledger()
    version = Transaction.parse(only_lineage(ledger).versions[0].transaction)
    apply(ledger, evidence_of(version))
    before = terms(ledger)
    lose(ledger, version.outpoint(1))
    opened = evidence_of(version, Opening(1, CoinKind.CHANGE, 0, b""))
    assert apply(ledger, opened) == ()
    assert terms(ledger) == before
    assert rejection(ledger, lambda: apply(ledger, opened)) is EvidenceReason.ALREADY_ENTERED
    assert rejection(ledger, lambda: apply(ledger, evidence_of(version))) is LedgerReason.ALREADY_SETTLED


def test_version_of_a_dead_lineage_that_confirms_settles_nothing_and_its_change_is_a_donation() -> None:
    """The coin came back with the payout that spent it: who was paid is not in the books, what came back is."""
    ledger = batched_ledger()
    version = Transaction.parse(only_lineage(ledger).versions[0].transaction)
    lose(ledger, outpoint(1))
    assert rejection(ledger, lambda: apply(ledger, evidence_of(version))) is LedgerReason.ALREADY_SETTLED
    assert apply(ledger, evidence_of(version, Opening(1, CoinKind.CHANGE, 0, b""))) == ()
    assert terms(ledger) == (899_800, 500_200, 840_000, 500_000, 60_000)


def test_payee_of_a_dead_version_that_is_a_deposit_address_is_claimed_once() -> None:
    ledger = new_ledger()
    enter_coin(ledger, coin(1, 1_000_000), 0)
    waiting = burn(ledger, 2, 300_000, l1_script=deposit_script(BOB))
    record_batch(ledger, plan(ledger, [coin(1, 1_000_000)], [waiting]))
    version = Transaction.parse(only_lineage(ledger).versions[0].transaction)
    opened = evidence_of(version, Opening(0, CoinKind.DEPOSIT, 0, BOB))
    assert rejection(ledger, lambda: apply(ledger, opened)) is EvidenceReason.CHANGE_CLAIMED
    lose(ledger, outpoint(1))
    [claim] = apply(ledger, opened)
    assert claim.outputs[0].script == BOB
    assert rejection(ledger, lambda: apply(ledger, opened)) is EvidenceReason.ALREADY_ENTERED
    assert pending(ledger) == [replace(waiting, burned_at_anchor=START_HEIGHT)]


def test_first_version_with_the_bytes_of_a_dead_one_is_of_the_new_lineage() -> None:
    """The coin is back, the payee waits, so the same payout is due again: L1 may confirm it for the new lineage."""
    ledger = batched_ledger()
    dead = only_lineage(ledger)
    lose(ledger, outpoint(1))
    restore_coin(ledger, outpoint(1), START_HEIGHT)
    again = PlannedBatch(BatchKind.PAYOUT, None, dead.inputs, dead.payees, dead.versions[0])
    assert record_batch(ledger, again).number == 1
    assert settle(ledger, dead.versions[0].txid, START_HEIGHT).number == 1
    assert ledger.closed_lineages.get(0) == dead


def test_waiting_withdrawal_is_written_as_any_other() -> None:
    ledger = batched_ledger()
    lose(ledger, outpoint(1))
    waiting = only_withdrawal(ledger)
    assert Withdrawal.decode(waiting.encode()) == waiting
