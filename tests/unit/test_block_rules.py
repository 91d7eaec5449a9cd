"""Validity of blocks: every reason has a block that breaks the rule and nothing else."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from bridge.batch import Batch, BatchReason
from bridge.bitcoin.identifiers import BlockHash, Script
from bridge.bitcoin.script import ScriptReason, ScriptType
from bridge.bitcoin.transaction import Transaction, TransactionReason, TxOut
from bridge.custody import CoinKind
from bridge.errors import Reason
from bridge.evidence import Evidence, EvidenceReason, Opening
from bridge.ledger import ledger_root
from bridge.state import Anchor, BatchKind, LedgerReason, WithdrawalStatus
from pegnode.chain.block import Block, Body
from pegnode.chain.facts import NO_FACTS, AnchorStatus, L1Facts, required_facts
from pegnode.chain.header import Header
from pegnode.chain.rules import apply_block, evidence_order
from pegnode.chain.state import TransactionKind, recount_supply
from pegnode.chain.transactions import TransactionRule
from pegnode.chain.verdicts import BlockRejected, BodyReason, HeaderReason, L1Contradicted, L1Waiting
from tests.support.chain import MemoryChain
from tests.support.mini_wallet import MiniWallet, coins_of

ALICE = MiniWallet("alice")
BOB = MiniWallet("bob")


@pytest.fixture
def chain() -> MemoryChain:
    return MemoryChain()


def rejected(chain: MemoryChain, block: Block) -> BlockRejected:
    """The verdict on a block on top of the chain, which stays as it is."""
    before = chain.state
    root = ledger_root(before.ledger)
    supply_sats = recount_supply(before)
    with pytest.raises(BlockRejected) as caught:
        chain.apply(block)
    assert (ledger_root(before.ledger), recount_supply(before)) == (root, supply_sats)
    return caught.value


def refusal(chain: MemoryChain, block: Block) -> tuple[Reason, Reason | None]:
    """Why a block is refused, and which rule the item in it broke."""
    verdict = rejected(chain, block)
    return verdict.reason, verdict.cause


# Headers


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


# The anchor


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


# The body's form


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
        (BodyReason.RECORD_UNKNOWN, {"records": (b"record",)}),
        (BodyReason.REFUND_NOT_DUE, {"refunds": (b"refund",)}),
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


def test_evidence_out_of_order_or_twice_is_refused(chain: MemoryChain) -> None:
    pieces = [chain.pay_reserve(ALICE.script(), 10_000)[1] for _ in range(2)]
    chain.bury()
    block = chain.build(evidence=pieces).block
    assert block.body.evidence == tuple(sorted(pieces, key=evidence_order))
    for order in (block.body.evidence[::-1], (pieces[0], pieces[0])):
        shuffled = chain.reseal(Block(block.header, replace(block.body, evidence=order)))
        assert rejected(chain, shuffled).reason is BodyReason.EVIDENCE_ORDER


def test_block_over_the_cap_of_inputs_is_refused(chain: MemoryChain) -> None:
    payments = [ALICE.pay(coin, BOB.script()) for coin in chain.fund(*[ALICE.script()] * 3)]
    block = chain.build(*payments).block
    chain.rules = replace(chain.rules, chain=replace(chain.rules.chain, max_inputs=3))
    chain.apply(block)
    chain.rules = replace(chain.rules, chain=replace(chain.rules.chain, max_inputs=2))
    assert refusal(chain, block) == (BodyReason.TOO_MANY_INPUTS, BodyReason.TOO_MANY_INPUTS)


def test_block_over_the_sigop_cap_is_refused() -> None:
    chain = MemoryChain(chain={"max_sigop_cost": 16_000})
    coins = chain.fund(ALICE.script(ScriptType.P2TR), ALICE.script(ScriptType.P2TR))
    heavy = [
        ALICE.spend([coin], [TxOut(coin[1].value_sats, BOB.script(kind)), TxOut(0, note)])
        for coin, kind, note in zip(coins, (ScriptType.P2WPKH, ScriptType.P2PKH), heavy_notes(), strict=True)
    ]
    both = chain.build(*heavy)
    assert both.block.body.transactions == (heavy[0].serialize(),)
    chain.apply(both.block)
    body = replace(both.block.body, transactions=tuple(transaction.serialize() for transaction in heavy))
    block = chain.reseal(Block(both.block.header, body))
    assert refusal(chain, block) == (BodyReason.TOO_MANY_SIGOPS, BodyReason.TOO_MANY_SIGOPS)


def heavy_notes() -> list[Script]:
    """Data outputs that count for 16,000 and for no signature operations."""
    return [Script(b"\x6a" + b"\xae" * 200), Script(b"\x6a")]


# Evidence and claims


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


def with_evidence(chain: MemoryChain, evidence: Evidence) -> Block:
    """A block at the deepest anchor that holds this evidence, whatever it is worth."""
    block = chain.build().block
    return chain.reseal(Block(block.header, Body(evidence=(evidence,))))


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
    block = with_evidence(chain, replace(evidence, **change))  # type: ignore[arg-type]
    assert refusal(chain, block) == (BodyReason.BAD_EVIDENCE, cause)


def test_evidence_of_what_has_entered_is_refused(chain: MemoryChain) -> None:
    _, evidence = chain.pay_reserve(ALICE.script(), 50_000)
    chain.bury()
    chain.extend(evidence=[evidence])
    block = with_evidence(chain, evidence)
    assert refusal(chain, block) == (BodyReason.BAD_EVIDENCE, EvidenceReason.ALREADY_ENTERED)


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


# Transactions


def spend(chain: MemoryChain, *transactions: Transaction) -> Block:
    """A block of these transactions, whatever they are worth."""
    return chain.with_body(transactions=tuple(transaction.serialize() for transaction in transactions))


def test_transfer_moves_value_and_pays_its_fee_to_the_fund(chain: MemoryChain) -> None:
    [coin] = chain.fund(ALICE.script(), value_sats=100_000)
    payment = ALICE.spend([coin], [TxOut(60_000, BOB.script()), TxOut(38_500, ALICE.script())])
    [applied] = chain.extend(payment).state.transactions
    assert (applied.kind, applied.fee_sats, applied.spent[0][0]) == (TransactionKind.TRANSFER, 500, coin[0])
    assert [chain.utxo_value(outpoint) for outpoint, _ in [coin, *coins_of(payment)]] == [None, 60_000, 38_500]
    totals = chain.state.ledger.totals
    assert (totals.supply_sats, totals.fund_sats) == (98_500, 1_500)
    assert recount_supply(chain.state) == 98_500


def test_transaction_may_spend_one_before_it_and_none_behind_it(chain: MemoryChain) -> None:
    [coin] = chain.fund(ALICE.script())
    first = ALICE.pay(coin, ALICE.script())
    second = ALICE.pay(coins_of(first)[0], BOB.script())
    assert refusal(chain, spend(chain, second, first)) == (BodyReason.BAD_TRANSACTION, TransactionRule.MISSING_INPUT)
    chain.extend(first, second)


def test_coin_is_spent_once_in_a_block_and_ever(chain: MemoryChain) -> None:
    [coin] = chain.fund(ALICE.script())
    first, second = ALICE.pay(coin, ALICE.script()), ALICE.pay(coin, BOB.script())
    assert refusal(chain, spend(chain, first, second)) == (BodyReason.BAD_TRANSACTION, TransactionRule.MISSING_INPUT)
    chain.extend(first)
    assert refusal(chain, spend(chain, second)) == (BodyReason.BAD_TRANSACTION, TransactionRule.MISSING_INPUT)
    assert refusal(chain, spend(chain, first)) == (BodyReason.BAD_TRANSACTION, TransactionRule.MISSING_INPUT)


def test_block_with_a_failing_script_is_refused(chain: MemoryChain) -> None:
    [coin] = chain.fund(ALICE.script())
    stolen = BOB.spend([(coin[0], TxOut(coin[1].value_sats, BOB.script()))], [TxOut(1_000, BOB.script())])
    assert refusal(chain, spend(chain, stolen)) == (BodyReason.BAD_TRANSACTION, ScriptReason.SCRIPT_FAILED)


def test_block_with_bytes_that_are_no_transaction_is_refused(chain: MemoryChain) -> None:
    block = chain.with_body(transactions=(b"nothing",))
    assert refusal(chain, block) == (BodyReason.BAD_TRANSACTION, TransactionReason.MALFORMED)


def test_derived_transactions_are_nobodys_to_put_in(chain: MemoryChain) -> None:
    chain.fund(ALICE.script())
    _, evidence = chain.pay_reserve(ALICE.script(), 50_000)
    chain.bury()
    claim = chain.build(evidence=[evidence]).state.transactions[0].transaction
    assert refusal(chain, spend(chain, claim)) == (BodyReason.BAD_TRANSACTION, TransactionRule.RESERVED_INDEX)


def test_ledger_root_of_another_ledger_is_refused(chain: MemoryChain) -> None:
    [coin] = chain.fund(ALICE.script())
    block = spend(chain, ALICE.pay(coin, BOB.script()))
    verdict = rejected(chain, block)
    assert verdict.reason is BodyReason.WRONG_LEDGER_ROOT
    assert not verdict.condemns_header


# Burns and batches


def burned(chain: MemoryChain, count: int = 1) -> None:
    """Burns of Alice's in the newest block."""
    coins = chain.fund(*[ALICE.script()] * count, value_sats=1_000_000)
    chain.extend(*[ALICE.spend([coin], [chain.burn_output(990_000, BOB.script(), ALICE.script())]) for coin in coins])


