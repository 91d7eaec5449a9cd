"""A journal in place of a lost one, a journal that is behind, and what is kept of the others' votes."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from federation.certificate import VoteKind
from federation.journal import Journal
from federation.journal_entries import create_journal, open_journal, renew_journal
from federation.journal_errors import JournalReason, JournalRefused
from federation.journal_header import JournalIdentity, JournalState
from tests.support.memory_entries import MemoryEntries
from tests.support.stores import other_process, said
from tests.unit.test_journal import BODY, IDENTITY, OTHER, certificate, refusal, vote


def forgotten() -> tuple[MemoryEntries, Journal]:
    entries = MemoryEntries()
    return entries, Journal.create(entries, IDENTITY, forgotten=True)


def test_journal_that_has_forgotten_takes_no_vote() -> None:
    entries, journal = forgotten()
    for kind in VoteKind:
        assert refusal(partial(journal.record_vote, vote(kind, 9), BODY)) is JournalReason.FORGOTTEN
        assert refusal(partial(journal.record_promise, vote(kind, 9))) is JournalReason.FORGOTTEN
    assert Journal.open(entries, IDENTITY).state is JournalState.FORGOTTEN
    assert journal.contents().votes == ()


def test_journal_that_has_forgotten_stays_so_when_blocks_become_final() -> None:
    entries, journal = forgotten()
    journal.prune(5)
    journal.record_certificate(certificate(VoteKind.NULLIFY, 6))
    entries.lose_unsynced()
    reopened = Journal.open(entries, IDENTITY)
    assert reopened.state is JournalState.FORGOTTEN
    assert refusal(lambda: reopened.record_vote(vote(VoteKind.NULLIFY, 7))) is JournalReason.FORGOTTEN


def test_raised_floor_ends_forgetting_and_survives_a_power_failure_with_the_certificates() -> None:
    entries, journal = forgotten()
    journal.record_certificate(certificate(VoteKind.NULLIFY, 7))
    journal.raise_floor(9)
    entries.lose_unsynced()
    reopened = Journal.open(entries, IDENTITY)
    assert (reopened.state, reopened.floor_view) == (JournalState.KEPT, 9)
    assert reopened.newest_certificate == certificate(VoteKind.NULLIFY, 7), "of a view below the floor, and not final"
    assert refusal(lambda: reopened.record_vote(vote(VoteKind.NULLIFY, 9))) is JournalReason.PASSED
    reopened.record_vote(vote(VoteKind.NULLIFY, 10))
    assert reopened.newest_vote_view == 10


def test_raised_floor_is_never_lowered() -> None:
    journal = Journal.create(MemoryEntries(), IDENTITY, 12)
    journal.raise_floor(3)
    assert journal.floor_view == 12
    journal.prune(20)
    assert journal.floor_view == 20


@pytest.mark.parametrize("floor_view", [2**64 - 1, 2**64 + 1])
def test_floor_above_all_views_leaves_a_journal_that_opens(floor_view: int) -> None:
    """Whoever has the key can sign for the last view; the member is then silent, and no process that ends at starts."""
    entries, journal = forgotten()
    journal.raise_floor(floor_view)
    reopened = Journal.open(entries, IDENTITY)
    assert (reopened.state, reopened.floor_view) == (JournalState.KEPT, 2**64 - 2)
    assert refusal(lambda: reopened.record_vote(vote(VoteKind.NULLIFY, 2**64 - 2))) is JournalReason.PASSED


def test_newest_certificate_is_dropped_with_its_view() -> None:
    journal = Journal.create(MemoryEntries(), IDENTITY)
    journal.record_certificate(certificate(VoteKind.NULLIFY, 7))
    journal.record_certificate(certificate(VoteKind.NULLIFY, 4))
    assert journal.newest_certificate == certificate(VoteKind.NULLIFY, 7)
    journal.prune(7)
    assert journal.newest_certificate is None


@pytest.mark.parametrize(
    ("shown", "is_lacking"),
    [
        (vote(VoteKind.NOTARIZE, 7), False),
        (vote(VoteKind.NOTARIZE, 7, OTHER), True),
        (vote(VoteKind.FINALIZE, 7), True),
        (vote(VoteKind.NULLIFY, 8), True),
        (vote(VoteKind.NULLIFY, 5), False),
        (vote(VoteKind.NULLIFY, 8, member=1), False),
    ],
    ids=["held", "another-block", "another-kind", "another-view", "at-the-floor", "another-member"],
)
def test_vote_that_the_journal_lacks_is_noticed(shown: object, is_lacking: bool) -> None:
    journal = Journal.create(MemoryEntries(), IDENTITY, 5)
    journal.record_vote(vote(VoteKind.NOTARIZE, 7), BODY)
    assert journal.lacks(shown) is is_lacking  # type: ignore[arg-type]


def test_journal_that_gave_up_takes_no_vote_and_is_not_opened_again() -> None:
    entries = MemoryEntries()
    journal = Journal.create(entries, IDENTITY)
    journal.give_up()
    assert refusal(lambda: journal.record_vote(vote(VoteKind.NULLIFY, 1))) is JournalReason.BEHIND
    assert refusal(lambda: journal.record_promise(vote(VoteKind.NULLIFY, 1))) is JournalReason.BEHIND
    entries.lose_unsynced()
    with pytest.raises(JournalRefused, match="peg journal renew") as caught:
        Journal.open(entries, IDENTITY)
    assert caught.value.reason is JournalReason.BEHIND


def test_certificate_with_another_block_than_the_journal_holds_is_refused() -> None:
    journal = Journal.create(MemoryEntries(), IDENTITY)
    journal.record_vote(vote(VoteKind.FINALIZE, 7))
    journal.require_memory_of(certificate(VoteKind.FINALIZE, 7))
    other = replace(certificate(VoteKind.FINALIZE, 7), block_hash=OTHER)
    assert refusal(lambda: journal.require_memory_of(other)) is JournalReason.BEHIND


# What is kept of others


def test_newest_vote_of_each_kind_of_others_is_kept_with_the_next_own_vote() -> None:
    entries = MemoryEntries()
    journal = Journal.create(entries, IDENTITY)
    seen = [vote(kind, view, member=1) for view in (8, 9, 3) for kind in VoteKind]
    for one in (*seen, vote(VoteKind.NULLIFY, 4, member=0), vote(VoteKind.NULLIFY, 99)):
        journal.witness(one)
    newest = tuple(vote(kind, 9, member=1) for kind in VoteKind)
    assert journal.witnessed(1) == newest
    assert journal.witnessed(2) == (), "its own are its own"
    journal.record_vote(vote(VoteKind.NULLIFY, 9))
    journal.witness(vote(VoteKind.NULLIFY, 10, member=1))
    entries.lose_unsynced()
    journal = Journal.open(entries, IDENTITY)
    journal.prune(50)
    assert journal.witnessed(1) == newest, "whatever became final since"
    assert journal.contents().witnessed == (vote(VoteKind.NULLIFY, 4, member=0), *newest)


# On disk


def test_renewed_journal_keeps_the_old_one_under_another_name(tmp_path: Path) -> None:
    path = tmp_path / "data" / "journal"
    assert renew_journal(path, IDENTITY) is None
    for name in ("journal.old-1", "journal.old-2"):
        journal = open_journal(path, IDENTITY)
        assert journal.state is JournalState.FORGOTTEN
        journal.raise_floor(7)
        journal.record_vote(vote(VoteKind.NULLIFY, 9))
        journal.close()
        aside = renew_journal(path, IDENTITY)
        assert aside == path.with_name(name)
        kept = open_journal(aside, IDENTITY)
        assert kept.contents().votes == (vote(VoteKind.NULLIFY, 9),)
        kept.close()
    assert sorted(item.name for item in path.parent.iterdir()) == ["journal", "journal.old-1", "journal.old-2"]


def test_damaged_journal_is_renewed(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.mkdir()
    (path / "what").write_bytes(b"something else")
    aside = renew_journal(path, IDENTITY)
    assert aside is not None
    assert (aside / "what").read_bytes() == b"something else"
    journal = open_journal(path, IDENTITY)
    assert journal.state is JournalState.FORGOTTEN
    journal.close()


def test_journal_in_use_is_not_renewed(tmp_path: Path) -> None:
    journal = create_journal(tmp_path / "journal", IDENTITY)
    assert refusal(lambda: renew_journal(tmp_path / "journal", IDENTITY)) is JournalReason.LOCKED
    journal.record_vote(vote(VoteKind.NULLIFY, 1))
    journal.close()
    assert [item.name for item in tmp_path.iterdir()] == ["journal"]


MAKING_SCRIPT = (
    "import sys\n"
    "from pathlib import Path\n"
    "from federation.rocks import only_maker\n"
    "with only_maker(Path(sys.argv[1])):\n"
    "    print('making', flush=True)\n"
    "    sys.stdin.readline()\n"
)


@pytest.mark.parametrize("make", [create_journal, renew_journal])
def test_journal_is_made_by_one_process_at_a_time(
    tmp_path: Path, make: Callable[[Path, JournalIdentity], object]
) -> None:
    path = tmp_path / "journal"
    with other_process(MAKING_SCRIPT, path) as other:
        try:
            assert said(other) == "making"
            assert refusal(lambda: make(path, IDENTITY)) is JournalReason.LOCKED
        finally:
            other.communicate("go on\n", timeout=60)
    assert other.returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_renewal_that_was_cut_short_is_made_good(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    create_journal(path.with_name("journal.new"), IDENTITY).close()
    create_journal(path, IDENTITY).close()
    path.rename(path.with_name("journal.old-1"))
    assert refusal(lambda: open_journal(path, IDENTITY)) is JournalReason.MISSING
    assert renew_journal(path, IDENTITY) is None
    journal = open_journal(path, IDENTITY)
    assert journal.state is JournalState.FORGOTTEN
    journal.close()


def test_missing_journal_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(JournalRefused, match="peg journal renew --config FILE") as caught:
        open_journal(tmp_path / "journal", IDENTITY)
    assert caught.value.reason is JournalReason.MISSING
    assert "\n" not in str(caught.value)
