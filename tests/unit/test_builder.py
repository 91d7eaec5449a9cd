"""A leader's block: what it takes in, what it leaves for later, and what it gives up for good."""

from dataclasses import replace

import pytest

from bridge.bitcoin.identifiers import Script
from bridge.bitcoin.script import ScriptReason
from bridge.bitcoin.transaction import Transaction, TxOut
from bridge.custody import CoinKind
from bridge.errors import Rejected
from bridge.evidence import Evidence, EvidenceReason, Opening
from bridge.ledger import ledger_root
from bridge.state import LedgerReason
from pegnode.chain import builder
from pegnode.chain.block import EMPTY_BODY
from pegnode.chain.builder import BuiltBlock, Candidates, build_block
from pegnode.chain.facts import AnchorStatus, L1Facts
from pegnode.chain.transactions import TransactionRule
from pegnode.chain.verdicts import BlockRejected, HeaderReason
from tests.support.chain import MemoryChain
from tests.support.mini_wallet import Coin, MiniWallet, coins_of

ALICE = MiniWallet("alice")
BOB = MiniWallet("bob")
OP_CHECKMULTISIG = b"\xae"


@pytest.fixture
def chain() -> MemoryChain:
    return MemoryChain()


def deposit(chain: MemoryChain, value_sats: int = 50_000) -> Evidence:
    """Evidence that the next block may hold."""
    _, evidence = chain.pay_reserve(ALICE.script(), value_sats)
    chain.bury()
    return evidence


def checked(chain: MemoryChain, built: BuiltBlock) -> BuiltBlock:
    """The same, after the rules have found it valid and its state the one that they work out."""
    state = chain.apply(built.block)
    assert built.state.tip == state.tip
    assert built.state.utxos.writes == state.utxos.writes
    assert built.state.transactions == state.transactions
    assert ledger_root(built.state.ledger) == ledger_root(state.ledger)
    return built


def nothing_rejected(built: BuiltBlock) -> bool:
    return not built.rejected_evidence and not built.rejected_transactions


def held(built: BuiltBlock) -> list[bytes]:
    """The transactions of the block."""
    return list(built.block.body.transactions)


def test_block_of_everything_at_once_is_valid(chain: MemoryChain) -> None:
    coins = chain.fund(*[ALICE.script()] * chain.rules.params.batch_min_payouts)
    burns = [ALICE.spend([coin], [chain.burn_output(900_000, BOB.script(), ALICE.script())]) for coin in coins]
    chain.extend(*burns[1:])
    chain.extend(burns[0])
    evidence = deposit(chain)
    claim = chain.build(evidence=[evidence]).state.transactions[0].transaction
    payment = ALICE.pay(coins_of(claim)[0], BOB.script())
    built = checked(chain, chain.build(payment, evidence=[evidence]))
    body = built.block.body
    assert (len(body.evidence), len(body.transactions), len(body.batches)) == (1, 1, 1)
    assert built.block.header.anchor == chain.deepest_anchor()
    assert nothing_rejected(built)


def test_block_without_candidates_is_empty(chain: MemoryChain) -> None:
    built = checked(chain, chain.build())
    assert built.block.body == EMPTY_BODY


def test_time_is_the_leaders_clock_unless_the_parent_is_ahead(chain: MemoryChain) -> None:
    parent_ms = chain.header.time_ms
    for clock_ms, expected_ms in [(parent_ms + 700, parent_ms + 700), (parent_ms - 700, parent_ms + 1)]:
        built = checked(chain, chain.build(slot=chain.slot(time_ms=clock_ms)))
        assert built.block.header.time_ms == expected_ms


def test_slot_that_no_block_has_is_refused(chain: MemoryChain) -> None:
    with pytest.raises(BlockRejected) as caught:
        chain.build(slot=chain.slot(view=0))
    assert caught.value.reason is HeaderReason.VIEW_NOT_ABOVE_PARENT
    chain.l1.mine_empty(500)
    with pytest.raises(BlockRejected) as caught:
        chain.build(slot=replace(chain.slot(), anchor=chain.l1.anchor(500)))
    assert (caught.value.reason, caught.value.cause) == (HeaderReason.BAD_ANCHOR, LedgerReason.ANCHOR_STEP)


