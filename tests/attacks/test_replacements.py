"""Replacement turned against the peg: payees that pin a payout, leaders that drain the fund or pay twice.

A payout that waits for its confirmation is replaced by one of a higher fee. Whoever gets two versions confirmed is paid
twice (Fedimint's wallet once made a replacement that need not conflict with what it replaced), and whoever chooses what
a replacement costs spends other people's money.
"""

from dataclasses import replace

import pytest
import trio

from bridge.batch import Batch, build_batch, check_batch, propose_batches
from bridge.batch_form import BatchReason
from bridge.bitcoin.identifiers import Txid
from bridge.bitcoin.transaction import Transaction, TxOut
from bridge.custody import CoinKind
from bridge.errors import Rejected
from bridge.ledger import Ledger, enter_donation
from bridge.lineages import free_fund_sats, record_batch, settle
from bridge.params import PegParams
from bridge.state import BatchKind, LedgerReason, Lineage
from federation.approval import approve_batch
from federation.refusal import RefusalReason, SigningRefused
from pegnode.service import payouts as payouts_module
from tests.support.ledgers import ledger_of, only_lineage, rejection, wait
from tests.support.members import Member, MemoryFederation, memory_federation
from tests.support.mini_wallet import MiniWallet
from tests.support.peg import CUSTODY, PARAMS, START_HEIGHT, coin, outpoint, p2tr
from tests.support.signers import federation, honest_facts, ledger_with_payout

ALL = (0, 1, 2, 3)
ALICE = MiniWallet("alice")
PEG = {"batch_min_payouts": 1}
ONE = replace(PARAMS, batch_min_payouts=1, change_target_coins=1, lineage_fee_cap_sats=20_000)
MEMBERS = federation(4)


async def _open_payout(running: MemoryFederation) -> tuple[Member, Txid]:
    """A payout in every mempool."""
    member = running.members[0]
    funds = await running.fund(ALICE)
    burn = running.burn_output(1_000_000, p2tr("payee"), ALICE.script())
    change = TxOut(funds[1].value_sats - 1_001_000, ALICE.script())
    member.relay.submit_transaction(ALICE.spend([funds], [burn, change]).serialize())
    await running.until(lambda: running.l1.mempool)
    [txid] = running.l1.mempool
    return member, txid


def _lineages(member: Member) -> list[Lineage]:
    return [lineage for _, lineage in member.store.ledger.open_lineages.items()]


async def _raise_fees(running: MemoryFederation, feerate_sat_kvb: int) -> list[Txid]:
    """L1 asks for more, and mines without the payout; its versions once the members have replaced it and signed all."""
    for node in running.nodes.values():
        node.feerate_sat_kvb = feerate_sat_kvb
    running.l1.chain.mine_empty(running.rules.params.replacement_interval_anchors)
    members = list(running.members.values())
    await running.until(lambda: all(len(_lineages(member)[0].versions) == 2 for member in members))
    versions = [version.txid for version in _lineages(members[0])[0].versions]
    await running.until(lambda: all(member.store.signed_payout(txid) for member in members for txid in versions))
    return versions


def _settled_by(member: Member) -> list[Txid | None]:
    return [lineage.settled_by for lineage in member.store.ledger.lineages_newest_first(None)]


async def test_replacement_takes_the_place_of_the_payout_and_settles(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL, peg=PEG) as running:
        member, first = await _open_payout(running)
        _, second = await _raise_fees(running, 4_000)
        await running.until(lambda: second in running.l1.mempool)
        assert first not in running.l1.mempool
        await trio.sleep(2 * payouts_module.RETRY_S)
        assert set(running.l1.mempool) == {second}
        assert member.payouts._complaints == {}, "that the old version is refused by now says nothing"
        assert (member.payouts.is_broadcast(first), member.payouts.is_broadcast(second)) == (True, True)
        running.bury()
        await running.until(lambda: all(not _lineages(one) for one in running.members.values()))
        assert _settled_by(member) == [second]
        assert member.core.halt_findings == []


