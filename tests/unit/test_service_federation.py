"""Four whole members in one process: money in, money moved, money out, and members that come and go."""

import pytest
import trio

from bridge.bitcoin.identifiers import Script
from bridge.bitcoin.transaction import Transaction, TxOut
from bridge.state import WithdrawalStatus
from bridge.tables import Table
from tests.support.members import MemoryFederation, memory_federation
from tests.support.mini_wallet import Coin, MiniWallet
from tests.support.peg import p2tr

ALL = (0, 1, 2, 3)
ALICE = MiniWallet("alice")
BOB = MiniWallet("bob")
PAYEE = p2tr("payee")
ONE_IS_ENOUGH = {"batch_min_payouts": 1}
BURNED_SATS = 1_000_000


def burn_from(federation: MemoryFederation, coin: Coin) -> Transaction:
    """A transaction of Alice's that burns some of a coin."""
    burn = federation.burn_output(BURNED_SATS, PAYEE, ALICE.script())
    change = TxOut(coin[1].value_sats - BURNED_SATS - 1_000, ALICE.script())
    return ALICE.spend([coin], [burn, change])


async def chain_of_payments(federation: MemoryFederation, coin: Coin, count: int) -> None:
    """Payments, one after the other, each in a block of its own."""
    for _ in range(count):
        payment = ALICE.pay(coin, ALICE.script())
        next(iter(federation.members.values())).relay.submit_transaction(payment.serialize())
        await federation.settled(payment)
        coin = (payment.outpoint(0), payment.outputs[0])


def require_sound(federation: MemoryFederation) -> None:
    """The equality holds everywhere, by the terms and by a recount."""
    for member in federation.members.values():
        totals = member.store.ledger.totals
        assert totals.reserves_sats + totals.deficit_sats == (
            totals.supply_sats + totals.unsettled_sats + totals.fund_sats
        )
        assert member.store.begin_recount().finish().findings == ()
        assert member.core.halt_findings == []


def keys(table: Table) -> list[object]:  # type: ignore[type-arg]
    return [key for key, _ in table.items()]


async def test_members_finalize_a_deposit_and_a_transfer(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL) as federation:
        coin = await federation.fund(ALICE)
        payment = ALICE.pay(coin, BOB.script())
        await federation.members[2].live.submit_transaction(payment.serialize())
        await federation.settled(payment)
        await federation.all_at(federation.height)
        assert all(len(member.core.mempool) == len(member.core.evidence) == 0 for member in federation.members.values())
        require_sound(federation)


async def test_burn_is_paid_out_and_settled(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL, peg=ONE_IS_ENOUGH) as federation:
        burn = burn_from(federation, await federation.fund(ALICE))
        await federation.members[1].live.submit_transaction(burn.serialize())
        await federation.settled(burn)
        await federation.until(lambda: len(federation.l1.mempool) == 1)
        [payout] = federation.l1.mempool.values()
        assert payout.outputs[0].script == PAYEE
        progress = [member.live.payout_progress(payout.txid) for member in federation.members.values()]
        assert all(item is not None and item.signed and item.confirmations == 0 for item in progress)

        federation.bury()
        ledgers = [member.store.ledger for member in federation.members.values()]
        await federation.until(lambda: all(payout.txid in ledger.versions for ledger in ledgers))
        await federation.until(lambda: not any(keys(ledger.open_lineages) for ledger in ledgers))
        withdrawal = ledgers[0].withdrawal(burn.outpoint(0))
        assert withdrawal is not None
        assert (withdrawal.status, withdrawal.payout) == (WithdrawalStatus.SETTLED, payout.outpoint(0))
        require_sound(federation)


async def test_idle_chain_lives_by_its_heartbeat(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL) as federation:
        await trio.sleep(65)
        height = federation.height
        assert 5 <= height <= 7, "a block every ten seconds"
        await federation.all_at(height)


async def test_member_cut_off_catches_up(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL) as federation:
        coin = await federation.fund(ALICE)
        federation.isolate(3)
        cut_off = federation.members.pop(3)
        await chain_of_payments(federation, coin, 5)
        height = federation.height
        assert cut_off.height < height - 3
        federation.members[3] = cut_off
        federation.network.heal()
        await federation.all_at(height)
        await federation.until(lambda: cut_off.driver is not None and cut_off.driver.watch.last_vote(3) is not None)
        assert cut_off.core.unfinal.view(cut_off.store.tip.hash) is cut_off.store
        require_sound(federation)


async def test_federation_goes_on_without_one_and_stops_without_two(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL) as federation:
        await federation.fund(ALICE)
        await federation.stop(2)
        height = federation.height
        await federation.until(lambda: federation.height >= height + 3)
        await federation.stop(3)
        height = federation.height
        await trio.sleep(120)
        assert federation.height <= height + 1
        stands = federation.members[0].live.status().stall
        assert stands is not None
        assert stands.why.startswith("3 of 4 needed, 2 reachable; member-2 missing since"), stands.why
        await federation.start(2)
        await federation.all_at(height + 3)
        assert federation.members[0].live.status().stall is None


async def test_member_restarts_from_its_disk(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL) as federation:
        coin = await federation.fund(ALICE)
        await federation.stop(1)
        federation.disks[1].entries.lose_unsynced()
        await chain_of_payments(federation, coin, 3)
        await federation.start(1)
        await federation.all_at(federation.height)
        heads = {view: member.store.tip.hash for view, member in federation.members.items()}
        await federation.until(lambda: all(member.store.tip.hash != heads[0] for member in federation.members.values()))
        require_sound(federation)


async def test_members_killed_at_any_moment_lose_no_decision(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL) as federation:
        coin = await federation.fund(ALICE)
        for round_number in range(24):
            index = round_number % 4
            await trio.sleep(0.3 + 0.037 * round_number)
            final = federation.members[index].store.tip
            await federation.stop(index)
            federation.disks[index].entries.lose_unsynced()
            await federation.start(index)
            assert federation.members[index].store.tip == final
        await chain_of_payments(federation, coin, 2)
        await federation.all_at(federation.height)
        require_sound(federation)


@pytest.mark.parametrize("after_s", [0.002, 0.008, 0.013, 0.02])
async def test_whole_federation_restarts_amid_a_block(after_s: float, autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL) as federation:
        coin = await federation.fund(ALICE)
        await trio.sleep(1)
        payment = ALICE.pay(coin, BOB.script())
        federation.members[0].relay.submit_transaction(payment.serialize())
        await trio.sleep(after_s)
        for index in ALL:
            await federation.stop(index)
            federation.disks[index].entries.lose_unsynced()
        await federation.start(*ALL)
        stores = [member.store for member in federation.members.values()]
        if not any(store.index.transaction(payment.txid) for store in stores):
            federation.members[0].relay.submit_transaction(payment.serialize())
        await federation.settled(payment)
        require_sound(federation)


async def test_full_node_follows_serves_and_passes_on(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL) as federation:
        coin = await federation.fund(ALICE)
        node = await federation.start_full_node()
        await federation.until(lambda: node.height >= federation.height)
        payment = ALICE.pay(coin, BOB.script())
        await node.live.submit_transaction(payment.serialize())
        await federation.settled(payment)
        claim_script = Script(BOB.script())
        await node.live.register_deposits([claim_script])
        await federation.until(
            lambda: all(claim_script in member.core.registry for member in federation.members.values())
        )
        await federation.until(lambda: node.store.index.transaction(payment.txid) is not None)
        assert node.live.status().member is None
        assert {peer.member for peer in node.live.peers()} == set(ALL)
        assert all(member.dropped == [] for member in [node, *federation.members.values()])
