"""Evidence in blocks: what it makes of deposits, what is refused, and when one waits for one's own Bitcoin node."""

from dataclasses import replace

import pytest

from bridge.custody import CoinKind
from bridge.evidence import EvidenceReason, Opening
from pegnode.chain.block import Block
from pegnode.chain.facts import AnchorStatus, L1Facts, required_facts
from pegnode.chain.rules import apply_block, evidence_order
from pegnode.chain.state import TransactionKind
from pegnode.chain.verdicts import BodyReason, L1Contradicted, L1Waiting
from tests.support.chain import MemoryChain
from tests.support.mini_wallet import MiniWallet, coins_of
from tests.support.verdicts import (
    evidence_refusal,
    rejected,
)

ALICE = MiniWallet("alice")
BOB = MiniWallet("bob")


@pytest.fixture
def chain() -> MemoryChain:
    return MemoryChain()


def test_evidence_out_of_order_or_twice_is_refused(chain: MemoryChain) -> None:
    pieces = [chain.pay_reserve(ALICE.script(), 10_000)[1] for _ in range(2)]
    chain.bury()
    block = chain.build(evidence=pieces).block
    assert block.body.evidence == tuple(sorted(pieces, key=evidence_order))
    for order in (block.body.evidence[::-1], (pieces[0], pieces[0])):
        shuffled = chain.reseal(Block(block.header, replace(block.body, evidence=order)))
        assert rejected(chain, shuffled).reason is BodyReason.EVIDENCE_ORDER


def test_deposit_becomes_a_claim_at_the_front_of_the_block(chain: MemoryChain) -> None:
    payment, evidence = chain.pay_reserve(ALICE.script(), 50_000)
    chain.bury()
    built = chain.extend(evidence=[evidence])
    [claim] = built.state.transactions
    assert claim.kind is TransactionKind.CLAIM
    assert (claim.fee_sats, claim.spent) == (1_000, ())
    assert claim.transaction.inputs[0].outpoint == replace(payment.outpoint(0), vout=1 << 30)
    assert chain.utxo_value(claim.transaction.outpoint(0)) == 49_000
    totals = chain.state.ledger.totals
    assert (totals.reserves_sats, totals.supply_sats, totals.fund_sats) == (50_000, 49_000, 1_000)


def test_claim_can_be_spent_in_its_own_block(chain: MemoryChain) -> None:
    _, evidence = chain.pay_reserve(ALICE.script(), 50_000)
    chain.bury()
    claim = chain.build(evidence=[evidence]).state.transactions[0].transaction
    built = chain.extend(ALICE.pay(coins_of(claim)[0], BOB.script()), evidence=[evidence])
    assert [applied.kind for applied in built.state.transactions] == [TransactionKind.CLAIM, TransactionKind.TRANSFER]


@pytest.mark.parametrize(
    ("cause", "change"),
    [
        (EvidenceReason.WRONG_BLOCK, {"proof": bytes(90)}),
        (EvidenceReason.ABOVE_ANCHOR, {"l1_height": 5_000}),
        (EvidenceReason.WRONG_HEIGHT, {"l1_height": 3}),
        (EvidenceReason.NO_OPENINGS, {"openings": ()}),
        (EvidenceReason.MALFORMED, {"transaction": b"\x00"}),
        (EvidenceReason.WRONG_SCRIPT, {"openings": (Opening(0, CoinKind.DEPOSIT, 0, BOB.script()),)}),
    ],
)
def test_block_with_bad_evidence_is_refused(
    chain: MemoryChain, cause: EvidenceReason, change: dict[str, object]
) -> None:
    _, evidence = chain.pay_reserve(ALICE.script(), 50_000)
    chain.bury()
    assert evidence_refusal(chain, replace(evidence, **change)) is cause  # type: ignore[arg-type]


def test_evidence_of_what_has_entered_is_refused(chain: MemoryChain) -> None:
    _, evidence = chain.pay_reserve(ALICE.script(), 50_000)
    chain.bury()
    chain.extend(evidence=[evidence])
    assert evidence_refusal(chain, evidence) is EvidenceReason.ALREADY_ENTERED


def test_evidence_is_waited_for_when_the_node_was_not_asked(chain: MemoryChain) -> None:
    _, evidence = chain.pay_reserve(ALICE.script(), 50_000)
    chain.bury()
    block = chain.build(evidence=[evidence]).block
    assert required_facts(block) == (evidence.l1_block_hash,)
    with pytest.raises(L1Waiting):
        apply_block(chain.state, block, L1Facts(AnchorStatus.ON_CHAIN), chain.rules)


def test_evidence_under_the_parents_anchor_needs_the_node(chain: MemoryChain) -> None:
    _, evidence = chain.pay_reserve(ALICE.script(), 50_000)
    chain.bury()
    chain.extend()
    block = chain.build(evidence=[evidence]).block
    assert block.header.anchor == chain.header.anchor
    known = chain.facts(block).blocks
    with pytest.raises(L1Waiting, match="not known yet"):
        apply_block(chain.state, block, L1Facts(AnchorStatus.UNKNOWN, known), chain.rules)
    with pytest.raises(L1Contradicted):
        apply_block(chain.state, block, L1Facts(AnchorStatus.CONTRADICTED, known), chain.rules)
