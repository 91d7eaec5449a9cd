"""The pool of transactions: every ground for refusal, the order of what it gives out, and what it forgets when."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from bridge.bitcoin.identifiers import Script
from bridge.bitcoin.script import ScriptReason, ScriptType, dust_limit_sats
from bridge.bitcoin.transaction import Transaction, TransactionReason, TxOut
from bridge.custody import CoinKind, reserve_script
from bridge.errors import Reason, Rejected
from bridge.withdrawals import BurnReason
from pegnode.chain.transactions import TransactionRule
from pegnode.mempool.pool import Mempool, PoolLimits, PoolReason
from tests.support.chain import MemoryChain
from tests.support.mini_wallet import Coin, MiniWallet, coins_of

ALICE = MiniWallet("alice")
BOB = MiniWallet("bob")
FREE = PoolLimits(min_feerate_sat_kvb=0)


class World:
    """A chain with coins of Alice's, a pool beside it, and a clock."""

    def __init__(self, limits: PoolLimits = FREE, coins: int = 2, peg: Mapping[str, int] = {}) -> None:
        self.chain = MemoryChain(peg=peg)
        self.coins = self.chain.fund(*[ALICE.script()] * coins)
        self.pool = Mempool(limits)
        self.now_ms = self.chain.header.time_ms

    def add(self, *transactions: Transaction) -> None:
        for transaction in transactions:
            assert self.pool.add(transaction.serialize(), self.chain.state, self.chain.rules, self.now_ms)

    def refused(self, transaction: Transaction) -> Reason:
        """Why the pool does not take it; the pool stays as it is, and a dry run says the same."""
        before = (self.pool.entries(), self.pool.size_bytes)
        reasons = []
        for attempt in (self.pool.check, self.pool.add):
            with pytest.raises(Rejected) as caught:
                attempt(transaction.serialize(), self.chain.state, self.chain.rules, self.now_ms)
            assert (self.pool.entries(), self.pool.size_bytes) == before
            reasons.append(caught.value.reason)
        assert reasons[0] is reasons[1]
        return reasons[0]

    def waiting(self) -> list[Transaction]:
        return [entry.transaction for entry in self.pool.entries()]

    def chosen(self, max_bytes: int = 10**9) -> list[Transaction]:
        return self.pool.select(self.chain.state, max_bytes)


@pytest.fixture
def world() -> World:
    return World()


def line(coin: Coin, length: int) -> list[Transaction]:
    """Transactions of which each spends the one before."""
    transactions = []
    for _ in range(length):
        transactions.append(ALICE.pay(coin, ALICE.script()))
        [coin] = coins_of(transactions[-1])
    return transactions


def test_transaction_waits_with_its_fee_and_time(world: World) -> None:
    payment = ALICE.pay(world.coins[0], BOB.script(), fee_sats=700)
    world.add(payment)
    entry = world.pool.get(payment.txid)
    assert entry is not None
    assert (entry.transaction, entry.fee_sats, entry.arrived_ms) == (payment, 700, world.now_ms)
    assert payment.txid in world.pool
    assert (len(world.pool), world.pool.size_bytes) == (1, len(payment.serialize()))
    assert world.pool.spender(world.coins[0][0]) == payment.txid
    assert world.pool.spender(world.coins[1][0]) is None


def test_check_says_what_add_would_do_and_does_nothing(world: World) -> None:
    payment = ALICE.pay(world.coins[0], BOB.script(), fee_sats=700)
    entry = world.pool.check(payment.serialize(), world.chain.state, world.chain.rules, world.now_ms)
    assert (entry.transaction, entry.fee_sats) == (payment, 700)
    assert len(world.pool) == 0
    world.add(payment)


# Refusals


def test_bytes_that_are_no_transaction_are_refused(world: World) -> None:
    with pytest.raises(Rejected) as caught:
        world.pool.add(b"nothing", world.chain.state, world.chain.rules, world.now_ms)
    assert caught.value.reason is TransactionReason.MALFORMED


