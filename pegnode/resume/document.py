"""A plan as a file: the records that end a halt, with signatures, in JSON that people can read.

What is signed is each record's bytes, in `record`. What `says` tells of them is made of these bytes, and a file that
tells anything else is refused, as is one with a field more, twice, in another order or written in another way: nobody
can be shown one thing and sign another.
"""

from itertools import pairwise

import msgspec

from bridge.errors import MalformedError, Reason
from bridge.records import MAX_RECORD_BYTES, Record
from federation.endorsement import EndorsementReason, EndorsementRefused
from federation.membership import MAX_MEMBERS
from federation.record import SignedRecord
from pegnode.audit.document import SignatureEntry
from pegnode.errors import ReasonedError
from pegnode.json_document import parse_json, render_json, require_form
from pegnode.resume.words import describe

MAX_RECORDS = 8
"""Of one plan: a deficit of 1,000 coins in each but the last."""
MAX_DOCUMENT_BYTES = MAX_RECORDS * (8 * MAX_RECORD_BYTES + 300 * MAX_MEMBERS)


class PlanReason(Reason):
    """Why a file holds no plan."""

    MALFORMED = "plan-malformed"
    """No JSON, not these fields, not in the one form, or it says something else than its records do."""
    NOT_CONSECUTIVE = "plan-not-consecutive"  # A record's serial is not the one after the record before it.
    UNWRITABLE = "plan-unwritable"  # The file can't be written.


class PlanRefused(ReasonedError):  # noqa: N818 -- a verdict, as in bridge.errors
    """A file that holds no plan. reason: PlanReason."""


class RecordEntry(msgspec.Struct, frozen=True):
    """One record. says: what it says, in words.  record: its bytes in hex."""

    says: list[str]
    record: str
    signatures: list[SignatureEntry]

    @classmethod
    def of(cls, signed: SignedRecord) -> "RecordEntry":
        """A record on paper."""
        signatures = [SignatureEntry(member, signature64.hex()) for member, signature64 in signed.signatures]
        return cls(list(describe(signed.record)), signed.record.encode().hex(), signatures)

    def signed(self) -> SignedRecord:
        """The record and its signatures, none of which is checked. Raises MalformedError, ValueError."""
        record = Record.decode(bytes.fromhex(self.record))
        signatures = tuple((entry.member, bytes.fromhex(entry.signature)) for entry in self.signatures)
        return SignedRecord.decode(SignedRecord(record, signatures).encode())


class PlanDocument(msgspec.Struct, frozen=True):
    """A plan: records with serials one after the other, in the order in which blocks carry them out."""

    records: list[RecordEntry]


def render_plan(records: tuple[SignedRecord, ...]) -> bytes:
    """The file of a plan."""
    return render_json(_document(records))


def parse_plan(data: bytes) -> tuple[SignedRecord, ...]:
    """The records in a file, at least one; their signatures are not checked. Raises PlanRefused."""
    try:
        records = tuple(entry.signed() for entry in parse_json(data, PlanDocument).records)
        require_form(data, _document(records))
    except (MalformedError, ValueError) as error:
        raise PlanRefused(PlanReason.MALFORMED, f"no plan: {error}") from error
    if not 1 <= len(records) <= MAX_RECORDS:
        raise PlanRefused(PlanReason.MALFORMED, f"{len(records)} records, of 1 to {MAX_RECORDS}")
    require_consecutive([signed.record for signed in records])
    return records


def _document(records: tuple[SignedRecord, ...]) -> PlanDocument:
    return PlanDocument([RecordEntry.of(signed) for signed in records])


def require_consecutive(records: list[Record]) -> None:
    """Raise PlanRefused (NOT_CONSECUTIVE) unless each serial is one above that before."""
    for first, second in pairwise(records):
        if second.serial != first.serial + 1:
            raise PlanRefused(PlanReason.NOT_CONSECUTIVE, f"{second.serial} after {first.serial}")


def joined_plans(first: tuple[SignedRecord, ...], second: tuple[SignedRecord, ...]) -> tuple[SignedRecord, ...]:
    """The same records with the signatures of both. Raises EndorsementRefused (DIFFERENT)."""
    if len(first) != len(second):
        raise EndorsementRefused(EndorsementReason.DIFFERENT, f"{len(first)} records, and {len(second)}")
    return tuple(one.joined(other) for one, other in zip(first, second, strict=True))
