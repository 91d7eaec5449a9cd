"""A payout from deposits on a real Bitcoin node to its confirmation: each member asks the node, approves and signs."""

from dataclasses import replace

import pytest

from bridge.batch import build_batch
from bridge.bitcoin.addresses import encode_address, l1_network
from bridge.bitcoin.identifiers import Txid
from bridge.bitcoin.transaction import Transaction, TxOut
from bridge.custody import CoinKind, reserve_script
from bridge.ledger import Ledger, advance_anchor, enter_coin, record_burn
from bridge.lineages import record_batch
from bridge.state import BatchKind, BatchVersion, Coin
from federation.approval import approve_batch
from federation.cosign import CosignReason, CosignSession, CosignShare
from federation.errors import FaultySigner
from federation.recorded_batch import plan_version, recorded_version
from federation.refusal import RefusalReason, SigningRefused
from federation.reserve_law import ReserveFacts
from tests.support.bitcoind import Regtest
from tests.support.peg import ALICE, PARAMS, anchor, new_ledger, outpoint, p2tr, p2wpkh
from tests.support.signers import Federation, federation

REGTEST = l1_network("regtest")
DEPOSITS_SATS = {"alice": 30_000_000, "bob": 20_000_000, "carol": 1_000_000}
FEERATE_SAT_KVB = 2_000
SIZES = pytest.mark.parametrize("size", [4, 15], ids=["3-of-4", "11-of-15"])


@pytest.fixture
def regtest(shared_regtest: Regtest) -> Regtest:
    """One node for all of these tests."""
    return shared_regtest


async def deposits_on_l1(regtest: Regtest, members: Federation) -> Ledger:
    """Confirmed deposits of three people, and the ledger that has claimed them."""
    reserves = {name: reserve_script(members.policy, CoinKind.DEPOSIT, p2wpkh(name)) for name in DEPOSITS_SATS}
    txid = await regtest.miner.send_many(
        {encode_address(reserve.script, REGTEST): DEPOSITS_SATS[name] for name, reserve in reserves.items()}
    )
    await regtest.miner.generate(1)
    data = await regtest.client.raw_transaction(txid)
    assert data is not None
    transaction = Transaction.parse(data)
    paid = [output.script for output in transaction.outputs]
    ledger = new_ledger()
    for name, reserve in reserves.items():
        coin = Coin(
            outpoint=transaction.outpoint(paid.index(reserve.script)),
            value_sats=DEPOSITS_SATS[name],
            kind=CoinKind.DEPOSIT,
            epoch=0,
            claim_script=p2wpkh(name),
            l1_height=(await regtest.client.tip())[0],
        )
        enter_coin(ledger, coin, PARAMS.claim_fee_sats)
    return ledger


def record_payout(ledger: Ledger, members: Federation) -> BatchVersion:
    """Three burns and the payout of them, recorded."""
    for number in range(PARAMS.batch_min_payouts):
        record_burn(
            ledger,
            outpoint(number),
            value_sats=12_000_000,
            max_fee_sats=50_000,
            l1_script=p2tr(f"payee {number}"),
            refund_script=ALICE,
        )
    advance_anchor(ledger, anchor(ledger.totals.anchor.height + 1), PARAMS)
    planned = build_batch(ledger, BatchKind.PAYOUT, None, FEERATE_SAT_KVB, members.custody, PARAMS)
    assert planned is not None
    record_batch(ledger, planned)
    return planned.version


async def facts_of(regtest: Regtest, ledger: Ledger, confirmed: frozenset[Txid] = frozenset()) -> ReserveFacts:
    """What the node says. The ledger of these tests counts its anchors apart from the node's blocks."""
    outpoints = [outpoint for outpoint, _ in ledger.coins.items()]
    spenders = await regtest.client.mempool_spenders(outpoints)
    found = await regtest.client.txouts(outpoints, include_mempool=False)
    return ReserveFacts(
        l1_height=ledger.totals.anchor.height,
        halted=False,
        spenders={spent: txid for spent, txid in zip(outpoints, spenders, strict=True) if txid is not None},
        unspent={
            outpoint: None if output is None else TxOut(output.value_sats, output.script)
            for outpoint, output in zip(outpoints, found, strict=True)
        },
        confirmed=confirmed,
    )


