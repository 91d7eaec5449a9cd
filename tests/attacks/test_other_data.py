"""A verdict on one thing, used for another: the thief shows what is sound, and then something under the same name.

A cache of verdicts is only as good as its key. Whoever keeps "valid" under a txid, a header or an outpoint, which say
nothing of witnesses, bodies or openings, will take a forgery for what it has checked; and whoever keeps "invalid" so
refuses the genuine for ever (Bitcoin's CVE-2012-2459; Liquid, 2026).
"""

from dataclasses import replace

import pytest
import trio

from bridge.bitcoin.identifiers import Script
from bridge.bitcoin.script import ScriptReason
from bridge.bitcoin.transaction import Transaction, TxOut
from bridge.custody import CoinKind
from bridge.errors import Reason, Rejected
from bridge.evidence import Evidence, EvidenceReason, Opening
from pegnode.chain.block import EMPTY_BODY, Block
from pegnode.chain.verdicts import BlockRejected, BodyReason
from pegnode.mempool.evidence_pool import EvidencePool, EvidencePoolLimits, EvidencePoolReason
from pegnode.mempool.pool import Mempool, PoolLimits, PoolReason
from pegnode.service.validation import validate
from tests.support.chain import MemoryChain
from tests.support.members import memory_federation
from tests.support.mini_wallet import MiniWallet
from tests.support.verdicts import evidence_refusal, transaction_refusal

ALICE, BOB, MALLORY = MiniWallet("alice"), MiniWallet("bob"), MiniWallet("mallory")


@pytest.fixture
def chain() -> MemoryChain:
    return MemoryChain()


def pool_refusal(pool: Mempool, chain: MemoryChain, transaction: Transaction) -> Reason:
    """Why a pool takes no transaction, having seen that it stays as it was."""
    before = pool.entries()
    with pytest.raises(Rejected) as caught:
        pool.add(transaction.serialize(), chain.state, chain.rules, chain.header.time_ms)
    assert pool.entries() == before
    return caught.value.reason


def test_signatures_that_were_checked_serve_no_other_witness_and_no_other_payment(chain: MemoryChain) -> None:
    """The genuine payment waits, checked; then come one of its txid with a false witness, and one with its witness."""
    [coin] = chain.fund(ALICE.script())
    payment = ALICE.pay(coin, BOB.script())
    pool = Mempool(PoolLimits())
    pool.add(payment.serialize(), chain.state, chain.rules, chain.header.time_ms)
    [txin] = payment.inputs
    malleated = payment.with_witnesses([(b"\x00" * 71, txin.witness[1])])
    [output] = payment.outputs
    diverted = replace(payment, outputs=(replace(output, script=MALLORY.script()),))
    assert malleated.txid == payment.txid != diverted.txid
    assert pool_refusal(pool, chain, malleated) is PoolReason.ALREADY_WAITING
    assert pool_refusal(pool, chain, diverted) is PoolReason.CONFLICT
    for forged in (malleated, diverted):
        assert transaction_refusal(chain, forged) is ScriptReason.SCRIPT_FAILED
    [waiting] = pool.select(chain.state, 1_000_000)
    assert waiting.serialize() == payment.serialize()
    chain.extend(waiting)


def test_forgery_that_was_refused_keeps_nobody_from_the_payment_of_its_txid(chain: MemoryChain) -> None:
    """The forgery comes first, to the pool and in a block: a "no" under the txid would lock up Alice's coin."""
    [coin] = chain.fund(ALICE.script())
    payment = ALICE.pay(coin, BOB.script())
    malleated = payment.with_witnesses([(b"\x00" * 71, payment.inputs[0].witness[1])])
    pool = Mempool(PoolLimits())
    assert pool_refusal(pool, chain, malleated) is ScriptReason.SCRIPT_FAILED
    assert transaction_refusal(chain, malleated) is ScriptReason.SCRIPT_FAILED
    pool.add(payment.serialize(), chain.state, chain.rules, chain.header.time_ms)
    chain.extend(payment)


