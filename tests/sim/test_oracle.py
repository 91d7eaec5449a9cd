"""A test of the test: the oracle follows a good chain to the satoshi, and finds whatever is wrong with a bad one."""

from dataclasses import replace

import pytest

from bridge.bitcoin.curve import schnorr_sign
from bridge.bitcoin.identifiers import BlockHash
from bridge.bitcoin.transaction import Transaction, TxIn, TxOut
from bridge.state import WithdrawalStatus
from federation.certificate import Certificate, VoteKind, vote_digest
from pegnode.chain.block import Block
from pegnode.chain.builder import BuiltBlock
from tests.sim.books import Books
from tests.sim.oracle import ChainOracle
from tests.sim.seams import Violation
from tests.sim.workload import PEG
from tests.support.chain import MemoryChain, vote_secrets
from tests.support.fake_l1 import MINER_SCRIPT
from tests.support.fake_l1_client import L1World
from tests.support.mini_wallet import MiniWallet

ALICE = MiniWallet("alice")
BOB = MiniWallet("bob")
QUORUM = (0, 1, 2)


def certificate(chain: MemoryChain, block: Block, signers: tuple[int, ...] = QUORUM, view: int = 0) -> bytes:
    """A finalization of a block, or of another view."""
    view = view or block.header.view
    digest = vote_digest(chain.rules.chain_id, 0, VoteKind.FINALIZE, view, block.hash)
    signatures = tuple((index, schnorr_sign(vote_secrets()[index], digest, bytes(32))) for index in signers)
    return Certificate(VoteKind.FINALIZE, 0, view, block.hash, signatures).encode()


def paid_out() -> tuple[MemoryChain, Transaction]:
    """A chain with deposits, a transfer, two burns and the batch that pays them, which is not yet on L1."""
    chain = MemoryChain(peg=PEG)
    coins = chain.fund(*[ALICE.script()] * 3, value_sats=1_000_000)
    moved = chain.extend(ALICE.pay(coins[2], BOB.script(), ALICE.script())).block
    assert moved.body.transactions
    burns = [chain.burn_output(900_000, MiniWallet(name).script(), ALICE.script()) for name in ("carol", "dave")]
    chain.extend(*[ALICE.spend([coin], [burn]) for coin, burn in zip(coins, burns, strict=False)])
    [batch] = chain.extend().block.body.batches
    return chain, Transaction.parse(batch.transaction)


def settle(chain: MemoryChain, payout: Transaction) -> BuiltBlock:
    """The payout is mined, and a block says so."""
    chain.l1.mine(payout)
    chain.bury()
    return chain.extend(evidence=[chain.l1.evidence(payout)])


def judged(chain: MemoryChain) -> ChainOracle:
    """An oracle that has judged the whole chain."""
    oracle = ChainOracle(chain.rules, L1World(chain.l1))
    for block in chain.blocks:
        oracle.judge(block.encode(), certificate(chain, block))
    return oracle


def test_oracle_follows_deposits_transfers_payouts_and_refunds_to_the_satoshi() -> None:
    chain, payout = paid_out()
    settle(chain, payout)
    [coin] = chain.fund(ALICE.script(), value_sats=500_000)
    stingy = ALICE.spend([coin], [chain.burn_output(400_000, BOB.script(), ALICE.script(), max_fee_sats=0)])
    chain.extend(stingy)
    chain.pass_anchors(PEG["withdrawal_expiry_anchors"])
    chain.extend()
    oracle = judged(chain)
    ended = [withdrawal.status for _, withdrawal in oracle.ledger.closed_withdrawals.items()]
    assert sorted(ended) == [WithdrawalStatus.SETTLED, WithdrawalStatus.SETTLED, WithdrawalStatus.REFUNDED]
    assert oracle.ledger.totals == chain.state.ledger.totals


@pytest.mark.parametrize(
    ("signers", "view", "why"),
    [((0, 1), 0, "quorum-size"), ((0, 0, 1), 0, "unsorted"), (QUORUM, 77, "something else")],
    ids=["too few", "one twice", "another view"],
)
def test_oracle_refuses_a_certificate_that_proves_nothing(signers: tuple[int, ...], view: int, why: str) -> None:
    chain = MemoryChain(peg=PEG)
    block = chain.extend().block
    with pytest.raises(Violation, match=why):
        ChainOracle(chain.rules, L1World(chain.l1)).judge(block.encode(), certificate(chain, block, signers, view))


def test_oracle_refuses_a_certificate_of_another_block() -> None:
    chain = MemoryChain(peg=PEG)
    block, other = chain.extend().block, chain.extend().block
    proof = replace(Certificate.decode(certificate(chain, block)), block_hash=BlockHash(other.hash)).encode()
    with pytest.raises(Violation):
        ChainOracle(chain.rules, L1World(chain.l1)).judge(block.encode(), proof)


def test_oracle_refuses_an_anchor_that_is_not_buried() -> None:
    chain = MemoryChain(peg=PEG)
    chain.fund(ALICE.script())
    del chain.l1.blocks[chain.header.anchor.height + 2 :]
    with pytest.raises(Violation, match="only 2 deep"):
        judged(chain)


def test_books_find_what_spends_the_reserve_and_is_no_batch() -> None:
    chain, payout = paid_out()
    oracle = judged(chain)
    theft = Transaction(2, (TxIn(payout.inputs[0].outpoint),), (TxOut(1_000_000, MINER_SCRIPT),))
    chain.l1.mine(theft)
    with pytest.raises(Violation, match="spends the reserve"):
        oracle.judge(chain.extend().block.encode(), None)


def test_books_find_a_withdrawal_that_is_paid_twice() -> None:
    chain, payout = paid_out()
    oracle = judged(chain)
    chain.l1.mine(payout)
    chain.l1.mine(payout)
    with pytest.raises(Violation, match="paid twice"):
        oracle.judge(chain.extend().block.encode(), None)


def test_books_find_an_output_that_enters_twice() -> None:
    chain = MemoryChain(peg=PEG)
    chain.fund(ALICE.script())
    books, after = Books(chain.l1), chain.state
    books.after_block(chain.blocks[-1], after, after)  # type: ignore[arg-type]
    with pytest.raises(Violation, match="enters twice"):
        books.after_block(chain.blocks[-1], after, after)  # type: ignore[arg-type]


@pytest.mark.parametrize("term", ["reserves_sats", "supply_sats", "unsettled_sats", "fund_sats", "deficit_sats"])
def test_books_find_a_total_that_is_not_what_is_there(term: str) -> None:
    chain = MemoryChain(peg=PEG)
    chain.fund(ALICE.script())
    after = chain.state
    after.ledger.totals = after.ledger.totals.plus(**{term: 1})  # type: ignore[misc]
    with pytest.raises(Violation, match="counted"):
        Books(chain.l1).after_block(chain.blocks[-1], after, after)  # type: ignore[arg-type]


def test_books_find_money_that_came_from_nowhere() -> None:
    """Also where the totals agree with what is there."""
    chain = MemoryChain(peg=PEG)
    [coin] = chain.fund(ALICE.script(), value_sats=1_000_000)
    outpoint, output = coin
    after = chain.state
    utxo = after.utxos.get(outpoint)
    assert utxo is not None
    after.utxos.put(outpoint, replace(utxo, value_sats=output.value_sats + 5))  # type: ignore[attr-defined]
    after.ledger.totals = after.ledger.totals.plus(supply_sats=5)  # type: ignore[misc]
    with pytest.raises(Violation, match=r"reserves .* != supply"):
        Books(chain.l1).after_block(chain.blocks[-1], after, after)  # type: ignore[arg-type]
