"""Thieves who hold a quorum's custody keys spend the reserve without the ledger.

No rule of the sidechain can stop what Bitcoin's own rules allow. But whoever is honest notices at once, does no more
work on L1 that a thief could feed on, keeps people's transfers going, and says what is gone, to the satoshi, until a
quorum of votes has decided what that means. (Ronin 2022: the theft was noticed six days later, by a user.)
"""

import trio

from bridge.bitcoin.identifiers import OutPoint, hash_to_hex
from bridge.bitcoin.transaction import Transaction, TxOut
from bridge.records import Deficit, Finding, LostCoin, Resume
from bridge.state import Coin
from pegnode.service.core import SUSPICION_MS
from tests.support.chain import custody_secrets
from tests.support.members import MemoryFederation, memory_federation
from tests.support.mini_wallet import MiniWallet
from tests.support.peg import p2tr
from tests.support.records import record_of, signed
from tests.support.thieves import stolen

ALL = (0, 1, 2, 3)
ALICE, BOB, CAROL = MiniWallet("alice"), MiniWallet("bob"), MiniWallet("carol")
PEG = {"batch_min_payouts": 1}
HALTED_WITHIN_S = SUSPICION_MS / 1000 + 20
THIEF = p2tr("thief")


def coins_of(running: MemoryFederation) -> list[Coin]:
    return [coin for _, coin in running.members[0].store.ledger.coins.items()]


def theft_of(running: MemoryFederation, *coins: Coin, fee_sats: int = 10_000) -> Transaction:
    """These coins, spent with the keys of members 1 to 3, who know nothing of it."""
    keys = {index: custody_secrets()[index] for index in (1, 2, 3)}
    return stolen(coins, running.rules.custody, keys, THIEF, fee_sats)


async def all_find(running: MemoryFederation, *outpoints: OutPoint) -> None:
    """Every member has halted for exactly these coins."""
    wanted = {Finding.coin_gone(outpoint) for outpoint in outpoints}
    await running.until(
        lambda: all(
            {item.finding for item in member.core.active_findings()} == wanted for member in running.members.values()
        ),
        HALTED_WITHIN_S,
    )


async def test_theft_halts_every_member_and_people_go_on_paying(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL, peg=PEG) as running:
        funds = await running.fund(ALICE, 20_000_000)
        [coin] = coins_of(running)
        theft = theft_of(running, coin)
        await running.nodes[3].send_raw_transaction(theft.serialize())
        await all_find(running, coin.outpoint)
        for member in running.members.values():
            [said] = member.core.halt_findings
            assert said.startswith(f"the reserve coin {coin.outpoint} of 0.20000000 BTC is being spent on L1 by ")
            assert hash_to_hex(theft.txid) in said

        paid = ALICE.pay(funds, BOB.script())
        running.members[2].relay.submit_transaction(paid.serialize())
        await running.settled(paid)
        burn = running.burn_output(5_000_000, p2tr("payee"), BOB.script())
        coin_of_bob = (paid.outpoint(0), paid.outputs[0])
        rest = TxOut(paid.outputs[0].value_sats - 5_001_000, BOB.script())
        burned = BOB.spend([coin_of_bob], [burn, rest])
        running.members[1].relay.submit_transaction(burned.serialize())
        await running.settled(burned)
        for member in running.members.values():
            member.relay.register(CAROL.script())
        running.pay_deposit(CAROL.script(), 3_000_000)
        running.bury()
        await trio.sleep(60)
        for member in running.members.values():
            assert list(member.store.ledger.open_lineages.items()) == [], "no payout is decided"
            assert coins_of(running) == [coin], "no deposit is credited"
            assert member.store.ledger.totals.unsettled_sats == 5_000_000, "what was burned is owed"


async def test_theft_that_replaces_a_payout_under_way_is_no_version_of_it(autojump_clock: trio.abc.Clock) -> None:
    """The thief pays more than the members' own payout of the same coin does, and takes its place."""
    async with memory_federation(*ALL, peg=PEG) as running:
        funds = await running.fund(ALICE, 20_000_000)
        burn = running.burn_output(5_000_000, p2tr("payee"), ALICE.script())
        rest = TxOut(funds[1].value_sats - 5_001_000, ALICE.script())
        running.members[0].relay.submit_transaction(ALICE.spend([funds], [burn, rest]).serialize())
        await running.until(lambda: running.l1.mempool)
        [payout] = running.l1.mempool
        [coin] = coins_of(running)
        theft = theft_of(running, coin, fee_sats=500_000)
        await running.nodes[3].send_raw_transaction(theft.serialize())
        assert payout not in running.l1.mempool
        running.l1.mine()
        await all_find(running, coin.outpoint)


async def test_theft_of_all_coins_names_each(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL) as running:
        for number in range(3):
            await running.fund(MiniWallet(f"user {number}"), 1_000_000 + number)
        coins = coins_of(running)
        running.l1.chain.mine(theft_of(running, *coins))
        await all_find(running, *(coin.outpoint for coin in coins))


async def test_member_that_starts_after_the_theft_finds_it_too(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL) as running:
        await running.fund(ALICE, 20_000_000)
        [coin] = coins_of(running)
        await running.stop(3)
        running.l1.chain.mine(theft_of(running, coin))
        running.l1.mine(20)
        await all_find(running, coin.outpoint)
        await running.start(3)
        node = await running.start_full_node()
        await all_find(running, coin.outpoint)
        await running.until(node.core.active_findings, HALTED_WITHIN_S)


async def test_only_a_quorums_records_end_the_halt_and_each_must_be_booked_or_named(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with memory_federation(*ALL, peg=PEG) as running:
        for wallet in (ALICE, BOB):
            await running.fund(wallet, 20_000_000)
        one, two = coins_of(running)
        member, rules = running.members[0], running.rules
        running.l1.chain.mine(theft_of(running, one, two))
        running.bury()
        await all_find(running, one.outpoint, two.outpoint)

        async def decide(*contents: Deficit | Resume) -> None:
            first = member.store.ledger.totals.record_serial + 1
            for serial, content in enumerate(contents, first):
                member.records.submit(signed(record_of(rules, content, serial)))
            last = first + len(contents) - 1
            await running.until(
                lambda: all(each.store.ledger.totals.record_serial == last for each in running.members.values())
            )

        booked = Deficit.of([LostCoin(one.outpoint, one.value_sats)])
        await decide(booked, Resume.of([Finding.coin_gone(one.outpoint)]))
        assert all(len(each.core.active_findings()) == 2 for each in running.members.values()), "one was left out"
        await running.stop(3)
        await running.start(3)
        assert len(running.members[3].core.active_findings()) == 2, "nor does a restart end it"

        await decide(Deficit.of([LostCoin(two.outpoint, two.value_sats)]), Resume.of([Finding.coin_gone(two.outpoint)]))
        await running.until(lambda: not any(each.core.halted for each in running.members.values()))
        totals = member.store.ledger.totals
        assert (totals.reserves_sats, totals.deficit_sats) == (0, 40_000_000)
        await trio.sleep(HALTED_WITHIN_S)
        assert not any(each.core.halted for each in running.members.values()), "and nothing finds it again"
        await running.fund(CAROL, 3_000_000)
        assert member.store.ledger.totals.reserves_sats == 3_000_000
