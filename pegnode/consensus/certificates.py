"""The certificate book: what a quorum said since the last final view, and which parents that allows.

A block of view w may stand on a parent of view v < w if the parent is notarized and every view between is nullified.
Two quorums share an honest member, so a view has at most one notarized block, and a finalized view no nullification:
hence every later block that may be notarized descends from every final one.
"""

from collections.abc import Iterator

from bridge.bitcoin.identifiers import BlockHash
from federation.certificate import Certificate, VoteKind


class CertificateBook:
    """Certificates at or above the last final view, one of each kind per view."""

    def __init__(self, final_view: int, final_hash: BlockHash, finalization: Certificate | None) -> None:
        self._final_view = final_view
        self._final_hash = final_hash
        self._finalization = finalization
        self._notarizations: dict[int, Certificate] = {}
        self._nullifications: dict[int, Certificate] = {}
        self._views: dict[BlockHash, int] = {final_hash: final_view}

    @property
    def final_view(self) -> int:
        """The highest view known to be final, 0 for genesis."""
        return self._final_view

    @property
    def final_hash(self) -> BlockHash:
        """The block that is final in that view."""
        return self._final_hash

    @property
    def finalization(self) -> Certificate | None:
        """The proof of it; None for genesis, which needs none."""
        return self._finalization

    def conflicting(self, certificate: Certificate) -> Certificate | None:
        """A certificate that can't exist besides this one while at most f members are faulty."""
        view = certificate.view
        rivals = [self._notarizations.get(view)] if certificate.kind.names_block else []
        if certificate.kind is VoteKind.FINALIZE:
            rivals.append(self._nullifications.get(view))
        if view == self._final_view:
            rivals.append(self._finalization)
        for rival in rivals:
            if rival is not None and rival.block_hash != certificate.block_hash:
                return rival
        return None

    def add(self, certificate: Certificate) -> bool:
        """Keep a certificate that conflicts with none; False if it tells nothing new."""
        view, kind = certificate.view, certificate.kind
        if view <= self._final_view:
            return False
        if kind is VoteKind.FINALIZE:
            self._finalize(certificate)
            return True
        book = self._nullifications if kind is VoteKind.NULLIFY else self._notarizations
        if view in book:
            return False
        book[view] = certificate
        if kind is VoteKind.NOTARIZE:
            self._views[certificate.block_hash] = view
        return True

    def notarized(self, view: int) -> BlockHash | None:
        """The block that a quorum notarized in `view`; finality implies it."""
        if view == self._final_view:
            return self._final_hash
        certificate = self._notarizations.get(view)
        return None if certificate is None else certificate.block_hash

    def nullified(self, view: int) -> bool:
        """Whether a quorum nullified `view`."""
        return view in self._nullifications

    def decided(self, view: int) -> bool:
        """Whether a quorum ended `view`, one way or the other."""
        return view <= self._final_view or view in self._notarizations or view in self._nullifications

    def certified_view(self, block_hash: BlockHash) -> int | None:
        """The view in which this block was notarized, if that is known and not below the last final view."""
        return self._views.get(block_hash)

    def certificate_of(self, block_hash: BlockHash) -> Certificate | None:
        """The finalization, or else the notarization, of a certified block; None for genesis."""
        if block_hash == self._final_hash:
            return self._finalization
        view = self._views.get(block_hash)
        return None if view is None else self._notarizations[view]

    def highest(self) -> tuple[int, BlockHash]:
        """View and hash of the newest certified block."""
        view = max(self._notarizations, default=self._final_view)
        return view, self._notarizations[view].block_hash if view in self._notarizations else self._final_hash

    def justified(self, parent_hash: BlockHash, view: int) -> bool:
        """Whether a block of `view` may stand on this parent."""
        parent_view = self._views.get(parent_hash)
        if parent_view is None or parent_view >= view:
            return False
        return all(between in self._nullifications for between in range(parent_view + 1, view))

    def parents(self, view: int) -> Iterator[BlockHash]:
        """The blocks that a block of `view` may stand on, newest first."""
        for below in range(view - 1, self._final_view - 1, -1):
            block_hash = self.notarized(below)
            if block_hash is not None:
                yield block_hash
            if below not in self._nullifications:
                return

    def justification(self, parent_hash: BlockHash, view: int) -> tuple[Certificate, ...]:
        """What lets a block of `view` stand on this justified parent: the parent's certificate, then those between."""
        parent = self.certificate_of(parent_hash)
        between = range(self._views[parent_hash] + 1, view)
        return (() if parent is None else (parent,)) + tuple(self._nullifications[below] for below in between)

    def proof_for(self, kind: VoteKind, view: int) -> Certificate | None:
        """What a vote in `view` rests on: FINALIZE on its notarization, any other on what ended the view before."""
        if kind is VoteKind.FINALIZE:
            return self._notarizations.get(view)
        if view - 1 <= self._final_view:
            return self._finalization
        return self._notarizations.get(view - 1) or self._nullifications.get(view - 1)

    def from_view(self, view: int) -> list[Certificate]:
        """Every certificate at or above `view` except the finalization, oldest first."""
        certificates = (*self._notarizations.values(), *self._nullifications.values())
        return sorted((c for c in certificates if c.view >= view), key=lambda c: (c.view, c.kind))

    def _finalize(self, certificate: Certificate) -> None:
        self._final_view, self._final_hash = certificate.view, certificate.block_hash
        self._finalization = certificate
        for book in (self._notarizations, self._nullifications):
            for view in [view for view in book if view <= self._final_view]:
                del book[view]
        self._views = {c.block_hash: view for view, c in self._notarizations.items()}
        self._views[self._final_hash] = self._final_view
