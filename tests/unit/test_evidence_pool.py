"""The pool of evidence: what it refuses, how it merges, and what it forgets when."""

from dataclasses import replace

import pytest

from bridge.bitcoin.identifiers import Txid
from bridge.bitcoin.transaction import Transaction, TxOut
from bridge.custody import CoinKind, reserve_script
from bridge.deposits import apply_evidence
from bridge.errors import Reason, Rejected
from bridge.evidence import Evidence, EvidenceReason, L1BlockFact, Opening
from bridge.ledger import Ledger
from bridge.losses import book_losses, restore_coin
from bridge.records import Deficit, LostCoin
from bridge.state import LedgerReason
from pegnode.mempool import evidence_pool
from pegnode.mempool.evidence_pool import EvidencePool, EvidencePoolLimits, EvidencePoolReason
from tests.support.chain import MemoryChain
from tests.support.mini_wallet import MiniWallet

ALICE = MiniWallet("alice")
BOB = MiniWallet("bob")
NOW_MS = 1_000_000


class World:
    """A chain, and a pool beside it."""

    def __init__(self, limits: EvidencePoolLimits | None = None, **peg: int) -> None:
        self.chain = MemoryChain(peg=peg)
        self.pool = EvidencePool(limits or EvidencePoolLimits())

    def add(self, evidence: Evidence, now_ms: int = NOW_MS) -> Txid:
        fact = self.chain.l1.fact(evidence.l1_block_hash) or L1BlockFact(evidence.l1_height, 1)
        return self.pool.add(evidence, fact, self.chain.state, self.chain.rules, now_ms)

    def refused(self, evidence: Evidence) -> Reason:
        """Why the pool does not take it; the pool stays as it is."""
        before = (self.chosen(), len(self.pool), self.pool.size_bytes)
        with pytest.raises(Rejected) as caught:
            self.add(evidence)
        assert (self.chosen(), len(self.pool), self.pool.size_bytes) == before
        return caught.value.reason

    def chosen(self, anchor_height: int = 10**6, **caps: int) -> list[Evidence]:
        """What the next block would get, if the caps were these."""
        params = replace(self.chain.rules.params, **caps)
        return self.pool.select(self.chain.state.ledger, anchor_height, params)

    def two_deposits(self) -> tuple[Transaction, Evidence]:
        """One L1 transaction that pays two deposit addresses, and evidence of both."""
        policy = self.chain.rules.custody.newest
        scripts = [reserve_script(policy, CoinKind.DEPOSIT, who.script()).script for who in (ALICE, BOB)]
        payment = self.chain.l1.payment(*[TxOut(50_000, script) for script in scripts])
        self.chain.l1.mine(payment)
        openings = [Opening(vout, CoinKind.DEPOSIT, 0, who.script()) for vout, who in enumerate((ALICE, BOB))]
        return payment, self.chain.l1.evidence(payment, *openings)

    def settlement(self) -> Evidence:
        """Evidence of a recorded payout, confirmed on L1 but not yet settled."""
        coins = self.chain.fund(*[ALICE.script()] * self.chain.rules.params.batch_min_payouts)
        burn = self.chain.burn_output(900_000, BOB.script(), ALICE.script())
        self.chain.extend(*[ALICE.spend([coin], [burn]) for coin in coins])
        [batch] = self.chain.extend().block.body.batches
        payout = Transaction.parse(batch.transaction)
        self.chain.l1.mine(payout)
        evidence = self.chain.l1.evidence(payout)
        self.chain.bury()
        return evidence


@pytest.fixture
def world() -> World:
    return World()


def part(evidence: Evidence, *vouts: int) -> Evidence:
    """The same with only these openings."""
    return replace(evidence, openings=tuple(item for item in evidence.openings if item.vout in vouts))


def test_evidence_waits_under_the_id_of_its_l1_transaction(world: World) -> None:
    payment, evidence = world.chain.pay_reserve(ALICE.script(), 50_000)
    assert world.add(evidence) == payment.txid
    assert payment.txid in world.pool
    assert world.pool.get(payment.txid) == evidence
    assert world.pool.get(Txid(bytes(32))) is None
    assert (len(world.pool), world.pool.size_bytes) == (1, len(evidence.encode()))


def test_evidence_above_the_anchor_waits_until_it_is_below(world: World) -> None:
    _, evidence = world.chain.pay_reserve(ALICE.script(), 50_000)
    assert evidence.l1_height > world.chain.header.anchor.height
    world.add(evidence)
    assert world.chosen(evidence.l1_height - 1) == []
    assert world.chosen(evidence.l1_height) == [evidence]
    world.chain.bury()
    world.chain.extend(evidence=world.chosen(world.chain.deepest_anchor().height))


