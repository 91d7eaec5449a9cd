"""Transactions, burns and batches in blocks: every rule of theirs is a rule of blocks."""

from dataclasses import replace

import pytest

from bridge.batch import Batch
from bridge.batch_form import BatchReason
from bridge.bitcoin.identifiers import OutPoint, Script, Txid
from bridge.bitcoin.script import ScriptReason, ScriptType
from bridge.bitcoin.transaction import Transaction, TransactionReason, TxIn, TxOut
from bridge.custody import CoinKind, reserve_script
from bridge.errors import Reason
from bridge.state import BatchKind, WithdrawalStatus
from bridge.withdrawals import BurnReason
from pegnode.chain.block import Block
from pegnode.chain.state import TransactionKind, recount_supply
from pegnode.chain.transactions import TransactionRule
from pegnode.chain.verdicts import BodyReason
from tests.support.chain import MemoryChain
from tests.support.mini_wallet import MiniWallet, coins_of
from tests.support.verdicts import (
    refusal,
    rejected,
    transaction_refusal,
    with_transactions,
)

ALICE = MiniWallet("alice")
BOB = MiniWallet("bob")


@pytest.fixture
def chain() -> MemoryChain:
    return MemoryChain()


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
    assert transaction_refusal(chain, second, first) is TransactionRule.MISSING_INPUT
    chain.extend(first, second)


def test_coin_is_spent_once_in_a_block_and_ever(chain: MemoryChain) -> None:
    [coin] = chain.fund(ALICE.script())
    first, second = ALICE.pay(coin, ALICE.script()), ALICE.pay(coin, BOB.script())
    assert transaction_refusal(chain, first, second) is TransactionRule.MISSING_INPUT
    chain.extend(first)
    assert transaction_refusal(chain, second) is TransactionRule.MISSING_INPUT
    assert transaction_refusal(chain, first) is TransactionRule.MISSING_INPUT


def test_block_with_a_failing_script_is_refused(chain: MemoryChain) -> None:
    [coin] = chain.fund(ALICE.script())
    stolen = BOB.spend([(coin[0], TxOut(coin[1].value_sats, BOB.script()))], [TxOut(1_000, BOB.script())])
    assert transaction_refusal(chain, stolen) is ScriptReason.SCRIPT_FAILED


