"""The audit of a running node, bound to one block of either chain, and what a member signs of it."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

import pytest
import trio

from bridge.bitcoin.identifiers import OutPoint
from bridge.bitcoin.transaction import Transaction, TxIn, TxOut
from bridge.custody import CoinKind, reserve_script
from bridge.errors import Reason
from bridge.l1.errors import L1RpcError, RpcCode
from federation.errors import Refused
from federation.statement import SignedStatement, verify_statement
from federation.statement_law import StatementLaw
from pegnode.audit.report import Audit
from pegnode.audit.reserve import RowCause
from pegnode.rpc.node_api import NodeUnavailable, UnavailableReason
from tests.support.halts import gone
from tests.support.members import MemoryFederation, memory_federation, now_ms
from tests.support.mini_wallet import MiniWallet

ALL = (0, 1, 2, 3)
ALICE, BOB = MiniWallet("alice"), MiniWallet("bob")
DEPOSIT_SATS = 10_000_000


def causes(audit: Audit) -> list[RowCause]:
    return [row.cause for row in audit.rows]


async def unavailable(ask: Callable[[], Awaitable[object]]) -> Reason:
    """Why there is no answer."""
    with pytest.raises(NodeUnavailable) as caught:
        await ask()
    return caught.value.reason


async def refused(ask: Callable[[], Awaitable[object]]) -> Reason:
    """Which law refuses."""
    with pytest.raises(Refused) as caught:
        await ask()
    return caught.value.reason


def the_coin(federation: MemoryFederation) -> OutPoint:
    [(outpoint, _)] = federation.members[0].store.ledger.coins.items()
    return outpoint


def steal(federation: MemoryFederation, *, mine: bool) -> Transaction:
    """Somebody spends the reserve's coin, in a block or in the mempool."""
    theft = Transaction(2, (TxIn(the_coin(federation)),), (TxOut(DEPOSIT_SATS - 500, BOB.script()),))
    if mine:
        federation.l1.chain.mine(theft)
    else:
        federation.l1.mempool[theft.txid] = theft
    return theft


async def watched(federation: MemoryFederation) -> None:
    """Wait until every member has read L1's newest block."""
    tip = federation.l1.chain.anchor(federation.l1.chain.height)
    await federation.until(lambda: all(member.core.watcher.tip == tip for member in federation.members.values()))


@pytest.mark.parametrize("scan", [False, True])
async def test_audit_is_bound_to_one_block_of_either_chain(autojump_clock: trio.abc.Clock, scan: bool) -> None:
    async with memory_federation(*ALL) as federation:
        await federation.fund(ALICE)
        member = federation.members[0]
        audit = await member.live.audit(scan)
        assert (audit.findings, causes(audit), audit.scanned) == ((), [RowCause.HELD], scan)
        assert audit.recount.counted_reserves_sats == DEPOSIT_SATS
        assert member.store.block_at(audit.recount.tip.header.height) is not None
        assert audit.l1_tip == federation.l1.chain.anchor(federation.l1.chain.height)
        assert audit.scripts == 3
        assert ("scan_txoutset" in federation.nodes[0].asked) == scan


@pytest.mark.parametrize("scan", [False, True])
async def test_payments_that_have_not_entered_are_unclaimed(autojump_clock: trio.abc.Clock, scan: bool) -> None:
    async with memory_federation(*ALL) as federation:
        await federation.fund(ALICE)
        policy = federation.rules.custody.newest
        scripts = [reserve_script(policy, CoinKind.CHANGE).script, federation.deposit_script(ALICE.script())]
        federation.l1.chain.mine(federation.l1.chain.payment(*(TxOut(50_000, script) for script in scripts)))
        await watched(federation)
        audit = await federation.members[0].live.audit(scan)
        assert causes(audit) == [RowCause.TOO_YOUNG, RowCause.TOO_YOUNG, RowCause.HELD]
        assert audit.findings == ()


@pytest.mark.parametrize("scan", [False, True])
async def test_stolen_coin_is_missing(autojump_clock: trio.abc.Clock, scan: bool) -> None:
    async with memory_federation(*ALL) as federation:
        await federation.fund(ALICE)
        steal(federation, mine=True)
        await watched(federation)
        audit = await federation.members[0].live.audit(scan)
        assert causes(audit) == [RowCause.GONE]
        assert audit.findings == (f"missing: {DEPOSIT_SATS} sats at {the_coin(federation)}: gone",)


