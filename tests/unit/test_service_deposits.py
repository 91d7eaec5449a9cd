"""Evidence that nobody asks for: of deposits whose addresses are watched, of donations, and of settled payouts."""

from collections.abc import Sequence

import pytest
import trio

from bridge.bitcoin.identifiers import OutPoint, Script, Txid
from bridge.bitcoin.transaction import Transaction, TxIn, TxOut
from bridge.custody import CoinKind, reserve_script
from bridge.evidence import Evidence, Opening
from bridge.l1.answers import L1TxOut
from bridge.l1.errors import L1RpcError
from bridge.l1.watcher import L1Watcher
from pegnode.chain.block import Block
from pegnode.service.registry import RegistrationRefused, RegistryReason
from tests.support.deposits import ALL, DEPOSIT_SATS, NEEDED, entered
from tests.support.fake_l1_client import FakeL1Client
from tests.support.members import Member, MemoryFederation, memory_federation
from tests.support.mini_wallet import MiniWallet

ALICE = MiniWallet("alice")
BOB = MiniWallet("bob")


async def test_registration_for_a_script_that_no_claim_can_pay_is_refused(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0) as federation:
        with pytest.raises(RegistrationRefused) as caught:
            await federation.members[0].live.register_deposits([Script(b"\x6a")])
        assert caught.value.reason is RegistryReason.CLAIM_SCRIPT_TYPE


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


# Many at a time


def registered(federation: MemoryFederation, *scripts: Script) -> None:
    for member in federation.members.values():
        member.relay.register(*scripts)


def proven(member: Member) -> list[tuple[Evidence, ...]]:
    """The evidence in each final block."""
    blocks = [member.store.block_at(height) for height in range(1, member.height + 1)]
    return [Block.decode(data).body.evidence for data in blocks if data is not None]


async def test_transaction_with_more_deposits_than_a_block_may_open_enters_in_parts(
    autojump_clock: trio.abc.Clock,
) -> None:
    """2,000 deposits in one L1 transaction of 86 kB, and none is lost."""
    async with memory_federation(0, 1, 2, peg={"max_openings": 500}) as federation:
        member = federation.members[0]
        registered(federation, ALICE.script())
        output = TxOut(federation.rules.params.min_deposit_sats, federation.deposit_script(ALICE.script()))
        payment = federation.l1.chain.payment(*[output] * 2_000)
        federation.l1.chain.mine(payment)
        federation.bury()
        deposits = [payment.outpoint(vout) for vout in range(2_000)]
        await federation.until(lambda: all(entered(member, *deposits) for member in federation.members.values()))
        openings = [len(item.openings) for items in proven(member) for item in items]
        assert (sum(openings), max(openings)) == (2_000, 400)
        assert len(list(member.store.ledger.coins.items())) == 2_000
        assert len(member.core.evidence) == 0


async def test_deposit_enters_beside_one_of_the_same_transaction_that_can_not(autojump_clock: trio.abc.Clock) -> None:
    """Evidence of one output alone waits for ever, for the peg has no room for it; it must not keep the other out."""
    cap_sats = 10 * DEPOSIT_SATS
    caps = {"max_withdrawal_sats": cap_sats, "max_window_withdrawals_sats": cap_sats, "max_peg_sats": cap_sats}
    async with memory_federation(*ALL, peg=caps) as federation:
        chain, member = federation.l1.chain, federation.members[0]
        outputs = [
            TxOut(value_sats, federation.deposit_script(wallet.script()))
            for wallet, value_sats in ((ALICE, 11 * DEPOSIT_SATS), (BOB, DEPOSIT_SATS))
        ]
        payment = chain.payment(*outputs)
        chain.mine(payment)
        federation.bury()
        await trio.sleep(1)
        alone = chain.evidence(payment, Opening(0, CoinKind.DEPOSIT, 0, ALICE.script()))
        for each in federation.members.values():
            await each.relay.submit_evidence(alone)
        registered(federation, ALICE.script(), BOB.script())
        await federation.until(lambda: entered(member, payment.outpoint(1)), seconds=30)
        assert not entered(member, payment.outpoint(0))


