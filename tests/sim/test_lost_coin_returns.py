"""A deposit that a record booked as lost is mined after all: members bring it back to the reserve themselves, once."""

import trio

from pegnode.chain.state import recount_supply
from pegnode.rpc.deposit_states import ClaimReason
from tests.sim.test_deep_reorg import decided, halt_of_all, rebase_to_new_branch, records, reorganise
from tests.support.members import memory_federation
from tests.support.mini_wallet import MiniWallet
from tests.unit.test_service_claims import claim_refusal

ALICE = MiniWallet("alice")
BOB = MiniWallet("bob")
DEPOSIT_SATS = 5_000_000


async def test_lost_deposit_that_is_mined_again_repays_the_deficit_and_credits_nobody(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with memory_federation(0, 1, 2, 3) as federation:
        await federation.fund(ALICE)
        fork_height = federation.l1.chain.height
        await federation.fund(BOB, DEPOSIT_SATS)
        store = federation.members[0].store
        [lost] = [coin.outpoint for _, coin in store.ledger.coins.items() if coin.l1_height > fork_height]
        branch = reorganise(federation, fork_height)
        deposit = next(tx for block in branch for tx in block.transactions if tx.txid == lost.txid)
        federation.bury()
        await halt_of_all(federation)
        await decided(federation, records(federation, rebase_to_new_branch(federation, branch), lost))
        assert store.ledger.totals.deficit_sats == DEPOSIT_SATS
        supply_sats = recount_supply(store)

        federation.l1.chain.mine(deposit)
        federation.bury()
        await federation.until(lambda: store.ledger.totals.deficit_sats == 0)
        assert lost in store.ledger.coins
        assert list(store.ledger.lost.items()) == []
        assert recount_supply(store) == supply_sats == store.ledger.totals.supply_sats
        refused = await claim_refusal(federation.members[1], lost.txid, BOB.script())
        assert refused.reason is ClaimReason.ALREADY_ENTERED
        assert not any(member.core.halted for member in federation.members.values())
