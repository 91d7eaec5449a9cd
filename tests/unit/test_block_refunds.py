"""Refunds in blocks: mandatory, exact, before the batch, and whatever L1 says."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from bridge.bitcoin.identifiers import OutPoint
from bridge.bitcoin.transaction import Transaction
from bridge.deposits import REFUND_FLAG
from bridge.refunds import refund_transaction
from bridge.state import WithdrawalStatus
from pegnode.chain.block import Block
from pegnode.chain.builder import BuiltBlock, Candidates, build_block
from pegnode.chain.conditions import (
    MAX_VIEWS_WITH_CONTENT,
    VoteFacts,
    VoteWithheld,
    check_finality_near,
    check_vote_conditions,
)
from pegnode.chain.facts import AnchorStatus, L1Facts
from pegnode.chain.rules import apply_block
from pegnode.chain.state import TransactionKind, recount_supply
from pegnode.chain.transactions import TransactionRule
from pegnode.chain.verdicts import BodyReason
from tests.support.chain import MemoryChain
from tests.support.mini_wallet import MiniWallet
from tests.support.verdicts import refusal, rejected

ALICE = MiniWallet("alice")
BOB = MiniWallet("bob")
EXPIRY = 20
STEP = 16
CAP = 2
FEE_SATS = 500
REFUNDING = {"withdrawal_expiry_anchors": EXPIRY, "max_anchor_step": STEP, "max_refunds_per_block": CAP}
BURNED_SATS = 990_000


@pytest.fixture
def chain() -> MemoryChain:
    return MemoryChain(peg=REFUNDING)


def burned(chain: MemoryChain, count: int, max_fee_sats: int = 0) -> list[OutPoint]:
    """Burns of Alice's in the newest block, in the order of their age."""
    coins = chain.fund(*[ALICE.script()] * count, value_sats=1_000_000)
    burn = chain.burn_output(BURNED_SATS, BOB.script(), ALICE.script(), max_fee_sats)
    built = chain.extend(*[ALICE.spend([coin], [burn]) for coin in coins])
    return [item.transaction.outpoint(0) for item in built.state.transactions]


def expire(chain: MemoryChain, anchors: int = EXPIRY) -> None:
    """L1 goes on until the newest block's burns are so many anchors old in the next block."""
    chain.pass_anchors(anchors)


def refunds(built: BuiltBlock) -> list[Transaction]:
    """What a block refunds."""
    return [item.transaction for item in built.state.transactions if item.kind is TransactionKind.REFUND]


def refunded(built: BuiltBlock) -> list[OutPoint]:
    """The burns that a block refunds, in its order."""
    inputs = [item.inputs[0].outpoint for item in refunds(built)]
    return [replace(outpoint, vout=outpoint.vout ^ REFUND_FLAG) for outpoint in inputs]


def without_l1(chain: MemoryChain) -> BuiltBlock:
    """The next block of a leader whose Bitcoin node is away."""
    slot = chain.slot(include_l1=False)
    return build_block(chain.state, slot, Candidates(), L1Facts(AnchorStatus.UNKNOWN), chain.rules)


def test_expired_burn_comes_back_as_a_coin_that_its_owner_spends(chain: MemoryChain) -> None:
    [burn] = burned(chain, 1)
    totals = chain.state.ledger.totals
    expire(chain)
    [refund] = refunds(chain.extend())
    assert refund.inputs[0].outpoint == OutPoint(burn.txid, burn.vout | REFUND_FLAG)
    after = chain.state.ledger.totals
    assert after.supply_sats == totals.supply_sats + BURNED_SATS - FEE_SATS == recount_supply(chain.state)
    assert (after.unsettled_sats, after.fund_sats) == (0, totals.fund_sats + FEE_SATS)
    closed = chain.state.ledger.closed_withdrawals.get(burn)
    assert closed is not None
    assert closed.status is WithdrawalStatus.REFUNDED
    coin = (refund.outpoint(0), refund.outputs[0])
    chain.extend(ALICE.pay(coin, BOB.script()))
    assert chain.utxo_value(refund.outpoint(0)) is None


def test_refunded_coin_is_spendable_in_the_same_block(chain: MemoryChain) -> None:
    burned(chain, 1)
    expire(chain)
    [refund] = refunds(chain.build())
    spending = ALICE.pay((refund.outpoint(0), refund.outputs[0]), BOB.script())
    kinds = [item.kind for item in chain.extend(spending).state.transactions]
    assert kinds == [TransactionKind.REFUND, TransactionKind.TRANSFER]


def test_burn_is_not_refunded_an_anchor_too_early(chain: MemoryChain) -> None:
    [burn] = burned(chain, 1)
    expire(chain, EXPIRY - 1)
    assert refunded(chain.extend()) == []
    chain.l1.mine_empty(1)
    assert refunded(chain.extend()) == [burn]
    chain.l1.mine_empty(1)
    assert refunded(chain.extend()) == []


def test_refunds_left_over_are_votable_long_after_the_last_final_block(chain: MemoryChain) -> None:
    """A block without them is invalid. If one with them got no vote either, no block ever would again."""
    coins = chain.fund(ALICE.script(), value_sats=1_000_000)
    burned(chain, 2 * CAP)
    expire(chain)
    chain.extend()
    final = replace(chain.header, view=chain.header.view - MAX_VIEWS_WITH_CONTENT)
    due = without_l1(chain)
    assert len(refunded(due)) == CAP
    check_finality_near(due.block, final)

    slot, paying = chain.slot(include_l1=False), Candidates(transactions=[ALICE.pay(coins[0], BOB.script())])
    more = build_block(chain.state, slot, paying, L1Facts(AnchorStatus.UNKNOWN), chain.rules)
    assert (len(refunded(more)), len(more.block.body.transactions)) == (CAP, 1)
    with pytest.raises(VoteWithheld):
        check_finality_near(more.block, final)


