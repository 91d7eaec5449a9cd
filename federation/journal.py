"""The durable memory of what this member signed: written and synced before a vote leaves.

It holds this member's own votes, the bodies of the blocks it voted for (its own proposals among them), and
certificates, back to the last final view. A member that lost it could sign against its own earlier word, so a journal
that is absent is never taken for one that is empty: `create` makes it once, everything else only opens it.

Certificates are written without a sync. The log below is one sequence, so the synced write of the next vote makes them
durable too, and a vote is never on disk without the certificates that it was cast on.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from bridge.bitcoin.identifiers import HASH_SIZE, BlockHash
from bridge.codec import Reader, Writer, decode_whole
from bridge.errors import MalformedError, Reason
from federation.certificate import Certificate, Vote, VoteKind
from federation.errors import Refused

T = TypeVar("T")

FORMAT_VERSION = 1
MAX_VIEWS_AHEAD = 1_000_000
"""How far above the floor a promise may be: half a year of views without a final block, at 16 seconds each."""
_LAST_VIEW = 2**64 - 1
_HEADER = b"h"
_VOTE = b"v"
_CERTIFICATE = b"c"
_BODY = b"b"
_KEYS_ELSEWHERE = b"k"


class JournalReason(Reason):
    """Why a journal can't be used, or why it does not take a vote."""

    MISSING = "journal-missing"
    """There is none: it was lost, or never made."""
    EXISTS = "journal-exists"
    """A second journal could sign against the first."""
    DAMAGED = "journal-damaged"
    """It is not what this program writes: what was signed is not known."""
    NEWER = "journal-newer"
    """A later release wrote it."""
    LOCKED = "journal-locked"
    """Another process of the same member has it open."""
    NO_SPACE = "journal-no-space"
    """The disk is full, or a quota or a limit on the size of files is reached."""
    READ_ONLY = "journal-read-only"
    """The disk or the directory can't be written."""
    UNUSABLE = "journal-unusable"
    """The path can't be used for another reason, or the journal was closed."""
    FOREIGN = "journal-foreign"
    """It is another member's, another epoch's or another chain's."""
    BEHIND = "journal-behind"
    """It lacks a vote of this member that a final block proves: an older copy of it was put back."""
    KEYS_ELSEWHERE = "journal-keys-elsewhere"
    """A signer in a process of its own has signed for this member: only that one's journal knows every vote."""
    NOT_OWN = "journal-not-own"
    """A vote of another member, or of another epoch."""
    PASSED = "journal-passed"
    """A vote in a view that is pruned."""
    CONFLICT = "journal-conflict"
    """A vote against this member's own earlier word."""
    TOO_FAR = "journal-too-far"
    """A vote in a view that the chain can't have come to: who has it keeps it, and this member is bound by it then."""
    BODY_MISSING = "journal-body-missing"
    """A vote to notarize without the block."""


class JournalRefused(Refused):
    """The journal stands against it. reason: JournalReason."""


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
class JournalIdentity:
    """Whose journal it is. chain_id: 32 bytes.  epoch: u32.  member: u16."""

    chain_id: bytes
    epoch: int
    member: int


@dataclass(frozen=True, slots=True)
class JournalContents:
    """Everything above the floor, in order of views.

    floor_view: pruned up to here; nothing at or below is ever signed again.
    bodies: (block hash, encoded block) of the blocks that this member voted to notarize.
    """

    floor_view: int
    votes: tuple[Vote, ...]
    certificates: tuple[Certificate, ...]
    bodies: tuple[tuple[BlockHash, bytes], ...]