def test_evidence_of_a_young_coinbase_waits(world: World) -> None:
    script = reserve_script(world.chain.rules.custody.newest, CoinKind.DEPOSIT, ALICE.script()).script
    coinbase = replace(world.chain.l1.mine().transactions[0], outputs=(TxOut(50_000, script),))
    world.chain.l1.mine_exactly(coinbase)
    evidence = world.chain.l1.evidence(coinbase, Opening(0, CoinKind.DEPOSIT, 0, ALICE.script()))
    world.add(evidence)
    world.chain.bury()
    built = world.chain.build(evidence=[evidence])
    assert (built.block.body.evidence, built.rejected_evidence) == ((), [])


def test_evidence_that_a_block_could_not_hold_is_refused(world: World) -> None:
    _, evidence = world.chain.pay_reserve(ALICE.script(), 50_000)
    foreign = replace(evidence, openings=(Opening(0, CoinKind.DEPOSIT, 0, BOB.script()),))
    assert world.refused(foreign) is EvidenceReason.WRONG_SCRIPT
    assert world.refused(part(evidence)) is EvidenceReason.NO_OPENINGS
    assert world.refused(replace(evidence, l1_height=3)) is EvidenceReason.WRONG_HEIGHT
    _, small = world.chain.pay_reserve(ALICE.script(), 999)
    assert world.refused(small) is EvidenceReason.BELOW_FLOOR


def test_evidence_of_what_has_entered_is_refused(world: World) -> None:
    _, evidence = world.chain.pay_reserve(ALICE.script(), 50_000)
    world.chain.bury()
    world.chain.extend(evidence=[evidence])
    assert world.refused(evidence) is EvidenceReason.ALREADY_ENTERED


def test_evidence_that_waits_already_is_refused(world: World) -> None:
    _, evidence = world.two_deposits()
    world.add(evidence)
    assert world.refused(evidence) is EvidencePoolReason.ALREADY_WAITING
    assert world.refused(part(evidence, 1)) is EvidencePoolReason.ALREADY_WAITING


def test_evidence_is_refused_when_the_count_is_full() -> None:
    world = World(EvidencePoolLimits(max_count=1))
    world.add(world.chain.pay_reserve(ALICE.script(), 50_000)[1])
    assert world.refused(world.chain.pay_reserve(ALICE.script(), 50_000)[1]) is EvidencePoolReason.FULL


def test_evidence_is_refused_when_the_bytes_are_full() -> None:
    size_bytes = len(World().chain.pay_reserve(ALICE.script(), 50_000)[1].encode())
    for missing_bytes, full in ((1, True), (0, False)):
        world = World(EvidencePoolLimits(max_bytes=2 * size_bytes - missing_bytes))
        world.add(world.chain.pay_reserve(ALICE.script(), 50_000)[1])
        second = world.chain.pay_reserve(ALICE.script(), 50_000)[1]
        if full:
            assert world.refused(second) is EvidencePoolReason.FULL
        else:
            world.add(second)


def test_full_pool_still_takes_what_settles_a_payout() -> None:
    """Deposits that wait until coins leave must not keep coins from leaving."""
    world = World(EvidencePoolLimits(max_count=1))
    settlement = world.settlement()
    deposit = world.chain.pay_reserve(ALICE.script(), 50_000)[1]
    world.add(deposit)
    world.add(settlement)
    assert settlement in world.chosen()
    assert world.refused(world.chain.pay_reserve(ALICE.script(), 50_000)[1]) is EvidencePoolReason.FULL


def test_full_pool_still_merges_what_fits() -> None:
    world = World(EvidencePoolLimits(max_count=1))
    _, evidence = world.two_deposits()
    world.add(part(evidence, 0))
    world.add(part(evidence, 1))
    assert world.chosen() == [evidence]


def test_evidence_of_more_bytes_than_a_block_may_hold_is_refused() -> None:
    world = World()
    _, evidence = world.two_deposits()
    rules, size_bytes = world.chain.rules, len(evidence.encode())
    world.chain.rules = replace(rules, params=replace(rules.params, max_evidence_bytes=size_bytes - 1))
    assert world.refused(evidence) is EvidencePoolReason.TOO_LARGE
    world.chain.rules = replace(rules, params=replace(rules.params, max_evidence_bytes=size_bytes))
    world.add(evidence)


