"""The durable memory of what this member signed: written and synced before a vote leaves.

It holds this member's own votes, the bodies of the blocks it voted for (its own proposals among them), and
certificates, back to the last final view. A member that lost it could sign against its own earlier word, so a journal
that is absent is never taken for one that is empty: `create` makes it once, everything else only opens it. In place of
one that was lost, `create` makes one that has forgotten: it takes no vote until `raise_floor` says how far this member
may have signed.

Beside all that it holds the newest vote of each kind that this member saw of every other one: whoever put back an older
copy of its journal learns from these that it did.

Certificates are written without a sync. The log below is one sequence, so the synced write of the next vote makes them
durable too, and a vote is never on disk without the certificates that it was cast on.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from bridge.bitcoin.identifiers import HASH_SIZE, BlockHash
from bridge.codec import Reader, decode_whole
from bridge.errors import MalformedError
from federation.certificate import Certificate, Vote, VoteKind
from federation.journal_errors import JournalReason, JournalRefused, behind, lacking
from federation.journal_header import FORMAT_VERSION, LAST_VIEW, JournalHeader, JournalIdentity, JournalState

T = TypeVar("T")

_HEADER = b"h"
_VOTE = b"v"
_CERTIFICATE = b"c"
_BODY = b"b"
_WITNESSED = b"w"
_KEYS_ELSEWHERE = b"k"
_CONTRADICTION = b"x"


class JournalEntries(Protocol):
    """An ordered map of bytes on disk."""

    def get(self, key: bytes) -> bytes | None:
        """The value of `key`."""

    def scan(self, first: bytes, last: bytes) -> list[tuple[bytes, bytes]]:
        """The entries with first <= key <= last, in order of keys."""

    def write(self, changes: Mapping[bytes, bytes | None], *, sync: bool) -> None:
        """Put every value, delete every key whose value is None: all of them or nothing.

        sync: return only when this and everything written before is on disk.
        """

    def close(self) -> None:
        """Let others open it."""


@dataclass(frozen=True, slots=True)
class JournalContents:
    """Everything above the last final view, in order of views.

    floor_view: nothing at or below is ever signed again; the last final view at least.
    bodies: (block hash, encoded block) of the blocks that this member voted to notarize.
    witnessed: the newest vote of each kind of other members.
    """

    floor_view: int
    votes: tuple[Vote, ...]
    certificates: tuple[Certificate, ...]
    bodies: tuple[tuple[BlockHash, bytes], ...]
    witnessed: tuple[Vote, ...] = ()


class Journal:
    """One member's journal over its entries. A method that raises has written nothing."""

    def __init__(self, entries: JournalEntries, header: JournalHeader) -> None:
        """For `create` and `open` only."""
        self._entries = entries
        self._header = header
        contents = self.contents()
        self._views = {vote.block_hash: vote.view for vote in contents.votes if vote.kind is VoteKind.NOTARIZE}
        self._newest_certificate = max(contents.certificates, key=lambda c: c.view, default=None)
        self._newest_vote_view = max((vote.view for vote in contents.votes), default=None)
        self._witnessed = {(vote.member, vote.kind): vote for vote in contents.witnessed}
        self._unwritten: set[tuple[int, VoteKind]] = set()
        noted = entries.get(_CONTRADICTION)
        self._contradiction = None if noted is None else _decoded(noted, _read_contradiction)

    @classmethod
    def create(
        cls, entries: JournalEntries, identity: JournalIdentity, floor_view: int = 0, *, forgotten: bool = False
    ) -> "Journal":
        """Begin an empty journal that signs nothing at or below `floor_view`. Raises JournalRefused (EXISTS).

        forgotten: in place of a lost one, so that it signs nothing at all until `raise_floor`.
        """
        if entries.get(_HEADER) is not None:
            raise JournalRefused(JournalReason.EXISTS, "a second journal could sign against the first")
        state = JournalState.FORGOTTEN if forgotten else JournalState.KEPT
        header = JournalHeader(state, identity, floor_view, floor_view)
        entries.write({_HEADER: header.encode()}, sync=True)
        return cls(entries, header)

    @classmethod
    def open(cls, entries: JournalEntries, identity: JournalIdentity) -> "Journal":
        """Go on with the journal that `create` began. Raises JournalRefused: DAMAGED, NEWER, FOREIGN, BEHIND."""
        encoded = entries.get(_HEADER)
        if encoded is None:
            raise JournalRefused(JournalReason.DAMAGED, "it has no beginning")
        if encoded[:1] > bytes([FORMAT_VERSION]):
            detail = f"format {encoded[0]}, and this release knows {FORMAT_VERSION}; run the later release"
            raise JournalRefused(JournalReason.NEWER, detail)
        header = _decoded(encoded, JournalHeader.read)
        found = header.identity
        if found != identity:
            detail = f"it is of member {found.member} in epoch {found.epoch} of the chain {found.chain_id.hex()[:16]}…"
            raise JournalRefused(JournalReason.FOREIGN, f"{detail}; give this member its own data_dir")
        if header.state is JournalState.BEHIND:
            raise behind("a vote was found that it lacks")
        return cls(entries, header)

    def contents(self) -> JournalContents:
        """All that a restart needs. Raises JournalRefused (DAMAGED)."""
        above = self._header.pruned_view + 1
        votes = self._entries.scan(*_range(_VOTE, above))
        certificates = self._entries.scan(*_range(_CERTIFICATE, above))
        bodies = self._entries.scan(*_range(_BODY, above))
        witnessed = self._entries.scan(_WITNESSED, _WITNESSED + b"\xff" * 4)
        return JournalContents(
            self._header.floor_view,
            tuple(_decoded(value, Vote.read) for _, value in votes),
            tuple(_decoded(value, Certificate.read) for _, value in certificates),
            tuple((_hash_of(key), value) for key, value in bodies),
            tuple(_decoded(value, Vote.read) for _, value in witnessed),
        )

    def record_vote(self, vote: Vote, body: bytes = b"") -> None:
        """Write this member's own vote, and with NOTARIZE its block's encoding; return when both are on disk.

        The same statement may be recorded again.
        Raises JournalRefused: FORGOTTEN, BEHIND, CONTRADICTED, NOT_OWN, PASSED, CONFLICT, BODY_MISSING.
        """
        self._refuse_conflict(vote)
        changes: dict[bytes, bytes | None] = {_key(_VOTE, vote.view, bytes([vote.kind])): vote.encode()}
        for member, kind in self._unwritten:
            changes[_witness_key(member, kind)] = self._witnessed[member, kind].encode()
        if vote.kind is VoteKind.NOTARIZE:
            if not body:
                raise JournalRefused(JournalReason.BODY_MISSING, f"view {vote.view}")
            changes[_key(_BODY, vote.view, vote.block_hash)] = body
        self._entries.write(changes, sync=True)
        self._unwritten.clear()
        self._note(vote)
        if vote.kind is VoteKind.NOTARIZE:
            self._views[vote.block_hash] = vote.view

    def record_promise(self, vote: Vote) -> None:
        """Write this member's own vote without a block: for a memory that only has to keep it from another word.

        The same statement may be recorded again.
        Raises JournalRefused: FORGOTTEN, BEHIND, CONTRADICTED, NOT_OWN, PASSED, CONFLICT.
        """
        self._refuse_conflict(vote)
        self._entries.write({_key(_VOTE, vote.view, bytes([vote.kind])): vote.encode()}, sync=True)
        self._note(vote)

    def record_certificate(self, certificate: Certificate) -> None:
        """Write a checked certificate; on disk at the latest with the next vote. Of a final view: nothing."""
        if certificate.view > self._header.pruned_view:
            key = _key(_CERTIFICATE, certificate.view, bytes([certificate.kind]))
            self._entries.write({key: certificate.encode()}, sync=False)
            newest = self._newest_certificate
            if newest is None or certificate.view > newest.view:
                self._newest_certificate = certificate

    def witness(self, vote: Vote) -> None:
        """Keep a checked vote of another member, if it is its newest of this kind; on disk with the next own vote."""
        key = (vote.member, vote.kind)
        newest = self._witnessed.get(key)
        if vote.member != self._header.identity.member and (newest is None or vote.view > newest.view):
            self._witnessed[key] = vote
            self._unwritten.add(key)

    def witnessed(self, member: int) -> tuple[Vote, ...]:
        """The newest vote of each kind that was seen of another member."""
        return tuple(vote for key, vote in sorted(self._witnessed.items()) if key[0] == member)

    def lacks(self, vote: Vote) -> bool:
        """Whether a checked vote by this member's key, above the floor, is none that this journal holds."""
        if vote.member != self._header.identity.member or vote.view <= self.floor_view:
            return False
        own = self._vote(vote.view, vote.kind)
        return own is None or own.block_hash != vote.block_hash

    def require_memory_of(self, certificate: Certificate) -> None:
        """Raise JournalRefused (BEHIND) if this member signed a checked certificate, and the journal lacks the vote.

        One that has forgotten lacks what it must lack.
        """
        for vote in certificate.votes():
            if self.lacks(vote) and self.state is not JournalState.FORGOTTEN:
                raise lacking(vote)

    def raise_floor(self, floor_view: int) -> None:
        """Sign nothing at or below this view, nor at or below the floor before; what had forgotten signs again above.

        On disk when this returns, with every certificate recorded before. A floor is below the last view that a vote
        can name; nothing follows for that view, which no certificate will ever lead to.
        """
        floor_view = max(min(floor_view, LAST_VIEW - 1), self.floor_view)
        self._write_header(self._header.with_floor(floor_view, JournalState.KEPT))

    def give_up(self) -> None:
        """Note for good that a vote was found which this journal lacks: it takes none, and is not opened again."""
        self._write_header(self._header.with_floor(self.floor_view, JournalState.BEHIND))

    def note_contradiction(self, first: Certificate, second: Certificate) -> None:
        """Note for good two checked certificates that can't both be: no vote is taken after them. The first two stay.

        They are on disk when this returns: they prove that more members are faulty than consensus bears.
        """
        if self._contradiction is None:
            self._entries.write({_CONTRADICTION: first.encode() + second.encode()}, sync=True)
            self._contradiction = (first, second)

    @property
    def contradiction(self) -> tuple[Certificate, Certificate] | None:
        """What `note_contradiction` was told."""
        return self._contradiction

    def leave_keys_to_signer(self) -> None:
        """Note for good that votes are signed by a process with a journal of its own, and only repeated in this one."""
        if self._entries.get(_KEYS_ELSEWHERE) is None:
            self._entries.write({_KEYS_ELSEWHERE: b"\x01"}, sync=True)

    def require_keys_here(self) -> None:
        """Raise JournalRefused (KEYS_ELSEWHERE) if keys may have signed what this journal never heard of."""
        if self._entries.get(_KEYS_ELSEWHERE) is not None:
            detail = "a signer was made for this member (peg signer), and only the signer's journal knows every vote"
            raise JournalRefused(
                JournalReason.KEYS_ELSEWHERE, f"{detail}: use that signer, or see 3. in docs/operating.md"
            )

    @property
    def state(self) -> JournalState:
        """Whether it may be signed by."""
        return self._header.state

    @property
    def floor_view(self) -> int:
        """Nothing at or below is ever signed again."""
        return self._header.floor_view

    @property
    def newest_certificate(self) -> Certificate | None:
        """The certificate of the highest view above the last final one."""
        return self._newest_certificate

    @property
    def newest_vote_view(self) -> int | None:
        """The highest view in which a vote was recorded; None if none was since the newest final block."""
        return self._newest_vote_view

    def body(self, block_hash: BlockHash) -> bytes | None:
        """The encoding of a block that this member voted to notarize."""
        view = self._views.get(block_hash)
        return None if view is None else self._entries.get(_key(_BODY, view, block_hash))

    def prune(self, final_view: int) -> None:
        """Drop everything at or below a view whose final block is stored; it is never signed in again."""
        header = self._header
        if final_view <= header.pruned_view:
            return
        pruned = header.pruned_to(final_view)
        changes: dict[bytes, bytes | None] = {_HEADER: pruned.encode()}
        for table in (_VOTE, _CERTIFICATE, _BODY):
            first, last = _range(table, header.pruned_view + 1, final_view)
            changes.update((key, None) for key, _ in self._entries.scan(first, last))
        self._entries.write(changes, sync=False)
        self._header = pruned
        self._views = {block_hash: view for block_hash, view in self._views.items() if view > final_view}
        if self._newest_certificate is not None and self._newest_certificate.view <= final_view:
            self._newest_certificate = None

    def close(self) -> None:
        """Let go of the entries."""
        self._entries.close()

    def _refuse_conflict(self, vote: Vote) -> None:
        identity = self._header.identity
        if self.state is JournalState.FORGOTTEN:
            raise JournalRefused(JournalReason.FORGOTTEN, "how far this member may have signed is not known yet")
        if self.state is JournalState.BEHIND:
            raise behind("a vote was found that it lacks")
        if self._contradiction is not None:
            views = " and ".join(
                f"{certificate.kind.name} of view {certificate.view}" for certificate in self._contradiction
            )
            raise JournalRefused(JournalReason.CONTRADICTED, f"{views} can't both be: more than f members are faulty")
        if (vote.epoch, vote.member) != (identity.epoch, identity.member):
            raise JournalRefused(JournalReason.NOT_OWN, f"member {vote.member} in epoch {vote.epoch}")
        if vote.view <= self.floor_view:
            raise JournalRefused(JournalReason.PASSED, f"view {vote.view}, and {self.floor_view} is the floor")
        earlier = {kind: self._vote(vote.view, kind) for kind in VoteKind}
        same = earlier[vote.kind]
        if same is not None and same.block_hash != vote.block_hash:
            raise JournalRefused(JournalReason.CONFLICT, f"another {vote.kind.name} in view {vote.view}")
        excluded = VoteKind.FINALIZE if vote.kind is VoteKind.NULLIFY else VoteKind.NULLIFY
        if same is None and earlier[excluded] is not None:
            raise JournalRefused(JournalReason.CONFLICT, f"{vote.kind.name} after {excluded.name} in view {vote.view}")

    def _note(self, vote: Vote) -> None:
        self._newest_vote_view = max(vote.view, self._newest_vote_view or 0)

    def _write_header(self, header: JournalHeader) -> None:
        self._entries.write({_HEADER: header.encode()}, sync=True)
        self._header = header

    def _vote(self, view: int, kind: VoteKind) -> Vote | None:
        value = self._entries.get(_key(_VOTE, view, bytes([kind])))
        return None if value is None else _decoded(value, Vote.read)


def _key(table: bytes, view: int, rest: bytes) -> bytes:
    return table + view.to_bytes(8, "big") + rest


def _range(table: bytes, first_view: int, last_view: int = LAST_VIEW) -> tuple[bytes, bytes]:
    return _key(table, first_view, b""), _key(table, last_view, b"\xff" * (HASH_SIZE + 1))


def _witness_key(member: int, kind: VoteKind) -> bytes:
    return _WITNESSED + member.to_bytes(2, "big") + bytes([kind])


def _hash_of(key: bytes) -> BlockHash:
    return BlockHash(key[9:])


def _read_contradiction(reader: Reader) -> tuple[Certificate, Certificate]:
    return Certificate.read(reader), Certificate.read(reader)


def _decoded(data: bytes, read: Callable[[Reader], T]) -> T:
    """What was written here before; what does not decode is the disk's fault alone."""
    try:
        return decode_whole(data, read)
    except MalformedError as error:
        raise JournalRefused(JournalReason.DAMAGED, str(error)) from error