def test_transaction_that_waits_already_is_refused(world: World) -> None:
    payment = ALICE.pay(world.coins[0], BOB.script())
    world.add(payment)
    assert world.refused(payment) is PoolReason.ALREADY_WAITING


def test_transaction_that_conflicts_is_refused(world: World) -> None:
    world.add(ALICE.pay(world.coins[0], BOB.script()))
    rival = ALICE.spend(world.coins, [TxOut(5_000, ALICE.script())])
    assert world.refused(rival) is PoolReason.CONFLICT


def test_transaction_is_refused_when_the_count_is_full() -> None:
    world = World(replace(FREE, max_count=1))
    world.add(ALICE.pay(world.coins[0], BOB.script()))
    assert world.refused(ALICE.pay(world.coins[1], BOB.script())) is PoolReason.FULL


def test_transaction_is_refused_when_the_bytes_are_full() -> None:
    payments = [ALICE.pay(coin, BOB.script()) for coin in World().coins]
    size_bytes = sum(len(payment.serialize()) for payment in payments)
    exact = World(replace(FREE, max_bytes=size_bytes))
    exact.add(*payments)
    short = World(replace(FREE, max_bytes=size_bytes - 1))
    short.add(payments[0])
    assert short.refused(payments[1]) is PoolReason.FULL


def test_chain_of_waiting_transactions_has_a_longest(world: World) -> None:
    transactions = line(world.coins[0], 26)
    world.add(*transactions[:25])
    assert world.refused(transactions[25]) is PoolReason.LONG_CHAIN
    world.pool.remove_applied(world.chain.extend(transactions[0]).state.transactions)
    world.add(transactions[25])


def test_chain_counts_all_ancestors_once() -> None:
    world = World(replace(FREE, max_chain=4))
    root = ALICE.pay(world.coins[0], ALICE.script(), ALICE.script())
    left, right = (ALICE.pay(coin, ALICE.script()) for coin in coins_of(root))
    joined = ALICE.spend([coins_of(left)[0], coins_of(right)[0]], [TxOut(5_000, ALICE.script())])
    world.add(root, left, right, joined)
    assert world.refused(ALICE.pay(coins_of(joined)[0], BOB.script())) is PoolReason.LONG_CHAIN


def test_fee_below_the_floor_is_refused() -> None:
    world = World(PoolLimits(min_feerate_sat_kvb=1_000))
    least_sats = ALICE.pay(world.coins[0], BOB.script()).vsize_vbytes
    assert world.refused(ALICE.pay(world.coins[0], BOB.script(), fee_sats=least_sats - 1)) is PoolReason.FEERATE
    world.add(ALICE.pay(world.coins[0], BOB.script(), fee_sats=least_sats))


@pytest.mark.parametrize("kind", ScriptType)
def test_dust_is_refused(world: World, kind: ScriptType) -> None:
    script = BOB.script(kind)
    limit_sats = dust_limit_sats(script)
    dusty = ALICE.spend([world.coins[0]], [TxOut(limit_sats - 1, script), TxOut(5_000, ALICE.script())])
    assert world.refused(dusty) is PoolReason.DUST
    world.add(ALICE.spend([world.coins[0]], [TxOut(limit_sats, script), TxOut(5_000, ALICE.script())]))


def test_data_output_is_no_dust(world: World) -> None:
    world.add(ALICE.spend([world.coins[0]], [TxOut(0, Script(b"\x6a\x01x")), TxOut(5_000, ALICE.script())]))


@pytest.mark.parametrize("kind", [CoinKind.CHANGE, CoinKind.DONATION])
def test_output_to_a_script_of_the_reserve_is_refused(world: World, kind: CoinKind) -> None:
    """The coin would be lost: the members hold no sidechain coins."""
    script = reserve_script(world.chain.rules.custody.newest, kind).script
    payment = ALICE.pay(world.coins[0], script)
    assert world.refused(payment) is PoolReason.RESERVE_SCRIPT
    world.chain.extend(payment)


