"""Evidence that waits for a block: bounded, one for each L1 transaction."""

from collections.abc import Iterable

from bridge.bitcoin.identifiers import Txid
from bridge.errors import Reason
from bridge.evidence import Evidence
from pegnode.chain.state import ChainView
from pegnode.errors import Refusal


class EvidencePoolReason(Reason):
    """Why the pool refuses evidence."""

    ALREADY_WAITING = "evidence-pool-already-waiting"
    ALREADY_ENTERED = "evidence-pool-already-entered"
    FULL = "evidence-pool-full"


class EvidenceRefused(Refusal):
    """Evidence that the pool does not take. reason: EvidencePoolReason, or that of the bridge's rule it broke."""


class EvidencePool:
    """Evidence by L1 txid."""

    def __init__(self, max_bytes: int, max_count: int) -> None:
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError

    def __contains__(self, txid: Txid) -> bool:
        raise NotImplementedError

    def add(self, evidence: Evidence, view: ChainView, now_ms: int) -> Txid:
        """Let `evidence` wait; raises EvidenceRefused. Returns the L1 txid."""
        raise NotImplementedError

    def select(self, anchor_height: int, max_bytes: int) -> list[Evidence]:
        """What speaks about blocks at or below `anchor_height`, lowest first, of together at most `max_bytes`."""
        raise NotImplementedError

    def drop(self, txids: Iterable[Txid]) -> None:
        """Forget the evidence of these L1 transactions."""
        raise NotImplementedError

    def recheck(self, view: ChainView) -> list[Txid]:
        """Drop what `view` has entered already."""
        raise NotImplementedError

    def expire(self, now_ms: int) -> list[Txid]:
        """Drop what has waited longer than the limit."""
        raise NotImplementedError
