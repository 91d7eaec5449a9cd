"""A thousand withdrawals drain in bounded batches: each is paid on L1 or refunded here, once, and none is lost.

Real blocks, by the rules of the chain, over an L1 in memory that knows nothing of the ledger: it has outputs, which it
lets nobody spend twice, and payments. Which version of a batch it confirms, and when, is a matter of chance.
"""

import random
from collections import Counter
from dataclasses import dataclass, field

from bridge.batch_form import least_share_sats
from bridge.bitcoin.identifiers import OutPoint, Script
from bridge.bitcoin.transaction import Transaction, TxOut
from bridge.deposits import REFUND_FLAG
from bridge.evidence import Evidence
from bridge.state import BatchKind, Lineage
from pegnode.chain.state import TransactionKind, recount_supply
from tests.support.chain import FEERATE_SAT_KVB, MemoryChain
from tests.support.mini_wallet import MiniWallet
from tests.support.peg import p2wpkh

ALICE = MiniWallet("alice")
PARAMETERS = {"withdrawal_expiry_anchors": 400, "max_refunds_per_block": 25}
WITHDRAWALS = 1_000
AT_ONCE = 200
"""Burns of one transaction, of which one is in each of the first blocks."""
DEPOSIT_SATS = 20_000_000
GENEROUS_SATS = 5_000
MAX_BLOCKS = 400


@dataclass(frozen=True)
class Wish:
    """What one burn asks for."""

    value_sats: int
    max_fee_sats: int
    l1_script: Script


@dataclass
class Drain:
    """chain: the sidechain, with its L1.  held: what L1 holds of the reserve.  paid: what payees got there, each time.

    refunded: the burns that came back, each time.  confirmed: batches, as they were then.  unproven: what no block has
    evidence of yet.
    """

    chain: MemoryChain
    chance: random.Random
    wishes: dict[OutPoint, Wish] = field(default_factory=dict)
    held: dict[OutPoint, int] = field(default_factory=dict)
    paid: dict[bytes, list[int]] = field(default_factory=dict)
    refunded: Counter[OutPoint] = field(default_factory=Counter)
    unproven: list[Evidence] = field(default_factory=list)
    confirmed: list[Lineage] = field(default_factory=list)

    def burn(self, coin: tuple[OutPoint, TxOut]) -> Transaction:
        """One transaction of burns: nine of ten bear any share, the others none, or hardly the least there can be."""
        least_sats = least_share_sats(self.chain.rules.params, FEERATE_SAT_KVB)
        wishes: list[Wish] = []
        for _ in range(AT_ONCE):
            number = len(self.wishes) + len(wishes)
            max_fee_sats = {3: 0, 7: least_sats + number % 12}.get(number % 20, GENEROUS_SATS)
            value_sats = self.chance.randrange(20_000, 90_000)
            wishes.append(Wish(value_sats, max_fee_sats, p2wpkh(f"payee {number}")))
        outputs = [
            self.chain.burn_output(wish.value_sats, wish.l1_script, ALICE.script(), wish.max_fee_sats)
            for wish in wishes
        ]
        transaction = ALICE.spend([coin], outputs)
        self.wishes |= {transaction.outpoint(vout): wish for vout, wish in enumerate(wishes)}
        return transaction

    def confirm(self, lineage: Lineage) -> None:
        """L1 mines a version of a batch: any of them, since every one is broadcast again and again."""
        version = self.chance.choice(lineage.versions)
        transaction = Transaction.parse(version.transaction)
        spent_sats = sum(self.held.pop(txin.outpoint) for txin in transaction.inputs)
        for vout, output in enumerate(transaction.outputs):
            if vout < len(lineage.payees):
                self.paid.setdefault(output.script, []).append(output.value_sats)
            else:
                self.held[transaction.outpoint(vout)] = output.value_sats
        assert spent_sats - sum(output.value_sats for output in transaction.outputs) == version.fee_sats
        self.chain.l1.mine(transaction)
        self.unproven.append(self.chain.l1.evidence(transaction))
        self.confirmed.append(lineage)

    def l1_goes_on(self) -> None:
        """A few blocks, which may confirm a batch that waits."""
        confirmed = {lineage.number for lineage in self.confirmed}
        for number, lineage in self.chain.state.ledger.open_lineages.items():
            if number not in confirmed and self.chance.random() < 0.6:
                self.confirm(lineage)
        self.chain.l1.mine_empty(self.chance.randrange(1, 6))

    def block(self, *transactions: Transaction) -> None:
        """The next block, with the evidence that is deep enough."""
        height = self.chain.deepest_anchor().height
        ready = [item for item in self.unproven if item.l1_height <= height]
        self.unproven = [item for item in self.unproven if item.l1_height > height]
        built = self.chain.extend(*transactions, evidence=ready)
        for applied in built.state.transactions:
            if applied.kind is TransactionKind.REFUND:
                [txin] = applied.transaction.inputs
                self.refunded[OutPoint(txin.outpoint.txid, txin.outpoint.vout ^ REFUND_FLAG)] += 1
        assert len(built.block.body.refunds) <= PARAMETERS["max_refunds_per_block"]


def test_thousand_withdrawals_drain_in_bounded_batches() -> None:
    chain = MemoryChain(peg=PARAMETERS)
    drain = Drain(chain, random.Random(1))
    coins = chain.fund(*[ALICE.script()] * (WITHDRAWALS // AT_ONCE), value_sats=DEPOSIT_SATS)
    drain.held = {outpoint: coin.value_sats for outpoint, coin in chain.state.ledger.coins.items()}
    for coin in coins:
        drain.block(drain.burn(coin))
        drain.l1_goes_on()
    assert len(drain.wishes) == WITHDRAWALS
    while any(True for _ in chain.state.ledger.open_withdrawals.items()):
        assert len(chain.blocks) < MAX_BLOCKS, "it does not drain"
        drain.l1_goes_on()
        drain.block()
    check(drain)


def check(drain: Drain) -> None:
    """Every wish is fulfilled or given back, and both sides hold what they must."""
    for burn, wish in drain.wishes.items():
        payments = drain.paid.get(wish.l1_script, [])
        assert len(payments) + drain.refunded[burn] == 1, f"{burn} was paid {payments}, refunded {drain.refunded[burn]}"
        if payments:
            assert wish.value_sats - wish.max_fee_sats <= payments[0] < wish.value_sats
        if wish.max_fee_sats in (0, GENEROUS_SATS):
            assert bool(payments) == bool(wish.max_fee_sats)
    assert drain.refunded.keys() <= drain.wishes.keys()
    assert drain.paid.keys() <= {wish.l1_script for wish in drain.wishes.values()}

    params, ledger = drain.chain.rules.params, drain.chain.state.ledger
    payouts = [lineage for lineage in drain.confirmed if lineage.kind is BatchKind.PAYOUT]
    assert all(len(lineage.payees) <= params.batch_max_payees for lineage in payouts)
    assert all(len(lineage.inputs) <= params.batch_max_inputs for lineage in payouts)
    assert any(len(lineage.versions) > 1 for lineage in payouts), "no payout was replaced"
    assert ledger.totals.unsettled_sats == 0
    assert ledger.totals.supply_sats == recount_supply(drain.chain.state)
    assert ledger.totals.reserves_sats == sum(drain.held.values())
    assert {outpoint: coin.value_sats for outpoint, coin in ledger.coins.items()} == drain.held
