"""The journal: what it keeps, what it refuses, and that it survives."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bridge.bitcoin.hashes import sha256
from bridge.bitcoin.identifiers import BlockHash
from federation.certificate import NO_BLOCK, Certificate, Vote, VoteKind
from federation.journal import Journal
from federation.journal_entries import create_journal, open_journal
from federation.journal_errors import JournalReason, JournalRefused
from federation.journal_header import JournalIdentity
from tests.support.memory_entries import MemoryEntries

IDENTITY = JournalIdentity(sha256(b"a chain"), 0, 2)
BLOCK, OTHER = BlockHash(sha256(b"a block")), BlockHash(sha256(b"another"))
BODY = b"the block's encoding"


def vote(kind: VoteKind, view: int, block_hash: BlockHash = BLOCK, member: int = 2, epoch: int = 0) -> Vote:
    named = block_hash if kind.names_block else NO_BLOCK
    return Vote(kind, epoch, view, named, member, bytes([view % 256]) * 64)


def certificate(kind: VoteKind, view: int) -> Certificate:
    named = BLOCK if kind.names_block else NO_BLOCK
    return Certificate(kind, 0, view, named, tuple((member, bytes([view % 256]) * 64) for member in range(3)))


def refusal(act: Callable[[], object]) -> JournalReason:
    with pytest.raises(JournalRefused) as caught:
        act()
    assert isinstance(caught.value.reason, JournalReason)
    return caught.value.reason


class Place:
    """Where a journal lies: on disk or in memory. `reopen` is a restart."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.entries = MemoryEntries()
        if path is None:
            self.journal = Journal.create(self.entries, IDENTITY)
        else:
            self.journal = create_journal(path, IDENTITY)

    def reopen(self, identity: JournalIdentity = IDENTITY) -> Journal:
        self.journal.close()
        if self.path is None:
            self.journal = Journal.open(self.entries, identity)
        else:
            self.journal = open_journal(self.path, identity)
        return self.journal


@pytest.fixture(params=["memory", "disk"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path / "journal" if request.param == "disk" else None)
    yield place
    place.journal.close()


def test_contents_of_a_created_journal_are_empty(place: Place) -> None:
    contents = place.reopen().contents()
    assert (contents.floor_view, contents.votes, contents.certificates, contents.bodies) == (0, (), (), ())


def test_contents_survive_a_restart_in_order_of_views(place: Place) -> None:
    votes = [vote(VoteKind.NULLIFY, 300), vote(VoteKind.FINALIZE, 7), vote(VoteKind.NOTARIZE, 7)]
    certificates = [certificate(VoteKind.NULLIFY, 300), certificate(VoteKind.NOTARIZE, 7)]
    for one in votes:
        place.journal.record_vote(one, BODY)
    for another in certificates:
        place.journal.record_certificate(another)
    contents = place.reopen().contents()
    assert list(contents.votes) == sorted(votes, key=lambda one: (one.view, one.kind))
    assert list(contents.certificates) == certificates[::-1]
    assert contents.bodies == ((BLOCK, BODY),)


def test_body_is_found_by_hash_until_pruned(place: Place) -> None:
    place.journal.record_vote(vote(VoteKind.NOTARIZE, 5), BODY)
    assert place.journal.body(BLOCK) == place.reopen().body(BLOCK) == BODY
    assert place.journal.body(OTHER) is None
    place.journal.prune(5)
    assert place.journal.body(BLOCK) is None


def test_prune_drops_what_is_final_and_keeps_the_rest(place: Place) -> None:
    for view in (4, 5, 6):
        place.journal.record_vote(vote(VoteKind.NOTARIZE, view, BlockHash(sha256(bytes([view])))), BODY)
        place.journal.record_certificate(certificate(VoteKind.NOTARIZE, view))
    place.journal.prune(5)
    for contents in (place.journal.contents(), place.reopen().contents()):
        assert contents.floor_view == 5
        assert [one.view for one in contents.votes] == [6]
        assert [one.view for one in contents.certificates] == [6]
        assert [block_hash for block_hash, _ in contents.bodies] == [sha256(bytes([6]))]


def test_prune_never_lowers_the_floor(place: Place) -> None:
    place.journal.prune(5)
    place.journal.prune(3)
    assert place.reopen().contents().floor_view == 5


def test_same_vote_may_be_recorded_again(place: Place) -> None:
    for kind in (VoteKind.NOTARIZE, VoteKind.FINALIZE):
        place.journal.record_vote(vote(kind, 5), BODY)
        place.journal.record_vote(vote(kind, 5), BODY)
    assert len(place.reopen().contents().votes) == 2


def test_nullify_may_follow_notarize(place: Place) -> None:
    place.journal.record_vote(vote(VoteKind.NOTARIZE, 5), BODY)
    place.journal.record_vote(vote(VoteKind.NULLIFY, 5))
    assert len(place.journal.contents().votes) == 2


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        (vote(VoteKind.NOTARIZE, 5), vote(VoteKind.NOTARIZE, 5, OTHER)),
        (vote(VoteKind.FINALIZE, 5), vote(VoteKind.FINALIZE, 5, OTHER)),
        (vote(VoteKind.FINALIZE, 5), vote(VoteKind.NULLIFY, 5)),
        (vote(VoteKind.NULLIFY, 5), vote(VoteKind.FINALIZE, 5)),
        (vote(VoteKind.NULLIFY, 5), vote(VoteKind.NOTARIZE, 5)),
    ],
    ids=lambda one: one.kind.name,
)
def test_conflicting_vote_refused_even_after_a_restart(place: Place, earlier: Vote, later: Vote) -> None:
    place.journal.record_vote(earlier, BODY)
    before = place.reopen().contents()
    assert refusal(lambda: place.journal.record_vote(later, BODY)) is JournalReason.CONFLICT
    assert place.journal.contents() == before


