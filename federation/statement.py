"""A statement of solvency: what the peg holds and owes after one block, signed by a quorum of the members.      (pure)

A statement names one final block of one chain, the five terms and the ledger root after it, the L1 block up to which
the signers looked at the reserve, and when. Each member signs the tagged hash of its canonical encoding with its vote
key; the tag is the statements' own, so no signature here can pass for a vote, nor a vote for one of these. Whether a
member signs, `federation.statement_law` says.
"""

from dataclasses import dataclass, replace
from typing import Self

from bridge.bitcoin.hashes import tagged_hash
from bridge.bitcoin.identifiers import HASH_SIZE, BlockHash, hash_to_hex
from bridge.codec import Encoded, Reader, Writer
from bridge.errors import Reason
from bridge.state import Anchor
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
from federation.membership import Membership

CLOCK_TOLERANCE_MS = 120_000
"""By how much a statement's time may be ahead of the clock of whoever looks at it."""


class StatementReason(Reason):
    """Why a statement proves nothing."""

    WRONG_CHAIN = "statement-wrong-chain"  # Of another chain.
    WRONG_EPOCH = "statement-wrong-epoch"  # Of another epoch than the members'.
    DOES_NOT_HOLD = "statement-does-not-hold"  # reserves + deficit are not supply + unsettled + fund.
    L1_BELOW_ANCHOR = "statement-l1-below-anchor"  # The reserve was looked at below the block's own anchor.
    TIME_AHEAD = "statement-time-ahead"  # It is dated later than now.
    STALE = "statement-stale"  # It is older than whoever looks at it accepts.


class StatementRefused(Refused):
    """A statement, signed or to be, that is not accepted. reason: StatementReason or StatementLaw."""


@dataclass(frozen=True, slots=True)
class BlockTerms(Encoded):
    """What the ledger says after one block.

    chain_id, block_hash, ledger_root: 32 bytes each.  epoch: u32.  height: u64.  anchor: the block's, on L1.
    The five terms in satoshis, u64 each.
    """

    chain_id: bytes
    epoch: int
    height: int
    block_hash: BlockHash
    anchor: Anchor
    ledger_root: bytes
    reserves_sats: int
    deficit_sats: int
    supply_sats: int
    unsettled_sats: int
    fund_sats: int

    def write(self, writer: Writer) -> None:
        """Append 184 bytes: chain id, epoch, height, block hash, anchor, ledger root, the five terms."""
        writer.fixed(self.chain_id, HASH_SIZE).u32(self.epoch).u64(self.height).fixed(self.block_hash, HASH_SIZE)
        self.anchor.write(writer)
        writer.fixed(self.ledger_root, HASH_SIZE).u64(self.reserves_sats).u64(self.deficit_sats)
        writer.u64(self.supply_sats).u64(self.unsettled_sats).u64(self.fund_sats)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(
            chain_id=reader.take(HASH_SIZE),
            epoch=reader.u32(),
            height=reader.u64(),
            block_hash=BlockHash(reader.take(HASH_SIZE)),
            anchor=Anchor.read(reader),
            ledger_root=reader.take(HASH_SIZE),
            reserves_sats=reader.u64(),
            deficit_sats=reader.u64(),
            supply_sats=reader.u64(),
            unsettled_sats=reader.u64(),
            fund_sats=reader.u64(),
        )

    @property
    def holds(self) -> bool:
        """Whether reserves + deficit == supply + unsettled + fund."""
        return self.reserves_sats + self.deficit_sats == self.supply_sats + self.unsettled_sats + self.fund_sats


@dataclass(frozen=True, slots=True)
class SolvencyStatement(Encoded):
    """What is signed. l1_tip: the L1 block up to which the reserve was found whole.  time_ms: u64, since 1970."""

    terms: BlockTerms
    l1_tip: Anchor
    time_ms: int

    def write(self, writer: Writer) -> None:
        """Append 228 bytes: the terms, the L1 tip, the time."""
        self.terms.write(writer)
        self.l1_tip.write(writer)
        writer.u64(self.time_ms)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(BlockTerms.read(reader), Anchor.read(reader), reader.u64())

    @property
    def digest32(self) -> bytes:
        """The 32 bytes that members sign."""
        return tagged_hash("pegnode/solvency-statement", self.encode())


