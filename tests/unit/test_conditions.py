"""Vote conditions: every ground for withholding a vote, and what is votable in spite of it."""

from dataclasses import replace

import pytest

from bridge.bitcoin.transaction import TxOut
from bridge.records import Deficit, LostCoin
from bridge.replacement import STALE_INTERVALS
from pegnode.chain.block import Block, Body
from pegnode.chain.conditions import (
    MAX_CLOCK_AHEAD_MS,
    MAX_VIEWS_WITH_CONTENT,
    VoteFacts,
    VoteWithheld,
    WithheldReason,
    check_finality_near,
    check_vote_conditions,
    claimed_outputs,
    lost_outputs,
)
from tests.support.chain import FEERATE_SAT_KVB, L1_START, MemoryChain
from tests.support.mini_wallet import MiniWallet
from tests.support.records import built_record_block, rebase_of, record_of, resume, signed

ALICE = MiniWallet("alice")
BOB = MiniWallet("bob")
BLIND = VoteFacts(now_ms=0, anchor_confirmations=None, halted=True, reserve_agrees=False)
"""A member whose Bitcoin node says nothing, and who has halted."""


@pytest.fixture
def chain() -> MemoryChain:
    return MemoryChain()


def facts_about(chain: MemoryChain, block: Block) -> VoteFacts:
    """What a member knows that has no objection."""
    return VoteFacts(
        now_ms=block.header.time_ms,
        anchor_confirmations=chain.rules.params.confirmations,
        unspent={**dict.fromkeys(claimed_outputs(block), True), **dict.fromkeys(lost_outputs(block), False)},
        feerate_estimate_sat_kvb=FEERATE_SAT_KVB,
    )


def check(chain: MemoryChain, block: Block, facts: VoteFacts) -> None:
    check_vote_conditions(block, chain.header, chain.apply(block).ledger, facts, chain.rules)


def withheld(chain: MemoryChain, block: Block, **changes: object) -> WithheldReason:
    """Why a member withholds its vote that would have no objection but for `changes`."""
    facts = facts_about(chain, block)
    check(chain, block, facts)
    with pytest.raises(VoteWithheld) as caught:
        check(chain, block, replace(facts, **changes))  # type: ignore[arg-type]
    assert isinstance(caught.value.reason, WithheldReason)
    return caught.value.reason


def evidence_block(chain: MemoryChain) -> Block:
    """A block that claims a deposit."""
    _, evidence = chain.pay_reserve(ALICE.script(), 50_000)
    chain.bury()
    return chain.build(evidence=[evidence]).block


def batch_block(chain: MemoryChain) -> Block:
    """A block with a payout at FEERATE_SAT_KVB, under its parent's anchor."""
    coins = chain.fund(*[ALICE.script()] * chain.rules.params.batch_min_payouts)
    chain.extend(*[ALICE.spend([coin], [chain.burn_output(900_000, BOB.script(), ALICE.script())]) for coin in coins])
    return chain.build().block


def anchor_block(chain: MemoryChain) -> Block:
    """An empty block with a new anchor."""
    chain.bury()
    return chain.build().block


def test_block_without_anything_of_l1_is_votable_whatever_l1_says(chain: MemoryChain) -> None:
    [coin] = chain.fund(ALICE.script())
    block = chain.build(ALICE.pay(coin, BOB.script())).block
    assert block.body.transactions
    check(chain, block, replace(BLIND, now_ms=block.header.time_ms))


# Time


def test_time_may_be_two_seconds_ahead_and_no_more(chain: MemoryChain) -> None:
    block = chain.build().block
    ahead_ms = block.header.time_ms - MAX_CLOCK_AHEAD_MS
    check(chain, block, replace(BLIND, now_ms=ahead_ms))
    assert withheld(chain, block, now_ms=ahead_ms - 1) is WithheldReason.TIME_AHEAD


def test_time_a_millisecond_above_the_parents_is_votable_for_any_clock(chain: MemoryChain) -> None:
    block = chain.build(slot=chain.slot(time_ms=0)).block
    assert block.header.time_ms == chain.header.time_ms + 1
    check(chain, block, replace(BLIND, now_ms=0))
    later = chain.build(slot=chain.slot(time_ms=chain.header.time_ms + 2)).block
    with pytest.raises(VoteWithheld) as caught:
        check(chain, later, replace(BLIND, now_ms=0))
    assert caught.value.reason is WithheldReason.TIME_AHEAD


# The anchor


