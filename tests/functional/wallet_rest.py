"""The wallet against the real REST server: deposits, payments, withdrawals, restoring, and what can go wrong."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
import trio

from bridge.bitcoin.addresses import decode_address, encode_address
from bridge.bitcoin.hashes import sha256
from bridge.bitcoin.identifiers import BlockHash, Script
from bridge.bitcoin.transaction import Transaction, TxOut
from federation.passphrase import Passphrase
from federation.sealed_box import LEAST_LOG_N
from pegnode.rpc.server import ServerConfig, serve
from pegnode.wallet.errors import WalletError, WalletReason
from pegnode.wallet.wallet import DATABASE_FILE, HistoryKind, Wallet, WalletChain
from tests.support.mini_wallet import MiniWallet
from tests.support.peg import p2tr
from tests.support.rpc_node import FakeNode

DEPOSIT_SATS = 10_000_000
BOB = p2tr("bob")
PASSPHRASE = Passphrase("correct horse battery staple")
T = TypeVar("T")


def create(directory: Path, chain: WalletChain, words: str | None = None) -> Wallet:
    """A new wallet under PASSPHRASE, cheaply."""
    return Wallet.create(directory, chain, PASSPHRASE, words, scrypt_log_n=LEAST_LOG_N)


class Served:
    """A node, its URL, and wallets on its chain."""

    def __init__(self, node: FakeNode, url: str, path: Path) -> None:
        self.node = node
        self.url = url
        self.path = path
        self.chain = WalletChain(
            node.network, node.rules.genesis_header.hash, node.l1_network, node.rules.l1_genesis_hash
        )
        self.credited_sats = DEPOSIT_SATS - node.rules.params.claim_fee_sats

    async def call(self, function: Callable[..., T], *arguments: object, **named: object) -> T:
        """Run a wallet's method in a thread, since the server runs in this one."""
        return await trio.to_thread.run_sync(partial(function, *arguments, **named))

    async def sync(self, wallet: Wallet, *, full: bool = False) -> int:
        """The confirmed balance after a sync."""
        await self.call(wallet.sync, self.url, full=full)
        return wallet.balance().confirmed_sats

    def script(self, wallet: Wallet) -> Script:
        """The script of a fresh address of a wallet."""
        return decode_address(wallet.new_address(), self.node.network)

    async def funded(self, name: str = "alice") -> Wallet:
        """A wallet with one deposit."""
        wallet = create(self.path / name, self.chain)
        self.node.fund(self.script(wallet), value_sats=DEPOSIT_SATS)
        assert await self.sync(wallet) == self.credited_sats
        return wallet

    def address(self, script: bytes) -> str:
        return encode_address(script, self.node.network)

    def l1_address(self, script: bytes) -> str:
        return encode_address(script, self.node.l1_network)


@asynccontextmanager
async def serving(path: Path) -> AsyncIterator[Served]:
    node, stop = FakeNode(path / "chain"), trio.Event()
    try:
        async with trio.open_nursery() as nursery:
            url: str = await nursery.start(serve, ServerConfig(path / ".cookie"), node, stop)
            yield Served(node, url, path)
            stop.set()
    finally:
        node.close()


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with serving(tmp_path) as ready:
        yield ready


async def refusal(call: Callable[[], object]) -> WalletError:
    """What a wallet's method raises."""
    with pytest.raises(WalletError) as caught:
        await trio.to_thread.run_sync(call)
    return caught.value


async def test_deposit_payment_and_withdrawal(served: Served) -> None:
    alice = await served.funded()
    bob = create(served.path / "bob", served.chain)
    txid = await served.call(alice.send, served.url, bob.new_address(), 2_000_000)
    burn = await served.call(alice.withdraw, served.url, served.l1_address(BOB), 1_000_000, 5_000)
    assert alice.balance().confirmed_sats == 0
    assert {entry.transaction.txid for entry in served.node.mempool.entries()} == {txid, burn.txid}
    served.node.make_block()

    assert await served.sync(bob) == 2_000_000
    left_sats = await served.sync(alice)
    fees_sats = served.credited_sats - 3_000_000 - left_sats
    assert 0 < fees_sats < 1_000
    withdrawal = served.node.store.ledger.withdrawal(burn)
    assert withdrawal is not None
    assert (withdrawal.value_sats, withdrawal.max_fee_sats, withdrawal.l1_script) == (1_000_000, 5_000, BOB)
    assert served.address(withdrawal.refund_script) == alice.addresses()[-1]

    history = {item.kind: item for item in alice.history()}
    assert set(history) == {HistoryKind.DEPOSIT, HistoryKind.PAYMENT, HistoryKind.WITHDRAWAL}
    assert history[HistoryKind.PAYMENT].txid == txid
    assert history[HistoryKind.WITHDRAWAL].height == 2
    assert (history[HistoryKind.DEPOSIT].fee_sats, history[HistoryKind.DEPOSIT].sent_sats) == (None, 0)
    spent_fees = [item.fee_sats for item in alice.history() if item.fee_sats is not None]
    assert sum(spent_fees) == fees_sats
    assert served.node.store.begin_recount().finish().findings == ()
    alice.close()
    bob.close()


