"""The ledger's transitions: what each does to the five terms, what each refuses, and that refusing changes nothing."""

from dataclasses import replace

import pytest

from bridge.bitcoin.hashes import tagged_list
from bridge.bitcoin.identifiers import BlockHash, OutPoint
from bridge.custody import CoinKind
from bridge.ledger import Ledger, add_fee, advance_anchor, enter_coin, enter_donation, ledger_root
from bridge.lineages import record_batch, settle
from bridge.state import (
    EMPTY_CHAIN,
    Anchor,
    LedgerReason,
    Withdrawal,
    chain_hash,
)
from tests.support.ledgers import (
    batched_ledger,
    burn,
    only_lineage,
    only_withdrawal,
    plan,
    rejection,
    small_ledger,
    snapshot,
    terms,
)
from tests.support.peg import ALICE, BOB, PARAMS, START_HEIGHT, anchor, coin, new_ledger, outpoint


@pytest.fixture
def ledger() -> Ledger:
    return small_ledger()


@pytest.fixture
def batched() -> Ledger:
    return batched_ledger()


def test_genesis_is_empty_and_equal() -> None:
    ledger = new_ledger()
    ledger.totals.require_equality()
    assert terms(ledger) == (0, 0, 0, 0, 0)
    assert ledger.totals.anchor == anchor(START_HEIGHT)


# Deposits, donations, fees


def test_deposit_credits_its_value_less_the_claim_fee() -> None:
    ledger = new_ledger()
    enter_coin(ledger, coin(1, 1_000_000), 30_000)
    assert terms(ledger) == (1_000_000, 0, 970_000, 0, 30_000)
    assert ledger.coins.get(outpoint(1)) == coin(1, 1_000_000)
    assert ledger.entered.get(outpoint(1)) == START_HEIGHT


def test_donation_goes_to_the_fund() -> None:
    ledger = new_ledger()
    enter_donation(ledger, coin(1, 50_000, CoinKind.DONATION))
    assert terms(ledger) == (50_000, 0, 0, 0, 50_000)


@pytest.mark.parametrize(
    ("donated_sats", "expected"),
    [(40_000, (40_000, 60_000, 100_000, 0, 0)), (130_000, (130_000, 0, 100_000, 0, 30_000))],
)
def test_donation_repays_the_deficit_first(donated_sats: int, expected: tuple[int, int, int, int, int]) -> None:
    ledger = new_ledger()
    ledger.totals = ledger.totals.plus(deficit_sats=100_000, supply_sats=100_000)
    enter_donation(ledger, coin(1, donated_sats, CoinKind.DONATION))
    assert terms(ledger) == expected


def test_fee_moves_from_supply_to_fund(ledger: Ledger) -> None:
    add_fee(ledger, 300)
    assert terms(ledger) == (1_400_000, 0, 839_700, 500_000, 60_300)


@pytest.mark.parametrize("claim_fee_sats", [-1, 1_000_001])
def test_deposit_rejects_a_claim_fee_out_of_range(ledger: Ledger, claim_fee_sats: int) -> None:
    reason = rejection(ledger, lambda: enter_coin(ledger, coin(4, 1_000_000), claim_fee_sats))
    assert reason is LedgerReason.CLAIM_FEE


@pytest.mark.parametrize("claim_fee_sats", [0, 1_000_000])
def test_claim_fee_may_be_nothing_or_the_whole_coin(ledger: Ledger, claim_fee_sats: int) -> None:
    enter_coin(ledger, coin(4, 1_000_000), claim_fee_sats)
    assert terms(ledger) == (2_400_000, 0, 840_000 + 1_000_000 - claim_fee_sats, 500_000, 60_000 + claim_fee_sats)


def test_deposit_rejects_an_outpoint_that_entered_before(ledger: Ledger) -> None:
    assert rejection(ledger, lambda: enter_coin(ledger, coin(1, 5), 0)) is LedgerReason.ALREADY_ENTERED
    assert rejection(ledger, lambda: enter_donation(ledger, coin(1, 5))) is LedgerReason.ALREADY_ENTERED


