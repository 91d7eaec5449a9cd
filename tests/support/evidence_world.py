"""A chain with a pool of evidence beside it."""

from dataclasses import replace

import pytest

from bridge.bitcoin.identifiers import Txid
from bridge.bitcoin.transaction import Transaction, TxOut
from bridge.custody import CoinKind, reserve_script
from bridge.errors import Reason, Rejected
from bridge.evidence import Evidence, L1BlockFact, Opening
from pegnode.mempool.evidence_pool import EvidencePool, EvidencePoolLimits
from tests.support.chain import MemoryChain
from tests.support.mini_wallet import MiniWallet

ALICE = MiniWallet("alice")
BOB = MiniWallet("bob")
NOW_MS = 1_000_000


class EvidenceWorld:
    """A chain, and a pool beside it."""

    def __init__(self, limits: EvidencePoolLimits | None = None, **peg: int) -> None:
        self.chain = MemoryChain(peg=peg)
        self.pool = EvidencePool(limits or EvidencePoolLimits())

    def add(self, evidence: Evidence, now_ms: int = NOW_MS) -> Txid:
        fact = self.chain.l1.fact(evidence.l1_block_hash) or L1BlockFact(evidence.l1_height, 1)
        return self.pool.add(evidence, fact, self.chain.state, self.chain.rules, now_ms)

    def refused(self, evidence: Evidence) -> Reason:
        """Why the pool does not take it; the pool stays as it is."""
        before = (self.chosen(), len(self.pool), self.pool.size_bytes)
        with pytest.raises(Rejected) as caught:
            self.add(evidence)
        assert (self.chosen(), len(self.pool), self.pool.size_bytes) == before
        return caught.value.reason

    def chosen(self, anchor_height: int = 1_000, **caps: int) -> list[Evidence]:
        """What the next block would get, if the caps were these."""
        params = replace(self.chain.rules.params, **caps)
        return self.pool.select(self.chain.state.ledger, anchor_height, params)

    def two_deposits(self) -> tuple[Transaction, Evidence]:
        """One L1 transaction that pays two deposit addresses, and evidence of both."""
        policy = self.chain.rules.custody.newest
        scripts = [reserve_script(policy, CoinKind.DEPOSIT, who.script()).script for who in (ALICE, BOB)]
        payment = self.chain.l1.payment(*[TxOut(50_000, script) for script in scripts])
        self.chain.l1.mine(payment)
        openings = [Opening(vout, CoinKind.DEPOSIT, 0, who.script()) for vout, who in enumerate((ALICE, BOB))]
        return payment, self.chain.l1.evidence(payment, *openings)

    def settlement(self) -> Evidence:
        """Evidence of a recorded payout, confirmed on L1 but not yet settled."""
        coins = self.chain.fund(*[ALICE.script()] * self.chain.rules.params.batch_min_payouts)
        burn = self.chain.burn_output(900_000, BOB.script(), ALICE.script())
        self.chain.extend(*[ALICE.spend([coin], [burn]) for coin in coins])
        [batch] = self.chain.extend().block.body.batches
        payout = Transaction.parse(batch.transaction)
        self.chain.l1.mine(payout)
        evidence = self.chain.l1.evidence(payout)
        self.chain.bury()
        return evidence


def part(evidence: Evidence, *vouts: int) -> Evidence:
    """The same with only these openings."""
    return replace(evidence, openings=tuple(item for item in evidence.openings if item.vout in vouts))
