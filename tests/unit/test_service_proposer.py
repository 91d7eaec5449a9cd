"""What a leader still proposes when others don't vote for a part of it."""

import trio

from tests.support.members import memory_federation
from tests.support.mini_wallet import MiniWallet
from tests.support.peg import p2tr

ALICE = MiniWallet("alice")
BOB = MiniWallet("bob")


async def test_deposits_enter_while_members_do_not_agree_on_the_feerate_of_a_payout(
    autojump_clock: trio.abc.Clock,
) -> None:
    """Two have no estimate and vote for the floor alone, to the others the floor is too low: no batch has a quorum."""
    async with memory_federation(0, 1, 2, 3, peg={"batch_min_payouts": 1}) as federation:
        coin = await federation.fund(ALICE)
        for index, estimate in enumerate((None, None, 4_000, 4_000)):
            federation.nodes[index].feerate_sat_kvb = estimate
        burn = ALICE.spend([coin], [federation.burn_output(coin[1].value_sats - 1_000, p2tr("payee"), ALICE.script())])
        await federation.members[0].live.submit_transaction(burn.serialize())
        await federation.settled(burn)
        await federation.fund(BOB)
        assert not federation.l1.mempool
        for node in federation.nodes.values():
            node.feerate_sat_kvb = 4_000
        await federation.until(lambda: len(federation.l1.mempool) == 1)