async def test_many_deposits_in_one_l1_block_enter_within_the_caps(autojump_clock: trio.abc.Clock) -> None:
    """60 transactions in one L1 block, of which a block may open 20."""
    async with memory_federation(*ALL, peg={"max_openings": 20}) as federation:
        member = federation.members[0]
        scripts = [MiniWallet(f"user {number}").script() for number in range(20)]
        registered(federation, *scripts)
        payments = [
            federation.l1.chain.payment(TxOut(DEPOSIT_SATS, federation.deposit_script(scripts[number % 20])))
            for number in range(60)
        ]
        federation.l1.chain.mine(*payments)
        federation.bury()
        deposits = [payment.outpoint(0) for payment in payments]
        await federation.until(lambda: all(entered(member, *deposits) for member in federation.members.values()))
        txids = [Transaction.parse(item.transaction).txid for items in proven(member) for item in items]
        assert sorted(txids) == sorted(payment.txid for payment in payments)
        assert max(len(items) for items in proven(member)) <= 20


# What L1 takes back


async def proven_early(federation: MemoryFederation) -> Transaction:
    """A deposit for Alice of which every member took a proof at once; then L1 gave up its block."""
    chain, script = federation.l1.chain, ALICE.script()
    registered(federation, script)
    payment = chain.payment(TxOut(DEPOSIT_SATS, federation.deposit_script(script)))
    chain.mine(payment)
    await trio.sleep(1)
    evidence = chain.evidence(payment, Opening(0, CoinKind.DEPOSIT, 0, script))
    for member in federation.members.values():
        await member.relay.submit_evidence(evidence)
    chain.blocks.pop()
    chain.mine()
    return payment


async def test_deposit_that_another_l1_block_holds_now_is_proven_anew(autojump_clock: trio.abc.Clock) -> None:
    """Somebody hands in a proof early; its block is given up, and the transaction confirmed by another one."""
    async with memory_federation(*ALL) as federation:
        payment = await proven_early(federation)
        federation.l1.chain.mine(payment)
        federation.bury()
        member = federation.members[0]
        await federation.until(lambda: entered(member, payment.outpoint(0)), seconds=30)


async def test_proof_of_a_block_that_l1_gave_up_is_forgotten(autojump_clock: trio.abc.Clock) -> None:
    """A double spend after an early proof: it keeps no room that others need."""
    async with memory_federation(*ALL, peg={"max_openings": 1}) as federation:
        lost = await proven_early(federation)
        good = federation.pay_deposit(ALICE.script(), DEPOSIT_SATS)
        federation.bury()
        await federation.until(lambda: entered(federation.members[0], good), seconds=30)
        assert not entered(federation.members[0], lost.outpoint(0))


async def test_output_that_is_spent_on_l1_holds_up_no_other(autojump_clock: trio.abc.Clock) -> None:
    """The recovery keys may spend an old deposit; a proof of it, by whomever, must not have leaders leave out L1."""
    async with memory_federation(*ALL) as federation:
        chain, member = federation.l1.chain, federation.members[0]
        lost = chain.payment(TxOut(DEPOSIT_SATS, federation.deposit_script(ALICE.script())))
        chain.mine(lost)
        proof = chain.evidence(lost, Opening(0, CoinKind.DEPOSIT, 0, ALICE.script()))
        chain.mine(Transaction(2, (TxIn(lost.outpoint(0)),), (TxOut(DEPOSIT_SATS, BOB.script()),)))
        registered(federation, ALICE.script(), BOB.script())
        good = federation.pay_deposit(BOB.script(), DEPOSIT_SATS)
        federation.bury()
        for each in federation.members.values():
            await each.relay.submit_evidence(proof)
        await federation.until(lambda: entered(member, good), seconds=30)
        assert not entered(member, lost.outpoint(0))


async def test_deposits_enter_a_few_at_a_time_when_bitcoin_nodes_are_slow(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asking for 64 outputs takes longer than a leader waits; asking for few does not."""
    async with memory_federation(*ALL) as federation:
        registered(federation, ALICE.script())
        answer = FakeL1Client.txouts

        async def slow(
            self: FakeL1Client, outpoints: Sequence[OutPoint], include_mempool: bool
        ) -> list[L1TxOut | None]:
            await trio.sleep(len(outpoints) / 50)
            return await answer(self, outpoints, include_mempool)

        monkeypatch.setattr(FakeL1Client, "txouts", slow)
        output = TxOut(DEPOSIT_SATS, federation.deposit_script(ALICE.script()))
        payment = federation.l1.chain.payment(*[output] * 64)
        federation.l1.chain.mine(payment)
        federation.bury()
        member = federation.members[0]
        await federation.until(lambda: entered(member, payment.outpoint(0)), seconds=120)
        assert not entered(member, payment.outpoint(63)), "not all at once"