async def test_foreign_spend_in_the_mempool_is_a_finding(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL) as federation:
        await federation.fund(ALICE)
        theft = steal(federation, mine=False)
        audit = await federation.members[0].live.audit(scan=False)
        assert causes(audit) == [RowCause.FOREIGN_SPEND]
        assert audit.rows[0].spent_by == theft.txid


async def test_batch_is_in_flight_until_it_is_settled(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL, peg={"batch_min_payouts": 1}) as federation:
        coin = await federation.fund(ALICE)
        burn = federation.burn_output(4_000_000, BOB.script(), ALICE.script())
        rest = TxOut(coin[1].value_sats - 4_000_000 - 1_000, ALICE.script())
        federation.members[0].relay.submit_transaction(ALICE.spend([coin], [burn, rest]).serialize())
        await federation.until(lambda: len(federation.l1.mempool) == 1)
        live = federation.members[0].live
        assert causes(await live.audit(scan=True)) == [RowCause.SPENT_IN_MEMPOOL]
        federation.l1.mine()
        await watched(federation)
        for scan in (False, True):
            audit = await live.audit(scan)
            assert set(causes(audit)) == {RowCause.CHANGE, RowCause.SPENT_IN_BLOCK}
            assert audit.findings == ()
        federation.l1.mine(federation.rules.params.confirmations)
        await federation.until(lambda: not list(federation.members[0].store.ledger.open_lineages.items()))
        assert set(causes(await live.audit(scan=True))) == {RowCause.HELD}


async def test_scan_waits_for_another_and_not_for_ever(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0) as federation:
        node, live = federation.nodes[0], federation.members[0].live
        node.refusals["scan_txoutset"] = L1RpcError(
            "scantxoutset", RpcCode.INVALID_PARAMETER, "Scan already in progress"
        )
        assert await unavailable(lambda: live.audit(scan=True)) is UnavailableReason.SCAN_BUSY
        times = node.asked.count("scan_txoutset")
        assert times > 10

        def end(method: str) -> None:
            if node.asked.count("scan_txoutset") > times + 3:
                node.refusals.clear()

        node.on_ask = end
        assert (await live.audit(scan=True)).scanned


async def test_audit_without_the_bitcoin_node_is_none(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0) as federation:
        federation.nodes[0].outage = True
        live = federation.members[0].live
        assert await unavailable(lambda: live.audit(scan=False)) is UnavailableReason.L1_UNREACHABLE
        assert await unavailable(lambda: live.sign_statement(None)) is UnavailableReason.L1_UNREACHABLE


async def test_bitcoin_node_below_the_anchor_is_waited_for(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL) as federation:
        await federation.fund(ALICE)
        federation.nodes[0].lag_blocks = federation.rules.params.confirmations + 2
        assert await unavailable(lambda: federation.members[0].live.audit(scan=True)) is UnavailableReason.L1_BEHIND


async def test_coin_is_not_called_missing_before_the_newest_blocks_are_read(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL) as federation:
        await federation.fund(ALICE)
        federation.nodes[0].refusals["block"] = L1RpcError("getblock", RpcCode.BLOCK_ABSENT, "not yet")
        steal(federation, mine=True)
        assert await unavailable(lambda: federation.members[0].live.audit(scan=False)) is UnavailableReason.L1_BEHIND


async def test_l1_that_moves_all_the_time_is_no_picture(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL) as federation:
        await federation.fund(ALICE)

        def grow(method: str) -> None:
            if method == "mempool_spenders":
                federation.l1.chain.mine()

        federation.nodes[0].on_ask = grow
        assert await unavailable(lambda: federation.members[0].live.audit(scan=False)) is UnavailableReason.L1_MOVED
        audit = await federation.members[0].live.audit(scan=True)  # which stays true of its own block
        assert audit.l1_tip.height == federation.l1.chain.height - 1


async def test_coin_whose_payout_is_not_heard_of_yet_is_looked_for_again(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL) as federation:
        await federation.fund(ALICE)
        node, coin = federation.nodes[0], the_coin(federation)
        theft = steal(federation, mine=True)
        await watched(federation)
        node.asked.clear()

        def give_back(method: str) -> None:
            if node.asked.count("mempool_spenders") == 3:
                federation.l1.chain.blocks.pop()
                node.on_ask = None

        node.on_ask = give_back
        audit = await federation.members[0].live.audit(scan=False)
        assert (audit.findings, [row.outpoint for row in audit.rows]) == ((), [coin])
        assert theft.inputs[0].outpoint == coin


