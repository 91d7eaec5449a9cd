"""Deposits from their L1 block to the sidechain: evidence that nobody asks for, claims by hand, and what users see."""

from dataclasses import replace

import pytest
import trio

from bridge.bitcoin.identifiers import OutPoint, Script, Txid
from bridge.bitcoin.transaction import Transaction, TxIn, TxOut
from bridge.custody import CoinKind, reserve_script
from bridge.l1.errors import L1RpcError
from bridge.l1.watcher import L1Watcher
from pegnode.rpc.node_api import DepositStatus, NodeUnavailable, UnavailableReason
from pegnode.service.evidence_maker import ClaimReason, ClaimRefused
from pegnode.service.registry import RegistrationRefused, RegistryReason
from tests.support.members import Member, MemoryFederation, memory_federation
from tests.support.mini_wallet import MiniWallet

ALL = (0, 1, 2, 3)
ALICE = MiniWallet("alice")
BOB = MiniWallet("bob")
DEPOSIT_SATS = 1_000_000
NEEDED = 6


def coinbase_deposit(federation: MemoryFederation, claim_script: Script, value_sats: int) -> OutPoint:
    """An L1 block whose coinbase pays a deposit address."""
    null = OutPoint(Txid(bytes(32)), 0xFFFFFFFF)
    output = TxOut(value_sats, federation.deposit_script(claim_script))
    coinbase = Transaction(1, (TxIn(null, b"\x04abcd"),), (output,))
    federation.l1.chain.mine_exactly(coinbase)
    return coinbase.outpoint(0)


def entered(member: Member, *outpoints: OutPoint) -> bool:
    return all(outpoint in member.store.ledger.entered for outpoint in outpoints)


async def status(member: Member, claim_script: Script) -> list[tuple[DepositStatus, int]]:
    """What the node reports of deposits: status and confirmations."""
    return [(info.status, info.confirmations) for info in await member.live.deposits((claim_script,))]


async def test_deposit_is_reported_from_its_first_block_until_it_is_claimed(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL) as federation:
        member, script = federation.members[0], ALICE.script()
        assert await status(member, script) == []
        deposit = federation.pay_deposit(script, DEPOSIT_SATS)
        await trio.sleep(1)
        assert await status(member, script) == [(DepositStatus.SEEN, 1)]
        federation.l1.mine(NEEDED - 2)
        await trio.sleep(1)
        assert await status(member, script) == [(DepositStatus.SEEN, NEEDED - 1)]
        federation.l1.mine(1)
        await trio.sleep(1)
        assert await status(member, script) == [(DepositStatus.CLAIMABLE, NEEDED)], "nobody registered it"
        [info] = await member.live.deposits((script,))
        assert (info.outpoint, info.value_sats, info.confirmations_needed) == (deposit, DEPOSIT_SATS, NEEDED)
        receipt = await member.live.claim_deposit(deposit, script)
        assert receipt.claim_txid == info.claim_txid
        assert receipt.credited_sats == DEPOSIT_SATS - federation.rules.params.claim_fee_sats
        await federation.until(lambda: all(entered(member, deposit) for member in federation.members.values()))
        assert await status(member, script) == [(DepositStatus.CLAIMED, NEEDED)]
        [claimed] = await member.live.deposits((script,))
        assert replace(claimed, status=info.status, confirmations=info.confirmations) == info