async def test_history_shows_what_waits_first(served: Served) -> None:
    alice = await served.funded()
    txid = await served.call(alice.send, served.url, served.address(BOB), 1_000_000)
    waiting, deposit = alice.history()
    assert (waiting.txid, waiting.height, waiting.sent_sats) == (txid, None, served.credited_sats)
    assert waiting.time_seconds is not None
    assert (deposit.kind, deposit.height) == (HistoryKind.DEPOSIT, 1)
    alice.close()


async def test_payments_in_a_row_spend_the_waiting_change(served: Served) -> None:
    alice = await served.funded()
    for _ in range(5):
        await served.call(alice.send, served.url, served.address(BOB), 1_000_000)
    served.node.make_block()
    left_sats = await served.sync(alice)
    assert served.credited_sats - 5_000_000 - 5_000 < left_sats < served.credited_sats - 5_000_000
    alice.close()


async def test_wallet_restored_from_its_words_finds_everything(served: Served) -> None:
    alice = await served.funded()
    await served.call(alice.send, served.url, served.address(BOB), 1_000_000)
    served.node.make_block()
    served.node.fund(served.script(alice), value_sats=500_000)
    expected_sats, words = await served.sync(alice), alice.mnemonic(PASSPHRASE)
    alice.close()
    restored = create(served.path / "restored", served.chain, words)
    assert await served.sync(restored) == expected_sats
    assert restored.new_address() not in alice.addresses()
    assert [item.txid for item in restored.history()] == [item.txid for item in alice.history()]
    restored.close()


async def test_reloaded_wallet_goes_on_where_it_was(served: Served) -> None:
    alice = await served.funded()
    await served.call(alice.send, served.url, served.address(BOB), 1_000_000)
    before = (alice.balance(), alice.history(), alice.addresses())
    alice.close()
    alice = Wallet.load(served.path / "alice", served.chain)
    assert (alice.balance(), alice.history(), alice.addresses()) == before
    assert alice.new_address() not in before[2]
    assert (await refusal(partial(alice.send, served.url, served.address(BOB), 1_000))).reason is WalletReason.LOCKED
    alice.unlock(PASSPHRASE)
    await served.call(alice.send, served.url, served.address(BOB), 1_000_000)
    alice.close()


async def test_wallet_without_its_database_is_scanned_anew(served: Served) -> None:
    alice = await served.funded()
    alice.close()
    (served.path / "alice" / DATABASE_FILE).unlink()
    alice = Wallet.load(served.path / "alice", served.chain)
    assert alice.balance().confirmed_sats == 0
    assert await served.sync(alice) == served.credited_sats
    alice.close()


async def test_address_with_a_history_of_many_pages_is_read_to_its_end(served: Served) -> None:
    payer, wallet = MiniWallet("payer"), create(served.path / "alice", served.chain)
    target = served.script(wallet)
    served.node.fund(payer.script(), value_sats=DEPOSIT_SATS)
    claim = Transaction.parse(next(served.node.store.index.transactions_at(1)).data)
    coin = (claim.outpoint(0), claim.outputs[0])
    for number in range(60):
        rest_sats = coin[1].value_sats - 10_000 - number - 1_000
        payment = payer.spend([coin], [TxOut(10_000 + number, target), TxOut(rest_sats, payer.script())])
        await served.node.submit_transaction(payment.serialize())
        coin = (payment.outpoint(1), payment.outputs[1])
        if number % 20 == 19:
            served.node.make_block()
    assert await served.sync(wallet) == sum(10_000 + number for number in range(60))
    assert len(wallet.history()) == 60
    wallet.close()