def session_of(ledger: Ledger, version: BatchVersion, members: Federation) -> CosignSession:
    """What a member opens who collects, whether it signs or not."""
    lineage, _ = recorded_version(ledger, version.txid)
    return CosignSession(plan_version(ledger, lineage, version, members.custody), members.membership)


@SIZES
async def test_payout_is_signed_by_a_quorum_and_mined(regtest: Regtest, size: int) -> None:
    members = federation(size)
    ledger = await deposits_on_l1(regtest, members)
    version = record_payout(ledger, members)
    session = session_of(ledger, version, members)
    quorum = range(size - members.membership.quorum, size)
    for index in quorum:
        facts = await facts_of(regtest, ledger)
        approved = approve_batch(ledger, version.txid, facts, members.custody, PARAMS)
        share = members.signer(index).cosign(approved)
        session.add_share(CosignShare.decode(share.encode()), index)
    signed = session.combine()

    verdict = await regtest.client.test_mempool_accept(signed.serialize())
    assert verdict.reject_reason == ""
    assert verdict.fee_sats == version.fee_sats
    assert verdict.vsize_vbytes == session.plan.signed_vsize_vbytes
    assert await regtest.client.send_raw_transaction(signed.serialize()) == version.txid
    await regtest.miner.generate(1)
    for index in range(PARAMS.batch_min_payouts):
        paid = await regtest.client.txout(signed.outpoint(index), include_mempool=False)
        assert paid is not None
        assert (paid.confirmations, paid.script) == (1, p2tr(f"payee {index}"))
        assert paid.value_sats == 12_000_000 - version.fee_sats // PARAMS.batch_min_payouts


async def test_member_signs_while_the_payout_waits_and_no_more_once_it_is_confirmed(regtest: Regtest) -> None:
    members = federation(4)
    ledger = await deposits_on_l1(regtest, members)
    version = record_payout(ledger, members)
    session = session_of(ledger, version, members)
    approved = approve_batch(ledger, version.txid, await facts_of(regtest, ledger), members.custody, PARAMS)
    for index in range(3):
        session.add_share(members.signer(index).cosign(approved), index)
    await regtest.client.send_raw_transaction(session.combine().serialize())
    approve_batch(ledger, version.txid, await facts_of(regtest, ledger), members.custody, PARAMS)

    await regtest.miner.generate(1)
    for confirmed, reason in (
        (frozenset[Txid](), RefusalReason.COIN_MISSING),
        (frozenset({version.txid}), RefusalReason.ALREADY_CONFIRMED),
    ):
        facts = await facts_of(regtest, ledger, confirmed)
        with pytest.raises(SigningRefused) as caught:
            approve_batch(ledger, version.txid, facts, members.custody, PARAMS)
        assert caught.value.reason is reason


async def test_deposit_that_a_reorganisation_took_away_stops_every_signature(regtest: Regtest) -> None:
    members = federation(4)
    ledger = await deposits_on_l1(regtest, members)
    version = record_payout(ledger, members)
    approve_batch(ledger, version.txid, await facts_of(regtest, ledger), members.custody, PARAMS)
    _, tip = await regtest.client.tip()
    await regtest.miner.invalidate_block(tip)
    with pytest.raises(SigningRefused) as caught:
        approve_batch(ledger, version.txid, await facts_of(regtest, ledger), members.custody, PARAMS)
    assert caught.value.reason is RefusalReason.COIN_MISSING


async def test_faulty_share_is_refused_and_the_payout_is_mined_all_the_same(regtest: Regtest) -> None:
    members = federation(4)
    ledger = await deposits_on_l1(regtest, members)
    version = record_payout(ledger, members)
    session = session_of(ledger, version, members)
    approved = approve_batch(ledger, version.txid, await facts_of(regtest, ledger), members.custody, PARAMS)
    for index in range(4):
        share = members.signer(index).cosign(approved)
        if index == 1:
            with pytest.raises(FaultySigner) as caught:
                session.add_share(replace(share, signatures=share.signatures[::-1]), index)
            assert (caught.value.member, caught.value.reason) == (1, CosignReason.BAD_SIGNATURE)
        else:
            session.add_share(share, index)
    signed = session.combine()
    verdict = await regtest.client.test_mempool_accept(signed.serialize())
    assert verdict.reject_reason == ""