async def test_deposit_below_the_minimum_is_reported_as_such_and_enters_as_a_donation(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with memory_federation(*ALL) as federation:
        member, script = federation.members[0], ALICE.script()
        member.relay.register(script)
        small = federation.pay_deposit(script, federation.rules.params.min_deposit_sats - 1)
        federation.bury()
        await federation.until(lambda: entered(member, small))
        assert await status(member, script) == [(DepositStatus.BELOW_MINIMUM, NEEDED + 1)]
        assert (await member.live.deposits((script,)))[0].claim_txid is None
        assert member.store.ledger.totals.supply_sats == 0


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
        await trio.sleep(1)
        infos = await member.live.deposits((ALICE.script(), BOB.script()))
        assert [(info.status, info.l1_height is None) for info in infos] == [
            (DepositStatus.CLAIMED, True),
            (DepositStatus.SEEN, False),
        ]
        assert infos[1].outpoint == newer


# Claims by hand


async def claim_refusal(member: Member, outpoint: OutPoint, claim_script: Script) -> ClaimRefused:
    with pytest.raises(ClaimRefused) as caught:
        await member.live.claim_deposit(outpoint, claim_script)
    return caught.value


async def test_claim_is_refused_for_its_reason(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL) as federation:
        member, script = federation.members[0], ALICE.script()
        deposit = federation.pay_deposit(script, DEPOSIT_SATS)
        small = federation.pay_deposit(script, federation.rules.params.min_deposit_sats - 1)
        federation.l1.mine(NEEDED - 2)
        await trio.sleep(1)
        expected = {
            ClaimReason.TRANSACTION_UNKNOWN: (OutPoint(Txid(bytes(32)), 0), script),
            ClaimReason.NO_SUCH_OUTPUT: (OutPoint(deposit.txid, 1), script),
            ClaimReason.WRONG_SCRIPT: (deposit, BOB.script()),
            ClaimReason.BELOW_MINIMUM: (small, script),
        }
        for reason, (outpoint, claim_script) in expected.items():
            assert (await claim_refusal(member, outpoint, claim_script)).reason is reason
        federation.l1.chain.blocks.pop()  # as if the newest block were not there yet
        federation.nodes[0].world = federation.l1
        await trio.sleep(1)
        refused = await claim_refusal(member, deposit, script)
        assert (refused.reason, refused.detail) == (ClaimReason.TOO_FEW_CONFIRMATIONS, f"5 of {NEEDED} confirmations")
        federation.l1.mine(3)
        await trio.sleep(1)
        await member.live.claim_deposit(deposit, script)
        await federation.until(lambda: entered(member, deposit))
        assert (await claim_refusal(member, deposit, script)).reason is ClaimReason.ALREADY_ENTERED
        covered = {*expected, ClaimReason.TOO_FEW_CONFIRMATIONS, ClaimReason.ALREADY_ENTERED}
        assert covered == set(ClaimReason)


async def test_claim_of_a_coinbase_waits_for_its_maturity(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL) as federation:
        member, script = federation.members[0], ALICE.script()
        member.relay.register(script)
        deposit = coinbase_deposit(federation, script, DEPOSIT_SATS)
        federation.l1.mine(20)
        await trio.sleep(2)
        refused = await claim_refusal(member, deposit, script)
        assert (refused.reason, refused.detail) == (ClaimReason.TOO_FEW_CONFIRMATIONS, "21 of 100 confirmations")
        assert len(member.core.evidence) == 0
        federation.l1.mine(79)
        await federation.until(lambda: entered(member, deposit))


async def test_claim_that_waits_already_is_no_error(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0) as federation:
        member, script = federation.members[0], ALICE.script()
        deposit = federation.pay_deposit(script, DEPOSIT_SATS)
        federation.bury()
        await trio.sleep(1)
        first = await member.live.claim_deposit(deposit, script)
        assert await member.live.claim_deposit(deposit, script) == first
        assert len(member.core.evidence) == 1


async def test_claim_of_a_second_output_joins_the_evidence_that_waits(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0) as federation:
        member = federation.members[0]
        scripts = [federation.deposit_script(wallet.script()) for wallet in (ALICE, BOB)]
        payment = federation.l1.chain.payment(*(TxOut(DEPOSIT_SATS, script) for script in scripts))
        federation.l1.chain.mine(payment)
        federation.bury()
        await trio.sleep(1)
        for vout, wallet in enumerate((ALICE, BOB)):
            await member.live.claim_deposit(payment.outpoint(vout), wallet.script())
        evidence = member.core.evidence.get(payment.txid)
        assert evidence is not None
        assert [opening.vout for opening in evidence.openings] == [0, 1]


async def test_claim_waits_for_nothing_while_the_bitcoin_node_is_away(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0) as federation:
        deposit = federation.pay_deposit(ALICE.script(), DEPOSIT_SATS)
        federation.nodes[0].outage = True
        with pytest.raises(NodeUnavailable) as caught:
            await federation.members[0].live.claim_deposit(deposit, ALICE.script())
        assert caught.value.reason is UnavailableReason.L1_UNREACHABLE


async def test_registration_for_a_script_that_no_claim_can_pay_is_refused(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0) as federation:
        with pytest.raises(RegistrationRefused) as caught:
            await federation.members[0].live.register_deposit(Script(b"\x6a"))
        assert caught.value.reason is RegistryReason.CLAIM_SCRIPT_TYPE


# Evidence that nobody asks for


async def test_evidence_is_made_once_a_deposit_is_deep_enough(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0) as federation:
        member = federation.members[0]
        member.relay.register(ALICE.script())
        federation.pay_deposit(ALICE.script(), DEPOSIT_SATS)
        federation.l1.mine(NEEDED - 2)
        await trio.sleep(1)
        assert len(member.core.evidence) == 0
        federation.l1.mine(1)
        await trio.sleep(1)
        assert len(member.core.evidence) == 1


async def test_evidence_is_made_of_a_deposit_registered_late(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0) as federation:
        member = federation.members[0]
        federation.pay_deposit(ALICE.script(), DEPOSIT_SATS)
        federation.bury()
        await trio.sleep(1)
        assert len(member.core.evidence) == 0
        member.relay.register(ALICE.script())
        await trio.sleep(0.1)
        assert len(member.core.evidence) == 1


async def test_donations_enter_unasked(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL) as federation:
        script = reserve_script(federation.rules.custody.newest, CoinKind.DONATION).script
        donation = federation.l1.chain.payment(TxOut(DEPOSIT_SATS, script))
        federation.l1.chain.mine(donation)
        federation.bury()
        member = federation.members[0]
        await federation.until(lambda: entered(member, donation.outpoint(0)))
        assert member.store.ledger.totals.fund_sats == DEPOSIT_SATS


@pytest.mark.parametrize(
    "failure",
    [L1RpcError("getrawtransaction", -1, "Block not available (pruned data)"), b"no transaction", b"\x02\x00"],
)
async def test_transaction_of_which_no_evidence_can_be_made_keeps_no_other_out(
    failure: L1RpcError | bytes, autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with memory_federation(0) as federation:
        member, node = federation.members[0], federation.nodes[0]
        for wallet in (ALICE, BOB):
            member.relay.register(wallet.script())
        bad = federation.pay_deposit(ALICE.script(), DEPOSIT_SATS)
        good = federation.pay_deposit(BOB.script(), DEPOSIT_SATS)
        answer = node.raw_transaction
        asked: list[Txid] = []

        async def failing(txid: Txid, block_hash: object = None) -> bytes | None:
            asked.append(txid)
            if txid != bad.txid:
                return await answer(txid, block_hash)  # type: ignore[arg-type]
            if isinstance(failure, bytes):
                return failure
            raise failure

        monkeypatch.setattr(node, "raw_transaction", failing)
        federation.bury()
        await trio.sleep(1)
        assert good.txid in member.core.evidence
        assert bad.txid not in member.core.evidence
        times = asked.count(bad.txid)
        member.evidence_maker.poke()
        await trio.sleep(0.1)
        assert asked.count(bad.txid) == times, "asked again only when L1 or the registry moved"
        federation.l1.mine(1)
        await trio.sleep(1)
        assert asked.count(bad.txid) == times + 1


async def test_outage_ends_one_attempt_to_make_evidence(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0) as federation:
        member, node = federation.members[0], federation.nodes[0]
        member.relay.register(ALICE.script())
        federation.pay_deposit(ALICE.script(), DEPOSIT_SATS)
        federation.bury()
        node.on_ask = lambda method: setattr(node, "outage", method in ("raw_transaction", "tx_out_proof"))
        await trio.sleep(2)
        assert len(member.core.evidence) == 0
        node.on_ask, node.outage = None, False
        federation.l1.mine(1)
        await trio.sleep(1)
        assert len(member.core.evidence) == 1


async def test_payout_that_settled_before_the_watchers_window_is_found(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(L1Watcher.__init__, "__defaults__", (10,))
    async with memory_federation(*ALL, peg={"batch_min_payouts": 1}) as federation:
        coin = await federation.fund(ALICE)
        burn = federation.burn_output(DEPOSIT_SATS, BOB.script(), ALICE.script())
        change = TxOut(coin[1].value_sats - DEPOSIT_SATS - 1_000, ALICE.script())
        federation.members[0].relay.submit_transaction(ALICE.spend([coin], [burn, change]).serialize())
        await federation.until(lambda: len(federation.l1.mempool) == 1)
        for index in ALL:
            await federation.stop(index)
        federation.l1.mine(60)
        await federation.start(*ALL)
        ledgers = [member.store.ledger for member in federation.members.values()]
        await federation.until(lambda: not any(list(ledger.open_lineages.items()) for ledger in ledgers))
        audit = await federation.members[0].live.audit(scan=False)
        assert audit.findings == ()
