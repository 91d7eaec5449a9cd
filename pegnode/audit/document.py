"""A statement of solvency as a file: JSON that people can read, in one form but for white space.

What is printed and what was signed can't part: the signed bytes are made of these fields, and a file with a field more,
twice, in another order or written in another way is refused.
"""

import msgspec

from bridge.bitcoin.identifiers import BlockHash, hash_from_hex, hash_to_hex
from bridge.errors import MalformedError, Reason
from bridge.state import Anchor
from federation.membership import MAX_MEMBERS
from federation.statement import BlockTerms, SignedStatement, SolvencyStatement
from pegnode.errors import ReasonedError
from pegnode.json_document import parse_json, render_json, require_form

MAX_DOCUMENT_BYTES = 2_000 + 300 * MAX_MEMBERS


class DocumentReason(Reason):
    """Why a file holds no statement."""

    MALFORMED = "document-malformed"
    """No JSON, not these fields, or not in the one form."""
    UNWRITABLE = "document-unwritable"
    """The file can't be written."""


class DocumentRefused(ReasonedError):  # noqa: N818 -- a verdict, as in bridge.errors
    """A file that holds no statement. reason: DocumentReason."""


class L1BlockEntry(msgspec.Struct, frozen=True):
    """An L1 block. hash: reversed hex."""

    height: int
    hash: str


class SignatureEntry(msgspec.Struct, frozen=True):
    """One member's signature. member: its index in the genesis.  signature: 64 bytes in hex."""

    member: int
    signature: str


class StatementDocument(msgspec.Struct, frozen=True):
    """A signed statement. Block hashes: reversed hex; chain id and ledger root: hex; amounts: satoshis.

    l1_tip: the L1 block up to which the reserve was found whole.  time_ms: Unix time in milliseconds.
    """

    chain_id: str
    epoch: int
    height: int
    block_hash: str
    anchor: L1BlockEntry
    ledger_root: str
    reserves_sats: int
    deficit_sats: int
    supply_sats: int
    unsettled_sats: int
    fund_sats: int
    l1_tip: L1BlockEntry
    time_ms: int
    signatures: list[SignatureEntry]

    @classmethod
    def of(cls, signed: SignedStatement) -> "StatementDocument":
        """The statement on paper."""
        statement = signed.statement
        terms = statement.terms
        return cls(
            chain_id=terms.chain_id.hex(),
            epoch=terms.epoch,
            height=terms.height,
            block_hash=hash_to_hex(terms.block_hash),
            anchor=_entry(terms.anchor),
            ledger_root=terms.ledger_root.hex(),
            reserves_sats=terms.reserves_sats,
            deficit_sats=terms.deficit_sats,
            supply_sats=terms.supply_sats,
            unsettled_sats=terms.unsettled_sats,
            fund_sats=terms.fund_sats,
            l1_tip=_entry(statement.l1_tip),
            time_ms=statement.time_ms,
            signatures=[SignatureEntry(member, signature64.hex()) for member, signature64 in signed.signatures],
        )

    def signed(self) -> SignedStatement:
        """The statement and its signatures, none of which is checked. Raises MalformedError."""
        try:
            statement = SolvencyStatement(self._terms(), _anchor(self.l1_tip), self.time_ms)
            signatures = tuple((entry.member, bytes.fromhex(entry.signature)) for entry in self.signatures)
            return SignedStatement.decode(SignedStatement(statement, signatures).encode())
        except ValueError as error:
            raise MalformedError(str(error)) from error

    def _terms(self) -> BlockTerms:
        return BlockTerms(
            chain_id=bytes.fromhex(self.chain_id),
            epoch=self.epoch,
            height=self.height,
            block_hash=BlockHash(hash_from_hex(self.block_hash)),
            anchor=_anchor(self.anchor),
            ledger_root=bytes.fromhex(self.ledger_root),
            reserves_sats=self.reserves_sats,
            deficit_sats=self.deficit_sats,
            supply_sats=self.supply_sats,
            unsettled_sats=self.unsettled_sats,
            fund_sats=self.fund_sats,
        )


def render_document(signed: SignedStatement) -> bytes:
    """The file of a statement."""
    return render_json(StatementDocument.of(signed))


def parse_document(data: bytes) -> SignedStatement:
    """The statement in a file; its signatures are not checked. Raises DocumentRefused."""
    try:
        signed = parse_json(data, StatementDocument).signed()
        require_form(data, StatementDocument.of(signed))
    except MalformedError as error:
        raise DocumentRefused(DocumentReason.MALFORMED, f"no statement of solvency: {error}") from error
    return signed


def _entry(anchor: Anchor) -> L1BlockEntry:
    return L1BlockEntry(anchor.height, hash_to_hex(anchor.hash))


def _anchor(entry: L1BlockEntry) -> Anchor:
    return Anchor(entry.height, BlockHash(hash_from_hex(entry.hash)))