def test_deposit_rejects_an_outpoint_that_entered_and_was_spent(batched: Ledger) -> None:
    settle(batched, only_lineage(batched).versions[0].txid, START_HEIGHT)
    assert outpoint(1) not in batched.coins
    reason = rejection(batched, lambda: enter_coin(batched, coin(1, 1_000_000), 30_000))
    assert reason is LedgerReason.ALREADY_ENTERED


def test_deposit_rejects_a_locked_coin(ledger: Ledger) -> None:
    locked = replace(coin(4, 100_000), lineage=0)
    assert rejection(ledger, lambda: enter_coin(ledger, locked, 0)) is LedgerReason.COIN_NOT_FREE


def test_fee_rejects_a_negative_amount(ledger: Ledger) -> None:
    assert rejection(ledger, lambda: add_fee(ledger, -1)) is LedgerReason.NEGATIVE_AMOUNT


def test_fee_rejects_more_than_the_supply(ledger: Ledger) -> None:
    assert rejection(ledger, lambda: add_fee(ledger, 840_001)) is LedgerReason.NEGATIVE_TERM


def test_transition_rejects_an_unequal_ledger(ledger: Ledger) -> None:
    ledger.totals = ledger.totals.plus(supply_sats=1)
    assert rejection(ledger, lambda: add_fee(ledger, 0)) is LedgerReason.EQUALITY


# Burns


def test_burn_moves_from_supply_to_unsettled(ledger: Ledger) -> None:
    assert terms(ledger) == (1_400_000, 0, 840_000, 500_000, 60_000)
    assert only_withdrawal(ledger) == Withdrawal(
        burn=outpoint(3),
        number=0,
        value_sats=500_000,
        max_fee_sats=1_000,
        l1_script=BOB,
        refund_script=ALICE,
        burned_at_anchor=START_HEIGHT,
    )


def test_burns_are_numbered_by_age(ledger: Ledger) -> None:
    assert [burn(ledger, number, 1_000).number for number in (9, 8, 7)] == [1, 2, 3]


def test_burn_rejects_a_negative_amount(ledger: Ledger) -> None:
    assert rejection(ledger, lambda: burn(ledger, 4, -1)) is LedgerReason.NEGATIVE_AMOUNT


def test_burn_rejects_more_than_the_supply(ledger: Ledger) -> None:
    assert rejection(ledger, lambda: burn(ledger, 4, 840_001)) is LedgerReason.NEGATIVE_TERM


def test_burn_rejects_one_that_is_open(ledger: Ledger) -> None:
    assert rejection(ledger, lambda: burn(ledger, 3, 1)) is LedgerReason.BURN_KNOWN


def test_burn_rejects_one_that_is_closed(batched: Ledger) -> None:
    settle(batched, only_lineage(batched).versions[0].txid, START_HEIGHT)
    assert rejection(batched, lambda: burn(batched, 3, 1)) is LedgerReason.BURN_KNOWN


def test_window_sums_burns_of_one_anchor_and_forgets_old_ones(ledger: Ledger) -> None:
    burn(ledger, 4, 1_000)
    advance_anchor(ledger, anchor(START_HEIGHT + 10), PARAMS)
    burn(ledger, 5, 30)

    def window() -> list[tuple[int, int]]:
        return [(entry.anchor_height, entry.burned_sats) for entry in ledger.totals.withdrawal_window]

    assert window() == [(START_HEIGHT, 501_000), (START_HEIGHT + 10, 30)]
    advance_anchor(ledger, anchor(START_HEIGHT + 143), PARAMS)
    assert window() == [(START_HEIGHT, 501_000), (START_HEIGHT + 10, 30)]
    advance_anchor(ledger, anchor(START_HEIGHT + 144), PARAMS)
    assert window() == [(START_HEIGHT + 10, 30)]


# Anchors


def test_anchor_may_stay_or_advance_up_to_the_step(ledger: Ledger) -> None:
    advance_anchor(ledger, anchor(START_HEIGHT), PARAMS)
    advance_anchor(ledger, anchor(START_HEIGHT + 144), PARAMS)
    assert ledger.totals.anchor == anchor(START_HEIGHT + 144)


