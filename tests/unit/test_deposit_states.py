"""What users are told of a deposit: every state, from the mempool of L1 to the sidechain's final blocks."""

from pathlib import Path

import pytest
import trio

from bridge.bitcoin.identifiers import OutPoint
from bridge.bitcoin.transaction import Transaction, TxIn, TxOut
from bridge.l1.errors import L1RpcError
from pegnode.rpc.deposit_states import DepositStatus
from pegnode.service import deposit_report
from tests.support.deposits import ALL, DEPOSIT_SATS, NEEDED, coinbase_deposit, entered, only_deposit
from tests.support.members import MemoryFederation, memory_federation
from tests.support.mini_wallet import MiniWallet

ALICE = MiniWallet("alice")
BOB = MiniWallet("bob")
LOOK_S = 3
"""After so long, both watchers have looked."""


def unconfirmed(federation: MemoryFederation, value_sats: int = DEPOSIT_SATS) -> Transaction:
    """A deposit of Alice's in the mempool."""
    payment = federation.l1.chain.payment(TxOut(value_sats, federation.deposit_script(ALICE.script())))
    federation.l1.mempool[payment.txid] = payment
    return payment


async def test_deposit_is_unconfirmed_then_confirming_then_claimed(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL) as federation:
        member, script = federation.members[0], ALICE.script()
        member.relay.register(script)
        deposit = unconfirmed(federation).outpoint(0)
        await trio.sleep(LOOK_S)
        first = await only_deposit(member, script)
        assert (first.status, first.outpoint, first.value_sats) == (DepositStatus.UNCONFIRMED, deposit, DEPOSIT_SATS)
        assert (first.l1_height, first.confirmations, first.blocks_left) == (None, 0, NEEDED)
        for confirmations in range(1, NEEDED):
            federation.l1.mine(1)
            await trio.sleep(LOOK_S)
            info = await only_deposit(member, script)
            assert (info.status, info.confirmations) == (DepositStatus.CONFIRMING, confirmations)
            assert (info.blocks_left, info.confirmations_needed) == (NEEDED - confirmations, NEEDED)
            assert info.anchor_height == info.l1_height
            assert info.claim_txid == first.claim_txid
        federation.l1.mine(1)
        await federation.until(lambda: entered(member, deposit))
        info = await only_deposit(member, script)
        assert (info.status, info.claim_txid, info.claim_height) == (
            DepositStatus.CLAIMED, first.claim_txid, member.height,
        )  # fmt: skip
        assert (info.anchor_height, info.blocks_left, info.openings_before) == (None, None, None)


async def test_deposit_that_leaves_the_mempool_has_vanished_until_it_is_back(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0) as federation:
        member, script = federation.members[0], ALICE.script()
        member.relay.register(script)
        payment = unconfirmed(federation)
        await trio.sleep(LOOK_S)
        del federation.l1.mempool[payment.txid]
        await trio.sleep(LOOK_S)
        info = await only_deposit(member, script)
        assert (info.status, info.claim_txid, info.blocks_left) == (DepositStatus.VANISHED, None, None)
        federation.l1.mempool[payment.txid] = payment
        await trio.sleep(LOOK_S)
        assert (await only_deposit(member, script)).status is DepositStatus.UNCONFIRMED
        federation.l1.mine(1)
        await trio.sleep(LOOK_S)
        assert (await only_deposit(member, script)).status is DepositStatus.CONFIRMING


async def test_deposit_whose_block_l1_gave_up_waits_again_or_has_vanished(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0) as federation:
        member, chain = federation.members[0], federation.l1.chain
        member.relay.register(ALICE.script(), BOB.script())
        payments = [chain.payment(TxOut(DEPOSIT_SATS, federation.deposit_script(who.script()))) for who in (ALICE, BOB)]
        chain.mine(*payments)
        await trio.sleep(LOOK_S)
        chain.blocks.pop()
        chain.mine_empty(2)
        federation.l1.mempool[payments[0].txid] = payments[0]  # and Bob's was spent otherwise
        await trio.sleep(LOOK_S)
        assert (await only_deposit(member, ALICE.script())).status is DepositStatus.UNCONFIRMED
        assert (await only_deposit(member, BOB.script())).status is DepositStatus.VANISHED
        federation.l1.mine(1)
        await trio.sleep(LOOK_S)
        assert (await only_deposit(member, ALICE.script())).confirmations == 1


