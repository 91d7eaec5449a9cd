"""Paid and refunded: the thief burns once and wants the value twice, on L1 and here, or another's, or twice here."""

from dataclasses import replace

import pytest

from bridge.batch import Batch
from bridge.batch_form import BatchReason
from bridge.bitcoin.identifiers import OutPoint
from bridge.bitcoin.transaction import Transaction, TxOut
from bridge.evidence import EvidenceReason
from bridge.refunds import refund_transaction
from bridge.state import Withdrawal, WithdrawalStatus
from pegnode.chain.block import Block
from pegnode.chain.state import recount_supply
from pegnode.chain.verdicts import BodyReason
from tests.support.chain import MemoryChain
from tests.support.ledgers import pending
from tests.support.mini_wallet import MiniWallet
from tests.support.verdicts import refusal, rejected

THIEF = MiniWallet("thief")
VICTIM = MiniWallet("victim")
EXPIRY = 20
BURNED_SATS = 990_000


@pytest.fixture
def chain() -> MemoryChain:
    return MemoryChain(peg={"withdrawal_expiry_anchors": EXPIRY, "max_anchor_step": 16})


def burned(chain: MemoryChain, wallet: MiniWallet = THIEF) -> Withdrawal:
    """A burn that bears its share of a payout, in the newest block."""
    [coin] = chain.fund(wallet.script(), value_sats=1_000_000)
    burn = chain.burn_output(BURNED_SATS, wallet.script(), wallet.script(), max_fee_sats=5_000)
    chain.extend(wallet.spend([coin], [burn]))
    return pending(chain.state.ledger)[-1]


def paid_by_batch(chain: MemoryChain) -> Transaction:
    """The payout of a new block, which is due by its age."""
    chain.l1.mine_empty(chain.rules.params.batch_max_wait_anchors)
    [batch] = chain.extend().block.body.batches
    return Transaction.parse(batch.transaction)


def expire(chain: MemoryChain) -> None:
    """Whatever is burned by now is expired at the anchor of the next block."""
    chain.pass_anchors(EXPIRY)


def with_refund(chain: MemoryChain, withdrawal: Withdrawal) -> Block:
    """The next block, which refunds this withdrawal too."""
    block = chain.build().block
    refund = refund_transaction(withdrawal, chain.rules.params).serialize()
    return chain.reseal(Block(block.header, replace(block.body, refunds=(*block.body.refunds, refund))))


def test_burn_whose_payout_is_under_way_is_never_refunded(chain: MemoryChain) -> None:
    """However long L1 does not confirm it: every version stays valid there for ever."""
    withdrawal = burned(chain)
    paid_by_batch(chain)
    for _ in range(3):
        expire(chain)
        assert rejected(chain, with_refund(chain, withdrawal)).reason is BodyReason.REFUND_NOT_DUE
        assert chain.extend().block.body.refunds == ()
    entry = chain.state.ledger.open_withdrawals.get(withdrawal.burn)
    assert entry is not None
    assert entry.status is WithdrawalStatus.BATCHED


def test_burn_that_was_paid_is_never_refunded(chain: MemoryChain) -> None:
    withdrawal = burned(chain)
    payout = paid_by_batch(chain)
    chain.l1.mine(payout)
    evidence = chain.l1.evidence(payout)
    expire(chain)
    # The evidence is in the very block at whose anchor the burn expires, and in none of those after it.
    assert chain.extend(evidence=[evidence]).block.body.refunds == ()
    for _ in range(2):
        assert rejected(chain, with_refund(chain, withdrawal)).reason is BodyReason.REFUND_NOT_DUE
        expire(chain)
        chain.extend()
    closed = chain.state.ledger.closed_withdrawals.get(withdrawal.burn)
    assert closed is not None
    assert closed.payout == payout.outpoint(0)


def test_burn_that_was_refunded_is_never_paid(chain: MemoryChain) -> None:
    """Neither in the block that refunds it, whose payout was worked out before, nor later."""
    withdrawal = burned(chain)
    chain.l1.mine_empty(chain.rules.params.batch_max_wait_anchors)
    [batch] = chain.build().block.body.batches
    expire(chain)
    block = chain.build().block
    assert (len(block.body.refunds), block.body.batches) == (1, ())
    assert batch_refusal(chain, batch) is BatchReason.NOT_DUE
    chain.extend()
    assert batch_refusal(chain, batch) is BatchReason.NOT_DUE
    # Should the transaction be on L1 all the same, it settles nothing, and no coin of the ledger was locked for it.
    payout = Transaction.parse(batch.transaction)
    chain.l1.mine(payout)
    evidence = chain.l1.evidence(payout)
    chain.bury()
    block = chain.build().block
    stolen = chain.reseal(Block(block.header, replace(block.body, evidence=(evidence,))))
    assert refusal(chain, stolen) == (BodyReason.BAD_EVIDENCE, EvidenceReason.NO_OPENINGS)
    closed = chain.state.ledger.closed_withdrawals.get(withdrawal.burn)
    assert closed is not None
    assert (closed.status, closed.payout) == (WithdrawalStatus.REFUNDED, None)


def batch_refusal(chain: MemoryChain, batch: Batch) -> object:
    """Which rule a batch breaks in the next block."""
    block = chain.build().block
    reason, cause = refusal(chain, chain.reseal(Block(block.header, replace(block.body, batches=(batch,)))))
    assert reason is BodyReason.BAD_BATCH
    return cause


def test_burn_is_refunded_once(chain: MemoryChain) -> None:
    withdrawal = burned(chain)
    expire(chain)
    first = chain.build().block
    twice = with_refund(chain, withdrawal)
    assert twice.body.refunds == first.body.refunds * 2
    assert rejected(chain, twice).reason is BodyReason.REFUND_NOT_DUE
    chain.extend()
    supply_sats = recount_supply(chain.state)
    for _ in range(2):
        assert rejected(chain, with_refund(chain, withdrawal)).reason is BodyReason.REFUND_NOT_DUE
        expire(chain)
        chain.extend()
    assert recount_supply(chain.state) == supply_sats


def test_refund_goes_to_nobody_but_whom_the_burn_names(chain: MemoryChain) -> None:
    """A leader redirects another's refund, raises its own, or names an output of its own that never was a burn."""
    burned(chain, VICTIM)
    expire(chain)
    block = chain.build().block
    [data] = block.body.refunds
    refund = Transaction.parse(data)
    [returned], [credited] = refund.inputs, refund.outputs
    own = OutPoint(returned.outpoint.txid, returned.outpoint.vout + 1)
    for false in (
        replace(refund, outputs=(replace(credited, script=THIEF.script()),)),
        replace(refund, outputs=(replace(credited, value_sats=credited.value_sats + 1),)),
        replace(refund, outputs=(credited, TxOut(1, THIEF.script()))),
        replace(refund, inputs=(replace(returned, outpoint=own),)),
        replace(refund, inputs=(returned, returned)),
    ):
        body = replace(block.body, refunds=(false.serialize(),))
        assert rejected(chain, chain.reseal(Block(block.header, body))).reason is BodyReason.REFUND_DIFFERS
    chain.extend()
    assert chain.utxo_value(refund.outpoint(0)) == BURNED_SATS - chain.rules.params.refund_fee_sats
