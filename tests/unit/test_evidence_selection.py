"""The pool of evidence: what it gives to a block, and what it forgets when."""

from dataclasses import replace

import pytest

from bridge.bitcoin.transaction import TxOut
from bridge.custody import CoinKind, reserve_script
from bridge.evidence import Opening
from bridge.state import LedgerReason
from pegnode.mempool.evidence_pool import EvidencePoolLimits
from tests.support.evidence_world import ALICE, NOW_MS, EvidenceWorld, part


@pytest.fixture
def world() -> EvidenceWorld:
    return EvidenceWorld()


def test_openings_that_one_block_has_no_room_for_wait_for_the_next() -> None:
    world = EvidenceWorld(max_openings=1)
    payment, evidence = world.two_deposits()
    for vout in (1, 0):
        world.add(part(evidence, vout))
    assert world.pool.get(payment.txid) == evidence
    assert world.pool.positions() == {payment.outpoint(0): 0, payment.outpoint(1): 1}
    world.chain.bury()
    for vout in (0, 1):
        assert world.chosen() == [part(evidence, vout)]
        world.chain.extend(evidence=world.chosen())
    assert world.pool.recheck(world.chain.state, world.chain.rules) == [payment.txid]


# Merging


def test_select_gives_the_lowest_that_fit(world: EvidenceWorld) -> None:
    pieces = [world.chain.pay_reserve(ALICE.script(), 50_000)[1] for _ in range(3)]
    for evidence in reversed(pieces):
        world.add(evidence)
    sizes = [len(evidence.encode()) for evidence in pieces]
    assert world.chosen() == pieces
    assert world.chosen(max_evidence_bytes=sizes[0] + sizes[1]) == pieces[:2]
    assert world.chosen(max_evidence_bytes=sizes[0] + sizes[1] - 1) == pieces[:1]
    assert world.chosen(max_openings=2) == pieces[:2]


def test_select_divides_the_openings_of_one_transaction(world: EvidenceWorld) -> None:
    _, evidence = world.two_deposits()
    world.add(evidence)
    whole, half = len(evidence.encode()), len(part(evidence, 0).encode())
    assert world.chosen(max_evidence_bytes=whole) == [evidence]
    assert world.chosen(max_evidence_bytes=whole - 1) == [part(evidence, 0)]
    assert world.chosen(max_evidence_bytes=half) == [part(evidence, 0)]
    assert world.chosen(max_evidence_bytes=half - 1) == []


def test_select_passes_over_what_an_unfinal_parent_has_entered(world: EvidenceWorld) -> None:
    _, evidence = world.two_deposits()
    world.add(evidence)
    world.chain.bury()
    built = world.chain.build(evidence=[part(evidence, 0)])
    anchor = built.block.header.anchor
    chosen = world.pool.select(built.state.ledger, anchor.height, world.chain.rules.params)
    assert chosen == [part(evidence, 1)]


def test_select_leaves_out_what_the_peg_has_no_room_for(world: EvidenceWorld) -> None:
    large = world.chain.pay_reserve(ALICE.script(), 900_000)[1]
    small = world.chain.pay_reserve(ALICE.script(), 50_000)[1]
    for evidence in (large, small):
        world.add(evidence)
    assert world.chosen(max_peg_sats=950_000) == [large, small]
    assert world.chosen(max_peg_sats=949_999) == [large]
    assert world.chosen(max_peg_sats=899_999) == [small]


def test_young_coinbase_keeps_nothing_else_waiting(world: EvidenceWorld) -> None:
    script = reserve_script(world.chain.rules.custody.newest, CoinKind.DEPOSIT, ALICE.script()).script
    coinbase = replace(world.chain.l1.mine().transactions[0], outputs=(TxOut(50_000, script),))
    world.chain.l1.mine_exactly(coinbase)
    young = world.chain.l1.evidence(coinbase, Opening(0, CoinKind.DEPOSIT, 0, ALICE.script()))
    other = world.chain.pay_reserve(ALICE.script(), 50_000)[1]
    for evidence in (young, other):
        world.add(evidence)
    params = world.chain.rules.params
    mature = young.l1_height + params.coinbase_confirmations - params.confirmations
    assert world.chosen(mature - 1, max_openings=1) == [other]
    assert world.chosen(mature, max_openings=1) == [young]


def test_recheck_forgets_what_has_entered(world: EvidenceWorld) -> None:
    payment, evidence = world.chain.pay_reserve(ALICE.script(), 50_000)
    _, later = world.chain.pay_reserve(ALICE.script(), 50_000)
    world.add(evidence)
    world.add(later)
    assert world.pool.recheck(world.chain.state, world.chain.rules) == []
    world.chain.bury()
    world.chain.extend(evidence=[evidence])
    assert world.pool.recheck(world.chain.state, world.chain.rules) == [payment.txid]
    assert world.chosen() == [later]
    assert world.pool.size_bytes == len(later.encode())


def test_recheck_keeps_the_openings_that_have_not_entered(world: EvidenceWorld) -> None:
    _, evidence = world.two_deposits()
    world.add(evidence)
    world.chain.bury()
    world.chain.extend(evidence=[part(evidence, 0)])
    assert world.pool.recheck(world.chain.state, world.chain.rules) == []
    assert world.chosen() == [part(evidence, 1)]
    assert world.pool.size_bytes == len(part(evidence, 1).encode())
    world.chain.extend(evidence=world.chosen())


def test_recheck_forgets_a_settlement_once_it_is_settled(world: EvidenceWorld) -> None:
    evidence = world.settlement()
    txid = world.add(evidence)
    assert world.pool.recheck(world.chain.state, world.chain.rules) == []
    world.chain.extend(evidence=world.chosen())
    assert world.pool.recheck(world.chain.state, world.chain.rules) == [txid]
    assert world.refused(evidence) is LedgerReason.ALREADY_SETTLED


def test_expired_evidence_is_forgotten_by_the_time_of_its_first_piece() -> None:
    world = EvidenceWorld(EvidencePoolLimits(expiry_ms=1_000))
    payment, evidence = world.two_deposits()
    world.add(part(evidence, 0), NOW_MS)
    world.add(part(evidence, 1), NOW_MS + 900)
    _, other = world.chain.pay_reserve(ALICE.script(), 50_000)
    world.add(other, NOW_MS + 900)
    assert world.pool.expire(NOW_MS + 1_000) == []
    assert world.pool.expire(NOW_MS + 1_001) == [payment.txid]
    assert world.chosen() == [other]


def test_dropped_evidence_is_forgotten(world: EvidenceWorld) -> None:
    payment, evidence = world.chain.pay_reserve(ALICE.script(), 50_000)
    world.add(evidence)
    world.pool.drop([payment.txid, payment.txid])
    assert (len(world.pool), world.pool.size_bytes) == (0, 0)
