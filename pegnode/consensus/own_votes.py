"""What this member has signed, and therefore must not sign.

A vote counts as signed from the moment the machine asks for it, before any signature exists: whatever happens between
the request and the journal, the machine never asks for another that conflicts with it.
"""

from federation.certificate import NO_BLOCK, Vote, VoteKind


class OwnVotes:
    """This member's votes above a floor. Nothing at or below the floor is ever signed again."""

    def __init__(self, floor_view: int) -> None:
        self._floor_view = floor_view
        self._statements: dict[tuple[int, VoteKind], bytes] = {}
        self._signed: dict[tuple[int, VoteKind], Vote] = {}

    def may_sign(self, kind: VoteKind, view: int) -> bool:
        """Whether a vote of this kind breaks no promise.

        One vote of each kind in a view; finalize and nullify exclude each other; no notarize after nullify.
        """
        if view <= self._floor_view or self.signed(kind, view):
            return False
        if kind is VoteKind.NULLIFY:
            return not self.signed(VoteKind.FINALIZE, view)
        return not self.signed(VoteKind.NULLIFY, view)

    def signed(self, kind: VoteKind, view: int) -> bool:
        """Whether a vote of this kind was asked for in `view`."""
        return (view, kind) in self._statements

    def notarized(self, view: int) -> bytes:
        """The block this member notarized in `view`; empty if none."""
        return self._statements.get((view, VoteKind.NOTARIZE), NO_BLOCK)

    def promise(self, kind: VoteKind, view: int, block_hash: bytes) -> None:
        """Count a vote as signed from now on."""
        self._statements.setdefault((view, kind), block_hash)

    def keep(self, vote: Vote) -> bool:
        """Keep a vote that bears this member's signature; False if it was never asked for."""
        if vote.view <= self._floor_view:
            return True
        key = (vote.view, vote.kind)
        promised = self._statements.get(key) == vote.block_hash
        self._statements.setdefault(key, vote.block_hash)
        if self._statements[key] == vote.block_hash:
            self._signed.setdefault(key, vote)
        return promised

    def all_signed(self) -> list[Vote]:
        """The votes above the floor whose signatures are known, oldest view first."""
        return [self._signed[key] for key in sorted(self._signed)]

    def prune(self, view: int) -> None:
        """Raise the floor: votes at or below `view` matter no longer."""
        self._floor_view = max(self._floor_view, view)
        for votes in (self._statements, self._signed):
            for key in [key for key in votes if key[0] <= self._floor_view]:
                del votes[key]
