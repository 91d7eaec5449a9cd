"""What the RPC and `peg withdraw list` say of a withdrawal that waits, and of one that was refunded."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from bridge.batch_form import least_share_sats
from bridge.bitcoin.identifiers import OutPoint, hash_to_hex
from bridge.bitcoin.transaction import Transaction, TxOut
from bridge.refunds import refund_transaction
from bridge.waiting import WaitReason
from pegnode.cli.withdrawals import item_of, waits_for
from pegnode.rpc.results import WaitingReply, WithdrawalReply
from pegnode.storage.indexes import Spender
from tests.support.mini_wallet import MiniWallet
from tests.support.peg import p2tr
from tests.support.rpc_node import FakeNode

ALICE = MiniWallet("alice")
DEPOSIT_SATS = 10_000_000
BURNED_SATS = 3_000_000
PAYEE = p2tr("payee")
FEERATE_SAT_KVB = 3_000
"""The fake node's estimate."""


@pytest.fixture
def node(tmp_path: Path) -> Iterator[FakeNode]:
    fake = FakeNode(tmp_path / "chain")
    fake.fund(ALICE.script(), value_sats=DEPOSIT_SATS)
    yield fake
    fake.close()


async def burned(node: FakeNode, *max_fees_sats: int) -> list[OutPoint]:
    """A burn for each, in a block."""
    claim = Transaction.parse(next(node.store.index.transactions_at(1)).data)
    burns = [node.chain.burn_output(BURNED_SATS, PAYEE, ALICE.script(), fee_sats) for fee_sats in max_fees_sats]
    change = TxOut(claim.outputs[0].value_sats - len(burns) * BURNED_SATS - 1_000, ALICE.script())
    transaction = ALICE.spend([(claim.outpoint(0), claim.outputs[0])], [*burns, change])
    await node.submit_transaction(transaction.serialize())
    node.make_block()
    return [transaction.outpoint(vout) for vout in range(len(burns))]


async def get(node: FakeNode, outpoint: OutPoint) -> WithdrawalReply:
    return msgspec.convert((await node.ask("getwithdrawal", str(outpoint))).result, WithdrawalReply)


async def test_pending_withdrawal_says_why_it_waits_and_when_it_expires(node: FakeNode) -> None:
    [bearing, mean] = await burned(node, 5_000, 0)
    params = node.rules.params
    expiry, most_burns, most_anchors = (
        params.withdrawal_expiry_anchors, params.batch_min_payouts, params.batch_max_wait_anchors,
    )  # fmt: skip
    reply = await get(node, bearing)
    assert reply.waiting == WaitingReply("withdrawal-not-due", None, most_burns - 1, most_anchors)
    assert reply.expires_in_anchors == expiry
    assert item_of(reply)[1]["waits"] == "the next payout is due after 4 more burns or 3 more L1 blocks"
    assert item_of(reply)[1]["refund"] == "after 1008 more L1 blocks, if no batch has taken it by then"
    share_sats = (await get(node, mean)).waiting
    assert share_sats is not None
    assert (share_sats.reason, share_sats.burns_missing, share_sats.anchors_left) == ("withdrawal-max-fee", None, None)
    assert share_sats.share_sats is not None
    assert share_sats.share_sats >= least_share_sats(params, FEERATE_SAT_KVB)
    listed = msgspec.convert((await node.ask("listwithdrawals")).result, list[WithdrawalReply])
    assert listed == [await get(node, mean), reply]
    node.chain.l1.mine_empty(most_anchors)
    node.make_block()
    batched = await get(node, bearing)
    assert (batched.stage, batched.waiting, batched.expires_in_anchors) == ("batched", None, None)
    assert {"waits", "refund"}.isdisjoint(item_of(batched)[1])
    assert (await get(node, mean)).expires_in_anchors == expiry - most_anchors


async def test_refunded_withdrawal_names_its_refund(node: FakeNode) -> None:
    [burn] = await burned(node, 0)
    withdrawal = node.store.ledger.withdrawal(burn)
    assert withdrawal is not None
    refund = refund_transaction(withdrawal, node.rules.params)
    left = node.rules.params.withdrawal_expiry_anchors
    while left:
        step = min(left, node.rules.params.max_anchor_step)
        node.chain.l1.mine_empty(step)
        node.make_block()
        left -= step
    reply = await get(node, burn)
    assert (reply.status, reply.stage, reply.refund_txid) == ("refunded", "refunded", hash_to_hex(refund.txid))
    assert (reply.waiting, reply.expires_in_anchors, reply.payout) == (None, None, None)
    assert item_of(reply)[1]["refunded by"] == reply.refund_txid
    decoded = (await node.ask("getrawtransaction", reply.refund_txid, 1)).result
    assert (decoded["kind"], decoded["vin"][0]["refunds_burn"]) == ("refund", str(burn))
    assert (await node.ask("audit")).result["findings"] == []
    spending = ALICE.pay((refund.outpoint(0), refund.outputs[0]), ALICE.script())
    await node.submit_transaction(spending.serialize())
    node.make_block()
    assert node.store.index.spender(refund.outpoint(0)) == Spender(spending.txid, 0)
    assert [item["stage"] for item in (await node.ask("listwithdrawals", status="refunded")).result] == ["refunded"]


@pytest.mark.parametrize("reason", WaitReason)
def test_every_reason_is_told_in_words_of_its_own(reason: WaitReason) -> None:
    texts = {each: waits_for(WaitingReply(each.value, 1_234, 1, 7), 99) for each in WaitReason}
    assert list(texts.values()).count(texts[reason]) == 1
    assert reason.value not in texts[reason]
    assert "None" not in texts[reason]


def test_reason_of_a_later_release_is_told_as_it_is() -> None:
    assert waits_for(WaitingReply("withdrawal-of-tomorrow", None, None, None), 0) == "withdrawal-of-tomorrow"