def test_rules_of_blocks_hold_for_the_pool(world: World) -> None:
    coin = world.coins[0]
    assert world.refused(ALICE.pay(coin, Script(b"\x51"))) is TransactionRule.OUTPUT_TYPE
    stolen = BOB.spend([(coin[0], TxOut(coin[1].value_sats, BOB.script()))], [TxOut(5_000, BOB.script())])
    assert world.refused(stolen) is ScriptReason.SCRIPT_FAILED
    large = world.chain.burn_output(2_500, BOB.script(), ALICE.script(), max_fee_sats=2_400)
    assert world.refused(ALICE.spend([coin], [large])) is BurnReason.MAX_FEE


def test_lock_times_are_those_of_the_next_block(world: World) -> None:
    def locked(coin: Coin, locktime: int) -> Transaction:
        return ALICE.spend([coin], [TxOut(5_000, BOB.script())], locktime=locktime, sequence=0xFFFFFFFE)

    next_height = world.chain.header.height + 1
    assert world.refused(locked(world.coins[0], next_height)) is TransactionRule.NOT_FINAL
    world.add(locked(world.coins[0], next_height - 1))
    now = world.now_ms // 1000
    assert world.refused(locked(world.coins[1], now)) is TransactionRule.NOT_FINAL
    world.now_ms += 1_000
    world.add(locked(world.coins[1], now))


def test_clock_behind_the_tip_counts_as_the_tips_time(world: World) -> None:
    past = world.chain.header.time_seconds - 1
    world.now_ms = 0
    world.add(ALICE.spend([world.coins[0]], [TxOut(5_000, BOB.script())], locktime=past, sequence=0xFFFFFFFE))


# Chains of transactions


def test_output_of_a_waiting_transaction_can_be_spent(world: World) -> None:
    first, second = line(world.coins[0], 2)
    assert world.refused(second) is TransactionRule.MISSING_INPUT
    world.add(first, second)
    assert world.chosen() == [first, second]


def test_output_that_a_waiting_transaction_lacks_or_burns_can_not_be_spent(world: World) -> None:
    first = ALICE.spend([world.coins[0]], [TxOut(5_000, ALICE.script()), TxOut(0, Script(b"\x6a"))])
    world.add(first)
    for vout, script in ((1, first.outputs[1].script), (2, ALICE.script())):
        spend = ALICE.spend([(first.outpoint(vout), TxOut(1_000, ALICE.script()))], [TxOut(400, BOB.script())])
        assert world.refused(spend) is TransactionRule.MISSING_INPUT, script


def test_relative_lock_on_a_waiting_output_is_not_due(world: World) -> None:
    first = ALICE.pay(world.coins[0], ALICE.script())
    world.add(first)
    second = ALICE.spend(coins_of(first), [TxOut(5_000, ALICE.script())], sequence=1)
    assert world.refused(second) is TransactionRule.RELATIVE_LOCK
    world.chain.extend(first)
    world.add(second)


# What a leader gets


def test_select_gives_the_oldest_that_fit(world: World) -> None:
    payments = [ALICE.pay(coin, BOB.script()) for coin in world.coins]
    world.add(*payments)
    sizes = [len(payment.serialize()) for payment in payments]
    assert world.chosen(sum(sizes)) == payments
    assert world.chosen(sum(sizes) - 1) == payments[:1]
    assert world.chosen(sizes[0] - 1) == []


def test_select_passes_over_what_an_unfinal_block_holds_and_keeps_it(world: World) -> None:
    first, second = line(world.coins[0], 2)
    other = ALICE.pay(world.coins[1], BOB.script())
    world.add(first, other, second)
    final = world.chain.state
    world.chain.extend(first)
    assert world.chosen() == [other, second]
    world.chain.state = final
    assert world.chosen() == [first, other, second]


def test_select_passes_over_what_an_unfinal_block_conflicts_with(world: World) -> None:
    first, second = line(world.coins[0], 2)
    world.add(first, second)
    world.chain.extend(ALICE.pay(world.coins[0], BOB.script()))
    assert world.chosen() == []
    assert world.waiting() == [first, second]


def test_selected_transactions_make_a_block(world: World) -> None:
    world.add(*line(world.coins[0], 5), *line(world.coins[1], 5))
    built = world.chain.extend(*world.chosen())
    assert len(built.block.body.transactions) == 10


