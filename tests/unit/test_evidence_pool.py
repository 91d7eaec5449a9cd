"""The pool of evidence: what it refuses, and how it merges."""

from dataclasses import replace

import pytest

from bridge.bitcoin.identifiers import Txid
from bridge.bitcoin.transaction import TxOut
from bridge.custody import CoinKind, reserve_script
from bridge.deposits import apply_evidence
from bridge.evidence import Evidence, EvidenceReason, Opening
from bridge.ledger import Ledger
from bridge.losses import book_losses, restore_coin
from bridge.records import Deficit, LostCoin
from pegnode.mempool import evidence_pool
from pegnode.mempool.evidence_pool import EvidencePoolLimits, EvidencePoolReason
from tests.support.evidence_world import ALICE, BOB, NOW_MS, EvidenceWorld, part


@pytest.fixture
def world() -> EvidenceWorld:
    return EvidenceWorld()


def test_evidence_waits_under_the_id_of_its_l1_transaction(world: EvidenceWorld) -> None:
    payment, evidence = world.chain.pay_reserve(ALICE.script(), 50_000)
    assert world.add(evidence) == payment.txid
    assert payment.txid in world.pool
    assert world.pool.get(payment.txid) == evidence
    assert world.pool.get(Txid(bytes(32))) is None
    assert (len(world.pool), world.pool.size_bytes) == (1, len(evidence.encode()))


def test_evidence_above_the_anchor_waits_until_it_is_below(world: EvidenceWorld) -> None:
    _, evidence = world.chain.pay_reserve(ALICE.script(), 50_000)
    assert evidence.l1_height > world.chain.header.anchor.height
    world.add(evidence)
    assert world.chosen(evidence.l1_height - 1) == []
    assert world.chosen(evidence.l1_height) == [evidence]
    world.chain.bury()
    world.chain.extend(evidence=world.chosen(world.chain.deepest_anchor().height))


def test_evidence_of_a_young_coinbase_waits(world: EvidenceWorld) -> None:
    script = reserve_script(world.chain.rules.custody.newest, CoinKind.DEPOSIT, ALICE.script()).script
    coinbase = replace(world.chain.l1.mine().transactions[0], outputs=(TxOut(50_000, script),))
    world.chain.l1.mine_exactly(coinbase)
    evidence = world.chain.l1.evidence(coinbase, Opening(0, CoinKind.DEPOSIT, 0, ALICE.script()))
    world.add(evidence)
    world.chain.bury()
    built = world.chain.build(evidence=[evidence])
    assert (built.block.body.evidence, built.rejected_evidence) == ((), [])


def test_evidence_that_a_block_could_not_hold_is_refused(world: EvidenceWorld) -> None:
    _, evidence = world.chain.pay_reserve(ALICE.script(), 50_000)
    foreign = replace(evidence, openings=(Opening(0, CoinKind.DEPOSIT, 0, BOB.script()),))
    assert world.refused(foreign) is EvidenceReason.WRONG_SCRIPT
    assert world.refused(part(evidence)) is EvidenceReason.NO_OPENINGS
    assert world.refused(replace(evidence, l1_height=3)) is EvidenceReason.WRONG_HEIGHT
    _, small = world.chain.pay_reserve(ALICE.script(), 999)
    assert world.refused(small) is EvidenceReason.BELOW_FLOOR


def test_evidence_of_what_has_entered_is_refused(world: EvidenceWorld) -> None:
    _, evidence = world.chain.pay_reserve(ALICE.script(), 50_000)
    world.chain.bury()
    world.chain.extend(evidence=[evidence])
    assert world.refused(evidence) is EvidenceReason.ALREADY_ENTERED


def test_evidence_that_waits_already_is_refused(world: EvidenceWorld) -> None:
    _, evidence = world.two_deposits()
    world.add(evidence)
    assert world.refused(evidence) is EvidencePoolReason.ALREADY_WAITING
    assert world.refused(part(evidence, 1)) is EvidencePoolReason.ALREADY_WAITING


def test_evidence_is_refused_when_the_count_is_full() -> None:
    world = EvidenceWorld(EvidencePoolLimits(max_count=1))
    world.add(world.chain.pay_reserve(ALICE.script(), 50_000)[1])
    assert world.refused(world.chain.pay_reserve(ALICE.script(), 50_000)[1]) is EvidencePoolReason.FULL


def test_evidence_is_refused_when_the_bytes_are_full() -> None:
    size_bytes = len(EvidenceWorld().chain.pay_reserve(ALICE.script(), 50_000)[1].encode())
    for missing_bytes, full in ((1, True), (0, False)):
        world = EvidenceWorld(EvidencePoolLimits(max_bytes=2 * size_bytes - missing_bytes))
        world.add(world.chain.pay_reserve(ALICE.script(), 50_000)[1])
        second = world.chain.pay_reserve(ALICE.script(), 50_000)[1]
        if full:
            assert world.refused(second) is EvidencePoolReason.FULL
        else:
            world.add(second)


def test_full_pool_still_takes_what_settles_a_payout() -> None:
    """Deposits that wait until coins leave must not keep coins from leaving."""
    world = EvidenceWorld(EvidencePoolLimits(max_count=1))
    settlement = world.settlement()
    deposit = world.chain.pay_reserve(ALICE.script(), 50_000)[1]
    world.add(deposit)
    world.add(settlement)
    assert settlement in world.chosen()
    assert world.refused(world.chain.pay_reserve(ALICE.script(), 50_000)[1]) is EvidencePoolReason.FULL


