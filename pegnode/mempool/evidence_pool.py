"""Evidence that waits for a block: bounded, checked, one piece for each L1 transaction.

Whoever knows an address may submit the opening for it, so pieces about the same transaction are merged; each is checked
before it waits, or one bad opening would keep the good ones out of every block.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from bridge.bitcoin.hashes import sha256d
from bridge.bitcoin.identifiers import OutPoint, Txid
from bridge.deposits import apply_evidence
from bridge.errors import Reason, Rejected
from bridge.evidence import Evidence, L1BlockFact
from bridge.ledger import Ledger
from pegnode.chain.parameters import ChainRules
from pegnode.chain.rules import evidence_order
from pegnode.chain.state import ChainView


class EvidencePoolReason(Reason):
    """Why the pool refuses evidence that a block could hold. Raised in bridge's Rejected."""

    ALREADY_WAITING = "evidence-pool-already-waiting"  # These openings wait already, under the same proof.
    FULL = "evidence-pool-full"  # No room for more evidence.
    TOO_LARGE = "evidence-pool-too-large"
    """With what waits of the same transaction, it is more than one block may hold."""


@dataclass(frozen=True, slots=True)
class EvidencePoolLimits:
    """A node's own policy. expiry_ms: how long evidence may wait."""

    max_bytes: int = 50_000_000
    max_count: int = 10_000
    expiry_ms: int = 14 * 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class WaitingEvidence:
    """One entry. arrived_ms: what the clock said when its first piece came."""

    evidence: Evidence
    arrived_ms: int

    @property
    def size_bytes(self) -> int:
        """Length of the encoding."""
        return len(self.evidence.encode())


class EvidencePool:
    """Evidence by the txid of its L1 transaction."""

    def __init__(self, limits: EvidencePoolLimits) -> None:
        self._limits = limits
        self._entries: dict[Txid, WaitingEvidence] = {}
        self._size_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, txid: Txid) -> bool:
        return txid in self._entries

    def get(self, txid: Txid) -> Evidence | None:
        """The evidence of an L1 transaction, if it waits."""
        entry = self._entries.get(txid)
        return entry.evidence if entry else None

    @property
    def size_bytes(self) -> int:
        """Of all that waits."""
        return self._size_bytes

    def add(self, evidence: Evidence, fact: L1BlockFact, view: ChainView, rules: ChainRules, now_ms: int) -> Txid:
        """Let `evidence` wait, with what waits about the same transaction already; returns the L1 txid.

        It may be about a block above the anchor of `view`, the newest final state: it is judged as if the anchor had
        come far enough.  fact: of its block, from one's own Bitcoin node.
        Raises Rejected (EvidencePoolReason, or bridge's EvidenceReason or LedgerReason), and leaves the pool as it was.
        """
        txid = Txid(sha256d(evidence.transaction))
        waiting = self._entries.get(txid)
        merged = evidence if waiting is None else _merge(waiting.evidence, evidence)
        entry = WaitingEvidence(merged, now_ms if waiting is None else waiting.arrived_ms)
        self._check_room(entry, waiting, rules)
        _require_valid(merged, fact, view, rules)
        self._put(txid, entry)
        return txid

    def select(self, anchor_height: int, max_bytes: int) -> list[Evidence]:
        """What speaks about blocks at or below `anchor_height`, lowest first, of together at most `max_bytes`."""
        chosen: list[Evidence] = []
        size_bytes = 0
        for entry in sorted(self._entries.values(), key=lambda waiting: evidence_order(waiting.evidence)):
            size_bytes += entry.size_bytes
            if entry.evidence.l1_height > anchor_height or size_bytes > max_bytes:
                break
            chosen.append(entry.evidence)
        return chosen

    def drop(self, txids: Iterable[Txid]) -> None:
        """Forget the evidence of these L1 transactions."""
        for txid in txids:
            entry = self._entries.pop(txid, None)
            if entry is not None:
                self._size_bytes -= entry.size_bytes

    def recheck(self, view: ChainView) -> list[Txid]:
        """Forget the openings that the final state `view` has entered, and what has none left; returns the latter."""
        done: list[Txid] = []
        for txid, entry in list(self._entries.items()):
            evidence = entry.evidence
            if not evidence.openings:
                number = view.ledger.versions.get(txid)
                if number is None or number not in view.ledger.open_lineages:
                    done.append(txid)
                continue
            left = tuple(item for item in evidence.openings if OutPoint(txid, item.vout) not in view.ledger.entered)
            if not left:
                done.append(txid)
            elif left != evidence.openings:
                self._put(txid, replace(entry, evidence=replace(evidence, openings=left)))
        self.drop(done)
        return done

    def expire(self, now_ms: int) -> list[Txid]:
        """Forget what has waited longer than the limit; returns what was forgotten."""
        oldest_ms = now_ms - self._limits.expiry_ms
        late = [txid for txid, entry in self._entries.items() if entry.arrived_ms < oldest_ms]
        self.drop(late)
        return late

    def _put(self, txid: Txid, entry: WaitingEvidence) -> None:
        self.drop([txid])
        self._entries[txid] = entry
        self._size_bytes += entry.size_bytes

    def _check_room(self, entry: WaitingEvidence, waiting: WaitingEvidence | None, rules: ChainRules) -> None:
        """Whether the pool has room for the entry, and a block could have."""
        size_bytes, params = entry.size_bytes, rules.params
        if size_bytes > params.max_evidence_bytes or len(entry.evidence.openings) > params.max_openings:
            raise Rejected(EvidencePoolReason.TOO_LARGE, "it would exceed what one block may hold: split its openings")
        count = len(self._entries) + (waiting is None)
        total_bytes = self._size_bytes + size_bytes - (waiting.size_bytes if waiting else 0)
        if count > self._limits.max_count or total_bytes > self._limits.max_bytes:
            raise Rejected(EvidencePoolReason.FULL, f"{len(self._entries)} pieces of {self._size_bytes} bytes wait")


def _merge(waiting: Evidence, newer: Evidence) -> Evidence:
    """Both pieces' openings under the newer proof: a reorganisation may have moved the transaction to another block."""
    known = {opening.vout for opening in waiting.openings}
    added = tuple(opening for opening in newer.openings if opening.vout not in known)
    if not added and waiting.proof == newer.proof:
        raise Rejected(EvidencePoolReason.ALREADY_WAITING)
    openings = sorted((*waiting.openings, *added), key=lambda opening: opening.vout)
    return replace(newer, openings=tuple(openings))


def _require_valid(evidence: Evidence, fact: L1BlockFact, view: ChainView, rules: ChainRules) -> None:
    """Try it on a copy of the ledger whose anchor has come far enough even for a coinbase."""
    trial = Ledger(view.ledger)
    anchor = trial.totals.anchor
    high_enough = max(anchor.height, evidence.l1_height + rules.params.coinbase_confirmations)
    trial.totals = replace(trial.totals, anchor=replace(anchor, height=high_enough))
    apply_evidence(trial, evidence, fact, rules.custody, rules.params)