def test_anchor_at_or_below_the_parents_is_the_parents(chain: MemoryChain) -> None:
    for anchor in (chain.header.anchor, chain.l1.anchor(chain.header.anchor.height - 1)):
        built = checked(chain, chain.build(slot=replace(chain.slot(), anchor=anchor)))
        assert built.block.header.anchor == chain.header.anchor


# Speaking about L1


def due_payout(chain: MemoryChain) -> Evidence:
    """Evidence, a payout that is due, and an anchor that may rise."""
    coins = chain.fund(*[ALICE.script()] * chain.rules.params.batch_min_payouts)
    chain.extend(*[ALICE.spend([coin], [chain.burn_output(900_000, BOB.script(), ALICE.script())]) for coin in coins])
    return deposit(chain)


def test_block_that_leaves_l1_out_still_holds_transfers(chain: MemoryChain) -> None:
    [coin] = chain.fund(ALICE.script())
    evidence = due_payout(chain)
    payment = ALICE.pay(coin, BOB.script())
    built = checked(chain, chain.build(payment, evidence=[evidence], slot=chain.slot(include_l1=False)))
    assert built.block.header.anchor == chain.header.anchor
    assert (built.block.body.evidence, built.block.body.batches) == ((), ())
    assert held(built) == [payment.serialize()]
    assert nothing_rejected(built)


@pytest.mark.parametrize("status", [AnchorStatus.UNKNOWN, AnchorStatus.CONTRADICTED, AnchorStatus.WRONG_HEIGHT])
def test_block_says_nothing_about_l1_without_the_own_nodes_word(chain: MemoryChain, status: AnchorStatus) -> None:
    evidence = due_payout(chain)
    known = chain.l1.facts(chain.deepest_anchor(), evidence)
    facts = L1Facts(status, known.blocks)
    built = checked(chain, build_block(chain.state, chain.slot(), Candidates([evidence]), facts, chain.rules))
    assert built.block.header.anchor == chain.header.anchor
    assert built.block.body == EMPTY_BODY


def test_payout_needs_an_estimate_of_the_feerate(chain: MemoryChain) -> None:
    due_payout(chain)
    built = checked(chain, chain.build(slot=replace(chain.slot(), feerate_sat_kvb=None)))
    assert built.block.body.batches == ()


@pytest.mark.parametrize(("estimate", "used"), [(1, 1_000), (2_500, 2_500), (90_000, 5_000)])
def test_payout_pays_the_estimate_within_the_peg_limits(chain: MemoryChain, estimate: int, used: int) -> None:
    due_payout(chain)
    built = checked(chain, chain.build(slot=replace(chain.slot(), feerate_sat_kvb=estimate)))
    assert [batch.feerate_sat_kvb for batch in built.block.body.batches] == [used]