def test_full_pool_still_merges_what_fits() -> None:
    world = EvidenceWorld(EvidencePoolLimits(max_count=1))
    _, evidence = world.two_deposits()
    world.add(part(evidence, 0))
    world.add(part(evidence, 1))
    assert world.chosen() == [evidence]


def test_evidence_of_more_bytes_than_a_block_may_hold_is_refused() -> None:
    world = EvidenceWorld()
    _, evidence = world.two_deposits()
    rules, size_bytes = world.chain.rules, len(evidence.encode())
    world.chain.rules = replace(rules, params=replace(rules.params, max_evidence_bytes=size_bytes - 1))
    assert world.refused(evidence) is EvidencePoolReason.TOO_LARGE
    world.chain.rules = replace(rules, params=replace(rules.params, max_evidence_bytes=size_bytes))
    world.add(evidence)


def test_piece_with_more_openings_than_a_block_may_hold_is_refused() -> None:
    world = EvidenceWorld(max_openings=1)
    _, evidence = world.two_deposits()
    assert world.refused(evidence) is EvidencePoolReason.TOO_LARGE


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_openings_of_one_transaction_are_merged_in_order(world: EvidenceWorld, order: tuple[int, int]) -> None:
    payment, evidence = world.two_deposits()
    for vout in order:
        world.add(part(evidence, vout))
    assert world.pool.get(payment.txid) == evidence
    assert (len(world.pool), world.pool.size_bytes) == (1, len(evidence.encode()))
    world.chain.bury()
    built = world.chain.extend(evidence=world.chosen())
    assert len(built.state.transactions) == 2


def test_bad_opening_does_not_spoil_what_waits(world: EvidenceWorld) -> None:
    payment, evidence = world.two_deposits()
    world.add(part(evidence, 0))
    bad = replace(evidence, openings=(Opening(1, CoinKind.DEPOSIT, 0, ALICE.script()),))
    assert world.refused(bad) is EvidenceReason.WRONG_SCRIPT
    assert world.pool.get(payment.txid) == part(evidence, 0)


def test_newer_proof_replaces_the_one_of_a_block_that_l1_gave_up(world: EvidenceWorld) -> None:
    payment, stale = world.chain.pay_reserve(ALICE.script(), 50_000)
    world.add(stale)
    world.chain.l1.blocks.pop()
    world.chain.l1.mine()
    world.chain.l1.mine(payment)
    fresh = world.chain.l1.evidence(payment, *stale.openings)
    world.add(fresh, NOW_MS + 5)
    assert world.chosen() == [fresh]
    assert world.pool.size_bytes == len(fresh.encode())


def test_evidence_of_a_lost_coin_waits_until_it_is_restored(world: EvidenceWorld) -> None:
    payment, evidence = world.chain.pay_reserve(ALICE.script(), 50_000)
    world.chain.bury()
    world.chain.extend(evidence=[evidence])
    ledger = world.chain.state.ledger
    assert isinstance(ledger, Ledger)
    assert world.refused(evidence) is EvidenceReason.ALREADY_ENTERED
    book_losses(ledger, Deficit.of((LostCoin(payment.outpoint(0), 50_000),)))
    world.add(evidence)
    assert world.chosen() == [evidence]
    assert world.pool.recheck(world.chain.state, world.chain.rules) == []
    restore_coin(ledger, payment.outpoint(0), evidence.l1_height)
    assert world.chosen() == []
    assert world.pool.recheck(world.chain.state, world.chain.rules) == [payment.txid]


def test_settlement_is_not_merged_with_openings(world: EvidenceWorld) -> None:
    evidence = world.settlement()
    world.add(evidence)
    opened = replace(evidence, openings=(Opening(0, CoinKind.DEPOSIT, 0, ALICE.script()),))
    assert world.refused(opened) is EvidenceReason.CHANGE_CLAIMED
    assert world.chosen() == [evidence]


# What is given out and forgotten


def test_refused_openings_leave_the_others(world: EvidenceWorld) -> None:
    payment, evidence = world.two_deposits()
    world.add(evidence)
    world.pool.refuse_openings({payment.outpoint(0)}, NOW_MS)
    assert world.chosen() == [part(evidence, 1)]
    world.pool.refuse_openings({payment.outpoint(1)}, NOW_MS)
    assert (len(world.pool), world.pool.size_bytes) == (0, 0)


def test_opening_of_a_spent_output_is_refused_for_a_while(
    world: EvidenceWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    payment, evidence = world.two_deposits()
    world.pool.refuse_openings({payment.outpoint(0)}, NOW_MS)
    assert world.refused(evidence) is EvidencePoolReason.SPENT
    world.add(part(evidence, 1))
    world.add(evidence, NOW_MS + evidence_pool.REFUSED_MS)
    monkeypatch.setattr(evidence_pool, "MAX_REFUSED", 1)
    world.pool.refuse_openings({payment.outpoint(0)}, NOW_MS)
    world.pool.refuse_openings({payment.outpoint(1)}, NOW_MS)
    world.add(part(evidence, 0))
    assert world.refused(part(evidence, 1)) is EvidencePoolReason.SPENT


def test_pieces_of_one_large_transaction_are_each_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    world = EvidenceWorld()
    _, evidence = world.two_deposits()
    checked: list[int] = []

    def counting(ledger: Ledger, piece: Evidence, *others: object) -> object:
        checked.append(len(piece.openings))
        return apply_evidence(ledger, piece, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(evidence_pool, "apply_evidence", counting)
    world.add(part(evidence, 0))
    world.add(evidence)
    assert checked == [1, 1]