class Journal:
    """One member's journal over its entries. A method that raises has written nothing."""

    def __init__(self, entries: JournalEntries, identity: JournalIdentity, floor_view: int) -> None:
        """For `create` and `open` only."""
        self._entries = entries
        self._identity = identity
        self._floor_view = floor_view
        self._views = {_hash_of(key): _view_of(key) for key, _ in entries.scan(*_range(_BODY, floor_view + 1))}

    @classmethod
    def create(cls, entries: JournalEntries, identity: JournalIdentity, floor_view: int = 0) -> "Journal":
        """Begin an empty journal that signs nothing at or below `floor_view`. Raises JournalRefused (EXISTS)."""
        if entries.get(_HEADER) is not None:
            raise JournalRefused(JournalReason.EXISTS, "a second journal could sign against the first")
        entries.write({_HEADER: _encode_header(identity, floor_view)}, sync=True)
        return cls(entries, identity, floor_view)

    @classmethod
    def open(cls, entries: JournalEntries, identity: JournalIdentity) -> "Journal":
        """Go on with the journal that `create` began. Raises JournalRefused: DAMAGED, NEWER, FOREIGN."""
        header = entries.get(_HEADER)
        if header is None:
            raise JournalRefused(JournalReason.DAMAGED, "it has no beginning")
        if header[:1] > bytes([FORMAT_VERSION]):
            detail = f"format {header[0]}, and this release knows {FORMAT_VERSION}; run the later release"
            raise JournalRefused(JournalReason.NEWER, detail)
        found, floor_view = _decoded(header, _read_header)
        if found != identity:
            detail = f"it is of member {found.member} in epoch {found.epoch} of the chain {found.chain_id.hex()[:16]}…"
            raise JournalRefused(JournalReason.FOREIGN, f"{detail}; give this member its own data_dir")
        journal = cls(entries, identity, floor_view)
        journal.contents()
        return journal

    def contents(self) -> JournalContents:
        """All that a restart needs. Raises JournalRefused (DAMAGED)."""
        above = self._floor_view + 1
        votes = self._entries.scan(*_range(_VOTE, above))
        certificates = self._entries.scan(*_range(_CERTIFICATE, above))
        bodies = self._entries.scan(*_range(_BODY, above))
        return JournalContents(
            self._floor_view,
            tuple(_decoded(value, Vote.read) for _, value in votes),
            tuple(_decoded(value, Certificate.read) for _, value in certificates),
            tuple((_hash_of(key), value) for key, value in bodies),
        )

    def record_vote(self, vote: Vote, body: bytes = b"") -> None:
        """Write this member's own vote, and with NOTARIZE its block's encoding; return when both are on disk.

        The same statement may be recorded again. Raises JournalRefused: NOT_OWN, PASSED, CONFLICT, BODY_MISSING.
        """
        self._refuse_conflict(vote)
        changes: dict[bytes, bytes | None] = {_key(_VOTE, vote.view, bytes([vote.kind])): vote.encode()}
        if vote.kind is VoteKind.NOTARIZE:
            if not body:
                raise JournalRefused(JournalReason.BODY_MISSING, f"view {vote.view}")
            changes[_key(_BODY, vote.view, vote.block_hash)] = body
        self._entries.write(changes, sync=True)
        if vote.kind is VoteKind.NOTARIZE:
            self._views[vote.block_hash] = vote.view

    def record_promise(self, vote: Vote, highest_view: int) -> None:
        """Write this member's own vote without a block: for a memory that only has to keep it from another word.

        highest_view: that anybody may have come to; MAX_VIEWS_AHEAD above the floor holds besides.
        The same statement may be recorded again. Raises JournalRefused: NOT_OWN, PASSED, TOO_FAR, CONFLICT.
        """
        highest_view = min(highest_view, self._floor_view + MAX_VIEWS_AHEAD)
        if vote.view > highest_view:
            raise JournalRefused(JournalReason.TOO_FAR, f"view {vote.view}, and {highest_view} is the last to vote in")
        self._refuse_conflict(vote)
        self._entries.write({_key(_VOTE, vote.view, bytes([vote.kind])): vote.encode()}, sync=True)

    def record_certificate(self, certificate: Certificate) -> None:
        """Write a checked certificate; on disk at the latest with the next vote. At or below the floor: nothing."""
        if certificate.view > self._floor_view:
            key = _key(_CERTIFICATE, certificate.view, bytes([certificate.kind]))
            self._entries.write({key: certificate.encode()}, sync=False)

    def require_memory_of(self, certificate: Certificate) -> None:
        """Raise JournalRefused (BEHIND) if this member signed a certificate of which the journal knows nothing."""
        signers = {member for member, _ in certificate.signatures}
        view = certificate.view
        if self._identity.member in signers and view > self._floor_view and not self._vote(view, certificate.kind):
            detail = f"a final block holds this member's vote in view {view}, of which the journal knows nothing"
            raise JournalRefused(JournalReason.BEHIND, detail)

    def leave_keys_to_signer(self) -> None:
        """Note for good that votes are signed by a process with a journal of its own, and only repeated in this one."""
        if self._entries.get(_KEYS_ELSEWHERE) is None:
            self._entries.write({_KEYS_ELSEWHERE: b"\x01"}, sync=True)

    def require_keys_here(self) -> None:
        """Raise JournalRefused (KEYS_ELSEWHERE) if keys may have signed what this journal never heard of."""
        if self._entries.get(_KEYS_ELSEWHERE) is not None:
            detail = "a signer signs for this member (peg signer run), and only the signer's journal knows every vote"
            raise JournalRefused(
                JournalReason.KEYS_ELSEWHERE, f"{detail}: use that signer, or see 3. in docs/operating.md"
            )

    @property
    def floor_view(self) -> int:
        """Pruned up to here; nothing at or below is ever signed again."""
        return self._floor_view

    def body(self, block_hash: BlockHash) -> bytes | None:
        """The encoding of a block that this member voted to notarize."""
        view = self._views.get(block_hash)
        return None if view is None else self._entries.get(_key(_BODY, view, block_hash))

    def prune(self, final_view: int) -> None:
        """Drop everything at or below a view whose final block is stored; it is never signed in again."""
        if final_view <= self._floor_view:
            return
        changes: dict[bytes, bytes | None] = {_HEADER: _encode_header(self._identity, final_view)}
        for table in (_VOTE, _CERTIFICATE, _BODY):
            first, last = _range(table, self._floor_view + 1, final_view)
            changes.update((key, None) for key, _ in self._entries.scan(first, last))
        self._entries.write(changes, sync=False)
        self._floor_view = final_view
        self._views = {block_hash: view for block_hash, view in self._views.items() if view > final_view}

    def close(self) -> None:
        """Let go of the entries."""
        self._entries.close()

    def _refuse_conflict(self, vote: Vote) -> None:
        if (vote.epoch, vote.member) != (self._identity.epoch, self._identity.member):
            raise JournalRefused(JournalReason.NOT_OWN, f"member {vote.member} in epoch {vote.epoch}")
        if vote.view <= self._floor_view:
            raise JournalRefused(JournalReason.PASSED, f"view {vote.view}, pruned up to {self._floor_view}")
        earlier = {kind: self._vote(vote.view, kind) for kind in VoteKind}
        same = earlier[vote.kind]
        if same is not None and same.block_hash != vote.block_hash:
            raise JournalRefused(JournalReason.CONFLICT, f"another {vote.kind.name} in view {vote.view}")
        excluded = VoteKind.FINALIZE if vote.kind is VoteKind.NULLIFY else VoteKind.NULLIFY
        if same is None and earlier[excluded] is not None:
            raise JournalRefused(JournalReason.CONFLICT, f"{vote.kind.name} after {excluded.name} in view {vote.view}")

    def _vote(self, view: int, kind: VoteKind) -> Vote | None:
        value = self._entries.get(_key(_VOTE, view, bytes([kind])))
        return None if value is None else _decoded(value, Vote.read)