class Deposits:
    """A transaction on L1 with a deposit of Alice's and one of Bob's, and a pool of evidence."""

    def __init__(self, chain: MemoryChain) -> None:
        self.chain = chain
        self.payment = chain.l1.payment(
            *(TxOut(50_000, chain.deposit_script(wallet.script())) for wallet in (ALICE, BOB))
        )
        chain.l1.mine(self.payment)
        chain.bury()
        self.pool = EvidencePool(EvidencePoolLimits())

    def evidence(self, **scripts: Script) -> Evidence:
        """Proven as it was mined; first, second: whom that output is said to credit."""
        names = ("first", "second")
        openings = [Opening(names.index(name), CoinKind.DEPOSIT, 0, script) for name, script in scripts.items()]
        return self.chain.l1.evidence(self.payment, *openings)

    def add(self, evidence: Evidence) -> None:
        """Let it wait."""
        fact = self.chain.l1.fact(evidence.l1_block_hash)
        assert fact is not None
        self.pool.add(evidence, fact, self.chain.state, self.chain.rules, 0)

    def refusal(self, evidence: Evidence) -> Reason:
        """Why the pool refuses it, having seen that the pool stays as it was."""
        before = self.pool.get(self.payment.txid)
        with pytest.raises(Rejected) as caught:
            self.add(evidence)
        assert self.pool.get(self.payment.txid) == before
        return caught.value.reason


def test_proof_that_was_checked_proves_no_other_transaction(chain: MemoryChain) -> None:
    """A proof that has just been found true, with a transaction that pays Mallory, or pays more."""
    scene = Deposits(chain)
    scene.add(scene.evidence(first=ALICE.script()))
    true = scene.evidence(first=ALICE.script(), second=BOB.script())
    first, second = scene.payment.outputs
    to_mallory = TxOut(50_000, chain.deposit_script(MALLORY.script()))
    for outputs, openings in (
        ((to_mallory, second), (Opening(0, CoinKind.DEPOSIT, 0, MALLORY.script()),)),
        ((replace(first, value_sats=50_000_000), second), true.openings),
    ):
        forged = replace(scene.payment, outputs=outputs).serialize_stripped()
        evidence = replace(true, transaction=forged, openings=openings)
        assert scene.refusal(evidence) is EvidenceReason.WRONG_TRANSACTION
        assert evidence_refusal(chain, evidence) is EvidenceReason.WRONG_TRANSACTION
    assert len(scene.pool) == 1
    chain.extend(evidence=[true])
    assert chain.state.ledger.totals.reserves_sats == 100_000


def test_opening_that_was_checked_stands_for_no_other_claim_script(chain: MemoryChain) -> None:
    """Alice's deposit waits; a peer tells of it again as Mallory's, alone and beside Bob's, which is genuine news."""
    scene = Deposits(chain)
    assert scene.refusal(scene.evidence(first=MALLORY.script())) is EvidenceReason.WRONG_SCRIPT
    scene.add(scene.evidence(first=ALICE.script()))
    assert scene.refusal(scene.evidence(first=MALLORY.script())) is EvidencePoolReason.ALREADY_WAITING
    assert scene.refusal(scene.evidence(second=MALLORY.script())) is EvidenceReason.WRONG_SCRIPT
    scene.add(scene.evidence(first=MALLORY.script(), second=BOB.script()))
    waiting = scene.pool.get(scene.payment.txid)
    assert waiting == scene.evidence(first=ALICE.script(), second=BOB.script())
    claims = [item.transaction.outputs[0].script for item in chain.extend(evidence=[waiting]).state.transactions]
    assert sorted(claims) == sorted([ALICE.script(), BOB.script()])


async def test_block_that_was_checked_vouches_for_no_other_body(autojump_clock: trio.abc.Clock) -> None:
    """The member has found the block valid, and is asked again: the same header, without its payment."""
    async with memory_federation(0) as federation:
        member = federation.members[0]
        coin = federation.fund_by_hand(member, ALICE)
        block = federation.next_block(member.store, ALICE.pay(coin, BOB.script()))
        assert await validate(member.core, block.block, block.data)
        other = Block(block.block.header, EMPTY_BODY)
        with pytest.raises(BlockRejected) as caught:
            await validate(member.core, other, other.encode())
        assert (caught.value.reason, caught.value.condemns_header) == (BodyReason.WRONG_ROOT, False)
        kept = member.core.unfinal.get(block.block.hash)
        assert kept is not None
        assert kept.data == block.data
        assert await validate(member.core, block.block, block.data), "and the genuine one is as valid as before"