def test_piece_with_more_openings_than_a_block_may_hold_is_refused() -> None:
    world = World(max_openings=1)
    _, evidence = world.two_deposits()
    assert world.refused(evidence) is EvidencePoolReason.TOO_LARGE


def test_openings_that_one_block_has_no_room_for_wait_for_the_next() -> None:
    world = World(max_openings=1)
    payment, evidence = world.two_deposits()
    for vout in (1, 0):
        world.add(part(evidence, vout))
    assert world.pool.get(payment.txid) == evidence
    assert world.pool.positions() == {payment.outpoint(0): 0, payment.outpoint(1): 1}
    world.chain.bury()
    for vout in (0, 1):
        assert world.chosen() == [part(evidence, vout)]
        world.chain.extend(evidence=world.chosen())
    assert world.pool.recheck(world.chain.state) == [payment.txid]


# Merging


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_openings_of_one_transaction_are_merged_in_order(world: World, order: tuple[int, int]) -> None:
    payment, evidence = world.two_deposits()
    for vout in order:
        world.add(part(evidence, vout))
    assert world.pool.get(payment.txid) == evidence
    assert (len(world.pool), world.pool.size_bytes) == (1, len(evidence.encode()))
    world.chain.bury()
    built = world.chain.extend(evidence=world.chosen())
    assert len(built.state.transactions) == 2


def test_bad_opening_does_not_spoil_what_waits(world: World) -> None:
    payment, evidence = world.two_deposits()
    world.add(part(evidence, 0))
    bad = replace(evidence, openings=(Opening(1, CoinKind.DEPOSIT, 0, ALICE.script()),))
    assert world.refused(bad) is EvidenceReason.WRONG_SCRIPT
    assert world.pool.get(payment.txid) == part(evidence, 0)


def test_newer_proof_replaces_the_one_of_a_block_that_l1_gave_up(world: World) -> None:
    payment, stale = world.chain.pay_reserve(ALICE.script(), 50_000)
    world.add(stale)
    world.chain.l1.blocks.pop()
    world.chain.l1.mine()
    world.chain.l1.mine(payment)
    fresh = world.chain.l1.evidence(payment, *stale.openings)
    world.add(fresh, NOW_MS + 5)
    assert world.chosen() == [fresh]
    assert world.pool.size_bytes == len(fresh.encode())


def test_evidence_of_a_lost_coin_waits_until_it_is_restored(world: World) -> None:
    payment, evidence = world.chain.pay_reserve(ALICE.script(), 50_000)
    world.chain.bury()
    world.chain.extend(evidence=[evidence])
    ledger = world.chain.state.ledger
    assert isinstance(ledger, Ledger)
    assert world.refused(evidence) is EvidenceReason.ALREADY_ENTERED
    book_losses(ledger, Deficit.of((LostCoin(payment.outpoint(0), 50_000),)))
    world.add(evidence)
    assert world.chosen() == [evidence]
    assert world.pool.recheck(world.chain.state) == []
    restore_coin(ledger, payment.outpoint(0), evidence.l1_height)
    assert world.chosen() == []
    assert world.pool.recheck(world.chain.state) == [payment.txid]


def test_settlement_is_not_merged_with_openings(world: World) -> None:
    evidence = world.settlement()
    world.add(evidence)
    opened = replace(evidence, openings=(Opening(0, CoinKind.DEPOSIT, 0, ALICE.script()),))
    assert world.refused(opened) is EvidenceReason.CHANGE_CLAIMED
    assert world.chosen() == [evidence]


# What is given out and forgotten


def test_select_gives_the_lowest_that_fit(world: World) -> None:
    pieces = [world.chain.pay_reserve(ALICE.script(), 50_000)[1] for _ in range(3)]
    for evidence in reversed(pieces):
        world.add(evidence)
    sizes = [len(evidence.encode()) for evidence in pieces]
    assert world.chosen() == pieces
    assert world.chosen(max_evidence_bytes=sizes[0] + sizes[1]) == pieces[:2]
    assert world.chosen(max_evidence_bytes=sizes[0] + sizes[1] - 1) == pieces[:1]
    assert world.chosen(max_openings=2) == pieces[:2]


def test_select_divides_the_openings_of_one_transaction(world: World) -> None:
    _, evidence = world.two_deposits()
    world.add(evidence)
    whole, half = len(evidence.encode()), len(part(evidence, 0).encode())
    assert world.chosen(max_evidence_bytes=whole) == [evidence]
    assert world.chosen(max_evidence_bytes=whole - 1) == [part(evidence, 0)]
    assert world.chosen(max_evidence_bytes=half) == [part(evidence, 0)]
    assert world.chosen(max_evidence_bytes=half - 1) == []