async def test_node_that_is_catching_up_calls_nothing_missing(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with memory_federation(*ALL) as federation:
        await federation.fund(ALICE)
        steal(federation, mine=True)
        await watched(federation)
        member = federation.members[0]
        monkeypatch.setattr(member.auditor, "_is_current", lambda: False)
        assert await unavailable(lambda: member.live.audit(scan=False)) is UnavailableReason.SYNCING


# Statements


async def joined(federation: MemoryFederation, *members: int) -> SignedStatement:
    """A statement that the first draws up and the others sign."""
    first, *others = members
    signed = await federation.members[first].live.sign_statement(None)
    for member in others:
        signed = signed.joined(await federation.members[member].live.sign_statement(signed.statement))
    return signed


async def test_members_sign_one_statement_each_by_its_own_audit(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL) as federation:
        await federation.fund(ALICE)
        signed = await joined(federation, 1, 0, 3)
        verify_statement(signed, federation.rules.membership, federation.rules.chain_id, now_ms())
        assert signed.statement.terms.reserves_sats == DEPOSIT_SATS
        height = federation.height
        federation.l1.mine(3)
        await federation.fund(BOB)
        assert federation.height > height
        late = await federation.members[2].live.sign_statement(signed.statement)
        assert signed.joined(late).signers == (0, 1, 2, 3)


async def test_statement_of_a_block_that_is_final_elsewhere_is_waited_for(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL) as federation:
        await federation.fund(ALICE)
        federation.isolate(3)
        height = federation.members[3].height
        await federation.until(lambda: federation.members[0].height > height)
        statement = (await federation.members[0].live.sign_statement(None)).statement
        assert federation.members[3].height == height < statement.terms.height
        for other in ALL[:3]:
            federation.network.mend(federation.peer_id(3), federation.peer_id(other))
        signed = await federation.members[3].live.sign_statement(statement)
        assert signed.signers == (3,)


async def test_node_without_keys_signs_nothing(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL) as federation:
        node = await federation.start_full_node()
        assert await unavailable(lambda: node.live.sign_statement(None)) is UnavailableReason.NO_KEYS


async def test_member_does_not_sign_what_its_chain_never_said(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL) as federation:
        await federation.fund(ALICE)
        live = federation.members[0].live
        statement = (await live.sign_statement(None)).statement
        terms = statement.terms
        tip = statement.l1_tip
        for forged, reason in (
            (replace(terms, reserves_sats=terms.reserves_sats + 1, fund_sats=terms.fund_sats + 1), "TERMS_DIFFER"),
            (replace(terms, block_hash=terms.anchor.hash), "OTHER_BLOCK"),
            (replace(terms, height=terms.height + 1_000), "BLOCK_UNKNOWN"),
        ):
            claimed = replace(statement, terms=forged)
            assert await refused(partial(live.sign_statement, claimed)) is StatementLaw[reason]
        for other, law in (
            (replace(tip, height=tip.height + 1), StatementLaw.L1_NOT_SEEN),
            (replace(tip, hash=terms.anchor.hash), StatementLaw.L1_OTHER_BLOCK),
        ):
            claimed = replace(statement, l1_tip=other)
            assert await refused(partial(live.sign_statement, claimed)) is law
        early = replace(statement, time_ms=statement.time_ms - 3_600_000)
        assert await refused(partial(live.sign_statement, early)) is StatementLaw.TIME_DIFFERS


async def test_member_signs_nothing_while_a_coin_is_missing_or_it_has_halted(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL) as federation:
        await federation.fund(ALICE)
        statement = (await federation.members[1].live.sign_statement(None)).statement
        federation.members[0].reserve_watch._is_current = lambda: False  # it would be suspicious at once
        steal(federation, mine=True)
        await watched(federation)
        live = federation.members[0].live
        assert await refused(lambda: live.sign_statement(statement)) is StatementLaw.FINDINGS
        assert await refused(lambda: live.sign_statement(None)) is StatementLaw.FINDINGS
        federation.members[0].core.halt(gone(), "a finding")
        assert await refused(lambda: live.sign_statement(None)) is StatementLaw.HALTED


async def test_block_of_before_the_start_is_not_stated(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL) as federation:
        await federation.fund(ALICE)
        old = (await federation.members[0].live.sign_statement(None)).statement
        await federation.fund(BOB)
        await federation.stop(0)
        await federation.start(0)
        # It has not caught up at once, and waits until it has.
        assert await refused(lambda: federation.members[0].live.sign_statement(old)) is StatementLaw.BLOCK_UNKNOWN
