"""Deposits claimed so late that the recovery keys can take them back before members move them.

Who holds `recovery_quorum` recovery keys would have both: the coins on the sidechain, and the deposit.
"""

import pytest

from bridge.bitcoin.transaction import Transaction, TxOut
from bridge.custody import CoinKind, reserve_script
from bridge.errors import Rejected
from bridge.evidence import Evidence, EvidenceReason, Opening
from pegnode.mempool.evidence_pool import EvidencePool, EvidencePoolLimits
from tests.attacks.test_lost_coins import deficit, deposited
from tests.support.chain import MemoryChain
from tests.support.mini_wallet import MiniWallet
from tests.support.records import carried_out
from tests.support.verdicts import evidence_refusal

MALLORY = MiniWallet("mallory")
LOCK_BLOCKS = 72
"""The shortest wait that a genesis may have."""


@pytest.fixture
def chain() -> MemoryChain:
    return MemoryChain(peg={"recovery_timelock_blocks": LOCK_BLOCKS})


def paid(chain: MemoryChain, kind: CoinKind, claim_script: bytes, value_sats: int) -> tuple[Transaction, Evidence]:
    """A payment to a reserve script in a new L1 block, and the evidence for it."""
    script = reserve_script(chain.rules.custody.newest, kind, claim_script).script
    payment = chain.l1.payment(TxOut(value_sats, script))
    chain.l1.mine(payment)
    return payment, chain.l1.evidence(payment, Opening(0, kind, 0, claim_script))


def let_pass(chain: MemoryChain, evidence: Evidence, age: int) -> None:
    """The next block's anchor is so many blocks above that of the evidence."""
    chain.l1.mine_empty(evidence.l1_height + age + chain.rules.params.confirmations - 1 - chain.l1.height)
    assert chain.deepest_anchor().height - evidence.l1_height == age


@pytest.mark.parametrize(
    ("kind", "claim_script", "value_sats"),
    [
        pytest.param(CoinKind.DEPOSIT, MALLORY.script(), 1_000_000, id="a deposit"),
        pytest.param(CoinKind.DEPOSIT, MALLORY.script(), 5_000, id="too small a deposit"),
        pytest.param(CoinKind.DONATION, b"", 1_000_000, id="a donation"),
        pytest.param(CoinKind.CHANGE, b"", 1_000_000, id="a payment to the change script"),
    ],
)
def test_output_past_half_of_the_recovery_keys_wait_is_not_taken_in(
    chain: MemoryChain, kind: CoinKind, claim_script: bytes, value_sats: int
) -> None:
    """A gift, too: taken back, it would halt the members, and the fund would be said to hold it for ever."""
    _, evidence = paid(chain, kind, claim_script, value_sats)
    let_pass(chain, evidence, LOCK_BLOCKS // 2 - 1)
    assert chain.build(evidence=[evidence]).block.body.evidence == (evidence,)
    let_pass(chain, evidence, LOCK_BLOCKS // 2)
    assert evidence_refusal(chain, evidence) is EvidenceReason.TOO_OLD
    built = chain.build(evidence=[evidence])
    assert built.block.body.evidence == ()
    assert [(item, refused.reason) for item, refused in built.rejected_evidence] == [(evidence, EvidenceReason.TOO_OLD)]


def test_deposits_claimed_as_late_as_can_be_are_all_moved_before_the_recovery_keys_can(chain: MemoryChain) -> None:
    """However many pieces one deposit comes in: more here than one batch takes at most of the free value."""
    script = chain.deposit_script(MALLORY.script())
    payment = chain.l1.payment(*[TxOut(1_000_000, script)] * 60)
    chain.l1.mine(payment)
    openings = [Opening(vout, CoinKind.DEPOSIT, 0, MALLORY.script()) for vout in range(60)]
    deposits = chain.l1.evidence(payment, *openings)
    let_pass(chain, deposits, LOCK_BLOCKS // 2 - 1)
    chain.extend(evidence=[deposits])
    chain.pass_anchors(1)
    settled: list[Evidence] = []
    batch_count = 0
    while any(outpoint.txid == payment.txid for outpoint, _ in chain.state.ledger.coins.items()):
        bodies = [chain.extend(evidence=settled).block.body, chain.extend().block.body]
        batches = [Transaction.parse(batch.transaction) for body in bodies for batch in body.batches]
        chain.l1.mine(*batches)
        settled = [chain.l1.evidence(batch) for batch in batches]
        batch_count += len(batches)
        assert chain.l1.height - deposits.l1_height + 1 < LOCK_BLOCKS
        chain.bury()
    assert batch_count > 1


def test_evidence_that_became_too_old_waits_no_longer(chain: MemoryChain) -> None:
    pool = EvidencePool(EvidencePoolLimits())
    payment, evidence = paid(chain, CoinKind.DEPOSIT, MALLORY.script(), 1_000_000)

    def add() -> None:
        fact = chain.l1.fact(evidence.l1_block_hash)
        assert fact is not None
        pool.add(evidence, fact, chain.state, chain.rules, 0)

    def chosen(age: int) -> list[Evidence]:
        return pool.select(chain.state.ledger, evidence.l1_height + age, chain.rules.params)

    add()
    assert chosen(LOCK_BLOCKS // 2 - 1) == [evidence]
    assert chosen(LOCK_BLOCKS // 2) == []
    let_pass(chain, evidence, LOCK_BLOCKS // 2 - 1)
    chain.extend()
    assert pool.recheck(chain.state, chain.rules) == []
    chain.l1.mine_empty(1)
    chain.extend()
    assert pool.recheck(chain.state, chain.rules) == [payment.txid]
    with pytest.raises(Rejected) as caught:
        add()
    assert caught.value.reason is EvidenceReason.TOO_OLD


def test_lost_coin_returns_at_any_age(chain: MemoryChain) -> None:
    """It is owed since it was first credited, to whomever; nobody is credited again."""
    outpoint, evidence = deposited(chain)
    carried_out(chain, deficit(chain, outpoint))
    assert chain.state.ledger.totals.deficit_sats > 0
    chain.pass_anchors(2 * LOCK_BLOCKS)
    supply_sats = chain.state.ledger.totals.supply_sats
    chain.extend(evidence=[evidence])
    totals = chain.state.ledger.totals
    assert (totals.deficit_sats, totals.supply_sats) == (0, supply_sats)