def broken_payments(chain: MemoryChain) -> dict[Reason, Transaction]:
    """Payments of a coin of Alice's, each of which breaks one rule, by the reason."""
    [coin] = chain.fund(ALICE.script())
    value_sats = coin[1].value_sats
    to_bob = TxOut(value_sats - 1_000, BOB.script())

    def paid(*outputs: TxOut, **options: int) -> Transaction:
        return ALICE.spend([coin], outputs or [to_bob], **options)

    def elsewhere(outpoint: OutPoint) -> Transaction:
        return ALICE.spend([(outpoint, coin[1])], [to_bob])

    genesis = chain.rules.l1_genesis_hash
    burn = chain.burn_output(value_sats, BOB.script(), ALICE.script())
    change_script = reserve_script(chain.rules.custody.newest, CoinKind.CHANGE).script
    return {
        TransactionRule.VERSION: paid(version=3),
        TransactionRule.NULL_PREVOUT: elsewhere(OutPoint(Txid(bytes(32)), 0)),
        TransactionRule.RESERVED_INDEX: elsewhere(replace(coin[0], vout=1 << 30)),
        TransactionRule.DUPLICATE_INPUT: ALICE.spend([coin, coin], [to_bob]),
        TransactionRule.MISSING_INPUT: elsewhere(replace(coin[0], vout=1)),
        TransactionRule.STRIPPED_SIZE: paid(to_bob, TxOut(0, Script(b"\x6a" + bytes(100_000)))),
        TransactionRule.SIZE_64: Transaction(2, (TxIn(coin[0]),), (TxOut(0, Script(b"\x6a" + bytes(3))),)),
        TransactionRule.OUTPUT_TYPE: paid(TxOut(1_000, Script(b"\x51"))),
        TransactionRule.FEE_NEGATIVE: paid(TxOut(value_sats + 1, BOB.script())),
        TransactionRule.NOT_FINAL: paid(locktime=1_000_000, sequence=0),
        TransactionRule.RELATIVE_LOCK: paid(sequence=10),
        TransactionRule.SIGOP_COST: paid(to_bob, TxOut(0, Script(b"\x6a" + b"\xae" * 201))),
        BurnReason.MALFORMED: paid(TxOut(1_000, Script(b"\x6a"))),
        BurnReason.WRONG_GENESIS: paid(replace(burn, script=Script(burn.script.replace(genesis, bytes(32))))),
        BurnReason.L1_SCRIPT_TYPE: paid(chain.burn_output(value_sats, Script(b"\x51"), ALICE.script())),
        BurnReason.REFUND_SCRIPT_TYPE: paid(chain.burn_output(value_sats, BOB.script(), Script(b"\x51"))),
        BurnReason.RESERVE_SCRIPT: paid(chain.burn_output(value_sats, change_script, ALICE.script())),
        BurnReason.DUST: paid(chain.burn_output(293, BOB.script(), ALICE.script(), max_fee_sats=0)),
        BurnReason.MAX_FEE: paid(chain.burn_output(value_sats, BOB.script(), ALICE.script(), max_fee_sats=value_sats)),
        BurnReason.BELOW_MIN_WITHDRAWAL: paid(chain.burn_output(999, BOB.script(), ALICE.script(), max_fee_sats=0)),
        BurnReason.BELOW_REFUND_FEE: paid(chain.burn_output(500, BOB.script(), ALICE.script(), max_fee_sats=0)),
    }


def test_block_with_a_transaction_that_breaks_a_rule_is_refused(chain: MemoryChain) -> None:
    for reason, payment in broken_payments(chain).items():
        assert transaction_refusal(chain, payment) is reason


def test_block_with_bytes_that_are_no_transaction_is_refused(chain: MemoryChain) -> None:
    block = chain.with_body(transactions=(b"nothing",))
    assert refusal(chain, block) == (BodyReason.BAD_TRANSACTION, TransactionReason.MALFORMED)


def test_derived_transactions_are_nobodys_to_put_in(chain: MemoryChain) -> None:
    chain.fund(ALICE.script())
    _, evidence = chain.pay_reserve(ALICE.script(), 50_000)
    chain.bury()
    claim = chain.build(evidence=[evidence]).state.transactions[0].transaction
    assert transaction_refusal(chain, claim) is TransactionRule.RESERVED_INDEX


def test_ledger_root_of_another_ledger_is_refused(chain: MemoryChain) -> None:
    [coin] = chain.fund(ALICE.script())
    block = with_transactions(chain, ALICE.pay(coin, BOB.script()))
    verdict = rejected(chain, block)
    assert verdict.reason is BodyReason.WRONG_LEDGER_ROOT
    assert not verdict.condemns_header


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


def batch_refusal(chain: MemoryChain, batch: Batch, block: Block | None = None) -> Reason | None:
    """The rule that this batch breaks in place of those of `block`, or of the builder's next one."""
    block = block or chain.build().block
    reason, cause = refusal(chain, chain.reseal(Block(block.header, replace(block.body, batches=(batch,)))))
    assert reason is BodyReason.BAD_BATCH
    return cause


def test_batch_of_any_other_byte_is_refused(chain: MemoryChain) -> None:
    block = batch_block(chain)
    [batch] = block.body.batches
    for position in range(len(batch.transaction)):
        changed = bytearray(batch.transaction)
        changed[position] ^= 1
        other = replace(batch, transaction=bytes(changed))
        assert batch_refusal(chain, other, block) is BatchReason.TRANSACTION_DIFFERS
    for data in (b"", batch.transaction[:-1], batch.transaction + b"\x00"):
        assert batch_refusal(chain, replace(batch, transaction=data), block) is BatchReason.TRANSACTION_DIFFERS