def test_vote_refused_at_the_floor(place: Place) -> None:
    place.journal.prune(5)
    assert refusal(lambda: place.reopen().record_vote(vote(VoteKind.NULLIFY, 5))) is JournalReason.PASSED


def test_certificate_at_the_floor_leaves_nothing(place: Place) -> None:
    place.journal.prune(5)
    place.journal.record_certificate(certificate(VoteKind.NULLIFY, 5))
    assert place.reopen().contents().certificates == ()


@pytest.mark.parametrize("other", [{"member": 1}, {"epoch": 1}])
def test_vote_refused_of_another_member_or_epoch(place: Place, other: dict[str, int]) -> None:
    foreign = replace(vote(VoteKind.NULLIFY, 5), **other)  # type: ignore[arg-type]
    assert refusal(lambda: place.journal.record_vote(foreign)) is JournalReason.NOT_OWN


def test_notarize_refused_without_its_body(place: Place) -> None:
    assert refusal(lambda: place.journal.record_vote(vote(VoteKind.NOTARIZE, 5))) is JournalReason.BODY_MISSING
    assert place.journal.contents().votes == ()


@pytest.mark.parametrize("other", [{"chain_id": sha256(b"other")}, {"epoch": 1}, {"member": 1}])
def test_open_refused_for_another_identity(place: Place, other: dict[str, object]) -> None:
    assert refusal(lambda: place.reopen(replace(IDENTITY, **other))) is JournalReason.FOREIGN  # type: ignore[arg-type]
    place.reopen()


def test_created_floor_is_kept(tmp_path: Path) -> None:
    create_journal(tmp_path / "journal", IDENTITY, floor_view=12).close()
    journal = open_journal(tmp_path / "journal", IDENTITY)
    assert journal.contents().floor_view == 12
    journal.close()


def test_open_refused_when_missing(tmp_path: Path) -> None:
    assert refusal(lambda: open_journal(tmp_path / "journal", IDENTITY)) is JournalReason.MISSING
    assert not (tmp_path / "journal").exists()


def test_create_refused_over_an_existing_journal(place: Place) -> None:
    place.journal.record_vote(vote(VoteKind.NULLIFY, 5))
    if place.path is None:
        assert refusal(lambda: Journal.create(place.entries, IDENTITY)) is JournalReason.EXISTS
    else:
        path = place.path
        place.journal.close()
        assert refusal(lambda: create_journal(path, IDENTITY)) is JournalReason.EXISTS
    assert len(place.reopen().contents().votes) == 1


def test_create_refused_in_a_directory_in_use(tmp_path: Path) -> None:
    (tmp_path / "something").write_bytes(b"of somebody")
    assert refusal(lambda: create_journal(tmp_path, IDENTITY)) is JournalReason.EXISTS


def test_open_refused_while_another_holds_it(tmp_path: Path) -> None:
    journal = create_journal(tmp_path / "journal", IDENTITY)
    assert refusal(lambda: open_journal(tmp_path / "journal", IDENTITY)) is JournalReason.LOCKED
    journal.close()


@pytest.mark.parametrize("key", [b"h", b"v" + (5).to_bytes(8, "big") + b"\x02"])
def test_open_refused_when_an_entry_is_damaged(key: bytes) -> None:
    entries = MemoryEntries()
    Journal.create(entries, IDENTITY).record_vote(vote(VoteKind.NULLIFY, 5))
    value = entries.get(key)
    assert value is not None
    entries.write({key: value[:-1]}, sync=True)
    assert refusal(lambda: Journal.open(entries, IDENTITY)) is JournalReason.DAMAGED