@pytest.mark.parametrize(
    ("new", "reason"),
    [
        (anchor(START_HEIGHT - 1), LedgerReason.ANCHOR_BACKWARDS),
        (Anchor(START_HEIGHT, BlockHash(bytes(32))), LedgerReason.ANCHOR_CHANGED),
        (anchor(START_HEIGHT + 145), LedgerReason.ANCHOR_STEP),
    ],
)
def test_anchor_rejects_another_step(ledger: Ledger, new: Anchor, reason: LedgerReason) -> None:
    assert rejection(ledger, lambda: advance_anchor(ledger, new, PARAMS)) is reason


# Overlays and the root


def test_overlay_leaves_its_base_as_it_was(ledger: Ledger) -> None:
    before = snapshot(ledger)
    above = Ledger(ledger)
    burn(above, 4, 1_000)
    record_batch(above, plan(above, [coin(1, 1_000_000)], [only_withdrawal(ledger)]))
    assert snapshot(ledger) == before
    assert snapshot(above) != before


def test_atomic_drops_every_write_of_a_body_that_raises(ledger: Ledger) -> None:
    def body() -> None:
        with ledger.atomic() as trial:
            enter_coin(trial, coin(4, 100_000), 0)
            burn(trial, 5, 1_000)
            add_fee(trial, -1)

    assert rejection(ledger, body) is LedgerReason.NEGATIVE_AMOUNT


def test_root_is_the_documented_commitment(batched: Ledger) -> None:
    lost = coin(7, 70_000)
    batched.lost.put(lost.outpoint, lost)
    coins = sorted((item for _, item in batched.coins.items()), key=lambda item: item.outpoint.encode())
    expected = tagged_list(
        "pegnode/ledger",
        [
            batched.totals.encode(),
            tagged_list("pegnode/ledger/coins", [item.encode() for item in coins]),
            tagged_list("pegnode/ledger/lost", [lost.encode()]),
            tagged_list("pegnode/ledger/withdrawals", [only_withdrawal(batched).encode()]),
            tagged_list("pegnode/ledger/lineages", [item.encode() for _, item in batched.open_lineages.items()]),
        ],
    )
    assert ledger_root(batched) == expected


def test_chains_commit_to_what_entered_and_what_closed(batched: Ledger) -> None:
    height = START_HEIGHT.to_bytes(4, "little")
    entered = EMPTY_CHAIN
    for number in (1, 2):
        entered = chain_hash("pegnode/entered", entered, outpoint(number).encode() + height)
    assert batched.totals.entered_chain == entered
    txid = only_lineage(batched).versions[0].txid
    closed_lineage = settle(batched, txid, START_HEIGHT)
    settled = batched.closed_withdrawals.get(outpoint(3))
    assert settled is not None
    closed = chain_hash("pegnode/closed-withdrawal", EMPTY_CHAIN, settled.encode())
    assert batched.totals.closed_chain == chain_hash("pegnode/closed-lineage", closed, closed_lineage.encode())
    assert batched.totals.entered_chain == chain_hash("pegnode/entered", entered, OutPoint(txid, 1).encode() + height)


def test_root_changes_with_each_table_and_the_totals(batched: Ledger) -> None:
    def with_coin(ledger: Ledger) -> None:
        ledger.coins.put(outpoint(2), replace(coin(2, 400_000), l1_height=1))

    def with_lost(ledger: Ledger) -> None:
        ledger.lost.put(outpoint(7), coin(7, 70_000))

    def with_withdrawal(ledger: Ledger) -> None:
        ledger.open_withdrawals.put(outpoint(3), replace(only_withdrawal(ledger), max_fee_sats=999))

    def with_lineage(ledger: Ledger) -> None:
        ((number, lineage),) = ledger.open_lineages.items()
        ledger.open_lineages.put(number, replace(lineage, reserved_fund_sats=201))

    def with_totals(ledger: Ledger) -> None:
        ledger.totals = replace(ledger.totals, utxo_chain=b"\x01" * 32)

    roots = {ledger_root(batched)}
    for change in (with_coin, with_lost, with_withdrawal, with_lineage, with_totals):
        changed = Ledger(batched)
        change(changed)
        roots.add(ledger_root(changed))
    assert len(roots) == 6
