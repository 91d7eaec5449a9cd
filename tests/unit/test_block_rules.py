"""Validity of headers, anchors and the form of bodies: each reason has a block that breaks this rule alone."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from bridge.batch import Batch
from bridge.bitcoin.identifiers import BlockHash
from bridge.custody import CoinKind
from bridge.evidence import Evidence, Opening
from bridge.ledger import ledger_root
from bridge.state import Anchor, BatchKind, LedgerReason
from pegnode.chain.block import Block, Body
from pegnode.chain.facts import NO_FACTS, AnchorStatus, L1Facts
from pegnode.chain.header import Header
from pegnode.chain.rules import apply_block
from pegnode.chain.verdicts import BodyReason, HeaderReason, L1Contradicted, L1Waiting
from tests.support.chain import MemoryChain
from tests.support.mini_wallet import MiniWallet
from tests.support.verdicts import (
    refusal,
    rejected,
)

ALICE = MiniWallet("alice")
BOB = MiniWallet("bob")


@pytest.fixture
def chain() -> MemoryChain:
    return MemoryChain()


def test_empty_block_is_valid_and_changes_only_the_tip(chain: MemoryChain) -> None:
    state = chain.apply(chain.build().block)
    assert state.transactions == []
    assert state.ledger.totals == chain.state.ledger.totals
    assert not state.utxos.writes


@pytest.mark.parametrize(
    ("reason", "change"),
    [
        (HeaderReason.VERSION, lambda header: {"version": header.version + 1}),
        (HeaderReason.WRONG_CHAIN, lambda header: {"chain_id": bytes(32)}),
        (HeaderReason.WRONG_EPOCH, lambda header: {"epoch": header.epoch + 1}),
        (HeaderReason.WRONG_PARENT, lambda header: {"parent": bytes(32)}),
        (HeaderReason.WRONG_HEIGHT, lambda header: {"height": header.height + 1}),
        (HeaderReason.WRONG_HEIGHT, lambda header: {"height": header.height - 1}),
        (HeaderReason.WRONG_LEADER, lambda header: {"leader": header.leader + 1}),
        (HeaderReason.WRONG_LEADER, lambda header: {"view": header.view + 1}),
        (HeaderReason.VIEW_NOT_ABOVE_PARENT, lambda header: {"view": header.view - 1, "leader": header.leader - 1}),
    ],
)
def test_header_with_a_wrong_field_is_refused(
    chain: MemoryChain, reason: HeaderReason, change: Callable[[Header], dict[str, object]]
) -> None:
    chain.extend()
    block = chain.build().block
    verdict = rejected(chain, chain.reseal(block, **change(block.header)))
    assert verdict.reason is reason
    assert verdict.condemns_header


def test_view_may_skip_nullified_ones(chain: MemoryChain) -> None:
    block = chain.build(slot=chain.slot(view=11)).block
    assert block.header.leader == 11 % 4
    chain.apply(block)


def test_time_must_rise_by_a_millisecond(chain: MemoryChain) -> None:
    block = chain.build().block
    chain.apply(chain.reseal(block, time_ms=chain.header.time_ms + 1))
    verdict = rejected(chain, chain.reseal(block, time_ms=chain.header.time_ms))
    assert verdict.reason is HeaderReason.TIME_NOT_ABOVE_PARENT


def anchored(chain: MemoryChain, anchor: Anchor) -> Block:
    """An empty block with this anchor, its ledger root right."""
    slot = replace(chain.slot(), anchor=chain.header.anchor)
    block = chain.build(slot=slot).block
    totals = replace(chain.state.ledger.totals, anchor=anchor)
    state = chain.apply(block)
    state.ledger.totals = totals
    return chain.reseal(block, anchor=anchor, ledger_root=ledger_root(state.ledger))


def test_anchor_may_rise_by_the_largest_step_and_no_further(chain: MemoryChain) -> None:
    step = chain.rules.params.max_anchor_step
    chain.l1.mine_empty(step + 10)
    parent_height = chain.header.anchor.height
    chain.apply(anchored(chain, chain.l1.anchor(parent_height + step)))
    too_far = anchored(chain, chain.l1.anchor(parent_height + step + 1))
    assert refusal(chain, too_far) == (HeaderReason.BAD_ANCHOR, LedgerReason.ANCHOR_STEP)


def test_anchor_never_falls(chain: MemoryChain) -> None:
    lower = anchored(chain, chain.l1.anchor(chain.header.anchor.height - 1))
    assert refusal(chain, lower) == (HeaderReason.BAD_ANCHOR, LedgerReason.ANCHOR_BACKWARDS)


def test_anchor_of_the_parents_height_is_the_parents(chain: MemoryChain) -> None:
    fork = anchored(chain, Anchor(chain.header.anchor.height, BlockHash(b"\x77" * 32)))
    assert refusal(chain, fork) == (HeaderReason.BAD_ANCHOR, LedgerReason.ANCHOR_CHANGED)


def test_anchor_at_another_height_than_it_says_is_refused(chain: MemoryChain) -> None:
    chain.l1.mine_empty(10)
    true_anchor = chain.l1.anchor(chain.header.anchor.height + 5)
    false = anchored(chain, replace(true_anchor, height=true_anchor.height + 1))
    assert rejected(chain, false).reason is HeaderReason.ANCHOR_WRONG_HEIGHT


def test_anchor_that_the_node_has_not_seen_is_waited_for(chain: MemoryChain) -> None:
    chain.l1.mine_empty(10)
    block = anchored(chain, chain.l1.anchor(chain.header.anchor.height + 5))
    with pytest.raises(L1Waiting):
        apply_block(chain.state, block, NO_FACTS, chain.rules)
    chain.apply(block)


def test_anchor_that_the_node_contradicts_is_no_verdict(chain: MemoryChain) -> None:
    stale = anchored(chain, Anchor(chain.header.anchor.height + 1, BlockHash(b"\x77" * 32)))
    chain.l1.mine_empty(10)
    with pytest.raises(L1Contradicted):
        chain.apply(stale)


def test_block_that_says_nothing_about_l1_is_valid_whatever_l1_says(chain: MemoryChain) -> None:
    [coin] = chain.fund(ALICE.script())
    block = chain.build(ALICE.pay(coin, BOB.script())).block
    for status in AnchorStatus:
        apply_block(chain.state, block, L1Facts(status), chain.rules)


def test_body_of_another_header_is_refused_without_condemning_the_header(chain: MemoryChain) -> None:
    block = chain.build().block
    swapped = Block(block.header, Body(transactions=(b"\x00",)))
    verdict = rejected(chain, swapped)
    assert verdict.reason is BodyReason.WRONG_ROOT
    assert not verdict.condemns_header
    chain.apply(block)


@pytest.mark.parametrize(
    ("reason", "sections"),
    [
        (BodyReason.TOO_LARGE, {"transactions": (bytes(400_000),) * 6}),
        (BodyReason.TOO_MUCH_EVIDENCE, {"evidence": (Evidence(bytes(600_000), b"", 1, ()),) * 2}),
        (BodyReason.DUPLICATE_BATCH, {"batches": (Batch(BatchKind.PAYOUT, None, 1_000, b""),) * 2}),
    ],
)
def test_body_out_of_form_is_refused(chain: MemoryChain, reason: BodyReason, sections: dict[str, object]) -> None:
    verdict = rejected(chain, chain.with_body(**sections))
    assert verdict.reason is reason
    assert not verdict.condemns_header


def test_body_with_too_many_openings_is_refused(chain: MemoryChain) -> None:
    opening = Opening(0, CoinKind.DEPOSIT, 0, b"")
    cap = chain.rules.params.max_openings
    at_cap = chain.with_body(evidence=(Evidence(b"", bytes(80), 1, (opening,) * cap),))
    assert refusal(chain, at_cap)[0] is BodyReason.BAD_EVIDENCE
    above = chain.with_body(evidence=(Evidence(b"", bytes(80), 1, (opening,) * (cap + 1)),))
    assert rejected(chain, above).reason is BodyReason.TOO_MANY_OPENINGS
