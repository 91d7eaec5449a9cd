"""Who spends the reserve: what halts a node, and all that looks like it for a while and must not."""

from dataclasses import replace

import pytest
import trio

from bridge.bitcoin.identifiers import OutPoint, Txid, hash_to_hex
from bridge.bitcoin.transaction import Transaction, TxIn, TxOut
from bridge.l1.errors import L1Reason, L1Unavailable
from bridge.records import Finding
from bridge.state import Coin
from pegnode.service.core import SUSPICION_GAP_MS, SUSPICION_MS
from pegnode.service.reserve_watch import LOOK_EVERY_S, MAX_REST_S, Sight, coin_findings
from tests.support.chain import custody_secrets
from tests.support.fake_l1 import FakeBlock
from tests.support.members import Member, MemoryFederation, memory_federation
from tests.support.mini_wallet import MiniWallet
from tests.support.peg import p2tr
from tests.support.signers import federation as members_of
from tests.support.signers import ledger_with_payout
from tests.support.thieves import stolen

ALL = (0, 1, 2, 3)
ALICE, BOB = MiniWallet("alice"), MiniWallet("bob")
PEG = {"batch_min_payouts": 1}
DEPOSIT_SATS = 10_000_000
HALT_S = SUSPICION_MS / 1000
SOME_LOOKS_S = 3 * LOOK_EVERY_S
THIEF = p2tr("thief")


def the_coin(running: MemoryFederation) -> Coin:
    [(_, coin)] = running.members[0].store.ledger.coins.items()
    return coin


def theft_of(running: MemoryFederation) -> Transaction:
    """The only coin, spent by a quorum's keys."""
    keys = dict(enumerate(custody_secrets()[:3]))
    return stolen([the_coin(running)], running.rules.custody, keys, THIEF)


def burn_some(running: MemoryFederation, funds: tuple[OutPoint, TxOut]) -> None:
    """Ask for a payout of a million satoshis."""
    burn = running.burn_output(1_000_000, p2tr("payee"), ALICE.script())
    change = TxOut(funds[1].value_sats - 1_001_000, ALICE.script())
    running.members[0].relay.submit_transaction(ALICE.spend([funds], [burn, change]).serialize())


async def payout_waits(running: MemoryFederation) -> Txid:
    """A payout that is in the mempool."""
    burn_some(running, await running.fund(ALICE, DEPOSIT_SATS))
    await running.until(lambda: running.l1.mempool)
    [txid] = running.l1.mempool
    return txid


async def nobody_halts(running: MemoryFederation, seconds: float = HALT_S + SOME_LOOKS_S) -> None:
    """Let time pass in which nobody is even suspicious."""
    deadline_s = trio.current_time() + seconds
    while trio.current_time() < deadline_s:
        for member in running.members.values():
            assert not member.core.halted, (member.index, member.core.halt_findings, member.core.suspicions())
        await trio.sleep(0.5)


async def all_halted(running: MemoryFederation, seconds: float = HALT_S + SOME_LOOKS_S) -> list[str]:
    """What the first member says once all are halted."""
    members = running.members.values()
    await running.until(lambda: all(member.core.active_findings() for member in members), seconds)
    return running.members[0].core.halt_findings


def findings_of(member: Member) -> list[Finding]:
    return [item.finding for item in member.core.active_findings()]


# What the ledger explains, and what not


def test_coin_is_explained_by_a_version_of_the_lineage_that_locks_it_and_by_nothing_else() -> None:
    ledger, version = ledger_with_payout(members_of(4))
    coins = {outpoint: coin for outpoint, coin in ledger.coins.items()}  # noqa: C416
    locked = next(coin for coin in coins.values() if coin.lineage is not None)
    free = next(coin for coin in coins.values() if coin.lineage is None)
    thief = Txid(b"\x07" * 32)
    assert coin_findings(ledger, Sight({}, {locked.outpoint: version.txid})) == {}
    foreign = {locked.outpoint: thief, free.outpoint: version.txid}
    assert coin_findings(ledger, Sight({}, foreign)).keys() == {Finding.coin_gone(outpoint) for outpoint in foreign}
    nobodys = OutPoint(thief, 0)
    assert coin_findings(ledger, Sight({nobodys: None}, {nobodys: thief})) == {}, "it is no coin any more"


