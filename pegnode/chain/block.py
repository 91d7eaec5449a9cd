"""A block: a header, and the body whose full bytes the header commits to."""

from dataclasses import dataclass
from functools import cached_property
from typing import Self

from bridge.batch import Batch
from bridge.bitcoin.hashes import tagged_list
from bridge.bitcoin.identifiers import BlockHash
from bridge.codec import Encoded, Reader, Writer
from bridge.errors import MalformedError
from bridge.evidence import Evidence
from bridge.records import Rebase
from federation.record import MAX_SIGNED_RECORD_BYTES, SignedRecord
from pegnode.chain.header import HEADER_SIZE, Header

MAX_BODY_BYTES = 4_000_000
"""No chain may set its cap on a body above this: a block and its vote must fit one message between nodes."""
MIN_TRANSACTION_BYTES = 60
"""One input, one output, nothing in either. So no body has more items than it is worth reading."""
MAX_TRANSACTION_BYTES = 400_000
"""With witness. Core relays no transaction above a weight of 400,000. Source: MAX_STANDARD_TX_WEIGHT."""
MAX_RECORDS = 16
MAX_EVIDENCE = 10_000
MAX_REFUNDS = 10_000
MAX_TRANSACTIONS = 100_000
MAX_BATCHES = 2
ITEM_OVERHEAD_BYTES = 4
"""What an item of a body adds to its own length."""


@dataclass(frozen=True)
class Body(Encoded):
    """What a block does, in the order in which it does it.

    records: quorum-signed decisions.  evidence: what L1 says.  refunds: derived transactions that return expired burns.
    transactions: Bitcoin transactions with witness.  batches: L1 transactions for the members to sign.
    """

    records: tuple[SignedRecord, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    refunds: tuple[bytes, ...] = ()
    transactions: tuple[bytes, ...] = ()
    batches: tuple[Batch, ...] = ()

    def write(self, writer: Writer) -> None:
        """Append five counted lists of length-prefixed items."""
        for section in self._sections.values():
            writer.sequence(section, Writer.variable)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        def items(count: int, size: int) -> tuple[bytes, ...]:
            return reader.sequence(count, lambda item: item.variable(size))

        def transactions(count: int) -> tuple[bytes, ...]:
            return reader.sequence(count, _read_transaction)

        return cls(
            records=tuple(SignedRecord.decode(item) for item in items(MAX_RECORDS, MAX_SIGNED_RECORD_BYTES)),
            evidence=tuple(Evidence.decode(item) for item in items(MAX_EVIDENCE, MAX_BODY_BYTES)),
            refunds=transactions(MAX_REFUNDS),
            transactions=transactions(MAX_TRANSACTIONS),
            batches=tuple(Batch.decode(item) for item in items(MAX_BATCHES, MAX_BODY_BYTES)),
        )

    @cached_property
    def root(self) -> bytes:
        """32 bytes: counted leaves of each section, then of the sections."""
        return tagged_list(
            "pegnode/body",
            [tagged_list(f"pegnode/body/{name}", list(section)) for name, section in self._sections.items()],
        )

    @cached_property
    def size_bytes(self) -> int:
        """Length of the encoding."""
        return sum(4 + sum(ITEM_OVERHEAD_BYTES + len(item) for item in section) for section in self._sections.values())

    @cached_property
    def _sections(self) -> dict[str, tuple[bytes, ...]]:
        """The sections in their fixed order, each item encoded."""
        return {
            "records": tuple(record.encode() for record in self.records),
            "evidence": tuple(evidence.encode() for evidence in self.evidence),
            "refunds": self.refunds,
            "transactions": self.transactions,
            "batches": tuple(batch.encode() for batch in self.batches),
        }

    @property
    def evidence_bytes(self) -> int:
        """Length of all evidence, encoded."""
        return sum(len(item) for item in self._sections["evidence"])

    @property
    def rebase(self) -> Rebase | None:
        """Where its records move the anchor after a deep reorg of L1, if they do."""
        return next((signed.record.rebase for signed in self.records if signed.record.rebase is not None), None)


def _read_transaction(reader: Reader) -> bytes:
    data = reader.variable(MAX_TRANSACTION_BYTES)
    if len(data) < MIN_TRANSACTION_BYTES:
        raise MalformedError(f"a transaction of {len(data)} bytes")
    return data


EMPTY_BODY = Body()


@dataclass(frozen=True, slots=True)
class Block:
    """A header and a body. That they belong together is a rule, not a property of the type."""

    header: Header
    body: Body

    @property
    def hash(self) -> BlockHash:
        """The header's hash."""
        return self.header.hash

    def encode(self) -> bytes:
        """The header, then the body."""
        return self.header.encode() + self.body.encode()

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """The block of exactly these bytes; raises MalformedError."""
        return cls(Header.decode(data[:HEADER_SIZE]), Body.decode(data[HEADER_SIZE:]))

    @classmethod
    def decode_whole(cls, data: bytes) -> Self:
        """The block of exactly these bytes; raises MalformedError also when the body is not the header's.

        For what peers send: another body under a good header must not be judged, or it would condemn the header.
        """
        block = cls.decode(data)
        if block.body.root != block.header.body_root:
            raise MalformedError("the body is not the one that the header commits to")
        return block
