"""Records in blocks: what they do, in which company, and every reason for which one is refused."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from bridge.batch import Batch
from bridge.bitcoin.identifiers import OutPoint
from bridge.errors import Reason
from bridge.evidence import EvidenceReason
from bridge.records import Deficit, LostCoin, RecordReason
from bridge.state import Anchor, BatchKind, LedgerReason, WithdrawalStatus
from federation.endorsement import EndorsementReason
from federation.record import SignedRecord
from pegnode.chain.block import EMPTY_BODY, Block, Body
from pegnode.chain.builder import Candidates, build_block
from pegnode.chain.facts import NO_FACTS
from pegnode.chain.verdicts import BodyReason, HeaderReason
from tests.support.chain import L1_START, MemoryChain
from tests.support.fake_l1 import FakeBlock
from tests.support.mini_wallet import MiniWallet
from tests.support.records import carried_out, changed, rebase_of, record_of, resume, sealed_record_block, signed
from tests.support.verdicts import evidence_refusal, refusal, rejected

ALICE = MiniWallet("alice")
BOB = MiniWallet("bob")


@pytest.fixture
def chain() -> MemoryChain:
    return MemoryChain()


def deficit(chain: MemoryChain, *lost: LostCoin, serial: int = 1) -> SignedRecord:
    """A record of lost coins that a quorum signed."""
    return signed(record_of(chain.rules, Deficit.of(lost), serial))


def lost_coin(chain: MemoryChain) -> LostCoin:
    """A coin of the ledger."""
    coin = next(coin for _, coin in chain.state.ledger.coins.items())
    return LostCoin(coin.outpoint, coin.value_sats)


def reorganised(chain: MemoryChain, fork_height: int, rise: int = 1) -> tuple[SignedRecord, list[FakeBlock]]:
    """L1 leaves the chain's anchor; the record that moves to the new branch, and the old one, the fork before it.

    rise: by how much the anchor rises.
    """
    branch = chain.l1.reorganise(fork_height)
    chain.l1.mine_empty(len(branch) + chain.rules.params.confirmations + rise)
    anchor = chain.header.anchor
    branch = branch[: anchor.height - fork_height + 1]
    rebase = rebase_of(branch, chain.l1.anchor(anchor.height + rise))
    return resume(chain.rules, 1, rebase), branch


# What they do


def test_record_is_carried_out_and_its_serial_committed_to(chain: MemoryChain) -> None:
    records = (resume(chain.rules, 1), resume(chain.rules, 2))
    built = carried_out(chain, *records)
    assert built.state.records == list(records)
    assert chain.state.ledger.totals.record_serial == 2


def test_block_whose_ledger_root_passes_over_its_record_is_refused(chain: MemoryChain) -> None:
    assert rejected(chain, sealed_record_block(chain, resume(chain.rules))).reason is BodyReason.WRONG_LEDGER_ROOT


def test_transfers_stand_beside_a_record(chain: MemoryChain) -> None:
    [coin] = chain.fund(ALICE.script())
    slot, payment = chain.slot(include_l1=False), ALICE.pay(coin, BOB.script())
    candidates = Candidates(transactions=(payment,), records=(resume(chain.rules),))
    block = build_block(chain.state, slot, candidates, NO_FACTS, chain.rules).block
    assert (len(block.body.records), len(block.body.transactions)) == (1, 1)
    chain.apply(block)


def test_refunds_that_the_new_anchor_makes_due_stand_beside_a_rebase() -> None:
    chain = MemoryChain(peg={"withdrawal_expiry_anchors": 20, "max_anchor_step": 10})
    [coin] = chain.fund(ALICE.script(), value_sats=1_000_000)
    chain.extend(ALICE.spend([coin], [chain.burn_output(990_000, BOB.script(), ALICE.script(), max_fee_sats=0)]))
    chain.l1.mine_empty(10)
    chain.extend()
    record, _ = reorganised(chain, chain.header.anchor.height - 1, rise=10)
    parent = chain.state
    block = carried_out(chain, record).block
    assert len(block.body.refunds) == 1
    chain.state = parent
    bare = chain.reseal(Block(block.header, replace(block.body, refunds=())))
    assert rejected(chain, bare).reason is BodyReason.REFUND_MISSING


def test_deficit_takes_the_coin_and_its_batch_and_refunds_nobody_at_once(chain: MemoryChain) -> None:
    coins = chain.fund(*[ALICE.script()] * chain.rules.params.batch_min_payouts, value_sats=1_000_000)
    chain.extend(*[ALICE.spend([coin], [chain.burn_output(990_000, BOB.script(), ALICE.script())]) for coin in coins])
    assert chain.extend().block.body.batches
    [(_, lineage)] = chain.state.ledger.open_lineages.items()
    coin = chain.state.ledger.coins.get(lineage.inputs[0])
    assert coin is not None
    built = carried_out(chain, deficit(chain, LostCoin(coin.outpoint, coin.value_sats)))
    ledger = chain.state.ledger
    assert built.block.body.refunds == ()
    assert coin.outpoint not in ledger.coins
    assert ledger.totals.deficit_sats == coin.value_sats
    assert list(ledger.open_lineages.items()) == []
    assert {item.status for _, item in ledger.open_withdrawals.items()} == {WithdrawalStatus.PENDING}
    assert {item.burned_at_anchor for _, item in ledger.open_withdrawals.items()} == {chain.header.anchor.height}


# After a deep reorg


def test_rebase_moves_the_chain_to_the_branch_that_won(chain: MemoryChain) -> None:
    chain.bury()
    chain.extend()
    record, _ = reorganised(chain, L1_START)
    built = carried_out(chain, record)
    assert record.record.rebase is not None
    assert built.block.header.anchor == record.record.rebase.new_anchor
    _, evidence = chain.pay_reserve(ALICE.script(), 50_000)
    chain.bury()
    chain.extend(evidence=[evidence])


def test_nothing_new_is_anchored_to_or_evidenced_from_an_abandoned_branch(chain: MemoryChain) -> None:
    _, evidence = chain.pay_reserve(ALICE.script(), 50_000)
    chain.bury()
    chain.extend()
    record, branch = reorganised(chain, L1_START)
    carried_out(chain, record)
    assert evidence.l1_block_hash in {block.hash for block in branch}
    assert evidence_refusal(chain, evidence) is EvidenceReason.WRONG_BLOCK
    for block in branch:
        back = chain.reseal(chain.build().block, anchor=Anchor(block.height, block.hash))
        assert refusal(chain, back) == (HeaderReason.BAD_ANCHOR, LedgerReason.ANCHOR_BACKWARDS)
    assert record.record.rebase is not None
    beside = Anchor(record.record.rebase.new_anchor.height, branch[-1].hash)
    again = chain.reseal(chain.build().block, anchor=beside)
    assert refusal(chain, again) == (HeaderReason.BAD_ANCHOR, LedgerReason.ANCHOR_CHANGED)


def test_rebase_may_not_lead_further_than_an_anchor_may_rise(chain: MemoryChain) -> None:
    chain.bury()
    chain.extend()
    branch = chain.l1.reorganise(L1_START)[: chain.header.anchor.height - L1_START + 1]
    height = chain.header.anchor.height + chain.rules.params.max_anchor_step
    chain.l1.mine_empty(height + 10)
    far = resume(chain.rules, 1, rebase_of(branch, chain.l1.anchor(height + 1)))
    assert record_refusal(chain, far, anchor=chain.l1.anchor(height + 1)) == (
        HeaderReason.BAD_ANCHOR,
        LedgerReason.ANCHOR_STEP,
    )
    carried_out(chain, resume(chain.rules, 1, rebase_of(branch, chain.l1.anchor(height))))


def test_leader_gives_up_a_rebase_that_no_anchor_can_follow_and_builds_without(chain: MemoryChain) -> None:
    chain.bury()
    chain.extend()
    branch = chain.l1.reorganise(L1_START)[: chain.header.anchor.height - L1_START + 1]
    far = chain.header.anchor.height + chain.rules.params.max_anchor_step + 1
    chain.l1.mine_empty(far)
    record = resume(chain.rules, 1, rebase_of(branch, chain.l1.anchor(far)))
    slot = replace(chain.slot(), anchor=chain.l1.anchor(far))
    built = build_block(chain.state, slot, Candidates(records=(record,)), chain.l1.facts(slot.anchor), chain.rules)
    assert (built.block.body, built.block.header.anchor) == (EMPTY_BODY, chain.header.anchor)
    assert built.rejected_record is not None
    assert built.rejected_record[1].reason is LedgerReason.ANCHOR_STEP


def test_leader_keeps_evidence_and_batches_for_a_block_without_records(chain: MemoryChain) -> None:
    coins = chain.fund(*[ALICE.script()] * chain.rules.params.batch_min_payouts, value_sats=1_000_000)
    chain.extend(*[ALICE.spend([coin], [chain.burn_output(990_000, BOB.script(), ALICE.script())]) for coin in coins])
    _, evidence = chain.pay_reserve(ALICE.script(), 50_000)
    chain.bury()
    slot, record = chain.slot(), resume(chain.rules)
    facts = chain.l1.facts(slot.anchor, evidence)
    failing = changed(record, serial=7)
    for records, held in (((record,), (record,)), ((failing,), ()), ((record, failing), (record,))):
        built = build_block(chain.state, slot, Candidates([evidence], (), records), facts, chain.rules)
        assert built.block.body == Body(records=held)
        assert built.block.header.anchor == chain.header.anchor
        chain.apply(built.block)
    assert chain.extend(evidence=[evidence]).block.body.batches


def record_refusal(
    chain: MemoryChain, *records: SignedRecord, anchor: Anchor | None = None
) -> tuple[Reason, Reason | None]:
    """Why a block of these records is refused, and which rule one of them broke."""
    return refusal(chain, sealed_record_block(chain, *records, anchor=anchor))


def test_rebase_from_another_anchor_or_to_another_is_refused(chain: MemoryChain) -> None:
    chain.l1.mine_empty(10)
    chain.extend()
    record, branch = reorganised(chain, L1_START)
    new_anchor = chain.l1.anchor(chain.header.anchor.height + 1)
    shorter = resume(chain.rules, 1, rebase_of(branch[:-1], new_anchor))
    assert record_refusal(chain, shorter, anchor=new_anchor)[1] is RecordReason.WRONG_OLD_ANCHOR
    higher = chain.l1.anchor(new_anchor.height + 1)
    assert record_refusal(chain, record, anchor=higher)[1] is RecordReason.WRONG_NEW_ANCHOR
    assert record_refusal(chain, record)[1] is RecordReason.WRONG_NEW_ANCHOR, "the anchor stays the parent's"


# What is refused


@pytest.mark.parametrize(
    ("cause", "spoil"),
    [
        (RecordReason.WRONG_CHAIN, lambda record: changed(record, chain_id=bytes(32))),
        (RecordReason.WRONG_EPOCH, lambda record: changed(record, epoch=1)),
        (RecordReason.WRONG_SERIAL, lambda record: changed(record, serial=0)),
        (RecordReason.WRONG_SERIAL, lambda record: changed(record, serial=2)),
        (RecordReason.EXPIRED, lambda record: changed(record, expires_at_anchor=L1_START - 1)),
        (EndorsementReason.TOO_FEW, lambda record: signed(record.record, 0, 1)),
        (EndorsementReason.REPEATED_SIGNER, lambda record: signed(record.record, 0, 1, 1)),
        (EndorsementReason.SIGNERS_UNSORTED, lambda record: signed(record.record, 0, 2, 1)),
        (
            EndorsementReason.UNKNOWN_MEMBER,
            lambda record: replace(record, signatures=(*record.signatures, (4, bytes(64)))),
        ),
        (
            EndorsementReason.BAD_SIGNATURE,
            lambda record: replace(record, record=replace(record.record, expires_at_anchor=900)),
        ),
    ],
)
def test_record_that_breaks_a_rule_is_refused(
    chain: MemoryChain, cause: Reason, spoil: Callable[[SignedRecord], SignedRecord]
) -> None:
    record = resume(chain.rules)
    assert record_refusal(chain, spoil(record)) == (BodyReason.BAD_RECORD, cause)
    carried_out(chain, record)


def test_record_may_be_carried_out_up_to_its_expiry(chain: MemoryChain) -> None:
    carried_out(chain, changed(resume(chain.rules), expires_at_anchor=L1_START))


def test_records_out_of_order_twice_or_used_are_refused(chain: MemoryChain) -> None:
    first, second = resume(chain.rules, 1), resume(chain.rules, 2)
    wrong_serial = (BodyReason.BAD_RECORD, RecordReason.WRONG_SERIAL)
    assert record_refusal(chain, second, first) == wrong_serial
    assert record_refusal(chain, first, first) == wrong_serial
    carried_out(chain, first)
    assert record_refusal(chain, first) == wrong_serial
    carried_out(chain, second)


def test_deficit_of_what_is_no_coin_or_of_another_value_is_refused(chain: MemoryChain) -> None:
    chain.fund(ALICE.script())
    lost = lost_coin(chain)
    foreign = replace(lost, outpoint=OutPoint(lost.outpoint.txid, 7))
    assert record_refusal(chain, deficit(chain, foreign))[1] is RecordReason.NOT_A_COIN
    assert record_refusal(chain, deficit(chain, replace(lost, value_sats=1)))[1] is RecordReason.WRONG_VALUE
    carried_out(chain, deficit(chain, lost))
    assert record_refusal(chain, deficit(chain, lost, serial=2))[1] is RecordReason.NOT_A_COIN


def test_record_beside_evidence_or_a_batch_is_refused(chain: MemoryChain) -> None:
    _, evidence = chain.pay_reserve(ALICE.script(), 50_000)
    chain.bury()
    record, batch = resume(chain.rules), Batch(BatchKind.PAYOUT, None, 1_000, b"")
    for sections in ({"evidence": (evidence,)}, {"batches": (batch,)}):
        verdict = rejected(chain, chain.with_body(records=(record,), **sections))
        assert verdict.reason is BodyReason.RECORD_NOT_ALONE
        assert not verdict.condemns_header