def test_select_passes_over_what_an_unfinal_parent_has_entered(world: World) -> None:
    _, evidence = world.two_deposits()
    world.add(evidence)
    world.chain.bury()
    built = world.chain.build(evidence=[part(evidence, 0)])
    anchor = built.block.header.anchor
    chosen = world.pool.select(built.state.ledger, anchor.height, world.chain.rules.params)
    assert chosen == [part(evidence, 1)]


def test_select_leaves_out_what_the_peg_has_no_room_for(world: World) -> None:
    large = world.chain.pay_reserve(ALICE.script(), 900_000)[1]
    small = world.chain.pay_reserve(ALICE.script(), 50_000)[1]
    for evidence in (large, small):
        world.add(evidence)
    assert world.chosen(max_peg_sats=950_000) == [large, small]
    assert world.chosen(max_peg_sats=949_999) == [large]
    assert world.chosen(max_peg_sats=899_999) == [small]


def test_young_coinbase_keeps_nothing_else_waiting(world: World) -> None:
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


def test_refused_openings_leave_the_others(world: World) -> None:
    payment, evidence = world.two_deposits()
    world.add(evidence)
    world.pool.refuse_openings({payment.outpoint(0)}, NOW_MS)
    assert world.chosen() == [part(evidence, 1)]
    world.pool.refuse_openings({payment.outpoint(1)}, NOW_MS)
    assert (len(world.pool), world.pool.size_bytes) == (0, 0)


def test_opening_of_a_spent_output_is_refused_for_a_while(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
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
    world = World()
    _, evidence = world.two_deposits()
    checked: list[int] = []

    def counting(ledger: Ledger, piece: Evidence, *others: object) -> object:
        checked.append(len(piece.openings))
        return apply_evidence(ledger, piece, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(evidence_pool, "apply_evidence", counting)
    world.add(part(evidence, 0))
    world.add(evidence)
    assert checked == [1, 1]


def test_recheck_forgets_what_has_entered(world: World) -> None:
    payment, evidence = world.chain.pay_reserve(ALICE.script(), 50_000)
    _, later = world.chain.pay_reserve(ALICE.script(), 50_000)
    world.add(evidence)
    world.add(later)
    assert world.pool.recheck(world.chain.state) == []
    world.chain.bury()
    world.chain.extend(evidence=[evidence])
    assert world.pool.recheck(world.chain.state) == [payment.txid]
    assert world.chosen() == [later]
    assert world.pool.size_bytes == len(later.encode())


def test_recheck_keeps_the_openings_that_have_not_entered(world: World) -> None:
    _, evidence = world.two_deposits()
    world.add(evidence)
    world.chain.bury()
    world.chain.extend(evidence=[part(evidence, 0)])
    assert world.pool.recheck(world.chain.state) == []
    assert world.chosen() == [part(evidence, 1)]
    assert world.pool.size_bytes == len(part(evidence, 1).encode())
    world.chain.extend(evidence=world.chosen())


def test_recheck_forgets_a_settlement_once_it_is_settled(world: World) -> None:
    evidence = world.settlement()
    txid = world.add(evidence)
    assert world.pool.recheck(world.chain.state) == []
    world.chain.extend(evidence=world.chosen())
    assert world.pool.recheck(world.chain.state) == [txid]
    assert world.refused(evidence) is LedgerReason.ALREADY_SETTLED


def test_expired_evidence_is_forgotten_by_the_time_of_its_first_piece() -> None:
    world = World(EvidencePoolLimits(expiry_ms=1_000))
    payment, evidence = world.two_deposits()
    world.add(part(evidence, 0), NOW_MS)
    world.add(part(evidence, 1), NOW_MS + 900)
    _, other = world.chain.pay_reserve(ALICE.script(), 50_000)
    world.add(other, NOW_MS + 900)
    assert world.pool.expire(NOW_MS + 1_000) == []
    assert world.pool.expire(NOW_MS + 1_001) == [payment.txid]
    assert world.chosen() == [other]


def test_dropped_evidence_is_forgotten(world: World) -> None:
    payment, evidence = world.chain.pay_reserve(ALICE.script(), 50_000)
    world.add(evidence)
    world.pool.drop([payment.txid, payment.txid])
    assert (len(world.pool), world.pool.size_bytes) == (0, 0)
