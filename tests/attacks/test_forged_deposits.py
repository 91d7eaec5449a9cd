"""Deposits that never happened, or that happened once: proofs that fooled light clients, told to a peg.

An SPV proof is as good as the rules of its tree. Each story here ends in a payment that L1 never made, or made once,
and is told to a block's rules, to the pool of evidence, and to a member by its peer.
"""

from dataclasses import replace

import pytest
import trio

from bridge.bitcoin.hashes import sha256d
from bridge.bitcoin.identifiers import Script
from bridge.bitcoin.transaction import Transaction, TxOut
from bridge.codec import decode_whole
from bridge.custody import CoinKind
from bridge.errors import Rejected
from bridge.evidence import Evidence, EvidenceReason, L1BlockFact, MerkleProof, Opening, check_inclusion
from bridge.ledger import LedgerView
from bridge.state import LedgerReason
from pegnode.mempool.evidence_pool import EvidencePool, EvidencePoolLimits
from pegnode.net.messages import EvidenceMessage
from pegnode.net.transport import PeerRole
from tests.support.chain import MemoryChain
from tests.support.fake_l1 import FakeBlock, FakeL1
from tests.support.members import memory_federation
from tests.support.merkle import encode_proof, node_hash, partial_tree
from tests.support.mini_wallet import MiniWallet
from tests.support.verdicts import evidence_refusal

ALICE = MiniWallet("alice")
BOB = MiniWallet("bob")
MALLORY = MiniWallet("mallory")
OPENING = Opening(0, CoinKind.DEPOSIT, 0, MALLORY.script())


@pytest.fixture
def chain() -> MemoryChain:
    return MemoryChain()


def pool_refusal(chain: MemoryChain, evidence: Evidence) -> object:
    """Why the pool does not let the evidence wait, when its L1 block is known."""
    fact = chain.l1.fact(evidence.l1_block_hash)
    assert fact is not None
    with pytest.raises(Rejected) as caught:
        EvidencePool(EvidencePoolLimits()).add(evidence, fact, chain.state, chain.rules, 0)
    return caught.value.reason


def mine_root(l1: FakeL1, root: bytes, *transactions: Transaction) -> FakeBlock:
    """An L1 block that says it has these transactions, under a header with this root."""
    height = len(l1.blocks)
    header = (4).to_bytes(4, "little") + l1.blocks[-1].hash + root + bytes(4) + b"\xff\xff\x7f\x20" + bytes(4)
    block = FakeBlock(height, header, transactions)
    l1.blocks.append(block)
    return block


def deeper_tree(l1: FakeL1, payment: Transaction) -> Evidence:
    """Evidence of a payment that nobody made: a block's second transaction is the 64 bytes of two hashes, one its txid.

    Source: Lerner, "Leaf-Node Weakness in Bitcoin Merkle Tree Design", 2018.
    """
    coinbase = l1.blocks[1].transactions[0]
    small = payment.txid + bytes(32)
    root = node_hash([coinbase.txid, sha256d(small)], 1, 0)
    block = mine_root(l1, root, coinbase, coinbase)
    proof = encode_proof(block.header, 3, [coinbase.txid, payment.txid, bytes(32)], [True, False, True, True, False])
    return Evidence(payment.serialize(), proof, block.height, (OPENING,))


def test_payment_below_a_transaction_of_64_bytes_is_refused(chain: MemoryChain) -> None:
    """CVE-2017-12842: the proof goes one level deeper than the block's tree, to a leaf that nobody mined."""
    payment = chain.l1.payment(TxOut(50_000, chain.deposit_script(MALLORY.script())))
    evidence = deeper_tree(chain.l1, payment)
    chain.bury()
    assert evidence_refusal(chain, evidence) is EvidenceReason.PROOF_COUNT_MISMATCH
    assert pool_refusal(chain, evidence) is EvidenceReason.PROOF_COUNT_MISMATCH


