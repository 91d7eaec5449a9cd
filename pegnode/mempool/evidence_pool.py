"""Evidence that waits for a block: bounded, checked, one entry for each L1 transaction.

Whoever knows an address may submit the opening for it, so pieces about the same transaction are merged; each is checked
before it waits, or one bad opening would keep the good ones out of every block. An entry may hold more openings than a
block: each block gets the lowest that it has room for.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from bridge.bitcoin.amounts import MAX_MONEY_SATS
from bridge.bitcoin.hashes import sha256d
from bridge.bitcoin.identifiers import OutPoint, Txid
from bridge.bitcoin.transaction import Transaction
from bridge.deposits import apply_evidence, may_still_enter
from bridge.errors import Reason, Rejected
from bridge.evidence import EVIDENCE_FRAME_SIZE, Evidence, L1BlockFact, Opening
from bridge.ledger import Ledger, LedgerView
from bridge.params import PegParams
from pegnode.chain.parameters import ChainRules
from pegnode.chain.state import ChainView

MAX_REFUSED: Final = 10_000
REFUSED_MS: Final = 3_600_000
"""For how long openings of spent outputs are refused, and of how many; a reorganisation may have them unspent again."""


class EvidencePoolReason(Reason):
    """Why the pool refuses evidence that a block could hold. Raised in bridge's Rejected."""

    ALREADY_WAITING = "evidence-pool-already-waiting"  # These openings wait already, under the same proof.
    FULL = "evidence-pool-full"  # No room for more evidence.
    SPENT = "evidence-pool-spent"  # It opens an output of which this node found lately that L1 has spent it.
    TOO_LARGE = "evidence-pool-too-large"  # The piece alone is more than one block may hold.


@dataclass(frozen=True, slots=True)
class EvidencePoolLimits:
    """A node's own policy. expiry_ms: how long evidence may wait."""

    max_bytes: int = 50_000_000
    max_count: int = 10_000
    expiry_ms: int = 14 * 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class WaitingEvidence:
    """One entry. arrived_ms: what the clock said when its first piece came.

    size_bytes: length of the encoding.  values_sats: of all outputs of the L1 transaction.
    """

    txid: Txid
    evidence: Evidence
    arrived_ms: int
    size_bytes: int
    values_sats: tuple[int, ...]
    is_coinbase: bool

    @classmethod
    def of(cls, txid: Txid, evidence: Evidence, arrived_ms: int) -> "WaitingEvidence":
        """An entry of valid evidence."""
        transaction = Transaction.parse(evidence.transaction)
        values_sats = tuple(output.value_sats for output in transaction.outputs)
        return cls(txid, evidence, arrived_ms, len(evidence.encode()), values_sats, transaction.is_coinbase)

    def with_evidence(self, evidence: Evidence) -> "WaitingEvidence":
        """The same with other openings, or another proof."""
        return replace(self, evidence=evidence, size_bytes=len(evidence.encode()))

    def outpoints(self) -> Iterator[OutPoint]:
        """The outputs that it opens, in order."""
        return (OutPoint(self.txid, opening.vout) for opening in self.evidence.openings)

    def first_anchor(self, params: PegParams) -> int:
        """The lowest anchor height at which a block could hold it."""
        height = self.evidence.l1_height
        return height + params.coinbase_confirmations - params.confirmations if self.is_coinbase else height