@dataclass(frozen=True, slots=True)
class SignedStatement(Encoded):
    """A statement with signatures: (member u16, signature 64), in rising order of members."""

    statement: SolvencyStatement
    signatures: Signatures

    def write(self, writer: Writer) -> None:
        """Append the statement, then a list of (member u16, signature 64)."""
        self.statement.write(writer)
        write_signatures(writer, self.signatures)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(SolvencyStatement.read(reader), read_signatures(reader))

    @property
    def signers(self) -> tuple[int, ...]:
        """The members, as they stand."""
        return tuple(member for member, _ in self.signatures)

    def joined(self, other: "SignedStatement") -> "SignedStatement":
        """The same statement with the signatures of both. Raises EndorsementRefused(DIFFERENT)."""
        if other.statement != self.statement:
            what = ", ".join(differences(self.statement, other.statement))
            raise EndorsementRefused(EndorsementReason.DIFFERENT, f"they differ in {what}")
        return replace(self, signatures=joined(self.signatures, other.signatures))


def differences(first: SolvencyStatement, second: SolvencyStatement) -> list[str]:
    """The names of the fields in which two statements differ."""
    names = [name for name in BlockTerms.__slots__ if getattr(first.terms, name) != getattr(second.terms, name)]
    return names + [name for name in ("l1_tip", "time_ms") if getattr(first, name) != getattr(second, name)]


def check_statement(statement: SolvencyStatement, membership: Membership, chain_id: bytes, now_ms: int) -> None:
    """Raise StatementRefused unless it is of this chain and epoch, adds up, and is not dated ahead. now_ms: Unix time.

    WRONG_CHAIN, WRONG_EPOCH, DOES_NOT_HOLD, L1_BELOW_ANCHOR, TIME_AHEAD.
    """
    terms = statement.terms
    if terms.chain_id != chain_id:
        raise StatementRefused(StatementReason.WRONG_CHAIN, f"{terms.chain_id.hex()}, not {chain_id.hex()}")
    if terms.epoch != membership.epoch:
        raise StatementRefused(StatementReason.WRONG_EPOCH, f"{terms.epoch}, not {membership.epoch}")
    if not terms.holds:
        raise StatementRefused(StatementReason.DOES_NOT_HOLD, "reserves + deficit are not supply + unsettled + fund")
    if statement.l1_tip.height < terms.anchor.height:
        detail = f"L1 block {statement.l1_tip.height}, with the anchor at {terms.anchor.height}"
        raise StatementRefused(StatementReason.L1_BELOW_ANCHOR, detail)
    if statement.time_ms > now_ms + CLOCK_TOLERANCE_MS:
        raise StatementRefused(StatementReason.TIME_AHEAD, f"by {(statement.time_ms - now_ms) // 1000} s")


def check_age(statement: SolvencyStatement, now_ms: int, max_age_ms: int) -> None:
    """Raise StatementRefused(STALE) for a statement that was made more than `max_age_ms` ago."""
    age_ms = now_ms - statement.time_ms
    if age_ms > max_age_ms:
        raise StatementRefused(StatementReason.STALE, f"{age_ms // 1000} s old, at most {max_age_ms // 1000} s")


def verify_statement(signed: SignedStatement, membership: Membership, chain_id: bytes, now_ms: int) -> None:
    """Raise StatementRefused or EndorsementRefused unless a quorum signed a statement about this chain that adds up.

    How old it may be, whoever looks at it decides: see `check_age`.
    """
    terms = signed.statement.terms
    if terms.chain_id != chain_id:  # first: of another chain's members nothing is known
        raise StatementRefused(StatementReason.WRONG_CHAIN, f"of the chain {terms.chain_id.hex()}")
    require_quorum(signed.signatures, signed.statement.digest32, membership)
    check_statement(signed.statement, membership, chain_id, now_ms)


def describe_block(terms: BlockTerms) -> str:
    """Which block the terms are of, for people."""
    return f"block {terms.height} {hash_to_hex(terms.block_hash)}"
