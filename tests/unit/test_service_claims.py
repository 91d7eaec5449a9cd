"""Claims by hand: what is found from an L1 txid alone, and why a claim is refused."""

from dataclasses import replace

import pytest
import trio

from bridge.bitcoin.identifiers import BlockHash, Script, Txid
from bridge.bitcoin.transaction import Transaction, TxIn, TxOut
from bridge.custody import CoinKind, Custody, reserve_script
from bridge.deposits import find_openings
from bridge.l1.errors import L1RpcError
from bridge.l1.watcher import L1Watcher
from pegnode.rpc.deposit_states import ClaimReason, ClaimRefused
from pegnode.rpc.node_api import NodeUnavailable, UnavailableReason
from pegnode.service.registry import DepositRegistry
from tests.support.chain import MemoryChain
from tests.support.deposits import ALL, DEPOSIT_SATS, NEEDED, coinbase_deposit, entered
from tests.support.members import Member, memory_federation
from tests.support.memory_disk import Disk
from tests.support.mini_wallet import MiniWallet
from tests.support.peg import p2tr

ALICE = MiniWallet("alice")
BOB = MiniWallet("bob")


async def claim_refusal(
    member: Member, l1_txid: Txid, claim_script: Script, vout: int | None = None, l1_block: BlockHash | None = None
) -> ClaimRefused:
    with pytest.raises(ClaimRefused) as caught:
        await member.live.claim_deposits(l1_txid, claim_script, vout, l1_block)
    return caught.value


async def test_claim_is_refused_for_its_reason(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL) as federation:
        member, script, chain = federation.members[0], ALICE.script(), federation.l1.chain
        deposit = federation.pay_deposit(script, DEPOSIT_SATS)
        small = federation.pay_deposit(script, federation.rules.params.min_deposit_sats - 1)
        lost = federation.pay_deposit(script, DEPOSIT_SATS)
        chain.mine(Transaction(2, (TxIn(lost),), (TxOut(DEPOSIT_SATS, BOB.script()),)))
        federation.l1.mine(1)
        await trio.sleep(1)
        other_block, unknown = chain.blocks[-1].hash, Txid(bytes(32))
        expected = {
            ClaimReason.TRANSACTION_UNKNOWN: await claim_refusal(member, unknown, script),
            ClaimReason.BLOCK_UNKNOWN: await claim_refusal(member, deposit.txid, script, None, BlockHash(bytes(32))),
            ClaimReason.NO_SUCH_OUTPUT: await claim_refusal(member, deposit.txid, script, 1),
            ClaimReason.WRONG_SCRIPT: await claim_refusal(member, deposit.txid, BOB.script()),
            ClaimReason.BELOW_MINIMUM: await claim_refusal(member, small.txid, script),
            ClaimReason.SPENT: await claim_refusal(member, lost.txid, script),
            ClaimReason.TOO_FEW_CONFIRMATIONS: await claim_refusal(member, deposit.txid, script),
        }
        assert {reason: refused.reason for reason, refused in expected.items()} == {item: item for item in expected}
        assert expected[ClaimReason.TOO_FEW_CONFIRMATIONS].detail == f"5 of {NEEDED} confirmations"
        elsewhere = await claim_refusal(member, deposit.txid, script, None, other_block)
        assert elsewhere.reason is ClaimReason.TRANSACTION_UNKNOWN
        assert "does not hold" in elsewhere.detail
        federation.l1.mine(2)
        await trio.sleep(1)
        await member.live.claim_deposits(deposit.txid, script, None, None)
        await federation.until(lambda: entered(member, deposit))
        assert (await claim_refusal(member, deposit.txid, script)).reason is ClaimReason.ALREADY_ENTERED


async def test_claim_of_what_is_too_old_is_refused(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL, peg={"recovery_timelock_blocks": 72}) as federation:
        member, script = federation.members[0], ALICE.script()
        deposit = federation.pay_deposit(script, DEPOSIT_SATS)
        l1_height = federation.l1.chain.height
        federation.l1.mine(36 + NEEDED - 1)
        await federation.until(lambda: member.core.store.ledger.totals.anchor.height >= l1_height + 36)
        refused = await claim_refusal(member, deposit.txid, script)
        assert refused.reason is ClaimReason.TOO_OLD
        assert refused.detail.startswith(f"paid in L1 block {l1_height}, 36 blocks ago, and credited within 35 only")


async def test_claim_says_what_else_the_transaction_pays(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0) as federation:
        member, chain = federation.members[0], federation.l1.chain
        gift = reserve_script(federation.rules.custody.newest, CoinKind.DONATION).script
        payments = {
            "a gift to its fund": gift,
            "the deposit address of another claim script": federation.deposit_script(BOB.script()),
            "of another federation": p2tr("elsewhere"),
        }
        member.relay.register(BOB.script())
        for words, script in payments.items():
            payment = chain.payment(TxOut(DEPOSIT_SATS, script))
            chain.mine(payment)
            await trio.sleep(1)
            refused = await claim_refusal(member, payment.txid, ALICE.script())
            assert (refused.reason, words in refused.detail) == (ClaimReason.WRONG_SCRIPT, True), refused.detail


async def test_claim_of_what_waits_in_the_mempool_says_so(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0) as federation:
        payment = federation.l1.chain.payment(TxOut(DEPOSIT_SATS, federation.deposit_script(ALICE.script())))
        federation.l1.mempool[payment.txid] = payment
        refused = await claim_refusal(federation.members[0], payment.txid, ALICE.script())
        assert refused.reason is ClaimReason.TOO_FEW_CONFIRMATIONS
        assert refused.detail.endswith(f"waits in the mempool: 0 of {NEEDED} confirmations")