class EvidencePool:
    """Evidence by the txid of its L1 transaction."""

    def __init__(self, limits: EvidencePoolLimits) -> None:
        self._limits = limits
        self._entries: dict[Txid, WaitingEvidence] = {}
        self._in_order: list[WaitingEvidence] | None = None
        self._size_bytes = 0
        self._refused_ms: OrderedDict[OutPoint, int] = OrderedDict()

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

        It may be about a block above the anchor of `view`, the newest final state, or exceed what the peg may hold at
        present: it is judged as if the anchor had come far enough, and coins had left.  fact: of its block, from one's
        own Bitcoin node.
        Raises Rejected (EvidencePoolReason, or bridge's EvidenceReason or LedgerReason), and leaves the pool as it was.
        """
        txid = Txid(sha256d(evidence.transaction))
        waiting = self._entries.get(txid)
        size_bytes, params = len(evidence.encode()), rules.params
        if size_bytes > params.max_evidence_bytes or len(evidence.openings) > params.max_openings:
            raise Rejected(EvidencePoolReason.TOO_LARGE, "it would exceed what one block may hold: split its openings")
        if any(self._is_refused(OutPoint(txid, opening.vout), now_ms) for opening in evidence.openings):
            raise Rejected(EvidencePoolReason.SPENT)
        unchecked = evidence if waiting is None else _what_is_new(waiting.evidence, evidence)
        merged = evidence if waiting is None else _merge(waiting.evidence, evidence)
        if not _settles(txid, view.ledger):  # there are few of these, and without them no coin ever leaves a full peg
            self._check_room(len(merged.encode()), waiting)
        _require_valid(unchecked, fact, view, rules)
        self._put(waiting.with_evidence(merged) if waiting else WaitingEvidence.of(txid, merged, now_ms))
        return txid

    def select(self, ledger: LedgerView, anchor_height: int, params: PegParams) -> list[Evidence]:
        """What a block with that anchor on top of `ledger` has room for, lowest first.

        Openings that `ledger` has entered, those that are too old, and those for which the peg has no room, are left
        out.
        """
        chosen: list[Evidence] = []
        room = _Room(params, ledger, anchor_height)
        for entry in self._ordered():
            if entry.evidence.l1_height > anchor_height or room.is_full:
                break
            part = room.take(entry) if entry.first_anchor(params) <= anchor_height else None
            if part is not None:
                chosen.append(part)
        return chosen

    def arrived_ms(self, txid: Txid) -> int | None:
        """Since when evidence of an L1 transaction waits; None if none does."""
        entry = self._entries.get(txid)
        return entry.arrived_ms if entry else None

    def positions(self) -> Mapping[OutPoint, int]:
        """For each output that waits to be opened, how many openings come before it."""
        outpoints = (outpoint for entry in self._ordered() for outpoint in entry.outpoints())
        return {outpoint: position for position, outpoint in enumerate(outpoints)}

    def drop(self, txids: Iterable[Txid]) -> None:
        """Forget the evidence of these L1 transactions."""
        for txid in txids:
            entry = self._entries.pop(txid, None)
            if entry is not None:
                self._size_bytes -= entry.size_bytes
                self._in_order = None

    def refuse_openings(self, outpoints: Collection[OutPoint], now_ms: int) -> None:
        """Forget the openings of these L1 outputs, and what has none left, and take none of them for a while."""
        for outpoint in outpoints:
            self._refused_ms[outpoint] = now_ms
        while len(self._refused_ms) > MAX_REFUSED:
            self._refused_ms.popitem(last=False)
        for txid in {outpoint.txid for outpoint in outpoints} & self._entries.keys():
            self._keep(self._entries[txid], lambda outpoint: outpoint not in outpoints)

    def recheck(self, view: ChainView, rules: ChainRules) -> list[Txid]:
        """Forget the openings that the final state `view` has entered, or for which it is too late, and what has none
        left; returns the latter.
        """
        anchor_height = view.ledger.totals.anchor.height
        before = list(self._entries.values())
        for entry in before:
            if entry.evidence.openings:
                wanted = {
                    outpoint
                    for outpoint in entry.outpoints()
                    if may_still_enter(view.ledger, outpoint, entry.evidence.l1_height, anchor_height, rules.params)
                }
                self._keep(entry, wanted.__contains__)
            elif not _settles(entry.txid, view.ledger):
                self.drop([entry.txid])
        return [entry.txid for entry in before if entry.txid not in self._entries]

    def expire(self, now_ms: int) -> list[Txid]:
        """Forget what has waited longer than the limit; returns what was forgotten."""
        oldest_ms = now_ms - self._limits.expiry_ms
        late = [txid for txid, entry in self._entries.items() if entry.arrived_ms < oldest_ms]
        self.drop(late)
        return late

    def _is_refused(self, outpoint: OutPoint, now_ms: int) -> bool:
        refused_ms = self._refused_ms.get(outpoint)
        return refused_ms is not None and now_ms < refused_ms + REFUSED_MS

    def _ordered(self) -> list[WaitingEvidence]:
        """Every entry, in the order that a block's body has them in."""
        if self._in_order is None:
            self._in_order = sorted(self._entries.values(), key=lambda entry: (entry.evidence.l1_height, entry.txid))
        return self._in_order

    def _put(self, entry: WaitingEvidence) -> None:
        self.drop([entry.txid])
        self._entries[entry.txid] = entry
        self._size_bytes += entry.size_bytes
        self._in_order = None

    def _keep(self, entry: WaitingEvidence, wanted: Callable[[OutPoint], bool]) -> None:
        """Forget the openings of an entry that are not wanted, and the entry if none is left."""
        openings = entry.evidence.openings
        left = tuple(item for item in openings if wanted(OutPoint(entry.txid, item.vout)))
        if not left:
            self.drop([entry.txid])
        elif left != openings:
            self._put(entry.with_evidence(replace(entry.evidence, openings=left)))

    def _check_room(self, size_bytes: int, waiting: WaitingEvidence | None) -> None:
        """Whether the pool has room for an entry of that size, in the place of one that waits."""
        count = len(self._entries) + (waiting is None)
        total_bytes = self._size_bytes + size_bytes - (waiting.size_bytes if waiting else 0)
        if count > self._limits.max_count or total_bytes > self._limits.max_bytes:
            raise Rejected(EvidencePoolReason.FULL, f"{len(self._entries)} pieces of {self._size_bytes} bytes wait")


class _Room:
    """What is left of a block's share for evidence on top of `ledger`, and of what the peg may hold."""

    def __init__(self, params: PegParams, ledger: LedgerView, anchor_height: int) -> None:
        self._ledger = ledger
        self._anchor_height = anchor_height
        self._params = params
        self._bytes_left = params.max_evidence_bytes
        self._openings_left = params.max_openings
        self._sats_left = params.max_peg_sats - ledger.totals.reserves_sats
        self.is_full = False

    def take(self, entry: WaitingEvidence) -> Evidence | None:
        """As much of an entry as there is room for; None when that is nothing, or nothing of it is wanted any more."""
        evidence = entry.evidence
        left = self._bytes_left - EVIDENCE_FRAME_SIZE - len(evidence.transaction) - len(evidence.proof)
        if evidence.openings:
            openings: tuple[Opening, ...] = tuple(self._openings(entry, left))
            left -= sum(opening.size_bytes for opening in openings)
            is_wanted = bool(openings)
        else:
            openings, is_wanted = (), _settles(entry.txid, self._ledger)
        if left < 0:
            self.is_full = True
        if not is_wanted or left < 0:
            return None
        self._bytes_left = left
        self._openings_left -= len(openings)
        self._sats_left -= sum(entry.values_sats[opening.vout] for opening in openings)
        return evidence if len(openings) == len(evidence.openings) else replace(evidence, openings=openings)

    def _openings(self, entry: WaitingEvidence, bytes_left: int) -> Iterator[Opening]:
        openings_left, sats_left = self._openings_left, self._sats_left
        for opening in entry.evidence.openings:
            value_sats = entry.values_sats[opening.vout]
            outpoint = OutPoint(entry.txid, opening.vout)
            l1_height = entry.evidence.l1_height
            may_enter = may_still_enter(self._ledger, outpoint, l1_height, self._anchor_height, self._params)
            if value_sats > sats_left or not may_enter:
                continue
            bytes_left -= opening.size_bytes
            if bytes_left < 0 or not openings_left:
                self.is_full = True
                return
            sats_left -= value_sats
            openings_left -= 1
            yield opening


def _settles(txid: Txid, ledger: LedgerView) -> bool:
    """Whether an L1 transaction is a version of an open batch."""
    number = ledger.versions.get(txid)
    return number is not None and number in ledger.open_lineages


def _what_is_new(waiting: Evidence, newer: Evidence) -> Evidence:
    """What has to be checked of a newer piece: its proof, and the openings that don't wait yet."""
    known = {opening.vout for opening in waiting.openings}
    added = tuple(opening for opening in newer.openings if opening.vout not in known)
    if not added and waiting.proof == newer.proof:
        raise Rejected(EvidencePoolReason.ALREADY_WAITING)
    return replace(newer, openings=added or newer.openings[:1])


def _merge(waiting: Evidence, newer: Evidence) -> Evidence:
    """Both pieces' openings under the newer proof: a reorganisation may have moved the transaction to another block."""
    by_vout = {opening.vout: opening for opening in (*newer.openings, *waiting.openings)}
    return replace(newer, openings=tuple(by_vout[vout] for vout in sorted(by_vout)))


def _require_valid(evidence: Evidence, fact: L1BlockFact, view: ChainView, rules: ChainRules) -> None:
    """Try it on a copy of the ledger with the anchor far enough, in a peg without a cap, with coinbases mature."""
    trial, params = Ledger(view.ledger), rules.params
    anchor = trial.totals.anchor
    trial.totals = replace(trial.totals, anchor=replace(anchor, height=max(anchor.height, evidence.l1_height)))
    params = replace(params, max_peg_sats=MAX_MONEY_SATS, coinbase_confirmations=params.confirmations)
    apply_evidence(trial, evidence, fact, rules.custody, params)