def test_burn_becomes_a_pending_withdrawal_and_no_output(chain: MemoryChain) -> None:
    burned(chain)
    [(outpoint, withdrawal)] = chain.state.ledger.open_withdrawals.items()
    assert (withdrawal.value_sats, withdrawal.status) == (990_000, WithdrawalStatus.PENDING)
    assert (withdrawal.l1_script, withdrawal.refund_script) == (BOB.script(), ALICE.script())
    assert chain.utxo_value(outpoint) is None
    assert chain.state.ledger.totals.unsettled_sats == 990_000
    assert recount_supply(chain.state) == chain.state.ledger.totals.supply_sats == 0


def test_batch_is_in_the_block_when_it_is_due_and_locks_its_burns(chain: MemoryChain) -> None:
    burned(chain, chain.rules.params.batch_min_payouts)
    assert len(chain.extend().block.body.batches) == 1
    statuses = {withdrawal.status for _, withdrawal in chain.state.ledger.open_withdrawals.items()}
    assert statuses == {WithdrawalStatus.BATCHED}


def test_burns_of_the_same_block_are_not_eligible(chain: MemoryChain) -> None:
    burned(chain, chain.rules.params.batch_min_payouts)
    assert chain.blocks[-1].body.batches == ()


def batch_block(chain: MemoryChain) -> Block:
    """A block with a due batch."""
    burned(chain, chain.rules.params.batch_min_payouts)
    return chain.build().block