async def test_payout_that_a_payee_pins_settles_by_its_old_version(autojump_clock: trio.abc.Clock) -> None:
    """The payee spends its unconfirmed output with a large fee, which every replacement would have to exceed."""
    async with memory_federation(*ALL, peg=PEG) as running:
        member, first = await _open_payout(running)
        running.l1.pinned_sats[first] = 100_000
        _, second = await _raise_fees(running, 4_000)
        await trio.sleep(2 * payouts_module.RETRY_S)
        assert set(running.l1.mempool) == {first}
        assert list(member.payouts._complaints) == [second]
        running.bury()
        await running.until(lambda: all(not _lineages(one) for one in running.members.values()))
        assert _settled_by(member) == [first]
        totals = member.store.ledger.totals
        totals.require_equality()
        assert (totals.unsettled_sats, member.core.halt_findings) == (0, [])
        await trio.sleep(2 * payouts_module.RETRY_S)
        assert running.l1.mempool == {}
        assert not any(entry.lineage is not None for _, entry in member.store.ledger.coins.items())


async def test_version_that_miners_kept_settles_after_a_reorg_swapped_it_in(autojump_clock: trio.abc.Clock) -> None:
    """The newest version is mined, and a shallow reorg puts the first one in its place."""
    async with memory_federation(*ALL, peg=PEG) as running:
        member, first = await _open_payout(running)
        signed = member.store.signed_payout(first)
        assert signed is not None
        _, second = await _raise_fees(running, 4_000)
        await running.until(lambda: second in running.l1.mempool)
        height = running.l1.chain.height
        running.l1.mine()
        await running.until(lambda: member.core.watcher.block_of(second) is not None)
        del running.l1.chain.blocks[height + 1 :]
        running.l1.chain.mine(running.l1.chain.payment(TxOut(1_000, p2tr("other"))), Transaction.parse(signed))
        running.l1.chain.mine_empty(running.rules.params.confirmations)
        await running.until(lambda: all(not _lineages(one) for one in running.members.values()))
        assert _settled_by(member) == [first]
        assert member.core.halt_findings == []


def _payout(donated_sats: int = 500_000, params: PegParams = ONE) -> Ledger:
    """A payout of 500,000 sats at 10 sat/vB whose payee bears 2,500; the fund has plenty."""
    ledger = ledger_of([1_000_000, 1_000_000], [(500_000, 2_500)])
    enter_donation(ledger, coin(50, donated_sats, CoinKind.DONATION))
    planned = build_batch(ledger, BatchKind.PAYOUT, None, 10_000, CUSTODY, params)
    assert planned is not None
    record_batch(ledger, planned)
    return ledger


def test_fund_is_not_drained_by_bumps() -> None:
    """Leaders replace as often and as dearly as they may: a lineage costs the fund one version, within its cap."""
    ledger = _payout()
    reasons = set()
    for _ in range(200):
        wait(ledger, ONE.replacement_interval_anchors)
        newest = only_lineage(ledger).versions[-1]
        for feerate_sat_kvb in (200_000, 150_000, newest.feerate_sat_kvb + 30_000, newest.feerate_sat_kvb + 1_100):
            batch = Batch(BatchKind.PAYOUT, newest.txid, min(feerate_sat_kvb, 200_000), b"")
            try:
                planned = build_batch(ledger, batch.kind, batch.replaces, batch.feerate_sat_kvb, CUSTODY, ONE)
            except Rejected as error:
                reasons.add(error.reason)
                continue
            assert planned is not None
            record_batch(ledger, planned)
            break
        assert only_lineage(ledger).reserved_fund_sats <= ONE.lineage_fee_cap_sats
        assert free_fund_sats(ledger) >= 480_000
    assert {BatchReason.OVER_FUND, BatchReason.RESERVED} <= reasons
    lineage = only_lineage(ledger)
    assert lineage.reserved_fund_sats > 18_000
    settle(ledger, lineage.versions[-1].txid, START_HEIGHT)
    assert ledger.totals.fund_sats == 500_000 - lineage.versions[-1].fund_part_sats >= 480_000


