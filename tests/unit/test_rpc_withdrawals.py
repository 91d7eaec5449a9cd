"""Methods about how value goes home, over a withdrawal that goes all the way."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from bridge.bitcoin.addresses import encode_address
from bridge.bitcoin.amounts import fee_sats
from bridge.bitcoin.identifiers import BlockHash, OutPoint, Script, hash_to_hex
from bridge.bitcoin.script import dust_limit_sats
from bridge.bitcoin.transaction import Transaction, TxOut
from bridge.replacement import STALE_INTERVALS
from bridge.withdrawals import Burn, parse_burn
from pegnode.cli.withdrawals import item_of
from pegnode.rpc.node_api import PayoutProgress
from pegnode.rpc.results import BatchReply, CoinReply, WithdrawalEstimateReply, WithdrawalReply
from tests.support.mini_wallet import MiniWallet
from tests.support.peg import p2tr
from tests.support.rpc_node import FakeNode

ALICE = MiniWallet("alice")
REFUND = ALICE.script()
DEPOSIT_SATS = 10_000_000
BURNED_SATS = 3_000_000
MAX_FEE_SATS = 2_000
PAYEES = (p2tr("first payee"), p2tr("second payee"))


@pytest.fixture
def node(tmp_path: Path) -> Iterator[FakeNode]:
    """Alice has a deposit, and burned two parts of it."""
    fake = FakeNode(tmp_path / "chain")
    fake.fund(REFUND, value_sats=DEPOSIT_SATS)
    yield fake
    fake.close()


async def burn(node: FakeNode) -> tuple[OutPoint, OutPoint]:
    """Two burns in one transaction, in a block."""
    claim = Transaction.parse(next(node.store.index.transactions_at(1)).data)
    burns = [node.chain.burn_output(BURNED_SATS, payee, REFUND, MAX_FEE_SATS) for payee in PAYEES]
    change = TxOut(claim.outputs[0].value_sats - 2 * BURNED_SATS - 1_000, REFUND)
    transaction = ALICE.spend([(claim.outpoint(0), claim.outputs[0])], [*burns, change])
    await node.submit_transaction(transaction.serialize())
    node.make_block()
    return transaction.outpoint(0), transaction.outpoint(1)


def batch(node: FakeNode) -> Transaction:
    """The anchor moves until a payout is due; the unsigned transaction that a block records."""
    node.chain.l1.mine_empty(node.rules.params.batch_max_wait_anchors)
    node.make_block()
    [(_, lineage)] = node.store.ledger.open_lineages.items()
    return Transaction.parse(lineage.versions[0].transaction)


def settle(node: FakeNode, payout: Transaction) -> None:
    """L1 confirms the payout, and a block holds the proof."""
    node.chain.l1.mine(payout)
    node.chain.bury()
    node.make_block(node.chain.l1.evidence(payout))


async def get(node: FakeNode, outpoint: OutPoint) -> WithdrawalReply:
    return msgspec.convert((await node.ask("getwithdrawal", str(outpoint))).result, WithdrawalReply)


async def listed(node: FakeNode, **named: object) -> list[int]:
    """The numbers of the withdrawals that a query lists."""
    return [item["number"] for item in (await node.ask("listwithdrawals", **named)).result]


async def test_pending_withdrawal(node: FakeNode) -> None:
    first, second = await burn(node)
    reply = await get(node, first)
    assert (reply.status, reply.stage, reply.number) == ("pending", "waiting", 0)
    assert (reply.value_sats, reply.max_fee_sats, reply.paid_sats) == (BURNED_SATS, MAX_FEE_SATS, None)
    assert reply.l1_address == encode_address(PAYEES[0], node.l1_network)
    assert reply.refund_address == encode_address(REFUND, node.network)
    assert reply.expires_at_anchor - reply.burned_at_anchor == node.rules.params.withdrawal_expiry_anchors
    assert (reply.lineage, reply.payout, reply.payouts, reply.refund_txid) == (None, None, [], None)
    assert (await get(node, second)).number == 1
    peg = (await node.ask("getpeginfo")).result
    assert (peg["pending_withdrawals"], peg["unsettled_sats"]) == (2, 2 * BURNED_SATS)
    assert peg["window_burned_sats"] == 2 * BURNED_SATS


async def test_withdrawal_goes_through_its_stages(node: FakeNode) -> None:
    first, second = await burn(node)
    payout = batch(node)
    version = node.store.ledger.open_lineages.get(0)
    assert version is not None
    txid = version.versions[0].txid
    stages = [(await get(node, first)).stage]
    for progress in (
        PayoutProgress(2, False, False, 0),
        PayoutProgress(3, True, False, 0),
        PayoutProgress(3, True, True, 0),
        PayoutProgress(3, True, True, 2),
    ):
        node.progress[txid] = progress
        stages.append((await get(node, first)).stage)
    assert stages == ["batched", "batched", "signed", "broadcast", "confirmed"]
    batched = await get(node, first)
    assert (batched.status, batched.lineage) == ("batched", 0)
    assert (batched.payouts[0].txid, batched.payouts[0].signatures) == (hash_to_hex(payout.txid), 3)
    assert batched.paid_sats == payout.outputs[0].value_sats
    settle(node, payout)
    settled = await get(node, second)
    assert (settled.status, settled.stage, settled.payout) == ("settled", "settled", f"{hash_to_hex(payout.txid)}:1")
    assert settled.paid_sats == payout.outputs[1].value_sats
    assert settled.value_sats - settled.paid_sats <= MAX_FEE_SATS


async def test_replaced_payout_shows_all_versions_and_which_of_them_paid(node: FakeNode) -> None:
    first, _ = await burn(node)
    old = batch(node)
    assert item_of(await get(node, first))[1]["fee"] == "2 sat/vB"
    node.chain.l1.mine_empty(STALE_INTERVALS * node.rules.params.replacement_interval_anchors)
    node.make_block()
    raised = await get(node, first)
    [feerate, least] = [payout.feerate_sat_kvb for payout in raised.payouts]
    assert (feerate, raised.payouts[0].txid) == (2_000, hash_to_hex(old.txid))
    assert 3_000 <= least <= 3_010
    assert raised.paid_sats is not None
    assert raised.paid_sats < old.outputs[0].value_sats
    assert item_of(raised)[1]["fee"] == f"{least / 1000:g} sat/vB, version 2 of 2"
    settle(node, old)
    settled = await get(node, first)
    assert (settled.payout, settled.paid_sats) == (f"{hash_to_hex(old.txid)}:0", old.outputs[0].value_sats)
    assert item_of(settled)[1]["fee"] == "2 sat/vB, version 1 of 2"


async def test_listwithdrawals_filters_and_pages(node: FakeNode) -> None:
    assert await listed(node) == []
    first, second = await burn(node)
    assert await listed(node) == [1, 0]
    assert await listed(node, status="pending") == [1, 0]
    assert await listed(node, status="settled") == []
    assert await listed(node, count=1) == [1]
    assert await listed(node, count=1, before=1) == [0]
    assert await listed(node, burns=[str(first)]) == [0]
    assert await listed(node, burns=[str(first), str(second), f"{'11' * 32}:0"], before=1) == [0]
    assert await listed(node, burns=[]) == []
    settle(node, batch(node))
    assert await listed(node, status="pending") == []
    assert await listed(node, status="settled") == [1, 0]
    assert await listed(node, burns=[str(first)], status="settled") == [0]


async def test_listwithdrawals_refuses_bad_arguments(node: FakeNode) -> None:
    assert (await node.ask("listwithdrawals", status="lost")).code == -8
    assert (await node.ask("listwithdrawals", count=0)).code == -8
    assert (await node.ask("listwithdrawals", count=1_001)).code == -8
    assert (await node.ask("listwithdrawals", burns=["x"])).code == -8


async def test_getwithdrawal_does_not_find_what_was_not_burned(node: FakeNode) -> None:
    assert (await node.ask("getwithdrawal", f"{'11' * 32}:0")).code == -5
    assert (await node.ask("getwithdrawal", "11:0")).code == -8


async def test_listreservecoins_and_listbatches(node: FakeNode) -> None:
    [coin] = msgspec.convert((await node.ask("listreservecoins")).result, list[CoinReply])
    assert (coin.kind, coin.value_sats, coin.lineage) == ("deposit", DEPOSIT_SATS, None)
    assert coin.claim_address == encode_address(REFUND, node.network)
    assert coin.recovery_l1_height - coin.l1_height == node.rules.params.recovery_timelock_blocks
    assert coin.age_anchors == node.store.tip.header.anchor.height - coin.l1_height
    assert (await node.ask("listbatches")).result == []

    burns = await burn(node)
    payout = batch(node)
    assert (await node.ask("listreservecoins")).result[0]["lineage"] == 0
    [opened] = msgspec.convert((await node.ask("listbatches")).result, list[BatchReply])
    assert (opened.kind, opened.open, opened.inputs) == ("payout", True, [coin.outpoint])
    assert opened.payees == [str(outpoint) for outpoint in burns]
    assert opened.versions[0].txid == hash_to_hex(payout.txid)

    settle(node, payout)
    [closed] = msgspec.convert((await node.ask("listbatches", 5)).result, list[BatchReply])
    assert (closed.open, closed.settled_by) == (False, hash_to_hex(payout.txid))
    coins = msgspec.convert((await node.ask("listreservecoins")).result, list[CoinReply])
    assert {item.kind for item in coins} == {"change"}
    assert [item.value_sats for item in coins] == sorted((item.value_sats for item in coins), reverse=True)
    assert (await node.ask("listbatches", 5, 0)).result == []
    assert (await node.ask("listbatches", 0)).code == -8


async def estimate(node: FakeNode, **named: object) -> WithdrawalEstimateReply:
    address = encode_address(PAYEES[0], node.l1_network)
    arguments = {"l1_address": address, "amount_sats": BURNED_SATS} | named
    return msgspec.convert((await node.ask("estimatewithdrawal", **arguments)).result, WithdrawalEstimateReply)


async def test_estimate_covers_a_batch_of_one_at_the_present_feerate(node: FakeNode) -> None:
    reply = await estimate(node)
    await burn(node)
    payout = batch(node)
    alone_sats = fee_sats(payout.vsize_vbytes, reply.feerate_sat_kvb)  # unsigned, so a lower bound
    assert alone_sats < reply.suggested_max_fee_sats < 10 * alone_sats
    assert 0 < reply.least_max_fee_sats < alone_sats
    assert reply.max_fee_sats == reply.suggested_max_fee_sats
    assert reply.received_sats == BURNED_SATS - reply.max_fee_sats
    assert reply.dust_limit_sats == dust_limit_sats(PAYEES[0])
    assert reply.min_withdrawal_sats == node.rules.params.min_withdrawal_sats
    assert reply.burn_script_hex is None


async def test_estimate_follows_the_feerate_up_to_the_ceiling(node: FakeNode) -> None:
    suggestions = []
    for feerate in (None, 1_000, 2_000, 5_000, 50_000):
        node.current = replace(node.current, l1=replace(node.current.l1, feerate_sat_kvb=feerate))
        suggestions.append((await estimate(node)).suggested_max_fee_sats)
    unknown, floor, double, ceiling, above = suggestions
    assert unknown == floor
    assert floor < double < ceiling == above


async def test_estimate_gives_the_script_that_burns(node: FakeNode) -> None:
    refund_address = encode_address(REFUND, node.network)
    reply = await estimate(node, refund_address=refund_address, max_fee_sats=777)
    assert reply.burn_script_hex is not None
    output = TxOut(BURNED_SATS, Script(bytes.fromhex(reply.burn_script_hex)))
    assert parse_burn(output, BlockHash(node.rules.l1_genesis_hash)) == Burn(PAYEES[0], 777, REFUND)
    assert (reply.max_fee_sats, reply.received_sats) == (777, BURNED_SATS - 777)


async def test_estimate_refuses_bad_arguments(node: FakeNode) -> None:
    address = encode_address(PAYEES[0], node.l1_network)
    foreign = encode_address(PAYEES[0], node.network)
    wrong = await node.ask("estimatewithdrawal", foreign, BURNED_SATS)
    assert (wrong.code, wrong.reason) == (-5, "address-wrong-network")
    assert "Pegnode" in wrong.message
    assert (await node.ask("estimatewithdrawal", address, BURNED_SATS, address)).code == -5
    assert (await node.ask("estimatewithdrawal", address, 0)).code == -8
    assert (await node.ask("estimatewithdrawal", address, 2**63)).code == -8
    assert (await node.ask("estimatewithdrawal", address, BURNED_SATS, None, -1)).code == -8
    assert (await node.ask("estimatewithdrawal", address, 0.5)).code == -3