async def test_dropped_payment_gives_its_coins_back(served: Served) -> None:
    alice = await served.funded()
    txid = await served.call(alice.send, served.url, served.address(BOB), 1_000_000)
    served.node.mempool.drop([txid])
    assert await served.sync(alice) == served.credited_sats
    again = await served.call(alice.send, served.url, served.address(BOB), 2_000_000)
    assert again in served.node.mempool
    alice.close()


async def test_sync_refuses_a_node_of_another_chain(served: Served) -> None:
    other = replace(served.chain, genesis_hash=BlockHash(sha256(b"another first block")))
    wallet = create(served.path / "other", other)
    error = await refusal(lambda: wallet.sync(served.url))
    assert error.reason is WalletReason.WRONG_CHAIN
    wallet.close()


async def test_sync_refuses_a_server_that_is_no_node(served: Served) -> None:
    wallet = create(served.path / "alice", served.chain)
    error = await refusal(lambda: wallet.sync(served.url + "/elsewhere"))
    assert error.reason is WalletReason.NODE_UNREACHABLE
    wallet.close()


async def test_payment_over_the_balance_is_refused(served: Served) -> None:
    alice = await served.funded()
    for amount_sats in (served.credited_sats, 10 * DEPOSIT_SATS):
        error = await refusal(partial(alice.send, served.url, served.address(BOB), amount_sats))
        assert error.reason is WalletReason.INSUFFICIENT_FUNDS
        assert str(served.credited_sats) in error.detail
    assert len(served.node.mempool) == 0
    alice.close()


async def test_payment_below_dust_is_refused(served: Served) -> None:
    alice = await served.funded()
    error = await refusal(lambda: alice.send(served.url, served.address(BOB), 100))
    assert error.reason is WalletReason.BELOW_DUST
    alice.close()


async def test_feerate_that_is_surely_a_mistake_is_refused(served: Served) -> None:
    alice = await served.funded()
    for feerate_sat_vb in (30_000, 2**62):
        error = await refusal(
            partial(alice.send, served.url, served.address(BOB), 10_000, feerate_sat_vb=feerate_sat_vb)
        )
        assert error.reason is WalletReason.LIBRARY
    free = await refusal(partial(alice.send, served.url, served.address(BOB), 10_000, feerate_sat_vb=0))
    assert free.reason is WalletReason.REJECTED
    assert free.detail.startswith("pool-feerate")
    assert await served.sync(alice) == served.credited_sats
    alice.close()


async def test_refused_withdrawal_names_the_rule_and_leaves_the_coins(served: Served) -> None:
    alice = await served.funded()
    error = await refusal(lambda: alice.withdraw(served.url, served.l1_address(BOB), 10_000, 9_900))
    assert error.reason is WalletReason.REJECTED
    assert error.detail.startswith("burn-max-fee: ")
    assert alice.balance().confirmed_sats == served.credited_sats
    burn = await served.call(alice.withdraw, served.url, served.l1_address(BOB), 10_000, 5_000)
    assert burn.txid in served.node.mempool
    alice.close()


async def test_foreign_addresses_are_refused_by_name(served: Served) -> None:
    alice = await served.funded()
    paid = await refusal(lambda: alice.send(served.url, served.l1_address(BOB), 10_000))
    assert (paid.reason, "Bitcoin regtest" in paid.detail) == (WalletReason.BAD_ADDRESS, True)
    burned = await refusal(lambda: alice.withdraw(served.url, served.address(BOB), 10_000, 1_000))
    assert (burned.reason, "Pegnode" in burned.detail) == (WalletReason.BAD_ADDRESS, True)
    assert len(served.node.mempool) == 0
    alice.close()


async def test_amounts_out_of_range_are_refused(served: Served) -> None:
    alice = await served.funded()
    for amount_sats in (0, -1, 22_000_000 * 100_000_000):
        error = await refusal(partial(alice.send, served.url, served.address(BOB), amount_sats))
        assert error.reason is WalletReason.BAD_AMOUNT
    for max_fee_sats in (-1, 10_000):
        error = await refusal(partial(alice.withdraw, served.url, served.l1_address(BOB), 10_000, max_fee_sats))
        assert error.reason is WalletReason.BAD_AMOUNT
    alice.close()