def test_inner_node_told_as_a_transaction_is_refused(chain: MemoryChain) -> None:
    """CVE-2017-12842, the other way: 64 bytes of an inner node, told as a transaction one level above the leaves."""
    script = chain.deposit_script(MALLORY.script())
    block = chain.l1.mine(*(chain.l1.payment(TxOut(50_000, script)) for _ in range(3)))
    chain.bury()
    txids = [transaction.txid for transaction in block.transactions]
    pairs = [node_hash(txids, 1, position) for position in range(2)]
    proof = encode_proof(block.header, 2, *partial_tree(pairs, [1]))
    inner = Evidence(txids[2] + txids[3], proof, block.height, (OPENING,))
    assert decode_whole(proof, MerkleProof.read).walk() == (block.header[36:68], [sha256d(inner.transaction)])
    assert evidence_refusal(chain, inner) is EvidenceReason.TRANSACTION_SIZE_64
    assert pool_refusal(chain, inner) is EvidenceReason.TRANSACTION_SIZE_64


def test_leaf_that_the_tree_repeats_is_no_second_payment(chain: MemoryChain) -> None:
    """CVE-2012-2459: three leaves, and four of which the last two are equal, have one root."""
    script = chain.deposit_script(MALLORY.script())
    payment = chain.l1.payment(TxOut(50_000, script))
    block = chain.l1.mine(chain.l1.payment(TxOut(1, BOB.script())), payment)
    chain.bury()
    txids = [transaction.txid for transaction in block.transactions]
    doubled = [*txids, txids[-1]]
    assert node_hash(doubled, 2, 0) == block.header[36:68]
    again = encode_proof(block.header, 4, *partial_tree(doubled, [3]))
    evidence = Evidence(payment.serialize(), again, block.height, (OPENING,))
    assert evidence_refusal(chain, evidence) is EvidenceReason.PROOF_COUNT_MISMATCH
    with pytest.raises(Rejected) as caught:  # even should one's own node count four
        check_inclusion(evidence, L1BlockFact(block.height, 4))
    assert caught.value.reason is EvidenceReason.DUPLICATED_HASHES
    chain.extend(evidence=[chain.l1.evidence(payment, OPENING)])
    assert evidence_refusal(chain, chain.l1.evidence(payment, OPENING)) is EvidenceReason.ALREADY_ENTERED


def test_header_that_only_the_attacker_mined_is_refused(chain: MemoryChain) -> None:
    """A light client would look at its proof of work, and count those built on it; a member asks its own node."""
    payment = chain.l1.payment(TxOut(50_000, chain.deposit_script(MALLORY.script())))
    private = FakeL1(list(chain.l1.blocks))
    private.mine(payment)
    private.mine_empty(200)
    chain.l1.mine_empty(200)
    evidence = private.evidence(payment, OPENING)
    assert evidence_refusal(chain, evidence) is EvidenceReason.WRONG_BLOCK


def test_payment_that_a_reorganisation_moved_enters_once(chain: MemoryChain) -> None:
    """The block of the first proof is stale: only the one that the anchor's chain holds is evidence, and once."""
    payment = chain.l1.payment(TxOut(50_000, chain.deposit_script(MALLORY.script())))
    fork = FakeL1(list(chain.l1.blocks))
    fork.mine(payment)
    stale = fork.evidence(payment, OPENING)
    chain.l1.mine_empty(1)
    chain.l1.mine(payment)
    current = chain.l1.evidence(payment, OPENING)
    chain.bury()
    assert evidence_refusal(chain, stale) is EvidenceReason.WRONG_BLOCK
    chain.extend(evidence=[current])
    assert evidence_refusal(chain, stale) is EvidenceReason.WRONG_BLOCK
    assert evidence_refusal(chain, current) is EvidenceReason.ALREADY_ENTERED
    assert chain.state.ledger.totals.reserves_sats == 50_000


def test_deposit_is_credited_to_whom_it_commits_and_nobody_else(chain: MemoryChain) -> None:
    """Mallory sees Alice's deposit and opens it as her own, as a donation, as change, and of another epoch."""
    _, evidence = chain.pay_reserve(ALICE.script(), 50_000)
    chain.bury()
    for kind, claim_script in ((CoinKind.DEPOSIT, MALLORY.script()), (CoinKind.DONATION, b""), (CoinKind.CHANGE, b"")):
        stolen = replace(evidence, openings=(Opening(0, kind, 0, claim_script),))
        assert evidence_refusal(chain, stolen) is EvidenceReason.WRONG_SCRIPT
    chain.extend(evidence=[evidence])


