"""Transactions that wait for a block: bounded, without conflicts, in the order in which they came."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bridge.bitcoin.identifiers import Txid
from bridge.bitcoin.transaction import Transaction
from bridge.errors import Reason
from pegnode.chain.rules import ChainRules
from pegnode.chain.state import AppliedTransaction, ChainView


class PoolReason(Reason):
    """Why the pool refuses a transaction that a block could hold. Raised in TransactionRejected."""

    ALREADY_WAITING = "pool-already-waiting"
    CONFLICT = "pool-conflict"
    FEERATE = "pool-feerate"
    DUST = "pool-dust"
    RESERVE_SCRIPT = "pool-reserve-script"
    LONG_CHAIN = "pool-long-chain"
    FULL = "pool-full"


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """A node's own policy, no part of validity.

    max_bytes, max_count: of all that waits.  max_chain: a transaction and the waiting ones it descends from.
    min_feerate_sat_kvb: least fee for 1,000 virtual bytes.  expiry_ms: how long a transaction may wait.
    """

    max_bytes: int = 20_000_000
    max_count: int = 20_000
    max_chain: int = 25
    min_feerate_sat_kvb: int = 100
    expiry_ms: int = 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class WaitingTransaction:
    """One entry. arrived_ms: the clock's reading when it came.  ancestors: how many waiting ones it descends from."""

    transaction: Transaction
    data: bytes
    fee_sats: int
    arrived_ms: int
    ancestors: int


class Mempool:
    """Transactions valid on top of the newest state and of one another."""

    def __init__(self, limits: PoolLimits) -> None:
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError

    def __contains__(self, txid: Txid) -> bool:
        raise NotImplementedError

    def get(self, txid: Txid) -> WaitingTransaction | None:
        """The entry of `txid`, if it waits."""
        raise NotImplementedError

    @property
    def size_bytes(self) -> int:
        """Of all that waits."""
        raise NotImplementedError

    def entries(self) -> list[WaitingTransaction]:
        """All that waits, oldest first; a transaction stands after those it spends from."""
        raise NotImplementedError

    def add(self, data: bytes, view: ChainView, rules: ChainRules, now_ms: int) -> Txid:
        """Let the transaction of these bytes wait; raises TransactionRejected and leaves the pool as it was."""
        raise NotImplementedError

    def select(self, max_bytes: int) -> list[bytes]:
        """The oldest entries of together at most `max_bytes`, each after those it spends from."""
        raise NotImplementedError

    def remove_applied(self, transactions: Sequence[AppliedTransaction]) -> list[Txid]:
        """Forget what a final block holds, and whatever conflicts with it; returns the latter, for the log."""
        raise NotImplementedError

    def drop(self, txids: Iterable[Txid]) -> list[Txid]:
        """Forget these and all that descend from them; returns what was forgotten."""
        raise NotImplementedError

    def recheck(self, view: ChainView) -> list[Txid]:
        """Drop what spends outputs that neither `view` nor the pool has, after a tip gave way to another."""
        raise NotImplementedError

    def expire(self, now_ms: int) -> list[Txid]:
        """Drop what has waited longer than the limit."""
        raise NotImplementedError