async def test_deposit_below_the_minimum_is_named_before_and_after_it_went_to_the_fund(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with memory_federation(*ALL) as federation:
        member, script = federation.members[0], ALICE.script()
        member.relay.register(script)
        small = unconfirmed(federation, federation.rules.params.min_deposit_sats - 1).outpoint(0)
        for blocks in (0, 1):
            federation.l1.mine(blocks) if blocks else None
            await trio.sleep(LOOK_S)
            info = await only_deposit(member, script)
            assert (info.status, info.claim_txid) == (DepositStatus.BELOW_MINIMUM, None)
            assert info.blocks_left == NEEDED - blocks
        federation.bury()
        await federation.until(lambda: entered(member, small))
        info = await only_deposit(member, script)
        assert (info.status, info.claim_txid, info.blocks_left) == (DepositStatus.DONATED, None, None)
        totals = member.store.ledger.totals
        assert (totals.supply_sats, totals.fund_sats) == (0, info.value_sats)


async def test_deposit_below_the_floor_never_enters(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL) as federation:
        member, script = federation.members[0], ALICE.script()
        member.relay.register(script)
        dust = unconfirmed(federation, federation.rules.params.coin_floor_sats - 1).outpoint(0)
        await trio.sleep(LOOK_S)
        assert (await only_deposit(member, script)).status is DepositStatus.BELOW_FLOOR
        other = await federation.fund(BOB)
        assert other is not None
        info = await only_deposit(member, script)
        assert (info.status, info.outpoint, info.claim_txid) == (DepositStatus.BELOW_FLOOR, dust, None)
        assert not entered(member, dust)


async def test_deposit_of_a_coinbase_is_immature_until_its_anchor(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL) as federation:
        member, script = federation.members[0], ALICE.script()
        member.relay.register(script)
        deposit = coinbase_deposit(federation, script, DEPOSIT_SATS)
        height = federation.l1.chain.height
        federation.l1.mine(20)
        await trio.sleep(LOOK_S)
        info = await only_deposit(member, script)
        assert (info.status, info.confirmations, info.confirmations_needed) == (DepositStatus.IMMATURE, 21, 100)
        assert (info.anchor_height, info.blocks_left) == (height + 100 - NEEDED, 79)
        federation.l1.mine(79)
        await federation.until(lambda: entered(member, deposit))
        assert member.store.tip.header.anchor.height == info.anchor_height


async def test_deposit_that_the_node_was_not_told_to_look_for_is_unwatched(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL) as federation:
        member, script = federation.members[0], ALICE.script()
        federation.pay_deposit(script, DEPOSIT_SATS)
        federation.bury()
        await trio.sleep(LOOK_S)
        assert (await only_deposit(member, script)).status is DepositStatus.UNWATCHED
        await member.live.register_deposits([script])
        await trio.sleep(LOOK_S)
        assert (await only_deposit(member, script)).status is DepositStatus.CLAIMED


async def test_deposit_awaits_its_anchor_while_no_quorum_has_come_as_far(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL) as federation:
        member, script = federation.members[0], ALICE.script()
        member.relay.register(script)
        for index in (1, 2, 3):
            federation.nodes[index].lag_blocks = 4
        federation.pay_deposit(script, DEPOSIT_SATS)
        federation.l1.mine(NEEDED - 1)
        await trio.sleep(LOOK_S)
        info = await only_deposit(member, script)
        assert (info.status, info.blocks_left) == (DepositStatus.AWAITING_ANCHOR, 0)
        assert info.anchor_height == info.l1_height
        assert info.l1_height is not None
        assert info.l1_height > member.store.tip.header.anchor.height


async def test_deposits_beyond_what_a_block_takes_are_queued(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL, peg={"max_openings": 1}) as federation:
        member, script = federation.members[0], ALICE.script()
        first = federation.pay_deposit(script, DEPOSIT_SATS)
        second = federation.pay_deposit(script, 2 * DEPOSIT_SATS)
        await federation.fund(BOB)  # later, so the anchor is beyond both
        for index in (2, 3):
            await federation.stop(index)
        member.relay.register(script)
        await trio.sleep(LOOK_S)
        infos = {info.outpoint: info for info in await member.live.deposits((script,))}
        assert (infos[first].status, infos[first].openings_before) == (DepositStatus.CLAIMABLE, 0)
        assert (infos[second].status, infos[second].openings_before) == (DepositStatus.QUEUED, 1)
        assert infos[second].openings_per_block == 1
        await federation.start(2, 3)
        await federation.until(lambda: entered(member, first, second))


async def test_deposit_over_what_the_peg_may_hold_waits_for_withdrawals(autojump_clock: trio.abc.Clock) -> None:
    caps = {"max_withdrawal_sats": 10_000_000, "max_window_withdrawals_sats": 10_000_000, "max_peg_sats": 10_500_000}
    async with memory_federation(*ALL, peg=caps) as federation:
        member, script = federation.members[0], ALICE.script()
        await federation.fund(BOB)
        member.relay.register(script)
        large = federation.pay_deposit(script, DEPOSIT_SATS)
        federation.bury()
        await trio.sleep(LOOK_S)
        info = await only_deposit(member, script)
        assert (info.status, info.outpoint, info.blocks_left) == (DepositStatus.OVER_CAP, large, 0)
        small = federation.pay_deposit(script, DEPOSIT_SATS // 2)
        federation.bury()
        await federation.until(lambda: entered(member, small))
        assert not entered(member, large)


async def test_deposit_that_l1_spent_before_it_was_claimed_is_named(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0) as federation:
        member, script = federation.members[0], ALICE.script()
        member.relay.register(script)
        lost = federation.pay_deposit(script, DEPOSIT_SATS)
        federation.l1.chain.mine(Transaction(2, (TxIn(lost),), (TxOut(DEPOSIT_SATS, BOB.script()),)))
        federation.bury()
        await trio.sleep(LOOK_S)
        info = await only_deposit(member, script)
        assert (info.status, info.claim_txid) == (DepositStatus.SPENT, None)
        assert member.evidence_maker.failure(lost.txid) == "its outputs are spent on L1"
        assert lost.txid not in member.core.evidence
        federation.nodes[0].outage = True
        assert (await only_deposit(member, script)).status is not DepositStatus.SPENT, "nobody can tell"


async def test_deposit_that_came_too_late_to_be_claimed_is_named(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL, peg={"recovery_timelock_blocks": 72}) as federation:
        member, script = federation.members[0], ALICE.script()
        federation.pay_deposit(script, DEPOSIT_SATS)
        federation.l1.mine(35 + NEEDED - 1)
        await trio.sleep(LOOK_S)
        assert (await only_deposit(member, script)).status is DepositStatus.UNWATCHED
        l1_height = federation.l1.chain.height - NEEDED + 1
        federation.l1.mine(1)
        await federation.until(lambda: member.core.store.ledger.totals.anchor.height > l1_height)
        member.relay.register(script)
        await trio.sleep(LOOK_S)
        info = await only_deposit(member, script)
        assert (info.status, info.claim_txid, info.blocks_left) == (DepositStatus.TOO_OLD, None, None)
        assert len(member.core.evidence) == 0


async def test_deposit_of_which_no_proof_is_taken_is_named_with_the_reason(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0) as federation:
        member, script = federation.members[0], ALICE.script()
        member.relay.register(script)
        federation.nodes[0].refusals["raw_transaction"] = L1RpcError("getrawtransaction", -1, "Block not available")
        federation.pay_deposit(script, DEPOSIT_SATS)
        federation.bury()
        await trio.sleep(LOOK_S)
        info = await only_deposit(member, script)
        assert info.status is DepositStatus.UNPROVABLE
        assert "Block not available" in info.meaning
        del federation.nodes[0].refusals["raw_transaction"]
        federation.l1.mine(1)
        await trio.sleep(LOOK_S)
        assert (await only_deposit(member, script)).status is DepositStatus.AWAITING_ANCHOR


async def test_deposits_are_reported_oldest_first_and_after_their_coins_are_gone(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with memory_federation(*ALL, peg={"batch_min_payouts": 1}) as federation:
        member = federation.members[0]
        coin = await federation.fund(ALICE, DEPOSIT_SATS)
        burn = federation.burn_output(DEPOSIT_SATS - 10_000, BOB.script(), ALICE.script())
        member.relay.submit_transaction(ALICE.spend([coin], [burn]).serialize())
        await federation.until(lambda: len(federation.l1.mempool) == 1)
        federation.bury()
        await federation.until(lambda: not list(member.store.ledger.open_lineages.items()))
        newer = federation.pay_deposit(ALICE.script(), 2 * DEPOSIT_SATS)
        newest = unconfirmed(federation).outpoint(0)
        await trio.sleep(LOOK_S)
        infos = await member.live.deposits((ALICE.script(), BOB.script()))
        assert [(info.status, info.l1_height is None) for info in infos] == [
            (DepositStatus.CLAIMED, True),
            (DepositStatus.CONFIRMING, False),
            (DepositStatus.UNCONFIRMED, True),
        ]
        assert [info.outpoint for info in infos[1:]] == [newer, newest]


async def test_address_that_is_paid_often_has_each_payment_listed(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL) as federation:
        member, script = federation.members[0], ALICE.script()
        member.relay.register(script)
        output = TxOut(DEPOSIT_SATS, federation.deposit_script(script))
        payment = federation.l1.chain.payment(output, output)
        federation.l1.chain.mine(payment, federation.l1.chain.payment(output))
        federation.bury()
        await federation.until(lambda: entered(member, payment.outpoint(0), payment.outpoint(1)))
        infos = await member.live.deposits((script, script))
        assert [info.status for info in infos] == [DepositStatus.CLAIMED] * 3
        assert len({info.claim_txid for info in infos}) == 3


async def test_lost_registry_is_made_good_by_registering_again(autojump_clock: trio.abc.Clock) -> None:
    """All members forget where to look, among them deposits under way; the wallet of their owner tells them again."""
    async with memory_federation(*ALL) as federation:
        script = ALICE.script()
        federation.members[0].relay.register(script)
        deposit: OutPoint = federation.pay_deposit(script, DEPOSIT_SATS)
        await trio.sleep(LOOK_S)
        for index in ALL:
            await federation.stop(index)
        for index in ALL:
            store = federation.disks[index].open_store(federation.rules)
            store.keep_deposit_scripts([], 0, forget=[script])
            store.close()
        await federation.start(*ALL)
        federation.bury()
        member = federation.members[2]
        await trio.sleep(LOOK_S)
        assert (await only_deposit(member, script)).status is DepositStatus.UNWATCHED
        assert await member.live.register_deposits([script]) == 1
        await federation.until(lambda: entered(member, deposit))
        assert (await only_deposit(member, script)).status is DepositStatus.CLAIMED


async def test_many_addresses_are_looked_up_some_at_a_time(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with memory_federation(0) as federation:
        member = federation.members[0]
        scripts = [MiniWallet(f"user {number}").script() for number in range(5)]
        member.relay.register(*scripts)
        deposits = [federation.pay_deposit(script, DEPOSIT_SATS) for script in scripts]
        await trio.sleep(LOOK_S)
        at_once = await member.live.deposits(tuple(scripts))
        assert [info.outpoint for info in at_once] == deposits
        rests: list[float] = []

        async def rest(seconds: float) -> None:
            rests.append(seconds)
            await trio.lowlevel.checkpoint()

        monkeypatch.setattr(deposit_report, "SCRIPTS_AT_ONCE", 2)
        monkeypatch.setattr(deposit_report, "rest", rest)
        assert await member.live.deposits((*reversed(scripts), scripts[0])) == at_once
        assert len(rests) == 2


def test_document_has_the_table_of_states() -> None:
    rows = [f"| `{status}` | {status.meaning} | {status.next_step} |" for status in DepositStatus]
    table = "\n".join(["| state | what is the case | what happens next |", "|---|---|---|", *rows, ""])
    assert table in (Path(__file__).parents[2] / "docs" / "rpc.md").read_text()


@pytest.mark.parametrize("status", DepositStatus)
def test_every_state_is_reached_by_a_test(status: DepositStatus) -> None:
    assert f"DepositStatus.{status.name}" in Path(__file__).read_text()