def test_batch_of_other_bytes_is_refused(chain: MemoryChain) -> None:
    block = batch_block(chain)
    batch = replace(block.body.batches[0], transaction=b"another")
    changed = chain.reseal(Block(block.header, replace(block.body, batches=(batch,))))
    assert refusal(chain, changed) == (BodyReason.BAD_BATCH, BatchReason.TRANSACTION_DIFFERS)


def test_batch_that_is_not_due_is_refused(chain: MemoryChain) -> None:
    batch = Batch(BatchKind.PAYOUT, None, 2_000, b"")
    assert refusal(chain, chain.with_body(batches=(batch,))) == (BodyReason.BAD_BATCH, BatchReason.NOT_DUE)


def test_batch_while_another_is_open_is_refused(chain: MemoryChain) -> None:
    batch = batch_block(chain).body.batches[0]
    chain.extend()
    assert refusal(chain, chain.with_body(batches=(batch,))) == (BodyReason.BAD_BATCH, BatchReason.LINEAGE_OPEN)


def test_batch_settles_by_evidence_without_openings(chain: MemoryChain) -> None:
    batch = batch_block(chain).body.batches[0]
    chain.extend()
    payout = Transaction.parse(batch.transaction)
    chain.l1.mine(payout)
    evidence = chain.l1.evidence(payout)
    chain.bury()
    chain.extend(evidence=[evidence])
    assert list(chain.state.ledger.open_withdrawals.items()) == []
    statuses = [withdrawal.status for _, withdrawal in chain.state.ledger.closed_withdrawals.items()]
    assert statuses == [WithdrawalStatus.SETTLED] * chain.rules.params.batch_min_payouts
    chain.state.ledger.totals.require_equality()