def test_finding_names_coin_value_and_spender() -> None:
    ledger, _ = ledger_with_payout(members_of(4))
    one, two, three, *_ = [coin for _, coin in ledger.coins.items()]
    thief = Txid(b"\x07" * 32)
    sight = Sight({one.outpoint: thief, two.outpoint: None}, {three.outpoint: thief})
    found = coin_findings(ledger, sight)
    who = hash_to_hex(thief)

    def named(coin: Coin) -> str:
        return f"the reserve coin {coin.outpoint} of {coin.value_sats / 100_000_000:.8f} BTC"

    assert list(found.values()) == [
        f"{named(one)} was spent on L1 by {who}, which is no payout of the ledger",
        f"{named(two)} is gone from L1, and no payout of the ledger spent it",
        f"{named(three)} is being spent on L1 by {who}, which waits in the mempool, and is no payout of the ledger",
    ]


# Theft


async def test_foreign_spend_in_the_mempool_halts_everybody_after_a_minute(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL) as running:
        await running.fund(ALICE, DEPOSIT_SATS)
        theft = theft_of(running)
        await running.nodes[0].send_raw_transaction(theft.serialize())
        await running.until(lambda: all(member.core.halted for member in running.members.values()), SOME_LOOKS_S)
        await trio.sleep(HALT_S - SOME_LOOKS_S)
        assert all(member.core.halt_findings == [] for member in running.members.values()), "it is a suspicion"
        assert any("is being spent" in item for item in running.members[0].live.status().waiting_for)
        [said] = await all_halted(running)
        assert f"{hash_to_hex(theft.txid)}, which waits in the mempool" in said
        assert all(
            findings_of(member) == [Finding.coin_gone(the_coin(running).outpoint)]
            for member in running.members.values()
        )


async def test_foreign_spend_in_a_block_halts_and_names_the_spender(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL) as running:
        await running.fund(ALICE, DEPOSIT_SATS)
        coin, theft = the_coin(running), theft_of(running)
        running.l1.chain.mine(theft)
        [said] = await all_halted(running)
        spender = hash_to_hex(theft.txid)
        what = f"the reserve coin {coin.outpoint} of 0.10000000 BTC was spent on L1 by {spender}"
        assert said == f"{what}, which is no payout of the ledger"


async def test_foreign_spend_counts_on_from_the_mempool_into_a_block(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL) as running:
        await running.fund(ALICE, DEPOSIT_SATS)
        began_s = trio.current_time()
        await running.nodes[0].send_raw_transaction(theft_of(running).serialize())
        await trio.sleep(HALT_S / 2)
        running.l1.mine()
        [said] = await all_halted(running)
        assert trio.current_time() - began_s < HALT_S + SOME_LOOKS_S
        assert "was spent on L1" in said


async def test_halt_for_a_stolen_coin_stays_though_the_coin_returns(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL) as running:
        await running.fund(ALICE, DEPOSIT_SATS)
        await running.nodes[0].send_raw_transaction(theft_of(running).serialize())
        await all_halted(running)
        running.l1.mempool.clear()
        await trio.sleep(SOME_LOOKS_S)
        assert all(member.core.halted for member in running.members.values())
        await running.stop(0)
        await running.start(0)
        assert findings_of(running.members[0]) == [Finding.coin_gone(the_coin(running).outpoint)]


async def test_payout_of_a_closed_batch_is_foreign_to_a_free_coin(autojump_clock: trio.abc.Clock) -> None:
    """A thief may show again what the members once signed, with another coin in it: only open batches count."""
    async with memory_federation(*ALL, peg=PEG) as running:
        await payout_waits(running)
        running.bury()
        await running.until(lambda: not list(running.members[0].store.ledger.open_lineages.items()))
        ledger = running.members[0].store.ledger
        coin = next(coin for _, coin in ledger.coins.items() if coin.lineage is None)
        [lineage] = ledger.lineages_newest_first()
        found = coin_findings(ledger, Sight({}, {coin.outpoint: lineage.versions[0].txid}))
        assert list(found) == [Finding.coin_gone(coin.outpoint)]


# What is no theft


async def test_own_payout_in_the_mempool_and_in_blocks_halts_nobody(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL, peg=PEG) as running:
        txid = await payout_waits(running)
        await nobody_halts(running)
        running.l1.mine()
        await nobody_halts(running)
        assert running.members[0].core.watcher.block_of(txid) is not None, "confirmed, and not settled"


