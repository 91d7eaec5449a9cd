"""Maintenance by running members: an old coin is moved without anybody's asking, and the peg goes on."""

import trio

from bridge.custody import CoinKind
from bridge.state import BatchKind
from tests.support.members import memory_federation
from tests.support.mini_wallet import MiniWallet

ALL = (0, 1, 2, 3)
ALICE = MiniWallet("alice")
T = 80


async def test_status_tells_of_old_coins_that_there_is_hardly_time_to_move(autojump_clock: trio.abc.Clock) -> None:
    stuck = {"recovery_timelock_blocks": T, "lineage_fee_cap_sats": 0, "maintenance_deficit_cap_sats": 0}
    async with memory_federation(*ALL, peg=stuck) as federation:
        await federation.fund(ALICE)
        member = federation.members[0]
        [(_, coin)] = member.store.ledger.coins.items()
        needed = federation.rules.params.confirmations + federation.rules.params.replacement_interval_anchors
        told: list[str] = []
        for left in (2 * needed, 2 * needed - 1):
            anchor = coin.l1_height + T - left
            federation.l1.mine(anchor - member.store.ledger.totals.anchor.height)
            await federation.until(lambda: member.store.ledger.totals.anchor.height == anchor)  # noqa: B023
            told = [item for item in member.live.status().waiting_for if "recovery keys" in item]
            assert bool(told) == (left < 2 * needed)
        assert f"1 with {coin.value_sats} satoshis" in told[0]
        assert f"takes {needed} L1 blocks" in told[0]
        assert f"in {left} the recovery" in told[0]


async def test_members_move_an_old_coin_and_settle_it(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL, peg={"recovery_timelock_blocks": T}) as federation:
        await federation.fund(ALICE)
        member = federation.members[0]
        [(old, before)] = member.store.ledger.coins.items()
        federation.l1.mine(3 * T // 4 - 10)
        await trio.sleep(15)
        assert list(member.store.ledger.open_lineages.items()) == [], "it is the only coin: more than half of all value"
        federation.l1.mine(10)
        await federation.until(lambda: federation.l1.mempool)
        [moving] = federation.l1.mempool.values()
        assert [txin.outpoint for txin in moving.inputs] == [old]
        [(_, lineage)] = member.store.ledger.open_lineages.items()
        assert (lineage.kind, lineage.payees) == (BatchKind.MAINTENANCE, ())
        federation.bury()
        await federation.until(
            lambda: all(old not in one.store.ledger.coins for one in federation.members.values()), seconds=120
        )
        coins = [coin for _, coin in member.store.ledger.coins.items()]
        assert {coin.kind for coin in coins} == {CoinKind.CHANGE}
        fee_sats = before.value_sats - sum(coin.value_sats for coin in coins)
        totals = member.store.ledger.totals
        assert fee_sats == lineage.versions[0].fee_sats > 0
        assert (totals.fund_sats, totals.deficit_sats) == (federation.rules.params.claim_fee_sats - fee_sats, 0)
        assert all(one.core.halt_findings == [] for one in federation.members.values())
