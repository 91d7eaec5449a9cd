"""Verdicts on blocks of a chain in memory, and blocks to judge that its builder would never make."""

import pytest

from bridge.bitcoin.transaction import Transaction
from bridge.errors import Reason
from bridge.evidence import Evidence
from bridge.ledger import ledger_root
from pegnode.chain.block import Block, Body
from pegnode.chain.state import recount_supply
from pegnode.chain.verdicts import BlockRejected, BodyReason
from tests.support.chain import MemoryChain


def rejected(chain: MemoryChain, block: Block) -> BlockRejected:
    """The verdict on a block on top of the chain, which stays as it is."""
    before = chain.state
    root = ledger_root(before.ledger)
    supply_sats = recount_supply(before)
    with pytest.raises(BlockRejected) as caught:
        chain.apply(block)
    assert (ledger_root(before.ledger), recount_supply(before)) == (root, supply_sats)
    return caught.value


def refusal(chain: MemoryChain, block: Block) -> tuple[Reason, Reason | None]:
    """Why a block is refused, and which rule the item in it broke."""
    verdict = rejected(chain, block)
    return verdict.reason, verdict.cause


def transaction_refusal(chain: MemoryChain, *transactions: Transaction) -> Reason | None:
    """The rule that one of these transactions breaks in a block of them."""
    reason, cause = refusal(chain, with_transactions(chain, *transactions))
    assert reason is BodyReason.BAD_TRANSACTION
    return cause


def evidence_refusal(chain: MemoryChain, evidence: Evidence) -> Reason | None:
    """The rule that this evidence breaks in a block of it."""
    reason, cause = refusal(chain, with_evidence(chain, evidence))
    assert reason is BodyReason.BAD_EVIDENCE
    return cause


def with_evidence(chain: MemoryChain, evidence: Evidence) -> Block:
    """A block at the deepest anchor that holds this evidence, whatever it is worth."""
    block = chain.build().block
    return chain.reseal(Block(block.header, Body(evidence=(evidence,))))


def with_transactions(chain: MemoryChain, *transactions: Transaction) -> Block:
    """A block of these transactions, whatever they are worth."""
    return chain.with_body(transactions=tuple(transaction.serialize() for transaction in transactions))