class MemoryEntries:
    """Entries in memory, for tests: `lose_unsynced` is a power failure, after which they may be opened again."""

    def __init__(self) -> None:
        self._values: dict[bytes, bytes] = {}
        self._synced: dict[bytes, bytes] = {}

    def get(self, key: bytes) -> bytes | None:
        """The value of `key`."""
        return self._values.get(key)

    def scan(self, first: bytes, last: bytes) -> list[tuple[bytes, bytes]]:
        """The entries with first <= key <= last, in order of keys."""
        return sorted((key, value) for key, value in self._values.items() if first <= key <= last)

    def write(self, changes: Mapping[bytes, bytes | None], *, sync: bool) -> None:
        """Put and delete."""
        for key, value in changes.items():
            if value is None:
                self._values.pop(key, None)
            else:
                self._values[key] = value
        if sync:
            self._synced = dict(self._values)

    def close(self) -> None:
        """Nothing to let go of."""

    def lose_unsynced(self) -> None:
        """Go back to what the last synced write left."""
        self._values = dict(self._synced)


def _key(table: bytes, view: int, rest: bytes) -> bytes:
    return table + view.to_bytes(8, "big") + rest


def _range(table: bytes, first_view: int, last_view: int = _LAST_VIEW) -> tuple[bytes, bytes]:
    return _key(table, first_view, b""), _key(table, last_view, b"\xff" * (HASH_SIZE + 1))


def _view_of(key: bytes) -> int:
    return int.from_bytes(key[1:9], "big")


def _hash_of(key: bytes) -> BlockHash:
    return BlockHash(key[9:])


def _encode_header(identity: JournalIdentity, floor_view: int) -> bytes:
    writer = Writer().u8(FORMAT_VERSION).fixed(identity.chain_id, HASH_SIZE)
    return writer.u32(identity.epoch).u16(identity.member).u64(floor_view).finish()


def _read_header(reader: Reader) -> tuple[JournalIdentity, int]:
    version = reader.u8()
    if version != FORMAT_VERSION:
        raise MalformedError(f"format {version}, not {FORMAT_VERSION}")
    identity, floor_view = JournalIdentity(reader.take(HASH_SIZE), reader.u32(), reader.u16()), reader.u64()
    if floor_view == _LAST_VIEW:
        raise MalformedError("pruned up to the last view that there is")
    return identity, floor_view


def _decoded(data: bytes, read: Callable[[Reader], T]) -> T:
    """What was written here before; what does not decode is the disk's fault alone."""
    try:
        return decode_whole(data, read)
    except MalformedError as error:
        raise JournalRefused(JournalReason.DAMAGED, str(error)) from error
