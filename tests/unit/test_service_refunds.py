"""Refunds as members make them: without being asked, without waiting for the heartbeat, and without a Bitcoin node."""

import trio

from bridge.bitcoin.identifiers import OutPoint
from bridge.bitcoin.transaction import TxOut
from bridge.state import WithdrawalStatus
from bridge.withdrawals import Burn, encode_burn
from pegnode.service.proposer import REFUND_WORK
from tests.support.members import Member, MemoryFederation, memory_federation
from tests.support.mini_wallet import MiniWallet
from tests.support.peg import p2tr

ALL = (0, 1, 2, 3)
ALICE = MiniWallet("alice")
PAYEE = p2tr("payee")
EXPIRY = 8
STEP = EXPIRY // 2
ONE_A_BLOCK = {"withdrawal_expiry_anchors": EXPIRY, "max_anchor_step": STEP, "max_refunds_per_block": 1}


def burns_without_a_fee(federation: MemoryFederation, count: int) -> list[TxOut]:
    """Burns that no batch pays."""
    script = encode_burn(federation.rules.l1_genesis_hash, Burn(PAYEE, 0, ALICE.script()))
    return [TxOut(1_000_000, script)] * count


def refunded(member: Member, burns: list[OutPoint]) -> int:
    """How many of these a member's final chain has refunded."""
    closed = [member.store.ledger.closed_withdrawals.get(burn) for burn in burns]
    return sum(entry is not None and entry.status is WithdrawalStatus.REFUNDED for entry in closed)


async def test_expired_burns_come_back_though_the_bitcoin_nodes_fall_silent(autojump_clock: trio.abc.Clock) -> None:
    """The first refund needs the anchor to move, twice: first in a heartbeat's block, for that makes none due.

    Those that the cap left over are in the next blocks, at their pace.
    """
    async with memory_federation(*ALL, peg=ONE_A_BLOCK) as federation:
        coin = await federation.fund(ALICE)
        outputs = burns_without_a_fee(federation, 4)
        burning = ALICE.spend([coin], outputs)
        federation.members[0].relay.submit_transaction(burning.serialize())
        await federation.settled(burning)
        burns = [burning.outpoint(vout) for vout in range(len(outputs))]
        member = federation.members[0]
        assert refunded(member, burns) == 0
        federation.l1.mine(EXPIRY)
        heartbeat_s = federation.genesis.consensus.heartbeat_ms / 1_000
        await federation.until(lambda: refunded(member, burns), seconds=heartbeat_s + 6)
        for node in federation.nodes.values():
            node.outage = True
        await federation.until(
            lambda: all(refunded(each, burns) == len(burns) for each in federation.members.values()), seconds=6
        )
        assert not list(member.store.ledger.open_withdrawals.items())


async def test_refunds_count_as_work_by_the_next_anchor_and_while_some_are_left(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0, peg=ONE_A_BLOCK) as federation:
        member = federation.members[0]
        assert member.proposer is not None
        coin = federation.fund_by_hand(member, ALICE)
        federation.commit_block(member, ALICE.spend([coin], burns_without_a_fee(federation, 2)))
        await trio.sleep(1)
        assert REFUND_WORK not in await member.proposer.l1_work()
        federation.l1.mine(EXPIRY)
        chain, height = federation.l1.chain, member.store.tip.header.anchor.height
        await federation.until(lambda: member.core.watcher.tip == chain.anchor(chain.height))
        for anchor_height, refunds in ((height + STEP, 0), (height + EXPIRY, 1)):
            anchor = chain.anchor(anchor_height)
            member.core.l1_reports.update(dict.fromkeys(ALL, anchor))  # three of them do not run
            assert (REFUND_WORK in await member.proposer.l1_work()) == bool(refunds)
            assert not member.work._waits(), "the anchor has not moved"
            view = member.store.tip.header.view + 1
            block = await member.proposer.build(view, member.store.tip.hash, include_l1=True)
            assert block is not None
            assert (block.block.header.anchor, len(block.block.body.refunds)) == (anchor, refunds)
            member.core.finalize(block.block.hash, federation.finalization(block))
        assert member.work._waits(), "one is left over"
        member.work._passes = {b"evidence that leaders passed over": 9}
        federation.commit_block(member)
        assert not member.work._waits()
        assert member.work._passes == {}, "a block that held something may have changed the reason"
