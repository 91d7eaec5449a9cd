"""Coin out of nothing: the ways in which chains of coins have been inflated, tried on a block.

Every block must leave supply, unsettled burns and fund covered by reserves, but none of these attacks gets that far:
the first rule that it breaks is named.
"""

from dataclasses import replace

import pytest

from bridge.bitcoin.amounts import MAX_MONEY_SATS
from bridge.bitcoin.transaction import Transaction, TransactionReason, TxIn, TxOut
from bridge.deposits import CLAIM_FLAG, REFUND_FLAG
from bridge.evidence import EvidenceReason
from pegnode.chain.state import recount_supply
from pegnode.chain.transactions import TransactionRule
from pegnode.chain.verdicts import BodyReason
from tests.support.chain import MemoryChain
from tests.support.mini_wallet import MiniWallet, coins_of
from tests.support.verdicts import evidence_refusal, refusal, transaction_refusal

MALLORY = MiniWallet("mallory")


@pytest.fixture
def chain() -> MemoryChain:
    return MemoryChain()


def test_one_input_named_twice_counts_once(chain: MemoryChain) -> None:
    """CVE-2018-17144: Bitcoin Core left out the check as needless, and a block could spend one output twice."""
    [coin] = chain.fund(MALLORY.script())
    doubled = MALLORY.spend([coin, coin], [TxOut(2 * coin[1].value_sats, MALLORY.script())])
    assert transaction_refusal(chain, doubled) is TransactionRule.DUPLICATE_INPUT
    first = MALLORY.pay(coin, MALLORY.script())
    second = MALLORY.pay(coin, MALLORY.script(), fee_sats=2_000)
    assert transaction_refusal(chain, first, second) is TransactionRule.MISSING_INPUT


@pytest.mark.parametrize("value_sats", [2**63 - 1, 2**63, 2**64 - 1, MAX_MONEY_SATS + 1])
def test_output_beyond_all_money_is_no_transaction(chain: MemoryChain, value_sats: int) -> None:
    """CVE-2010-5139: two outputs of 92 billion bitcoin each had a sum that fitted their input, after it overflowed."""
    [coin] = chain.fund(MALLORY.script())
    honest = MALLORY.spend([coin], [TxOut(1_000, MALLORY.script())] * 2).serialize()
    forged = honest.replace((1_000).to_bytes(8, "little"), value_sats.to_bytes(8, "little"))
    block = chain.with_body(transactions=(forged,))
    assert refusal(chain, block) == (BodyReason.BAD_TRANSACTION, TransactionReason.VALUE_OUT_OF_RANGE)


def test_outputs_whose_sum_is_beyond_all_money_exceed_their_inputs(chain: MemoryChain) -> None:
    """CVE-2010-5139, with each output in range."""
    [coin] = chain.fund(MALLORY.script())
    for count in (2, 10_000 // 32):
        outputs = [TxOut(MAX_MONEY_SATS, MALLORY.script())] * count
        assert transaction_refusal(chain, MALLORY.spend([coin], outputs)) is TransactionRule.FEE_NEGATIVE


def test_claim_that_was_spent_is_not_made_again(chain: MemoryChain) -> None:
    """CVE-2012-1909: a second transaction of a known txid brought spent outputs back, or overwrote unspent ones."""
    _, evidence = chain.pay_reserve(MALLORY.script(), 50_000)
    chain.bury()
    claim = chain.extend(evidence=[evidence]).state.transactions[0].transaction
    chain.extend(MALLORY.pay(coins_of(claim)[0], MALLORY.script()))
    supply_sats = recount_supply(chain.state)
    assert evidence_refusal(chain, evidence) is EvidenceReason.ALREADY_ENTERED
    assert transaction_refusal(chain, claim) is TransactionRule.RESERVED_INDEX
    assert recount_supply(chain.state) == supply_sats


@pytest.mark.parametrize("flag", [REFUND_FLAG, CLAIM_FLAG, 1 << 31])
def test_derived_transaction_is_nobodys_to_write(chain: MemoryChain, flag: int) -> None:
    """Elements marks peg-ins and issuances in an input's index as well, and masks the marks; here nobody masks them."""
    [coin] = chain.fund(MALLORY.script())
    output = TxOut(coin[1].value_sats, MALLORY.script())
    for marked in (replace(coin[0], vout=flag), replace(coin[0], vout=coin[0].vout | flag)):
        assert transaction_refusal(chain, Transaction(2, (TxIn(marked),), (output,))) is TransactionRule.RESERVED_INDEX
        assert (
            transaction_refusal(chain, MALLORY.spend([(marked, coin[1])], [output])) is TransactionRule.RESERVED_INDEX
        )


def test_coinbase_has_no_place_on_the_sidechain(chain: MemoryChain) -> None:
    coinbase = chain.l1.blocks[1].transactions[0]
    assert transaction_refusal(chain, coinbase) is TransactionRule.NULL_PREVOUT
