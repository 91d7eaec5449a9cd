"""A record with the signatures that make it count: a quorum of the members, by vote keys.      (pure)

A signed record proves itself to whoever knows the genesis. What it may say, and whether a block may carry it out, is
`bridge.records`' matter; whether a member signs it, `federation.record_law`'s.
"""

from dataclasses import dataclass, replace
from typing import Self

from bridge.bitcoin.curve import SIGNATURE_SIZE
from bridge.codec import Encoded, Reader, Writer
from bridge.records import MAX_RECORD_BYTES, Record, RecordReason
from federation.endorsement import (
    EndorsementReason,
    EndorsementRefused,
    Signatures,
    joined,
    read_signatures,
    require_quorum,
    write_signatures,
)
from federation.errors import Refused
from federation.membership import MAX_MEMBERS, Membership

MAX_SIGNED_RECORD_BYTES = MAX_RECORD_BYTES + 4 + MAX_MEMBERS * (2 + SIGNATURE_SIZE)
"""The longest record, with as many signatures as a list may have."""


class RecordRefused(Refused):
    """A record, signed or to be, that is not accepted. reason: RecordReason or RecordLaw."""


@dataclass(frozen=True, slots=True)
class SignedRecord(Encoded):
    """A record with signatures: (member u16, signature 64), in rising order of members."""

    record: Record
    signatures: Signatures

    def write(self, writer: Writer) -> None:
        """Append the record, then a list of (member u16, signature 64)."""
        self.record.write(writer)
        write_signatures(writer, self.signatures)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(Record.read(reader), read_signatures(reader))

    @property
    def signers(self) -> tuple[int, ...]:
        """The members, as they stand."""
        return tuple(member for member, _ in self.signatures)

    def joined(self, other: "SignedRecord") -> "SignedRecord":
        """The same record with the signatures of both. Raises EndorsementRefused(DIFFERENT)."""
        if other.record != self.record:
            detail = f"records {self.record.serial} and {other.record.serial}, of other contents"
            raise EndorsementRefused(EndorsementReason.DIFFERENT, detail)
        return replace(self, signatures=joined(self.signatures, other.signatures))


def verify_record(signed: SignedRecord, membership: Membership, chain_id: bytes) -> None:
    """Raise Refused unless a quorum of these members signed it for this chain and epoch. Its serial is not looked at.

    RecordRefused: WRONG_CHAIN, WRONG_EPOCH. EndorsementRefused: any reason but DIFFERENT.
    """
    record = signed.record
    if record.chain_id != chain_id:
        raise RecordRefused(RecordReason.WRONG_CHAIN, f"of the chain {record.chain_id.hex()}")
    if record.epoch != membership.epoch:
        raise RecordRefused(RecordReason.WRONG_EPOCH, f"{record.epoch}, not {membership.epoch}")
    require_quorum(signed.signatures, record.digest32, membership)