@pytest.mark.parametrize("is_indexed", [True, False])
async def test_own_payout_that_was_confirmed_before_the_window_halts_nobody(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch, is_indexed: bool
) -> None:
    """No quorum ran for days: the payout is known by the index, by its outputs, or else can't be judged."""
    async with memory_federation(*ALL, peg=PEG) as running:
        txid = await payout_waits(running)
        await running.stop(2)
        await running.stop(3)
        running.l1.mine(1)
        payout = running.l1.chain.blocks[-1].transactions[1]
        running.l1.chain.mine(
            *[Transaction(2, (TxIn(payout.outpoint(vout)),), (TxOut(1, THIEF),)) for vout in range(len(payout.outputs))]
        )
        running.l1.mine(300)
        for node in running.nodes.values():
            node.is_indexed = is_indexed
        for member in (running.members[0], running.members[1]):
            monkeypatch.setattr(member.reserve_watch, "_is_current", lambda: True)
        await running.until(
            lambda: running.members[0].core.watcher.tip == running.l1.chain.anchor(running.l1.chain.height)
        )
        assert running.members[0].core.watcher.block_of(txid) is None
        await nobody_halts(running)


async def test_payout_that_no_index_tells_of_is_known_by_its_outputs(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL, peg=PEG) as running:
        await payout_waits(running)
        await running.stop(2)
        await running.stop(3)
        running.l1.mine(300)
        member, node = running.members[0], running.nodes[0]
        node.is_indexed = False
        member.reserve_watch._is_current = lambda: True
        await running.until(lambda: member.core.watcher.tip == running.l1.chain.anchor(running.l1.chain.height))
        node.asked.clear()
        await member.reserve_watch.look()
        assert not member.core.halted
        assert "has_transaction_index" not in node.asked, "its outputs told"


async def test_replacement_and_what_a_payee_does_with_its_output_halt_nobody(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL, peg=PEG) as running:
        first = await payout_waits(running)
        payout = running.l1.mempool[first]
        child = Transaction(2, (TxIn(payout.outpoint(0)),), (TxOut(1_000, BOB.script()),))
        running.l1.mempool[child.txid] = child
        for node in running.nodes.values():
            node.feerate_sat_kvb = 4_000
        running.l1.chain.mine_empty(running.rules.params.replacement_interval_anchors)
        await running.until(lambda: first not in running.l1.mempool)
        del running.l1.mempool[child.txid]
        [second] = running.l1.mempool
        assert second != first
        await nobody_halts(running)
        running.l1.mempool = {first: payout}  # as after a block with the other was reorganised away
        await nobody_halts(running)


async def test_ledger_that_lags_makes_nobody_suspicious(autojump_clock: trio.abc.Clock) -> None:
    """Member 3 is cut off while the others record, sign and settle a payout that its own Bitcoin node sees."""
    async with memory_federation(*ALL, peg=PEG) as running:
        funds = await running.fund(ALICE, DEPOSIT_SATS)
        running.isolate(3)
        await trio.sleep(1)
        burn_some(running, funds)
        await running.until(lambda: running.l1.mempool)
        await nobody_halts(running)
        running.bury()
        members = [running.members[index] for index in (0, 1, 2)]
        await running.until(lambda: all(not list(one.store.ledger.open_lineages.items()) for one in members))
        assert list(running.members[3].store.ledger.open_lineages.items()) == []
        assert running.members[3].height < running.height
        await nobody_halts(running)
        for other in (0, 1, 2):
            running.network.mend(running.peer_id(3), running.peer_id(other))
        await running.until(lambda: running.members[3].height >= members[0].height)
        await nobody_halts(running)


async def test_payout_that_comes_before_its_block_is_suspected_and_no_more(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0, peg=PEG) as running:
        member = running.members[0]
        running.fund_by_hand(member, ALICE)
        await trio.sleep(SOME_LOOKS_S)
        keys = dict(enumerate(custody_secrets()[:3]))
        early = stolen([the_coin(running)], running.rules.custody, keys, THIEF)
        await running.nodes[0].send_raw_transaction(early.serialize())
        await running.until(lambda: member.core.halted, SOME_LOOKS_S)
        running.l1.mempool.clear()
        await trio.sleep(SOME_LOOKS_S)
        assert not member.core.halted
        await trio.sleep(HALT_S)
        assert member.core.halt_findings == []


