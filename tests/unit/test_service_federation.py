"""Four whole members in one process: money in, money moved, money out, and what gets in the way."""

import trio

from bridge.bitcoin.transaction import TxOut
from tests.support.members import memory_federation
from tests.support.mini_wallet import MiniWallet
from tests.support.peg import p2tr

ALL = (0, 1, 2, 3)
ALICE = MiniWallet("alice")
BOB = MiniWallet("bob")
PAYEE = p2tr("payee")


async def test_members_finalize_a_deposit_and_a_transfer(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL) as federation:
        coin = await federation.fund(ALICE)
        payment = ALICE.pay(coin, BOB.script())
        await federation.members[2].live.submit_transaction(payment.serialize())
        await federation.settled(payment)
        height = federation.height
        await federation.all_at(height)


async def test_members_pay_out_what_was_burned(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL, peg={"batch_min_payouts": 1}) as federation:
        coin = await federation.fund(ALICE)
        _, output = coin
        burn = federation.burn_output(1_000_000, PAYEE, ALICE.script())
        change = TxOut(output.value_sats - 1_001_000, ALICE.script())
        payment = ALICE.spend([coin], [burn, change])
        await federation.members[1].live.submit_transaction(payment.serialize())
        await federation.settled(payment)
        await federation.until(lambda: len(federation.l1.mempool) == 1)
        [payout] = federation.l1.mempool.values()
        assert payout.outputs[0].script == PAYEE


async def test_transfer_asks_the_bitcoin_nodes_for_nothing(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL) as federation:
        coin = await federation.fund(ALICE)
        await federation.until(lambda: not any(len(member.core.evidence) for member in federation.members.values()))
        for node in federation.nodes.values():
            node.asked.clear()
        payment = ALICE.pay(coin, BOB.script())
        await federation.members[1].live.submit_transaction(payment.serialize())
        await federation.settled(payment)
        assert {method for node in federation.nodes.values() for method in node.asked} <= {"tip"}, "the watchers' polls"