def paid_out(chain: MemoryChain, l1_script: Script) -> Transaction:
    """A payout of three burns to `l1_script`, recorded in the newest block and mined on L1."""
    count = chain.rules.params.batch_min_payouts
    coins = chain.fund(*[ALICE.script()] * count, value_sats=1_000_000)
    burns = [chain.burn_output(990_000, l1_script, ALICE.script()) for _ in coins]
    chain.extend(*[ALICE.spend([coin], [burn]) for coin, burn in zip(coins, burns, strict=True)])
    [batch] = chain.extend().block.body.batches
    payout = Transaction.parse(batch.transaction)
    chain.l1.mine(payout)
    chain.bury()
    return payout


def equality(view: LedgerView) -> int:
    """What is in reserve beyond what is owed: never other than nothing."""
    totals = view.totals
    return totals.reserves_sats + totals.deficit_sats - totals.supply_sats - totals.unsettled_sats - totals.fund_sats


def test_change_of_a_payout_is_not_entered_as_a_donation(chain: MemoryChain) -> None:
    """Its change would count twice: as a donation, and again when the payout settles."""
    payout = paid_out(chain, BOB.script())
    change = len(payout.outputs) - 1
    opened = chain.l1.evidence(payout, Opening(change, CoinKind.CHANGE, 0, b""))
    assert evidence_refusal(chain, opened) is EvidenceReason.CHANGE_CLAIMED
    settlement = chain.l1.evidence(payout)
    chain.extend(evidence=[settlement])
    assert equality(chain.state.ledger) == 0
    assert evidence_refusal(chain, opened) is EvidenceReason.ALREADY_ENTERED
    assert evidence_refusal(chain, settlement) is LedgerReason.ALREADY_SETTLED


def test_payout_to_a_deposit_address_counts_once(chain: MemoryChain) -> None:
    """Alice withdraws to Bob's deposit address: it may be claimed, but not before the payout has left the books."""
    payout = paid_out(chain, chain.deposit_script(BOB.script()))
    opened = chain.l1.evidence(payout, Opening(0, CoinKind.DEPOSIT, 0, BOB.script()))
    assert evidence_refusal(chain, opened) is EvidenceReason.CHANGE_CLAIMED
    chain.extend(evidence=[chain.l1.evidence(payout)])
    reserves_sats = chain.state.ledger.totals.reserves_sats
    [claim] = chain.extend(evidence=[opened]).state.transactions
    assert claim.transaction.outputs[0].script == BOB.script()
    assert chain.state.ledger.totals.reserves_sats == reserves_sats + payout.outputs[0].value_sats
    assert equality(chain.state.ledger) == 0
    assert evidence_refusal(chain, opened) is EvidenceReason.ALREADY_ENTERED


def test_payout_that_never_was_recorded_settles_nothing(chain: MemoryChain) -> None:
    """A transaction that spends the reserve, of a quorum of stolen keys, is no settlement of anything."""
    payout = paid_out(chain, BOB.script())
    theft = replace(payout, outputs=(TxOut(2_000_000, MALLORY.script()),))
    chain.l1.mine(theft)
    chain.bury()
    assert evidence_refusal(chain, chain.l1.evidence(theft)) is EvidenceReason.NO_OPENINGS


async def test_forged_deposit_that_a_peer_tells_waits_for_no_block(autojump_clock: trio.abc.Clock) -> None:
    """CVE-2017-12842, told to a member that knows the block, before a true one: the true one alone enters.

    The peer stays: that the proof's count is wrong, only the member's own Bitcoin node says.
    """
    async with memory_federation(0, 2, 3) as federation:
        l1 = federation.l1.chain
        payment = l1.payment(TxOut(50_000, federation.deposit_script(MALLORY.script())))
        evidence = deeper_tree(l1, payment)
        true = federation.pay_deposit(MALLORY.script(), 1_000_000)
        true_evidence = l1.evidence(l1.blocks[-1].transactions[1], OPENING)
        federation.bury()
        await trio.sleep(2)
        liar = await federation.join(federation.peer_id(1), PeerRole.MEMBER)
        await federation.until(lambda: len(liar.transport.connected()) == 3)
        for told in (evidence, true_evidence):
            liar.say(federation.peer_id(0), EvidenceMessage((told.encode(),)))
        member = federation.members[0]
        await federation.until(lambda: true in member.store.ledger.entered)
        assert (len(member.core.evidence), member.dropped) == (0, [])
        assert payment.outpoint(0) not in member.store.ledger.entered