@pytest.mark.parametrize("make", [anchor_block, evidence_block, batch_block])
@pytest.mark.parametrize("confirmations", [None, 0, 5])
def test_anchor_that_is_not_deep_enough_is_not_voted_for(
    chain: MemoryChain, make: object, confirmations: int | None
) -> None:
    assert callable(make)
    block = make(chain)
    assert withheld(chain, block, anchor_confirmations=confirmations) is WithheldReason.ANCHOR_SHALLOW


def test_anchor_alone_is_votable_for_a_halted_member(chain: MemoryChain) -> None:
    block = anchor_block(chain)
    assert block.header.anchor != chain.header.anchor
    check(chain, block, replace(facts_about(chain, block), halted=True, reserve_agrees=False))


# Value that moves


@pytest.mark.parametrize("make", [evidence_block, batch_block])
def test_halted_member_votes_for_no_evidence_and_no_batch(chain: MemoryChain, make: object) -> None:
    assert callable(make)
    assert withheld(chain, make(chain), halted=True) is WithheldReason.HALTED


@pytest.mark.parametrize("make", [evidence_block, batch_block])
def test_member_whose_node_misses_a_coin_votes_for_no_evidence_and_no_batch(chain: MemoryChain, make: object) -> None:
    assert callable(make)
    assert withheld(chain, make(chain), reserve_agrees=False) is WithheldReason.RESERVE_DISAGREES


def test_deposit_that_is_spent_on_l1_is_not_voted_for(chain: MemoryChain) -> None:
    block = evidence_block(chain)
    [outpoint] = claimed_outputs(block)
    assert withheld(chain, block, unspent={outpoint: False}) is WithheldReason.DEPOSIT_SPENT


def test_deposit_that_the_node_was_not_asked_about_is_not_voted_for(chain: MemoryChain) -> None:
    assert withheld(chain, evidence_block(chain), unspent={}) is WithheldReason.DEPOSIT_UNKNOWN


def test_claimed_outputs_are_those_of_every_opening(chain: MemoryChain) -> None:
    payments = [chain.pay_reserve(ALICE.script(), 50_000) for _ in range(2)]
    chain.bury()
    block = chain.build(evidence=[evidence for _, evidence in payments]).block
    assert claimed_outputs(block) == tuple(payment.outpoint(0) for payment, _ in payments)


# The feerate