def test_open_refused_from_a_later_format() -> None:
    entries = MemoryEntries()
    Journal.create(entries, IDENTITY)
    header = entries.get(b"h")
    assert header is not None
    entries.write({b"h": b"\x02" + header[1:]}, sync=True)
    assert refusal(lambda: Journal.open(entries, IDENTITY)) is JournalReason.NEWER


@pytest.mark.parametrize("header", [b"", b"\x01", b"\x01" + b"\xff" * 46])
def test_open_refused_when_the_beginning_is_damaged(header: bytes) -> None:
    entries = MemoryEntries()
    entries.write({b"h": header}, sync=True)
    assert refusal(lambda: Journal.open(entries, IDENTITY)) is JournalReason.DAMAGED


def test_open_refused_without_a_beginning() -> None:
    assert refusal(lambda: Journal.open(MemoryEntries(), IDENTITY)) is JournalReason.DAMAGED


@pytest.mark.parametrize(("view", "signers", "reason"), [(6, (0, 2), JournalReason.BEHIND), (6, (0, 1), None)])
def test_own_vote_in_a_final_block_must_be_remembered(
    place: Place, view: int, signers: tuple[int, ...], reason: JournalReason | None
) -> None:
    final = replace(certificate(VoteKind.FINALIZE, view), signatures=tuple((member, bytes(64)) for member in signers))
    if reason is None:
        place.journal.require_memory_of(final)
    else:
        assert refusal(lambda: place.journal.require_memory_of(final)) is reason
        place.journal.record_vote(vote(VoteKind.FINALIZE, view))
        place.reopen().require_memory_of(final)
        place.journal.prune(view)
        place.reopen().require_memory_of(final)


def test_power_failure_loses_no_vote_nor_what_came_before_it() -> None:
    entries = MemoryEntries()
    journal = Journal.create(entries, IDENTITY)
    journal.record_certificate(certificate(VoteKind.NULLIFY, 4))
    journal.record_vote(vote(VoteKind.NOTARIZE, 5), BODY)
    journal.record_certificate(certificate(VoteKind.NOTARIZE, 5))
    entries.lose_unsynced()
    contents = Journal.open(entries, IDENTITY).contents()
    assert [one.view for one in contents.votes] == [5]
    assert [one.view for one in contents.certificates] == [4]
    assert contents.bodies == ((BLOCK, BODY),)


def test_closed_journal_refuses_use_and_closes_again(tmp_path: Path) -> None:
    journal = create_journal(tmp_path / "journal", IDENTITY)
    journal.close()
    journal.close()
    assert refusal(lambda: journal.record_vote(vote(VoteKind.NULLIFY, 5))) is JournalReason.UNUSABLE
    assert refusal(journal.contents) is JournalReason.UNUSABLE


def test_promise_needs_no_body_and_keeps_from_another_word(place: Place) -> None:
    place.journal.record_promise(vote(VoteKind.NOTARIZE, 7))
    place.journal.record_promise(vote(VoteKind.NOTARIZE, 7))
    journal = place.reopen()
    assert journal.contents().votes == (vote(VoteKind.NOTARIZE, 7),)
    assert refusal(lambda: journal.record_promise(vote(VoteKind.NOTARIZE, 7, OTHER))) is JournalReason.CONFLICT
    assert refusal(lambda: journal.record_promise(vote(VoteKind.NULLIFY, 7, member=1))) is JournalReason.NOT_OWN


def test_journal_that_only_repeats_a_signers_votes_is_no_memory_for_keys_again(place: Place) -> None:
    place.journal.require_keys_here()
    place.journal.leave_keys_to_signer()
    place.journal.leave_keys_to_signer()
    journal = place.reopen()
    journal.record_vote(vote(VoteKind.NULLIFY, 5))
    journal.prune(5)
    assert refusal(journal.require_keys_here) is JournalReason.KEYS_ELSEWHERE


def test_promise_refused_at_the_floor(place: Place) -> None:
    place.journal.prune(10)
    assert refusal(lambda: place.journal.record_promise(vote(VoteKind.NOTARIZE, 10))) is JournalReason.PASSED


def test_nothing_is_signed_after_certificates_that_contradict_each_other(place: Place) -> None:
    final, nullified = certificate(VoteKind.FINALIZE, 7), certificate(VoteKind.NULLIFY, 7)
    place.journal.note_contradiction(final, nullified)
    place.journal.note_contradiction(nullified, certificate(VoteKind.FINALIZE, 9))
    for journal in (place.journal, place.reopen()):
        assert journal.contradiction == (final, nullified), "the first two stay"
        assert refusal(lambda: journal.record_vote(vote(VoteKind.NULLIFY, 20))) is JournalReason.CONTRADICTED  # noqa: B023
        assert refusal(lambda: journal.record_promise(vote(VoteKind.NULLIFY, 20))) is JournalReason.CONTRADICTED  # noqa: B023