def test_bumps_faster_than_the_interval_are_refused() -> None:
    ledger = _payout()
    wait(ledger, ONE.replacement_interval_anchors)
    [planned] = propose_batches(ledger, 20_000, (), CUSTODY, ONE)
    record_batch(ledger, planned)
    for _ in range(ONE.replacement_interval_anchors):
        with pytest.raises(Rejected) as caught:
            check_batch(ledger, Batch(BatchKind.PAYOUT, planned.version.txid, 40_000, b""), CUSTODY, ONE)
        assert caught.value.reason is BatchReason.TOO_EARLY
        wait(ledger, 1)
    assert propose_batches(ledger, 40_000, (), CUSTODY, ONE)


@pytest.mark.parametrize("attack", ["disjoint", "drops an input", "shares one input"])
def test_replacement_that_need_not_conflict_is_neither_valid_nor_signed(attack: str) -> None:
    """{a, b}, {a, c}, {c, d}: each shares an input with the one before, and the first and last pay twice."""
    ledger = ledger_of([300_000, 300_000, 290_000, 290_000], [(500_000, 5_000)])
    first = build_batch(ledger, BatchKind.PAYOUT, None, 10_000, CUSTODY, ONE)
    assert first is not None
    record_batch(ledger, first)
    wait(ledger, ONE.replacement_interval_anchors)
    [planned] = propose_batches(ledger, 20_000, (), CUSTODY, ONE)
    right = Transaction.parse(planned.version.transaction)
    kept = [txin.outpoint for txin in right.inputs]
    spent = {
        "disjoint": [outpoint(2), outpoint(3)],
        "drops an input": kept[:1],
        "shares one input": [kept[0], outpoint(2)],
    }[attack]
    inputs = tuple(replace(right.inputs[0], outpoint=one) for one in spent)
    wrong = replace(right, inputs=inputs)
    batch = replace(Batch.of(planned), transaction=wrong.serialize())
    assert rejection(ledger, lambda: check_batch(ledger, batch, CUSTODY, ONE)) is BatchReason.TRANSACTION_DIFFERS
    version = replace(planned.version, transaction=wrong.serialize(), txid=wrong.txid)
    unsafe = replace(planned, inputs=tuple(spent), version=version)
    assert rejection(ledger, lambda: record_batch(ledger, unsafe)) is LedgerReason.INPUT_DROPPED
    # Should the ledger say so all the same:
    lineage = only_lineage(ledger)
    ledger.open_lineages.put(lineage.number, replace(lineage, versions=(first.version, version)))
    ledger.versions.put(version.txid, lineage.number)
    for txid in (first.version.txid, version.txid):
        with pytest.raises(SigningRefused) as caught:
            approve_batch(ledger, txid, honest_facts(ledger, CUSTODY), CUSTODY, ONE)
        assert caught.value.reason is RefusalReason.NO_SUPERSET


@pytest.mark.parametrize("keep", [0, 1])
def test_signer_refuses_every_version_of_a_lineage_that_could_pay_twice(keep: int) -> None:
    """Whatever made the ledger say so: not even the honest first version is signed any more."""
    ledger, first = ledger_with_payout(MEMBERS)
    wait(ledger, PARAMS.replacement_interval_anchors)
    [planned] = propose_batches(ledger, 4_000, (), MEMBERS.custody, PARAMS)
    lineage = record_batch(ledger, planned)
    facts = honest_facts(ledger, MEMBERS.custody)
    for version in lineage.versions:
        assert approve_batch(ledger, version.txid, facts, MEMBERS.custody, PARAMS).txid == version.txid
    transaction = Transaction.parse(planned.version.transaction)
    assert len(transaction.inputs) > 1
    parted = replace(transaction, inputs=transaction.inputs[:keep] + transaction.inputs[keep + 1 :])
    version = replace(planned.version, transaction=parted.serialize(), txid=parted.txid)
    ledger.open_lineages.put(lineage.number, replace(lineage, versions=(first, version)))
    ledger.versions.put(version.txid, lineage.number)
    for txid in (first.txid, version.txid):
        with pytest.raises(SigningRefused) as caught:
            approve_batch(ledger, txid, facts, MEMBERS.custody, PARAMS)
        assert caught.value.reason is RefusalReason.NO_SUPERSET
