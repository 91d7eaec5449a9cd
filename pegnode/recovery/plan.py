"""From what is on L1 to PSBTs that ask for signatures, and from their signed transaction to the Bitcoin node."""

from collections.abc import Sequence
from typing import Final

from bridge.bitcoin.identifiers import Script, Txid
from bridge.bitcoin.transaction import Transaction
from bridge.errors import Rejected
from bridge.l1.client import L1Client
from bridge.recovery import (
    RecoveryReason,
    is_worth_spending,
    plan_transactions,
    recovery_psbt,
    require_feerate,
)
from bridge.recovery_signing import RecoveryRequest, RecoveryTerms
from pegnode.genesis import Genesis
from pegnode.recovery.survey import Survey

KNOWN_ALREADY: Final = frozenset({"txn-already-in-mempool", "txn-already-known"})
REASONS: Final = {
    "non-BIP68-final": (RecoveryReason.IMMATURE, "its coins are younger than the time lock; send it again later"),
    "missing-inputs": (RecoveryReason.SPENT, "a coin that it spends is spent, or unknown to this Bitcoin node"),
    "bad-txns-inputs-missingorspent": (RecoveryReason.SPENT, "a coin that it spends is spent already"),
    "txn-mempool-conflict": (RecoveryReason.SPENT, "another transaction that waits in the mempool spends its coins"),
}
"""What the words of bitcoind mean here. Source: Bitcoin Core, validation.cpp and rpc/mempool.cpp."""


def terms_of(genesis: Genesis) -> RecoveryTerms:
    """What a genesis says about recoveries."""
    return RecoveryTerms(genesis.chain_id, genesis.rules().custody, genesis.peg.feerate_ceiling_sat_kvb)


def plan_recovery(
    found: Survey, terms: RecoveryTerms, payees: Sequence[Script], feerate_sat_kvb: int, by_height: int
) -> list[RecoveryRequest]:
    """PSBTs of everything that a block at `by_height` may recover and that is worth its fee, checked as signers do.

    Raises Rejected(RecoveryReason).
    """
    require_feerate(feerate_sat_kvb, terms.feerate_ceiling_sat_kvb)
    coins = [
        coin
        for coin in found.mature_by(by_height)
        if is_worth_spending(coin.value_sats, coin.reserve.policy, feerate_sat_kvb)
    ]
    planned = plan_transactions(coins, payees, feerate_sat_kvb)
    return [RecoveryRequest.read(recovery_psbt(terms.chain_id, *one), terms) for one in planned]


async def broadcast(client: L1Client, transaction: Transaction) -> Txid:
    """Give a signed transaction to the Bitcoin node, which may have it already.

    Raises Rejected(RecoveryReason): IMMATURE, SPENT, NOT_RELAYED; and L1Error.
    """
    verdict = await client.test_mempool_accept(transaction.serialize())
    if verdict.reject_reason in KNOWN_ALREADY:
        return transaction.txid
    if not verdict.allowed:
        unnamed = (RecoveryReason.NOT_RELAYED, "the Bitcoin node does not take it")
        reason, meaning = REASONS.get(verdict.reject_reason, unnamed)
        raise Rejected(reason, f"{meaning} ({verdict.reject_reason})")
    return await client.send_raw_transaction(transaction.serialize())
