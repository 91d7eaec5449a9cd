"""Records that wait for a block, and the branches of L1 that records abandoned.

Theory of operation. A record proves itself by a quorum's signatures, so nothing is kept, nor believed, before those are
checked. Several may wait with one serial: the members sign another plan when L1 left the first one behind, and either
may be the one that enters. So few of them ever exist that little room is enough; who fills it has a quorum's keys.

A rebase counts from when it is known here, final or not: that its blocks once were on the chain is as true before as
after. It only lets blocks be judged that this node's Bitcoin node can't judge; who votes asks that node all the same.
"""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Final

from bridge.abandoned import AbandonedBranches
from bridge.errors import Reason, Rejected
from federation.record import SignedRecord, verify_record
from pegnode.chain.parameters import ChainRules
from pegnode.chain.state import ChainView

MAX_WAITING: Final = 16


class RecordPoolReason(Reason):
    """Why the pool refuses a record that a quorum may have signed. Raised in bridge's Rejected."""

    ALREADY_WAITING = "record-pool-already-waiting"  # It waits already.
    USED = "record-pool-used"  # A final block carried out a record with its serial, or with a higher one.
    EXPIRED = "record-pool-expired"  # The final chain's anchor is above the height to which it may be carried out.
    FULL = "record-pool-full"  # As many wait as there is room for, each to be carried out before it.


class RecordPool:
    """Verified records by their digest. final: those that final blocks carried out."""

    def __init__(self, final: Iterable[SignedRecord] = ()) -> None:
        self._waiting: dict[bytes, SignedRecord] = {}
        self._final: list[SignedRecord] = []
        self.branches = AbandonedBranches()
        self.learn(final)

    def learn(self, final: Iterable[SignedRecord]) -> None:
        """Remember the records of final blocks, by rising serial: few ever are, and each takes a catastrophe."""
        for signed in final:
            self._final.append(signed)
            if signed.record.rebase is not None:
                self.branches.add(signed.record.rebase)

    def final(self) -> tuple[SignedRecord, ...]:
        """Those that final blocks carried out, by rising serial."""
        return tuple(self._final)

    def leading(self, first_serial: int) -> Iterator[SignedRecord]:
        """Those that lead from one branch to another, carried out or waiting, by rising serial from `first_serial`."""
        for signed in chain(self._final, self.waiting()):
            if signed.record.rebase is not None and signed.record.serial >= first_serial:
                yield signed

    def add(self, signed: SignedRecord, view: ChainView, rules: ChainRules) -> None:
        """Keep a record that a quorum signed, for a block after the final tip `view`.

        Raises Rejected (RecordPoolReason); Refused (RecordRefused or EndorsementRefused) when no quorum signed it.
        """
        self._require_useful(signed, view)
        digest = signed.record.digest32
        if digest in self._waiting:
            raise Rejected(RecordPoolReason.ALREADY_WAITING, f"serial {signed.record.serial}")
        verify_record(signed, rules.membership, rules.chain_id)
        if signed.record.rebase is not None:
            self.branches.add(signed.record.rebase)
        self._waiting[digest] = signed
        for surplus in self.waiting()[MAX_WAITING:]:
            self.drop(surplus)
        if digest not in self._waiting:
            raise Rejected(RecordPoolReason.FULL, f"{MAX_WAITING} records wait")

    def waiting(self) -> tuple[SignedRecord, ...]:
        """All of them, by rising serial; of those with one serial the one that may wait longest first."""
        return tuple(
            sorted(self._waiting.values(), key=lambda item: (item.record.serial, -item.record.expires_at_anchor))
        )

    def with_serial(self, serial: int) -> tuple[SignedRecord, ...]:
        """Those of which one may be carried out next, if the record before had the serial below."""
        return tuple(signed for signed in self.waiting() if signed.record.serial == serial)

    def drop(self, signed: SignedRecord) -> None:
        """Forget a record; it need not be known."""
        self._waiting.pop(signed.record.digest32, None)

    def recheck(self, view: ChainView) -> None:
        """Forget what no block after the final tip `view` can hold any more."""
        for signed in self.waiting():
            try:
                self._require_useful(signed, view)
            except Rejected:
                self.drop(signed)

    def _require_useful(self, signed: SignedRecord, view: ChainView) -> None:
        totals, record = view.ledger.totals, signed.record
        if record.serial <= totals.record_serial:
            raise Rejected(RecordPoolReason.USED, f"serial {record.serial}, and {totals.record_serial} is final")
        if record.expires_at_anchor < totals.anchor.height:
            detail = f"at L1 block {record.expires_at_anchor}, and the anchor is {totals.anchor.height}"
            raise Rejected(RecordPoolReason.EXPIRED, detail)
