"""The state after a block: its values, its overlays, and invariants that hold whatever happens."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.bitcoin.identifiers import OutPoint, Script, Txid
from bridge.bitcoin.transaction import TxOut
from bridge.codec import Writer
from bridge.deposits import CLAIM_FLAG, REFUND_FLAG
from bridge.errors import MalformedError
from bridge.ledger import ledger_root
from bridge.state import EMPTY_CHAIN, MAX_SCRIPT_BYTES, chain_hash
from pegnode.chain.block import EMPTY_BODY
from pegnode.chain.execution import UTXO_DELTA_TAG
from pegnode.chain.state import AppliedTransaction, ChainState, GenesisState, TransactionKind, Utxo, recount_supply
from pegnode.chain.transactions import is_spendable
from tests.support.chain import MemoryChain
from tests.support.mini_wallet import Coin, MiniWallet, coins_of

ALICE = MiniWallet("alice")
BOB = MiniWallet("bob")

u64 = st.integers(0, 2**64 - 1)
utxos = st.builds(Utxo, u64, st.binary(max_size=MAX_SCRIPT_BYTES).map(Script), u64, u64)


@given(utxos)
def test_utxo_survives_a_round_trip(utxo: Utxo) -> None:
    assert Utxo.decode(utxo.encode()) == utxo


@given(st.binary(max_size=80))
def test_utxo_of_arbitrary_bytes_is_malformed_or_canonical(data: bytes) -> None:
    try:
        utxo = Utxo.decode(data)
    except MalformedError:
        return
    assert utxo.encode() == data


def test_utxo_with_too_long_a_script_is_malformed() -> None:
    with pytest.raises(MalformedError):
        Utxo.decode(Utxo(1, Script(bytes(MAX_SCRIPT_BYTES + 1)), 1, 1).encode())


def test_genesis_has_no_output_and_an_empty_ledger() -> None:
    chain = MemoryChain()
    header = chain.rules.genesis_header
    state = GenesisState(header)
    assert (header.height, header.view, header.parent) == (0, 0, chain.rules.chain_id)
    assert (header.body_root, header.ledger_root) == (EMPTY_BODY.root, ledger_root(state.ledger))
    assert recount_supply(state) == 0
    assert list(state.utxos.items()) == []
    assert state.ledger.totals.anchor == header.anchor == chain.l1.anchor(header.anchor.height)


def test_outputs_remember_the_block_that_made_them() -> None:
    chain = MemoryChain()
    [coin] = chain.fund(ALICE.script(), value_sats=10_000)
    claimed = chain.header
    payment = ALICE.pay(coin, BOB.script())
    assert chain.state.utxos.get(coin[0]) == Utxo(9_000, ALICE.script(), claimed.height, claimed.time_ms)
    chain.extend(payment)
    spent = chain.header
    assert chain.state.utxos.get(payment.outpoint(0)) == Utxo(8_000, BOB.script(), spent.height, spent.time_ms)


# Overlays


def three_states() -> tuple[MemoryChain, list[ChainState]]:
    """A chain, and its newest three states, each over the one before."""
    chain = MemoryChain()
    [coin] = chain.fund(ALICE.script())
    states = []
    for _ in range(3):
        payment = ALICE.pay(coin, ALICE.script())
        chain.extend(payment)
        [coin] = coins_of(payment)
        assert isinstance(chain.state, ChainState)
        states.append(chain.state)
    return chain, states


def test_rebased_state_is_the_same_delta_over_another_view() -> None:
    _, (first, second, third) = three_states()
    moved_second = second.rebased(first)
    moved_third = third.rebased(moved_second)
    assert ledger_root(moved_third.ledger) == third.tip.header.ledger_root
    assert list(moved_third.utxos.items()) == list(third.utxos.items())
    assert moved_third.utxos.writes == third.utxos.writes
    assert moved_third.transactions == third.transactions
    assert moved_third.tip == third.tip


def test_rebased_state_no_longer_reads_its_old_base() -> None:
    _, (first, second, third) = three_states()
    moved = third.rebased(second.rebased(first))
    stray = OutPoint(Txid(b"\x77" * 32), 0)
    second.utxos.put(stray, Utxo(1, ALICE.script(), 1, 1))
    assert stray in third.utxos
    assert stray not in moved.utxos


def test_rebased_state_needs_its_own_parent() -> None:
    _, (first, _, third) = three_states()
    with pytest.raises(ValueError, match="does not follow"):
        third.rebased(first)


def test_state_without_a_delta_still_has_its_own_tip() -> None:
    chain = MemoryChain()
    state = ChainState(chain.state, replace(chain.header, height=1))
    assert state.tip.header.height == 1
    assert chain.header.height == 0


# What the ledger root says about the UTXO set


def recomputed_utxo_chain(transactions: list[AppliedTransaction], chain: MemoryChain, start: bytes) -> bytes:
    """The commitment to the changes of the newest block, written down once more."""
    header = chain.header
    link = start
    for applied in transactions:
        delta = Writer().u32(len(applied.spent))
        for outpoint, _ in applied.spent:
            delta.variable(outpoint.encode())
        outputs = [item for item in enumerate(applied.transaction.outputs) if is_spendable(item[1])]
        delta.u32(len(outputs))
        for vout, output in outputs:
            delta.variable(applied.transaction.outpoint(vout).encode())
            delta.variable(Utxo(output.value_sats, output.script, header.height, header.time_ms).encode())
        link = chain_hash(UTXO_DELTA_TAG, link, delta.finish())
    return link


def test_utxo_chain_commits_to_every_change_in_order() -> None:
    chain = MemoryChain()
    [first, second] = chain.fund(ALICE.script(), ALICE.script())
    assert isinstance(chain.state, ChainState)
    after_claims = recomputed_utxo_chain(chain.state.transactions, chain, EMPTY_CHAIN)
    assert chain.state.ledger.totals.utxo_chain == after_claims
    note = TxOut(0, Script(b"\x6a"))
    built = chain.extend(ALICE.pay(first, BOB.script()), ALICE.spend([second], [TxOut(5_000, BOB.script()), note]))
    expected = recomputed_utxo_chain(built.state.transactions, chain, after_claims)
    assert chain.state.ledger.totals.utxo_chain == expected
    reversed_order = recomputed_utxo_chain(built.state.transactions[::-1], chain, after_claims)
    assert reversed_order != expected


def test_utxo_chain_rests_without_transactions() -> None:
    chain = MemoryChain()
    chain.fund(ALICE.script())
    before = chain.state.ledger.totals.utxo_chain
    chain.extend()
    assert chain.state.ledger.totals.utxo_chain == before


# Invariants


def roots_of(outpoint: OutPoint, made_by: dict[Txid, AppliedTransaction]) -> list[OutPoint]:
    """The inputs that spend no output of this chain, among all ancestors of an output."""
    roots = []
    pending, seen = [outpoint.txid], {outpoint.txid}
    while pending:
        applied = made_by[pending.pop()]
        for txin in applied.transaction.inputs:
            parent = txin.outpoint.txid
            if applied.kind is not TransactionKind.TRANSFER:
                roots.append(txin.outpoint)
            elif parent not in seen:
                seen.add(parent)
                pending.append(parent)
    return roots


@settings(max_examples=15)
@given(st.data())
def test_every_ancestry_ends_in_an_input_that_no_transaction_of_l1_can_have(data: st.DataObject) -> None:
    """So nothing replays to or from L1. The supply is the sum of the outputs all the while, and the ledger balances."""
    chain = MemoryChain()
    made_by: dict[Txid, AppliedTransaction] = {}
    coins: list[Coin] = []
    for _ in range(data.draw(st.integers(1, 4))):
        if not coins or data.draw(st.booleans()):
            coins += chain.fund(*[ALICE.script()] * data.draw(st.integers(1, 2)), value_sats=1_000_000)
        else:
            chosen = data.draw(st.lists(st.sampled_from(coins), min_size=1, max_size=3, unique=True))
            total_sats = sum(output.value_sats for _, output in chosen)
            outputs = [TxOut(total_sats // 4, ALICE.script())] * data.draw(st.integers(1, 3))
            if data.draw(st.booleans()):
                outputs.append(chain.burn_output(total_sats // 4, BOB.script(), ALICE.script()))
            payment = ALICE.spend(chosen, outputs)
            chain.extend(payment)
            coins = [coin for coin in coins if coin not in chosen]
            coins += [coin for coin in coins_of(payment) if is_spendable(coin[1])]
        assert isinstance(chain.state, ChainState)
        made_by |= {applied.transaction.txid: applied for applied in chain.state.transactions}
        assert recount_supply(chain.state) == chain.state.ledger.totals.supply_sats
        chain.state.ledger.totals.require_equality()
    assert {outpoint for outpoint, _ in chain.state.utxos.items()} == {outpoint for outpoint, _ in coins}
    for outpoint, _ in coins:
        roots = roots_of(outpoint, made_by)
        assert roots
        assert all(root.vout & (CLAIM_FLAG | REFUND_FLAG) for root in roots)