def test_ledger_from_which_no_batch_can_be_worked_out_does_not_stop_a_leader(
    chain: MemoryChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    evidence = due_payout(chain)
    assert chain.build().block.body.batches

    def fail(*_: object) -> None:
        raise Rejected(LedgerReason.INCONSISTENT, "a lineage names a coin that is gone")

    monkeypatch.setattr(builder, "propose_batches", fail)
    built = checked(chain, chain.build(evidence=[evidence]))
    assert built.batch_obstacle is not None
    assert built.batch_obstacle.reason is LedgerReason.INCONSISTENT
    assert (built.block.body.batches, built.block.body.evidence) == ((), (evidence,))


# Evidence


def test_evidence_that_is_bad_is_given_up(chain: MemoryChain) -> None:
    good = deposit(chain)
    bad = replace(deposit(chain), openings=(Opening(0, CoinKind.DEPOSIT, 0, BOB.script()),))
    built = checked(chain, chain.build(evidence=[bad, good]))
    assert built.block.body.evidence == (good,)
    [(given_up, error)] = built.rejected_evidence
    assert (given_up, error.reason) == (bad, EvidenceReason.WRONG_SCRIPT)


def test_evidence_that_the_node_can_not_confirm_waits(chain: MemoryChain) -> None:
    evidence = deposit(chain)
    for blocks in ({}, {evidence.l1_block_hash: None}):
        facts = L1Facts(AnchorStatus.ON_CHAIN, blocks)
        built = build_block(chain.state, chain.slot(), Candidates([evidence]), facts, chain.rules)
        assert built.block.body.evidence == ()
        assert nothing_rejected(built)


def test_evidence_above_the_anchor_or_entered_already_waits(chain: MemoryChain) -> None:
    entered = deposit(chain)
    chain.extend(evidence=[entered])
    _, above = chain.pay_reserve(ALICE.script(), 50_000)
    built = checked(chain, chain.build(evidence=[entered, above]))
    assert built.block.body.evidence == ()
    assert nothing_rejected(built)


def test_evidence_of_a_settled_batch_waits_to_be_forgotten(chain: MemoryChain) -> None:
    due_payout(chain)
    [batch] = chain.extend().block.body.batches
    payout = Transaction.parse(batch.transaction)
    chain.l1.mine(payout)
    evidence = chain.l1.evidence(payout)
    chain.bury()
    chain.extend(evidence=[evidence])
    built = checked(chain, chain.build(evidence=[evidence]))
    assert built.block.body.evidence == ()
    assert nothing_rejected(built)


def test_evidence_above_the_cap_of_the_peg_waits(chain: MemoryChain) -> None:
    evidence = deposit(chain)
    chain.rules = replace(chain.rules, params=replace(chain.rules.params, max_peg_sats=49_999))
    built = checked(chain, chain.build(evidence=[evidence]))
    assert built.block.body.evidence == ()
    assert nothing_rejected(built)


def test_evidence_beyond_the_caps_waits() -> None:
    chain = MemoryChain(peg={"max_openings": 2})
    pieces = [deposit(chain) for _ in range(3)]
    built = checked(chain, chain.build(evidence=pieces))
    assert built.block.body.evidence == tuple(pieces[:2])
    assert nothing_rejected(built)


def test_evidence_beyond_the_bytes_of_a_block_waits(chain: MemoryChain) -> None:
    large = chain.rules.params.max_evidence_bytes - 800_000
    payment = chain.l1.payment(*deposit_outputs(chain), note(large))
    chain.l1.mine(payment)
    first = chain.l1.evidence(payment, Opening(0, CoinKind.DEPOSIT, 0, ALICE.script()))
    other = chain.l1.payment(*deposit_outputs(chain), note(900_000))
    chain.l1.mine(other)
    second = chain.l1.evidence(other, Opening(0, CoinKind.DEPOSIT, 0, ALICE.script()))
    chain.bury()
    built = checked(chain, chain.build(evidence=[first, second]))
    assert built.block.body.evidence == (first,)
    chain.extend(evidence=[first])
    chain.extend(evidence=[second])


def deposit_outputs(chain: MemoryChain) -> tuple[TxOut, ...]:
    """What pays Alice's deposit address."""
    payment, _ = chain.pay_reserve(ALICE.script(), 50_000)
    return payment.outputs


def note(size_bytes: int, content: bytes = b"\x00") -> TxOut:
    """An output that makes a transaction large."""
    return TxOut(0, Script(b"\x6a" + content * size_bytes))


# Transactions


def locked(coin: Coin, locktime: int) -> Transaction:
    """A payment of Alice's that is not final before `locktime`."""
    value_sats = coin[1].value_sats - 1_000
    return ALICE.spend([coin], [TxOut(value_sats, ALICE.script())], locktime=locktime, sequence=0xFFFFFFFE)


def test_transaction_that_is_invalid_is_given_up_and_its_children_left(chain: MemoryChain) -> None:
    first, second = chain.fund(ALICE.script(), ALICE.script())
    stolen = BOB.spend([(first[0], TxOut(first[1].value_sats, BOB.script()))], [TxOut(2_000, BOB.script())])
    child = BOB.pay(coins_of(stolen)[0], BOB.script())
    good = ALICE.pay(second, BOB.script())
    built = checked(chain, chain.build(stolen, child, good))
    assert held(built) == [good.serialize()]
    [(txid, error)] = built.rejected_transactions
    assert (txid, error.reason) == (stolen.txid, ScriptReason.SCRIPT_FAILED)


def test_transaction_without_its_input_is_given_up(chain: MemoryChain) -> None:
    [coin] = chain.fund(ALICE.script())
    spent = ALICE.pay(coin, BOB.script())
    chain.extend(spent)
    built = checked(chain, chain.build(spent))
    [(txid, error)] = built.rejected_transactions
    assert (txid, error.reason) == (spent.txid, TransactionRule.MISSING_INPUT)


def test_transaction_that_is_not_final_waits_with_its_children(chain: MemoryChain) -> None:
    [coin] = chain.fund(ALICE.script())
    early = locked(coin, locktime=chain.header.height + 1)
    child = ALICE.pay(coins_of(early)[0], BOB.script())
    built = checked(chain, chain.build(early, child))
    assert held(built) == []
    assert nothing_rejected(built)
    chain.extend()
    chain.extend(early, child)


def test_transaction_under_a_relative_lock_waits(chain: MemoryChain) -> None:
    [coin] = chain.fund(ALICE.script())
    early = ALICE.spend([coin], [TxOut(5_000, BOB.script())], sequence=2)
    built = checked(chain, chain.build(early))
    assert held(built) == []
    assert nothing_rejected(built)
    chain.extend()
    chain.extend(early)


def test_transactions_beyond_the_cap_of_inputs_wait(chain: MemoryChain) -> None:
    coins = chain.fund(*[ALICE.script()] * 5)
    wide = ALICE.spend(coins[:3], [TxOut(5_000, BOB.script())])
    payments = [ALICE.pay(coin, BOB.script()) for coin in coins[3:]]
    chain.rules = replace(chain.rules, chain=replace(chain.rules.chain, max_inputs=3))
    built = checked(chain, chain.build(payments[0], wide, payments[1]))
    assert held(built) == [payment.serialize() for payment in payments]
    assert nothing_rejected(built)


def test_transactions_beyond_the_bytes_of_a_block_wait_and_smaller_ones_go() -> None:
    chain = MemoryChain(chain={"max_body_bytes": 2_104_900})
    cap = chain.rules.chain.max_body_bytes
    coins = chain.fund(*[ALICE.script()] * (cap // 99_000 + 2))
    large = [ALICE.spend([coin], [TxOut(5_000, BOB.script()), note(98_500)]) for coin in coins[:-1]]
    small = ALICE.pay(coins[-1], BOB.script())
    child_of_last = BOB.pay(coins_of(large[-1])[0], BOB.script())
    built = checked(chain, chain.build(*large, child_of_last, small))
    assert 0 < len(held(built)) - 1 < len(large)
    assert held(built)[-1] == small.serialize()
    assert child_of_last.serialize() not in held(built)
    assert cap - len(large[0].serialize()) < built.block.body.size_bytes <= cap
    assert nothing_rejected(built)


def test_transactions_beyond_the_sigop_cap_wait() -> None:
    chain = MemoryChain(chain={"max_sigop_cost": 16_000})
    coins = chain.fund(*[ALICE.script()] * 3)
    heavy = [ALICE.spend([coin], [TxOut(5_000, BOB.script()), note(150, OP_CHECKMULTISIG)]) for coin in coins[:2]]
    light = ALICE.pay(coins[2], BOB.script())
    built = checked(chain, chain.build(*heavy, light))
    assert held(built) == [heavy[0].serialize(), light.serialize()]
    assert nothing_rejected(built)


def test_burn_over_the_window_waits() -> None:
    chain = MemoryChain(peg={"max_withdrawal_sats": 1_000_000, "max_window_withdrawals_sats": 1_000_000})
    coins = chain.fund(ALICE.script(), ALICE.script())
    first, second = (ALICE.spend([coin], [chain.burn_output(600_000, BOB.script(), ALICE.script())]) for coin in coins)
    built = checked(chain, chain.build(first, second))
    assert held(built) == [first.serialize()]
    assert nothing_rejected(built)


def test_candidate_that_fails_leaves_no_trace(chain: MemoryChain) -> None:
    [coin] = chain.fund(ALICE.script())
    stolen = BOB.spend([(coin[0], TxOut(coin[1].value_sats, BOB.script()))], [TxOut(2_000, BOB.script())])
    bad = replace(deposit(chain), openings=(Opening(9, CoinKind.DEPOSIT, 0, BOB.script()),))
    slot = chain.slot()
    without = chain.build(slot=slot)
    assert chain.build(stolen, evidence=[bad], slot=slot).block == without.block


def test_parent_is_left_as_it_was(chain: MemoryChain) -> None:
    [coin] = chain.fund(ALICE.script())
    root = ledger_root(chain.state.ledger)
    chain.build(ALICE.pay(coin, BOB.script()))
    assert ledger_root(chain.state.ledger) == root
    assert chain.utxo_value(coin[0]) == coin[1].value_sats
