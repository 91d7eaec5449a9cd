"""A member's journal, checked against itself and against its chain: the other half of `peg db check`."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bridge.bitcoin.identifiers import BlockHash
from bridge.errors import MalformedError
from federation.certificate import Certificate, Vote, VoteKind, VoteRejected, verify_certificate, verify_vote
from federation.journal import Journal, JournalContents
from federation.journal_entries import look_into_journal
from federation.journal_errors import JournalRefused
from federation.journal_header import JournalIdentity
from pegnode.chain.block import Block
from pegnode.chain.parameters import ChainRules
from pegnode.storage.check import CheckReason, WrongRecord
from pegnode.storage.store import ChainStore


@dataclass(frozen=True, slots=True)
class JournalReport:
    """What was checked and found well. floor_view: nothing at or below is ever signed again."""

    floor_view: int
    votes: int
    certificates: int


def check_journal(
    path: Path, identity: JournalIdentity, store: ChainStore, rules: ChainRules, *, has_bodies: bool
) -> JournalReport:
    """Check the journal at `path`, which nobody may write meanwhile. store: its process's chain, checked before.

    has_bodies: it holds the blocks that were voted for, as a member's does and a signer's does not.

    Raises WrongRecord for the first thing that is wrong, JournalRefused when the journal can't be read.
    """
    journal = look_into_journal(path, identity)
    try:
        contents = journal.contents()
        _check_votes(contents, identity, rules)
        if has_bodies:
            _check_bodies(contents)
        for certificate in contents.certificates:
            _check_certificate(certificate, rules)
        for vote in contents.witnessed:
            _check_witnessed(vote, identity, rules)
        try:
            require_memory(journal, store)
        except JournalRefused as error:
            raise _wrong("the votes", error.detail) from error
    finally:
        journal.close()
    return JournalReport(contents.floor_view, len(contents.votes), len(contents.certificates))


def require_memory(journal: Journal, store: ChainStore) -> None:
    """Compare the journal with the newest certificates of the chain: an older copy, put back, lacks votes in them.

    A member's vote is in its journal before it can be in any certificate, and leaves it only below the journal's floor.
    One with another block than the final one is refused too. Raises JournalRefused (BEHIND).
    """
    for height in range(store.tip.header.height, 0, -1):
        data = store.certificate_at(height)
        if data is None:
            continue
        certificate = Certificate.decode(data)
        if certificate.view <= journal.floor_view:
            return
        journal.require_memory_of(certificate)


def require_chain(journal: Journal, store: ChainStore) -> None:
    """The same for a journal that is to be signed by: refused, it is given up. Raises JournalRefused (BEHIND)."""
    with _giving_up(journal):
        require_memory(journal, store)


def require_certificate(journal: Journal, certificate: Certificate) -> None:
    """Compare a journal that is signed by with one checked certificate; refused, it is given up. Raises as above."""
    with _giving_up(journal):
        journal.require_memory_of(certificate)


@contextmanager
def _giving_up(journal: Journal) -> Iterator[None]:
    try:
        yield
    except JournalRefused:
        journal.give_up()
        raise


def _check_certificate(certificate: Certificate, rules: ChainRules) -> None:
    try:
        verify_certificate(certificate, rules.membership, rules.chain_id)
    except VoteRejected as error:
        raise _wrong(f"the {certificate.kind.name} certificate of view {certificate.view}", str(error)) from error


def _check_witnessed(vote: Vote, identity: JournalIdentity, rules: ChainRules) -> None:
    """What is kept of others is genuine: it is said again to whoever asks."""
    name = f"{_name(vote)} of member {vote.member}"
    try:
        verify_vote(vote, rules.membership, rules.chain_id)
    except VoteRejected as error:
        raise _wrong(name, str(error)) from error
    if vote.member == identity.member:
        raise _wrong(name, "it is this member's own, and not among its votes")


def _check_votes(contents: JournalContents, identity: JournalIdentity, rules: ChainRules) -> None:
    """Each vote is this member's own and genuine, and none excludes another."""
    kinds: dict[int, set[VoteKind]] = {}
    for vote in contents.votes:
        try:
            verify_vote(vote, rules.membership, rules.chain_id)
        except VoteRejected as error:
            raise _wrong(_name(vote), str(error)) from error
        if vote.member != identity.member:
            raise _wrong(_name(vote), f"it is of member {vote.member}")
        said = kinds.setdefault(vote.view, set())
        said.add(vote.kind)
        if {VoteKind.FINALIZE, VoteKind.NULLIFY} <= said:
            raise _wrong(_name(vote), "the other of FINALIZE and NULLIFY was signed too")


def _check_bodies(contents: JournalContents) -> None:
    """Each block that was voted for is there whole, and is one of the vote's view."""
    bodies = dict(contents.bodies)
    for vote in contents.votes:
        if vote.kind is VoteKind.NOTARIZE:
            data = bodies.get(vote.block_hash)
            if data is None:
                raise _wrong(_name(vote), "its block is missing")
            _check_body(vote, data)


def _check_body(vote: Vote, data: bytes) -> None:
    try:
        header = Block.decode_whole(data).header
    except MalformedError as error:
        raise _wrong(_name(vote), f"its block: {error}") from error
    if (header.hash, header.view) != (BlockHash(vote.block_hash), vote.view):
        raise _wrong(_name(vote), "its block is another one")


def _name(vote: Vote) -> str:
    return f"the {vote.kind.name} vote of view {vote.view}"


def _wrong(record: str, what: str) -> WrongRecord:
    return WrongRecord(CheckReason.JOURNAL, f"journal, {record}", what)
