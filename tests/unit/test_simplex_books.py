"""The parts of the consensus machine that can be asked directly."""

import pytest

from pegnode.consensus.certificates import CertificateBook
from pegnode.consensus.restraint import L1Restraint
from tests.machine.fake_chain import GENESIS, fake_membership
from tests.support.simplex import block, finalization, notarization, nullification

FIRST = block(1)
SECOND = block(2, FIRST)


def book() -> CertificateBook:
    return CertificateBook(GENESIS.view, GENESIS.hash, None)


def test_parent_is_justified_only_in_an_earlier_view() -> None:
    certificates = book()
    certificates.add(notarization(SECOND))
    assert certificates.justified(SECOND.hash, 3)
    assert not certificates.justified(SECOND.hash, 2)
    assert not certificates.justified(SECOND.hash, 1)


def test_parents_are_named_newest_first_as_far_as_views_are_nullified() -> None:
    certificates = book()
    for certificate in (notarization(FIRST), notarization(SECOND), nullification(2), nullification(3)):
        certificates.add(certificate)
    assert list(certificates.parents(4)) == [SECOND.hash, FIRST.hash]
    certificates.add(nullification(1))
    assert list(certificates.parents(4)) == [SECOND.hash, FIRST.hash, GENESIS.hash]
    assert list(certificates.parents(6)) == []


def test_justification_of_genesis_needs_no_certificate() -> None:
    certificates = book()
    certificates.add(nullification(1))
    assert certificates.justification(GENESIS.hash, 2) == (nullification(1),)


def test_finality_drops_what_lies_at_or_below_and_keeps_the_rest() -> None:
    certificates = book()
    third = block(3, SECOND)
    for certificate in (notarization(FIRST), notarization(SECOND), notarization(third), finalization(SECOND)):
        certificates.add(certificate)
    assert certificates.from_view(0) == [notarization(third)]
    assert certificates.certified_view(FIRST.hash) is None
    assert certificates.notarized(2) == SECOND.hash
    assert certificates.certificate_of(SECOND.hash) == finalization(SECOND)
    assert not certificates.add(notarization(FIRST))


def test_restraint_stops_doubling_at_its_cap() -> None:
    restraint = L1Restraint(fake_membership(4))
    view = quiet_from = 0
    for _ in range(20):
        view += 1
        restraint.note_nullified(view)
        quiet_from = view
        while not restraint.allows(view + 1):
            view += 1
    assert view - quiet_from == 2 << 6


@pytest.mark.parametrize("size", [1, 2, 4, 7, 10, 15, 134, 255])
def test_restraint_gives_every_leader_its_turn_to_end_it(size: int) -> None:
    """If only some had it, 2 of 134 for one, and these were faulty, nothing of L1 would be certified again."""
    restraint = L1Restraint(fake_membership(size))
    view, tried = 0, set()
    for failures in range(6 + size):
        view += 1
        while not restraint.allows(view):
            view += 1
        restraint.note_nullified(view)
        if failures >= 6:
            tried.add(view % size)
    assert tried == set(range(size))