@pytest.mark.parametrize("estimate", [FEERATE_SAT_KVB // 2, FEERATE_SAT_KVB, FEERATE_SAT_KVB * 2])
def test_feerate_within_a_factor_of_two_is_votable(chain: MemoryChain, estimate: int) -> None:
    block = batch_block(chain)
    check(chain, block, replace(facts_about(chain, block), feerate_estimate_sat_kvb=estimate))


@pytest.mark.parametrize("estimate", [FEERATE_SAT_KVB // 2 - 1, FEERATE_SAT_KVB * 2 + 1])
def test_feerate_far_from_the_estimate_is_not_voted_for(chain: MemoryChain, estimate: int) -> None:
    reason = withheld(chain, batch_block(chain), feerate_estimate_sat_kvb=estimate)
    assert reason is WithheldReason.FEERATE_FAR


def test_feerate_without_an_estimate_is_not_voted_for(chain: MemoryChain) -> None:
    assert withheld(chain, batch_block(chain), feerate_estimate_sat_kvb=None) is WithheldReason.FEERATE_UNKNOWN


def floor_block(chain: MemoryChain) -> Block:
    batch_block(chain)
    floor = chain.rules.params.feerate_floor_sat_kvb
    block = chain.build(slot=replace(chain.slot(), feerate_sat_kvb=floor)).block
    assert [batch.feerate_sat_kvb for batch in block.body.batches] == [floor]
    return block


@pytest.mark.parametrize("estimate", [None, 1, 2_000])
def test_feerate_at_the_floor_is_votable_without_an_estimate_or_near_it(
    chain: MemoryChain, estimate: int | None
) -> None:
    block = floor_block(chain)
    check(chain, block, replace(facts_about(chain, block), feerate_estimate_sat_kvb=estimate))


def test_feerate_at_the_floor_is_not_voted_for_far_below_the_estimate(chain: MemoryChain) -> None:
    floor = chain.rules.params.feerate_floor_sat_kvb
    reason = withheld(chain, floor_block(chain), feerate_estimate_sat_kvb=2 * floor + 1)
    assert reason is WithheldReason.FEERATE_FAR


def test_transfer_beside_evidence_falls_under_its_conditions(chain: MemoryChain) -> None:
    [coin] = chain.fund(ALICE.script())
    _, evidence = chain.pay_reserve(ALICE.script(), 50_000)
    chain.bury()
    payment = ALICE.spend([coin], [TxOut(5_000, BOB.script())])
    block = chain.build(payment, evidence=[evidence]).block
    assert withheld(chain, block, halted=True) is WithheldReason.HALTED


# Replacements


def replacement_block(chain: MemoryChain, feerate_sat_kvb: int, intervals: int = 1) -> Block:
    """A block that replaces the payout of `batch_block`, whose feerate is FEERATE_SAT_KVB."""
    batch_block(chain)
    chain.extend()
    chain.l1.mine_empty(intervals * chain.rules.params.replacement_interval_anchors)
    block = chain.build(slot=replace(chain.slot(), feerate_sat_kvb=feerate_sat_kvb)).block
    assert [batch.replaces is not None for batch in block.body.batches] == [True]
    return block


def test_replacement_near_the_estimate_is_votable_and_one_far_above_is_not(chain: MemoryChain) -> None:
    block = replacement_block(chain, 2 * FEERATE_SAT_KVB)
    assert [batch.feerate_sat_kvb for batch in block.body.batches] == [2 * FEERATE_SAT_KVB]
    check(chain, block, replace(facts_about(chain, block), feerate_estimate_sat_kvb=FEERATE_SAT_KVB))
    far = withheld(chain, block, feerate_estimate_sat_kvb=FEERATE_SAT_KVB - 1)
    assert far is WithheldReason.FEERATE_FAR


@pytest.mark.parametrize("estimate", [None, 1, 1_000_000])
def test_least_step_is_votable_whatever_the_estimate(chain: MemoryChain, estimate: int | None) -> None:
    block = replacement_block(chain, chain.rules.params.feerate_floor_sat_kvb, intervals=STALE_INTERVALS)
    [batch] = block.body.batches
    assert FEERATE_SAT_KVB + 1_000 <= batch.feerate_sat_kvb <= FEERATE_SAT_KVB + 1_010
    check(chain, block, replace(facts_about(chain, block), feerate_estimate_sat_kvb=estimate))


def test_replacement_of_what_has_confirmed_is_not_voted_for(chain: MemoryChain) -> None:
    block = replacement_block(chain, 2 * FEERATE_SAT_KVB)
    [batch] = block.body.batches
    assert batch.replaces is not None
    reason = withheld(chain, block, confirmed=frozenset({batch.replaces}))
    assert reason is WithheldReason.VERSION_CONFIRMED


# Finality


def test_block_many_views_after_the_last_final_one_is_votable_only_if_empty(chain: MemoryChain) -> None:
    block, final = evidence_block(chain), chain.header
    near = replace(final, view=block.header.view - MAX_VIEWS_WITH_CONTENT)
    check_finality_near(block, near)
    far = replace(block, header=replace(block.header, view=block.header.view + 1))
    with pytest.raises(VoteWithheld) as caught:
        check_finality_near(far, near)
    assert caught.value.reason is WithheldReason.FINALITY_FAR
    check_finality_near(replace(far, body=Body()), near)


# Records


def test_member_that_halted_and_sees_nothing_votes_for_a_record_that_names_no_l1(chain: MemoryChain) -> None:
    block = built_record_block(chain, resume(chain.rules)).block
    check(chain, block, replace(BLIND, now_ms=block.header.time_ms))


def test_member_that_halted_votes_for_a_rebase_once_its_node_has_the_new_anchor_deep_enough(
    chain: MemoryChain,
) -> None:
    chain.bury()
    chain.extend()
    height = chain.header.anchor.height
    branch = chain.l1.reorganise(L1_START)[: height - L1_START + 1]
    chain.l1.mine_empty(2 * height)
    block = built_record_block(chain, resume(chain.rules, 1, rebase_of(branch, chain.l1.anchor(height + 1)))).block
    depth = chain.rules.params.confirmations
    halted = VoteFacts(block.header.time_ms, anchor_confirmations=depth, halted=True, reserve_agrees=False)
    check(chain, block, halted)
    for confirmations in (depth - 1, None):
        assert withheld(chain, block, anchor_confirmations=confirmations) is WithheldReason.ANCHOR_SHALLOW


def test_coin_that_a_record_calls_lost_must_be_gone_by_ones_own_node_whoever_signed(chain: MemoryChain) -> None:
    chain.fund(ALICE.script())
    [(outpoint, coin)] = chain.state.ledger.coins.items()
    lost = Deficit.of((LostCoin(outpoint, coin.value_sats),))
    block = built_record_block(chain, signed(record_of(chain.rules, lost))).block
    assert lost_outputs(block) == (outpoint,)
    check(chain, block, replace(facts_about(chain, block), halted=True, reserve_agrees=False))
    assert withheld(chain, block, unspent={outpoint: True}) is WithheldReason.COIN_NOT_LOST
    assert withheld(chain, block, unspent={}) is WithheldReason.COIN_NOT_LOST