async def test_claim_of_an_old_deposit_needs_an_index_or_the_block(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a full node that never heard of the address, with the txid and the claim script alone."""
    monkeypatch.setattr(L1Watcher.__init__, "__defaults__", (10,))
    async with memory_federation(*ALL) as federation:
        deposit = federation.pay_deposit(ALICE.script(), DEPOSIT_SATS)
        block = federation.l1.chain.blocks[-1].hash
        federation.l1.mine(30)
        await trio.sleep(1)
        node = await federation.start_full_node()
        await federation.until(lambda: node.core.watcher.tip == federation.members[0].core.watcher.tip)
        assert node.core.watcher.block_of(deposit.txid) is None
        node.l1.is_indexed = False
        refused = await claim_refusal(node, deposit.txid, ALICE.script())
        assert refused.reason is ClaimReason.NOT_INDEXED
        assert "--l1-block" in refused.detail
        assert "txindex=1" in refused.detail
        node.l1.refusals["raw_transaction"] = L1RpcError("getrawtransaction", -1, "Block not available (pruned data)")
        refused = await claim_refusal(node, deposit.txid, ALICE.script(), None, block)
        assert refused.reason is ClaimReason.BLOCK_ABSENT
        del node.l1.refusals["raw_transaction"]
        [receipt] = await node.live.claim_deposits(deposit.txid, ALICE.script(), None, block)
        assert receipt.outpoint == deposit
        assert receipt.credited_sats == DEPOSIT_SATS - federation.rules.params.claim_fee_sats
        await federation.until(lambda: entered(federation.members[0], deposit))


async def test_claim_finds_an_old_deposit_by_the_index(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(L1Watcher.__init__, "__defaults__", (10,))
    async with memory_federation(*ALL) as federation:
        deposit = federation.pay_deposit(ALICE.script(), DEPOSIT_SATS)
        federation.l1.mine(30)
        await trio.sleep(1)
        await federation.members[0].live.claim_deposits(deposit.txid, ALICE.script(), None, None)
        await federation.until(lambda: entered(federation.members[0], deposit))


async def test_claim_without_an_output_takes_all_that_can_be_claimed(autojump_clock: trio.abc.Clock) -> None:
    """More than one block may open, dust among them, and one of another's."""
    async with memory_federation(*ALL, peg={"max_openings": 2}) as federation:
        member, script = federation.members[0], federation.deposit_script(ALICE.script())
        values = [DEPOSIT_SATS, 1, DEPOSIT_SATS, DEPOSIT_SATS]
        outputs = [TxOut(value_sats, script) for value_sats in values]
        payment = federation.l1.chain.payment(*outputs, TxOut(DEPOSIT_SATS, federation.deposit_script(BOB.script())))
        federation.l1.chain.mine(payment)
        federation.bury()
        await trio.sleep(1)
        receipts = await member.live.claim_deposits(payment.txid, ALICE.script(), None, None)
        assert [receipt.outpoint.vout for receipt in receipts] == [0, 2, 3]
        await federation.until(lambda: entered(member, *(receipt.outpoint for receipt in receipts)))
        assert not entered(member, payment.outpoint(1))
        assert not entered(member, payment.outpoint(4))
        claims = [receipt.claim_txid for receipt in receipts]
        await federation.settled(*claims)


async def test_claim_finds_the_epoch_that_the_address_was_of() -> None:
    """An address of an older epoch stays good: what is looked for, and opened, names that epoch."""
    chain = MemoryChain()
    newest = chain.rules.custody.newest
    custody = Custody({0: newest, 1: replace(newest, epoch=1)})
    registry = DepositRegistry(Disk().open_store(chain.rules), custody, lambda: 0)
    old = reserve_script(custody.policy(0), CoinKind.DEPOSIT, ALICE.script()).script
    new = reserve_script(custody.policy(1), CoinKind.DEPOSIT, ALICE.script()).script
    assert {script: terms.epoch for script, terms in registry.terms_of(ALICE.script()).items()} == {old: 0, new: 1}
    registry.add([ALICE.script()])
    payment = chain.l1.payment(TxOut(DEPOSIT_SATS, old), TxOut(DEPOSIT_SATS, new))
    assert [opening.epoch for opening in find_openings(payment, registry.terms)] == [0, 1]
    assert registry.scripts_of(ALICE.script()) == (new, old)


async def test_claim_of_a_coinbase_waits_for_its_maturity(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL) as federation:
        member, script = federation.members[0], ALICE.script()
        member.relay.register(script)
        deposit = coinbase_deposit(federation, script, DEPOSIT_SATS)
        federation.l1.mine(20)
        await trio.sleep(2)
        refused = await claim_refusal(member, deposit.txid, script)
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
        first = await member.live.claim_deposits(deposit.txid, script, None, None)
        assert await member.live.claim_deposits(deposit.txid, script, 0, None) == first
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
            await member.live.claim_deposits(payment.txid, wallet.script(), vout, None)
        evidence = member.core.evidence.get(payment.txid)
        assert evidence is not None
        assert [opening.vout for opening in evidence.openings] == [0, 1]


async def test_claim_waits_for_nothing_while_the_bitcoin_node_is_away(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0) as federation:
        deposit = federation.pay_deposit(ALICE.script(), DEPOSIT_SATS)
        federation.nodes[0].outage = True
        with pytest.raises(NodeUnavailable) as caught:
            await federation.members[0].live.claim_deposits(deposit.txid, ALICE.script(), None, None)
        assert caught.value.reason is UnavailableReason.L1_UNREACHABLE