@pytest.mark.parametrize("depth", [1, 5])
async def test_reorganisation_above_the_anchor_halts_nobody(autojump_clock: trio.abc.Clock, depth: int) -> None:
    """The blocks with the payout are abandoned; it waits in the mempool again, is evicted, and is offered again."""
    async with memory_federation(*ALL, peg=PEG) as running:
        txid = await payout_waits(running)
        chain = running.l1.chain
        running.l1.mine(depth)
        await running.until(lambda: running.members[0].core.watcher.block_of(txid) is not None)
        await trio.sleep(SOME_LOOKS_S)
        del chain.blocks[-depth:]
        chain.mine(chain.payment(TxOut(1_000, p2tr("other"))))
        chain.mine_empty(depth)
        await nobody_halts(running, SOME_LOOKS_S)
        [(_, lineage)] = running.members[0].store.ledger.open_lineages.items()
        assert running.l1.mempool.keys() & {version.txid for version in lineage.versions}, "it was offered again"
        running.bury()
        await running.until(lambda: not list(running.members[0].store.ledger.open_lineages.items()))
        await nobody_halts(running)


async def test_coin_whose_transaction_waits_again_is_not_gone(autojump_clock: trio.abc.Clock) -> None:
    """As after a deep reorganisation that was resumed from: its deposit was mined again, and then that block went."""
    async with memory_federation(0) as running:
        member = running.members[0]
        running.fund_by_hand(member, ALICE)
        chain, coin = running.l1.chain, the_coin(running)
        block = next(one for one in chain.blocks if coin.outpoint.txid in {tx.txid for tx in one.transactions})
        deposit = block.transactions[1]
        chain.blocks[block.height] = _same_but_empty(block)
        running.l1.mempool[deposit.txid] = deposit
        await trio.sleep(SOME_LOOKS_S)
        await member.reserve_watch.look()
        assert not member.core.halted
        running.l1.mempool.clear()
        await member.reserve_watch.look()
        assert "is gone from L1" in member.core.suspicions()[0]


def _same_but_empty(block: FakeBlock) -> FakeBlock:
    return replace(block, transactions=block.transactions[:1])


async def test_nothing_is_judged_while_the_bitcoin_node_is_elsewhere(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0) as running:
        member, node, watch = running.members[0], running.nodes[0], running.members[0].reserve_watch
        watcher, chain = member.core.watcher, running.l1.chain
        watch._is_current = lambda: False
        running.fund_by_hand(member, ALICE)
        chain.mine(theft_of(running))
        await running.until(lambda: watcher.tip == chain.anchor(chain.height))
        await watch.look()
        watch._is_current = lambda: True

        newest = watcher._blocks.pop()
        await watch.look()
        watcher._blocks.append(newest)

        def grow(method: str) -> None:
            if method == "mempool_spenders":
                running.l1.mine()

        node.on_ask = grow
        await watch.look()
        node.on_ask = None

        await running.until(lambda: watcher.tip == chain.anchor(chain.height))
        node.refusals = {"txouts": L1Unavailable(L1Reason.TIMEOUT)}
        with pytest.raises(L1Unavailable):
            await watch.look()
        node.refusals = {}

        assert not member.core.halted
        await watch.look()
        assert member.core.halted


async def test_look_asks_for_each_coin_once_a_tip(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0) as running:
        member, node = running.members[0], running.nodes[0]
        running.fund_by_hand(member, ALICE)
        await trio.sleep(1)
        asked: list[int] = []
        txouts = node.txouts

        async def counted(outpoints: list[OutPoint], include_mempool: bool) -> object:
            asked.append(len(outpoints))
            return await txouts(outpoints, include_mempool)

        node.txouts = counted  # type: ignore[method-assign, assignment]
        for _ in range(3):
            await member.reserve_watch.look()
        assert sum(asked) == 1
        running.l1.mine()
        await trio.sleep(1)
        await member.reserve_watch.look()
        assert sum(asked) == 2


def test_one_look_may_fail_and_a_suspicion_lasts() -> None:
    assert 2 * LOOK_EVERY_S * 1000 < SUSPICION_GAP_MS
    assert MAX_REST_S * 1000 < SUSPICION_GAP_MS
