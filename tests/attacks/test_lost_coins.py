"""Money out of what was lost: to be credited again, paid again, or refunded beside, once a record has booked a loss.

A deep reorg is the one moment at which the ledger gives back what it held for settled. Each story is carried out in
blocks, and in the end supply is counted output by output.
"""

from dataclasses import replace

import pytest

from bridge.bitcoin.identifiers import OutPoint
from bridge.bitcoin.transaction import Transaction
from bridge.custody import CoinKind
from bridge.errors import Reason
from bridge.evidence import Evidence, EvidenceReason, Opening
from bridge.records import Deficit, LostCoin, RecordReason
from bridge.state import LedgerReason, Lineage, WithdrawalStatus
from federation.endorsement import EndorsementReason
from federation.record import SignedRecord
from pegnode.chain.state import recount_supply
from pegnode.chain.verdicts import BodyReason
from tests.support.chain import MemoryChain
from tests.support.mini_wallet import MiniWallet
from tests.support.records import carried_out, record_of, sealed_record_block, signed
from tests.support.verdicts import evidence_refusal, refusal

MALLORY = MiniWallet("mallory")
BOB = MiniWallet("bob")
DEPOSIT_SATS = 1_000_000


@pytest.fixture
def chain() -> MemoryChain:
    return MemoryChain()


def book(chain: MemoryChain, *outpoints: OutPoint) -> SignedRecord:
    """A quorum has booked these coins as lost."""
    record = deficit(chain, *outpoints)
    carried_out(chain, record)
    return record


def deficit(chain: MemoryChain, *outpoints: OutPoint, signers: tuple[int, ...] = ()) -> SignedRecord:
    """The next record, which names these coins."""
    found = (chain.state.ledger.coins.get(outpoint) for outpoint in outpoints)
    lost = Deficit.of(LostCoin(coin.outpoint, coin.value_sats) for coin in found if coin is not None)
    return signed(record_of(chain.rules, lost, chain.state.ledger.totals.record_serial + 1), *signers)


def record_refusal(chain: MemoryChain, record: SignedRecord) -> Reason | None:
    """The rule that a record breaks in a block of it."""
    reason, cause = refusal(chain, sealed_record_block(chain, record))
    assert reason is BodyReason.BAD_RECORD
    return cause


def deposited(chain: MemoryChain) -> tuple[OutPoint, Evidence]:
    """Mallory's deposit, claimed."""
    payment, evidence = chain.pay_reserve(MALLORY.script(), DEPOSIT_SATS)
    chain.bury()
    chain.extend(evidence=[evidence])
    return payment.outpoint(0), evidence


def open_payout(chain: MemoryChain) -> tuple[Lineage, Transaction]:
    """A recorded payout of some burns of Mallory's, and its transaction."""
    count = chain.rules.params.batch_min_payouts
    coins = chain.fund(*[MALLORY.script()] * count, value_sats=DEPOSIT_SATS)
    burned = chain.burn_output(900_000, BOB.script(), MALLORY.script())
    chain.extend(*[MALLORY.spend([coin], [burned]) for coin in coins])
    assert chain.extend().block.body.batches
    [(_, lineage)] = chain.state.ledger.open_lineages.items()
    return lineage, Transaction.parse(lineage.versions[0].transaction)


def require_whole(chain: MemoryChain) -> None:
    """The equality holds, over a supply that is counted anew."""
    totals = chain.state.ledger.totals
    assert recount_supply(chain.state) == totals.supply_sats
    assert totals.reserves_sats == sum(coin.value_sats for _, coin in chain.state.ledger.coins.items())
    owed_sats = totals.supply_sats + totals.unsettled_sats + totals.fund_sats
    assert totals.reserves_sats + totals.deficit_sats == owed_sats


def test_deposit_that_was_lost_and_is_back_is_not_credited_again(chain: MemoryChain) -> None:
    """Whoever brings the coin back, and by whatever evidence, brings it to the reserve."""
    deposit, evidence = deposited(chain)
    supply_sats = recount_supply(chain.state)
    book(chain, deposit)
    require_whole(chain)
    assert chain.state.ledger.totals.deficit_sats == DEPOSIT_SATS
    chain.bury()
    restored = chain.extend(evidence=[evidence])
    assert restored.state.transactions == []
    assert recount_supply(chain.state) == supply_sats
    assert chain.state.ledger.totals.deficit_sats == 0
    require_whole(chain)
    assert evidence_refusal(chain, evidence) is EvidenceReason.ALREADY_ENTERED


def test_loss_is_booked_once_whoever_sends_the_record_again(chain: MemoryChain) -> None:
    deposit, evidence = deposited(chain)
    record = book(chain, deposit)
    assert record_refusal(chain, record) is RecordReason.WRONG_SERIAL
    chain.bury()
    chain.extend(evidence=[evidence])
    assert record_refusal(chain, record) is RecordReason.WRONG_SERIAL
    require_whole(chain)


def test_loss_that_less_than_a_quorum_tells_of_is_not_booked(chain: MemoryChain) -> None:
    """Else a deficit would free every coin that a payout locks, and have its payees paid twice."""
    lineage, _ = open_payout(chain)
    told = deficit(chain, lineage.inputs[0], signers=(0, 1))
    assert record_refusal(chain, told) is EndorsementReason.TOO_FEW


def test_payees_of_a_dead_payout_are_paid_by_one_other(chain: MemoryChain) -> None:
    lineage, dead = open_payout(chain)
    chain.fund(*[BOB.script()] * 3, value_sats=5 * DEPOSIT_SATS)
    book(chain, *lineage.inputs)
    require_whole(chain)
    [batch] = chain.extend().block.body.batches
    payout = Transaction.parse(batch.transaction)
    assert not {txin.outpoint for txin in payout.inputs} & {txin.outpoint for txin in dead.inputs}
    chain.l1.mine(payout)
    chain.bury()
    chain.extend(evidence=[chain.l1.evidence(payout)])
    closed = [chain.state.ledger.closed_withdrawals.get(burn) for burn in lineage.payees]
    assert [item.status for item in closed if item is not None] == [WithdrawalStatus.SETTLED] * len(lineage.payees)
    assert chain.state.ledger.totals.unsettled_sats == 0
    require_whole(chain)
    assert not chain.extend().block.body.batches


def test_dead_payout_that_is_mined_after_all_settles_nothing_and_mints_nothing(chain: MemoryChain) -> None:
    """Its payees wait for another payout; that it paid them is the price of the second reorg that brought it back."""
    lineage, dead = open_payout(chain)
    book(chain, *lineage.inputs)
    supply_sats = recount_supply(chain.state)
    chain.l1.mine(dead)
    chain.bury()
    chain.extend(slot=replace(chain.slot(), feerate_sat_kvb=None))
    assert evidence_refusal(chain, chain.l1.evidence(dead)) is LedgerReason.ALREADY_SETTLED
    change = len(lineage.payees)
    opened = chain.l1.evidence(dead, Opening(change, CoinKind.CHANGE, 0, b""))
    deficit_sats = chain.state.ledger.totals.deficit_sats
    chain.extend(evidence=[opened])
    change_sats = dead.outputs[change].value_sats
    assert chain.state.ledger.totals.deficit_sats == deficit_sats - change_sats
    assert recount_supply(chain.state) == supply_sats
    require_whole(chain)
    assert evidence_refusal(chain, opened) is EvidenceReason.ALREADY_ENTERED
