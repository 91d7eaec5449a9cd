"""Which findings still halt a node, given the records that are final."""

import pytest

from bridge.bitcoin.hashes import sha256d
from bridge.bitcoin.identifiers import BlockHash, Txid
from bridge.errors import MalformedError
from bridge.records import (
    AbandonedBlock,
    Deficit,
    Finding,
    FindingKind,
    LostCoin,
    Rebase,
    Record,
    Resume,
)
from bridge.state import Anchor
from pegnode.halts import LatchedFinding, active_findings, finding_name, remedy
from tests.support.halts import gone, latched
from tests.support.peg import outpoint

REFUSED = Finding.block_refused(BlockHash(bytes(31) + b"\x07"))
SECOND = Finding.second_version(Txid(bytes(31) + b"\x08"))


def record(serial: int, content: Resume | Deficit) -> Record:
    return Record(bytes(32), 0, serial, 0, content)


def resume(serial: int, *findings: Finding, rebase: Rebase | None = None) -> Record:
    return record(serial, Resume.of(findings, rebase))


def lost(serial: int, *numbers: int) -> Record:
    return record(serial, Deficit.of(LostCoin(outpoint(number), 5) for number in numbers))


def left(*items: LatchedFinding, records: tuple[Record, ...] = (), final: bool = False) -> list[LatchedFinding]:
    return list(active_findings(items, records, lambda _: final))


def at(finding: Finding, serial: int = 0) -> LatchedFinding:
    return LatchedFinding(finding, "what was seen", serial, 1)


def block(number: int) -> BlockHash:
    return BlockHash(sha256d(b"%d" % number))


def test_finding_counts_until_a_record_names_it() -> None:
    one, two = latched(1), latched(2)
    assert left(one, two) == [one, two]
    assert left(one, two, records=(resume(1, gone(1), gone(2)),)) == []


def test_record_ends_nothing_while_it_leaves_one_finding_unnamed() -> None:
    one, two = latched(1), latched(2)
    assert left(one, two, records=(resume(1, gone(1)),)) == [one, two]
    assert left(one, two, records=(resume(1, gone(1)), resume(2, gone(2)))) == [one, two]
    assert left(one, two, records=(resume(1, gone(1)), resume(2, gone(1), gone(2)))) == []


def test_record_does_not_end_what_was_found_after_it() -> None:
    one, two = latched(1, serial=0), latched(2, serial=1)
    named = resume(1, gone(1), gone(2))
    assert left(one, two, records=(named,)) == [two]
    again = latched(1, serial=1)
    assert left(one, again, records=(named,)) == [again]
    assert left(one, again, records=(named, resume(2, gone(1)))) == []


def test_coin_that_a_deficit_booked_need_not_be_named() -> None:
    one, two = latched(1), latched(2)
    named = resume(2, gone(2))
    assert left(one, two, records=(lost(1, 1), named)) == []
    assert left(one, two, records=(lost(1, 3), named)) == [one, two]
    assert left(one, records=(lost(1, 1),)) == [one], "a deficit alone ends nothing"
    later = latched(1, serial=1)
    assert left(later, records=(lost(1, 1), named)) == [later], "it was found after it had been booked"
    assert left(one, two, records=(named, lost(3, 1))) == [one, two], "it must have been booked before"


def test_rebase_ends_what_was_said_of_the_anchors_that_it_abandons() -> None:
    rebase = Rebase(
        Anchor(10, block(10)), (AbandonedBlock(block(11), 1), AbandonedBlock(block(12), 2)), Anchor(20, block(20))
    )
    older, newer = Finding.anchor_left(Anchor(11, block(11))), Finding.anchor_left(Anchor(12, block(12)))
    other = Finding.anchor_left(Anchor(13, block(13)))
    records = (resume(1, rebase=rebase),)
    assert left(at(older), at(newer), records=records) == []
    assert left(at(other), records=records) == [at(other)]
    assert left(at(other), records=(resume(1, other),)) == []


def test_refused_block_counts_until_it_is_final_and_keeps_a_record_from_ending_the_rest() -> None:
    refused, coin = at(REFUSED), latched(1)
    records = (resume(1, gone(1), REFUSED),)
    assert left(refused, records=records) == [refused]
    assert left(refused, coin, records=records) == [refused, coin]
    assert left(refused, coin, final=True) == [coin]
    assert left(refused, coin, records=records, final=True) == []


def test_second_version_ends_by_its_name() -> None:
    assert left(at(SECOND), records=(resume(1, gone(1)),)) == [at(SECOND)]
    assert left(at(SECOND), records=(resume(1, SECOND),)) == []


@pytest.mark.parametrize("finding", [gone(), REFUSED, SECOND, Finding.anchor_left(Anchor(7, block(7)))])
def test_latched_finding_is_read_back_and_nothing_else_is(finding: Finding) -> None:
    item = LatchedFinding(finding, "3 coins of 1.5 BTC: ö", 2**63, 5)
    data = item.encode()
    assert LatchedFinding.decode(data) == item
    for wrong in (data[:-1], data + b"\x00", b"\x09" + data[1:], data.replace("ö".encode(), b"\xff\xff")):
        with pytest.raises(MalformedError):
            LatchedFinding.decode(wrong)


def test_every_kind_has_a_name_and_says_what_to_do() -> None:
    assert [finding_name(kind) for kind in FindingKind] == [
        "anchor-left",
        "coin-gone",
        "second-version",
        "block-refused",
    ]
    assert len({remedy(kind) for kind in FindingKind}) == len(FindingKind)