def test_batch_that_pays_somebody_else_is_refused(chain: MemoryChain) -> None:
    batch = batch_block(chain).body.batches[0]
    payout = Transaction.parse(batch.transaction)
    for outputs in (
        (replace(payout.outputs[0], script=ALICE.script()), *payout.outputs[1:]),
        payout.outputs[1:],
        (*payout.outputs, TxOut(330, ALICE.script())),
        (*payout.outputs[:-1], replace(payout.outputs[-1], script=ALICE.script())),
    ):
        stolen = replace(payout, outputs=outputs).serialize()
        assert batch_refusal(chain, replace(batch, transaction=stolen)) is BatchReason.TRANSACTION_DIFFERS


def test_batch_of_other_coins_is_refused(chain: MemoryChain) -> None:
    """Of fewer, more, others in order, or one that has not entered yet, such as change that has not settled."""
    batch = batch_block(chain).body.batches[0]
    payout = Transaction.parse(batch.transaction)
    unsettled = replace(payout.inputs[0], outpoint=payout.outpoint(len(payout.outputs) - 1))
    for inputs in (
        payout.inputs[1:],
        payout.inputs[::-1],
        (*payout.inputs, payout.inputs[0]),
        (unsettled, *payout.inputs[1:]),
    ):
        other = replace(payout, inputs=inputs).serialize()
        assert batch_refusal(chain, replace(batch, transaction=other)) is BatchReason.TRANSACTION_DIFFERS


def test_batch_at_a_feerate_out_of_range_is_refused(chain: MemoryChain) -> None:
    batch, params = batch_block(chain).body.batches[0], chain.rules.params
    low = replace(batch, feerate_sat_kvb=params.feerate_floor_sat_kvb - 1)
    assert batch_refusal(chain, low) is BatchReason.FEERATE_BELOW_FLOOR
    high = replace(batch, feerate_sat_kvb=params.feerate_ceiling_sat_kvb + 1)
    assert batch_refusal(chain, high) is BatchReason.FEERATE_ABOVE_CEILING


def test_batch_of_another_kind_is_refused(chain: MemoryChain) -> None:
    batch = batch_block(chain).body.batches[0]
    assert batch_refusal(chain, replace(batch, kind=BatchKind.MAINTENANCE)) is BatchReason.NOT_DUE


def test_batch_that_is_not_due_is_refused(chain: MemoryChain) -> None:
    batch = Batch(BatchKind.PAYOUT, None, 2_000, b"")
    assert refusal(chain, chain.with_body(batches=(batch,))) == (BodyReason.BAD_BATCH, BatchReason.NOT_DUE)


def test_batch_of_locked_coins_is_refused(chain: MemoryChain) -> None:
    """Whatever its transaction: until the open payout settles, its coins are not free, nor is its change there."""
    batch = batch_block(chain).body.batches[0]
    chain.extend()
    assert batch_refusal(chain, batch) is BatchReason.LINEAGE_OPEN


def test_replacement_that_drops_an_input_is_refused(chain: MemoryChain) -> None:
    """Two versions of no common input could both confirm."""
    batch = batch_block(chain).body.batches[0]
    chain.extend()
    chain.l1.mine_empty(chain.rules.params.replacement_interval_anchors)
    chain.extend()
    block = chain.build(slot=replace(chain.slot(), feerate_sat_kvb=batch.feerate_sat_kvb * 2)).block
    [replacement] = block.body.batches
    assert replacement.replaces == Transaction.parse(batch.transaction).txid
    chain.apply(block)
    version = Transaction.parse(replacement.transaction)
    dropped = replace(version, inputs=version.inputs[1:]).serialize()
    assert batch_refusal(chain, replace(replacement, transaction=dropped)) is BatchReason.TRANSACTION_DIFFERS


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
