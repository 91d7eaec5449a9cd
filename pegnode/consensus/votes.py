"""The vote book: at most one vote per member, kind and view, and the certificates that they add up to."""

from bridge.bitcoin.identifiers import BlockHash
from federation.certificate import Certificate, Vote, VoteKind

_EXCLUDES = {VoteKind.NULLIFY: VoteKind.FINALIZE, VoteKind.FINALIZE: VoteKind.NULLIFY}


class VoteBook:
    """Checked votes by view. Bounded by its owner, who refuses views outside a window and prunes."""

    def __init__(self, epoch: int, quorum: int) -> None:
        self._epoch = epoch
        self._quorum = quorum
        self._views: dict[int, dict[VoteKind, dict[int, Vote]]] = {}

    def conflict(self, vote: Vote) -> Vote | None:
        """A vote of the same member that no honest member signs besides this one."""
        same = self._vote(vote.kind, vote.view, vote.member)
        if same is not None and same.block_hash != vote.block_hash:
            return same
        excluded = _EXCLUDES.get(vote.kind)
        return None if excluded is None else self._vote(excluded, vote.view, vote.member)

    def add(self, vote: Vote) -> bool:
        """Enter a vote that conflicts with none; False if its member's vote of this kind was there already."""
        votes = self._views.setdefault(vote.view, {}).setdefault(vote.kind, {})
        if vote.member in votes:
            return False
        votes[vote.member] = vote
        return True

    def certificate(self, kind: VoteKind, view: int, block_hash: BlockHash) -> Certificate | None:
        """The certificate of the lowest q members that said this, once there are q."""
        votes = self._views.get(view, {}).get(kind, {})
        members = sorted(member for member, vote in votes.items() if vote.block_hash == block_hash)[: self._quorum]
        if len(members) < self._quorum:
            return None
        signatures = tuple((member, votes[member].signature64) for member in members)
        return Certificate(kind, self._epoch, view, block_hash, signatures)

    def count(self, kind: VoteKind, view: int) -> int:
        """How many members cast a vote of this kind in `view`."""
        return len(self._views.get(view, {}).get(kind, {}))

    def nullified(self, view: int, member: int) -> bool:
        """Whether a member voted to nullify `view`."""
        return self._vote(VoteKind.NULLIFY, view, member) is not None

    def voters(self, view: int) -> set[int]:
        """The members that notarized or nullified in `view`."""
        kinds = self._views.get(view, {})
        return set(kinds.get(VoteKind.NOTARIZE, {})) | set(kinds.get(VoteKind.NULLIFY, {}))

    def prune(self, below_view: int) -> None:
        """Drop every view below this one."""
        for view in [view for view in self._views if view < below_view]:
            del self._views[view]

    def __len__(self) -> int:
        return sum(len(votes) for kinds in self._views.values() for votes in kinds.values())

    def _vote(self, kind: VoteKind, view: int, member: int) -> Vote | None:
        return self._views.get(view, {}).get(kind, {}).get(member)