# What is forgotten


def test_applied_transactions_are_forgotten_and_their_children_stay(world: World) -> None:
    first, second = line(world.coins[0], 2)
    world.add(first, second)
    built = world.chain.extend(first)
    assert world.pool.remove_applied(built.state.transactions) == []
    assert world.waiting() == [second]
    assert world.pool.size_bytes == len(second.serialize())
    assert world.chosen() == [second]


def test_conflicts_of_applied_transactions_are_dropped_with_their_children(world: World) -> None:
    first, second = line(world.coins[0], 2)
    other = ALICE.pay(world.coins[1], BOB.script())
    world.add(first, second, other)
    built = world.chain.extend(ALICE.pay(world.coins[0], BOB.script()))
    assert set(world.pool.remove_applied(built.state.transactions)) == {first.txid, second.txid}
    assert world.waiting() == [other]


def test_dropped_transaction_takes_its_descendants_along(world: World) -> None:
    transactions = line(world.coins[0], 4)
    other = ALICE.pay(world.coins[1], BOB.script())
    world.add(*transactions, other)
    assert set(world.pool.drop([transactions[1].txid])) == {item.txid for item in transactions[1:]}
    assert world.waiting() == [transactions[0], other]
    assert world.pool.drop([transactions[1].txid]) == []
    world.add(transactions[1])


def test_empty_pool_remembers_nothing(world: World) -> None:
    transactions = line(world.coins[0], 3)
    world.add(*transactions)
    world.pool.drop([transactions[0].txid])
    assert (len(world.pool), world.pool.size_bytes) == (0, 0)
    assert world.pool.spender(world.coins[0][0]) is None


def burn(world: World, coin: Coin, value_sats: int) -> Transaction:
    back = TxOut(coin[1].value_sats - value_sats - 1_000, ALICE.script())
    return ALICE.spend([coin], [world.chain.burn_output(value_sats, BOB.script(), ALICE.script()), back])


def test_burns_that_wait_fit_the_withdrawal_window_together() -> None:
    """What must wait for the window, a day maybe, would stand before everybody else's transactions all that time."""
    world = World(coins=3, peg={"max_withdrawal_sats": 1_000_000, "max_window_withdrawals_sats": 1_000_000})
    first, second, payment = world.coins
    world.add(burn(world, first, 600_000))
    assert world.refused(burn(world, second, 400_001)) is PoolReason.OVER_WINDOW
    world.add(ALICE.pay(payment, BOB.script()), burn(world, second, 400_000))


def test_burns_are_dropped_whose_room_those_of_a_final_block_took() -> None:
    """The newest first, with what spends from them; then there is room again for what comes."""
    world = World(coins=6, peg={"max_withdrawal_sats": 1_000_000, "max_window_withdrawals_sats": 1_000_000})
    *burners, other, payer = world.coins
    oldest, large, child_of, newest = (
        burn(world, coin, value) for coin, value in zip(burners, (100_000, 500_000, 200_000, 50_000), strict=True)
    )
    child = ALICE.pay((large.outpoint(1), large.outputs[1]), BOB.script())
    payment = ALICE.pay(payer, BOB.script())
    world.add(oldest, large, child, child_of, newest, payment)
    assert world.pool.recheck(world.chain.state, world.chain.rules) == []
    world.chain.extend(burn(world, other, 700_000))
    assert set(world.pool.recheck(world.chain.state, world.chain.rules)) == {large.txid, child.txid, newest.txid}
    assert world.waiting() == [oldest, child_of, payment]
    assert world.refused(newest) is PoolReason.OVER_WINDOW


def test_expired_transactions_are_dropped_with_their_children() -> None:
    world = World(replace(FREE, expiry_ms=1_000))
    first, second = line(world.coins[0], 2)
    other = ALICE.pay(world.coins[1], BOB.script())
    world.add(first)
    world.now_ms += 500
    world.add(second, other)
    assert world.pool.expire(world.now_ms + 500) == []
    assert set(world.pool.expire(world.now_ms + 501)) == {first.txid, second.txid}
    assert world.waiting() == [other]