def test_refunds_over_the_cap_follow_in_the_next_blocks_oldest_first(chain: MemoryChain) -> None:
    burns = burned(chain, 2 * CAP + 1)
    expire(chain)
    assert [refunded(chain.extend()) for _ in range(4)] == [burns[:2], burns[2:4], burns[4:], []]
    assert chain.state.ledger.totals.unsettled_sats == 0


def test_refunds_left_over_are_in_blocks_that_say_nothing_of_l1(chain: MemoryChain) -> None:
    """They need no Bitcoin node: built, valid and votable whatever L1 says."""
    burns = burned(chain, CAP + 1)
    expire(chain)
    chain.extend()
    built, parent = without_l1(chain), chain.header
    assert built.block.header.anchor == parent.anchor
    assert refunded(built) == burns[CAP:]
    for status in AnchorStatus:
        apply_block(chain.state, built.block, L1Facts(status), chain.rules)
    facts = VoteFacts(now_ms=built.block.header.time_ms, halted=True, reserve_agrees=False)
    check_vote_conditions(built.block, parent, built.state.ledger, facts, chain.rules)


def test_refunds_of_a_block_take_their_room(chain: MemoryChain) -> None:
    burned(chain, 1)
    expire(chain)
    block = chain.build().block
    assert len(block.body.refunds) == 1
    assert len(block.body.encode()) == block.body.size_bytes


def with_refunds(block: Block, *refunds: bytes) -> Block:
    """The block with these refunds, its ledger root the one of the right ones."""
    body = replace(block.body, refunds=refunds)
    return Block(replace(block.header, body_root=body.root), body)


@pytest.mark.parametrize(
    ("reason", "change"),
    [
        (BodyReason.REFUND_MISSING, lambda first, second: ()),
        (BodyReason.REFUND_MISSING, lambda first, second: (first,)),
        (BodyReason.REFUND_MISSING, lambda first, second: (second,)),
        (BodyReason.REFUND_NOT_DUE, lambda first, second: (first, second, b"")),
        (BodyReason.REFUND_NOT_DUE, lambda first, second: (first, second, second)),
        (BodyReason.REFUND_ORDER, lambda first, second: (second, first)),
        (BodyReason.REFUND_DIFFERS, lambda first, second: (first, first)),
        (BodyReason.REFUND_DIFFERS, lambda first, second: (first, b"")),
        (BodyReason.REFUND_DIFFERS, lambda first, second: (first, second + b"\x00")),
        (BodyReason.REFUND_DIFFERS, lambda first, second: (b"refund", second)),
    ],
)
def test_block_without_exactly_the_refunds_that_are_due_is_refused(
    chain: MemoryChain, reason: BodyReason, change: Callable[[bytes, bytes], tuple[bytes, ...]]
) -> None:
    burned(chain, CAP)
    expire(chain)
    block = chain.build().block
    verdict = rejected(chain, with_refunds(block, *change(*block.body.refunds)))
    assert verdict.reason is reason
    assert not verdict.condemns_header
    chain.apply(with_refunds(block, *block.body.refunds))


def test_refund_of_any_other_byte_is_refused(chain: MemoryChain) -> None:
    """So nobody can have another's refund, or more of it."""
    burned(chain, 1)
    expire(chain)
    block = chain.build().block
    [data] = block.body.refunds
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 1
        assert rejected(chain, with_refunds(block, bytes(changed))).reason is BodyReason.REFUND_DIFFERS


def test_refund_over_the_cap_is_refused_though_the_burn_is_expired(chain: MemoryChain) -> None:
    burns = burned(chain, CAP + 1)
    waiting = chain.state.ledger.open_withdrawals.get(burns[CAP])
    assert waiting is not None
    expire(chain)
    block = chain.build().block
    another = refund_transaction(waiting, chain.rules.params).serialize()
    verdict = rejected(chain, with_refunds(block, *block.body.refunds, another))
    assert verdict.reason is BodyReason.REFUND_NOT_DUE


def test_refund_is_no_ordinary_transaction(chain: MemoryChain) -> None:
    burned(chain, 1)
    expire(chain)
    built = chain.build()
    [refund] = refunds(built)
    body = replace(built.block.body, transactions=(refund.serialize(),))
    reason, cause = refusal(chain, chain.reseal(Block(built.block.header, body)))
    assert (reason, cause) == (BodyReason.BAD_TRANSACTION, TransactionRule.RESERVED_INDEX)


def test_refunded_burn_is_not_in_the_batch_of_its_block(chain: MemoryChain) -> None:
    """All burns bear their share and a payout is due at the anchor at which the oldest expire."""
    burns = burned(chain, CAP + 1, max_fee_sats=5_000)
    expire(chain)
    built = chain.extend()
    assert refunded(built) == burns[:CAP]
    [batch] = built.block.body.batches
    payout = Transaction.parse(batch.transaction)
    assert sum(output.script == BOB.script() for output in payout.outputs) == 1
    assert built.state.ledger.open_withdrawals.get(burns[CAP]).status is WithdrawalStatus.BATCHED  # type: ignore[union-attr]
    assert refunded(chain.extend()) == []
